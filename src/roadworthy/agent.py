"""What users declare: `Agent`, `Tool`, `Toolset`, `Guardrail`. Data, checked when declared.

`roadworthy.tools` and `roadworthy.guardrails` make the latter three from functions.
Invariant: a declaration that could not run safely never comes to exist (DeclarationError).
"""

from __future__ import annotations

import functools
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeAlias, get_args

import msgspec
from msgspec import Struct
from typing_extensions import TypeVar

from roadworthy.context import RunContext
from roadworthy.errors import DeclarationError
from roadworthy.limits import Breaker, Limits, Price
from roadworthy.messages import (
    DeltaSink,
    JsonObject,
    ModelRequest,
    ModelSettings,
    Reply,
    ToolCall,
    ToolSpec,
)
from roadworthy.rules import Rule, Rulebook, Unproven
from roadworthy.ruling import check_fallbacks, check_rules
from roadworthy.spelling import spelled
from roadworthy.standins import AskPerson, Asks, Default, LastGood
from roadworthy.triggers import EscalationRules
from roadworthy.undo import Undo

Deps = TypeVar("Deps", default=None)
Output = TypeVar("Output", default=str)

Effect: TypeAlias = Literal["read", "write", "irreversible"]
Severity: TypeAlias = Literal["low", "medium", "high", "critical"]
OnChange: TypeAlias = Literal["continue", "drain", "ask"]
Reconciled: TypeAlias = "tuple[Literal['applied'], Any] | Literal['not_applied', 'unknown']"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
WARN_TOOLS, SELECT_ABOVE, MOST_TOOLS = 7, 15, 20
_TOOL_POLICIES = (
    "timeout",
    "retries",
    "cost_nanos",
    "cache_ttl",
    "severity",
    "idempotent",
    "repeatable",
    "polling",
    "later",
    "concurrency",
)


class Model(Protocol):
    """One way to ask a model: the adapter over providers, or a scripted one for tests.

    `name` is what is recorded and priced, such as `openai:gpt-5-mini`. `price` overrides the
    price table; None looks the name up there.
    """

    @property
    def name(self) -> str:
        """Recorded and priced under this name."""
        ...

    @property
    def price(self) -> Price | None:
        """Own price, or None to look it up."""
        ...

    async def request(self, request: ModelRequest, on_text: DeltaSink | None = None) -> Reply:
        """One attempt, never retried inside. Streams visible text to `on_text` when given.

        Raises: ModelError: the attempt failed; its class says whether to retry and whether
            it may have been charged.
        """
        ...


