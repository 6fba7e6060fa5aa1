"""Tools people have already: of LangChain, of Pydantic AI, and OpenAI function schemas, as ours.

Imports none of those libraries: who hands in a tool has loaded its own. Invariant: nothing is said
of an effect that the deployer does not say; `write` promises here that repeating does no harm.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from roadworthy.agent import Effect, Tool, Toolset, qualname
from roadworthy.context import RunContext
from roadworthy.errors import DeclarationError, ToolError
from roadworthy.messages import JsonObject
from roadworthy.tools.declare import Approval, tool_from_schema

Foreign: TypeAlias = Any
"""A thing of another library, read by its names."""

_SAID = frozenset({"ToolException", "ModelRetry", "ToolRetryError"})


def from_openai(
    schema: JsonObject,
    function: Callable[..., Any],
    *,
    effect: Effect = "irreversible",
    approval: Approval | None = None,
    timeout: float | None = None,
) -> Tool[Any]:
    """A tool from an OpenAI function schema (of Chat Completions or Responses) and what it calls.

    effect, approval, timeout: as `@tool`; "write" promises that repeating does no harm.
    Raises: DeclarationError: it is no such schema.
    """
    inner = schema.get("function", schema)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise DeclarationError(
            f'{schema!r:.120} is no function schema; give {{"type": "function", "function": '
            '{"name": ..., "description": ..., "parameters": {...}}}.'
        )
    about = _About(str(inner["name"]), inner.get("description"), inner.get("parameters"))
    return _made(about, function, _Policy(effect, approval, timeout))


def from_langchain(
    tool: Foreign,
    *,
    effect: Effect = "irreversible",
    approval: Approval | None = None,
    timeout: float | None = None,
) -> Tool[Any]:
    """A LangChain tool (`@tool`, `StructuredTool`, `BaseTool`) as ours; it is invoked as there.

    effect, approval, timeout: as `from_openai`. Raises: DeclarationError: it is no such tool.
    """
    if not all(hasattr(tool, name) for name in ("name", "tool_call_schema", "invoke", "ainvoke")):
        raise DeclarationError(f"{tool!r:.120} is no LangChain tool.")
    schema = tool.tool_call_schema
    if not isinstance(schema, Mapping):
        schema = schema.model_json_schema()

    async def call(**given: object) -> object:
        return await _said(tool.ainvoke(given))

    def call_in_thread(**given: object) -> object:
        try:
            return tool.invoke(given)
        except Exception as error:
            raise _ours(error) from error

    about = _About(tool.name, tool.description, schema)
    policy = _Policy(effect, approval, timeout)
    theirs = getattr(tool, "coroutine", None) or getattr(tool, "func", None) or type(tool)
    function = call if _is_async(tool) else call_in_thread
    return replace(_made(about, function, policy), source=qualname(theirs))


def from_pydantic_ai(
    tool: Foreign,
    *,
    effect: Effect = "irreversible",
    effects: Mapping[str, Effect] | None = None,
    approval: Approval | None = None,
    timeout: float | None = None,
) -> Any:  # noqa: ANN401 - a Tool of a tool, a Toolset of a toolset
    """A Pydantic AI `Tool` as a Tool, any toolset of its as a Toolset.

    effects: of single tools of a toolset, by name; effect: of the others. approval, timeout: as
    `from_openai`. A function that takes their RunContext gets one with deps, user-independent ids
    and the attempt; there is no model in it.
    Raises: DeclarationError: it is neither, or decides by `prepare=` what it is.
    """
    policy = _Policy(effect, approval, timeout)
    if hasattr(tool, "get_tools") and hasattr(tool, "call_tool"):
        name = str(getattr(tool, "id", None) or type(tool).__name__)
        return _PydanticAI(name, tool, policy, effects or {})
    if not hasattr(tool, "function_schema"):
        raise DeclarationError(f"{tool!r:.120} is no tool or toolset of Pydantic AI.")
    if tool.prepare is not None:
        raise DeclarationError(
            f"{tool.name} has prepare=: what it is would be decided where it is not recorded. "
            "Say with @tool(available=...) when it is there."
        )
    schema = tool.function_schema

    async def call(run: RunContext[Any], /, **given: object) -> object:
        typed = schema.validator.validate_python(given)
        return await _said(schema.call(typed, _context(run, tool.name)))

    if getattr(tool, "requires_approval", False) and approval is None:
        policy = _Policy(effect, "operator", timeout)
    made = _made(_About(tool.name, tool.description, schema.json_schema), call, policy)
    return replace(made, source=qualname(tool.function))


@dataclass(frozen=True)
class _About:
    name: str
    description: str | None
    parameters: JsonObject | None


@dataclass(frozen=True)
class _Policy:
    effect: Effect
    approval: Approval | None
    timeout: float | None


@dataclass(frozen=True, eq=False)
class _PydanticAI(Toolset[Any]):
    """Their toolset, entered as they enter it."""

    name: str
    theirs: Foreign
    policy: _Policy
    effects: Mapping[str, Effect]
    per: Literal["process", "run"] = "process"
    required: bool = False
    seconds: float = 30.0

    @asynccontextmanager
    async def open(self, run: RunContext[None]) -> AsyncIterator[Sequence[Tool[Any]]]:
        """Its tools, as it lists them for nobody in particular."""
        async with self.theirs:
            listed = await self.theirs.get_tools(_context(run, None))
            yield [self._tool(name, tool) for name, tool in listed.items()]

    def _tool(self, name: str, tool: Foreign) -> Tool[Any]:
        told, policy = tool.tool_def, self.policy
        if told.kind not in ("function", "unapproved"):
            raise DeclarationError(f"{name} is {told.kind}: it is carried out elsewhere.")
        asks = policy.approval or ("operator" if told.kind == "unapproved" else None)
        policy = _Policy(self.effects.get(name, policy.effect), asks, policy.timeout)

        async def call(run: RunContext[Any], /, **given: object) -> object:
            typed = tool.args_validator.validate_python(given)
            return await _said(self.theirs.call_tool(name, typed, _context(run, name), tool))

        about = _About(name, told.description, told.parameters_json_schema)
        return replace(_made(about, call, policy), source=self.name)


def _made(about: _About, function: Callable[..., Any], policy: _Policy) -> Tool[Any]:
    return tool_from_schema(
        about.name,
        about.description or f"{about.name}; it has no description.",
        about.parameters or {"type": "object", "properties": {}},
        function,
        effect=policy.effect,
        approval=policy.approval,
        timeout=policy.timeout,
        idempotent_by_nature=policy.effect == "write",
    )


def _is_async(tool: Foreign) -> bool:
    """Whether a LangChain tool has an async way of its own; else its function gets a thread."""
    if getattr(tool, "coroutine", None) is not None:
        return True
    theirs = (cls for cls in type(tool).__mro__ if not cls.__module__.startswith("langchain_core."))
    return any("_arun" in vars(cls) for cls in theirs)


def _context(run: RunContext[Any], name: str | None) -> Foreign:
    """Their RunContext. Whoever has a toolset of theirs has loaded the library."""
    library: Foreign = sys.modules["pydantic_ai"]
    return library.RunContext(
        deps=run.deps,
        model=None,
        usage=library.RunUsage(),
        tool_name=name,
        retry=run.attempt - 1,
        run_id=run.run_id,
        conversation_id=run.conversation,
    )


async def _said(work: Awaitable[object]) -> object:
    try:
        found = await work
    except Exception as error:
        raise _ours(error) from error
    return await found if inspect.isawaitable(found) else found


def _ours(error: Exception) -> Exception:
    """What their tools raise to tell the model something is a ToolError of ours."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return ToolError(str(error)) if names & _SAID else error
