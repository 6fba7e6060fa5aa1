"""What arguments are accepted, what is refused, and in which words."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import sys
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from roadworthy.agent import Tool
from roadworthy.errors import ToolError
from roadworthy.messages import JsonObject
from roadworthy.tools import MAX_BYTES, MAX_DEPTH, tool, tool_from_schema


class Size(enum.Enum):
    """A closed choice."""

    S = "s"
    L = "l"


class Line(BaseModel):
    """Nested; open by pydantic's default."""

    sku: str
    count: int = 1

    @field_validator("sku")
    @classmethod
    def upper(cls, sku: str) -> str:
        if not sku.isupper():
            raise ValueError("write the SKU in capitals")
        return sku


@dataclasses.dataclass
class Place:
    """Another nested shape."""

    city: str


@tool
def refund(order_id: str, euros: int) -> str:
    """Pay back."""
    return f"{order_id} {euros}"


@tool
def wide(
    number: float = 0,
    usd: Decimal = Decimal(0),
    day: dt.date | None = None,
    at: dt.datetime | None = None,
    flag: bool = False,
    size: Size = Size.S,
    mode: Literal["fast", "slow"] = "fast",
    line: Line | None = None,
    place: Place | None = None,
    either: int | str = 0,
    tags: frozenset[str] = frozenset(),
    few: Annotated[list[int], Field(max_length=2)] = [],  # noqa: B006 - copied for each call
    free: dict[str, Any] = {},  # noqa: B006 - as above
    _hidden: int = 0,
    copy: int = 0,
) -> str:
    """Take all kinds."""
    return "ok"


def refused(made: Tool[Any], arguments: dict[str, Any]) -> str:
    with pytest.raises(ToolError) as caught:
        made.reader.read(arguments)
    return str(caught.value)


@pytest.mark.requirement("TOL-2", "REC-3")
def test_the_message_names_fields_values_and_the_form() -> None:
    assert refused(refund, {"euros": "forty"}) == (
        'refund: euros must be an integer (got "forty"); missing: order_id. '
        "Expected: {order_id: string, euros: integer}"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"number": "1.5"}, 'number must be a number (got "1.5")'),
        ({"usd": "many"}, 'usd must be a number (got "many")'),
        ({"usd": "NaN"}, "usd must be a finite number"),
        ({"usd": True}, "usd must be a number"),
        ({"day": "tomorrow"}, "day must be a date such as"),
        ({"at": 17}, "at must be a moment such as"),
        ({"flag": 1}, "flag must be true or false (got 1)"),
        ({"flag": "yes"}, "flag must be true or false"),
        ({"size": "xl"}, 'size must be one of "s" or "l" (got "xl")'),
        ({"mode": "medium"}, 'mode must be one of "fast" or "slow"'),
        ({"copy": "5"}, 'copy must be an integer (got "5")'),
        ({"copy": 5.5}, "copy must be an integer (got 5.5)"),
        ({"copy": True}, "copy must be an integer (got true)"),
        ({"copy": None}, "copy must be an integer (got null)"),
        ({"line": {"sku": "A", "cuont": 2}}, 'unknown field "line.cuont" (did you mean "count"?)'),
        ({"line": {"count": 2}}, "missing: line.sku"),
        ({"line": {"sku": "a"}}, "line.sku is wrong: write the SKU in capitals"),
        ({"line": []}, "line must be an object"),
        ({"place": {"city": "X", "land": "Y"}}, 'unknown field "place.land"'),
        ({"either": []}, "either must be an integer or a string"),
        ({"few": [1, "2"]}, 'few[1] must be an integer (got "2")'),
        ({"few": [1, 2, 3]}, "few must have at most 2 items"),
        ({"taggs": []}, 'unknown field "taggs" (did you mean "tags"?)'),
        ({"number": float("nan")}, "not plain JSON"),
        ({"free": {"x": float("inf")}}, "not plain JSON"),
        ({"free": {"x": "\ud800"}}, "broken text"),
        ({"free": {"x": {1, 2}}}, "not plain JSON"),
    ],
)
@pytest.mark.requirement("TOL-2")
def test_mistakes_are_not_hidden(arguments: dict[str, Any], said: str) -> None:
    assert said in refused(wide, arguments)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"number": 3}, 3.0),
        ({"usd": "40.10"}, Decimal("40.10")),
        ({"usd": 40.1}, Decimal("40.1")),
        ({"day": "2026-01-31"}, dt.date(2026, 1, 31)),
        ({"at": "2026-01-31T12:00:00Z"}, dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)),
        ({"size": "l"}, Size.L),
        ({"tags": ["b", "a"]}, frozenset({"a", "b"})),
        ({"copy": 40.0}, 40),
        ({"either": "x"}, "x"),
        ({"place": {"city": "X"}}, Place("X")),
        ({"free": {"any": ["thing", None]}}, {"any": ["thing", None]}),
        ({"_hidden": 7}, 7),
    ],
)
def test_json_forms_of_typed_values_are_accepted(arguments: dict[str, Any], value: object) -> None:
    (name,) = arguments
    read = wide.reader.read(arguments)[name]
    assert read == value
    assert type(read) is type(value)