class ArgumentReader(Protocol):
    """Validates a call's JSON arguments (made by `roadworthy.tools` from type hints)."""

    def read(self, arguments: JsonObject) -> Mapping[str, Any]:
        """Typed keyword arguments. Raises: ToolError: says which field and the expected form."""
        ...

    def canonical(self, values: Mapping[str, Any]) -> JsonObject:
        """The validated arguments as plain JSON with defaults filled in, for hashes and records."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tool(Generic[Deps]):
    """A function a model may ask for. Made by `@tool`; see there for the fields' meaning."""

    name: str
    description: str
    parameters: JsonObject
    function: Callable[..., Any]
    reader: ArgumentReader
    takes_context: bool = False
    effect: Effect = "irreversible"
    timeout: float | None = None
    retries: int = 2
    approval: Asks | Callable[[RunContext[Deps], ToolCall], Asks | None] | None = None
    reconcile: Callable[..., Any] | None = None
    cost_nanos: int = 0
    cache_ttl: float | None = None
    fallback: Sequence[Rung[Deps]] = ()
    breaker: Breaker | None = field(default_factory=Breaker)
    concurrency: int | None = None
    severity: Severity = "low"
    idempotent: bool = False
    repeatable: bool = False
    polling: bool = False
    later: bool = False
    later_seconds: float = 604_800.0
    available: Callable[[RunContext[Deps]], bool] | None = None
    result_bytes: int | None = None
    effect_assumed: bool = False
    invalidates: Sequence[Tool[Any]] = ()
    undo: Undo[Tool[Any]] | None = None
    source: str = ""  # what it calls, where one function serves many servers; no secrets

    @functools.cached_property
    def identity(self) -> str:
        """What breakers and bulkheads go by: equal in all processes and for all agents."""
        return f"{self.name}:{qualname(self.function)}{self.source and '@'}{self.source}"

    @property
    def alternatives(self) -> list[Tool[Deps]]:
        """The tools that are tried when this one fails."""
        return [rung.tool for rung in self.fallback if isinstance(rung, Alternative)]

    @property
    def spec(self) -> ToolSpec:
        """The tool as a model sees it."""
        return ToolSpec(name=self.name, description=self.description, parameters=self.parameters)

    def declared(self) -> JsonObject:
        """The declaration as data; functions appear by name."""
        rule = self.approval
        when = {} if self.available is None else {"available": qualname(self.available)}
        shown = {} if self.result_bytes is None else {"result_bytes": self.result_bytes}
        stale = [tool.name for tool in self.invalidates]
        return {
            "description": self.description,
            "parameters": self.parameters,
            "effect": self.effect,
            "approval": qualname(rule) if callable(rule) else rule,
            "reconcile": None if self.reconcile is None else qualname(self.reconcile),
            "fallback": [rung.declared() for rung in self.fallback] or None,
            "breaker": None if self.breaker is None else asdict(self.breaker),
            **{name: getattr(self, name) for name in _TOOL_POLICIES},
            **when,
            **shown,
            **({"invalidates": stale} if stale else {}),
            **({} if self.undo is None else {"undo": self.undo.declared()}),
        }

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call the undecorated function, so that it stays usable in user code."""
        return self.function(*args, **kwargs)


class Toolset(ABC, Generic[Deps]):
    """Tools with a lifecycle, listed when it is opened. `@toolset` makes one from a function.

    per: "process" opens it once, with the runtime; "run" gives each run one of its own, opened by
    the first call in a segment. required: whether the runtime refuses to open without it; else
    its agents go on without these tools, and are told. seconds: how long opening may take.
    """

    name: str
    per: Literal["process", "run"] = "process"
    required: bool = False
    seconds: float = 30.0

    @abstractmethod
    def open(self, run: RunContext[None]) -> AbstractAsyncContextManager[Sequence[Tool[Deps]]]:
        """What yields the tools, and is left when they are needed no more.

        One per run yields tools declared as they were when the process listed them, for a run
        without an id and without a user. Entered and left in the same task.
        """
        ...


@dataclass(frozen=True)
class Alternative(Generic[Deps]):
    """A rung of `fallback=`: another tool, with the arguments of the one that failed.

    Parameters of the same name go over as they are. arguments: its parameter -> the failed
    tool's, where names differ. fixed: its parameters that get a constant. without: parameters of
    the failed tool that it can do without. Its own retries, timeout, cost and breaker count; its
    own `fallback` does not.
    """

    tool: Tool[Deps]
    arguments: Mapping[str, str] = field(default_factory=dict)
    fixed: JsonObject = field(default_factory=dict)
    without: Sequence[str] = ()

    def mapped(self, given: JsonObject) -> JsonObject:
        """The failed call's arguments as this tool takes them."""
        renamed = {theirs: given[ours] for theirs, ours in self.arguments.items() if ours in given}
        taken = {*self.arguments.values(), *self.without}
        same = {name: value for name, value in given.items() if name not in taken}
        return {**same, **renamed, **self.fixed}

    def declared(self) -> JsonObject:
        """As data."""
        return {
            "alternative": self.tool.name,
            "effect": self.tool.effect,
            "arguments": dict(self.arguments),
            "fixed": dict(self.fixed),
            "without": list(self.without),
        }


Rung: TypeAlias = Alternative[Deps] | LastGood | Default | AskPerson


class Verdict(Struct, frozen=True):
    """A guardrail's answer. `text` is the replacement (redact) or what to mend (revise, block)."""

    action: Literal["allow", "redact", "revise", "block", "escalate"]
    text: str = ""

    @classmethod
    def allow(cls) -> Verdict:
        """Nothing to object."""
        return cls("allow")

    @classmethod
    def redact(cls, text: str) -> Verdict:
        """Go on with this text instead."""
        return cls("redact", text)

    @classmethod
    def revise(cls, reason: str) -> Verdict:
        """Let the model write it again (output) or the user ask again (input)."""
        return cls("revise", reason)

    @classmethod
    def block(cls, reason: str) -> Verdict:
        """This must not pass."""
        return cls("block", reason)

    @classmethod
    def escalate(cls, reason: str) -> Verdict:
        """A person must see this."""
        return cls("escalate", reason)


@dataclass(frozen=True, kw_only=True)
class Guardrail:
    """A check of what comes in (`input`) or goes out (`output`)."""

    name: str
    stage: Literal["input", "output"]
    function: Callable[[RunContext[Any], str], Verdict | Awaitable[Verdict]]


Instruction: TypeAlias = "str | Callable[[RunContext[Any]], str]"
Control: TypeAlias = Literal["ask_user", "escalate"]


