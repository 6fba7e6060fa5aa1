"""What the tests of the command line and the server share: a file of agents, processes, a pty."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

DESK = '''
import asyncio
from pathlib import Path
from roadworthy import Agent, Limits, Price, RunContext, Runtime, ToolCall, tool
from roadworthy.testing import ScriptedModel

folder = Path(__file__).parent
price = Price(input=3, output=15)

@tool(effect="read")
def find_order(order_id: str) -> str:
    """Find an order."""
    return f"{order_id}: two lamps, 40 euros, \\x1b[31m<script>alert(1)</script>"

@tool(approval="operator")
def refund(order_id: str, euros: int) -> str:
    """Pay an order back."""
    with (folder / "bank.txt").open("a") as bank:
        bank.write(f"{order_id} {euros}\\n")
    return f"refunded {euros}"

@tool(effect="read", timeout=60)
async def hang(run: RunContext[None]) -> str:
    """Wait for something that never comes."""
    run.progress("hanging")
    await asyncio.Event().wait()
    return "never"

@tool(effect="read", timeout=60)
def gate() -> str:
    """Wait until the test opens the gate."""
    return (folder / "gate").read_text()

def find(order):
    return ToolCall("find_order", {"order_id": order})

def agent(name, *script, **more):
    return Agent(name, model=ScriptedModel(list(script), price=price), **more)

pay = ToolCall("refund", {"order_id": "A-17", "euros": 40})
desk = agent(
    "desk",
    ["Let me look. ", find("A-17")],
    "Two lamps. <img src=x onerror=alert(1)>",
    tools=[find_order],
)
payer = agent("payer", pay, "It is on its way.", tools=[refund])
asker = agent("asker", ToolCall("ask_user", {"question": "Which order?"}), "Thank you.")
hanger = agent("hanger", ToolCall("hang", {}), "done", tools=[hang])
gated = agent("gated", ToolCall("gate", {}), "The gate is open.", tools=[gate])
small = agent(
    "small", find("A-1"), find("A-2"), "Both found.", tools=[find_order], limits=Limits(turns=2)
)
broken = agent("broken")
all_of_them = [desk, payer, asker, hanger, gated, small, broken]
rt = Runtime(f"sqlite:///{folder}/t.db", patterns=all_of_them)
'''
ROADWORTHY = [sys.executable, "-c", "from roadworthy.cli import main; main()"]
SECONDS = 30.0


class Place:
    """A folder with `desk.py` and its store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.desk = folder / "desk.py"
        self.desk.write_text(DESK, encoding="utf-8")
        self.url = f"sqlite:///{folder}/t.db"

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(  # noqa: S603 - our own command
            [*ROADWORTHY, *words],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def run(self, agent: str, *more: str) -> subprocess.CompletedProcess[str]:
        """`roadworthy run` with an agent."""
        return self.cli("run", "desk.py", "Where is A-17?", "--agent", agent, *more)

    def runs(self) -> list[dict[str, Any]]:
        """What `runs list` knows, the newest first."""
        listed = self.cli("runs", "list", "--url", self.url, "--json").stdout
        return [json.loads(line) for line in listed.splitlines()]

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """The events of a run."""
        shown = self.cli("runs", "show", run_id, "--url", self.url, "--json").stdout
        return [json.loads(line) for line in shown.splitlines()]


class Terminal:
    """A command in a pseudo-terminal, typed at and read from."""

    def __init__(self, place: Place, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            [*ROADWORTHY, *words],
            cwd=place.folder,
            env=environment() | {"TERM": "dumb", "COLUMNS": "200"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def expect(self, text: str) -> str:
        """Read until this text comes. Returns what came before it."""
        assert self.comes(text, SECONDS), f"{text!r} never came; seen: {self.seen!r}"
        before, _, self.seen = self.seen.partition(text)
        return before

    def comes(self, text: str, seconds: float) -> bool:
        """Whether this text comes, with no longer silence than this."""
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], seconds)
            if not ready:
                return False
            try:
                self.seen += os.read(self.master, 65_536).decode("utf-8", "replace")
            except OSError:  # the command is over
                return False
        return True

    def type(self, line: str) -> None:
        """A line and Enter."""
        os.write(self.master, f"{line}\n".encode())

    def interrupt(self, until: str) -> None:
        """Ctrl+C, pressed again where it fell between a prompt and the read behind it."""
        for _ in range(10):
            self.process.send_signal(signal.SIGINT)
            if self.comes(until, 2.0):
                break
        self.expect(until)

    def ended(self) -> int:
        """The exit code, once it is over."""
        return self.process.wait(SECONDS)

    def close(self) -> None:
        """Whatever became of it, nothing is left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(SECONDS)
        os.close(self.master)


class Server:
    """`roadworthy serve`, on a free port unless one is named."""

    def __init__(self, place: Place, port: str = "0") -> None:
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            [*ROADWORTHY, "serve", "desk.py", "--port", port],
            cwd=place.folder,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line
        self.url = found[0]

    def close(self) -> None:
        """Ctrl+C."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=SECONDS)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(SECONDS)


def environment() -> dict[str, str]:
    """Ours, without what would change the commands."""
    return {k: v for k, v in os.environ.items() if not k.startswith("ROADWORTHY")}
