"""What `roadworthy` exports, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import roadworthy

NAMES = [
    "Agent",
    "Approval",
    "Budget",
    "DeclarationError",
    "File",
    "Guardrail",
    "Limits",
    "Message",
    "ModelSettings",
    "NotApplied",
    "Price",
    "ProviderOptions",
    "RoadworthyError",
    "RunContext",
    "RunEvent",
    "RunNotCompleted",
    "RunOptions",
    "RunResult",
    "Runtime",
    "Tool",
    "ToolCall",
    "ToolError",
    "ToolResult",
    "Usage",
    "User",
    "Verdict",
    "guardrail",
    "tool",
]


def test_the_public_names_are_these_and_no_others() -> None:
    assert list(roadworthy.__all__) == NAMES
    assert all(getattr(roadworthy, name) is not None for name in NAMES)
    assert set(NAMES) < set(dir(roadworthy))


def test_an_unknown_name_is_said_as_python_says_it() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        _ = roadworthy.Agnet


def test_importing_roadworthy_imports_no_heavy_library() -> None:
    code = (
        "import sys, roadworthy\n"
        "heavy = {'pydantic_ai', 'pydantic', 'sqlalchemy', 'alembic', 'genai_prices', 'typer'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "from roadworthy import Agent, Runtime, Limits, RunResult, tool\n"
        "print('pydantic_ai' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.split() == ["[]", "False"]
