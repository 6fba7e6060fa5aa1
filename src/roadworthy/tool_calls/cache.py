"""Results of reads that declare `cache_ttl` or a `LastGood`, kept in the store for so long.

`call` asks before it executes and keeps what succeeded, `ladder` asks when all else failed, `turn`
drops what a write invalidates. Invariant: a result is used again only for the same tool, schema and
arguments, of the same user of the same tenant, and never when it was read before a write that
invalidates it had its outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import bindparam, delete, select

from roadworthy.agent import Tool
from roadworthy.clock import MICROS
from roadworthy.events import ToolOutcome, ToolRefused
from roadworthy.messages import ToolResult
from roadworthy.run import Done, Run
from roadworthy.standins import LastGood
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
_CHANGED = Statement(
    select(s.tool_cache.c.result).where(
        s.tool_cache.c.key == _P("cache_key"), s.tool_cache.c.expires > _P("now")
    )
)
_DAY = 86_400.0
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
    now = run.clock.now()
    since = now - int(seconds * MICROS)

    def look(tx: Tx) -> tuple[str, Any]:
        state = _state(tx, run, planned.tool.name)
        return state, tx.one(_FIND, cache_key=_key(run, planned, state), since=since)

    run.read_at[planned.key], row = await read(look)
    if row is None or row[0] is None:
        return None
    kept = msgspec.json.decode(row[0], type=ToolResult)
    return Kept(Rendered(kept.content, kept.files), max(0, now - row[1]))


async def begin(read: Reader, run: Run, planned: Planned) -> None:
    """A read whose result may be kept, although none is looked for, begins."""
    run.read_at[planned.key] = await read(lambda tx: _state(tx, run, planned.tool.name))


def keep(tx: Tx, run: Run, planned: Planned, shown: Rendered, seconds: float) -> None:
    """Keep a result for so long."""
    kept = ToolResult(
        tool=planned.tool.name, call_id="", content=shown.text, files=tuple(shown.files)
    )
    address = payloads.keep(tx, msgspec.json.encode(kept), run.position.seal)
    now = run.clock.now()
    expires = now + int(seconds * MICROS)
    state = run.read_at.get(planned.key)  # of when it began: later writes it may not know
    if state is None:
        state = _state(tx, run, planned.tool.name)
    key = _key(run, planned, state)
    tx.run(_KEEP, key=key, result=address, expires=expires, kept_at=now)


def dropping(run: Run, planned: Planned, done: Done[ToolOutcome]) -> Done[ToolOutcome]:
    """The outcome of an effect; what its tool invalidates is dropped in its commit, also when it
    failed: it may have done a part."""
    others = (tool for other in planned.tool.alternatives for tool in other.invalidates)
    stale = (*planned.tool.invalidates, *others)
    if not stale or isinstance(done.outcome, ToolRefused):
        return done

    def also(tx: Tx) -> Any:  # noqa: ANN401 - as the outcome's own
        for tool in stale:
            _drop(tx, run, tool, f"{run.id}/{planned.key}")
        return None if done.also is None else done.also(tx)

    return replace(done, also=also)


def _drop(tx: Tx, run: Run, tool: Tool[Any], state: str) -> None:
    """Results kept under an earlier state are found no more. The mark outlives them all."""
    used = [rung.seconds for rung in tool.fallback if isinstance(rung, LastGood)]
    now = run.clock.now()
    expires = now + int((2 * max(tool.cache_ttl or 0.0, *used, 0.0) + _DAY) * MICROS)
    tx.run(_KEEP, key=_mark(run, tool.name), result=state, expires=expires, kept_at=now)


def _state(tx: Tx, run: Run, tool: str) -> str:
    """The last effect that invalidated this user's results of a tool; "" when none did."""
    row = tx.one(_CHANGED, cache_key=_mark(run, tool), now=run.clock.now())
    return "" if row is None else str(row[0])


def _mark(run: Run, tool: str) -> str:
    asked = ["invalidated", run.user.tenant, run.user.id, tool]
    return _sealed(run, asked)


def forget_expired(tx: Tx, now: int) -> None:
    """Drop what may no longer be used."""
    tx.run(_FORGET, now=now)


def _key(run: Run, planned: Planned, state: str) -> str:
    """Sealed with the tenant's own key, so that it tells nothing and fits no other tenant."""
    tool = planned.tool
    asked: list[Any] = [
        run.user.tenant,
        run.user.id,
        run.agent.name,  # elsewhere the same name may be another tool, with other dependencies
        tool.name,
        tool.parameters,
        planned.arguments_hash,
    ]
    if run.veil.on:
        asked.append(run.veil.conversation)  # elsewhere the same tokens mean other values
    if state:
        asked.append({"since": state})
    return _sealed(run, asked)


def _sealed(run: Run, asked: list[Any]) -> str:
    sealed: str = run.position.seal.address(msgspec.json.encode(asked, order="deterministic"))
    return sealed
