"""`roadworthy check`: what is wrong with a file's tools, as text and as JSON, by exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from roadworthy.cli.check import app

_HEAD = '''
from roadworthy import Agent, tool
from roadworthy.testing import ScriptedModel

@tool(effect="read")
def find_order(order_id: str) -> str:
    """One order of the current user, with its items and state. order_id: such as A-17."""
'''
_THIN = '''
@tool(effect="read")
def stock(item: str) -> int:
    """How many pieces of an article are left in the shop."""
'''
_TWICE = '''
@tool(effect="read")
def look_up(order_id: str) -> str:
    """One order of the current user, with its items and state. order_id: such as A-17."""
'''


@pytest.fixture(autouse=True)
def _nothing_stays_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "desk", sys)  # taken back, whatever is loaded in its place


def checked(folder: Path, body: str, tools: str, *options: str) -> Result:
    agent = f'\ndesk = Agent("desk", model=ScriptedModel(["."]), tools=[{tools}])\n'
    file = folder / "desk.py"
    file.write_text(_HEAD + body + agent, encoding="utf-8")
    return CliRunner().invoke(app, [str(file), *options])


@pytest.mark.requirement("TOL-1")
def test_good_tools_pass(tmp_path: Path) -> None:
    done = checked(tmp_path, "", "find_order", "--strict")
    assert done.exit_code == 0
    assert done.stdout == "desk: 1 tool (1 read)\n  ok\n0 errors, 0 warnings\n"


@pytest.mark.requirement("TOL-1")
def test_warnings_fail_only_when_asked_to(tmp_path: Path) -> None:
    done = checked(tmp_path, _THIN, "find_order, stock")
    assert done.exit_code == 0
    assert "warning stock: no description: item. [undescribed_parameter]" in done.stdout
    assert "`item: what it is, such as ...`" in done.stdout
    assert checked(tmp_path, _THIN, "find_order, stock", "--strict").exit_code == 1


@pytest.mark.requirement("TOL-1")
def test_errors_fail_and_say_the_mend(tmp_path: Path) -> None:
    done = checked(tmp_path, _TWICE, "find_order, look_up")
    assert done.exit_code == 1
    assert "error   find_order and look_up: their descriptions say the same." in done.stdout
    assert done.stdout.endswith("1 error, 0 warnings\n")


def test_the_same_as_json(tmp_path: Path) -> None:
    said = json.loads(checked(tmp_path, _TWICE, "find_order, look_up", "--json").stdout)
    assert (said["errors"], said["warnings"]) == (1, 0)
    (finding,) = said["findings"]
    assert finding["agent"] == "desk"
    assert (finding["code"], finding["tools"]) == ("same_description", ["find_order", "look_up"])
