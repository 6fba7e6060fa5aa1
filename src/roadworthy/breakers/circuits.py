"""All breakers of a process, and what processes tell each other of them through the store.

`calls` and `tool_calls` ask before they call and say what came of it; the keeper has it exchanged
every second. Invariant: what a breaker says enters a run only as a recorded refusal.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeAlias, TypeVar

from roadworthy.breakers import rows
from roadworthy.breakers.circuit import Circuit
from roadworthy.breakers.rows import VERDICT, Row, Standing
from roadworthy.clock import MICROS, Clock
from roadworthy.errors import StoreError
from roadworthy.limits import Breaker
from roadworthy.run import JournalPort, Unit
from roadworthy.store.database import Tx

log = logging.getLogger("roadworthy.breakers")
T = TypeVar("T")
Ended: TypeAlias = Literal["worked", "failed", "neither"]

_MOST_SILENT = 3_600 * MICROS  # rows that nobody has touched for so long belong to nobody
_MOST_CIRCUITS = 10_000


class Reader(Protocol):
    """Runs a query on committed rows."""

    def __call__(self, query: Callable[[Tx], T], /) -> Awaitable[T]:
        """What the query returns."""
        ...


@dataclass(frozen=True)
class Outcome:
    """See `Admission.ended`."""

    how: Ended
    cause: str = ""
    kind: str = ""


class Admission:
    """A call that may be made. `ended` is to be told once what came of it."""

    def __init__(self, circuits: Circuits, name: str, *, probe: bool) -> None:
        self._circuits, self._name = circuits, name
        self.probe = probe

    async def ended(self, how: Ended, cause: str = "", kind: str = "") -> None:
        """worked: the far side answered, whatever it said. failed: it was down, out of reach or
        busy, and that in a word (cause) and for whom (kind). neither: nothing was learnt."""
        await self._circuits.ended(self._name, Outcome(how, cause, kind), probe=self.probe)


class Circuits:
    """The breakers of one process. Names are equal in all processes."""

    def __init__(self, clock: Clock, journal: JournalPort) -> None:
        self._clock, self._journal = clock, journal
        self._me = secrets.token_hex(6)
        self._circuits: dict[str, Circuit] = {}
        self._told: set[str] = set()  # what the others know our counts of
        self._verdicts: dict[str, Standing] = {}  # as of the last exchange

    @property
    def open(self) -> dict[str, int]:
        """The breakers that are open, and until when. Microseconds UTC."""
        return {n: c.open_until for n, c in self._circuits.items() if c.open_until}

    def knows(self, name: str) -> bool:
        """Whether anything was ever told of it, here or lately elsewhere."""
        return name in self._circuits or name in self._verdicts

    async def admit(
        self, name: str, breaker: Breaker, seconds: float, kinds: int = 1
    ) -> Admission | int:
        """Whether a call may be made now that takes `seconds` at most; else until when not.

        kinds: of failures it takes here to open it, as `Admission.ended` tells them apart.
        """
        circuit = self._circuits.get(name)
        if circuit is None:
            if len(self._circuits) >= _MOST_CIRCUITS:
                self._circuits = {n: c for n, c in self._circuits.items() if c.open_until}
            circuit = self._circuits[name] = Circuit(breaker, least_kinds=kinds)
            _adopt(circuit, self._verdicts.get(name))
        if not circuit.open_until:
            return Admission(self, name, probe=False)
        now = self._clock.now()
        until = max(circuit.open_until, circuit.probing_until)
        if now < until:
            return until
        return await self._probe(name, circuit, now, now + int((seconds + 1) * MICROS))

    async def _probe(self, name: str, circuit: Circuit, now: int, lease: int) -> Admission | int:
        """Try first, unless another process does, or has."""
        circuit.probing_until = lease  # nobody else here, whatever the store says

        def claim(tx: Tx) -> tuple[bool, Row | None]:
            return rows.claim(tx, name, now, lease)

        try:
            answer = await self._journal.commit(Unit(apply=claim))
        except BaseException:
            circuit.probing_until = 0
            raise
        assert isinstance(answer, tuple)  # noqa: S101 - `claim` refuses nothing
        taken, row = answer
        if taken:
            return Admission(self, name, probe=True)
        if row is None:  # a probe went well elsewhere
            circuit.close()
            return Admission(self, name, probe=False)
        circuit.open_until, circuit.probing_until = row.until, row.probing_until
        circuit.shared = True
        return max(row.until, row.probing_until, now + 1)

    async def ended(self, name: str, outcome: Outcome, *, probe: bool) -> None:
        """See `Admission.ended`."""
        circuit = self._circuits.get(name)
        if circuit is None:
            return
        if probe:
            await self._probed(name, circuit, outcome)
            return
        if circuit.open_until or outcome.how == "neither":
            return  # begun before it opened: it says nothing new
        now, failed = self._clock.now(), outcome.how == "failed"
        circuit.count(now, failed=failed, kind=outcome.kind)
        if failed:
            circuit.cause = outcome.cause
            if circuit.trips(now):
                await self._open(name, circuit, now)

    async def _probed(self, name: str, circuit: Circuit, outcome: Outcome) -> None:
        if outcome.how == "worked":
            circuit.close()
            log.info("the breaker of %s is closed again", name)
            await self._share(lambda tx: rows.closed(tx, name))
        elif outcome.how == "failed":
            circuit.cause = outcome.cause
            await self._open(name, circuit, self._clock.now())
        else:
            circuit.probing_until = 0
            await self._share(lambda tx: rows.unclaim(tx, name))

    async def _open(self, name: str, circuit: Circuit, now: int) -> None:
        until = now + int(circuit.breaker.cooldown * MICROS)
        circuit.open(until, circuit.since or now, circuit.cause)
        self._told.discard(name)
        cooldown, cause = circuit.breaker.cooldown, circuit.cause or "failures elsewhere"
        log.warning("the breaker of %s is open for %g s: %s", name, cooldown, cause)
        opened = Standing(name=name, until=until, since=circuit.since, cause=circuit.cause)
        circuit.shared = await self._share(lambda tx: rows.opened(tx, opened))

    async def _share(self, change: Callable[[Tx], None]) -> bool:
        """Tell the others. A store in trouble holds no call up: here it counts already."""
        try:
            await self._journal.commit(Unit(apply=change))
        except StoreError as error:
            log.warning("a breaker could not be shared: %s", error)
            return False
        return True

    # --- the exchange with other processes -------------------------------------------------

    async def sync(self, read: Reader) -> None:
        """Tell what failed here, learn what failed elsewhere. Raises: StoreError."""
        now = self._clock.now()
        await self._tell(now)
        shared = {name for name, circuit in self._circuits.items() if circuit.shared}
        found = await read(rows.every)
        self._verdicts = rows.standing(found, now)
        counts: dict[str, tuple[int, int]] = {}
        for row in found:
            ours = row.holder in (VERDICT, self._me) or rows.is_note(row)
            if not ours and row.until > now:
                failures, calls = counts.get(row.name, (0, 0))
                counts[row.name] = (failures + row.failures, calls + row.calls)
        for name, circuit in list(self._circuits.items()):
            verdict = self._verdicts.get(name)
            if verdict is not None:
                _adopt(circuit, verdict)
            elif name in shared:
                circuit.close()  # a probe went well elsewhere
            if not circuit.open_until:
                circuit.elsewhere = counts.get(name, (0, 0))
                if circuit.elsewhere[0] and circuit.slots and circuit.trips(now):
                    await self._open(name, circuit, now)
        before = now - _MOST_SILENT
        if any(max(row.until, row.probing_until) <= before for row in found):
            await self._share(lambda tx: rows.sweep(tx, before))

    async def _tell(self, now: int) -> None:
        """Our counts, where something failed; once nothing does, that."""
        changes: list[Callable[[Tx], None]] = []
        for name, circuit in self._circuits.items():
            seen = circuit.seen(now) if circuit.slots else (0, 0)
            if seen[0] and seen != circuit.told:
                circuit.told = seen
                worth = now + int(circuit.breaker.window * MICROS)
                self._told.add(name)
                changes.append(partial(rows.tell, row=Row(name, self._me, worth, 0, *seen)))
            elif not seen[0] and name in self._told:
                self._told.discard(name)
                changes.append(partial(rows.forget, name=name, holder=self._me))
        if changes:

            def tell(tx: Tx) -> None:
                for change in changes:
                    change(tx)

            await self._journal.commit(Unit(apply=tell))


def _adopt(circuit: Circuit, verdict: Standing | None) -> None:
    """Open it as it is open elsewhere."""
    if verdict is not None and verdict.until > circuit.open_until:
        circuit.open(verdict.until, verdict.since, verdict.cause)
        circuit.probing_until, circuit.shared = verdict.probing_until, True