@spelled
@dataclass(frozen=True)
class Agent(Generic[Deps, Output]):
    """A declared agent: data, immutable. `dataclasses.replace` makes variants.

    model: "provider:name", a tier of the runtime, or a Model. instructions: texts and functions
    of the RunContext, joined in order, recorded once a turn; put what varies last. deps: async
    context manager opened per run segment. output: type of the final answer (None: text);
    output_mode "native" uses the provider's structured output, "tool" works everywhere.
    may: control tools the model is offered (`ask_user` needs a conversation). rules: of
    `roadworthy.tools`, such as `requires(refund, find_order)`: held to before any call executes.
    version: of the code behind it, as you count; recorded with the other parts of a declaration.
    on_change: what a run in flight does when its agent is declared otherwise than when it began:
    "continue", "drain" (left to a process that has the old one) or "ask" (a person); None: as the
    runtime says. The policy is written down in docs/versions.md.
    select: show the model the likeliest 7 of its tools, those it has used, and `find_tool` for the
    others. True: above 7 tools, however many; False: never; None: above 15.
    escalation: when a run goes to a person, where there is an inbox (`EscalationRules`).
    Raises: DeclarationError: says what is wrong and how to mend it.
    """

    name: str
    description: str = ""
    model: str | Model = ""
    instructions: Instruction | Sequence[Instruction] = ()
    # a factory: from a plain () pyright infers Agent[Unknown, ...]
    tools: Sequence[Tool[Deps] | Tool[None] | Toolset[Deps] | Toolset[None]] = field(
        default_factory=tuple
    )
    deps: Callable[[RunContext[None]], AbstractAsyncContextManager[Deps]] | None = None
    output: type[Output] | None = None
    output_mode: Literal["tool", "native"] = "tool"
    settings: ModelSettings = field(default_factory=ModelSettings)
    limits: Limits = field(default_factory=Limits)
    guardrails: Sequence[Guardrail] = ()
    may: Sequence[Control] = ("ask_user", "escalate")
    version: str = ""
    on_change: OnChange | None = None
    rules: Sequence[Rule] = ()
    select: bool | None = None
    escalation: EscalationRules = field(default_factory=EscalationRules)

    def __post_init__(self) -> None:
        _check_name("Agent", self.name)
        if not self.model:
            raise DeclarationError(
                f"Agent {self.name!r} has no model. Give model='provider:name', a tier name, or "
                "a ScriptedModel from roadworthy.testing to try it without a key."
            )
        check_on_change(f"Agent {self.name!r}", self.on_change)
        _check_deps(self)
        _check_tools(self)
        _check_rules(self)
        for guard in self.guardrails:
            if not isinstance(guard, Guardrail):
                raise DeclarationError(
                    f"Agent {self.name!r}: {guard!r} is no guardrail; decorate the function with "
                    '@guardrail("input") or @guardrail("output").'
                )

    @functools.cached_property
    def toolbelt(self) -> Mapping[str, Tool[Any]]:
        """The declared tools by name; those of toolsets come when they are opened."""
        return {tool.name: tool for tool in self.tools if isinstance(tool, Tool)}

    @functools.cached_property
    def toolsets(self) -> tuple[Toolset[Any], ...]:
        """What has tools only once it is opened; nothing is left of it in the agent that runs."""
        return tuple(tool for tool in self.tools if isinstance(tool, Toolset))

    @functools.cached_property
    def conditional(self) -> tuple[Tool[Any], ...]:
        """The tools that are not there in every turn."""
        return tuple(tool for tool in self.toolbelt.values() if tool.available is not None)

    @functools.cached_property
    def rulebook(self) -> Rulebook:
        """The rules by tool."""
        return Rulebook(self.rules)

    @functools.cached_property
    def selects(self) -> bool:
        """Whether a turn shows only some of the tools."""
        if self.select is None:
            return len(self.toolbelt) > SELECT_ABOVE
        return self.select and len(self.toolbelt) > WARN_TOOLS

    @property
    def texts(self) -> tuple[Instruction, ...]:
        """The instructions as a sequence."""
        one = isinstance(self.instructions, str) or callable(self.instructions)
        return (self.instructions,) if one else tuple(self.instructions)  # type: ignore[return-value,arg-type]

    def declared(self) -> JsonObject:
        """What a run in flight depends on, as data. Functions and types appear by name."""
        unopened = {"toolsets": [each.name for each in self.toolsets]} if self.toolsets else {}
        ruled = {"rules": [str(rule) for rule in self.rules]} if self.rules else {}
        select = {} if self.select is None else {"select": self.select}
        people = {}
        if self.escalation != EscalationRules():
            people = {"escalation": self.escalation.declared()}
        return {
            "name": self.name,
            "version": self.version,
            "model": self.model if isinstance(self.model, str) else self.model.name,
            "settings": _settings(self.settings),
            "instructions": [t if isinstance(t, str) else qualname(t) for t in self.texts],
            "tools": {tool.name: tool.declared() for tool in self.toolbelt.values()},
            "output": qualname(self.output) if self.output else None,
            "output_mode": self.output_mode,
            "limits": dict(self.limits.declared()),
            "guardrails": [
                f"{guard.stage}:{guard.name}:{qualname(guard.function)}"
                for guard in self.guardrails
            ],
            "may": sorted(self.may),
            **unopened,
            **ruled,
            **select,
            **people,
        }


