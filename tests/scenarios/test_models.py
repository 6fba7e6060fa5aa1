"""Models that fail: retried, replaced, or an end that says why; every charge accounted for."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from roadworthy import (
    Agent,
    Limits,
    ModelSettings,
    Price,
    RunOptions,
    Runtime,
    ToolCall,
    tool,
)
from roadworthy.errors import (
    ConfigurationError,
    ModelContextOverflow,
    ModelOutcomeUnknown,
    ModelRateLimited,
    ModelRejected,
    ModelUnavailable,
    PriceUnknown,
)
from roadworthy.events import ModelFailed, ModelIntended, ModelReplied
from roadworthy.messages import Message, Reasoning, Reply, Text, TokenUsage
from roadworthy.testing import FakeClock, ScriptedModel
from tests.scenarios.world import of_kind, url

PRICE = Price(input=1, output=10)


@pytest.mark.requirement("REC-7", "TOL-3")
async def test_a_rate_limited_model_is_asked_again_when_it_said(tmp_path: Path) -> None:
    clock = FakeClock(auto=True)
    model = ScriptedModel([ModelRateLimited("slow down", retry_after=7), "Hi."], price=PRICE)
    async with Runtime(url(tmp_path), clock=clock) as rt:
        result = await rt.run(Agent("desk", model=model), "Hello")
        (failed,) = await of_kind(rt, result.run_id, ModelFailed)
    assert (result.status, result.text) == ("completed", "Hi.")
    assert (failed.code, failed.assumed) == ("ModelRateLimited", 0)
    assert failed.retry_at is not None
    assert failed.retry_at - failed.at == pytest.approx(7_000_000, abs=100_000)
    assert result.usage.assumed_nanos == 0
    assert clock.monotonic() >= 7


async def test_an_unavailable_model_is_asked_again_after_pauses_under_a_growing_bound(
    tmp_path: Path,
) -> None:
    model = ScriptedModel([ModelUnavailable("503")] * 3 + ["Hi."])
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(Agent("desk", model=model), "Hello")
        failed = await of_kind(rt, result.run_id, ModelFailed)
    assert result.status == "completed"
    pauses = [(f.retry_at or 0) - f.at for f in failed]
    assert len(pauses) == 3
    assert all(
        pause <= most for pause, most in zip(pauses, (500_000, 1_000_000, 2_000_000), strict=True)
    )


@pytest.mark.requirement("CST-3", "GRD-5")
async def test_a_cut_off_call_is_charged_at_worst_case_and_made_again(tmp_path: Path) -> None:
    model = ScriptedModel([ModelOutcomeUnknown("cut"), "Hi."], price=PRICE)
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(Agent("desk", model=model), "Hello")
        intents = await of_kind(rt, result.run_id, ModelIntended)
        (failed,) = await of_kind(rt, result.run_id, ModelFailed)
    assert result.status == "completed"
    assert failed.assumed == intents[0].nanos > 0
    assert result.usage.assumed_nanos == intents[0].nanos
    assert intents[0].reservation != intents[1].reservation
    assert result.usage.usd > Decimal(intents[0].nanos) / 10**9


@pytest.mark.requirement("REC-7", "REC-5")
async def test_a_model_that_stays_down_ends_failed_with_a_typed_reason(tmp_path: Path) -> None:
    model = ScriptedModel(lambda _: ModelUnavailable("503 from the provider"))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(Agent("desk", model=model), "Hello")
        failed = await of_kind(rt, result.run_id, ModelFailed)
    assert (result.status, result.reason) == ("failed", "model_failed")
    assert "503 from the provider" in result.report.why
    assert result.text == "I could not finish this just now. Please try again later."
    assert failed[-1].gave_up
    assert len(failed) == 4


@pytest.mark.requirement("REC-7")
async def test_the_second_model_of_a_tier_answers_for_the_first(tmp_path: Path) -> None:
    first = ScriptedModel(lambda _: ModelUnavailable("503"), name="first")
    second = ScriptedModel(lambda _: "Hi.", name="second")
    desk = Agent("desk", model="large")
    clock = FakeClock(auto=True)
    async with Runtime(url(tmp_path), tiers={"large": [first, second]}, clock=clock) as rt:
        result = await rt.run(desk, "Hello")
        (replied,) = await of_kind(rt, result.run_id, ModelReplied)
    assert result.status == "completed"
    assert replied.model == "second"
    assert len(first.requests) == 4


async def test_a_rejected_request_is_not_repeated_but_the_next_model_is_asked(
    tmp_path: Path,
) -> None:
    first = ScriptedModel(lambda _: ModelContextOverflow("too long"), name="first")
    second = ScriptedModel(lambda _: "Hi.", name="second")
    async with Runtime(url(tmp_path), tiers={"large": [first, second]}) as rt:
        result = await rt.run(Agent("desk", model="large"), "Hello")
    assert result.status == "completed"
    assert (len(first.requests), len(second.requests)) == (1, 1)


async def test_a_rejected_request_ends_failed_with_a_typed_reason(tmp_path: Path) -> None:
    model = ScriptedModel([ModelRejected("invalid schema")], price=PRICE)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model), "Hello")
    assert (result.status, result.reason) == ("failed", "model_rejected")
    assert "invalid schema" in result.report.why
    assert result.usage.usd == 0
    assert len(model.requests) == 1


async def test_a_model_that_hangs_is_cut_off_after_its_timeout(tmp_path: Path) -> None:
    never = asyncio.Event()

    async def hang(_: object) -> str:
        await never.wait()
        return ""

    model = ScriptedModel([hang, "Hi."], price=PRICE)
    desk = Agent("desk", model=model, settings=ModelSettings(timeout=0.05))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(desk, "Hello")
        (failed,) = await of_kind(rt, result.run_id, ModelFailed)
    assert result.status == "completed"
    assert failed.code == "ModelOutcomeUnknown"
    assert failed.assumed > 0


async def test_work_done_before_the_model_failed_is_in_the_report(tmp_path: Path) -> None:
    @tool(effect="write", idempotent_by_nature=True)
    def save(text: str) -> str:
        """Save. text: what."""
        return "saved"

    model = ScriptedModel([ToolCall("save", {"text": "a"}), ModelRejected("no")])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, tools=[save]), "Save a")
    assert (result.status, result.reason) == ("partial", "model_rejected")
    assert result.report.done == ("save",)
    assert "Done so far: save." in result.text


@pytest.mark.requirement("CST-3")
async def test_an_unknown_price_is_refused_with_the_line_to_paste(tmp_path: Path) -> None:
    model = ScriptedModel(["Hi."], name="acme:brand-new")
    model.price = None
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(PriceUnknown, match=r"prices=\{'acme:brand-new': Price\(input=2"):
            await rt.run(Agent("desk", model=model), "Hello")
        assert await rt.runs() == []
    prices = {"acme:brand-new": PRICE}
    async with Runtime(url(tmp_path), prices=prices) as rt:
        result = await rt.run(Agent("desk", model=model), "Hello")
    assert result.usage.usd > 0


async def test_a_missing_key_is_said_with_its_name_before_anything_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
            await rt.run(Agent("desk", model="openai:gpt-5-mini"), "Hello")
        assert await rt.runs() == []


async def test_a_tier_nobody_declared_is_said_with_the_mend(tmp_path: Path) -> None:
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(ConfigurationError, match=r"tiers=\{'large': \['provider:name'\]\}"):
            await rt.run(Agent("desk", model="large"), "Hello")


async def test_the_model_of_one_run_is_kept_when_it_is_resumed(tmp_path: Path) -> None:
    usual = ScriptedModel(lambda _: "Large.", name="usual")
    small = ScriptedModel(["First.", ToolCall("ask_user", {"question": "?"}), "Small."], name="s")
    desk = Agent("desk", model=usual)
    tiers = {"small": [small]}
    options = RunOptions(model="small")
    async with Runtime(url(tmp_path), tiers=tiers) as rt:
        assert (await rt.run(desk, "Hello", options=options)).text == "First."
    small = ScriptedModel([ToolCall("ask_user", {"question": "?"}), "Small."], name="s")
    tiers = {"small": [small]}
    async with Runtime(url(tmp_path), tiers=tiers) as rt:
        await rt.run(desk, "Hello", conversation="c", options=options)
    async with Runtime(url(tmp_path), tiers=tiers, patterns=[desk]) as rt:
        result = await rt.run(desk, "Go on", conversation="c")
    assert result.text == "Small."
    assert usual.requests == []


async def test_reasoning_is_kept_byte_exact_for_its_model_and_hidden_from_the_user(
    tmp_path: Path,
) -> None:
    state = '{"signature": "Zm9v\\u00e9==", "id": "rs_1"}'
    message = Message(
        role="assistant",
        parts=(
            Reasoning(text="The user wants a lamp. \u00e9", provider_state=state),
            ToolCall("look", {"x": "1"}, id="c1", provider_state='{"sig": "x"}'),
        ),
        provider="acme",
    )
    final = Message(
        role="assistant", parts=(Reasoning(text="hm", provider_state=state), Text(text="A lamp."))
    )
    usage = TokenUsage(input=10, output=20, reasoning=5, raw='{"prompt_tokens": 10}')

    @tool(effect="read")
    def look(x: str) -> str:
        """Look. x: any."""
        return x

    def replies() -> list[Reply]:
        return [
            Reply(message=m, usage=usage, model="acme:think-1", finish="stop")
            for m in (message, final)
        ]

    model = ScriptedModel([*replies(), "Again."])
    desk = Agent("desk", model=model, tools=[look])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Go", conversation="c")
    async with Runtime(url(tmp_path), patterns=[desk]) as rt:
        await rt.run(desk, "More", conversation="c")
        history = await rt.history("c")
        recorded = await of_kind(rt, result.run_id, ModelReplied)
    assert result.text == "A lamp."
    assert model.requests[1].messages[1] == message
    assert model.requests[2].messages[1] == message
    assert model.requests[2].messages[3] == final
    assert recorded[0].reply.usage.raw == '{"prompt_tokens": 10}'
    assert not any("wants" in m.text for m in history)


async def test_settings_of_the_agent_reach_the_model(tmp_path: Path) -> None:
    model = ScriptedModel(["Hi."])
    settings = ModelSettings(
        max_tokens=321, temperature=0.0, thinking="low", extra_headers={"x-team": "desk"}
    )
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(Agent("desk", model=model, settings=settings), "Hello")
    assert model.requests[0].request.settings == settings


async def test_a_free_model_needs_no_budget_and_a_token_bound_holds_it(tmp_path: Path) -> None:
    model = ScriptedModel(lambda _: "word " * 50, usage=TokenUsage(input=400, output=300))
    desk = Agent("desk", model=model, limits=Limits(usd=0, tokens=20_000))
    tight = Agent("tight", model=model, limits=Limits(tokens=300))
    async with Runtime(url(tmp_path)) as rt:
        assert (await rt.run(desk, "Hello")).status == "completed"
        result = await rt.run(tight, "Hello")
    assert (result.status, result.reason) == ("stopped", "budget")
    assert "tokens needed" in result.report.why
