"""What a model will trip over in tool definitions: `roadworthy check` prints it.

Pure functions of declared tools. Invariant: a finding names its tool, says what is wrong and how to
mend it; an error is what makes a wrong or a double call likely, the rest are warnings.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from roadworthy.agent import MOST_TOOLS, SELECT_ABOVE, WARN_TOOLS, Tool
from roadworthy.tools.words import words

_ALIKE, _SAME_SHAPE = 0.6, 0.35
_SHORT = 2
_TYPED = ("type", "$ref", "enum", "const", "anyOf", "oneOf", "allOf")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """code: stable, for machines. tools: those it is about, none where it is about all."""

    level: Literal["error", "warning"]
    code: str
    tools: tuple[str, ...]
    what: str
    mend: str


def lint(tools: Sequence[Tool[Any]]) -> list[Finding]:
    """Errors first, each group in the order the tools are declared."""
    found = [*_of_all(tools)]
    for tool in tools:
        found += [*_description(tool), *_parameters(tool), *_effect(tool)]
    seen = {tool.name: frozenset(words(tool.description)) for tool in tools}
    for one, other in itertools.combinations(tools, 2):
        found += _pair(one, other, seen)
    return sorted(found, key=lambda finding: finding.level != "error")


# --- one tool -------------------------------------------------------------------------------


def _description(tool: Tool[Any]) -> Iterator[Finding]:
    said = tool.description.strip()
    if not said:
        what = "it has no description: the model can only guess by its name."
        yield _error("no_description", tool, what, "Say in a sentence what it does and when.")
    elif len(set(words(said)) - set(words(tool.name))) < _SHORT:
        what = f"its description {said[:60]!r} says little more than its name."
        mend = "Say what it returns, and when to use it rather than another."
        yield _warning("thin_description", tool, what, mend)


def _parameters(tool: Tool[Any]) -> Iterator[Finding]:
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    silent = [name for name, part in properties.items() if not _described(part)]
    untyped = [name for name, part in properties.items() if not _has_type(part)]
    if untyped:
        mend = 'Give each a "type" in the schema.'
        yield _error("untyped_parameter", tool, f"no type: {_listed(untyped)}.", mend)
    if silent:
        mend = f"Add a line to its docstring, such as `{silent[0]}: what it is, such as ...`."
        yield _warning("undescribed_parameter", tool, f"no description: {_listed(silent)}.", mend)


def _described(part: object) -> bool:
    """A description, or a few named choices, which describe themselves."""
    if not isinstance(part, Mapping):
        return False
    return bool(str(part.get("description", "")).strip()) or "enum" in part or "const" in part


def _has_type(part: object) -> bool:
    return isinstance(part, Mapping) and any(word in part for word in _TYPED)


def _effect(tool: Tool[Any]) -> Iterator[Finding]:
    if tool.effect_assumed:
        what = "its effect is not declared, so it counts as irreversible: one attempt, runs alone."
        mend = 'Say effect="read", "write" or "irreversible".'
        yield _warning("undeclared_effect", tool, what, mend)
    if tool.effect != "write" or tool.idempotent:
        return
    if not tool.takes_context or _key_is_read(tool.function) is False:
        what = "it is a write that is repeated under run.key, and never reads run.key."
        mend = (
            "Pass run.key on as the idempotency key, or say idempotent_by_nature=True where "
            'repeating does no harm, else effect="irreversible".'
        )
        yield _error("key_unused", tool, what, mend)


def _key_is_read(function: Callable[..., Any]) -> bool | None:
    """Whether the function reads its run's key. None: its source is not at hand, or it hands the
    run on, so that others may."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        name = next(iter(inspect.signature(function).parameters))
    except (OSError, TypeError, ValueError, SyntaxError, StopIteration):
        return None
    reads = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == name
    ]
    uses = sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree))
    if "key" in reads:
        return True
    return None if uses > len(reads) else False


# --- pairs and all ---------------------------------------------------------------------------


def _pair(
    one: Tool[Any], other: Tool[Any], seen: Mapping[str, frozenset[str]]
) -> Iterator[Finding]:
    pair, both = (one.name, other.name), f"{one.name} and {other.name}"
    if _one_letter_apart(one.name, other.name):
        yield Finding(
            level="warning",
            code="similar_names",
            tools=pair,
            what=f"{both}: their names differ by one letter, which models mix up.",
            mend="Rename one after what only it does: @tool(name=...).",
        )
    left, right = seen[one.name], seen[other.name]
    if not left or not right:
        return
    share = len(left & right) / len(left | right)
    mend = "Say in each when to use it rather than the other, or make them one tool."
    if share == 1:
        what = f"{both}: their descriptions say the same."
        yield Finding(level="error", code="same_description", tools=pair, what=what, mend=mend)
    elif share >= _ALIKE or (share >= _SAME_SHAPE and _same_shape(one, other)):
        alike = f"{both}: {share:.0%} of the words of their descriptions are the same"
        shape = ", and they take the same arguments" if _same_shape(one, other) else ""
        what = f"{alike}{shape}."
        yield Finding(level="warning", code="look_alike", tools=pair, what=what, mend=mend)


def _same_shape(one: Tool[Any], other: Tool[Any]) -> bool:
    ours, theirs = (set(tool.parameters.get("properties", ())) for tool in (one, other))
    return bool(ours) and ours == theirs


def _one_letter_apart(one: str, other: str) -> bool:
    one, other = sorted((one.lower(), other.lower()), key=len)
    if len(other) - len(one) > 1:
        return False
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    rest = same + 1 if len(one) == len(other) else same
    return one[rest:] == other[same + 1 :]


def _of_all(tools: Sequence[Tool[Any]]) -> Iterator[Finding]:
    count = len(tools)
    if count <= WARN_TOOLS:
        return
    mend = f"Split the agent, or take fewer: up to {WARN_TOOLS} are chosen from best."
    what = f"{count} tools are many to choose from."
    if count > SELECT_ABOVE:
        what = f"{count} tools: a selector shows the model some {WARN_TOOLS} of them a turn."
        mend = f"Check that their descriptions tell them apart. Above {MOST_TOOLS}: select=True."
    yield Finding(level="warning", code="many_tools", tools=(), what=what, mend=mend)


def _error(code: str, tool: Tool[Any], what: str, mend: str) -> Finding:
    return Finding(
        level="error", code=code, tools=(tool.name,), what=f"{tool.name}: {what}", mend=mend
    )


def _warning(code: str, tool: Tool[Any], what: str, mend: str) -> Finding:
    return Finding(
        level="warning", code=code, tools=(tool.name,), what=f"{tool.name}: {what}", mend=mend
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