def test_at_most_five_fields_are_named() -> None:
    message = refused(wide, {f"unknown_{i}": i for i in range(50)})
    assert message.count("unknown field") == 5
    assert "and 45 more" in message
    assert len(message) < 1_200


@pytest.mark.requirement("TOL-2")
def test_size_and_depth_are_bounded() -> None:
    assert f"at most {MAX_BYTES // 1024} KB" in refused(refund, {"order_id": "x" * MAX_BYTES})
    deep: Any = []
    for _ in range(MAX_DEPTH - 3):
        deep = [deep]
    assert wide.reader.read({"free": {"x": deep}})
    assert "nested more than" in refused(wide, {"free": {"x": [[deep]]}})
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    assert "nested more than" in refused(wide, {"free": {"x": deep}})


def test_canonical_is_plain_complete_and_equal_for_equal_calls() -> None:
    def canonical(**arguments: object) -> JsonObject:
        return wide.reader.canonical(wide.reader.read(arguments))

    full = canonical(usd="40.10", tags=["b", "a"], line={"sku": "A"}, size="l", day="2026-01-31")
    assert full == {
        "number": 0, "usd": "40.1", "day": "2026-01-31", "at": None, "flag": False, "size": "l",
        "mode": "fast", "line": {"sku": "A", "count": 1}, "place": None, "either": 0,
        "tags": ["a", "b"], "few": [], "free": {}, "_hidden": 0, "copy": 0,
    }  # fmt: skip
    assert list(full)[:3] == ["number", "usd", "day"]
    assert canonical(usd=40.0) == canonical(usd="40") == canonical(usd=40) == canonical(usd="40.00")
    assert canonical(usd="1E+3")["usd"] == "1000"
    assert str(canonical(copy=1.0, number=1)) == str(canonical(copy=1, number=1.0))
    assert canonical(mode="fast") == canonical()


def test_defaults_are_not_shared_between_calls() -> None:
    wide.reader.read({})["free"]["x"] = 1
    assert wide.reader.read({})["free"] == {}


def checked(schema: dict[str, Any]) -> Tool[Any]:
    return tool_from_schema("s", "Doc.", schema, lambda **_: None, effect="read")


NUMBERED: dict[str, Any] = {
    "properties": {
        "n": {"type": "integer", "minimum": 1, "default": 1},
        "unit": {"enum": ["km", "mi"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "who": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "code": {"type": "string", "pattern": "^(a+)+$", "maxLength": 100},
    },
    "required": ["unit"],
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "missing: unit"),
        ({"unit": "m"}, 'unit must be one of "km", "mi" (got "m")'),
        ({"unit": "km", "n": "1"}, 'n must be an integer (got "1")'),
        ({"unit": "km", "n": 0}, "n must be at least 1 (got 0)"),
        ({"unit": "km", "n": 1.5}, "n must be an integer"),
        ({"unit": "km", "tgas": []}, 'unknown field "tgas" (did you mean "tags"?)'),
        ({"unit": "km", "tags": ["a", 2]}, "tags[1] must be a string (got 2)"),
        ({"unit": "km", "tags": ["a", "b", "c"]}, "tags must have at most 2 items"),
        ({"unit": "km", "who": {}}, "missing: who.name"),
        ({"unit": "km", "who": {"name": "a", "age": 1}}, 'unknown field "who.age"'),
        ({"unit": "km", "maybe": "x"}, "maybe must be integer or null"),
        ({"unit": "km", "code": "a" * 60 + "!"}, "code must match the pattern"),
        ({"unit": float("nan")}, "not plain JSON"),
    ],
)
def test_schema_mistakes_are_named(arguments: dict[str, Any], said: str) -> None:
    assert said in refused(checked(NUMBERED), arguments)


def test_schema_values_and_canonical() -> None:
    reader = checked(NUMBERED).reader
    assert repr(reader.read({"unit": "km", "n": 2.0})) == repr({"unit": "km", "n": 2})
    assert reader.canonical(reader.read({"unit": "km"})) == {"n": 1, "unit": "km"}


def test_composed_objects_are_closed_as_a_whole() -> None:
    def named(name: str) -> dict[str, Any]:
        return {"type": "object", "properties": {name: {"type": "integer"}}}

    composed = checked(
        {
            "$defs": {"A": named("a")},
            "properties": {
                "both": {"allOf": [{"$ref": "#/$defs/A"}, named("b")]},
                "one": {"anyOf": [named("c"), {"type": "null"}]},
            },
        }
    )
    assert composed.reader.read({"both": {"a": 1, "b": 2}, "one": {"c": 1}})
    assert composed.reader.read({"one": None})
    assert "unknown field" in refused(composed, {"both": {"a": 1, "b": 2, "z": 3}})
    assert "one must be" in refused(composed, {"one": {"z": 1}})
