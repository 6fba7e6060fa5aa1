"""Rates equal the price table's own calculation, and worst cases are never below a cost."""

import random
from decimal import ROUND_CEILING, Decimal

import pytest
from genai_prices import Usage, calc_price, data_snapshot

from roadworthy.clock import moment
from roadworthy.errors import PriceUnknown
from roadworthy.limits import Price
from roadworthy.messages import TokenUsage
from roadworthy.models.prices import PriceBook, Rates
from roadworthy.testing import FakeClock

PROVIDERS = ("openai", "anthropic", "google", "mistral", "groq", "deepseek", "x-ai", "aws")
NOON = 1_795_262_400_000_000  # 2026-11-21


def listed() -> list[str]:
    """Every model of the main providers that the table finds under its own id."""
    snapshot = data_snapshot.get_snapshot()
    providers = [provider for provider in snapshot.providers if provider.id in PROVIDERS]
    return [f"{provider.id}:{model.id}" for provider in providers for model in provider.models]


def usages(seed: int, count: int) -> list[TokenUsage]:
    draw = random.Random(seed)  # noqa: S311 -- repeatable cases, not secrets
    found = []
    for _ in range(count):
        size = draw.choice([0, 1, 999, 40_000, 128_001, 199_999, 200_000, 200_001, 300_000])
        read = draw.randint(0, size)
        output = draw.randint(0, 9_000)
        found.append(
            TokenUsage(
                input=size,
                output=output,
                cache_read=read,
                cache_write=draw.randint(0, size - read),
                reasoning=draw.randint(0, output),
            )
        )
    return found


def theirs(model: str, usage: TokenUsage, clock: FakeClock) -> int:
    provider, _, name = model.partition(":")
    counted = Usage(
        input_tokens=usage.input,
        output_tokens=usage.output,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write,
        output_reasoning_tokens=usage.reasoning,
    )
    price = calc_price(
        counted, name, provider_id=provider, genai_request_timestamp=moment(clock.now())
    ).total_price
    return int((price * 1_000_000_000).to_integral_value(rounding=ROUND_CEILING))


@pytest.mark.requirement("GRD-5", "CST-3")
def test_costs_equal_the_tables_for_every_model_and_tier() -> None:
    clock = FakeClock(NOON)
    book, compared = PriceBook(clock=clock), 0
    for index, model in enumerate(listed()):
        try:
            rates = book.rates(model)
        except PriceUnknown:
            continue
        for usage in usages(index, 6):
            assert rates.cost(usage) == theirs(model, usage, clock), (model, usage)
            assert rates.cost(usage) <= rates.worst(usage.input, usage.output), (model, usage)
        compared += 1
    assert compared > 200


@pytest.mark.requirement("GRD-5")
def test_affordable_is_the_largest_that_fits() -> None:
    book = PriceBook({"own:long": Price(input=1, output=4, long_from=1_000, long_output="8.5")})
    for model in ("openai:gpt-5-mini", "anthropic:claude-sonnet-4-5", "own:long"):
        rates = book.rates(model)
        for nanos in (0, 1_000, 500_000, 7_654_321, 10**9):
            for size in (0, 900, 1_001, 250_000):
                most = rates.affordable(nanos, size)
                assert most == 0 or rates.worst(size, most) <= nanos
                assert rates.worst(size, most + 1) > nanos


def test_a_worst_case_takes_the_cache_write_and_the_long_context_rate() -> None:
    rates = PriceBook().rates("anthropic:claude-sonnet-4-5")
    assert rates.worst(1_000, 0) == 1_000 * 3_750  # cache writes cost a quarter more
    long = PriceBook().rates("google:gemini-2.5-pro")
    assert long.worst(200_001, 0) > 1.9 * long.worst(200_000, 0)


def test_own_prices_win_and_cached_tokens_cost_as_input_unless_said() -> None:
    book = PriceBook({"openai:gpt-5-mini": Price(input="2", output=8)})
    rates = book.rates("openai:gpt-5-mini", Price(input=100, output=100))
    assert rates.cost(TokenUsage(input=1_000, output=100, cache_read=900)) == 2_800_000
    assert "own" in book.version


def test_own_long_prices_apply_to_the_whole_call() -> None:
    price = Price(input=1, output=2, cache_read="0.1", long_from=1_000, long_input=2, long_output=3)
    rates = PriceBook().rates("a:b", price)
    assert rates.cost(TokenUsage(input=1_000, output=10)) == 1_000_000 + 20_000
    assert rates.cost(TokenUsage(input=1_001, output=10)) == 2_002_000 + 30_000
    assert rates.cost(TokenUsage(input=1_001, cache_read=1_001)) == 200_200


def test_fractions_of_a_nano_dollar_are_rounded_up_once() -> None:
    rates = PriceBook().rates("a:b", Price(input="0.0001", output="0.0001"))
    assert rates.cost(TokenUsage(input=1, output=1)) == 1
    assert rates.cost(TokenUsage(input=10, output=1)) == 2


@pytest.mark.requirement("CST-3")
@pytest.mark.parametrize("model", ["openai:gpt-99", "nowhere:gpt-5-mini", "ollama:llama3"])
def test_an_unknown_price_is_refused_with_the_line_to_paste(model: str) -> None:
    with pytest.raises(PriceUnknown, match="Price\\(input=2, output=8\\)"):
        PriceBook().rates(model)


def test_a_model_of_ones_own_is_free() -> None:
    rates = PriceBook().rates("ollama:llama3", Price.free())
    assert rates.worst(10**6, 10**6) == 0
    assert rates.affordable(0, 10**6) > 10**6


def test_what_is_measured_apart_is_priced_by_the_table() -> None:
    rates = PriceBook().rates("google:gemini-2.5-flash")
    plain = TokenUsage(input=1_000, output=10)
    spoken = TokenUsage(input=1_000, output=10, raw='{"input_audio_tokens": 1000}')
    assert rates.cost(spoken) - rates.cost(plain) == 1_000 * 700  # $1.00 instead of $0.30


def test_another_service_tier_is_priced_as_such() -> None:
    rates = PriceBook().rates("openai:gpt-5-mini")
    plain = TokenUsage(input=1_000, output=10)
    fast = TokenUsage(input=1_000, output=10, raw='{"service_tier": "priority"}')
    assert rates.cost(fast) > rates.cost(plain)


def test_prices_with_dates_change_with_the_clock() -> None:
    dated = [m for m in listed() if changes(m)]
    assert dated
    early, late = FakeClock(1_600_000_000_000_000), FakeClock(NOON)
    usage = TokenUsage(input=1_000, output=1_000)
    for model in dated[:20]:
        for clock in (early, late):
            known = rates_at(model, clock)
            assert known is None or known.cost(usage) == theirs(model, usage, clock)


def changes(model: str) -> bool:
    provider, _, name = model.partition(":")
    try:
        info = data_snapshot.get_snapshot().find_provider_model(name, None, provider, None)[1]
    except LookupError:
        return False
    return isinstance(info.prices, list)


def rates_at(model: str, clock: FakeClock) -> Rates | None:
    try:
        return PriceBook(clock=clock).rates(model)
    except PriceUnknown:
        return None


def test_a_rate_is_looked_up_once() -> None:
    book = PriceBook()
    assert book.rates("openai:gpt-5-mini") is book.rates("openai:gpt-5-mini")
    assert Decimal(book.rates("openai:gpt-5-mini").worst(1, 1)) > 0
