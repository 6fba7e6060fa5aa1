"""kill -9 while users, the agent and operators talk at once: one owner, nothing lost or doubled."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.client import Server
from tests.chaos.counter import audit

pytestmark = pytest.mark.requirement("HIT-1", "HIT-3", "REC-8")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("tests.chaos.counter")
    yield server
    server.close()


async def trial(server: Server, folder: Path, kills: int) -> None:
    """Killed at random instants, then undisturbed until all is settled."""
    draw = random.Random(folder.name)  # noqa: S311
    folder.mkdir()  # noqa: ASYNC240 -- nothing else runs here
    for _ in range(kills):
        server.step(folder, seconds=draw.uniform(0.15, 0.9))
    answer = server.step(folder)
    log = folder / "child.log"
    said = log.read_text(encoding="utf-8") if log.exists() else ""
    assert answer == {"killed": False, "code": 0, "hung": False}, said
    await audit(folder)


@pytest.mark.parametrize("seed", range(3))
async def test_kills_while_all_talk(server: Server, tmp_path: Path, seed: int) -> None:
    await trial(server, tmp_path / f"killed-{seed}", 3)


@pytest.mark.chaos
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("seed", range(100, 140))
async def test_many_kills_while_all_talk(server: Server, tmp_path: Path, seed: int) -> None:
    await trial(server, tmp_path / f"killed-{seed}", 5)
