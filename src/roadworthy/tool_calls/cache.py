"""Results of reads that declare `cache_ttl` or a `LastGood`, kept in the store for so long.

`call` asks before it executes and keeps what succeeded, `ladder` asks when all else failed.
Invariant: a result is used again only for the same tool, schema and arguments, of the same user of
the same tenant.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec
from sqlalchemy import bindparam, delete, select

from roadworthy.clock import MICROS
from roadworthy.messages import ToolResult
from roadworthy.run import Run
from roadworthy.store import payloads
from roadworthy.store import schema as s
from roadworthy.store.database import Statement, Tx, upsert
from roadworthy.tool_calls.plan import Planned
from roadworthy.tools.results import Rendered

T = TypeVar("T")

_P = bindparam
_FIND = Statement(
    select(s.payload.c.data, s.tool_cache.c.kept_at)
    .join(s.tool_cache, s.tool_cache.c.result == s.payload.c.id)
    .where(s.tool_cache.c.key == _P("cache_key"), s.tool_cache.c.kept_at > _P("since"))
)
_new = upsert(s.tool_cache)
_KEEP = Statement(
    _new.on_conflict_do_update(
        index_elements=["key"],
        set_={name: _new.excluded[name] for name in ("result", "expires", "kept_at")},
    )
)
_FORGET = Statement(delete(s.tool_cache).where(s.tool_cache.c.expires <= _P("now")))


class Reader(Protocol):
    """Runs a query on committed rows."""

    def __call__(self, query: Callable[[Tx], T], /) -> Awaitable[T]:
        """What the query returns."""
        ...


@dataclass(frozen=True)
class Kept:
    """A kept result. age: microseconds."""

    shown: Rendered
    age: int


async def find(read: Reader, run: Run, planned: Planned, seconds: float) -> Kept | None:
    """The result kept for this call, unless it is older than so many seconds or was erased."""
    key, now = _key(run, planned), run.clock.now()
    since = now - int(seconds * MICROS)
    row = await read(lambda tx: tx.one(_FIND, cache_key=key, since=since))
    if row is None or row[0] is None:
        return None
    kept = msgspec.json.decode(row[0], type=ToolResult)
    return Kept(Rendered(kept.content, kept.files), max(0, now - row[1]))


def keep(tx: Tx, run: Run, planned: Planned, shown: Rendered, seconds: float) -> None:
    """Keep a result for so long."""
    kept = ToolResult(
        tool=planned.tool.name, call_id="", content=shown.text, files=tuple(shown.files)
    )
    address = payloads.keep(tx, msgspec.json.encode(kept), run.position.seal)
    now = run.clock.now()
    expires = now + int(seconds * MICROS)
    tx.run(_KEEP, key=_key(run, planned), result=address, expires=expires, kept_at=now)


def forget_expired(tx: Tx, now: int) -> None:
    """Drop what may no longer be used."""
    tx.run(_FORGET, now=now)


def _key(run: Run, planned: Planned) -> str:
    """Sealed with the tenant's own key, so that it tells nothing and fits no other tenant."""
    tool = planned.tool
    asked = [run.user.tenant, run.user.id, tool.name, tool.parameters, planned.arguments_hash]
    if run.veil.on:
        asked.append(run.veil.conversation)  # elsewhere the same tokens mean other values
    sealed: str = run.position.seal.address(msgspec.json.encode(asked, order="deterministic"))
    return sealed
