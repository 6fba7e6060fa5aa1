"""The outside world of a trial, in a file of its own: what tools did to it, what models were asked.

Child processes write it, the test reads it. Invariant: every row is there before its caller goes
on, so a SIGKILL loses nothing of what has happened.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_TABLES = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=OFF;
CREATE TABLE IF NOT EXISTS effect
  (n INTEGER PRIMARY KEY, run TEXT, tool TEXT, item TEXT, key TEXT);
CREATE TABLE IF NOT EXISTS attempt
  (n INTEGER PRIMARY KEY, run TEXT, tool TEXT, item TEXT, key TEXT);
CREATE TABLE IF NOT EXISTS void (key TEXT, attempt INTEGER);
CREATE TABLE IF NOT EXISTS asked (n INTEGER PRIMARY KEY, run TEXT, ordinal INTEGER);
"""


@dataclass(frozen=True)
class Deed:
    """One execution or one effect of a tool."""

    run: str
    tool: str
    item: str
    key: str
    attempt: int = 1


class Outside(Protocol):
    """The world as tools and models reach it."""

    def do(self, deed: Deed, *, honours_key: bool) -> None:
        """An effect."""

    def look(self, deed: Deed) -> None:
        """A read."""

    def ask(self, run: str, ordinal: int) -> None:
        """A model is asked."""

    def has(self, key: str) -> bool:
        """Whether something took effect under this key."""
        ...

    def settle(self, key: str, attempt: int) -> bool:
        """Whether this attempt took effect; if not, it never will."""
        ...

    def has_item(self, run: str, tool: str, item: str) -> bool:
        """Whether a tool has taken effect on an item for a run."""
        ...


class World:
    """One connection to it. `at` is told of each moment at which a process may die."""

    def __init__(self, path: Path, at: Callable[[str], None] = lambda _: None) -> None:
        self._connection = sqlite3.connect(
            path, isolation_level=None, timeout=30, check_same_thread=False
        )
        self._connection.executescript(_TABLES)
        self._at = at

    def do(self, deed: Deed, *, honours_key: bool) -> None:
        """The effect; a tool that honours keys does one key once."""
        self._at("tool before")
        self._write("attempt", deed)
        void = "SELECT 1 FROM void WHERE key = ? AND attempt >= ?"
        if self._connection.execute(void, (deed.key, deed.attempt)).fetchone() is not None:
            raise RuntimeError("This attempt was given up; it takes no effect any more.")
        if not (honours_key and self.has(deed.key)):
            self._write("effect", deed)
        self._at("tool after")

    def look(self, deed: Deed) -> None:
        """A read: leaves a trace, changes nothing."""
        self._at("tool before")
        self._write("attempt", deed)
        self._at("tool after")

    def ask(self, run: str, ordinal: int) -> None:
        """A model was asked."""
        self._at("model before")
        self._connection.execute("INSERT INTO asked (run, ordinal) VALUES (?, ?)", (run, ordinal))
        self._at("model after")

    def has(self, key: str) -> bool:
        """Whether something took effect under this key."""
        found = self._connection.execute("SELECT 1 FROM effect WHERE key = ?", (key,))
        return found.fetchone() is not None

    def settle(self, key: str, attempt: int) -> bool:
        """Whether this attempt took effect; if not, it never will, should its call come late."""
        if not self.has(key):
            self._connection.execute("INSERT INTO void VALUES (?, ?)", (key, attempt))
        return self.has(key)

    def has_item(self, run: str, tool: str, item: str) -> bool:
        """Whether a tool has taken effect on an item for a run."""
        found = self._connection.execute(
            "SELECT 1 FROM effect WHERE run = ? AND tool = ? AND item = ?", (run, tool, item)
        )
        return found.fetchone() is not None

    @property
    def effects(self) -> list[Deed]:
        """All effects, in order."""
        rows = self._connection.execute("SELECT run, tool, item, key FROM effect ORDER BY n")
        return [Deed(*row) for row in rows]

    @property
    def attempts(self) -> list[Deed]:
        """All executions, in order."""
        rows = self._connection.execute("SELECT run, tool, item, key FROM attempt ORDER BY n")
        return [Deed(*row) for row in rows]

    @property
    def asked(self) -> list[tuple[str, int]]:
        """(run, ordinal) of every request a model got."""
        return list(self._connection.execute("SELECT run, ordinal FROM asked ORDER BY n"))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _write(self, table: str, deed: Deed) -> None:
        sql = f"INSERT INTO {table} (run, tool, item, key) VALUES (?, ?, ?, ?)"  # noqa: S608 -- ours
        self._connection.execute(sql, (deed.run, deed.tool, deed.item, deed.key))
