"""kill -9 while a run is undone: all of it is taken back, in order, and nothing twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.client import Server
from tests.chaos.travel import BOOKED
from tests.chaos.world import World

pytestmark = pytest.mark.requirement("REC-5", "REC-8", "TOL-4")

BACKWARDS = [f"cancel_{name}" for name in reversed(BOOKED)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("tests.chaos.travel")
    yield server
    server.close()


def finish(server: Server, folder: Path) -> None:
    """Let a child run undisturbed, then look at what was done."""
    answer = server.step(folder)
    log = folder / "child.log"
    said = log.read_text(encoding="utf-8") if log.exists() else ""
    assert answer == {"killed": False, "code": 0, "hung": False}, said
    world = World(folder / "world.db")
    done = [deed.tool for deed in world.effects]
    undone = [(d.tool, d.item) for d in world.effects if d.tool.startswith("cancel")]
    world.close()
    assert done == [*(f"book_{name}" for name in BOOKED), *BACKWARDS]
    assert undone == [(tool, f"{tool.removeprefix('cancel_')}-a") for tool in BACKWARDS]


def points(server: Server, folder: Path) -> int:
    """How many boundaries an undisturbed trial has; a third or more lie in the undoing."""
    folder.mkdir()
    finish(server, folder)
    return int((folder / "points").read_text(encoding="utf-8"))


def test_killed_at_boundaries(server: Server, tmp_path: Path) -> None:
    last = points(server, tmp_path / "whole")
    for point in range(last // 2, last, max(1, last // 16)):
        trial = tmp_path / f"at-{point}"
        trial.mkdir()
        server.step(trial, at=point)
        finish(server, trial)


def test_killed_again_and_again(server: Server, tmp_path: Path) -> None:
    last = points(server, tmp_path / "whole")
    draw = random.Random(20261121)  # noqa: S311
    for number in range(4):
        trial = tmp_path / str(number)
        trial.mkdir()
        for _ in range(2):  # a third death in one step would park the run
            server.step(trial, at=draw.randint(last // 3, last))
        finish(server, trial)


@pytest.mark.chaos
@pytest.mark.timeout(1_200)
def test_killed_at_every_boundary(server: Server, tmp_path: Path) -> None:
    for point in range(1, points(server, tmp_path / "whole")):
        trial = tmp_path / f"at-{point}"
        trial.mkdir()
        server.step(trial, at=point)
        finish(server, trial)
