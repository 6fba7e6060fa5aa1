"""Names of foreign tools within what every provider takes: letters, digits, _ and -, at most 64.

`mcp` and `http` name tools by it. Invariant: the same offers always give the same names, each once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

MOST = 64
_OTHER = re.compile(r"[^A-Za-z0-9_-]")


def named(prefix: str, names: Iterable[str]) -> dict[str, str]:
    """Theirs -> ours, for the tools of one server or document."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(set(names)):
        ours = _fitted(f"{prefix}_{name}" if prefix else name)
        if ours in taken:
            ours = _short(ours, f"{prefix}_{name}")
        taken.add(ours)
        found[name] = ours
    return found


def _fitted(name: str) -> str:
    plain = _OTHER.sub("_", name)
    plain = plain if plain[:1].isalpha() else f"t_{plain}"
    return plain if len(plain) <= MOST else _short(plain, name)


def _short(plain: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{plain[: MOST - 9]}_{digest}"
