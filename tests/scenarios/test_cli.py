"""The command line in real processes: answers, exit codes, traces, a chat in a terminal."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from roadworthy import Agent, Runtime
from roadworthy.testing import ScriptedModel
from tests.scenarios.faces import Place, Server, Terminal, environment

TRAVEL = '''
from pathlib import Path
from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.testing import ScriptedModel

folder = Path(__file__).parent

def log(what):
    with (folder / "log").open("a") as file:
        file.write(what + "\\n")
    return what

@tool
def cancel(city: str) -> str:
    """Cancel. city: where."""
    return log("cancel")

@tool(undo=cancel)
def book(city: str) -> str:
    """Book. city: where."""
    return log("book")

model = ScriptedModel([ToolCall("book", {"city": "Rome"}), "Booked."])
travel = Agent("travel", model=model, tools=[book])
rt = Runtime(f"sqlite:///{folder}/t.db", patterns=[travel])
'''
Chatting: TypeAlias = Callable[[str], Terminal]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def server(place: Place) -> Iterator[Server]:
    served = Server(place)
    yield served
    served.close()


@pytest.fixture
def chatting(place: Place) -> Iterator[Chatting]:
    """Opens a chat with an agent."""
    opened: list[Terminal] = []

    def chat(agent: str) -> Terminal:
        opened.append(Terminal(place, "chat", "desk.py", "--agent", agent))
        return opened[-1]

    yield chat
    for terminal in opened:
        terminal.close()


# --- run --------------------------------------------------------------------------------------


def test_run_prints_the_answer_and_nothing_else_on_stdout(place: Place) -> None:
    done = place.run("desk")
    assert done.returncode == 0
    assert done.stdout == "Let me look. \nTwo lamps. <img src=x onerror=alert(1)>\n"
    assert "✓ find_order" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("completed (answered) · 2 turns · 1 tool call · $0.00")
    assert last.endswith(place.runs()[0]["id"])


@pytest.mark.parametrize(("agent", "code"), [("payer", 3), ("small", 4), ("broken", 1)])
def test_the_exit_code_says_how_the_run_stands(place: Place, agent: str, code: int) -> None:
    assert place.run(agent).returncode == code


def test_the_same_key_is_the_same_run(place: Place) -> None:
    first = json.loads(place.run("desk", "--key", "k", "--json").stdout)
    again = json.loads(place.run("desk", "--key", "k", "--json").stdout)
    assert first == again
    assert len(place.runs()) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "none.py", "x"), "There is no file none.py."),
        (("run", "desk.py", "x"), "choose with --agent: asker, broken, desk"),
        (("run", "desk.py", "x", "--agent", "nobody"), "There is no agent 'nobody'."),
        (("run", "desk.py", " ", "--agent", "desk"), "The input is empty."),
        (("run", "bad.py", "x"), "bad.py cannot be loaded: ZeroDivisionError"),
        (("run", "empty.py", "x"), "has no agent at its top level"),
        (("run",), "Missing argument"),
        (("runs", "list"), "There is no store at"),
        (("nothing",), "No such command"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(
    place: Place, words: tuple[str, ...], says: str
) -> None:
    (place.folder / "bad.py").write_text("x = 1 / 0\n", encoding="utf-8")
    (place.folder / "empty.py").write_text("x = 1\n", encoding="utf-8")
    done = place.cli(*words)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_a_module_without_runtime_gets_the_default_one(place: Place) -> None:
    (place.folder / "alone.py").write_text(
        "from roadworthy import Agent\nfrom roadworthy.testing import ScriptedModel\n"
        'hello = Agent("hello", model=ScriptedModel(["Hello."]))\n',
        encoding="utf-8",
    )
    assert place.cli("run", "alone", "hi").stdout == "Hello.\n"
    assert (place.folder / "roadworthy.db").is_file()


# --- runs -------------------------------------------------------------------------------------


@pytest.mark.requirement("OBS-1", "OBS-2", "OBS-3")
def test_show_tells_the_whole_run(place: Place) -> None:
    place.run("desk")
    run_id = place.runs()[0]["id"]
    shown = place.cli("runs", "show", run_id, "--url", place.url).stdout
    for piece in (
        "completed (answered)",
        "input: Where is A-17?",
        "use tools: find_order",
        'alternatives: ["escalate"]',
        'arguments: {"order_id": "A-17"}',
        "result: A-17: two lamps, 40 euros",
        "reserved $0.0",
        "spent $0 → $0.00",
    ):
        assert piece in shown, piece
    assert "\x1b" not in shown  # a tool's text cannot control the terminal
    kinds = [event["type"] for event in place.events(run_id)]
    assert kinds[0] == "RunStarted"
    assert kinds[-1] == "RunEnded"


@pytest.mark.requirement("REC-5", "CST-4")
def test_a_limited_run_is_resumed_with_more(place: Place) -> None:
    place.run("small")
    run_id = place.runs()[0]["id"]
    nobody = place.cli("runs", "resume", run_id, "--url", place.url)
    assert nobody.returncode == 2
    assert "--file" in nobody.stderr
    assert not [e for e in place.events(run_id) if e["type"] == "RunReopened"]
    resumed = place.cli("runs", "resume", run_id, "--file", "desk.py", "--usd", "2")
    assert resumed.returncode == 4  # still two turns at most
    reopened = [e for e in place.events(run_id) if e["type"] == "RunReopened"]
    assert reopened[0]["limits"]["usd"] == "2"
    assert reopened[0]["limits"]["turns"] == 2


@pytest.mark.requirement("REC-5")
def test_a_run_is_undone(place: Place) -> None:
    (place.folder / "travel.py").write_text(TRAVEL, encoding="utf-8")
    assert place.cli("run", "travel.py", "Book.").returncode == 0
    run_id = place.runs()[0]["id"]
    for _ in range(2):
        undone = place.cli("runs", "undo", run_id, "--file", "travel.py")
        assert undone.returncode == 0, undone.stderr
        assert undone.stdout == "Undone: book (by cancel).\n"
    assert (place.folder / "log").read_text(encoding="utf-8").split() == ["book", "cancel"]
    assert [run["pattern"] for run in place.runs()] == ["travel-undo", "travel"]


@pytest.mark.requirement("OBS-2")
def test_runs_are_shown_and_cancelled_while_another_process_executes_them(
    place: Place, server: Server
) -> None:
    started = place.cli("run", "desk.py", "x", "--agent", "asker", "--conversation", "c")
    assert started.returncode == 3
    run_id = place.runs()[0]["id"]
    assert "Which order?" in place.cli("runs", "show", run_id, "--url", place.url).stdout
    cancelled = place.cli("runs", "cancel", run_id, "--url", place.url)
    assert cancelled.stdout == f"{run_id} is stopped (cancelled).\n"
    assert server.process.poll() is None


# --- replay -----------------------------------------------------------------------------------


@pytest.mark.requirement("BEY-3")
def test_replay_says_whether_a_change_would_show(place: Place) -> None:
    place.run("desk")
    run_id = place.runs()[0]["id"]
    same = place.cli("replay", run_id, "desk.py")
    assert (same.returncode, same.stdout) == (0, f"{run_id}: the same, step for step.\n")
    changed = place.desk.read_text(encoding="utf-8").replace("Find an order", "Look one up")
    place.desk.write_text(changed, encoding="utf-8")
    differs = place.cli("replay", run_id, "desk.py")
    assert differs.returncode == 1
    assert "the request would differ" in differs.stdout


@pytest.mark.sqlite_only
def test_looking_executes_nothing(place: Place) -> None:
    place.run("desk")
    done = place.runs()[0]["id"]

    async def leave_one() -> None:
        async with Runtime(place.url, execute=False) as rt:
            await rt.start(Agent("desk", model=ScriptedModel([])), "x")

    asyncio.run(leave_one())
    assert place.cli("replay", done, "desk.py").returncode == 0
    place.cli("runs", "show", done, "--url", place.url)
    assert [run["status"] for run in place.runs()] == ["queued", "completed"]


# --- chat -------------------------------------------------------------------------------------


def test_chat_streams_answers_of_one_conversation(chatting: Chatting) -> None:
    chat = chatting("desk")
    chat.expect("you> ")
    chat.type("Where is it?")
    chat.expect("Two lamps.")
    chat.expect("you> ")
    chat.type("/quit")
    chat.expect("roadworthy runs show run_")
    assert chat.ended() == 0


@pytest.mark.requirement("ORC-1")
def test_chat_asks_for_approval_and_takes_an_edit(place: Place, chatting: Chatting) -> None:
    chat = chatting("payer")
    chat.expect("you> ")
    chat.type("Refund A-17.")
    assert '"euros": 40' in chat.expect("[a]pprove")
    chat.type("e")
    chat.expect("JSON> ")
    chat.type("{nonsense")
    chat.expect("Not taken")
    chat.type("edit")
    chat.expect("JSON> ")
    chat.type('{"order_id": "A-17", "euros": "many"}')
    chat.expect("Not taken")
    chat.type("e")
    chat.expect("JSON> ")
    chat.type('{"order_id": "A-17", "euros": 30}')
    chat.expect("It is on its way.")
    chat.expect("you> ")
    chat.type("/quit")
    assert chat.ended() == 0
    assert (place.folder / "bank.txt").read_text() == "A-17 30\n"


@pytest.mark.requirement("ORC-1")
def test_chat_answers_a_question_in_the_same_run(place: Place, chatting: Chatting) -> None:
    chat = chatting("asker")
    chat.expect("you> ")
    chat.type("Cancel my order.")
    chat.expect("Which order?")
    chat.expect("you> ")
    chat.type("A-17")
    assert "Which order?" not in chat.expect("Thank you.")
    chat.expect("you> ")
    chat.type("/quit")
    assert chat.ended() == 0
    assert len(place.runs()) == 1


def test_ctrl_c_cancels_the_answer_and_twice_leaves(chatting: Chatting) -> None:
    chat = chatting("hanger")
    chat.expect("you> ")
    chat.type("Go.")
    chat.expect("hanging")
    chat.interrupt("Cancelling")
    chat.expect("stopped (cancelled)")
    chat.expect("you> ")
    chat.interrupt("Ctrl+C again leaves.")
    chat.expect("you> ")
    chat.interrupt("roadworthy runs show run_")
    assert chat.ended() == 0


# --- help -------------------------------------------------------------------------------------


def test_help_loads_neither_the_models_nor_the_store() -> None:
    code = (
        "import sys\nfrom roadworthy.cli import main\nsys.argv = ['roadworthy', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('pydantic_ai', 'sqlalchemy', 'fastapi', 'pydantic', 'rich')])\n"
    )
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "chat" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
