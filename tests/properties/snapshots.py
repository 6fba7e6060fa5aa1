"""Crashes without a kill: a copy of the store at a commit is what a dead process leaves.

`Snapshots` copies after each commit; opening a copy resumes the run as a new process would.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from roadworthy.events import StreamEvent
from roadworthy.store import copying
from roadworthy.store.database import Database, Tx
from roadworthy.store.opening import open_database
from roadworthy.store.sqlite import SqliteDatabase


class Snapshots:
    """Pass `taken` as `on_event`: it copies the store after every commit of an event."""

    def __init__(self, store: Path, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.files: list[Path] = []
        folder.mkdir(exist_ok=True)

    @property
    def url(self) -> str:
        """The store to open."""
        return f"sqlite:///{self.store}"

    def take(self) -> str:
        """Copy the store now; the URL of the copy."""
        target = self.folder / f"cut-{len(self.files)}.db"
        url, database = f"sqlite:///{target}", open_database(self.url)
        if isinstance(database, SqliteDatabase):
            self._back_up(target)
        else:
            _copy(database, open_database(url))
        self.files.append(target)
        return url

    def _back_up(self, target: Path) -> None:
        source, copy = sqlite3.connect(self.store), sqlite3.connect(target)
        source.backup(copy)
        source.close()
        copy.execute("DELETE FROM owner")  # this process lives on; the one that died does not
        copy.commit()
        copy.close()

    def taken(self, _: StreamEvent) -> None:
        """An event was committed."""
        self.take()


def _copy(source: Database, target: Database) -> None:
    """All rows but the owner's, in one snapshot."""
    into = Tx(target, target.connect())
    source.read(lambda tx: copying.copy_rows(tx, target, into))
    source.close()
    target.close()
