"""What model calls cost: rates per model, computed once, exact to the nano-dollar.

The ledger reserves by `worst` and settles by `cost`. Invariant: integer arithmetic only, rounded
up once per call; a price that is not known is refused, never free.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING, Any, TypeAlias

from roadworthy.clock import Clock, SystemClock, moment
from roadworthy.errors import PriceUnknown
from roadworthy.limits import NANO, Dollars, Price
from roadworthy.messages import TokenUsage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

_PER_TOKEN = NANO // 1_000_000  # dollars per million tokens -> nano-dollars per token
_KINDS = ("input", "cache_read", "cache_write", "output", "reasoning")
_FIELDS = {
    "input": "input_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "output": "output_mtok",
    "reasoning": "output_reasoning_mtok",
}
# Measured by the provider beside these and priced apart: such a call is priced by the table itself.
_APART = (
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "cache_audio_read_tokens",
    "output_audio_tokens",
    "input_image_tokens",
    "output_image_tokens",
    "input_video_tokens",
    "web_searches",
    "storage_searches",
    "code_executions",
)
_Prices: TypeAlias = "tuple[Fraction, tuple[tuple[int, Fraction], ...]]"


@dataclass(frozen=True)
class _Scale:
    """A rate in integer units: `base`, or the last of `tiers` (above, rate) the input passes."""

    base: int
    tiers: tuple[tuple[int, int], ...] = ()

    def at(self, input_tokens: int) -> int:
        """The rate of a call with this much input: it applies to all its tokens."""
        rate = self.base
        for above, higher in self.tiers:
            if input_tokens > above:
                rate = higher
        return rate


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Rates in units of 1/`unit` nano-dollars a token. None: counted in with its parent kind."""

    unit: int
    request: int
    input: _Scale
    output: _Scale
    cache_read: _Scale | None = None
    cache_write: _Scale | None = None
    reasoning: _Scale | None = None

    def cost(self, usage: TokenUsage) -> int:
        """Nano-dollars, rounded up."""
        size = max(usage.input, usage.cache_read + usage.cache_write)
        total, plain, said = self.request, size, usage.output
        if self.cache_read is not None:
            total += usage.cache_read * self.cache_read.at(size)
            plain -= usage.cache_read
        if self.cache_write is not None:
            total += usage.cache_write * self.cache_write.at(size)
            plain -= usage.cache_write
        if self.reasoning is not None:
            thought = min(usage.reasoning, said)
            total += thought * self.reasoning.at(size)
            said -= thought
        total += plain * self.input.at(size) + said * self.output.at(size)
        return -(-total // self.unit)

    def dearest(self, input_tokens: int) -> tuple[int, int]:
        """The highest rates of an input and an output token up to this much input."""
        inputs = (self.input, self.cache_read, self.cache_write)
        outputs = (self.output, self.reasoning)
        return _highest(inputs, input_tokens), _highest(outputs, input_tokens)


def _highest(scales: Sequence[_Scale | None], input_tokens: int) -> int:
    return max(
        rate
        for scale in scales
        if scale is not None
        for rate in (scale.base, *(rate for above, rate in scale.tiers if input_tokens > above))
    )


@dataclass(frozen=True)
class Rates:
    """What one model costs. `version` says by which table."""

    model: str
    version: str
    _now: _Table
    _worst: tuple[_Table, ...]
    _listed: _Listed | None = None

    def cost(self, usage: TokenUsage) -> int:
        """Nano-dollars of a finished call, rounded up.

        What the provider measured apart (audio, searches, another service tier) is found in
        `usage.raw` and priced by the table.
        """
        if self._listed is not None and ("service_tier" in usage.raw or _apart(usage.raw)):
            listed = self._listed.cost(usage)
            if listed is not None:
                return listed
        return self._now.cost(usage)

    def worst(self, input_tokens: int, max_tokens: int) -> int:
        """Nano-dollars a call can cost at most: every token at its dearest applicable rate.

        Images count as tokens. Audio, searches and priority tiers cost more than this where the
        model has rates of their own for them.
        """
        most = 0
        for table in self._worst:
            given, said = table.dearest(input_tokens)
            total = table.request + input_tokens * given + max_tokens * said
            most = max(most, -(-total // table.unit))
        return most

    def affordable(self, nanos: int, input_tokens: int) -> int:
        """The largest `max_tokens` whose worst case fits; 0 if none does."""
        least = 1_000_000_000  # of a free reply: no bound by money
        for table in self._worst:
            given, said = table.dearest(input_tokens)
            left = nanos * table.unit - table.request - input_tokens * given
            if left < 0:
                return 0
            if said:
                least = min(least, left // said)
        return least


@dataclass(frozen=True)
class _Listed:
    """A model of the price table, for usage that our five kinds cannot express."""

    price: ModelPrice
    variants: tuple[tuple[Mapping[str, str], ModelPrice], ...]

    def cost(self, usage: TokenUsage) -> int | None:
        """Nano-dollars, or None where the table refuses a usage whose parts exceed their whole."""
        from genai_prices.types import Usage

        measured: dict[str, Any] = json.loads(usage.raw)
        prices = dict(self.price.__dict__)
        for when, override in self.variants:
            if when == {"service_tier": measured.get("service_tier")}:
                prices |= {key: rate for key, rate in override.__dict__.items() if rate is not None}
        counts = {key: measured[key] for key in _APART if measured.get(key)}
        whole = Usage(
            input_tokens=max(usage.input, usage.cache_read + usage.cache_write),
            output_tokens=usage.output,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_write,
            output_reasoning_tokens=usage.reasoning,
            **counts,
        )
        try:
            total = type(self.price)(**prices).calc_price(whole)["total_price"]
        except ValueError:
            return None
        return -(-Fraction(total) * NANO // 1)


def _apart(raw: str) -> bool:
    return any(key in raw for key in _APART)


class PriceBook:
    """Own prices first, then a model's own `price`, then the bundled table (read offline)."""

    def __init__(self, own: Mapping[str, Price] | None = None, clock: Clock | None = None) -> None:
        self._own = dict(own or {})
        self._clock = clock or SystemClock()
        self._known: dict[tuple[str, Price | None, int], Rates] = {}

    @functools.cached_property
    def version(self) -> str:
        """Which prices apply, as recorded in runs."""
        from importlib.metadata import version

        own = f", {len(self._own)} own" if self._own else ""
        return f"genai-prices {version('genai-prices')}{own}"

    def rates(self, model: str, price: Price | None = None) -> Rates:
        """What `provider:name` costs; computed once a model and hour (some prices have dates).

        Raises: PriceUnknown: neither declared nor in the table.
        """
        declared = self._own.get(model) or price
        hour = 0 if declared else self._clock.now() // 3_600_000_000
        key = (model, declared, hour)
        if key not in self._known:
            found = _own_rates(model, declared) if declared else self._listed_rates(model)
            self._known = {
                k: r for k, r in self._known.items() if k[0] != model or k[1] != declared
            }
            self._known[key] = found
        return self._known[key]

    def _listed_rates(self, model: str) -> Rates:
        info = _find(model)
        if info is None:
            raise PriceUnknown(model)
        now = moment(self._clock.now())
        price = info.get_prices(now)
        hours = (now + timedelta(hours=n) for n in range(25))
        soon = [table for table in (_table(info.get_prices(hour)) for hour in hours) if table]
        table = _table(price)
        if table is None:
            raise PriceUnknown(model)
        variants = tuple(
            (variant.when, variant.prices)
            for variant in info.price_variants or ()
            if variant.constraint is None or variant.constraint.active(now)
        )
        return Rates(model, self.version, table, tuple(set(soon)), _Listed(price, variants))


def _find(model: str) -> ModelInfo | None:
    """The table's entry for `provider:name`, by the provider and never by the name alone."""
    from genai_prices import data_snapshot

    provider, _, name = model.partition(":")
    snapshot = data_snapshot.get_snapshot()
    for candidate in _provider_ids(provider):
        try:
            return snapshot.find_provider_model(name, None, candidate, None)[1]
        except LookupError:
            continue
    return None


def _provider_ids(provider: str) -> tuple[str, ...]:
    """Our provider names as the price table has them."""
    provider = provider.removeprefix("gateway/")
    same = {
        "openai-chat": "openai",
        "openai-responses": "openai",
        "azure-responses": "azure",
        "google-cloud": "google",
        "bedrock": "aws",
        "bedrock-mantle": "aws",
        "xai": "x-ai",
    }
    return (same.get(provider, provider),)


def _own_rates(model: str, price: Price) -> Rates:
    def scale(normal: Fraction, long: Fraction | None) -> _Prices:
        tiers = () if price.long_from is None or long is None else ((price.long_from, long),)
        return normal, tiers

    plain, said = _fraction(price.input), _fraction(price.output)
    long_plain = None if price.long_input is None else _fraction(price.long_input)
    long_said = None if price.long_output is None else _fraction(price.long_output)
    rates = {"input": scale(plain, long_plain), "output": scale(said, long_said)}
    for kind, given in (("cache_read", price.cache_read), ("cache_write", price.cache_write)):
        if given is not None:  # a long call's cache rates grow as its input rate does
            rate = _fraction(given)
            long = rate * long_plain / plain if long_plain is not None and plain else None
            rates[kind] = scale(rate, long)
    table = _scaled(rates, Fraction(0))
    return Rates(model, "own", table, (table,))


def _fraction(dollars: Dollars) -> Fraction:
    return Fraction(str(dollars))


def _table(price: ModelPrice) -> _Table | None:
    """Rates of the five kinds; None where the table has no price of input and output."""
    from genai_prices.types import TieredPrices

    if price.input_mtok is None or price.output_mtok is None:
        return None
    rates: dict[str, _Prices] = {}
    for kind in _KINDS:
        given = getattr(price, _FIELDS[kind])
        if isinstance(given, TieredPrices):
            tiers = tuple((tier.start, Fraction(tier.price)) for tier in given.tiers)
            rates[kind] = (Fraction(given.base), tiers)
        elif given is not None:
            rates[kind] = (Fraction(given), ())
    each = price.requests_kcount
    request = (
        Fraction(0) if each is None or isinstance(each, TieredPrices) else Fraction(each) / 1000
    )
    return _scaled(rates, request)


def _scaled(rates: Mapping[str, _Prices], request: Fraction) -> _Table:
    """All rates over one denominator, so that a call's cost is a sum of integers."""
    per_token = {
        kind: (base * _PER_TOKEN, tuple((above, rate * _PER_TOKEN) for above, rate in tiers))
        for kind, (base, tiers) in rates.items()
    }
    every = [rate for base, tiers in per_token.values() for rate in (base, *(r for _, r in tiers))]
    unit = lcm((request * NANO).denominator, *(rate.denominator for rate in every))
    scales = {
        kind: _Scale(int(base * unit), tuple((above, int(rate * unit)) for above, rate in tiers))
        for kind, (base, tiers) in per_token.items()
    }
    return _Table(unit=unit, request=int(request * NANO * unit), **scales)
