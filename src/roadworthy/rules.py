"""Rules outside the model: what must come before a call, how often, how much, with whose word.

`Agent(rules=...)` takes them and `tool_calls` holds to them before anything executes. Invariant:
plain data; what it says of a call depends on the call and on recorded results alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, Protocol, TypeAlias, get_args

from roadworthy.context import RunContext
from roadworthy.errors import DeclarationError
from roadworthy.messages import JsonObject, ToolCall

Amount: TypeAlias = "int | float | str | Decimal"
WhoAsks: TypeAlias = Literal["user", "operator"]
Per: TypeAlias = Literal["run", "conversation"]


class Named(Protocol):
    """A tool, as far as a rule looks at it."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...


@dataclass(frozen=True)
class Over:
    """A condition: a number among the arguments is above `amount`, or cannot be read."""

    argument: str
    amount: Decimal

    def __str__(self) -> str:
        return f"over({self.argument}, {self.amount:f})"

    def holds(self, arguments: JsonObject) -> bool:
        """Whether it holds. What is not said is not known to be small."""
        numbers = [number(value) for value in _values(arguments, self.argument)]
        return not numbers or any(found is None or found > self.amount for found in numbers)


Decides: TypeAlias = Callable[[RunContext[Any], ToolCall], bool]
Condition: TypeAlias = "Over | Decides"


@dataclass(frozen=True)
class Rule:
    """One rule on one tool. Made by the functions below; its text is how it was declared."""

    tool: str


@dataclass(frozen=True)
class Requires(Rule):
    """`tool` runs only after each of `before` has succeeded in this run."""

    before: tuple[str, ...]

    def __str__(self) -> str:
        return f"requires({', '.join((self.tool, *self.before))})"


@dataclass(frozen=True)
class AtMost(Rule):
    """`tool` takes place at most so many times in a run, or in all runs of a conversation."""

    times: int
    per: Per = "run"

    def __str__(self) -> str:
        per = "" if self.per == "run" else f", per={self.per}"
        return f"at_most({self.tool}, {self.times}{per})"


@dataclass(frozen=True)
class OnlyAfterApproval(Rule):
    """`asks` agrees before `tool` runs; with `when`, only where that holds."""

    when: Condition | None
    asks: WhoAsks

    def __str__(self) -> str:
        condition = getattr(self.when, "__qualname__", self.when)
        when = "" if self.when is None else f", when={condition}"
        return f"only_after_approval({self.tool}{when}{_by(self.asks)})"


@dataclass(frozen=True)
class Bound:
    """A number among a tool's arguments lies from `least` to `most`; None: no bound there."""

    argument: str
    least: Decimal | None
    most: Decimal | None

    def __str__(self) -> str:
        return f"{self.argument}=({_shown(self.least)}, {_shown(self.most)})"

    def objection(self, arguments: JsonObject) -> str | None:
        """What the argument must be, unless it is that, or is not given."""
        for value in _values(arguments, self.argument):
            found = number(value)
            if found is None:
                return f"{self.argument} must be a plain number"
            if self.least is not None and found < self.least:
                return f"{self.argument} must be at least {self.least:f}"
            if self.most is not None and found > self.most:
                return f"{self.argument} must be at most {self.most:f}"
        return None


@dataclass(frozen=True)
class Bounds(Rule):
    """Numbers among the arguments of `tool` stay within bounds."""

    bounds: tuple[Bound, ...]

    def __str__(self) -> str:
        return f"bounds({', '.join((self.tool, *map(str, self.bounds)))})"


@dataclass(frozen=True)
class ApproveWhen(Rule):
    """What an operator would be asked about `tool` is agreed to while all of these are given and
    within their bounds."""

    within: tuple[Bound, ...]

    def __str__(self) -> str:
        return f"approve_when({', '.join((self.tool, *map(str, self.within)))})"

    def holds(self, arguments: JsonObject) -> bool:
        """Whether it agrees. What is not said, or is no number, is not known to be small."""
        return all(
            any(True for _ in _values(arguments, each.argument))
            and each.objection(arguments) is None
            for each in self.within
        )


class Unproven(tuple[Rule, ...]):
    """The rules of an agent some of whose tools cannot be reached now: they may name those."""

    __slots__ = ()


# --- declaring ------------------------------------------------------------------------------


