"""What tools return, as the model reads it."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import json
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from msgspec import Struct
from pydantic import BaseModel

from roadworthy.errors import ToolError
from roadworthy.messages import File
from roadworthy.tools import MAX_TEXT, render


class Size(enum.Enum):
    """A choice."""

    L = "l"


class Order(BaseModel):
    """A pydantic model."""

    usd: Decimal
    at: dt.date


class Point(NamedTuple):
    """A named tuple."""

    x: int


class Row(Struct):
    """A msgspec struct."""

    n: int


@dataclasses.dataclass
class Data:
    """A dataclass, with another inside."""

    order: Order
    size: Size


class Text(str):
    """A str that is more."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ("", ""),
        (None, "done"),
        (True, "true"),
        (7, "7"),
        (10**30, "1" + "0" * 30),
        (1.5, "1.5"),
        (Decimal("12.50"), "12.50"),
        (dt.date(2026, 1, 31), "2026-01-31"),
        (dt.datetime(2026, 1, 31, tzinfo=dt.UTC), "2026-01-31T00:00:00+00:00"),
        (dt.timedelta(hours=1), "PT1H"),
        (Size.L, "l"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("a/b"), "a/b"),
        (Text("sub"), "sub"),
        (
            {"a": Decimal("0.10"), "b": [1, None, True], 3: "é"},
            '{"a":0.10,"b":[1,null,true],"3":"é"}',
        ),
        (OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
        ((1, 2), "[1,2]"),
        ({"b", "a"}, '["a","b"]'),
        (Point(1), '{"x":1}'),
        (Row(1), '{"n":1}'),
        (
            Data(Order(usd=Decimal("1.00"), at=dt.date(2026, 1, 31)), Size.L),
            '{"order":{"usd":1.00,"at":"2026-01-31"},"size":"l"}',
        ),
        ([], "[]"),
    ],
)
def test_values_become_text(value: object, text: str) -> None:
    assert render(value).text == text
    assert render(value).files == ()


def test_not_a_number_is_null_and_said() -> None:
    text = render({"a": float("nan"), "b": Decimal("-Infinity"), "c": 1.0}).text
    assert text == '{"a":null,"b":null,"c":1.0} [2 NaN or infinite numbers are shown as null]'


def test_files_are_set_aside_wherever_they_are() -> None:
    photo = File(media_type="image/png", data=b"abc", name="a.png")
    link = File(media_type="image/png", url="https://example.com/b.png")
    assert render(photo) == ("[file: a.png, image/png, 3 bytes]", (photo,))
    text, files = render({"note": "two", "files": [photo, link]})
    assert files == (photo, link)
    assert json.loads(text)["files"][1] == "[file: unnamed, image/png]"


async def forgotten() -> str:
    return "never"


class Foreign:
    """Nothing anybody knows."""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: b"abc", r"pay returned bytes\. Return File\("),
        (lambda: [bytearray(b"abc")], "pay returned bytes"),
        (forgotten, "async tool not awaited"),
        (lambda: (x for x in [1]), "returned a generator. Return list"),
        (Foreign, r"pay returned a .*Foreign, which has no JSON form\. Return str, a dict"),
        (lambda: {"deep": [Foreign()]}, "no JSON form"),
        (lambda: ValueError("x"), "returned a ValueError"),
        (lambda: len, "no JSON form"),
        (lambda: Order, "no JSON form"),
    ],
)
def test_what_has_no_form_is_refused_with_the_mend(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ToolError, match=said):
        render(make(), "pay")


def test_a_future_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(ToolError, match="not awaited"):
            render(asyncio.get_running_loop().create_future(), "pay")

    asyncio.run(main())


def test_data_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ToolError, match="contains itself"):
        render(loop)


@pytest.mark.parametrize("unit", ["x", "é", "𝄞"])
def test_long_text_is_cut_between_characters_and_says_so(unit: str) -> None:
    whole = unit * (MAX_TEXT + 1)
    text = render(whole).text
    shown, _, note = text.partition("\n[cut: ")
    assert whole.startswith(shown)
    assert MAX_TEXT - 4 < len(shown.encode()) <= MAX_TEXT
    assert note.startswith(f"{len(whole.encode()):,} bytes in all")
    exact = "x" * MAX_TEXT
    assert render(exact).text == exact
    assert "[cut: " in render([whole]).text


def test_broken_text_is_mended() -> None:
    assert render("a\ud800b").text == "a?b"
    assert render({"k\ud800": ["\ud800", Decimal("1.0")]}).text == '{"k?":["?",1.0]}'
