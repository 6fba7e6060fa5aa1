"""A long text in pages: where to cut it, and what is said about the rest.

`tool_calls.more` shows results by it. Invariant: the pages of a text, one after the other, are the
text; each is within its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

_NOTE = 200  # bytes kept free for what is said about the rest
_PIECES = ("\n", "},", ",", " ")  # where a text is best cut, in this order


@dataclass(frozen=True)
class Page:
    """Characters `start` to `end` of a text of `total`."""

    text: str
    start: int
    end: int
    total: int


def page(text: str, start: int, most: int) -> Page:
    """The page that begins at `start`, within `most` bytes less what a note takes."""
    room = max(1, most - _NOTE)
    window = text[start : start + room]
    if len(window.encode("utf-8", "replace")) > room:
        window = window.encode("utf-8", "replace")[:room].decode(errors="ignore")
    end = start + max(1, len(window))
    if end < len(text):
        end = start + _sensible(window)
    return Page(text[start:end], start, min(end, len(text)), len(text))


def _sensible(window: str) -> int:
    """Where to end: behind a line, a record, a field or a word of the last quarter."""
    least = len(window) * 3 // 4
    for piece in _PIECES:
        place = window.rfind(piece, least)
        if place >= 0:
            return place + len(piece)
    return max(1, len(window))
