"""Whatever a server offers becomes a tool that providers take, or is left out. Never a crash."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roadworthy.context import RunContext, User
from roadworthy.messages import ToolCall
from roadworthy.tools import Registry
from roadworthy.tools.mcp import MCP, Offer, fingerprint
from roadworthy.tools.mcp.pins import Accepted
from roadworthy.tools.names import named

NOBODY: RunContext[None] = RunContext(run_id="", user=User(""), deps=None)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
words = st.sampled_from(
    [
        *("type", "properties", "required", "enum", "anyOf", "$ref", "$defs", "items", "default"),
        *("const", "additionalProperties", "pattern", "minimum", "__proto__", "constructor"),
    ]
)
types = st.sampled_from(["object", "string", "integer", "array", "null", "#", "#/$defs/a", "a"])
schemas = st.recursive(
    plain | types,
    lambda inner: st.dictionaries(words, inner | st.lists(inner, max_size=3), max_size=4),
    max_leaves=12,
)
offers = st.builds(
    Offer,
    name=st.text(max_size=80),
    description=st.text(max_size=40),
    parameters=st.dictionaries(words, schemas, max_size=4).map(lambda d: {**d, "type": "object"}),
    hints=st.dictionaries(st.sampled_from(["read_only_hint", "idempotent_hint"]), st.booleans()),
)


@pytest.mark.requirement("TOL-8")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(offers, max_size=4, unique_by=lambda offer: offer.name),
    st.dictionaries(st.text(max_size=8) | words, plain, max_size=3),
)
def test_any_offer_becomes_a_tool_or_is_left_out(found: list[Offer], given: Any) -> None:  # noqa: ANN401
    server = MCP("odd", command=["x"])
    connection = server.connection(NOBODY, None)
    connection.offers = tuple(found)
    tools = server._tools(connection)  # no server is needed
    names = [tool.name for tool in tools]
    registry = Registry(tools)
    assert all(registry.check(ToolCall(name, given)) for name in names), "whatever is asked of it"
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name) for name in names)
    assert fingerprint(found) == fingerprint(found[::-1])
    assert not Accepted.of(found).changes(found)


@given(st.lists(st.text(max_size=100)), st.text(max_size=70))
def test_names_are_each_used_once(names: list[str], prefix: str) -> None:
    found = named(prefix, names)
    assert set(found) == set(names)
    assert len(set(found.values())) == len(found)
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name) for name in found.values())


def test_names_that_differ_in_case_or_signs_alone_stay_apart() -> None:
    found = named("git", ["log", "log.all", "log all", "log/all"])
    assert found["log"] == "git_log"
    assert len(set(found.values())) == 4


@given(offers, st.sampled_from(["name", "description", "parameters", "returns", "hints"]))
def test_whatever_decides_is_in_the_fingerprint(offer: Offer, part: str) -> None:
    fields: dict[str, Any] = {name: getattr(offer, name) for name in Offer.__dataclass_fields__}
    fields[part] = "changed" if part in ("name", "description") else {"changed": True}
    assert fingerprint([Offer(**fields)]) != fingerprint([offer])
