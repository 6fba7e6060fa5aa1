"""Calls whose result arrives later, from anywhere: `@tool(later=True)`.

`call` opens the wait before such a call begins, `intake.deliver` and the keeper answer it.
Invariant: a wait is answered once, by a delivery, its deadline, or the call's own end; who comes
after is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from roadworthy.clock import moment
from roadworthy.events import ToolAcknowledged
from roadworthy.messages import File
from roadworthy.result import ENDS, is_resumable
from roadworthy.run import Run
from roadworthy.stops import Wait
from roadworthy.store import runs, waits
from roadworthy.store.codec import Seal
from roadworthy.store.database import Tx
from roadworthy.store.waits import WaitRow
from roadworthy.tool_calls.plan import Planned
from roadworthy.tools.results import Rendered

Answer: TypeAlias = Mapping[str, Any]
Taken: TypeAlias = Literal["accepted", "kept", "repeated", "conflict", "late", "over"]


def token_of(run: Run, key: str) -> str:
    """The call's idempotency key, and the right to answer it: made with the tenant's own key, so
    that nobody can guess it from the run's id. It is never stored."""
    token: str = run.position.seal.address(f"later\0{run.id}\0{key}".encode())
    return token


def wait_id(token: str) -> str:
    """The wait that a token answers."""
    return "ltr_" + hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()[:32]


def wait_for(run: Run, planned: Planned, expires: int | None = None) -> Wait:
    """What a run waits for until the result of this call is there."""
    return Wait(
        id=wait_id(token_of(run, planned.key)),
        key=_wait_key(planned.key),
        kind="later",
        tool=planned.tool.name,
        detail=None,
        arguments_hash=planned.arguments_hash,
        reason=f"the result of {planned.tool.name}",
        expires=expires,
    )


def answer_of(run: Run, key: str) -> Answer | None:
    """What this call's wait was answered with, when this segment began."""
    return run.past.answers.get(_wait_key(key))


def acknowledged(run: Run, key: str) -> ToolAcknowledged | None:
    """That the call was begun and only its result is missing."""
    found = [e for e in run.past.attempts.get(key, ()) if isinstance(e, ToolAcknowledged)]
    return found[-1] if found else None


def wait_row(run: Run, wait: Wait) -> WaitRow:
    """A wait as its row."""
    return WaitRow(
        id=wait.id,
        run_id=run.id,
        key=wait.key,
        kind=wait.kind,
        tool=wait.tool,
        asks=wait.asks,
        detail=wait.detail,
        arguments_hash=wait.arguments_hash,
        expires=wait.expires,
        answered_at=None,
        answer=None,
    )


# --- answers -------------------------------------------------------------------------------


def result(shown: Rendered, whole: str) -> Answer:
    """A result that arrived. whole: its text before it was cut, to tell another one from it."""
    body = hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()
    files = msgspec.to_builtins(list(shown.files))
    return {"text": shown.text, "files": files, "body": body}


def failure(code: str, message: str, *, ours: bool) -> Answer:
    """That there is no result. ours: the runtime says so, no delivery."""
    return {"failed": [code, message], "ours": ours}


def failed(answer: Answer) -> tuple[str, str] | None:
    """(code, message) of an answer that is no result."""
    said = answer.get("failed")
    return None if said is None else (said[0], said[1])


def rendered(answer: Answer) -> Rendered:
    """The result that was delivered."""
    files = msgspec.convert(answer["files"], tuple[File, ...])
    return Rendered(answer["text"], files)


def take(tx: Tx, wait: str, answer: Answer, now: int) -> Taken:
    """Record a delivery, once, and wake its run."""
    found = waits.by_id(tx, wait)
    assert found is not None  # noqa: S101 - its caller has read it, and no row is ever removed
    run = runs.hold(tx, found.run_id)
    found = waits.by_id(tx, wait) or found
    if found.answered_at is not None:
        if found.answer == answer:
            return "repeated"
        return "late" if (found.answer or {}).get("ours") else "conflict"
    over = run.status in ENDS
    if over and not is_resumable(run.status, run.reason):
        return "over"
    if expire(tx, found, now):
        return "late"
    waits.answer(tx, wait, answer, Seal(runs.tenant_key_of(tx, run.tenant)), now)
    runs.wake(tx, run.id, now)
    return "kept" if over else "accepted"


def expire(tx: Tx, wait: WaitRow, now: int) -> bool:
    """Answer a wait whose deadline has passed with what that means for its kind, and wake its
    run: nobody approved it, or no result came. False: it may still be answered."""
    if wait.answered_at is not None or wait.expires is None or wait.expires > now:
        return False
    row = runs.hold(tx, wait.run_id)
    waits.answer(
        tx, wait.id, _overdue(wait, wait.expires), Seal(runs.tenant_key_of(tx, row.tenant)), now
    )
    runs.wake(tx, row.id, now)
    return True


def _overdue(wait: WaitRow, expires: int) -> Answer:
    if wait.kind == "later":
        by = f"{moment(expires):%Y-%m-%d %H:%M} UTC"
        return failure("late", f"no result came by {by}; whether one comes is unknown", ours=True)
    return {"decision": "reject", "by": "", "note": "Nobody decided in time."}


def _wait_key(key: str) -> str:
    return f"{key}/later"
