"""What users and operators think of a run becomes labelled cases, where they agree to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.cli.feedback import app
from roadworthy.errors import RunError, UnknownRun
from roadworthy.escalation import Inbox
from roadworthy.testing import ScriptedModel
from roadworthy.testing.scripted import Item
from tests.scenarios.world import Given, url

pytestmark = pytest.mark.requirement("HIT-5")


@tool(effect="irreversible", approval="operator")
def refund(order: str, euros: int) -> str:
    """Pay an order back. order: such as A-17. euros: how much."""
    return f"refunded {euros} of {order}"


async def test_the_latest_word_of_a_person_stands(tmp_path: Path) -> None:
    async with Runtime(url(tmp_path)) as rt:
        run = await rt.run(Agent("a", model=ScriptedModel(["Yes."])), "Is it?", user="ana")
        await rt.feedback(run.run_id, by="ana", rating=1)
        await rt.feedback(run.run_id, by="ana", rating=-1, reason="wrong", correction="No.")
        await rt.feedback(run.run_id, by="ana", kind="operator", rating=0)
        await rt.feedback(run.run_id, by="lea", rating=1)
        said = [(f.by, f.kind, f.rating, f.correction) for f in await rt.feedbacks(run.run_id)]
        assert sorted(said) == [
            ("ana", "operator", 0, ""),
            ("ana", "user", -1, "No."),
            ("lea", "user", 1, ""),
        ]
        with pytest.raises(UnknownRun):
            await rt.feedback("run_x", by="ana")
        wrong: list[dict[str, Given]] = [
            {"rating": 2},
            {"rating": True},
            {"kind": "boss"},
            {"by": " "},
            {"reason": "x" * 20_001},
        ]
        for given in wrong:
            with pytest.raises(RunError, match=next(iter(given))):
                await rt.feedback(run.run_id, **{"by": "ana", **given})


class Tokens:
    """A privacy that knows one name."""

    async def conceal(self, text: str, scope: Given) -> str:
        return text.replace("Ana Example", "<P1>")

    async def reveal(self, text: str, scope: Given) -> str:
        return text.replace("<P1>", "Ana Example")


async def test_only_what_was_agreed_to_becomes_a_case_and_concealed(tmp_path: Path) -> None:
    script: list[Item] = [
        ToolCall("refund", {"order": "A-17", "euros": 40}),
        "Dear Ana Example, done.",
    ]
    agent = Agent("desk", model=ScriptedModel(script), tools=[refund])
    async with Runtime(url(tmp_path), inbox=Inbox(), privacy=Tokens()) as rt:
        said = await rt.run(agent, "Ana Example wants A-17 back", user="u1", conversation="c")
        (approval,) = said.waiting
        await rt.inbox.decide(
            approval.id, "edit", "lea", arguments={"order": "A-17", "euros": 30}, note="half"
        )
        assert (await rt.result(said.run_id)).text == "Dear Ana Example, done."
        other = await rt.run(agent, "Another", user="u1")
        await rt.feedback(other.run_id, by="u1", rating=1)
        assert await rt.cases() == []  # nobody agreed to it
        await rt.feedback(
            said.run_id, by="u1", rating=-1, correction="Ana Example is Mx.", consent=True
        )
        (case,) = await rt.cases()
        assert (case.input, case.output) == ("<P1> wants A-17 back", "Dear <P1>, done.")
        assert (case.label, case.correction) == (-1, "<P1> is Mx.")
        assert [(call["tool"], call["ok"]) for call in case.tools] == [("refund", True)]
        operator = next(each for each in case.opinions if each["kind"] == "operator")
        assert (operator["rating"], operator["reason"]) == (0, "half")
        assert json.loads(str(operator["correction"])) == {"order": "A-17", "euros": 30}
        (user,) = [f for f in await rt.feedbacks(said.run_id) if f.kind == "user"]
        assert user.correction == "Ana Example is Mx."
    done = CliRunner().invoke(
        app, ["export", "--url", url(tmp_path), "-o", str(tmp_path / "cases.jsonl")]
    )
    assert done.exit_code == 0, done.output
    (line,) = (tmp_path / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["run"] == said.run_id


async def test_what_a_person_tells_the_agent_is_feedback(tmp_path: Path) -> None:
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        agent = Agent("desk", model=ScriptedModel(["Bye."]))
        said = await rt.run(agent, "I want to talk to a human", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        await rt.inbox.take(item.id, "lea")
        await rt.inbox.hand_back(item.id, "lea", instruction="Parcels take two days.")
        await rt.result(said.run_id)
        (found,) = await rt.feedbacks(said.run_id)
        assert (found.kind, found.by, found.correction) == (
            "operator",
            "lea",
            "Parcels take two days.",
        )
