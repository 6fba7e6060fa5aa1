"""Every release's journal is resumed and replayed by this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from roadworthy import Runtime
from roadworthy.events import DeclarationChanged
from tests.scenarios import golden
from tests.scenarios.world import of_kind, url

RELEASES = sorted(path.stem for path in golden.FOLDER.glob("*.jsonl"))


def test_there_is_a_golden_journal() -> None:
    assert RELEASES


@pytest.mark.requirement("REC-8", "BEY-2")
@pytest.mark.parametrize("release", RELEASES)
async def test_what_a_release_wrote_is_replayed_and_resumed(tmp_path: Path, release: str) -> None:
    golden.load(golden.FOLDER / f"{release}.jsonl", tmp_path / "t.db")
    done: list[str] = []
    desk = golden.desk(done)
    async with Runtime(url(tmp_path), patterns=[desk]) as rt:
        ids = {row.conversation: row.id for row in await rt.runs()}
        assert set(ids) == set(golden.SCRIPTS)
        complete = await rt.result(ids["complete"])
        (approval,) = (await rt.result(ids["approve"])).waiting
        await rt.resolve(approval.id, "approve", by="lea")
        thanked = await rt.run(desk, "This one", user="ana", conversation="ask")
        lost = (await rt.result(ids["ship"])).waiting[0]
        await rt.resolve(lost.id, "respond", by="lea", note="It is on its way.")
        results = {word: await rt.result(run_id) for word, run_id in ids.items()}
        changed = [await of_kind(rt, run_id, DeclarationChanged) for run_id in ids.values()]
        replays = [await rt.replay(run_id) for run_id in ids.values()]
    assert complete.report.done == ("look", "look", "keep")
    assert (thanked.run_id, lost.kind) == (ids["ask"], "unknown_outcome")
    assert {result.status for result in results.values()} == {"completed"}
    assert results["complete"].text == "All done."
    assert done == ["pay A 40"]  # nothing that was done is done again
    assert not [event.changed for events in changed for event in events if event.changed]
    found = [difference for replayed in replays for difference in replayed.differences]
    assert not [d for d in found if "request would differ" not in d]  # prompts may be others


async def test_a_golden_journal_is_written_as_it_is_read(tmp_path: Path) -> None:
    """The script that makes them: what it dumps of a store loads as that store."""
    (tmp_path / "made").mkdir()
    store = await golden.written(tmp_path / "made")
    golden.dump(store, tmp_path / "one.jsonl")
    golden.load(tmp_path / "one.jsonl", tmp_path / "again.db")
    golden.dump(tmp_path / "again.db", tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_text() == (tmp_path / "two.jsonl").read_text()
