"""Messages out of a stream of bytes, one a line, none longer than a bound.

`stdio` reads a server's output by it. Invariant: work and memory are linear in what arrives, and
at most one bound of it is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MOST_BYTES = 16 * 1024 * 1024
"""Of one message of a server."""

_SHOWN = 256
_ID = re.compile(rb'"id"\s*:\s*(\d{1,18}|"[^"\\]{1,128}")')


@dataclass(frozen=True)
class TooLong:
    """A line over the bound, thrown away. id: of the request it answers, as far as can be told."""

    size: int
    id: str | int | None


class Lines:
    """Cuts chunks into lines."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._parts: list[bytes] = []
        self._size = 0
        self._head = self._tail = b""

    def feed(self, chunk: bytes) -> Iterator[bytes | TooLong]:
        """The lines that end in this chunk; empty ones are left out."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._add(piece)
            if self._size:
                yield self._taken()
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._most:
            self._parts.append(piece)
            return
        if self._parts:
            self._head = b"".join(self._parts)[:_SHOWN]
            self._parts.clear()
        self._head = self._head or piece[:_SHOWN]
        self._tail = (self._tail + piece[-_SHOWN:])[-_SHOWN:]

    def _taken(self) -> bytes | TooLong:
        if self._size <= self._most:
            found: bytes | TooLong = b"".join(self._parts)
        else:
            found = TooLong(self._size, answers(self._head, self._tail))
        self._parts, self._size, self._head, self._tail = [], 0, b"", b""
        return found


def answers(head: bytes, tail: bytes) -> str | int | None:
    """The id of the request that an unread message answers: libraries write it first or last."""
    ids = _ID.findall(head[:_SHOWN])[:1] or _ID.findall(tail[-_SHOWN:])[-1:]
    known = ids[0].decode("utf-8", "replace") if ids else ""
    return int(known) if known.isdecimal() else known.strip('"') or None