def requires(tool: Named | str, /, *before: Named | str) -> Requires:
    """`tool` is carried out only after each of `before` has succeeded in the same run, in an
    earlier reply: the model has seen the results. Raises: DeclarationError."""
    rule = Requires(_name("requires", tool), tuple(_name("requires", each) for each in before))
    if not before:
        raise DeclarationError(f"{rule}: say what must come first, as requires(refund, find_order)")
    return rule


def at_most(tool: Named | str, times: int, /, *, per: Per = "run") -> AtMost:
    """`tool` takes place at most `times` times in a run, or in all runs of its conversation, of
    whichever agent. Whatever may have happened counts: all but calls that were refused, repeated
    from the record, or surely had no effect.

    Raises: DeclarationError: less than 1, or per something else.
    """
    name = _name("at_most", tool)
    if type(times) is not int or times < 1:
        raise DeclarationError(
            f"at_most({name}, {times!r}): use a whole number from 1; to forbid a tool, leave it "
            "out of tools=."
        )
    if per not in get_args(Per):
        raise DeclarationError(
            f'at_most({name}): per={per!r:.40} is neither "run" nor "conversation".'
        )
    return AtMost(name, times, per)


def only_after_approval(
    tool: Named | str, /, *, when: Condition | None = None, asks: WhoAsks = "operator"
) -> OnlyAfterApproval:
    """A person agrees before `tool` runs: always, or when a condition holds.

    when: `over("usd", 50)`, or a function of run and call, asked once and recorded; one that
    fails, or says no bool, means yes. asks: who. What the tool itself declares holds beside it;
    where both ask, the operator decides. Raises: DeclarationError.
    """
    name = _name("only_after_approval", tool)
    if not _is_condition(when):
        raise DeclarationError(
            f"only_after_approval({name}): when={when!r:.60} is neither over(argument, amount) nor "
            "a plain function of run and call."
        )
    if asks not in get_args(WhoAsks):
        raise DeclarationError(
            f'only_after_approval({name}): asks={asks!r} is neither "user" nor "operator".'
        )
    return OnlyAfterApproval(name, when, asks)


def over(argument: str, amount: Amount) -> Over:
    """Whether an argument is above an amount, as a condition; "order.total" looks inside. Where
    the argument is not given, or is no number, it holds too. Raises: DeclarationError."""
    return Over(argument, _amount(f"over({argument!r}, {amount!r})", amount))


def bounds(tool: Named | str, /, **arguments: tuple[Amount | None, Amount | None]) -> Bounds:
    """Numbers among the arguments of `tool` lie within bounds, both included: `usd=(None, 200)`.

    Keywords are the tool's own arguments; `**{"order.total": (0, 200)}` looks inside one, and at
    every item of a list. An argument that is not given is not looked at.
    Raises: DeclarationError: no bound, or the lower is above the upper.
    """
    name = _name("bounds", tool)
    return Bounds(name, tuple(_bound(name, *each) for each in arguments.items()) or _no_bound(name))


def approve_when(
    tool: Named | str, /, **arguments: tuple[Amount | None, Amount | None]
) -> ApproveWhen:
    """Agree to a call of `tool` instead of asking an operator, while all these numbers among its
    arguments are given and within bounds: `approve_when(refund, euros=(0, 20))`. It is recorded as
    decided by this rule. What the user has to confirm, bounds, and calls of which nobody knows
    whether they happened, are left as they are. Raises: DeclarationError: as `bounds`.
    """
    name = _name("approve_when", tool)
    return ApproveWhen(
        name, tuple(_bound(name, *each) for each in arguments.items()) or _no_bound(name)
    )


def _no_bound(name: str) -> tuple[Bound, ...]:
    raise DeclarationError(f"bounds({name}): say which, as bounds({name}, usd=(None, 200)).")


def _bound(tool: str, argument: str, given: object) -> Bound:
    where = f"bounds({tool}, {argument}={given!r:.60})"
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise DeclarationError(f"{where}: give (least, most), None where there is none.")
    low, high = (None if side is None else _amount(where, side) for side in given)
    if low is None and high is None:
        raise DeclarationError(f"{where} bounds nothing; give one side, as (None, 200).")
    if low is not None and high is not None and low > high:
        raise DeclarationError(f"{where} contradicts itself: nothing is both; give (least, most).")
    return Bound(argument, low, high)


def _amount(where: str, given: object) -> Decimal:
    found = number(given)
    if found is None:
        raise DeclarationError(f"{where}: {given!r:.40} is no finite number.")
    return found


