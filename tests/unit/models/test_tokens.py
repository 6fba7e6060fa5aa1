"""The bound is never below what real tokenizers count."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.estimate import estimate
from roadworthy.messages import (
    File,
    Message,
    OutputSpec,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    ToolSpec,
)
from roadworthy.models.tokens import fixed_bound, message_bound


@given(st.text())
def test_a_text_is_bounded_by_its_bytes(text: str) -> None:
    bound = message_bound(Message.user(text))
    assert bound >= len(text.encode("utf-8", "replace"))
    assert bound <= 4 * len(text) + 32


@given(st.text(max_size=50), st.text(max_size=50))
def test_bounds_add_up(one: str, other: str) -> None:
    both = Message(role="user", parts=(Text(text=one), Text(text=other)))
    apart = message_bound(Message.user(one)) + message_bound(Message.user(other))
    assert message_bound(both) <= apart


def test_every_kind_of_part_counts() -> None:
    parts = (
        ToolCall("find", {"q": "Zürich" * 10}, id="call_1"),
        ToolCall("find", malformed="{" * 100),
        Reasoning(text="so", provider_state="x" * 400),
        ToolResult(tool="find", call_id="1", content="y" * 300, files=(image(),)),
        image(),
        File(media_type="application/pdf", data=b"z" * 1_000),
        File(media_type="audio/wav", url="https://example.com/a.wav"),
    )
    for part in parts:
        assert message_bound(Message(role="assistant", parts=(part,))) > 50
    assert message_bound(Message(role="tool", parts=(parts[3],))) > 8_192


def image() -> File:
    return File(media_type="image/png", data=b"1" * 10)


def test_tools_and_output_are_part_of_the_fixed_bound() -> None:
    tool = ToolSpec(name="find", description="Find it.", parameters={"type": "object"})
    bare = fixed_bound("Be brief.", (), None)
    with_tool = fixed_bound("Be brief.", (tool,), None)
    assert with_tool - bare > 600 + len(json.dumps(tool.parameters))
    output = OutputSpec(name="answer", parameters={"type": "object"})
    assert fixed_bound("Be brief.", (tool,), output) > with_tool


@pytest.mark.parametrize("text", ["", "Hello, world!", "Größe 42", "{'a': [1, 2]}"])
def test_an_estimate_is_below_the_bound(text: str) -> None:
    assert 0 <= estimate(text) <= message_bound(Message.user(text))
