"""The outside world of a cluster's trial: one process keeps it, workers call it over a socket.

Tools and models hold a `Remote`. Invariant: what a call did is there before its caller goes on, and
nothing of it hangs on the life of a worker.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

from tests.chaos.world import Deed, World


class Server:
    """Answers calls on a socket from a world. `gate` may hold up a call before it is heard."""

    def __init__(
        self, world: World, path: Path, gate: Callable[[str, list[Any]], None] = lambda *_: None
    ) -> None:
        self.path = path
        self.calls = 0
        turn = threading.Lock()

        class Answer(socketserver.StreamRequestHandler):
            def handle(handler) -> None:  # noqa: N805 - `self` is the server
                name, values = json.loads(handler.rfile.readline())
                gate(name, values)
                with turn:
                    self.calls += 1
                    answer = _answer(world, name, values)
                handler.wfile.write(json.dumps(answer).encode())

        class Sockets(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                """A caller that was killed meanwhile."""

        self._sockets = Sockets(str(path), Answer)
        self._thread = threading.Thread(target=self._sockets.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._sockets.shutdown()
        self._sockets.server_close()
        self._thread.join()


def _answer(world: World, name: str, values: list[Any]) -> list[Any]:
    try:
        match name:
            case "do":
                world.do(Deed(*values[0]), honours_key=values[1])
            case "look":
                world.look(Deed(*values[0]))
            case _:
                return ["ok", getattr(world, name)(*values)]
    except RuntimeError as error:
        return ["refused", str(error)]
    return ["ok", None]


class Remote:
    """The world, seen from a worker."""

    def __init__(self, path: str) -> None:
        self._path = path

    def do(self, deed: Deed, *, honours_key: bool) -> None:
        """An effect."""
        self._call("do", astuple(deed), honours_key)

    def look(self, deed: Deed) -> None:
        """A read."""
        self._call("look", astuple(deed))

    def ask(self, run: str, ordinal: int) -> None:
        """A model is asked."""
        self._call("ask", run, ordinal)

    def has(self, key: str) -> bool:
        """Whether something took effect under this key."""
        return bool(self._call("has", key))

    def settle(self, key: str, attempt: int) -> bool:
        """Whether this attempt took effect; if not, it never will."""
        return bool(self._call("settle", key, attempt))

    def has_item(self, run: str, tool: str, item: str) -> bool:
        """Whether a tool has taken effect on an item for a run."""
        return bool(self._call("has_item", run, tool, item))

    def _call(self, name: str, *values: object) -> object:
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(self._path)
            there.sendall(json.dumps([name, values]).encode() + b"\n")
            with there.makefile("rb") as answer:
                state, value = json.loads(answer.read())
        if state == "refused":
            raise RuntimeError(value)
        return value
