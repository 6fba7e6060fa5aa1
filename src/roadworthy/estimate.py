"""A likely token count of a text, without a tokenizer: for choices and displays, never for money.

Tools choose a result's shape by it, traces and scripted models show it. Invariant: linear in the
text.
"""

from __future__ import annotations

import re

_PIECE = re.compile(r"\w{1,6}|[^\w\s]")


def estimate(text: str) -> int:
    """A likely token count: mostly right within a third, for any language."""
    return len(_PIECE.findall(text)) * 5 // 4
