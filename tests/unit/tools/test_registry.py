"""The whitelist: unknown names, malformed calls, equal hashes."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import AfterValidator

from roadworthy.errors import DeclarationError
from roadworthy.messages import ToolCall
from roadworthy.tools import MAX_BYTES, Accepted, Refused, Registry, tool


@tool
def find_order(order_id: str) -> str:
    """Find an order."""
    return order_id


@tool
def refund_payment(order_id: str, euros: int = 1) -> str:
    """Pay back."""
    return f"{order_id} {euros}"


def explode(value: int) -> int:
    return 1 // (value - value)


@tool
def fragile(value: Annotated[int, AfterValidator(explode)]) -> int:
    """A validator of the user's that fails."""
    return value


REGISTRY = Registry([find_order, refund_payment, fragile])


def refused(call: ToolCall) -> Refused:
    verdict = REGISTRY.check(call)
    assert isinstance(verdict, Refused)
    return verdict


def accepted(call: ToolCall) -> Accepted:
    verdict = REGISTRY.check(call)
    assert isinstance(verdict, Accepted)
    return verdict


def test_a_good_call_is_accepted() -> None:
    verdict = accepted(ToolCall("refund_payment", {"order_id": "A-17"}))
    assert verdict.tool is refund_payment
    assert verdict.values == verdict.canonical == {"order_id": "A-17", "euros": 1}
    assert len(verdict.hash) == 32


def test_equal_calls_have_equal_hashes() -> None:
    calls: list[dict[str, Any]] = [
        {"order_id": "A", "euros": 1},
        {"euros": 1.0, "order_id": "A"},
        {"order_id": "A"},
    ]
    assert len({accepted(ToolCall("refund_payment", arguments)).hash for arguments in calls}) == 1
    others = [ToolCall("refund_payment", {"order_id": "B"}), ToolCall("find_order", calls[2])]
    assert (
        len({accepted(call).hash for call in [*others, ToolCall("refund_payment", calls[0])]}) == 3
    )


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("find_orders", "find_order"),
        ("findOrder", "find_order"),
        ("FIND-ORDER", "find_order"),
        ("find_order_v2", "find_order"),
        ("functions.find_order", "find_order"),
        ("order_find", "find_order"),
        ("refund_paymnt", "refund_payment"),
        ("weather", None),
        ("", None),
        ("\ud800" * 100_000, None),
    ],
)
@pytest.mark.requirement("TOL-7", "TOL-8", "REC-3")
def test_unknown_names_get_the_nearest_valid_one(name: str, suggestion: str | None) -> None:
    verdict = refused(ToolCall(name, {"order_id": "A"}))
    assert verdict.reason_code == "unknown_tool"
    assert verdict.suggestion == suggestion
    assert "Your tools: find_order, refund_payment, fragile." in verdict.message
    assert len(verdict.message) < 600


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ('{"order_id": "A', "cut off"),
        ("not json", "no valid JSON"),
        ("[1]", "no JSON object"),
        ("[" * 100_000, "no valid JSON"),
        ("", "no valid JSON"),
    ],
)
@pytest.mark.requirement("REC-3")
def test_malformed_arguments_are_answered(raw: str, said: str) -> None:
    verdict = refused(ToolCall("find_order", {}, malformed=raw))
    assert verdict.reason_code == "malformed"
    assert said in verdict.message
    assert "{order_id: string}" in verdict.message


def test_too_large_is_its_own_reason() -> None:
    big = "x" * (MAX_BYTES + 1)
    assert refused(ToolCall("find_order", {"order_id": big})).reason_code == "too_large"
    assert refused(ToolCall("find_order", {}, malformed=big)).reason_code == "too_large"


@pytest.mark.requirement("REC-7")
def test_a_failing_validator_of_the_user_crashes_nothing() -> None:
    verdict = refused(ToolCall("fragile", {"value": 1}))
    assert verdict.reason_code == "invalid_arguments"
    assert "ZeroDivisionError" in verdict.message


def test_specs_are_in_declared_order_and_stable() -> None:
    assert REGISTRY.names == ("find_order", "refund_payment", "fragile")
    assert [spec.name for spec in REGISTRY.specs] == list(REGISTRY.names)
    assert REGISTRY.specs is REGISTRY.specs
    assert REGISTRY.get("find_order") is find_order
    assert REGISTRY.get("gone") is None


def test_an_empty_registry_refuses_everything() -> None:
    verdict = Registry([]).check(ToolCall("find_order", {}))
    assert isinstance(verdict, Refused)
    assert verdict.message == 'There is no tool "find_order". Your tools: none.'


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(DeclarationError, match="rename one"):
        Registry([find_order, find_order])
