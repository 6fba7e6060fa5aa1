"""What all runs of a process share, and the agents that execute in it.

The executor works with both. Invariant: an agent is registered together with the declaration its
runs are pinned to.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from roadworthy.agent import Agent, OnChange
from roadworthy.breakers import Circuits
from roadworthy.budget import Ledger
from roadworthy.calls import ModelCalls
from roadworthy.clock import Clock
from roadworthy.compensation import undoer
from roadworthy.ending import Desk
from roadworthy.errors import DeclarationError, PatternUnknown, VersionHeld
from roadworthy.escalation.policy import Inbox
from roadworthy.live import Live
from roadworthy.models.catalog import Catalog
from roadworthy.privacy import Privacy, Veil
from roadworthy.store import declarations, runs, waits
from roadworthy.store.database import Database, Tx
from roadworthy.store.journal import Journal
from roadworthy.store.runs import RunRow
from roadworthy.tool_calls import Bulkheads, Hands, ToolCalls
from roadworthy.tools.execution import ToolThreads
from roadworthy.tools.outputs import OutputReader
from roadworthy.tools.toolsets import Toolsets
from roadworthy.versions import Declaration, diff, held

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class House:
    """What all runs of a process share. version, on_change: for agents that say none."""

    database: Database
    journal: Journal
    live: Live
    clock: Clock
    catalog: Catalog
    ledger: Ledger
    threads: ToolThreads
    toolsets: Toolsets
    circuits: Circuits
    privacy: Privacy | None = None
    inbox: Inbox | None = None
    version: str = ""
    on_change: OnChange = "continue"
    holder: str = field(default_factory=lambda: secrets.token_hex(8))

    async def read(self, query: Callable[[Tx], T]) -> T:
        """A query in a thread of its own, on committed rows.

        Who is cancelled here still waits for the thread: it must not outlive the database.
        """
        work = asyncio.get_running_loop().run_in_executor(None, self.database.read, query)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise
        finally:
            if work.done() and not work.cancelled():
                work.exception()  # looked at, also when nobody is there to be told

    def veil(self, row: RunRow) -> Veil:
        """What stands between a run and its readers."""
        return Veil(self.privacy, row.tenant, row.conversation or row.id)


class Roster:
    """The registered agents by name, what each works with, and what its runs are pinned to."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._hands = Hands(
            ledger=house.ledger,
            threads=house.threads,
            read=house.read,
            circuits=house.circuits,
            bulkheads=Bulkheads(house.threads),
        )
        self._agents: dict[str, Agent[Any, Any]] = {}
        self._desks: dict[str, Desk] = {}
        self._declarations: dict[str, Declaration] = {}
        self._undoers: dict[str, Agent[Any, Any]] = {}  # by the name of whose runs they undo

    def register(self, agent: Agent[Any, Any]) -> bool:
        """Make an agent's runs executable here, and their undoing. Returns whether it was another
        one until now. Raises: DeclarationError: its tools cannot be undone together."""
        if self._agents.get(agent.name) is agent:
            return False
        if any(undo.name == agent.name and undo is not agent for undo in self._undoers.values()):
            raise _taken(agent.name)
        self._undo_with(agent)
        desk = self._desk(agent)
        self._agents[agent.name] = agent
        self._desks[agent.name] = desk
        self._declarations[agent.name] = Declaration.of(
            agent,
            output=desk.output.spec.parameters if desk.output else None,
            version=self._house.version,
        )
        return True

    def _undo_with(self, agent: Agent[Any, Any]) -> None:
        """Whatever executes an agent's runs can undo them, too."""
        undo = undoer(agent)
        if undo is None:
            self._undoers.pop(agent.name, None)
            return
        known = self._agents.get(undo.name)
        if known is not None and known is not self._undoers.get(agent.name):
            raise _taken(undo.name)
        self._undoers[agent.name] = undo
        self.register(undo)

    def undoer(self, name: str) -> Agent[Any, Any] | None:
        """What undoes the runs of a pattern, where its tools say how."""
        return self._undoers.get(name)

    @property
    def names(self) -> list[str]:
        """The patterns whose runs can execute here."""
        return list(self._agents)

    def knows(self, name: str) -> bool:
        """Whether runs of this pattern can execute here."""
        return name in self._agents

    def agent(self, name: str) -> Agent[Any, Any]:
        """Raises: PatternUnknown."""
        try:
            return self._agents[name]
        except KeyError:
            raise PatternUnknown(
                f"No pattern {name!r} is registered in this process. Open the runtime with it: "
                f"Runtime(..., patterns=[{name}])."
            ) from None

    def desk(self, name: str) -> Desk:
        """What a pattern works with. Raises: PatternUnknown."""
        return self._desks[self.agent(name).name]

    def declaration(self, name: str) -> Declaration:
        """What new runs of a pattern are pinned to. Raises: PatternUnknown."""
        return self._declarations[self.agent(name).name]

    def policy(self, name: str) -> OnChange:
        """What a run does that is pinned to another declaration. Raises: PatternUnknown."""
        return self.agent(name).on_change or self._house.on_change

    def drains(self, row: RunRow) -> bool:
        """Whether a run may have to be left to a process of another version."""
        pinned = self.declaration(row.pattern).fingerprint
        is_open = row.status in runs.OPEN
        return is_open and row.fingerprint != pinned and self.policy(row.pattern) == "drain"

    def drained(self, tx: Tx, row: RunRow) -> VersionHeld | None:
        """Why a run is left to a process that has the declaration it is pinned to, if it is.

        One with a command left for it is not: it is only to stop.
        """
        if not self.drains(row) or waits.commands_for(tx, row.id):
            return None
        new = self.declaration(row.pattern)
        changes = diff(declarations.get(tx, row.fingerprint), new.data)
        return held(row.id, row.pattern, changes) if changes else None

    def _desk(self, agent: Agent[Any, Any]) -> Desk:
        house = self._house
        output = None
        if agent.output is not None:
            output = OutputReader(agent.output, native=agent.output_mode == "native")
        return Desk(
            agent=agent,
            models=ModelCalls(house.ledger, house.catalog, house.circuits),
            tools=ToolCalls(agent, self._hands),
            output=output,
            inbox=house.inbox,
        )


def _taken(name: str) -> DeclarationError:
    return DeclarationError(
        f"Agent {name!r}: this is the name of what undoes the runs of another agent; choose one "
        "that does not end so."
    )
