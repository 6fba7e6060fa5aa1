"""`make demo` tells a true story: what it shows is in the databases it leaves behind."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from roadworthy import Runtime
from roadworthy.events import (
    ApprovalDecided,
    BudgetRefused,
    LoopNoticed,
    RunEvent,
    RunStarted,
    SegmentStarted,
    ToolAttemptFailed,
    ToolFailed,
    ToolIntended,
    ToolRefused,
    ToolSucceeded,
)

pytestmark = pytest.mark.sqlite_only

ROOT = Path(__file__).resolve().parents[2]
ENDS = {
    "1 A lookup": ("completed", "answered"),
    "2 A careful refund": ("completed", "answered"),
    "3 An invented tool": ("completed", "answered"),
    "4 A flaky carrier": ("completed", "answered"),
    "5 A loop": ("partial", "loop"),
    "6 A spent budget": ("partial", "budget"),
    "7 A kill -9": ("completed", "answered"),
}


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The demo in a process of its own, without a terminal and without any key."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ROADWORTHY_") and not name.endswith("_API_KEY")
    }
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "examples.support_desk", *arguments],
        cwd=ROOT,
        env=environment | {"ROADWORTHY_DEMO_DATA": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@dataclass(frozen=True)
class Told:
    """What a demo showed and left behind. events: by scene."""

    code: int
    screen: str
    errors: str
    folder: Path
    events: Mapping[str, list[RunEvent]]

    def of(self, scene: str, kind: type[RunEvent]) -> list[Any]:
        """The events of one kind in a scene."""
        return [event for event in self.events[scene] if isinstance(event, kind)]

    def rows(self, file: str, query: str) -> list[tuple[Any, ...]]:
        """What one of its databases answers."""
        with closing(sqlite3.connect(self.folder / file)) as db:
            return db.execute(query).fetchall()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The story, told once for all tests."""
    folder = tmp_path_factory.mktemp("demo")
    ran = demo(folder)
    with Runtime(f"sqlite:///{folder}/runs.db") as rt:
        events = rt.sync(_events(rt))
    return Told(ran.returncode, ran.stdout, ran.stderr, folder, events)


async def _events(rt: Runtime) -> dict[str, list[RunEvent]]:
    found: dict[str, list[RunEvent]] = {}
    for run in reversed(await rt.runs()):
        events = [event async for event in rt.events(run.id) if isinstance(event, RunEvent)]
        started = events[0]
        assert isinstance(started, RunStarted)
        found[started.options["tags"]["scene"]] = events
    return found


def test_it_ends_well_without_a_terminal(told: Told) -> None:
    assert (told.code, told.errors) == (0, "")
    assert "SCRIPTED MODEL" in told.screen
    assert "\x1b" not in told.screen


def test_every_scene_ends_as_it_is_told(told: Told) -> None:
    ends = told.rows("runs.db", "SELECT status, reason FROM run ORDER BY created_at, id")
    assert dict(zip(told.events, ends, strict=True)) == ENDS


def test_what_is_shown_of_the_runs_is_what_the_store_says(told: Told) -> None:
    for run, status, nanos in told.rows("runs.db", "SELECT id, status, nanos FROM run"):
        [line] = [line for line in told.screen.splitlines() if line.strip().startswith(run)]
        assert status in line
        assert f"${nanos / 1e9:.4f}" in line
        assert "same" in line


def test_each_refund_is_paid_once(told: Told) -> None:
    paid = told.rows("shop.db", "SELECT order_id, cents, reference FROM refunds ORDER BY id")
    assert [(order, cents) for order, cents, _ in paid] == [("A-1001", 24900), ("A-2003", 1850)]
    scenes = ("2 A careful refund", "7 A kill -9")
    keys = [told.of(scene, ToolIntended)[0].idempotency_key for scene in scenes]
    assert [reference for _, _, reference in paid] == keys


def test_a_customer_sees_only_their_own(told: Told) -> None:
    [refused] = told.of("1 A lookup", ToolFailed)
    assert refused.arguments == {"order_id": "A-2001"}
    [(owner,)] = told.rows("shop.db", "SELECT customer FROM orders WHERE id = 'A-2001'")
    assert owner == "ben"


def test_the_large_refund_waited_for_a_person(told: Told) -> None:
    events = told.events["2 A careful refund"]
    [decided] = told.of("2 A careful refund", ApprovalDecided)
    [intended] = told.of("2 A careful refund", ToolIntended)
    assert (decided.decision, decided.by) == ("approve", "lea")
    assert events.index(decided) < events.index(intended)


@pytest.mark.requirement("REC-3")
def test_an_invented_tool_is_refused_with_the_nearest_name(told: Told) -> None:
    [refused] = told.of("3 An invented tool", ToolRefused)
    assert refused.code == "unknown_tool"
    assert "Did you mean shipping_status?" in refused.result.content


@pytest.mark.requirement("TOL-3")
def test_a_failing_carrier_is_tried_again(told: Told) -> None:
    failed = told.of("4 A flaky carrier", ToolAttemptFailed)
    [worked] = told.of("4 A flaky carrier", ToolSucceeded)
    assert [event.attempt for event in failed] == [1, 2]
    assert failed[0].retry_at - failed[0].at <= 200_000  # full jitter under a bound that doubles
    assert failed[1].retry_at - failed[1].at <= 400_000
    assert worked.attempts == 3


@pytest.mark.requirement("REC-4")
def test_a_loop_is_broken_at_the_third_repeat(told: Told) -> None:
    noticed = told.of("5 A loop", LoopNoticed)
    assert [(event.repeat, event.stopped) for event in noticed] == [(2, False), (3, True)]


@pytest.mark.requirement("CST-4")
def test_a_spent_budget_still_gives_an_answer(told: Told) -> None:
    assert told.of("6 A spent budget", BudgetRefused)
    assert "Not checked: A-40" in told.screen
    [(cap, settled)] = told.rows(
        "runs.db", "SELECT cap, settled FROM account WHERE scope = 'run' AND cap = 50000000"
    )
    [(nanos,)] = told.rows("runs.db", "SELECT nanos FROM run WHERE reason = 'budget'")
    assert 0 < settled == nanos <= cap


def test_nothing_stays_held_and_no_budget_is_overspent(told: Told) -> None:
    accounts = told.rows("runs.db", "SELECT cap, settled, assumed, held FROM account")
    assert all(held == 0 and settled + assumed <= cap for cap, settled, assumed, held in accounts)
    assert not told.rows("runs.db", "SELECT id FROM reservation WHERE state = 'held'")


@pytest.mark.requirement("REC-8")
def test_the_killed_refund_is_found_not_repeated(told: Told) -> None:
    [intended] = told.of("7 A kill -9", ToolIntended)
    _, resumed = told.of("7 A kill -9", SegmentStarted)
    [done] = [event for event in told.of("7 A kill -9", ToolSucceeded) if event.tool == "refund"]
    assert intended.seq < resumed.seq < done.seq
    assert (done.key, done.source) == (intended.key, "reconciled")
    assert "killed (signal 9)" in told.screen


def test_a_missing_key_is_said_without_a_traceback(tmp_path: Path) -> None:
    ran = demo(tmp_path, "--model", "openai:gpt-5-mini")
    assert ran.returncode == 1
    assert "OPENAI_API_KEY" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr
