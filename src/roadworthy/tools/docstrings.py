"""What a tool's docstring says of it and its parameters: Google, numpy, sphinx or in-line style.

Read by `declare`. Invariant: what is said of a parameter is moved to it, or stays.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence

_PARAMETERS = {"args", "arguments", "parameters", "params", "keyword args", "other parameters"}
_DROPPED = {"raises", "example", "examples", "yields", "note", "notes", "see also", "references"}
_KEPT = {"returns", "return"}
_HEADING = re.compile(r"([A-Z][A-Za-z]*(?: [A-Za-z]+)?):\s*(.*)")
_UNDERLINE = re.compile(r"-{3,}\s*")
_SPHINX = re.compile(r":(\w+)(?:\s+([^:]*))?:\s*(.*)")
_SPHINX_PARAMETERS = {"param", "parameter", "arg", "argument", "key", "keyword"}


def describe(docstring: str, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The description for the model, and what is said of each parameter in `names`."""
    found: dict[str, str] = {}
    description: list[str] = []
    for heading, lines in _sections(inspect.cleandoc(docstring).splitlines()):
        if heading in _PARAMETERS:
            found.update(_entries(lines, names))
        elif heading in _KEPT:
            description.append(f"Returns: {_joined(lines)}")
        elif heading not in _DROPPED:
            description.extend(_without_sphinx(lines, names, found))
    text, inline = _inline("\n".join(description).strip(), names)
    return text, inline | found


def _sections(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """(lower-case heading, its lines); the text before any heading has the heading ''."""
    heading, body = "", list[str]()
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        title, rest = _heading(line, following)
        if title is not None:
            yield heading, body
            heading, body = title, [rest] if rest else []
        elif heading in _PARAMETERS | _DROPPED | _KEPT and _leaves(line, body, lines, index):
            yield heading, body
            heading, body = "", [line]
        elif not (_UNDERLINE.fullmatch(line) and not body):
            body.append(line)
    yield heading, body


def _heading(line: str, following: str) -> tuple[str | None, str]:
    known = _PARAMETERS | _DROPPED | _KEPT
    if _UNDERLINE.fullmatch(following) and line.strip().lower() in known:
        return line.strip().lower(), ""
    match = _HEADING.fullmatch(line)
    if match and match[1].lower() in known:
        return match[1].lower(), match[2]
    return None, ""


def _leaves(line: str, body: Sequence[str], lines: Sequence[str], index: int) -> bool:
    """Unindented text after a blank line ends a Google section (numpy ones have an underline)."""
    start = max(0, index - len(body) - 2)
    google = not any(_UNDERLINE.fullmatch(before) for before in lines[start:index])
    return google and bool(line) and not line[0].isspace() and bool(body) and not body[-1].strip()


def _entries(lines: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """`name (type): text` (Google) and `name : type` + indented text (numpy)."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        match = re.match(r"\s*\*{0,2}(\w+)\s*(\([^)]*\))?\s*(?::\s*(.*))?$", line)
        if match and match[1] in names and (line.rstrip().endswith(match[1]) or ":" in line):
            current = found.setdefault(match[1], [])
            numpy = not line[0].isspace() and re.match(r"\w+\s+:\s", line)
            if match[3] and not numpy:
                current.append(match[3])
        elif current is not None:
            current.append(line.strip())
    return {name: _joined(said) for name, said in found.items() if _joined(said)}


def _without_sphinx(
    lines: Sequence[str], names: Sequence[str], found: dict[str, str]
) -> Iterator[str]:
    """The lines that are no `:param x: ...` fields; those go to `found`."""
    taking: str | None = None
    for line in lines:
        match = _SPHINX.match(line)
        if match:
            taking = (match[2] or "").split(" ")[-1] if match[1] in _SPHINX_PARAMETERS else ""
            if match[1] in {"return", "returns"} and match[3]:
                yield f"Returns: {match[3]}"
            if taking in names:
                found[taking] = match[3]
        elif taking is not None and line[:1].isspace():
            if taking in names:
                found[taking] = f"{found[taking]} {line.strip()}".strip()
        else:
            taking = None
            yield line


def _inline(text: str, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """`Finds an order. order_id: such as A-17.` -> the sentence, and what is said of order_id."""
    if not names:
        return text, {}
    alternatives = "|".join(re.escape(name) for name in names)
    starts = list(re.finditer(rf"(?:^|(?<=[.;!?,)])\s+|\n\s*)({alternatives}):\s+(?=\S)", text))
    if not starts:
        return text, {}
    found: dict[str, str] = {}
    kept = [text[: starts[0].start()]]
    ends = [match.start() for match in starts[1:]] + [len(text)]
    for match, end in zip(starts, ends, strict=True):
        said, _, rest = text[match.end() : end].partition("\n\n")
        found[match[1]] = " ".join(said.split()).rstrip(";,")
        kept.append(rest)
    return "\n".join(part.strip() for part in kept if part.strip()), found


def _joined(lines: Sequence[str]) -> str:
    return " ".join(" ".join(lines).split())
