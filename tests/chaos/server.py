"""A fork server: imports everything once, then a child per trial step, killed when it is asked to.

Run as a module with the name of the module that drives a trial; one JSON request a line on stdin,
one JSON answer a line on stdout. Invariant: it starts no thread and keeps no file open, so that a
forked child is a fresh process.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from roadworthy.store import migrations
from roadworthy.store.opening import open_database

Drive: TypeAlias = Callable[
    [Path, Callable[[str], None], Mapping[str, Any]], Coroutine[Any, Any, None]
]


def serve(drive: Drive) -> None:
    """Requests until the end of input."""
    with tempfile.TemporaryDirectory() as folder:  # what is imported on first use is imported now
        database = open_database(f"sqlite:///{folder}/warm.db")
        migrations.upgrade(database)
        database.close()
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        print(json.dumps(_step(drive, request)), flush=True)  # noqa: T201 -- the protocol


def _step(drive: Drive, request: dict[str, Any]) -> dict[str, Any]:
    """Fork a child that drives the trial; kill it after `seconds`, or let it kill itself `at`."""
    child = os.fork()
    if child == 0:
        _child(drive, Path(request["folder"]), request)
    gone = os.pidfd_open(child)
    most = request.get("seconds")
    ended, _, _ = select.select([gone], [], [], 60.0 if most is None else most)
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(gone)
    killed = os.WIFSIGNALED(status)
    code = None if killed else os.WEXITSTATUS(status)
    return {"killed": killed, "code": code, "hung": most is None and not ended}


def _child(drive: Drive, folder: Path, request: dict[str, Any]) -> None:
    count, die_at = 0, request.get("at")

    def at(_: str) -> None:
        nonlocal count
        count += 1
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        os.dup2(os.open(folder / "child.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        asyncio.run(drive(folder, at, request))
        (folder / "points").write_text(str(count), encoding="utf-8")
        code = 0
    except BaseException:  # noqa: BLE001 -- a forked child must never return into the server
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve(importlib.import_module(sys.argv[1]).drive)
