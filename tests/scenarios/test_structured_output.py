"""`output=`: a typed answer, or an end that says why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from roadworthy import Agent, RunNotCompleted, Runtime, ToolCall, Verdict, guardrail, tool
from roadworthy.testing import ScriptedModel
from tests.scenarios.world import Given, results, unanswered, url


class Answer(BaseModel):
    text: str
    refunded: Decimal = Decimal(0)


@dataclass(frozen=True)
class Found:
    kind: Literal["found"]
    order: str


@dataclass(frozen=True)
class Missing:
    kind: Literal["missing"]
    why: str


@tool(effect="read")
def find_order(order_id: str) -> str:
    """One order. order_id: such as A-17."""
    return "a lamp"


def final(**arguments: Given) -> ToolCall:
    return ToolCall("final_answer", arguments)


@pytest.mark.requirement("TOL-8", "PA1-1")
async def test_in_tool_mode_the_answer_is_a_call_and_the_output_is_typed(tmp_path: Path) -> None:
    model = ScriptedModel(
        [ToolCall("find_order", {"order_id": "A-17"}), final(text="Refunded.", refunded="40.10")]
    )
    desk = Agent("desk", model=model, tools=[find_order], output=Answer)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Refund", conversation="c")
        again = await rt.result(result.run_id)
        history = await rt.history("c")
    assert result.status == "completed"
    assert result.unwrap() == Answer(text="Refunded.", refunded=Decimal("40.10"))
    assert result.text == "Refunded."
    assert again.output == result.output
    assert model.requests[0].tools == ("find_order", "ask_user", "escalate", "final_answer")
    assert not unanswered(history)
    assert history[-1].text == "Refunded."


async def test_the_typed_output_survives_reopening(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel([final(text="Hi.")]), output=Answer)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Hello")
    async with Runtime(url(tmp_path), patterns=[desk]) as rt:
        assert (await rt.result(result.run_id)).output == Answer(text="Hi.")
    async with Runtime(url(tmp_path)) as rt:
        assert (await rt.result(result.run_id)).output == {"text": "Hi.", "refunded": "0"}


async def test_in_native_mode_the_answer_is_the_text_of_the_reply(tmp_path: Path) -> None:
    model = ScriptedModel(['{"text": "Hi.", "refunded": 3}'])
    desk = Agent("desk", model=model, output=Answer, output_mode="native")
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Hello")
    assert result.unwrap() == Answer(text="Hi.", refunded=Decimal(3))
    assert "final_answer" not in model.requests[0].tools
    assert model.requests[0].request.output is not None


async def test_a_union_answers_with_either_type(tmp_path: Path) -> None:
    script = [
        final(answer={"kind": "found", "order": "A-17"}),
        final(answer={"kind": "missing", "why": "no such"}),
    ]
    outputs = []
    async with Runtime(url(tmp_path)) as rt:
        for item in script:
            union: Any = Found | Missing
            desk = Agent("desk", model=ScriptedModel([item]), output=union)
            outputs.append((await rt.run(desk, "Find it")).unwrap())
    assert outputs == [Found("found", "A-17"), Missing("missing", "no such")]


@pytest.mark.parametrize(("kind", "given"), [(int, 7), (list[str], ["a"]), (bool, False)])
async def test_plain_types_are_wrapped_and_unwrapped(
    tmp_path: Path, kind: Given, given: object
) -> None:
    desk = Agent("desk", model=ScriptedModel([final(answer=given)]), output=kind)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Count")
    assert result.unwrap() == given


@pytest.mark.requirement("TOL-8", "REC-3")
async def test_an_invalid_output_goes_back_with_what_is_wrong_and_may_be_mended(
    tmp_path: Path,
) -> None:
    model = ScriptedModel([final(txt="Hi."), final(text=7), final(text="Hi.")])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, output=Answer), "Hello")
    assert result.unwrap() == Answer(text="Hi.")
    first, second = (results(r.messages)[-1] for r in model.requests[1:])
    assert (first.status, second.status) == ("refused", "refused")
    assert "text" in first.content
    assert not unanswered(model.requests[2].messages)


@pytest.mark.requirement("ORC-5", "REC-5")
async def test_an_output_that_stays_invalid_ends_typed_after_two_revisions(
    tmp_path: Path,
) -> None:
    model = ScriptedModel([*[final(text=7)] * 3, "It is seven."])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, output=Answer), "Hello", conversation="c")
        history = await rt.history("c")
    assert (result.status, result.reason) == ("partial", "invalid_output")
    assert result.output is None
    assert result.text == "It is seven."
    assert len(model.requests) == 4
    assert not unanswered(model.requests[3].messages)
    assert not unanswered(history)
    with pytest.raises(RunNotCompleted, match=r"partial \(invalid_output\).*text"):
        result.unwrap()


async def test_text_instead_of_the_call_is_sent_back_unless_it_is_the_answer(
    tmp_path: Path,
) -> None:
    model = ScriptedModel(["Seven.", final(text="Seven.")])
    lenient = ScriptedModel(['{"text": "Seven."}'])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, output=Answer), "How many?")
        other = await rt.run(Agent("desk", model=lenient, output=Answer), "How many?")
    assert result.unwrap() == other.unwrap() == Answer(text="Seven.")
    assert "final_answer" in model.requests[1].text


async def test_a_final_answer_beside_other_calls_is_refused_and_nothing_is_carried_out(
    tmp_path: Path,
) -> None:
    ran: list[str] = []

    @tool
    def pay(order_id: str) -> str:
        """Pay. order_id: such as A-17."""
        ran.append(order_id)
        return "paid"

    both = [ToolCall("pay", {"order_id": "A-17"}), final(text="Paid.")]
    model = ScriptedModel([both, final(text="Not paid.")])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, tools=[pay], output=Answer), "Pay")
    assert result.text == "Not paid."
    assert ran == []
    assert len(results(model.requests[1].messages)) == 2


async def test_broken_json_of_a_final_answer_goes_back(tmp_path: Path) -> None:
    model = ScriptedModel([ToolCall("final_answer", malformed='{"text": '), final(text="Hi.")])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, output=Answer), "Hello")
    assert result.unwrap() == Answer(text="Hi.")


async def test_unwrap_without_output_is_the_text(tmp_path: Path) -> None:
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=ScriptedModel(["Hi."])), "Hello")
    assert result.unwrap() == "Hi."


async def test_a_redacted_answer_is_redacted_in_the_typed_output_too(tmp_path: Path) -> None:
    @guardrail("output")
    def no_names(run: object, text: str) -> Verdict:
        return Verdict.redact(text.replace("Ana", "***")) if "Ana" in text else Verdict.allow()

    model = ScriptedModel([final(text="Hello Ana.")])
    desk = Agent("desk", model=model, output=Answer, guardrails=[no_names])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Hello")
    assert result.text == "Hello ***."
    assert "Ana" not in repr(result.output)