def qualname(thing: object) -> str:
    """A function or type by its name, without its module: a file that one process runs and another
    imports declares the same."""
    return str(getattr(thing, "__qualname__", thing))


def check_on_change(whose: str, policy: object) -> None:
    """Raises: DeclarationError: no such policy."""
    if policy is not None and policy not in get_args(OnChange):
        raise DeclarationError(
            f'{whose}: on_change={policy!r} is none of "continue", "drain", "ask".'
        )


def _settings(settings: ModelSettings) -> JsonObject:
    """Settings as data; of what is sent as it is, which may be a secret, the names only."""
    plain = msgspec.structs.asdict(settings)
    for name in ("extra_headers", "extra_body"):
        plain[name] = sorted(getattr(settings, name))
    return plain


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise DeclarationError(
            f"{kind} name {name!r}: use a letter, then up to 63 letters, digits, _ or -."
        )


def _check_deps(agent: Agent[Any, Any]) -> None:
    factory: object = agent.deps
    if factory is None:
        return
    how = "write `@asynccontextmanager` above `async def open_deps(run: RunContext[None])`."
    if not callable(factory):
        raise DeclarationError(
            f"Agent {agent.name!r}: deps={factory!r:.60} is no factory; it is opened for each run: "
            + how
        )
    try:
        inspect.signature(factory).bind(None)
    except TypeError as error:
        raise DeclarationError(f"Agent {agent.name!r}: deps must take the run; {how}") from error
    except ValueError:  # a builtin without a signature
        return


def _check_tools(agent: Agent[Any, Any]) -> None:
    seen: set[str] = set()
    declared: Sequence[object] = agent.tools  # unchecked callers may hand in plain functions
    for tool in declared:
        kind = "toolsets" if isinstance(tool, Toolset) else "tools"
        name = _tool_name(agent, tool)
        if (key := f"{kind}:{name}") in seen:
            mend = "@tool(name=...)" if kind == "tools" else "name="
            raise DeclarationError(
                f"Agent {agent.name!r} has two {kind} named {name!r}; rename one with {mend}."
            )
        seen.add(key)
    count = len(agent.toolbelt)
    if agent.select not in (None, True, False):
        raise DeclarationError(f"Agent {agent.name!r}: select={agent.select!r} is no bool.")
    if count > MOST_TOOLS and not agent.select:
        raise DeclarationError(
            f"Agent {agent.name!r} has {count} tools; above {MOST_TOOLS} models pick wrongly. "
            "Split it into specialists, take fewer of a toolset with only=, or say select=True: "
            f"then it is shown the likeliest {WARN_TOOLS} of them and finds the others."
        )


def _check_rules(agent: Agent[Any, Any]) -> None:
    """A rule may name a tool that comes with a toolset; it is looked at again when that is open."""
    if not agent.rules:
        return
    unfinished = agent.toolsets or isinstance(agent.rules, Unproven)
    schemas = {name: tool.parameters for name, tool in agent.toolbelt.items()}
    try:
        check_rules(agent.rules, schemas, complete=not unfinished)
        for tool in agent.toolbelt.values():
            check_fallbacks(agent.rules, tool.name, [other.name for other in tool.alternatives])
    except DeclarationError as error:
        raise DeclarationError(f"Agent {agent.name!r}: {error}") from None


def _tool_name(agent: Agent[Any, Any], tool: object) -> str:
    if isinstance(tool, Tool | Toolset):
        return tool.name
    if isinstance(tool, Agent):
        raise DeclarationError(
            f"Agent {agent.name!r}: agents as tools come with the patterns of a later release. "
            f"Until then call {tool.name!r} by rt.run in a tool of your own."
        )
    raise DeclarationError(
        f"Agent {agent.name!r}: {qualname(tool)} is no tool; put @tool above it."
    )
