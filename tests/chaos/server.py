"""A fork server: imports everything once, then a child per trial step, killed when it is asked to.

Run as a module; one JSON request a line on stdin, one JSON answer a line on stdout. Invariant: it
starts no thread and opens no file itself, so that a forked child is a fresh process.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from roadworthy.store import migrations
from roadworthy.store.database import Database
from tests.chaos.desk import drive


def serve() -> None:
    """Requests until the end of input."""
    with tempfile.TemporaryDirectory() as folder:  # what is imported on first use is imported now
        database = Database(f"sqlite:///{folder}/warm.db")
        migrations.upgrade(database)
        database.close()
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        print(json.dumps(_step(request)), flush=True)  # noqa: T201 -- the protocol


def _step(request: dict[str, Any]) -> dict[str, Any]:
    """Fork a child that drives the trial; kill it after `seconds`, or let it kill itself `at`."""
    child = os.fork()
    if child == 0:
        _drive(Path(request["folder"]), request.get("at"))
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


def _drive(folder: Path, die_at: int | None) -> None:
    count = 0

    def at(_: str) -> None:
        nonlocal count
        count += 1
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        os.dup2(os.open(folder / "child.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        asyncio.run(drive(folder, at))
        (folder / "points").write_text(str(count), encoding="utf-8")
        code = 0
    except BaseException:  # noqa: BLE001 -- a forked child must never return into the server
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve()
