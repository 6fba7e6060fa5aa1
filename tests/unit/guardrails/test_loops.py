"""The loop guard by itself: what counts as the same state, and what starts the count anew."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from roadworthy.guardrails import LoopGuard, Notice
from roadworthy.messages import JsonObject

Seen = tuple[str, JsonObject, str]


def walk(guard: LoopGuard, states: Iterable[Seen]) -> list[Notice | None]:
    """One state a reply."""
    found = []
    for tool, arguments, result in states:
        guard.next_reply()
        found.append(guard.observe(tool, arguments, str(sorted(arguments.items())), result))
    return found


def repeats(states: Iterable[Seen]) -> list[int]:
    return [notice.repeat if notice else 1 for notice in walk(LoopGuard(), states)]


A: Seen = ("a", {"x": 1}, "r")
B: Seen = ("b", {"x": 1}, "r")
C: Seen = ("c", {}, "r")


@pytest.mark.requirement("REC-4")
def test_equal_states_are_counted() -> None:
    assert repeats([A, A, A]) == [1, 2, 3]
    assert walk(LoopGuard(), [A, A])[1] == Notice("same_call", "a", 2)


def test_states_with_other_arguments_or_results_are_not_the_same() -> None:
    other = ("a", {"x": 1}, "another")
    assert repeats([A, other, ("c", {}, "1"), ("c", {}, "2")]) == [1, 1, 1, 1]


@pytest.mark.parametrize("cycle", [[A, B], [A, B, C], [A, B, C, ("d", {}, "r")]])
def test_cycles_of_two_to_four_states_are_counted_by_rounds(cycle: list[Seen]) -> None:
    found = repeats(cycle * 3)
    size = len(cycle)
    assert max(found[:size]) == 1
    assert max(found[: 2 * size]) == 2
    assert found[-1] == 3


def test_one_argument_varied_with_the_same_result_is_the_same_state() -> None:
    tried: list[Seen] = [("a", {"x": n, "y": 0}, "none") for n in range(3)]
    assert repeats(tried) == [1, 2, 3]
    assert walk(LoopGuard(), tried)[1] == Notice("varied_call", "a", 2)


def test_two_arguments_varied_at_once_are_another_state() -> None:
    assert repeats([("a", {"x": n, "y": n}, "none") for n in range(3)]) == [1, 1, 1]


def test_what_changes_the_world_starts_the_count_anew() -> None:
    guard = LoopGuard()
    walk(guard, [A, A])
    guard.changed()
    assert walk(guard, [A])[0] is None


def test_equal_states_of_one_reply_count_once() -> None:
    guard = LoopGuard()
    guard.next_reply()
    assert [guard.observe(*A[:2], "h", "r") for _ in range(4)] == [None] * 4
    guard.next_reply()
    assert guard.observe(*A[:2], "h", "r") == Notice("same_call", "a", 2)


def test_the_same_states_always_give_the_same_notices() -> None:
    states = [A, B, A, B, C, A, A, B]
    assert walk(LoopGuard(), states) == walk(LoopGuard(), states)
