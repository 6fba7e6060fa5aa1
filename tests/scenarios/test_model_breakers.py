"""Breakers of models over the wire: a provider in a process of its own fails, and comes back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from roadworthy import Agent, ProviderOptions, Runtime
from roadworthy.api import create_app
from roadworthy.events import BreakerRefused, ModelFailed, ModelIntended
from roadworthy.testing import FakeClock
from tests.scenarios.world import of_kind, url

pytest.importorskip("openai")
FIRST, SECOND, THIRD = "openai-chat:first", "openai-chat:second", "openai-chat:third"
HERE = Path(__file__).parent


class Provider:
    """`far_provider.py` in its process. down: the models that answer 500."""

    def __init__(self, folder: Path) -> None:
        self._down, self._asked = folder / "down", folder / "asked"
        self._asked.touch()
        self.down()
        self.start()

    def start(self, port: int = 0) -> None:
        command = [sys.executable, str(HERE / "far_provider.py"), str(port), str(self._down)]
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            [*command, str(self._asked)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    @property
    def options(self) -> ProviderOptions:
        return ProviderOptions(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="k")

    def down(self, *models: str) -> None:
        self._down.write_text("\n".join(models), encoding="utf-8")

    def asked(self) -> list[str]:
        """What it was asked since it was last looked at."""
        found = self._asked.read_text(encoding="utf-8").split()
        self._asked.write_text("", encoding="utf-8")
        return found

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    made = Provider(tmp_path)
    yield made
    made.stop()


def runtime(folder: Path, provider: Provider, clock: FakeClock, tier: Sequence[str]) -> Runtime:
    return Runtime(
        url(folder), tiers={"large": tier}, providers={"openai-chat": provider.options}, clock=clock
    )


@pytest.mark.requirement("REC-7", "TOL-3")
async def test_a_model_that_answers_500_is_left_alone_and_the_next_one_answers(
    tmp_path: Path, provider: Provider
) -> None:
    provider.down("first")
    clock, desk = FakeClock(auto=True), Agent("desk", model="large")
    async with runtime(tmp_path, provider, clock, [FIRST, SECOND]) as rt:
        for _ in range(3):
            assert (await rt.run(desk, "Hi")).text == "I am second."
        assert provider.asked().count("first") == 10
        passed = await rt.run(desk, "Hi")
        (refused,) = await of_kind(rt, passed.run_id, BreakerRefused)
        assert (refused.model, provider.asked()) == (FIRST, ["second"])
        assert (await rt.replay(passed.run_id)).differences == ()

        app = httpx.ASGITransport(create_app(rt, [desk]))
        async with httpx.AsyncClient(transport=app, base_url="http://desk") as asks:
            health = (await asks.get("/health")).json()
            await clock.sleep(31)
            later = (await asks.get("/health")).json()
        (seen,) = health["breakers"]
        assert (health["status"], seen["name"]) == ("ok", f"model:{FIRST}")
        assert (seen["state"], seen["because"]) == ("open", "status 500")
        assert seen["since"] < seen["until"]
        assert later["breakers"][0]["state"] == "half-open"

        provider.down()
        for _ in range(2):  # the probe, and the next one
            assert (await rt.run(desk, "Hi")).text == "I am first."
        assert provider.asked() == ["first", "first"]
        assert await rt.crew.breakers() == []


@pytest.mark.requirement("REC-7")
async def test_a_provider_that_nobody_reaches_is_left_alone_with_all_its_models(
    tmp_path: Path, provider: Provider
) -> None:
    """Its third model is not asked at all, though it never failed itself."""
    port = provider.port
    provider.stop()
    clock = FakeClock(auto=True)
    desk = Agent("desk", model="large")
    async with runtime(tmp_path, provider, clock, [FIRST, SECOND]) as rt:
        ended = await rt.run(desk, "Hi")
        failed = await of_kind(rt, ended.run_id, ModelFailed)
        assert {one.model for one in failed} == {FIRST, SECOND}
        await rt.run(desk, "Hi")
        (shut,) = await rt.crew.breakers()
        assert (shut.name, shut.cause) == ("provider:openai-chat", "connection")

        third = await rt.run(Agent("third", model=THIRD), "Hi")
        assert (third.status, third.reason) == ("failed", "model_failed")
        assert await of_kind(rt, third.run_id, ModelIntended) == []
        assert [e.model for e in await of_kind(rt, third.run_id, BreakerRefused)] == [THIRD]

        provider.start(port)
        await clock.sleep(31)
        assert (await rt.run(Agent("third", model=THIRD), "Hi")).text == "I am third."
        assert (await rt.run(desk, "Hi")).text == "I am first."
        assert await rt.crew.breakers() == []


@pytest.mark.requirement("REC-7")
async def test_one_model_that_cannot_be_reached_says_nothing_of_the_others(
    tmp_path: Path, provider: Provider
) -> None:
    provider.stop()
    clock, desk = FakeClock(auto=True), Agent("desk", model=FIRST)
    async with runtime(tmp_path, provider, clock, [FIRST]) as rt:
        for _ in range(4):
            await rt.run(desk, "Hi")
        assert [one.name for one in await rt.crew.breakers()] == [f"model:{FIRST}"]
