"""Streams: a documented vocabulary, re-attached by position; leaving one harms nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from roadworthy import Agent, RunContext, RunEvent, Runtime, ToolCall, tool
from roadworthy.errors import ModelUnavailable
from roadworthy.events import (
    RunEnded,
    RunWaiting,
    StreamEvent,
    TextDelta,
    TextReplaced,
    ToolProgress,
)
from roadworthy.messages import ModelRequest
from roadworthy.testing import FakeClock, ScriptedModel
from tests.scenarios.world import Given, kinds, url


@tool(effect="read")
async def look(run: RunContext[None], x: str) -> str:
    """Look. x: any."""
    run.progress("opening the drawer")
    return x


LOOK = ToolCall("look", {"x": "1"})


async def test_a_stream_tells_the_run_from_start_to_end_with_text_and_progress(
    tmp_path: Path,
) -> None:
    desk = Agent("desk", model=ScriptedModel([LOOK, "It is in the drawer."]), tools=[look])
    async with Runtime(url(tmp_path)) as rt:
        seen = [event async for event in rt.stream(desk, "Where?")]
    names = kinds(seen)
    assert names[0] == "RunStarted"
    assert names[-1] == "RunEnded"
    assert "ToolProgress" in names
    assert names.index("ToolProgress") < names.index("ToolSucceeded")
    (progress,) = [e for e in seen if isinstance(e, ToolProgress)]
    assert (progress.tool, progress.text) == ("look", "opening the drawer")
    deltas = [e for e in seen if isinstance(e, TextDelta)]
    assert len(deltas) > 1
    assert "".join(d.text for d in deltas) == "It is in the drawer."
    assert [d.offset for d in deltas] == [0, 12]
    ended = seen[-1]
    assert isinstance(ended, RunEnded)
    assert ended.result.text == "It is in the drawer."
    recorded = [e.seq for e in seen if isinstance(e, RunEvent)]
    assert recorded == list(range(len(recorded)))


async def test_a_failed_attempt_takes_back_what_it_streamed(tmp_path: Path) -> None:
    class Cut(ScriptedModel):
        async def request(self, request: ModelRequest, on_text: Given = None) -> Given:
            if request.ordinal == 0 and on_text is not None:
                on_text("It is in the")
                raise ModelUnavailable("cut")
            return await super().request(request, on_text)

    desk = Agent("desk", model=Cut(["", "In the drawer."]))
    shown = ""
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        async for event in rt.stream(desk, "Where?"):
            if isinstance(event, TextReplaced):
                shown = event.text
            elif isinstance(event, TextDelta):
                shown += event.text
    assert shown == "In the drawer."


async def test_a_stream_ends_when_the_run_waits_and_shows_the_question(tmp_path: Path) -> None:
    ask = ToolCall("ask_user", {"question": "Which one?"})
    desk = Agent("desk", model=ScriptedModel([ask, "Done."]))
    async with Runtime(url(tmp_path)) as rt:
        seen = [event async for event in rt.stream(desk, "Where?", conversation="c")]
    assert isinstance(seen[-1], RunWaiting)
    assert seen[-1].result.question == "Which one?"
    assert "".join(e.text for e in seen if isinstance(e, TextDelta)) == "Which one?"


async def test_a_closing_answer_is_streamed_too(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel(["", "", "", "What I have."]))
    async with Runtime(url(tmp_path)) as rt:
        seen = [event async for event in rt.stream(desk, "Where?")]
    assert "".join(e.text for e in seen if isinstance(e, TextDelta)) == "What I have."


async def test_a_client_that_leaves_does_not_cancel_and_may_come_back_by_position(
    tmp_path: Path,
) -> None:
    go = asyncio.Event()

    async def last(request: ModelRequest) -> str:
        await go.wait()
        return "There."

    desk = Agent("desk", model=ScriptedModel([LOOK, last]), tools=[look])
    async with Runtime(url(tmp_path)) as rt:
        position, run_id = -1, ""
        async for event in rt.stream(desk, "Where?"):
            if isinstance(event, RunEvent):
                position, run_id = event.seq, event.run_id
                if type(event).__name__ == "ToolSucceeded":
                    break
        go.set()
        rest = [event async for event in rt.events(run_id, after=position)]
        whole = [event async for event in rt.events(run_id)]
    assert isinstance(rest[-1], RunEnded)
    assert rest[-1].result.status == "completed"
    seqs = [e.seq for e in rest if isinstance(e, RunEvent)]
    assert seqs == list(range(position + 1, position + 1 + len(seqs)))
    assert [e.seq for e in whole if isinstance(e, RunEvent)] == list(range(len(whole)))


async def test_two_watchers_see_the_same(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def turn(request: ModelRequest) -> str:
        await go.wait()
        return "There."

    desk = Agent("desk", model=ScriptedModel(turn))

    async with Runtime(url(tmp_path)) as rt:
        run_id = await rt.start(desk, "Where?")

        async def watch() -> list[str]:
            return kinds([event async for event in rt.events(run_id)])

        tasks = [asyncio.create_task(watch()) for _ in range(2)]
        go.set()
        first, second = [await task for task in tasks]
    assert first == second
    assert first[-1] == "RunEnded"


@pytest.mark.requirement("OBS-2")
async def test_the_hook_sees_every_event_and_cannot_harm_the_run(tmp_path: Path) -> None:
    seen: list[StreamEvent] = []

    def hook(event: StreamEvent) -> None:
        seen.append(event)
        raise RuntimeError("a broken hook")

    desk = Agent("desk", model=ScriptedModel([LOOK, "There."]), tools=[look])
    async with Runtime(url(tmp_path), on_event=hook) as rt:
        result = await rt.run(desk, "Where?")
        recorded = [event async for event in rt.events(result.run_id)]
    assert result.status == "completed"
    assert [e for e in seen if isinstance(e, RunEvent)] == recorded


async def test_the_stream_of_a_repeated_key_is_that_of_the_first_run(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel(["There."]))
    async with Runtime(url(tmp_path)) as rt:
        first = [e async for e in rt.stream(desk, "Where?", key="k") if isinstance(e, RunEvent)]
        second = [e async for e in rt.stream(desk, "Where?", key="k") if isinstance(e, RunEvent)]
    assert first == second
