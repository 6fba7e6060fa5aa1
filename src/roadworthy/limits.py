"""Money, limits and usage: what bounds a run and what it measured.

Read by declarations, the ledger and results. Invariant: money is integer nano-dollars inside,
`Decimal` dollars at the rim, never a float.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Literal, TypeAlias

from msgspec import Struct, field

from roadworthy.errors import DeclarationError
from roadworthy.spelling import spelled

NANO = 1_000_000_000
LEAST_BYTES = 500
"""Of a result that is shown: below, more is said about what is left out than of it."""

Phase: TypeAlias = Literal[
    "route", "plan", "execute", "replan", "recover", "guard", "remember", "finish"
]
Scope: TypeAlias = Literal["run", "conversation", "user", "agent", "tenant", "global"]
Window: TypeAlias = Literal["request", "hour", "day", "month", "total"]
Dollars: TypeAlias = Decimal | int | float | str


def to_nanos(dollars: Dollars) -> int:
    """Dollars to nano-dollars, rounded up so that a bound is never too low.

    A float is read as it prints (`0.1` is ten cents). Raises: DeclarationError: no finite amount.
    """
    try:
        amount = Decimal(str(dollars)) * NANO
        return int(amount.to_integral_value(rounding=ROUND_CEILING))
    except (ArithmeticError, ValueError) as error:
        raise DeclarationError(f"{dollars!r} is no amount of dollars, write e.g. 0.20.") from error


def to_dollars(nanos: int) -> Decimal:
    """Nano-dollars to exact dollars."""
    return (Decimal(nanos) / NANO).normalize() if nanos else Decimal(0)


@spelled
@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of ONE run; on by default, checked before the work that would pass them.

    turns: model turns. tool_calls: executed calls. repeats: the loop guard stops at this repeat.
    seconds: active wall time; waiting for people does not count. tool_seconds: one tool attempt,
    unless the tool declares its own. usd, tokens: cost; None means unbounded. plan_steps: calls
    one reply may ask for. result_bytes: of one tool result that the model is shown at once, unless
    the tool declares its own; it reads the rest page by page.
    """

    turns: int = 25
    tool_calls: int = 50
    repeats: int = 3
    seconds: float = 600.0
    tool_seconds: float = 30.0
    plan_steps: int = 20
    result_bytes: int = 16_384
    usd: Dollars | None = Decimal("1.00")
    tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("turns", "tool_calls", "repeats", "plan_steps"):
            if getattr(self, name) < 1:
                raise DeclarationError(f"Limits({name}=) must be at least 1.")
        if self.repeats < 2:
            raise DeclarationError("Limits(repeats=) below 2 would refuse every call.")
        if self.seconds <= 0 or self.tool_seconds <= 0:
            raise DeclarationError("Limits(seconds=, tool_seconds=) must be more than 0.")
        if self.result_bytes < LEAST_BYTES:
            raise DeclarationError(f"Limits(result_bytes=) must be at least {LEAST_BYTES}.")
        if self.usd is not None and to_nanos(self.usd) < 0:
            raise DeclarationError("Limits(usd=) must not be negative.")
        if self.tokens is not None and self.tokens < 1:
            raise DeclarationError("Limits(tokens=) must be at least 1, or None for no bound.")

    @functools.cached_property
    def nanos(self) -> int | None:
        """The money bound in nano-dollars."""
        return None if self.usd is None else to_nanos(self.usd)

    def declared(self) -> Mapping[str, int | float | str | None]:
        """As plain data for the journal."""
        return asdict(self) | {"usd": None if self.usd is None else str(self.usd)}


@spelled
@dataclass(frozen=True)
class Budget:
    """A hard bound over MANY runs: `Budget("user", "day", usd=2)` binds each user each day.

    Windows are fixed UTC buckets, so "hour" permits up to twice the amount around a bucket edge.
    `of` binds one subject only (a tenant's name, say); without it every subject has its own.
    """

    scope: Scope
    window: Window
    usd: Dollars | None = None
    tokens: int | None = None
    of: str | None = None

    def __post_init__(self) -> None:
        if self.usd is None and self.tokens is None:
            raise DeclarationError(f"Budget({self.scope!r}): give usd= or tokens=.")
        if self.usd is not None and to_nanos(self.usd) < 0:
            raise DeclarationError("Budget(usd=) must not be negative.")
        if self.tokens is not None and self.tokens < 0:
            raise DeclarationError("Budget(tokens=) must not be negative.")

    @functools.cached_property
    def nanos(self) -> int | None:
        """The money bound in nano-dollars."""
        return None if self.usd is None else to_nanos(self.usd)


@spelled
@dataclass(frozen=True, kw_only=True)
class Price:
    """Dollars per MILLION tokens. cache_read and cache_write default to the input price.

    long_input, long_output apply to the whole call when its input passes `long_from` tokens.
    """

    input: Dollars
    output: Dollars
    cache_read: Dollars | None = None
    cache_write: Dollars | None = None
    long_from: int | None = None
    long_input: Dollars | None = None
    long_output: Dollars | None = None

    @classmethod
    def free(cls) -> Price:
        """A model you run yourself."""
        return cls(input=0, output=0)


@spelled
@dataclass(frozen=True, kw_only=True)
class Breaker:
    """When a tool or model that keeps failing is left alone for a while, in all processes.

    It opens when `failures` of the last `window` seconds' calls failed at the far side (timeout,
    lost connection, 429, 5xx), and they are at least `share` of those calls. After `cooldown`
    seconds one call tries; as it goes, the breaker closes or stays open as long again.
    """

    failures: int = 5
    share: float = 0.5
    window: float = 60.0
    cooldown: float = 30.0

    def __post_init__(self) -> None:
        if self.failures < 1:
            raise DeclarationError("Breaker(failures=) must be at least 1.")
        if not 0 <= self.share <= 1:
            raise DeclarationError("Breaker(share=) is a part of all calls, from 0 to 1.")
        if not (0 < self.window < float("inf") and 0 < self.cooldown < float("inf")):
            raise DeclarationError("Breaker(window=, cooldown=) are in seconds, more than 0.")


class PhaseUsage(Struct, frozen=True, kw_only=True):
    """What one phase used: tokens and nano-dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    nanos: int = 0


class Usage(Struct, frozen=True, kw_only=True):
    """What a run measured. Input tokens include cached ones; `assumed_nanos` is charged at worst
    case because the true amount is unknown (a call cut off before its usage arrived)."""

    turns: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    nanos: int = 0
    assumed_nanos: int = 0
    seconds: float = 0.0
    by_phase: Mapping[Phase, PhaseUsage] = field(default_factory=dict)

    @property
    def usd(self) -> Decimal:
        """Dollars spent, unknown charges at their worst case included."""
        return to_dollars(self.nanos + self.assumed_nanos)

    @property
    def tokens(self) -> int:
        """Input and output tokens."""
        return self.input_tokens + self.output_tokens
