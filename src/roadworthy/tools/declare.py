"""`@tool`: a function becomes something a model may ask for; `tool_from_schema`: the same from a
ready JSON schema.

Invariant: a tool that could not be called safely never comes to exist (DeclarationError).
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, get_args, overload

from roadworthy.agent import Effect, Severity, Tool
from roadworthy.context import RunContext
from roadworthy.errors import DeclarationError
from roadworthy.limits import LEAST_BYTES, Breaker, Dollars, to_nanos
from roadworthy.messages import JsonObject, ToolCall
from roadworthy.spelling import spelled
from roadworthy.standins import Asks
from roadworthy.tools.arguments import SchemaReader
from roadworthy.tools.fallbacks import Fallback, rungs, wrong_fallback
from roadworthy.tools.results import MAX_TEXT
from roadworthy.tools.reversals import Reversal, reversal, wrong_undo
from roadworthy.tools.schemas import closed, everywhere
from roadworthy.tools.signatures import read_signature

D = TypeVar("D")
P = ParamSpec("P")

Approval = Asks | Callable[[RunContext[Any], ToolCall], Asks | None]
Available = Callable[[RunContext[Any]], bool]

RESERVED = frozenset({"ask_user", "escalate", "final_answer", "find_tool", "read_more"})
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_BREAKER = Breaker()
_FOREIGN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}")


class ToolMaker(Protocol):
    """`@tool(...)` with its options given: takes the function."""

    @overload
    def __call__(self, function: Callable[Concatenate[RunContext[D], P], Any], /) -> Tool[D]: ...
    @overload
    def __call__(self, function: Callable[..., Any], /) -> Tool[None]: ...


@overload
def tool(function: Callable[Concatenate[RunContext[D], P], Any], /) -> Tool[D]: ...
@overload
def tool(function: Callable[..., Any], /) -> Tool[None]: ...
@overload
def tool(
    *,
    effect: Effect = "irreversible",
    name: str | None = None,
    timeout: float | None = None,
    retries: int = 2,
    approval: Approval | None = None,
    reconcile: Callable[..., Any] | None = None,
    cost: Dollars = 0,
    cache_ttl: float | None = None,
    fallback: Fallback | None = None,
    breaker: Breaker | None = _BREAKER,
    concurrency: int | None = None,
    severity: Severity = "low",
    idempotent_by_nature: bool = False,
    repeatable: bool = False,
    polling: bool = False,
    later: bool = False,
    later_seconds: float = 604_800.0,
    available: Available | None = None,
    result_bytes: int | None = None,
    invalidates: Sequence[Tool[Any]] = (),
    undo: Reversal | None = None,
) -> ToolMaker: ...
@spelled
def tool(  # noqa: PLR0913 - a declaration
    function: Callable[..., Any] | None = None,
    /,
    *,
    effect: Effect | None = None,
    name: str | None = None,
    timeout: float | None = None,
    retries: int = 2,
    approval: Approval | None = None,
    reconcile: Callable[..., Any] | None = None,
    cost: Dollars = 0,
    cache_ttl: float | None = None,
    fallback: Fallback | None = None,
    breaker: Breaker | None = _BREAKER,
    concurrency: int | None = None,
    severity: Severity = "low",
    idempotent_by_nature: bool = False,
    repeatable: bool = False,
    polling: bool = False,
    later: bool = False,
    later_seconds: float = 604_800.0,
    available: Available | None = None,
    result_bytes: int | None = None,
    invalidates: Sequence[Tool[Any]] = (),
    undo: Reversal | None = None,
) -> Any:
    """Make a function a tool. Bare `@tool` is irreversible: never repeated, cached or parallel.

    The model sees name, docstring and typed parameters, not a first `run: RunContext[Deps]`.
    Parameters are described in the docstring (Google, numpy, sphinx, `order_id: such as A-17.`).
    effect: "read", "write" (repeatable under `run.key`, passed on) or "irreversible" (one attempt).
    timeout: seconds of one attempt. retries: further attempts after a transient failure.
    approval: who agrees first, "user" or "operator", or a function of run and call that says.
    reconcile: asked after an unknown outcome: ("applied", result), "not_applied" or "unknown".
    cost: dollars of one attempt. cache_ttl: seconds a read's result may be reused.
    fallback: what is tried when it failed for good, in order: other tools, LastGood, Default,
    AskPerson (docs/tools.md). breaker: when it is left alone for a while (None: never).
    concurrency: calls at once in a process; None: a quarter of the threads, if it needs one.
    severity: how bad a wrong call is. idempotent_by_nature: repeating is harmless without a key.
    repeatable: equal calls may succeed more than once. polling: equal calls are no loop.
    later: it only begins something; `rt.deliver(run.key, result)` brings the result, from anywhere,
    within later_seconds.
    available: a function of the run that says, once a turn, whether the tool is there.
    result_bytes: of a result that the model is shown at once (None: Limits(result_bytes=)); it
    reads the rest with `read_more`. invalidates: tools whose kept results this one makes wrong.
    undo: the tool that takes its effect back, or Undo(tool, arguments); `rt.undo` calls it.
    Raises: DeclarationError: says what is wrong and how to mend it.
    """

    make = functools.partial(
        _made, name=name, effect=effect, timeout=timeout, retries=retries, approval=approval,
        reconcile=reconcile, cost_nanos=to_nanos(cost), cache_ttl=cache_ttl,
        fallback=rungs(fallback), breaker=_breaker(breaker, retries), concurrency=concurrency,
        severity=severity, idempotent=idempotent_by_nature, repeatable=repeatable,
        polling=polling, later=later, later_seconds=later_seconds, available=available,
        result_bytes=result_bytes, invalidates=invalidates,
        undo=reversal(undo),
    )  # fmt: skip
    return make if function is None else make(function)


def _made(
    function: Callable[..., Any],
    *,
    name: str | None,
    effect: Effect | None,
    **policies: Any,  # noqa: ANN401
) -> Tool[Any]:
    said: dict[str, Any] = {"effect_assumed": True} if effect is None else {"effect": effect}
    return _checked(Tool(**_signed(function, name), **said, **policies), _NAME)


def _signed(function: Callable[..., Any], name: str | None) -> dict[str, Any]:
    """What a tool takes from its function's signature and docstring."""
    signature = read_signature(function, name)
    return {
        "name": signature.name,
        "description": signature.description,
        "parameters": signature.parameters,
        "function": function,
        "reader": signature.reader,
        "takes_context": signature.takes_context,
    }


