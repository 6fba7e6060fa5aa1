"""Any input: the registry never raises; equal calls have equal canonical bytes; results render."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from random import Random
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.errors import ToolError
from roadworthy.messages import ToolCall
from roadworthy.tools import Accepted, Refused, Registry, render, tool, tool_from_schema

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
ANYTHING = JSON | st.binary() | st.sets(st.integers()) | st.builds(object) | st.tuples(JSON, JSON)


@tool
def typed(
    order_id: str,
    euros: int,
    usd: Decimal = Decimal(1),
    tags: frozenset[str] = frozenset(),
    mode: Literal["fast", "slow"] = "fast",
    either: int | float | str | None = None,
    free: dict[str, Any] | None = None,
) -> str:
    """Take all kinds."""
    return order_id


PARAMETERS = {**typed.parameters, "properties": {**typed.parameters["properties"]}}
REGISTRY = Registry(
    [typed, tool_from_schema("schema", "Doc.", PARAMETERS, lambda **_: None, effect="read")]
)
FIELDS = st.sampled_from(list(PARAMETERS["properties"])) | st.text(max_size=8)
NAMES = st.sampled_from(["typed", "schema"])


@given(
    st.builds(
        ToolCall,
        NAMES | st.text(st.characters(codec=None)),
        st.dictionaries(FIELDS, ANYTHING, max_size=6) | ANYTHING,
        malformed=st.none() | st.text(st.characters(codec=None)),
    )
)
@pytest.mark.requirement("TOL-2", "TOL-7", "REC-3")
def test_check_never_raises(call: ToolCall) -> None:
    verdict = REGISTRY.check(call)
    assert isinstance(verdict, Accepted | Refused)
    if isinstance(verdict, Refused):
        assert 0 < len(verdict.message) < 3_000
        verdict.message.encode()
    else:
        json.dumps(verdict.canonical, allow_nan=False)


GOOD = st.fixed_dictionaries(
    {"order_id": st.text(st.characters(codec="utf-8")), "euros": st.integers(-(2**52), 2**52)},
    optional={
        "tags": st.lists(st.text(st.characters(codec="utf-8")), max_size=4, unique=True),
        "mode": st.sampled_from(["fast", "slow"]),
        "either": st.integers(-(2**52), 2**52) | st.floats(allow_nan=False, allow_infinity=False),
        "usd": st.decimals(-(10**9), 10**9, places=2).map(str),
    },
)


@given(GOOD, st.randoms(use_true_random=False))
@pytest.mark.requirement("TOL-4")
def test_equal_calls_have_equal_hashes(arguments: dict[str, Any], random: Random) -> None:
    keys = list(arguments)
    random.shuffle(keys)
    shuffled = {key: arguments[key] for key in keys}
    shuffled["euros"] = float(shuffled["euros"])
    if "tags" in shuffled:
        shuffled["tags"] = shuffled["tags"][::-1]
    first = REGISTRY.check(ToolCall("typed", arguments))
    second = REGISTRY.check(ToolCall("typed", shuffled))
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert first.hash == second.hash
    again = REGISTRY.check(ToolCall("typed", first.canonical))
    assert isinstance(again, Accepted)
    assert again.hash == first.hash


@given(ANYTHING)
def test_render_gives_text_or_says_why_not(value: object) -> None:
    with suppress(ToolError):
        text = render(value).text
        assert text.encode(errors="replace") == text.encode()
