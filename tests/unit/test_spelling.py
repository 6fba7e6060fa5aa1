"""A misspelt keyword of a declaration is said with the nearest that exists."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from roadworthy import Agent, Budget, Limits, tool
from roadworthy.errors import DeclarationError

LIMITS: Any = Limits
BUDGET: Any = Budget
AGENT: Any = Agent
TOOL: Any = tool
REPLACE: Any = dataclasses.replace


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: LIMITS(turn=5), "Limits has no `turn`; did you mean `turns`?"),
        (lambda: BUDGET("user", "day", dollars=5), "Budget has no `dollars`; it takes scope, win"),
        (lambda: BUDGET("user", "day", token=5), "Budget has no `token`; did you mean `tokens`?"),
        (
            lambda: AGENT("desk", model="large", instruction="Help."),
            "Agent has no `instruction`; did you mean `instructions`?",
        ),
        (lambda: TOOL(effects="read"), "@tool has no `effects`; did you mean `effect`?"),
        (
            lambda: REPLACE(Limits(), turn=5),
            "Limits has no `turn`; did you mean `turns`?",
        ),
    ],
)
def test_a_misspelt_keyword_is_said_with_the_nearest(
    declare: Callable[[], object], said: str
) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare()
    assert str(caught.value).startswith(said)


def test_other_mistakes_stay_what_they_are() -> None:
    with pytest.raises(TypeError, match="positional"):
        LIMITS(5)
    with pytest.raises(TypeError, match="scope"):
        BUDGET(usd=1)


def test_signatures_stay_as_written() -> None:
    assert list(inspect.signature(Limits).parameters)[:2] == ["turns", "tool_calls"]
    assert "effect" in inspect.signature(tool).parameters
    assert tool.__doc__
    assert tool.__doc__.startswith("Make a function a tool.")
