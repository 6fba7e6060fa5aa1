"""`undo=`: what may be declared, what is refused with which mend, what it maps to."""

from __future__ import annotations

from typing import Any

import pytest

from roadworthy import DeclarationError, Tool, tool
from roadworthy.tools import Undo
from tests.scenarios.world import Given

pytestmark = pytest.mark.requirement("REC-5")


@tool
def cancel(booking: str, why: str = "") -> str:
    """Cancel. booking: which. why: the reason."""
    return booking


@tool(effect="read")
def look(booking: str) -> str:
    """Look. booking: which."""
    return booking


@tool
def drop(seat: int) -> str:
    """Drop. seat: which."""
    return str(seat)


def book(city: str, seat: str = "") -> str:
    """Book. city: where. seat: which."""
    return city


def pick(result: str) -> str:
    """Pick. result: any."""
    return result


WRONG: list[tuple[Given, str]] = [
    ("cancel", r"undo='cancel' is no tool and no Undo\(tool, arguments\)"),
    (Undo(book), r"is no tool; put @tool above it"),
    (look, r"its undo 'look' has effect=\"read\", so it takes nothing back"),
    (cancel, r"its undo 'cancel' gets no 'booking'. Say where it comes from: Undo\(cancel, "),
    (Undo(cancel, {"booking": "town"}), r"no such argument. There are: city, seat, result"),
    (Undo(cancel, {"number": "city"}), r"its undo 'cancel' has no parameter 'number'"),
    (Undo(cancel, {"booking": "city"}, {"how": 1}), r"its undo 'cancel' has no parameter 'how'"),
    (Undo(cancel, {"booking": "result..id"}), r"a step of the path is empty"),
    (drop, r"its undo 'drop' takes another type for 'seat'"),
]


@pytest.mark.parametrize(("undo", "said"), WRONG)
def test_an_undo_that_could_not_work_is_refused(undo: Given, said: str) -> None:
    with pytest.raises(DeclarationError, match=f"Tool 'book': .*{said}"):
        tool(undo=undo)(book)


def test_a_read_has_nothing_to_undo_and_no_tool_undoes_itself() -> None:
    with pytest.raises(DeclarationError, match='undo= is for effects; a tool with effect="read"'):
        tool(effect="read", undo=Undo(cancel, {"booking": "city"}))(book)
    with pytest.raises(DeclarationError, match="must be another tool, of another name"):
        tool(name="cancel", undo=Undo(cancel, {"booking": "city"}))(book)


def test_what_is_the_result_must_be_plain() -> None:
    with pytest.raises(DeclarationError, match="has an argument named 'result' too"):
        tool(undo=Undo(cancel, {"booking": "result"}))(pick)


def undo_of(*given: Any) -> Undo[Tool[Any]]:  # noqa: ANN401
    made = tool(undo=Undo(cancel, *given))(book).undo
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("mapping", "result", "expected"),
    [
        ({"booking": "city"}, "x", {"booking": "Rome"}),
        ({"booking": "result"}, "123", {"booking": "123"}),
        ({"booking": "result.id"}, '{"id": "B"}', {"booking": "B"}),
        ({"booking": "result.a.id"}, '{"a": {"id": 7}}', {"booking": 7}),
        ({"booking": "result.id"}, '{"number": "B"}', None),
        ({"booking": "result.id"}, '{"id": null}', None),
        ({"booking": "result.id"}, "booked", None),
        ({"booking": "result.id"}, None, None),
        ({"booking": "seat"}, "x", None),
        ({"booking": "city", "why": "seat"}, "x", {"booking": "Rome"}),
    ],
)
def test_arguments_come_from_the_call_and_its_result(
    mapping: dict[str, str], result: str | None, expected: object
) -> None:
    assert undo_of(mapping).mapped({"city": "Rome"}, result) == expected


def test_constants_win() -> None:
    undo = undo_of({"booking": "city", "why": "seat"}, {"why": "undone"})
    given = {"city": "Rome", "seat": "4A"}
    assert undo.mapped(given, None) == {"booking": "Rome", "why": "undone"}


def test_it_is_part_of_the_declaration_and_only_where_there_is_one() -> None:
    undo = Undo(cancel, {"booking": "city"})
    assert tool(undo=undo)(book).declared()["undo"] == undo.declared()
    assert "undo" not in tool(book).declared()
