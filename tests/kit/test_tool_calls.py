"""Tool-call validation over 331 registries nobody here wrote: recall and precision 1.0."""

from __future__ import annotations

import gzip
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from roadworthy.messages import ToolCall
from roadworthy.tools import Accepted, Refused, Registry, tool_from_schema

pytestmark = [pytest.mark.kit, pytest.mark.requirement("TOL-2", "TOL-7", "TOL-8", "REC-3")]

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "testkit"
KIT = Path(os.environ.get("ROADWORTHY_TESTKIT") or _BESIDE)


def load(name: str) -> dict[str, Any]:
    if not (KIT / name).exists():
        pytest.skip("no test kit")
    with gzip.open(KIT / name, "rt", encoding="utf-8") as file:
        data: dict[str, Any] = json.load(file)
    return data


def registry(tools: list[dict[str, Any]]) -> Registry:
    return Registry(
        tool_from_schema(
            each["name"], each["description"], each["parameters"], lambda **_: None, effect="read"
        )
        for each in tools
    )


@pytest.fixture(scope="module")
def calls() -> dict[str, Any]:
    return load("bfcl/calls.json.gz")


@pytest.fixture(scope="module")
def registries(calls: dict[str, Any]) -> dict[str, Registry]:
    return {name: registry(tools) for name, tools in calls["registries"].items()}


def test_every_valid_call_is_accepted(
    calls: dict[str, Any], registries: dict[str, Registry]
) -> None:
    assert len(calls["valid"]) == 444
    for case in calls["valid"]:
        verdict = registries[case["id"]].check(ToolCall(case["tool"], case["args"]))
        assert isinstance(verdict, Accepted), (case, verdict)


def test_every_broken_call_is_refused(
    calls: dict[str, Any], registries: dict[str, Registry]
) -> None:
    assert len(calls["invalid"]) == 3_235
    for case in calls["invalid"]:
        call = ToolCall(case["tool"], case["args"], malformed=case.get("raw"))
        verdict = registries[case["id"]].check(call)
        assert isinstance(verdict, Refused), case
        assert verdict.reason_code == expected_reason(case["kind"]), case


def expected_reason(kind: str) -> str:
    if kind.startswith("unknown_tool"):
        return "unknown_tool"
    return "malformed" if kind == "truncated_json" else "invalid_arguments"


def test_suggested_names_are_right(calls: dict[str, Any], registries: dict[str, Registry]) -> None:
    """Near misses get the right name, strangers none; a wrong name is worse than none."""
    wanted = defaultdict(set)
    for case in calls["valid"]:
        wanted[case["id"]].add(case["tool"])
    near = [case for case in calls["invalid"] if case["kind"] == "unknown_tool_near"]
    far = [case for case in calls["invalid"] if case["kind"] == "unknown_tool_other_registry"]
    given = [(registries[case["id"]].nearest(case["tool"]), wanted[case["id"]]) for case in near]
    assert sum(name in right for name, right in given) / len(near) > 0.97
    assert sum(name is not None and name not in right for name, right in given) <= 1
    strangers = [registries[case["id"]].nearest(case["tool"]) for case in far]
    assert sum(name is not None for name in strangers) / len(far) < 0.03


def test_recorded_airline_calls_are_accepted() -> None:
    """100 real conversations: the few refusals are calls whose recorded result is an error."""
    data = load("trajectories/airline_gpt4o_tasks_0_24.json.gz")
    airline = registry(data["tools"])
    assert len(airline.names) == 14
    total = refused = 0
    for run in data["runs"]:
        for message in run["messages"]:
            for call in message.get("tool_calls") or ():
                asked = call["function"]
                verdict = airline.check(ToolCall(asked["name"], json.loads(asked["arguments"])))
                total += 1
                refused += isinstance(verdict, Refused)
    assert total > 500
    assert refused / total < 0.01
