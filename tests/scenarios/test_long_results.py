"""Results that are too long to be shown: cut at a sensible place, kept whole, read page by page."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

import pytest

from roadworthy import (
    Agent,
    DeclarationError,
    Limits,
    Runtime,
    Tool,
    ToolCall,
    ToolError,
    User,
    tool,
)
from roadworthy.events import ToolRefused, ToolSucceeded
from roadworthy.testing import ScriptedModel
from roadworthy.trace import story
from tests.scenarios.world import journal, of_kind, results, url

_CUT = re.compile(r'\n\[cut: .*read_more\(handle="(\w+)", offset=(\d+)\)\]$')
LINES = "\n".join(f"line {n}: paid {n}.50" for n in range(3_000))


def listing(text: str = LINES, result_bytes: int | None = None) -> Tool[None]:
    @tool(effect="read", result_bytes=result_bytes)
    def bookings() -> str:
        """All bookings."""
        return text

    return bookings


def cut(content: str) -> tuple[str, int]:
    """The handle and offset that a cut result gives."""
    found = _CUT.search(content)
    assert found is not None, content[-200:]
    return found[1], int(found[2])


@pytest.mark.requirement("TOL-5")
async def test_the_pages_of_a_long_result_are_the_whole(tmp_path: Path) -> None:
    asked = ScriptedModel([ToolCall("bookings"), "Done."])
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(Agent("desk", model=asked, tools=[listing()]), "Go", conversation="c")
        (shown,) = [o.result.content for o in await of_kind(rt, first.run_id, ToolSucceeded)]
        assert len(shown.encode()) <= Limits().result_bytes
        text, pages = _CUT.sub("", shown), 1
        assert text.endswith("\n")  # cut behind a line
        while True:
            handle, offset = cut(shown)
            call = ToolCall("read_more", {"handle": handle, "offset": offset})
            reader = Agent("desk", model=ScriptedModel([call, "Done."]), tools=[listing()])
            run = await rt.run(reader, "On", conversation="c")
            (shown,) = [o.result.content for o in await of_kind(rt, run.run_id, ToolSucceeded)]
            assert len(shown.encode()) <= Limits().result_bytes
            pages += 1
            if shown.endswith("\n[the end]"):
                break
            text += _CUT.sub("", shown)
        text += shown.removesuffix("\n[the end]")
    assert text == LINES
    assert pages == len(LINES) // 16_000 + 1


async def test_read_more_is_offered_only_where_something_is_cut(tmp_path: Path) -> None:
    model = ScriptedModel([ToolCall("bookings"), "Done."])
    agent = Agent("desk", model=model, tools=[listing()])
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(agent, "Go", conversation="c")
        await rt.run(agent, "And now?", conversation="c")
        other = ScriptedModel(["Hello."])
        await rt.run(Agent("desk", model=other, tools=[listing()]), "Go", conversation="d")
    offered = [list(request.tools) for request in model.requests]
    assert ["read_more" in names for names in offered] == [False, True, True, True]
    assert [names[0] for names in offered] == ["bookings"] * 4  # what was there keeps its place
    assert "read_more" not in other.requests[0].tools


@pytest.mark.requirement("TOL-5", "TOL-8")
async def test_a_handle_opens_nothing_outside_its_conversation(tmp_path: Path) -> None:
    secret = "\n".join(f"ana's secret {n}" for n in range(3_000))
    ana = Agent(
        "desk", model=ScriptedModel([ToolCall("bookings"), "Done."]), tools=[listing(secret)]
    )
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(ana, "Go", user=User("ana"), conversation="a")
        (whole,) = await of_kind(rt, first.run_id, ToolSucceeded)
        handle, _ = cut(whole.result.content)
        for stolen in (handle, whole.result.rest, ""):
            call = ToolCall("read_more", {"handle": stolen, "offset": 0})
            bea = Agent(
                "desk", model=ScriptedModel([ToolCall("bookings"), call, "No."]), tools=[listing()]
            )
            run = await rt.run(bea, "Go", user=User("bea"), conversation="b")
            (refused,) = await of_kind(rt, run.run_id, ToolRefused)
            assert "no such handle" in refused.result.content
            said = [r.content for r in results(await rt.history("b"))]
            assert not any("ana's secret" in text for text in said)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"handle": 7, "offset": 0}, {"handle": ["x"]}, {"handle": "HANDLE", "offset": -1},
     {"handle": "HANDLE", "offset": True}, {"handle": "HANDLE", "offset": "9"},
     {"handle": "HANDLE", "offset": 10**12}],
)  # fmt: skip
async def test_what_does_not_fit_is_refused(tmp_path: Path, arguments: dict[str, object]) -> None:
    async with Runtime(url(tmp_path)) as rt:
        model = ScriptedModel([ToolCall("bookings"), "Done."])
        first = await rt.run(Agent("desk", model=model, tools=[listing()]), "Go", conversation="c")
        (whole,) = await of_kind(rt, first.run_id, ToolSucceeded)
        handle, _ = cut(whole.result.content)
        given = {k: handle if v == "HANDLE" else v for k, v in arguments.items()}
        model = ScriptedModel([ToolCall("read_more", given), "Done."])
        run = await rt.run(Agent("desk", model=model, tools=[listing()]), "Go", conversation="c")
        assert len(await of_kind(rt, run.run_id, ToolRefused)) == 1
    assert run.status == "completed"


async def test_pages_count_as_calls_and_a_replay_needs_no_store(tmp_path: Path) -> None:
    async with Runtime(url(tmp_path)) as rt:
        model = ScriptedModel([ToolCall("bookings"), "Done."])
        await rt.run(Agent("desk", model=model, tools=[listing()]), "Go", conversation="c")
        (cut_one,) = [r for r in results(await rt.history("c")) if r.rest]
        handle, offset = cut(cut_one.content)
        calls = [ToolCall("read_more", {"handle": handle, "offset": n}) for n in (offset, 0, 9)]
        model = ScriptedModel([*calls, "Done."])
        limited = Agent("desk", model=model, tools=[listing()], limits=Limits(tool_calls=2))
        run = await rt.run(limited, "Go", conversation="c")
        assert run.usage.tool_calls == 2
        assert (await rt.replay(run.run_id)).differences == ()


@pytest.mark.requirement("TOL-5")
async def test_each_page_of_a_table_names_its_columns(tmp_path: Path) -> None:
    @tool(effect="read", result_bytes=1_000)
    def orders() -> list[dict[str, object]]:
        """All orders."""
        return [{"order_id": f"A-{n}", "total": n} for n in range(500)]

    async with Runtime(url(tmp_path)) as rt:
        model = ScriptedModel([ToolCall("orders"), "Done."])
        first = await rt.run(Agent("desk", model=model, tools=[orders]), "Go", conversation="c")
        (one,) = [o.result.content for o in await of_kind(rt, first.run_id, ToolSucceeded)]
        assert one.startswith("500 rows\norder_id|total\nA-0|0\nA-1|1\n")
        assert len(one) <= 1_000
        handle, offset = cut(one)
        model = ScriptedModel([ToolCall("read_more", {"handle": handle, "offset": offset}), "."])
        run = await rt.run(Agent("desk", model=model, tools=[orders]), "Go", conversation="c")
        (two,) = [o.result.content for o in await of_kind(rt, run.run_id, ToolSucceeded)]
    assert re.match(r"order_id\|total\nA-\d+\|\d+\n", two)


async def test_what_a_result_costs_in_tokens_is_in_the_trace(tmp_path: Path) -> None:
    async with Runtime(url(tmp_path)) as rt:
        model = ScriptedModel([ToolCall("bookings"), "Done."])
        run = await rt.run(Agent("desk", model=model, tools=[listing()]), "Go")
        (step,) = [s for s in story(await journal(rt, run.run_id)) if s.kind == "tool"]
    assert 3_000 < step.detail["result_tokens"] < 16_384


@pytest.mark.requirement("TOL-5")
async def test_a_hundred_megabytes_are_bounded(tmp_path: Path) -> None:
    huge = "x" * 100_000_000
    async with Runtime(url(tmp_path)) as rt:
        model = ScriptedModel([ToolCall("bookings"), "Done."])
        run = await rt.run(Agent("desk", model=model, tools=[listing(huge)]), "Go")
    assert run.status == "completed"
    assert sum(map(os.path.getsize, glob.glob(f"{tmp_path}/*"))) < 8_000_000


def test_a_bound_too_small_to_show_anything_is_refused() -> None:
    with pytest.raises(DeclarationError, match="result_bytes"):
        listing(result_bytes=10)
    with pytest.raises(DeclarationError, match="result_bytes"):
        Limits(result_bytes=10)


async def test_models_are_told_of_errors_in_one_form(tmp_path: Path) -> None:
    @tool(effect="read", retries=0)
    def look(x: int) -> str:
        """Look. x: any."""
        raise ToolError("No such order. Ask for the number.")

    model = ScriptedModel([ToolCall("look", {"x": 1}), ToolCall("look", {"x": "?"}), "Done."])
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(Agent("desk", model=model, tools=[look]), "Go", conversation="c")
        failed, refused = results(await rt.history("c"))
    assert failed.told == "[error] No such order. Ask for the number."
    assert refused.told.startswith("[refused] look: x must be an integer")
