"""What changed between two declarations, in plain words, and what is pending."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from roadworthy import Agent, Limits, Tool, tool
from roadworthy.events import (
    ApprovalAsked,
    DeclarationChanged,
    RunEvent,
    RunStarted,
    ToolAttemptFailed,
    ToolFailed,
    ToolIntended,
)
from roadworthy.messages import Message, ToolResult
from roadworthy.testing import ScriptedModel
from roadworthy.versions import NOT_ON_RECORD, Change, Declaration, diff, judge, pending, pinned


@tool(effect="read")
def look(page: int, deep: bool = False) -> str:
    """One page.

    page: its number.
    """
    return f"{page}{deep}"


def declared(*tools: Tool[Any], **options: Any) -> Declaration:  # noqa: ANN401 - as Agent takes it
    agent = Agent("desk", model=ScriptedModel(["Hi."]), tools=tools, **options)
    return Declaration.of(agent, output=None)


def look_with(**parameters: Any) -> Tool[None]:  # noqa: ANN401 - JSON
    return replace(look, parameters=dict(look.parameters) | parameters)


PROPERTIES: dict[str, Any] = look.parameters["properties"]
PAGE: dict[str, Any] = PROPERTIES["page"]


@pytest.mark.parametrize(
    ("parameters", "said", "alters"),
    [
        ({"properties": {"page": PAGE}}, "tool look: parameter deep removed", True),
        (
            {"properties": {**PROPERTIES, "line": {"type": "integer"}}},
            "tool look: parameter line added (optional)",
            True,
        ),
        (
            {"properties": {**PROPERTIES, "page": {"type": "string"}}},
            "tool look: parameter page changed",
            True,
        ),
        ({"required": ["page", "deep"]}, "tool look: parameter deep is required now", True),
        ({"required": []}, "tool look: parameter page is optional now", True),
        ({"additionalProperties": True}, "tool look: parameters changed", True),
        (
            {"properties": {**PROPERTIES, "page": {**PAGE, "description": "Which."}}},
            "tool look: description",
            False,
        ),
    ],
)
def test_a_changed_schema_is_told_by_parameter(
    parameters: dict[str, Any], said: str, alters: bool
) -> None:
    (change,) = diff(declared(look).data, declared(look_with(**parameters)).data)
    assert (str(change), change.alters) == (said, alters)


def test_a_parameter_called_description_is_no_description() -> None:
    old = look_with(properties={**PROPERTIES, "description": {"type": "string"}})
    new = look_with(properties={**PROPERTIES, "description": {"type": "integer"}})
    (change,) = diff(declared(old).data, declared(new).data)
    assert str(change) == "tool look: parameter description changed"


def test_the_same_declaration_has_the_same_fingerprint_and_no_difference() -> None:
    one, two = declared(look, limits=Limits(usd="0.5")), declared(look, limits=Limits(usd="0.5"))
    assert one.fingerprint == two.fingerprint
    assert diff(one.data, two.data) == ()
    assert one.fingerprint != declared(look).fingerprint


def test_what_an_older_release_did_not_record_counts_as_unchanged() -> None:
    new = declared(look, version="2")
    for part in new.data:
        if part not in ("model", "instructions"):
            old = {name: value for name, value in new.data.items() if name != part}
            assert [str(c) for c in diff(old, new.data) if c.part != "tools"] == []
    bare = {"description": look.description, "parameters": look.parameters, "effect": "read"}
    assert diff(dict(new.data) | {"tools": {"look": bare}}, new.data) == ()
    assert diff(None, new.data) == (NOT_ON_RECORD,)


def test_an_agents_own_version_stands_before_the_runtimes() -> None:
    agent = Agent("desk", model=ScriptedModel(["Hi."]), version="own")
    assert Declaration.of(agent, output=None, version="rt").data["version"] == "own"
    assert Declaration.of(replace(agent, version=""), output=None, version="rt").data[
        "version"
    ] == ("rt")


def begun(key: str, effect: Any = "write") -> ToolIntended:  # noqa: ANN401 - a literal
    return ToolIntended(
        key=key,
        tool="pay",
        arguments={},
        arguments_hash="h",
        effect=effect,
        idempotency_key="k",
        attempt=1,
    )


def asked(key: str) -> ApprovalAsked:
    return ApprovalAsked(
        key=key, approval_id="a", tool="close", arguments={}, arguments_hash="h", asks="operator"
    )


ENDED = ToolFailed(
    key="t/0", tool="pay", code="x", result=ToolResult(tool="pay", call_id="", content="")
)
SURE = ToolAttemptFailed(key="t/0", tool="pay", attempt=1, code="x", applied="no")
LOST = ToolAttemptFailed(key="t/0", tool="pay", attempt=1, code="x")


@pytest.mark.parametrize(
    ("events", "keys"),
    [
        ([begun("t/0")], ["t/0"]),
        ([begun("t/0", "read")], []),
        ([begun("t/0"), ENDED], []),
        ([begun("t/0"), SURE], []),
        ([begun("t/0"), LOST], ["t/0"]),
        ([asked("t/0/approval")], ["t/0"]),
        ([asked("t/0/approval"), begun("t/0"), asked("t/1/approval/2")], ["t/0", "t/1"]),
        ([asked("t/0/approval"), ENDED], []),
    ],
)
def test_a_call_is_pending_from_its_intent_or_question_to_its_outcome(
    events: list[RunEvent], keys: list[str]
) -> None:
    assert [call.key for call in pending(events)] == keys


def test_the_policy_is_asked_only_when_something_changed() -> None:
    calm, grave = Change("instructions", ""), Change("tools", "removed", "pay", alters=True)
    calls = pending([begun("t/0")])
    assert {judge((), calls, policy) for policy in ("continue", "drain", "ask")} == {"continue"}
    assert judge([calm], calls, "continue") == "continue"
    assert judge([calm], calls, "ask") == "ask"
    assert judge([grave], calls, "drain") == "drain"
    assert judge([grave], calls, "continue") == "ask"
    assert judge([grave], (), "continue") == "continue"
    assert judge([NOT_ON_RECORD], calls, "continue") == "ask"


def test_the_last_change_is_what_a_run_is_pinned_to() -> None:
    start = RunStarted(agent="desk", fingerprint="f", input=Message.user("Hello"), limits={})
    assert pinned([start]) == "f"
    assert pinned([start, DeclarationChanged(old="f", new="g")]) == "g"


def test_what_is_left_out_where_it_is_not_declared_is_told_all_the_same() -> None:
    bounded = replace(look, result_bytes=4_096)
    (change,) = diff(declared(look).data, declared(bounded).data)
    assert str(change) == "tool look: result_bytes null -> 4096"
    assert len(diff(declared(bounded).data, declared(look).data)) == 1
    (change,) = diff(declared(look).data, declared(look, select=True).data)
    assert str(change) == "select: None -> True"
