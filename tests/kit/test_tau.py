"""The tau shop under faults and kills, judged by its state and by its ledger of writes.

Faults p = 0.15: 503 before the effect, replies lost after it; SIGKILL on both sides of every call
and before every model reply. Baseline of the kit: naive retries leave 82 of 115 tasks right.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.chaos.client import Server
from tests.kit.tau_desk import KIT, kit

pytestmark = [pytest.mark.kit, pytest.mark.requirement("REC-8", "TOL-4", "TOL-3", "REC-3")]

P = 0.15
MOST_ATTEMPTS = 40


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not KIT.exists():
        pytest.skip("no test kit")
    server = Server("tests.kit.tau_desk")
    yield server
    server.close()


def play(server: Server, folder: Path, task: int, seed: int) -> Counter[str]:
    """One task until its run is over; what it came to."""
    shop, tau = kit()
    counts: Counter[str] = Counter(tasks=1)
    folder.mkdir()
    for attempt in range(MOST_ATTEMPTS):
        answer = server.step(folder, task=task, seed=seed, p=P, attempt=attempt)
        counts["kills"] += answer["killed"]
        assert not answer["hung"]
        if not answer["killed"]:
            break
    assert answer["code"] == 0, (folder / "child.log").read_text(encoding="utf-8")
    said = json.loads((folder / "said.json").read_text(encoding="utf-8"))
    assert said == {"status": "completed", "reason": "answered", "why": "", "differences": []}
    world = tau.World(str(folder / "world.db"), shop["tasks"][task], 0, Random(0))  # noqa: S311
    state, ledger, extra = world.verdict()
    world.c.close()
    counts.update(state=state, ledger=ledger, right=state and ledger, extra=max(0, extra))
    return counts


def shop_day(server: Server, folder: Path, tasks: range, seed: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for task in tasks:
        counts += play(server, folder / str(task), task, seed)
    print(dict(counts))  # noqa: T201 -- shown when it fails
    return counts


def test_thirty_tasks_are_right_in_state_and_ledger(server: Server, tmp_path: Path) -> None:
    counts = shop_day(server, tmp_path, range(0, 115, 4), seed=1)
    assert counts["right"] == counts["tasks"] == 29
    assert counts["extra"] == 0
    assert counts["kills"] > 10


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_all_tasks_are_right_in_state_and_ledger(server: Server, tmp_path: Path, seed: int) -> None:
    counts = shop_day(server, tmp_path, range(115), seed)
    assert counts["right"] == counts["tasks"] == 115
    assert counts["extra"] == 0
