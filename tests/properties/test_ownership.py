"""The agent never speaks while a person owns the conversation, whatever happens at once.

Two users, an agent of moods, two operators (one in two windows) and restarts on one real store;
`tests/chaos/test_counter.py` does the same with kills.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from roadworthy import Runtime, runtime
from tests.chaos.counter import INBOX, Counterside, Ledger, agent_for, audit, drive, store_of

pytestmark = [pytest.mark.requirement("HIT-1", "HIT-3", "GRD-6"), pytest.mark.sqlite_only]


async def restarted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin, close in the middle of it with a second to let go or none, and finish."""
    draw = random.Random(folder.name)  # noqa: S311
    for number in range(2):
        ledger = Ledger(folder, lambda _: None)
        agent = agent_for(ledger)
        monkeypatch.setattr(runtime, "CLOSE_SECONDS", draw.choice((0.0, 1.0)))
        async with Runtime(store_of(folder), patterns=[agent], inbox=INBOX) as rt:
            side = Counterside(rt, agent, ledger, f"{folder.name}/{number}")
            await side.work(seconds=draw.uniform(0.1, 0.6))
        ledger.close()
    await drive(folder, lambda _: None, {})
    await audit(folder)


@pytest.mark.parametrize("seed", range(4))
async def test_one_owner_whatever_happens_at_once(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"trial-{seed}"
    folder.mkdir()
    await restarted(folder, monkeypatch)
