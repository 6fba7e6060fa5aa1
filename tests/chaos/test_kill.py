"""kill -9 at random instants and at every boundary: no work is lost, no effect happens twice.

`make test` kills some 25 times, `make chaos` 200 times at random and once at each boundary.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.audit import Audit
from tests.chaos.client import Server

pytestmark = pytest.mark.requirement("REC-8", "TOL-4", "MEM-3")

SEED = 20261121


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("tests.chaos.desk")
    yield server
    server.close()


def finish(server: Server, folder: Path) -> None:
    """Let a child run undisturbed, then look at what was left."""
    answer = server.step(folder)
    log = folder / "child.log"
    said = log.read_text(encoding="utf-8") if log.exists() else ""
    assert answer == {"killed": False, "code": 0, "hung": False}, said
    audit = Audit.open(folder)
    try:
        audit.check()
    finally:
        audit.close()


def test_undisturbed(server: Server, tmp_path: Path) -> None:
    """The trial itself, without a kill, passes every check."""
    finish(server, tmp_path)


def trials(server: Server, folder: Path, kills: int, seed: int) -> None:
    """Trials with one to three kills each, until there were so many."""
    print(f"seed {seed}")  # noqa: T201 -- shown when it fails
    draw = random.Random(seed)  # noqa: S311
    done = number = 0
    while done < kills:
        number += 1
        trial = folder / f"{seed}-{number}"
        trial.mkdir()
        for _ in range(draw.randint(1, 2)):
            done += server.step(trial, seconds=draw.uniform(0.02, 0.4))["killed"]
        finish(server, trial)


def test_kills_at_random_instants(server: Server, tmp_path: Path) -> None:
    trials(server, tmp_path, 25, SEED)


@pytest.mark.chaos
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("seed", range(4))
def test_many_kills_at_random_instants(server: Server, tmp_path: Path, seed: int) -> None:
    trials(server, tmp_path, 50, seed)


def boundaries(server: Server, folder: Path, every: int, first: int) -> None:
    """Kill at each n-th boundary: around commits, tools and model calls."""
    (folder / "whole").mkdir()
    finish(server, folder / "whole")
    points = int((folder / "whole" / "points").read_text(encoding="utf-8"))
    assert points > 100
    for point in range(first, points, every):
        trial = folder / f"at-{point}"
        trial.mkdir()
        server.step(trial, at=point)
        finish(server, trial)


def test_kills_at_boundaries(server: Server, tmp_path: Path) -> None:
    boundaries(server, tmp_path, every=31, first=12)


@pytest.mark.chaos
@pytest.mark.timeout(1_800)
def test_kills_at_every_boundary(server: Server, tmp_path: Path) -> None:
    boundaries(server, tmp_path, every=1, first=1)
