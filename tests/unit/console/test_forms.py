"""Arguments as a form and back: the right controls, the right types, nothing lost."""

from __future__ import annotations

from datetime import date
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from roadworthy.console.forms import fields, read
from roadworthy.errors import RunError
from roadworthy.messages import JsonObject


class Address(BaseModel):
    street: str
    city: str = ""


class Item(BaseModel):
    name: str
    euros: float


class Refund(BaseModel):
    """Arguments of every kind."""

    order_id: str
    euros: int
    rate: float | None = None
    reason: Literal["broken", "late"] = "late"
    by_post: bool = False
    on: date | None = None
    notes: str = ""
    numbers: list[int] = []
    to: Address | None = None
    items: list[Item] = []
    more: dict[str, int] = {}


SCHEMA: JsonObject = Refund.model_json_schema()
GIVEN: JsonObject = {
    "order_id": "A-17",
    "euros": 412,
    "reason": "broken",
    "by_post": True,
    "notes": "first line\nsecond line",
    "numbers": [1, 2],
    "to": {"street": "Long Street 1"},
    "items": [{"name": "lamp", "euros": 1.5}, {"name": "desk", "euros": 80}],
    "more": {"a": 1, "b": 2},
    "undeclared": "x",
}


def as_filled(schema: JsonObject, arguments: JsonObject) -> dict[str, str]:
    """What a browser sends of an untouched form."""
    shown = fields(schema, arguments)
    return {f.name: f.value.replace("\n", "\r\n") for f in shown if f.kind != "fixed"}


def test_every_argument_has_the_control_that_fits() -> None:
    found = {field.name: (field.label, field.kind, field.value) for field in fields(SCHEMA, GIVEN)}
    assert found == {
        "order_id": ("Order id", "text", "A-17"),
        "euros": ("Euros", "number", "412"),
        "rate": ("Rate", "number", ""),
        "reason": ("Reason", "choice", "broken"),
        "by_post": ("By post", "choice", "true"),
        "on": ("On", "date", ""),
        "notes": ("Notes", "long", "first line\nsecond line"),
        "numbers": ("Numbers", "lines", "1\n2"),
        "to.street": ("To, Street", "text", "Long Street 1"),
        "to.city": ("To, City", "text", ""),
        "items.0.name": ("Items 1, Name", "text", "lamp"),
        "items.0.euros": ("Items 1, Euros", "number", "1.5"),
        "items.1.name": ("Items 2, Name", "text", "desk"),
        "items.1.euros": ("Items 2, Euros", "number", "80"),
        "more": ("More", "fixed", "A: 1; B: 2"),
        "undeclared": ("Undeclared", "text", "x"),
    }


def test_an_untouched_form_changes_nothing() -> None:
    assert read(SCHEMA, GIVEN, as_filled(SCHEMA, GIVEN)) == GIVEN


def test_changes_come_back_in_their_types_and_leave_what_was_given_alone() -> None:
    said = as_filled(SCHEMA, GIVEN) | {
        "euros": " 40 ",
        "rate": "0.5",
        "reason": "late",
        "by_post": "false",
        "notes": "",
        "numbers": "3\r\n\r\n 4",
        "to.city": "Bonn",
        "items.1.euros": "79.90",
        "more": "broken",
        "order_id": "",
    }
    assert read(SCHEMA, GIVEN, said) == {
        "order_id": "",
        "euros": 40,
        "rate": 0.5,
        "reason": "late",
        "by_post": False,
        "numbers": [3, 4],
        "to": {"street": "Long Street 1", "city": "Bonn"},
        "items": [{"name": "lamp", "euros": 1.5}, {"name": "desk", "euros": 79.9}],
        "more": {"a": 1, "b": 2},
        "undeclared": "x",
    }
    assert GIVEN["euros"] == 412
    assert GIVEN["items"] == [{"name": "lamp", "euros": 1.5}, {"name": "desk", "euros": 80}]


@pytest.mark.parametrize(
    ("name", "said", "told"),
    [
        ("euros", "forty", "Euros: 'forty' is no whole number"),
        ("euros", "4.5", "whole number"),
        ("euros", "", "whole number"),
        ("rate", "NaN", "Rate: 'NaN' is no number"),
        ("numbers", "1\nx", "Numbers: 'x'"),
        ("reason", "lost", "Reason: choose one of those offered"),
    ],
)
def test_what_cannot_be_is_said_in_plain_words(name: str, said: str, told: str) -> None:
    with pytest.raises(RunError, match=told):
        read(SCHEMA, GIVEN, as_filled(SCHEMA, GIVEN) | {name: said})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)


@given(schema=OBJECTS | st.just(SCHEMA), arguments=OBJECTS)
def test_no_schema_and_no_arguments_break_the_form(
    schema: JsonObject, arguments: JsonObject
) -> None:
    assert read(schema, arguments, as_filled(schema, arguments)) == arguments


@given(arguments=OBJECTS)
def test_arguments_under_known_names_of_other_types_stay(arguments: JsonObject) -> None:
    mixed = {**GIVEN, **dict(zip(GIVEN, arguments.values(), strict=False))}
    assert read(SCHEMA, mixed, as_filled(SCHEMA, mixed)) == mixed
