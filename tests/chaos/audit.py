"""What must hold of a trial's files once all its runs are over, however often it was killed.

Each check raises AssertionError with what it found. Invariant: reads only.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import select

from roadworthy.events import (
    Delivered,
    ModelFailed,
    ModelIntended,
    ModelReplied,
    RunEnded,
    RunEvent,
    RunReopened,
    RunStarted,
    SegmentStarted,
    ToolAttemptFailed,
    ToolFailed,
    ToolIntended,
    ToolSucceeded,
)
from roadworthy.store import recorded, runs, schema
from roadworthy.store.database import Row, Statement
from roadworthy.store.opening import open_database
from tests.chaos.desk import EFFECTS
from tests.chaos.world import World

_R, _A = schema.reservation.c, schema.account.c
_RESERVATIONS = Statement(
    select(_R.state, _R.nanos, _R.tokens, _R.actual_nanos, _R.actual_tokens, _R.accounts)
)
_ACCOUNTS = Statement(select(_A.id, _A.scope, _A.unit, _A.cap, _A.settled, _A.assumed, _A.held))
ONCE = ("put", "lossy", "flaky", "pay", "mail", "close_account")


@dataclass(frozen=True)
class Audit:
    """One trial as it was left."""

    events: dict[str, list[RunEvent]]
    rows: Sequence[runs.RunRow]
    world: World
    reservations: Sequence[Row]
    accounts: Sequence[Row]

    @classmethod
    def open(cls, folder: Path) -> Audit:
        """Read everything."""
        return cls.of(f"sqlite:///{folder}/store.db", World(folder / "world.db"))

    @classmethod
    def of(cls, url: str, world: World) -> Audit:
        """Read everything of a store, beside what the world saw."""
        database = open_database(url)
        rows = database.read(lambda tx: runs.recent(tx, 100_000))
        events = {row.id: database.read(partial(recorded.events, run_id=row.id)) for row in rows}
        reservations = database.read(lambda tx: tx.rows(_RESERVATIONS))
        accounts = database.read(lambda tx: tx.rows(_ACCOUNTS))
        database.close()
        return cls(events, rows, world, reservations, accounts)

    def close(self) -> None:
        """Close the files."""
        self.world.close()

    @property
    def parked(self) -> frozenset[str]:
        """Runs that saw three processes die, and whose conversation went on: they say so."""
        found = (row for row in self.rows if row.reason == "poison")
        return frozenset(row.id for row in found if row.conversation is not None)

    def check(self) -> None:
        """Everything."""
        self.ends()
        self.steps()
        self.effects()
        self.calls()
        self.money()
        self.turns()

    def ends(self) -> None:
        """Every run ended once, with its whole answer delivered once; parked ones once more."""
        for row in self.rows:
            events = self.events[row.id]
            ended = [e for e in events if isinstance(e, RunEnded)]
            delivered = [e for e in events if isinstance(e, Delivered)]
            reopened = sum(isinstance(e, RunReopened) for e in events)
            assert [e.seq for e in events] == list(range(len(events)))
            if row.id in self.parked:
                continue
            assert row.status == "completed", self.story(row.id)
            assert len(ended) == len(delivered) == 1 + reopened, self.story(row.id)
            assert {e.reason for e in ended[:-1]} <= {"poison"}, self.story(row.id)
            assert delivered[-1].text.endswith(" done"), self.story(row.id)

    def story(self, run_id: str) -> str:
        """All that is recorded of a run, a line each."""
        return "\n".join(["", run_id, *map(str, self.events[run_id])])

    def steps(self) -> None:
        """No step has two outcomes."""
        for run_id, events in self.events.items():
            outcomes = Counter(e.key for e in events if e.outcome)
            assert max(outcomes.values()) == 1, self.story(run_id)

    def effects(self) -> None:
        """Each effect that a script asks for happened exactly once."""
        effects = Counter(
            (d.run, d.tool, d.item) for d in self.world.effects if d.run not in self.parked
        )
        wanted = Counter(
            (run_id, event.tool, str(event.arguments["item"]))
            for run_id, events in self.events.items()
            for event in events
            if isinstance(event, ToolSucceeded) and event.tool in ONCE and run_id not in self.parked
        )
        apart = {run_id for run_id, _, _ in (effects - wanted) + (wanted - effects)}
        assert not apart, (effects - wanted, wanted - effects, *map(self.story, apart))
        assert max(wanted.values()) == 1
        asked = [self.events[row.id][0] for row in self.rows if row.id not in self.parked]
        most = Counter(e.input.text for e in asked if isinstance(e, RunStarted))
        failed = [
            event
            for run_id, events in self.events.items()
            for event in events
            if isinstance(event, ToolFailed) and event.tool in ONCE and run_id not in self.parked
        ]  # a process died in each attempt it had; nothing took effect, and the model was told
        assert all(event.code == "crashed" for event in failed), failed
        scripted = sum(EFFECTS[name] * count for name, count in most.items())
        assert len(wanted) + len(failed) == scripted, (len(wanted), failed, scripted)
        keys = Counter(d.key for d in self.world.effects)
        assert max(keys.values()) == 1, keys
        tried = Counter(d.key for d in self.world.attempts)
        intended = Counter(
            event.idempotency_key
            for events in self.events.values()
            for event in events
            if isinstance(event, ToolIntended)
        )
        assert all(tried[key] <= most for key, most in intended.items()), tried - intended

    def turns(self) -> None:
        """The runs of a conversation executed one after the other, in the order they were sent."""
        chats: defaultdict[tuple[str, str], list[runs.RunRow]] = defaultdict(list)
        for row in self.rows:
            if row.conversation is not None:
                chats[row.tenant, row.conversation].append(row)
        for chat, of_chat in chats.items():
            in_order = sorted(of_chat, key=lambda row: row.ordinal)
            for before, after in itertools.pairwise(in_order):
                ended = next(e.at for e in self.events[before.id] if isinstance(e, RunEnded))
                began = next(e.at for e in self.events[after.id] if isinstance(e, SegmentStarted))
                assert ended <= began, (chat, before, after)

    def calls(self) -> None:
        """A model is asked only under an intent, and every intent has exactly one end."""
        asked = Counter(run for run, _ in self.world.asked)
        for run_id, events in self.events.items():
            intended = [e for e in events if isinstance(e, ModelIntended)]
            ends = [(e.key, e.attempt) for e in events if isinstance(e, ModelReplied | ModelFailed)]
            assert sorted(ends) == sorted((e.key, e.attempt) for e in intended)
            ours = ("crashed", "ModelInterrupted")  # the request had left, or had not
            unsaid = sum(isinstance(e, ModelFailed) and e.code in ours for e in events)
            assert len(intended) - unsaid <= asked[run_id] <= len(intended)

    def money(self) -> None:
        """The books balance: accounts, reservations, events; nothing is held any more."""
        held: Counter[str] = Counter()
        settled: Counter[str] = Counter()
        assumed: Counter[str] = Counter()
        for state, nanos, tokens, paid, used, accounts in self.reservations:
            for account in filter(None, accounts.split("\n")):
                usd = account.endswith('"usd"]')
                held[account] += (nanos if usd else tokens) if state == "held" else 0
                charged = paid if usd else used
                (assumed if state == "assumed" else settled)[account] += charged
        sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        for id_, scope, unit, cap, paid, thought, holds in self.accounts:
            assert (paid, thought, holds) == (settled[id_], assumed[id_], held[id_]), id_
            assert holds == 0, id_
            assert paid + thought <= cap, id_
            if unit == "usd":
                sums[scope][0] += paid
                sums[scope][1] += thought
        charged, guessed = self._of_events()
        for scope in ("run", "user", "tenant"):
            assert sum(sums[scope]) == charged + guessed, (scope, sums[scope], charged, guessed)
            assert sums[scope][0] == charged

    def _of_events(self) -> tuple[int, int]:
        every = [event for events in self.events.values() for event in events]
        replied = sum(e.nanos for e in every if isinstance(e, ModelReplied))
        paid = ToolSucceeded | ToolFailed | ToolAttemptFailed
        tools = sum(e.nanos for e in every if isinstance(e, paid))
        failed = [e for e in every if isinstance(e, ModelFailed | ToolAttemptFailed)]
        return replied + tools, sum(e.assumed for e in failed)
