"""The whitelist: an agent can call the tools declared here, with arguments that fit, and no others.

Asked by `roadworthy.tool_calls` before anything executes. Invariant: `check` never raises; whatever
it does not recognise is refused with a text the model can act on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal, TypeAlias

from roadworthy.agent import Tool
from roadworthy.errors import DeclarationError, ToolError
from roadworthy.messages import JsonObject, ToolCall, ToolSpec
from roadworthy.tools.arguments import MAX_BYTES, ArgumentsTooLarge, canonical_bytes
from roadworthy.tools.meaning import local_meaning
from roadworthy.tools.schemas import sketch
from roadworthy.tools.selection import Selector

ReasonCode: TypeAlias = Literal["unknown_tool", "malformed", "invalid_arguments", "too_large"]

_LISTED = 20
_NEAR = 0.6
_LONGEST_NAME = 128
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SPACE = re.compile(r"[./:]")
_VERSION = re.compile(r"v?\d+")
_FILLER = frozenset({"tool", "function", "functions", "api", "new", "final", "latest", "fn"})
_log = logging.getLogger("roadworthy")


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A call that may go on to the gates.

    values: typed keyword arguments. canonical: the same as plain JSON, defaults included.
    hash: 32 hex digits over tool name and canonical arguments; equal for equal calls.
    """

    tool: Tool[Any]
    values: Mapping[str, Any]
    canonical: JsonObject
    hash: str


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A call that must not execute. `message` is for the model; `suggestion` a tool's name."""

    reason_code: ReasonCode
    message: str
    suggestion: str | None = None


class Registry:
    """The declared tools of one agent, in declared order.

    Raises: DeclarationError: two tools have the same name.
    """

    def __init__(self, tools: Iterable[Tool[Any]]) -> None:
        self._tools: dict[str, Tool[Any]] = {}
        for tool in tools:
            if tool.name in self._tools:
                raise DeclarationError(
                    f"Two tools are named {tool.name!r}; rename one with @tool(name=...)."
                )
            self._tools[tool.name] = tool
        self._specs = tuple(tool.spec for tool in self._tools.values())
        self._words = {name: (_words(name), _words(_SPACE.split(name)[-1])) for name in self._tools}

    @property
    def names(self) -> tuple[str, ...]:
        """The tools' names, in declared order."""
        return tuple(self._tools)

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools as a model sees them, in declared order: the same bytes every turn."""
        return self._specs

    @functools.cached_property
    def selector(self) -> Selector:
        """Finds tools by words, and by what they mean where the extra `select` is installed."""
        return Selector(self._specs, local_meaning())

    def specs_of(self, names: Iterable[str]) -> tuple[ToolSpec, ...]:
        """Some of them, in the order of `names`; unknown names are left out."""
        return tuple(self._tools[name].spec for name in names if name in self._tools)

    def get(self, name: str) -> Tool[Any] | None:
        """The tool of this name, or None."""
        return self._tools.get(name)

    def check(self, call: ToolCall) -> Accepted | Refused:
        """Whether the call names a declared tool with arguments that fit. Never raises."""
        name = str(call.tool)
        tool = self._tools.get(name)
        if tool is None:
            return self._unknown(name)
        arguments: object = call.arguments
        if call.malformed is not None or not isinstance(arguments, Mapping):
            return _malformed(tool, "null" if call.malformed is None else call.malformed)
        return _read(tool, arguments)

    def nearest(self, name: str) -> str | None:
        """The declared name that `name` was most likely meant to be, or None when none is near."""
        name = name[:_LONGEST_NAME]
        words, whole = _words(name), bool(_SPACE.search(name))
        scored = [
            (max(_likeness(words, theirs), 0.0 if whole else 0.95 * _likeness(words, tail)), known)
            for known, (theirs, tail) in self._words.items()
        ]
        (best, known), (second, _) = [*sorted(scored, reverse=True), (0.0, ""), (0.0, "")][:2]
        ambiguous = best < 1 and best == second
        return known if best >= _NEAR and not ambiguous else None

    def _unknown(self, name: str) -> Refused:
        near = self.nearest(name)
        hint = f" Did you mean {near}?" if near else ""
        listed = ", ".join(self.names[:_LISTED]) or "none"
        more = len(self._tools) - _LISTED
        tail = f" and {more} more" if more > 0 else ""
        shown = json.dumps(name[:60])
        return Refused(
            reason_code="unknown_tool",
            message=f"There is no tool {shown}.{hint} Your tools: {listed}{tail}.",
            suggestion=near,
        )


def _read(tool: Tool[Any], arguments: JsonObject) -> Accepted | Refused:
    try:
        values = tool.reader.read(arguments)
        canonical = _canonical(tool, values, arguments)
        digest = argument_hash(tool.name, canonical)
    except ArgumentsTooLarge as error:
        return Refused(reason_code="too_large", message=str(error))
    except ToolError as error:
        return Refused(reason_code="invalid_arguments", message=str(error))
    except Exception as error:  # noqa: BLE001 - border: validators are user code, a call never crashes a run
        _log.warning("A validator of tool %s failed.", tool.name, exc_info=True)
        why = f"could not be checked ({type(error).__name__})"
        return Refused(
            reason_code="invalid_arguments",
            message=f"{tool.name}: these arguments {why}. Expected: {sketch(tool.parameters)}",
        )
    return Accepted(tool=tool, values=values, canonical=canonical, hash=digest)


def argument_hash(tool: str, canonical: JsonObject) -> str:
    """32 hex digits that are equal for equal calls: SHA-256 of the name and the canonical JSON."""
    return hashlib.sha256(tool.encode() + b"\0" + canonical_bytes(canonical)).hexdigest()[:32]


def _canonical(tool: Tool[Any], values: Mapping[str, Any], arguments: JsonObject) -> JsonObject:
    try:
        return tool.reader.canonical(values)
    except ToolError:  # a user's type without a JSON form: what the model wrote stands for it
        return dict(arguments)


def _malformed(tool: Tool[Any], raw: str) -> Refused:
    if len(raw) > MAX_BYTES:
        return Refused(
            reason_code="too_large",
            message=f"{tool.name}: the arguments pass {MAX_BYTES // 1024} KB. Send less.",
        )
    try:
        json.loads(raw)
        why = "are no JSON object"
    except json.JSONDecodeError as error:
        early = error.pos >= len(raw.rstrip()) or "Unterminated" in error.msg
        why = (
            f"are no valid JSON ({'cut off, ' if early else ''}{error.msg}, character {error.pos})"
        )
    except (ValueError, RecursionError):
        why = "are no valid JSON"
    mend = f"Write one JSON object: {sketch(tool.parameters)}"
    return Refused(reason_code="malformed", message=f"{tool.name}: the arguments {why}. {mend}")


def _words(name: str) -> tuple[str, ...]:
    """`getOrder_v2` -> ("get", "order"): what is left of a name without case, joints, version."""
    words = [word.lower() for word in _WORD.findall(name)]
    while len(words) > 1 and (_VERSION.fullmatch(words[-1]) or words[-1] == "v"):
        words.pop()
    return tuple(words)


def _likeness(left: tuple[str, ...], right: tuple[str, ...]) -> float:
    """0 to 1: the better of the same letters in order and the same words in any order."""
    if left == right:
        return 1.0
    letters = SequenceMatcher(None, "".join(left), "".join(right)).ratio()
    ours, theirs = set(left) - _FILLER, set(right) - _FILLER
    shared = 2 * len(ours & theirs) / (len(ours) + len(theirs)) if ours and theirs else 0.0
    return max(letters, shared * 0.95)
