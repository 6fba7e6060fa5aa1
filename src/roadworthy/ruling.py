"""Rules against the tools they speak of, when an agent is declared.

`Agent` calls `check_rules`. Invariant: rules that pass name tools and arguments that exist, and
leave every tool a way to be called.
"""

from __future__ import annotations

import difflib
import graphlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from roadworthy.errors import DeclarationError
from roadworthy.messages import JsonObject
from roadworthy.rules import ApproveWhen, AtMost, Bounds, OnlyAfterApproval, Over, Requires, Rule

_NUMBERS = frozenset({"integer", "number", "string"})
_TOGETHER = ("anyOf", "oneOf", "allOf")


def check_rules(
    rules: Sequence[Rule], tools: Mapping[str, JsonObject], *, complete: bool = True
) -> None:
    """tools: their parameters' schemas, by name. complete: there are no others to come.

    Raises: DeclarationError: an unknown tool or argument, the same said twice, or a circle.
    """
    said: dict[tuple[str, str], Rule] = {}
    for rule in rules:
        given: object = rule
        if not isinstance(given, Rule):
            raise DeclarationError(
                f"{given!r:.60} is no rule; make one with requires, at_most, bounds, "
                "only_after_approval or approve_when of roadworthy.tools."
            )
        for name in _tools(rule):
            if name not in tools and complete:
                raise DeclarationError(f"{rule}: there is no tool {name!r}. {_near(name, tools)}")
        _check_twice(rule, said)
        if rule.tool in tools:
            _check_arguments(rule, tools[rule.tool])
    _check_circle([rule for rule in rules if isinstance(rule, Requires)])


def check_fallbacks(rules: Sequence[Rule], tool: str, others: Sequence[str]) -> None:
    """others: the tools that stand in for `tool` when it fails.

    Raises: DeclarationError: a rule would not hold for what one of them does instead.
    """
    if others and any(isinstance(rule, OnlyAfterApproval) and rule.tool == tool for rule in rules):
        raise DeclarationError(
            f"{tool!r} needs an approval by rule, and another tool as fallback= would run on it: "
            "a person agrees to one call, not to another way of it. Leave one of the two out."
        )
    for other in others:
        if any(rule.tool == other for rule in rules):
            raise DeclarationError(
                f"{other!r} has rules, and stands in for {tool!r} when that fails, past them. Use "
                "another fallback, or another tool for that."
            )


def _tools(rule: Rule) -> tuple[str, ...]:
    return (rule.tool, *rule.before) if isinstance(rule, Requires) else (rule.tool,)


def _near(name: str, known: Iterable[str]) -> str:
    names = [*known]
    near = difflib.get_close_matches(name, names, 1)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"There are: {', '.join(names)}." if names else "There are none."


def _check_twice(rule: Rule, said: dict[tuple[str, str], Rule]) -> None:
    """Two bounds on one thing contradict, or one of them says nothing."""
    if isinstance(rule, AtMost):
        keys = [f"per {rule.per}"]
    elif isinstance(rule, Bounds):
        keys = [bound.argument for bound in rule.bounds]
    else:
        return
    for key in keys:
        before = said.setdefault((rule.tool, key), rule)
        if before is not rule:
            raise DeclarationError(f"{before} and {rule} bound the same; keep one of them.")


def _check_circle(rules: Sequence[Requires]) -> None:
    before: dict[str, set[str]] = {}
    for rule in rules:
        before.setdefault(rule.tool, set()).update(rule.before)
    try:
        graphlib.TopologicalSorter(before).prepare()
    except graphlib.CycleError as error:
        circle = " before ".join(error.args[1])
        raise DeclarationError(
            f"requires() goes in a circle, so that none could ever run: {circle}. Drop one of them."
        ) from None


def _check_arguments(rule: Rule, schema: JsonObject) -> None:
    paths: list[str] = []
    if isinstance(rule, Bounds):
        paths = [bound.argument for bound in rule.bounds]
    elif isinstance(rule, ApproveWhen):
        paths = [bound.argument for bound in rule.within]
    elif isinstance(rule, OnlyAfterApproval) and isinstance(rule.when, Over):
        paths = [rule.when.argument]
    for path in paths:
        _check_argument(rule, schema, path)


def _check_argument(rule: Rule, schema: JsonObject, path: str) -> None:
    found: list[JsonObject] = [schema]
    for step in path.split("."):
        inner: list[JsonObject] = []
        known: list[str] = []
        for each in _options(schema, found):
            properties = each.get("properties") or {}
            known += properties
            if step in properties:
                inner.append(properties[step])
            elif not properties and _open(each):  # an object of which nothing is said
                inner.append({})
        if not inner:
            raise DeclarationError(
                f"{rule}: {rule.tool} has no argument {path!r}. {_near(step, known)}"
            )
        found = inner
    kinds = {kind for each in _options(schema, found) for kind in _kinds(each)}
    if kinds and not kinds & _NUMBERS:
        raise DeclarationError(
            f"{rule}: {path!r} of {rule.tool} is no number ({', '.join(sorted(kinds))})."
        )


def _open(schema: JsonObject) -> bool:
    kind = schema.get("type", "object")
    return "object" in kind and schema.get("additionalProperties") is not False


def _kinds(schema: JsonObject) -> tuple[str, ...]:
    kind = schema.get("type", ())
    return (kind,) if isinstance(kind, str) else tuple(kind)


def _options(root: JsonObject, schemas: Sequence[JsonObject]) -> Iterator[JsonObject]:
    """The schemas themselves: what references point at, every alternative, the items of lists."""
    stack: list[Any] = [*schemas]
    met: set[int] = set()
    while stack:
        each = stack.pop()
        if not isinstance(each, Mapping) or id(each) in met:
            continue
        met.add(id(each))
        inner = [option for name in _TOGETHER for option in each.get(name, ())]
        inner += [each["items"]] if "items" in each else []
        inner += [_lookup(root, each["$ref"])] if "$ref" in each else []
        if "properties" in each or not inner:
            yield each
        stack.extend(inner)


def _lookup(root: JsonObject, ref: object) -> object:
    current: Any = root
    for step in str(ref).removeprefix("#").strip("/").split("/"):
        if step:
            current = current.get(step) if isinstance(current, Mapping) else None
    return current
