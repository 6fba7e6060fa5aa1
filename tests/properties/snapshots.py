"""Crashes without a kill: a copy of the store at a commit is what a dead process leaves.

`Snapshots` copies after each commit; opening a copy resumes the run as a new process would.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from roadworthy.events import StreamEvent


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
        source, copy = sqlite3.connect(self.store), sqlite3.connect(target)
        source.backup(copy)
        source.close()
        copy.execute("DELETE FROM owner")  # this process lives on; the one that died does not
        copy.commit()
        copy.close()
        self.files.append(target)
        return f"sqlite:///{target}"

    def taken(self, _: StreamEvent) -> None:
        """An event was committed."""
        self.take()
