"""Results of reads that declare `cache_ttl`, kept in the store for so long.

`call` asks before it executes and keeps what succeeded. Invariant: a result is reused only for the
same tool, schema and arguments, of the same user of the same tenant.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
    select(s.payload.c.data)
    .join(s.tool_cache, s.tool_cache.c.result == s.payload.c.id)
    .where(s.tool_cache.c.key == _P("cache_key"), s.tool_cache.c.expires > _P("now"))
)
_new = upsert(s.tool_cache)
_KEEP = Statement(
    _new.on_conflict_do_update(
        index_elements=["key"],
        set_={"result": _new.excluded.result, "expires": _new.excluded.expires},
    )
)
_FORGET = Statement(delete(s.tool_cache).where(s.tool_cache.c.expires <= _P("now")))


class Reader(Protocol):
    """Runs a query on committed rows."""

    def __call__(self, query: Callable[[Tx], T], /) -> Awaitable[T]:
        """What the query returns."""
        ...


async def find(read: Reader, run: Run, planned: Planned) -> Rendered | None:
    """The result kept for this call, unless it is too old or was erased."""
    key, now = _key(run, planned), run.clock.now()
    row = await read(lambda tx: tx.one(_FIND, cache_key=key, now=now))
    if row is None or row[0] is None:
        return None
    kept = msgspec.json.decode(row[0], type=ToolResult)
    return Rendered(kept.content, kept.files)


def keep(tx: Tx, run: Run, planned: Planned, shown: Rendered) -> None:
    """Keep a result for as long as its tool declares."""
    ttl = planned.tool.cache_ttl
    if ttl is None:
        return
    kept = ToolResult(
        tool=planned.tool.name, call_id="", content=shown.text, files=tuple(shown.files)
    )
    address = payloads.keep(tx, msgspec.json.encode(kept), run.position.seal)
    expires = run.clock.now() + int(ttl * MICROS)
    tx.run(_KEEP, key=_key(run, planned), result=address, expires=expires)


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
