"""The fixture that users' own tests get."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TEST = '''
import pytest
from roadworthy import Agent, ConfigurationError, ToolCall, tool
from roadworthy.errors import ModelUnavailable
from roadworthy.testing import ScriptedModel

@tool(effect="read")
def look(x: str) -> str:
    """Look. x: any."""
    return x

def test_it_runs_at_once(runtime):
    model = ScriptedModel([ModelUnavailable("503"), ToolCall("look", {"x": "1"}), "Done."])
    result = runtime.run_sync(Agent("desk", model=model, tools=[look]), "Hello")
    assert result.text == "Done."

def test_each_test_has_its_own_store(runtime):
    assert runtime.sync(runtime.runs()) == []

def test_no_real_model_is_asked(runtime):
    from roadworthy.models.providers import _gate
    assert _gate.shut
'''


def test_the_runtime_fixture_is_open_fresh_and_asks_no_real_model(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["roadworthy.testing.plugin"]\n')
    (tmp_path / "test_mine.py").write_text(TEST.replace("ConfigurationError, ", ""))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(  # noqa: S603 - our own code
        command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_testing_package_itself_needs_no_pytest() -> None:
    code = "import sys, roadworthy.testing; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "False"