def tool_from_schema(  # noqa: PLR0913 - a declaration
    name: str,
    description: str,
    parameters: JsonObject,
    function: Callable[..., Any],
    *,
    effect: Effect,
    timeout: float | None = None,
    retries: int = 2,
    approval: Approval | None = None,
    reconcile: Callable[..., Any] | None = None,
    cost: Dollars = 0,
    fallback: Fallback | None = None,
    breaker: Breaker | None = _BREAKER,
    concurrency: int | None = None,
    severity: Severity = "low",
    idempotent_by_nature: bool = False,
    repeatable: bool = False,
    polling: bool = False,
    undo: Reversal | None = None,
    source: str = "",
) -> Tool[Any]:
    """A tool from a ready JSON schema (recorded registries, other protocols); options as `@tool`.

    `function` is called with the arguments by name, after `run` when its first parameter is
    annotated as a RunContext. Objects that list properties but say nothing of others are closed.
    source: what it calls, where one function serves several; breakers go by it. No secrets.
    Raises: DeclarationError: no valid JSON schema of type object, or one that refers to others.
    """
    schema = _closed(name, parameters)
    reader = SchemaReader(name, schema)
    return _checked(
        Tool(
            name=name,
            description=description,
            parameters=schema,
            function=function,
            reader=reader,
            takes_context=_hinted_context(function),
            effect=effect,
            timeout=timeout,
            retries=retries,
            approval=approval,
            reconcile=reconcile,
            cost_nanos=to_nanos(cost),
            fallback=rungs(fallback),
            breaker=_breaker(breaker, retries),
            concurrency=concurrency,
            severity=severity,
            idempotent=idempotent_by_nature,
            repeatable=repeatable,
            polling=polling,
            undo=reversal(undo),
            source=source,
        ),
        _FOREIGN_NAME,
    )


def _closed(name: str, parameters: JsonObject) -> JsonObject:
    """A schema that says of everything whether it may be there. Raises: DeclarationError."""
    if parameters.get("type", "object") != "object":
        raise DeclarationError(f"Tool {name!r}: its parameters must be a schema of type object.")
    if any(not str(part.get("$ref", "#")).startswith("#") for part in everywhere(dict(parameters))):
        raise DeclarationError(f"Tool {name!r}: $ref outside the schema itself; inline it.")
    SchemaReader(name, parameters)  # what is no schema at all is said before any of it is read
    return closed(parameters)


def _breaker(declared: Breaker | None, retries: int) -> Breaker | None:
    """As declared; else one that no single call opens by its own attempts."""
    own = replace(_BREAKER, failures=max(_BREAKER.failures, max(0, retries) + 2))
    return own if declared is _BREAKER else declared


