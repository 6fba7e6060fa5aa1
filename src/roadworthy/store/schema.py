"""The one schema, dialect-neutral. Concepts above keep their queries beside their code.

Migrations in `store.migrations` build exactly this (a test compares). Times are microseconds
since 1970 UTC, money is nano-dollars, JSON is text. Free text stands in `payload` only.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

tenant = Table(
    "tenant",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key", LargeBinary, nullable=False),  # addresses this tenant's payloads (HMAC)
)

declaration = Table(
    "declaration",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("body", Text, nullable=False),
)

conversation = Table(
    "conversation",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("user", Text, nullable=False),
    Column("active_run", Text),  # the only run that may execute now
    Column("next_ordinal", Integer, nullable=False),
    Column("owner", Text, nullable=False, server_default="agent"),  # agent | waiting | person
    Column("person", Text, nullable=False, server_default=""),  # who owns it
    sqlite_with_rowid=False,
)

run = Table(
    "run",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("conversation", Text),
    Column("ordinal", Integer, nullable=False),  # place within its conversation
    Column("pattern", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("body_hash", Text, nullable=False),
    Column("epoch", Integer, nullable=False),  # every claim raises it; older holders are fenced
    Column("owner", Text),
    Column("segment", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("nanos", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("priority", Integer, nullable=False, server_default="100"),  # 1 is the highest
    Column("dispatch", Integer, nullable=False, server_default="1"),  # its present engine job
    Column("dispatched", Integer, nullable=False, server_default="0"),  # the last one enqueued
    UniqueConstraint("tenant", "idempotency_key"),
    Index("run_by_status", "status", "created_at"),
    Index("run_by_conversation", "tenant", "conversation", "ordinal"),
    Index("run_by_time", "created_at"),
)

event = Table(
    "event",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("v", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("refs", Text, nullable=False),  # field -> payload id, JSON; "" for none
    sqlite_with_rowid=False,
)

payload = Table(
    "payload",
    metadata,
    Column("id", Text, primary_key=True),  # keyed hash of the content
    Column("data", LargeBinary),  # NULL: erased
)

wait = Table(
    "wait",
    metadata,
    Column("id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("kind", Text, nullable=False),  # as `Wait.kind`
    Column("tool", Text, nullable=False),
    Column("asks", Text, nullable=False),
    Column("detail", Text, nullable=False),  # payload id of the question or the arguments
    Column("arguments_hash", Text, nullable=False),
    Column("expires", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("answered_at", BigInteger),
    Column("answer", Text),  # payload id
    Index("wait_by_run", "run_id"),
    Index("wait_open", "answered_at", "expires"),
)

command = Table(
    "command",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("run_id", Text, nullable=False),
    Column("kind", Text, nullable=False),  # cancel
    Column("by", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("done_at", BigInteger),
    Index("command_by_run", "run_id", "done_at"),
)

account = Table(
    "account",
    metadata,
    Column("id", Text, primary_key=True),  # scope|subject|window|bucket|unit
    Column("scope", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("window", Text, nullable=False),
    Column("bucket", Text, nullable=False),
    Column("unit", Text, nullable=False),  # usd (nano-dollars) | tokens
    Column("cap", BigInteger, nullable=False),
    Column("settled", BigInteger, nullable=False),
    Column("assumed", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("warned", Integer, nullable=False),
    Column("closed", Integer, nullable=False),  # 1: a charge passed its reservation; no new ones
    sqlite_with_rowid=False,
)

reservation = Table(
    "reservation",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),  # held | settled | assumed | released
    Column("nanos", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("actual_nanos", BigInteger, nullable=False),
    Column("actual_tokens", BigInteger, nullable=False),
    Column("accounts", Text, nullable=False),  # ids, newline-separated
    sqlite_with_rowid=False,
)

owner = Table(
    "owner",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("boot", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("expires", BigInteger, nullable=False),
)

tool_cache = Table(
    "tool_cache",
    metadata,
    Column("key", Text, primary_key=True),
    Column("result", Text, nullable=False),  # payload id
    Column("expires", BigInteger, nullable=False),
    Column("kept_at", BigInteger, nullable=False, server_default="0"),
)

breaker = Table(
    "breaker",
    metadata,
    Column("name", Text, primary_key=True),  # tool:... | model:...
    Column("holder", Text, primary_key=True),  # "": the verdict of all; else one process's counts
    Column("until", BigInteger, nullable=False),
    Column("probing_until", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("calls", Integer, nullable=False),
    sqlite_with_rowid=False,
)

schedule = Table(
    "schedule",
    metadata,
    Column("name", Text, primary_key=True),
    Column("pattern", Text, nullable=False),
    Column("cron", Text, nullable=False),  # five fields, UTC
    Column("missed", Text, nullable=False),  # once | skip
    Column("tenant", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("conversation", Text),
    Column("body", Text, nullable=False),  # payload id of the input and the options
    Column("next_at", BigInteger, nullable=False),
    Column("last_at", BigInteger),
    Column("last_run", Text),
    Index("schedule_by_time", "next_at"),
)

said = Table(
    "said",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("conversation", Text, primary_key=True),  # or the run, where it has none
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("run_id", Text, nullable=False),
    Column("handover", Text, nullable=False),  # key of the handover it belongs to; "": none
    Column("who", Text, nullable=False),  # user | agent | person
    Column("by", Text, nullable=False),  # which person
    Column("text", Text, nullable=False),  # payload id of the message
    Column("at", BigInteger, nullable=False),
    Column("key", Text),  # as its sender gave it
    Column("body_hash", Text, nullable=False),
    UniqueConstraint("tenant", "conversation", "key"),
    sqlite_with_rowid=False,
)

escalation = Table(
    "escalation",
    metadata,
    Column("id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("handover", Text, nullable=False),  # key of its wait; "": it only has to be decided
    Column("tenant", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("conversation", Text),
    Column("agent", Text, nullable=False),
    Column("kind", Text, nullable=False),  # decision | handover | notice
    Column("trigger", Text, nullable=False),
    Column("reason", Text, nullable=False),  # payload id
    Column("queue", Text, nullable=False),
    Column("skill", Text, nullable=False),
    Column("priority", Integer, nullable=False),  # 1 first
    Column("status", Text, nullable=False),  # open | taken | resolved
    Column("assignee", Text),
    Column("locked_until", BigInteger),
    Column("due_at", BigInteger),
    Column("snoozed_until", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("resolved_at", BigInteger),
    Column("resolution", Text, nullable=False),  # payload id, or ""
    Column("tags", Text, nullable=False),  # newline-separated
    Column("level", Integer, nullable=False),  # how often it was escalated further
    Column("version", Integer, nullable=False),  # every change raises it
    Index("escalation_by_status", "status", "queue", "priority"),
    Index("escalation_by_run", "run_id"),
    Index("escalation_by_conversation", "tenant", "conversation"),
    Index("escalation_due", "status", "due_at"),
)

escalation_log = Table(
    "escalation_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("escalation_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("by", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("detail", Text, nullable=False),  # payload id, or ""
    Column("key", Text),  # the action's idempotency key
    UniqueConstraint("escalation_id", "key"),
    Index("escalation_log_by_item", "escalation_id", "id"),
)

notice = Table(
    "notice",
    metadata,
    Column("id", Text, primary_key=True),
    Column("escalation_id", Text, nullable=False),
    Column("channel", Text, nullable=False),  # by its name in `Inbox(notify=...)`
    Column("event", Text, nullable=False),
    Column("body", Text, nullable=False),  # payload id
    Column("attempts", Integer, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("sent_at", BigInteger),
    Column("error", Text, nullable=False),
    Index("notice_due", "sent_at", "next_at"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("conversation", Text),
    Column("agent", Text, nullable=False),
    Column("kind", Text, nullable=False),  # user | operator
    Column("by", Text, nullable=False),
    Column("rating", Integer, nullable=False),  # -1 | 0 | 1
    Column("detail", Text, nullable=False),  # payload id: reason, correction, confidence
    Column("consent", Integer, nullable=False),  # 1: may become a case for evals
    Column("at", BigInteger, nullable=False),
    Index("feedback_by_run", "run_id"),
    Index("feedback_by_time", "tenant", "at"),
)
