"""Flat records as a table that reads back as what it was; whatever a tool returns stays bounded."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.errors import ToolError
from roadworthy.estimate import estimate
from roadworthy.tools import MAX_TEXT, render
from roadworthy.tools.pages import page
from roadworthy.tools.tables import heading

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(
    ["007", "1.50", "true", "null", "", " a", "a|b", '"', "[runtime] x", "a\nb", "\ud800"]
)  # fmt: skip
NAMES = st.sampled_from(["id", "a|b", "__proto__", "constructor", "", "7", "a\nb"])
ROWS = st.lists(st.dictionaries(NAMES, SCALARS, max_size=5), min_size=3, max_size=6)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


def read_back(text: str) -> list[dict[str, Any]]:
    """The records of a table, by the rule that its module states."""
    count, names, *lines = text.split("\n")
    columns = [str(cell(name)) for name in names.split("|")]
    assert count == f"{len(lines)} rows"
    return [
        {c: cell(v) for c, v in zip(columns, line.split("|"), strict=True) if v != ""}
        for line in lines
    ]


def cell(text: str) -> object:
    if text in ("NaN", "Infinity", "-Infinity"):  # no JSON, though Python reads it
        return text
    try:
        return json.loads(text, parse_float=Decimal)
    except ValueError:
        return text


@pytest.mark.requirement("TOL-5")
def test_records_are_told_as_a_table_where_that_is_shorter() -> None:
    rows = [
        {"id": f"A-{n}", "usd": Decimal("10.50"), "paid": n > 1, "zip": "01234"} for n in range(3)
    ]
    told = render(rows).text
    assert told == (
        '3 rows\nid|usd|paid|zip\nA-0|10.50|false|"01234"\nA-1|10.50|false|"01234"\n'
        'A-2|10.50|true|"01234"'
    )
    as_json = json.dumps(rows, default=str, separators=(",", ":"))
    assert estimate(told) < 0.6 * estimate(as_json)


@pytest.mark.parametrize(
    "value",
    [[{"a": 1}, {"a": 2}], [{"a": [1]}] * 5, [1, 2, 3, 4], [{}, {}, {}], {"a": 1},
     [{f"c{n}{i}": 1 for i in range(9)} for n in range(9)]],
)  # fmt: skip
def test_everything_else_stays_json(value: object) -> None:
    assert render(value).text == json.dumps(value, separators=(",", ":"))


def test_numbers_keep_every_digit_in_a_table() -> None:
    big = 10**40 + 1
    rows = [{"big": big, "price": Decimal("0.10"), "rate": 0.1, "id": "1e5"} for _ in range(4)]
    assert render(rows).text.endswith(f'\n{big}|0.10|0.1|"1e5"')


@given(ROWS)
def test_a_table_reads_back_as_it_was(rows: list[dict[str, Any]]) -> None:
    told = render(rows).text
    if heading(told):
        mended = json.loads(json.dumps(rows).replace("\\ud800", "?"))
        assert read_back(told) == mended


@pytest.mark.requirement("TOL-5")
@given(ANYTHING)
def test_whatever_is_returned_has_a_bounded_text_or_a_plain_error(value: object) -> None:
    try:
        told = render(value, most=1_000).text
    except ToolError:
        return
    assert len(told.encode()) < 1_200
    told.encode()


@pytest.mark.requirement("TOL-5")
@pytest.mark.parametrize(
    "value",
    ["x" * 100_000_000, ["y" * 1000] * 100_000, [{"a": n, "b": "z" * 90} for n in range(200_000)]],
)
def test_what_is_huge_is_cut(value: object) -> None:
    assert len(render(value).text.encode()) < MAX_TEXT + 200


def test_what_cannot_be_told_is_an_error_that_says_the_mend() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, b"\x00\xff", bytearray(3), object()):
        with pytest.raises(ToolError, match=r"[Rr]eturn"):
            render(value)
    while deep:  # taken apart by hand: freeing it at once may need a deep stack
        deep = deep[0]


def test_what_is_lost_is_said() -> None:
    assert render([float("nan"), float("inf")]).text.endswith(
        "[2 NaN or infinite numbers are shown as null]"
    )
    assert (
        render({1: "a", "1": "b"}).text
        == '{"1":"b"} [1 values are missing: their keys are equal as text]'
    )
    assert (
        render(json.loads('{"a":1,"a":2,"__proto__":{"x":1}}')).text
        == '{"a":2,"__proto__":{"x":1}}'
    )


@given(st.text(), st.integers(201, 400))
def test_the_pages_of_a_text_are_the_text(text: str, most: int) -> None:
    pages, start = [], 0
    while start < len(text):
        one = page(text, start, most)
        assert one.start == start < one.end
        assert len(one.text.encode("utf-8", "replace")) <= max(4, most - 200)
        pages.append(one.text)
        start = one.end
    assert "".join(pages) == text
