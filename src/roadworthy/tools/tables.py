"""A list of flat records as a table: the names of the columns once, a line for each record.

`results` asks for it. Invariant: nothing is lost: every cell reads back as the value it was, and
what no record has is empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from roadworthy.estimate import estimate

_LEAST, _SAMPLE, _COLUMNS = 3, 20, 60
_SCALARS = (str, int, float, Decimal, type(None))  # bool is an int
_LITERAL = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?|true|false|null")
_UNPLAIN = re.compile(r"[|\"\\\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]|^\s|\s$|^$|^\[")


def table(value: object, encode: Callable[[object], str]) -> str | None:
    """The table, or None where `value` is no list of flat records or JSON is shorter.

    encode: a value as JSON. The first line counts the records, the second names the columns, cells
    stand between `|`. A cell that is no number, true, false, null and no plain text is a JSON
    string: "007" is a text, 007 stands nowhere.
    """
    if not isinstance(value, list) or len(value) < _LEAST or not all(map(_flat, value)):
        return None
    names = list(dict.fromkeys(name for record in value for name in record))
    if not names or len(names) > _COLUMNS:
        return None
    sample = value[:_SAMPLE]
    if estimate(_lines(names, sample, encode)) >= estimate(encode(sample)):
        return None
    return f"{len(value)} rows\n{_lines(names, value, encode)}"


def heading(text: str) -> str:
    """The line that names the columns of a table, "" of any other text."""
    first, _, rest = text[:20_000].partition("\n")
    return rest.partition("\n")[0] + "\n" if re.fullmatch(r"\d+ rows", first) else ""


def _flat(record: object) -> bool:
    return isinstance(record, dict) and all(isinstance(v, _SCALARS) for v in record.values())


def _lines(
    names: Sequence[str],
    records: Sequence[Mapping[str, object]],
    encode: Callable[[object], str],
) -> str:
    lines = ["|".join(_cell(name, encode) for name in names)]
    lines += [
        "|".join(_cell(r[name], encode) if name in r else "" for name in names) for r in records
    ]
    return "\n".join(lines)


def _cell(value: object, encode: Callable[[object], str]) -> str:
    if not isinstance(value, str):
        return encode(value)
    if _UNPLAIN.search(value) or _LITERAL.fullmatch(value):
        return encode(value).replace("|", "\\u007c")
    return value