def _hinted_context(function: Callable[..., Any]) -> bool:
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):  # builtins without a signature
        return False
    return first is not None and "RunContext" in str(first.annotation)


def _checked(made: Tool[Any], names: re.Pattern[str]) -> Tool[Any]:
    """The tool, if its fields make sense together."""
    wrong = (
        _wrong_name(made.name, names)
        or _wrong_number(made)
        or _wrong_approval(made)
        or _wrong_effect(made)
        or _wrong_later(made)
        or _wrong_available(made)
        or wrong_fallback(made)
        or _wrong_result(made)
        or _wrong_invalidates(made)
        or wrong_undo(made)
    )
    if wrong:
        raise DeclarationError(f"Tool {made.name!r}: {wrong}")
    return made


def _wrong_name(name: str, names: re.Pattern[str]) -> str | None:
    if name in RESERVED:
        return "this name belongs to the runtime; choose another with @tool(name=...)."
    if not names.fullmatch(name):
        return "a name is a letter, then up to 63 letters, digits, _ or -; set @tool(name=...)."
    return None


def _wrong_number(made: Tool[Any]) -> str | None:
    if made.timeout is not None and not 0 < made.timeout < float("inf"):
        return "timeout= is in seconds and must be more than 0 (None: the agent's limit)."
    if made.retries < 0:
        return "retries= must not be negative; 0 means one attempt."
    if made.concurrency is not None and made.concurrency < 1:
        return "concurrency= must be at least 1 (None: as many as its threads allow)."
    if made.cost_nanos < 0:
        return "cost= is in dollars and must not be negative."
    return _wrong_span(made)


def _wrong_span(made: Tool[Any]) -> str | None:
    if not 0 < made.later_seconds < float("inf"):
        return "later_seconds= is in seconds and must be more than 0."
    if made.cache_ttl is not None and not made.cache_ttl > 0:
        return "cache_ttl= is in seconds and must be more than 0 (None: not cached)."
    return None


def _wrong_approval(made: Tool[Any]) -> str | None:
    rule: object = made.approval
    if rule is None or rule in get_args(Asks) or callable(rule):
        return None
    return f'approval={rule!r} is neither "user", "operator" nor a function of run and call.'


def _wrong_effect(made: Tool[Any]) -> str | None:
    if made.effect not in get_args(Effect):
        return f'effect={made.effect!r} is none of "read", "write", "irreversible".'
    if made.effect == "read":
        return _wrong_read(made)
    if made.cache_ttl is not None:
        return 'cache_ttl= needs effect="read": the result of an effect is never reused.'
    if made.effect == "write" and not (made.takes_context or made.idempotent):
        return (
            'effect="write" promises that repeating does no harm. Take run: RunContext and pass '
            'run.key on, or say idempotent_by_nature=True, or effect="irreversible".'
        )
    if made.effect == "irreversible" and made.idempotent:
        return 'idempotent_by_nature=True belongs to effect="write"; say so.'
    return None


def _wrong_later(made: Tool[Any]) -> str | None:
    if not made.later:
        return None
    if made.effect == "read":
        return 'later=True begins something elsewhere: say effect="write" or "irreversible".'
    if not made.takes_context:
        return "later=True: take run: RunContext and pass run.key on; the result comes under it."
    return None


def _wrong_available(made: Tool[Any]) -> str | None:
    rule: object = made.available
    if rule is None or (callable(rule) and not inspect.iscoroutinefunction(rule)):
        return None
    return "available= is a plain function of the run that returns True or False."


def _wrong_result(made: Tool[Any]) -> str | None:
    if made.result_bytes is not None and not LEAST_BYTES <= made.result_bytes <= MAX_TEXT:
        return f"result_bytes= is from {LEAST_BYTES} to {MAX_TEXT} (None: the agent's limit)."
    return None


def _wrong_invalidates(made: Tool[Any]) -> str | None:
    stale: object = made.invalidates
    if not isinstance(stale, Sequence) or not all(isinstance(tool, Tool) for tool in stale):
        return "invalidates= is a list of tools, such as [find_order]."
    if stale and made.effect == "read":
        return 'invalidates= is for effects; a tool with effect="read" makes nothing wrong.'
    other = next((tool.name for tool in made.invalidates if tool.effect != "read"), None)
    return None if other is None else f"invalidates= names {other}, whose results are never kept."


def _wrong_read(made: Tool[Any]) -> str | None:
    if made.reconcile is not None:
        return 'reconcile= is for effects; a tool with effect="read" has none to look up.'
    return None
