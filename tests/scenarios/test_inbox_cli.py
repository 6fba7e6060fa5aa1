"""The inbox in the terminal: beside a real server, in real processes, never JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.scenarios.faces import Place, Server, Terminal

DESK = '''
from pathlib import Path
from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.escalation import Inbox
from roadworthy.testing import ScriptedModel

folder = Path(__file__).parent

@tool(approval="operator", effect="irreversible")
def refund(order: str, euros: int) -> str:
    """Pay an order back. order: such as A-17. euros: how much."""
    with (folder / "bank.txt").open("a") as bank:
        bank.write(f"{order} {euros}\\n")
    return f"refunded {euros}"

pay = ToolCall("refund", {"order": "A-17", "euros": 40})
desk = Agent("desk", model=ScriptedModel(["Glad that we could help."]))
payer = Agent("payer", model=ScriptedModel([pay, "It is on its way."]), tools=[refund])
rt = Runtime(f"sqlite:///{folder}/t.db", patterns=[desk, payer], inbox=Inbox())
'''


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.desk.write_text(DESK, encoding="utf-8")
    return made


@pytest.fixture
def client(place: Place) -> Iterator[httpx.Client]:
    served = Server(place)
    with httpx.Client(base_url=served.url, timeout=30, trust_env=False) as made:
        yield made
    served.close()


def write(client: httpx.Client, agent: str, text: str) -> dict[str, Any]:
    body = {"agent": agent, "input": text, "user": "ana", "conversation": "c"}
    found: dict[str, Any] = client.post("/v1/runs", json=body).json()
    return found


def ended(client: httpx.Client, run_id: str) -> dict[str, Any]:
    """The run's result, once it is over."""
    client.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": "-1"})
    found: dict[str, Any] = client.get(f"/v1/runs/{run_id}").json()
    return found


def inbox(place: Place, *words: str) -> str:
    """A command, as lea; what it prints is no JSON."""
    done = place.cli("inbox", "--by", "lea", "desk.py", *words)
    assert done.returncode == 0, done.stderr
    assert not re.search(r'[{}\[\]]|"\w+":', done.stdout), done.stdout
    return done.stdout


@pytest.mark.requirement("HIT-2", "HIT-3")
def test_a_case_is_read_taken_answered_and_handed_back(place: Place, client: httpx.Client) -> None:
    assert inbox(place, "list") == "Nothing waits for a person.\n"
    said = write(client, "desk", "I want to talk to a human")
    listed = inbox(place, "list")
    assert "The user asked for a person." in listed
    found = re.search(r"esc_\w+", listed)
    assert found
    item = found[0]
    shown = inbox(place, "show", item[-8:])
    assert "user: I want to talk to a human" in shown
    assert "✗ The user asked for a person." in shown
    assert inbox(place, "take", item) == "The conversation with ana is yours.\n"
    assert inbox(place, "say", item, "Hello", "Ana") == "Said to ana.\n"
    assert inbox(place, "note", item, "a regular") == "Noted.\n"
    assert "lea: a regular" in inbox(place, "show", item)
    assert "lea has it" in inbox(place, "list", "--status", "taken")
    assert "desk has the conversation again" in inbox(place, "hand-back", item, "be", "brief")
    run = ended(client, said["run_id"])
    assert run["result"]["text"] == "Glad that we could help."


@pytest.mark.requirement("HIT-3")
def test_a_call_is_edited_in_plain_words(place: Place, client: httpx.Client) -> None:
    said = write(client, "payer", "Refund A-17")
    found = re.search(r"esc_\w+", inbox(place, "list"))
    assert found
    item = found[0]
    shown = inbox(place, "show", item)
    assert "1. refund: waits for your word" in shown
    assert "euros: 40" in shown
    wrong = place.cli("inbox", "desk.py", "edit", item, "sum=30")
    assert wrong.returncode == 2
    assert "the names are euros, order" in wrong.stderr
    assert inbox(place, "edit", item, "euros=30") == "Approved as edited: order: A-17; euros: 30.\n"
    assert ended(client, said["run_id"])["result"]["text"] == "It is on its way."
    assert (place.folder / "bank.txt").read_text() == "A-17 30\n"


def test_a_file_without_an_inbox_says_how_to_declare_one(place: Place) -> None:
    place.desk.write_text(DESK.replace(", inbox=Inbox()", ""), encoding="utf-8")
    done = place.cli("inbox", "desk.py", "list")
    assert done.returncode == 2
    assert "inbox=Inbox()" in done.stderr


@pytest.mark.requirement("HIT-3")
def test_an_operator_talks_to_the_user_live(place: Place, client: httpx.Client) -> None:
    said = write(client, "desk", "I want to talk to a human")
    terminal = Terminal(place, "inbox", "--by", "lea", "desk.py")
    try:
        terminal.expect("/quit> ")
        terminal.type("1")
        terminal.expect("user: I want to talk to a human")
        terminal.expect("ana> ")
        terminal.type("/take")
        terminal.expect("It is yours")
        terminal.expect("ana> ")
        terminal.type("Hello Ana")
        terminal.expect("ana> ")
        write(client, "desk", "It is about A-17")
        terminal.expect("user: It is about A-17")
        terminal.type("/nonsense")
        terminal.expect("What you type goes to the user")
        terminal.type("/back be brief")
        terminal.expect("The agent has the conversation again.")
        terminal.expect("/quit> ")
        terminal.type("/quit")
        assert terminal.ended() == 0
    finally:
        terminal.close()
    ended(client, said["run_id"])
    heard = client.get("/v1/conversations/c/messages", params={"user": "ana"}).json()["messages"]
    assert [m["text"] for m in heard] == [
        "I want to talk to a human",
        "Hello Ana",
        "It is about A-17",
        "Glad that we could help.",
    ]