def _name(rule: str, tool: object) -> str:
    name = tool if isinstance(tool, str) else getattr(tool, "name", None)
    if not isinstance(name, str) or not name:
        raise DeclarationError(f"{rule}(): {tool!r:.60} is no tool; give a tool or its name.")
    return name


def _is_condition(given: object) -> bool:
    if given is None or isinstance(given, Over):
        return True
    return callable(given) and not inspect.iscoroutinefunction(given)


def _shown(bound: Decimal | None) -> str:
    return "None" if bound is None else f"{bound:f}"


def _by(asks: WhoAsks) -> str:
    return "" if asks == "operator" else f", asks={asks}"


# --- judging --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A rule that a call would break. text: for the model, in one line. code: which kind."""

    code: Literal["requires", "at_most", "bounds"]
    text: str


class Rulebook:
    """An agent's rules, by tool."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._of: dict[str, list[Rule]] = {}
        for rule in rules:
            self._of.setdefault(rule.tool, []).append(rule)

    def governs(self, tool: str) -> bool:
        """Whether there is any rule on this tool."""
        return tool in self._of

    def needed(self, tool: str) -> tuple[str, ...]:
        """The tools that must have succeeded before it."""
        found = (rule.before for rule in self._of.get(tool, ()) if isinstance(rule, Requires))
        return tuple(name for before in found for name in before)

    def approvals(self, tool: str) -> tuple[OnlyAfterApproval, ...]:
        """The rules by which a person may have to agree."""
        rules = self._of.get(tool, ())
        return tuple(rule for rule in rules if isinstance(rule, OnlyAfterApproval))

    def agrees(self, tool: str, arguments: JsonObject) -> ApproveWhen | None:
        """The rule that agrees to this call in an operator's stead. arguments: plain, in clear."""
        rules = (rule for rule in self._of.get(tool, ()) if isinstance(rule, ApproveWhen))
        return next((rule for rule in rules if rule.holds(arguments)), None)

    def out_of_order(self, tool: str, succeeded: AbstractSet[str]) -> Broken | None:
        """What must come first. succeeded: the tools that have, in earlier replies."""
        for rule in self._of.get(tool, ()):
            if not isinstance(rule, Requires):
                continue
            missing = [name for name in rule.before if name not in succeeded]
            if missing:
                text = (
                    f"{tool} was not carried out. Rule {rule}: call {' and '.join(missing)} first "
                    "and wait for the result."
                )
                return Broken(code="requires", text=text)
        return None

    def looks_back(self, tool: str) -> bool:
        """Whether earlier runs of the conversation count for this tool."""
        rules = self._of.get(tool, ())
        return any(isinstance(rule, AtMost) and rule.per == "conversation" for rule in rules)

    def too_often(self, tool: str, times: int, earlier: int = 0) -> Broken | None:
        """Whether once more is too often. times: how often it may have taken place in this run;
        earlier: in those before it."""
        for rule in self._of.get(tool, ()):
            if not isinstance(rule, AtMost):
                continue
            whole = rule.per == "conversation"
            if times + (earlier if whole else 0) >= rule.times:
                text = (
                    f"{tool} was not carried out. Rule {rule}: no further call of it is allowed "
                    f"in this {'conversation' if whole else 'request'}. Go on without, or tell the "
                    "user."
                )
                return Broken(code="at_most", text=text)
        return None

    def out_of_bounds(self, tool: str, arguments: JsonObject) -> Broken | None:
        """Which argument passes its bounds. arguments: plain JSON, in clear."""
        for rule in self._of.get(tool, ()):
            if not isinstance(rule, Bounds):
                continue
            for bound in rule.bounds:
                said = bound.objection(arguments)
                if said is not None:
                    text = f"{tool} was not carried out. Rule {rule}: {said}."
                    return Broken(code="bounds", text=text)
        return None


def number(value: object) -> Decimal | None:
    """A finite number, also when it is written as text; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        found = Decimal(repr(value) if isinstance(value, float) else value)
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def _values(arguments: JsonObject, path: str) -> Iterator[object]:
    """What lies at the path, of every item where it leads through lists; nothing is left out but
    what is not given."""
    found: list[object] = [arguments]
    for step in path.split("."):
        inner = (each for each in _items(found) if isinstance(each, Mapping))
        found = [each.get(step) for each in inner]
    return (each for each in _items(found) if each is not None)


def _items(values: Sequence[object]) -> Iterator[object]:
    stack = [*reversed(values)]
    while stack:
        value = stack.pop()
        if isinstance(value, list | tuple):
            stack.extend(reversed(value))
        else:
            yield value
