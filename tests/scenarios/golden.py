"""Golden journals: what a release wrote, kept to be resumed and replayed by every later one.

Each is rows of a store as JSON lines, the release's schema in the first. Invariant: a file that was
checked in is never written again. For a new release: `python -m tests.scenarios.golden 0.2.0`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from roadworthy import Agent, Price, Runtime, ToolCall, tool
from roadworthy.messages import ModelRequest
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.testing.scripted import Turn
from tests.properties.snapshots import Snapshots

FOLDER = Path(__file__).parents[1] / "data" / "golden"
TABLES = (
    "alembic_version",
    "tenant",
    "declaration",
    "conversation",
    "run",
    "event",
    "payload",
    "wait",
    "command",
    "account",
    "reservation",
)
SCRIPTS: dict[str, list[Turn]] = {
    "complete": [
        [ToolCall("look", {"page": 1}), ToolCall("look", {"page": 2})],
        ToolCall("keep", {"text": "a"}),
        ToolCall("lok", {"page": 3}),
        "All done.",
    ],
    "approve": [ToolCall("pay", {"order_id": "A", "euros": 40}), "Paid."],
    "ask": [ToolCall("ask_user", {"question": "Which one?"}), "Thanks."],
    "ship": [ToolCall("ship", {"order_id": "B"}), "Shipped."],
}


def desk(done: list[str], during: Callable[[], None] = lambda: None) -> Agent:
    """The agent of every golden journal. during: called in the middle of `ship`."""

    @tool(effect="read")
    def look(page: int) -> str:
        """One page. page: its number."""
        return f"page {page}"

    @tool(effect="write", idempotent_by_nature=True)
    def keep(text: str) -> str:
        """Keep. text: what."""
        done.append(f"keep {text}")
        return "kept"

    @tool(approval="operator")
    def pay(order_id: str, euros: int) -> str:
        """Pay back."""
        done.append(f"pay {order_id} {euros}")
        return "paid"

    @tool
    def ship(order_id: str) -> str:
        """Ship."""
        done.append(f"ship {order_id}")
        during()
        return "shipped"

    def say(request: ModelRequest) -> Turn:
        return SCRIPTS[request.messages[0].text][request.ordinal]

    model = ScriptedModel(say, price=Price(input=1, output=10))
    return Agent("golden", model=model, instructions="Be kind.", tools=[look, keep, pay, ship])


async def written(folder: Path) -> Path:
    """The store of a process that died inside `ship`, all other runs standing still."""
    snapshots = Snapshots(folder / "store.db", folder)
    copies: list[str] = []
    agent = desk([], lambda: copies.append(snapshots.take()))
    async with Runtime(snapshots.url, clock=FakeClock(auto=True)) as rt:
        for word in SCRIPTS:
            await rt.run(agent, word, user="ana", conversation=word, key=word)
    return Path(copies[0].removeprefix("sqlite:///"))


def dump(store: Path, target: Path) -> None:
    """A store's rows as JSON lines."""
    with closing(sqlite3.connect(store)) as connection:
        connection.row_factory = sqlite3.Row
        made = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
        lines: list[dict[str, Any]] = [{"schema": [row[0] for row in connection.execute(made)]}]
        for table in TABLES:
            for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608 - names of ours
                values = {name: _plain(row[name]) for name in row.keys()}  # noqa: SIM118 - a Row
                lines.append({"table": table, "row": values})
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    target.write_text(text, encoding="utf-8")


def load(source: Path, store: Path) -> None:
    """A fresh store with these rows."""
    with closing(sqlite3.connect(store)) as connection:
        for line in source.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            for statement in entry.get("schema", ()):
                connection.execute(statement)
            if "table" in entry:
                names = ", ".join(f'"{name}"' for name in entry["row"])
                places = ", ".join("?" for _ in entry["row"])
                values = [_back(value) for value in entry["row"].values()]
                connection.execute(
                    f"INSERT INTO {entry['table']} ({names}) VALUES ({places})",  # noqa: S608 - ours
                    values,
                )
        connection.commit()


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return value


def _back(value: Any) -> Any:  # noqa: ANN401 - a column's
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        FOLDER.mkdir(parents=True, exist_ok=True)
        dump(asyncio.run(written(Path(scratch))), FOLDER / f"{sys.argv[1]}.jsonl")
