"""Roadworthy: the runtime that makes AI agents fit for production.

Names are loaded on first use, so that `import roadworthy` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roadworthy.agent import Agent as Agent
    from roadworthy.agent import Guardrail as Guardrail
    from roadworthy.agent import Tool as Tool
    from roadworthy.agent import Verdict as Verdict
    from roadworthy.context import RunContext as RunContext
    from roadworthy.context import User as User
    from roadworthy.errors import DeclarationError as DeclarationError
    from roadworthy.errors import NotApplied as NotApplied
    from roadworthy.errors import RoadworthyError as RoadworthyError
    from roadworthy.errors import RunNotCompleted as RunNotCompleted
    from roadworthy.errors import ToolError as ToolError
    from roadworthy.events import RunEvent as RunEvent
    from roadworthy.guardrails import guardrail as guardrail
    from roadworthy.limits import Budget as Budget
    from roadworthy.limits import Limits as Limits
    from roadworthy.limits import Price as Price
    from roadworthy.limits import Usage as Usage
    from roadworthy.messages import File as File
    from roadworthy.messages import Message as Message
    from roadworthy.messages import ModelSettings as ModelSettings
    from roadworthy.messages import ToolCall as ToolCall
    from roadworthy.messages import ToolResult as ToolResult
    from roadworthy.models.providers import ProviderOptions as ProviderOptions
    from roadworthy.result import Approval as Approval
    from roadworthy.result import RunResult as RunResult
    from roadworthy.run import RunOptions as RunOptions
    from roadworthy.runtime import Runtime as Runtime
    from roadworthy.tools import tool as tool

__version__ = "0.1.0"

_HOMES = {
    "Agent": "agent",
    "Approval": "result",
    "Budget": "limits",
    "DeclarationError": "errors",
    "File": "messages",
    "Guardrail": "agent",
    "Limits": "limits",
    "Message": "messages",
    "ModelSettings": "messages",
    "NotApplied": "errors",
    "Price": "limits",
    "ProviderOptions": "models.providers",
    "RoadworthyError": "errors",
    "RunContext": "context",
    "RunEvent": "events",
    "RunNotCompleted": "errors",
    "RunOptions": "run",
    "RunResult": "result",
    "Runtime": "runtime",
    "Tool": "agent",
    "ToolCall": "messages",
    "ToolError": "errors",
    "ToolResult": "messages",
    "Usage": "limits",
    "User": "context",
    "Verdict": "agent",
    "guardrail": "guardrails",
    "tool": "tools",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'roadworthy' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"roadworthy.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
