"""`docs/reference.md` against the code: what users can meet is described."""

from __future__ import annotations

import re
import types
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from fastapi.routing import APIRoute

import roadworthy
from roadworthy import result, settings, testing
from roadworthy.agent import Tool
from roadworthy.api import inbox, talking
from roadworthy.events import EVENT_TYPES, LiveEvent
from roadworthy.limits import Limits, Scope, Window
from roadworthy.triggers import PRIORITIES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference.md").read_text("utf-8")
SETTINGS = re.findall(r"^(ROADWORTHY_\w+)", settings.__doc__ or "", re.MULTILINE)

NAMES = {
    "events": [*EVENT_TYPES, *(cls.__name__ for cls in get_args(LiveEvent))],
    "limits": [field.name for field in fields(Limits)],
    "scopes and windows": [*get_args(Scope), *get_args(Window)],
    "statuses": [*get_args(result.Status)],
    "reasons": [*get_args(result.Reason)],
    "decisions": [*get_args(result.Decision)],
    "settings": SETTINGS,
    "public names": [*roadworthy.__all__],
    "testing names": [n for n in testing.__all__ if n not in ("Failing", "RecordedRequest")],
}


@pytest.mark.parametrize("group", NAMES)
def test_the_reference_names_everything_users_meet(group: str) -> None:
    assert NAMES[group]
    assert not [name for name in NAMES[group] if f"`{name}`" not in PAGE]


def test_the_example_of_the_page_on_tools_is_declared_without_objection() -> None:
    found = re.findall(r"```python\n(.*?)```", (DOCS / "tools.md").read_text("utf-8"), re.DOTALL)
    code = "\n".join(found)
    module = types.ModuleType("page")
    exec(compile(code, "docs/tools.md", "exec"), module.__dict__)  # noqa: S102 - our own page
    weather = module.__dict__["weather"]
    assert isinstance(weather, Tool)
    kinds = [type(rung).__name__ for rung in weather.fallback]
    assert kinds == ["Alternative", "LastGood", "Default"]


def test_the_inbox_of_the_page_is_declared_without_objection() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "inbox.md").read_text("utf-8"), re.DOTALL)
    module = types.ModuleType("page")
    exec(compile(code, "docs/inbox.md", "exec"), module.__dict__)  # noqa: S102 - our own page
    assert [queue.name for queue in module.__dict__["inbox"].queues] == ["default", "leads"]


def test_the_page_on_people_names_every_trigger_with_its_priority() -> None:
    page = (DOCS / "people.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    told = {
        name: int(row.rstrip(" |").rpartition(" ")[2])
        for row in rows
        if row.count("|") == 5
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert told == dict(PRIORITIES)
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    exec(compile(code, "docs/people.md", "exec"), types.ModuleType("page").__dict__)  # noqa: S102 - our own page
    for route in (*inbox.routes.routes, *talking.routes.routes):
        assert isinstance(route, APIRoute)
        last = route.path.rpartition("/")[2].replace("{escalation}", "{id}")
        assert last in page, route.path
