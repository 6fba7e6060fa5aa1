"""Tools found by words and by meaning: ranks are fused, and without the extra words alone count."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import pytest

from roadworthy.messages import ToolSpec
from roadworthy.tools.meaning import local_meaning
from roadworthy.tools.selection import Selector

pytestmark = pytest.mark.requirement("TOL-6")
TEXTS = {
    "refund_order": "Pay an order back.",
    "cancelParcel": "Stop a parcel that is under way.",
    "weather": "Sunshine and rain of a place.",
    "stock_price": "What a share costs now.",
}
EMPTY = {"type": "object", "properties": {}}
SPECS = [ToolSpec(name=n, description=text, parameters=EMPTY) for n, text in TEXTS.items()]


class Told:
    """A meaning that says what a test says."""

    def __init__(self, *near: float) -> None:
        self.near, self.read = near, list[str]()

    def index(self, texts: Sequence[str], /) -> Callable[[str], Sequence[float]]:
        self.read += texts
        return lambda _: self.near


def test_without_a_meaning_words_alone_count() -> None:
    chosen = Selector(SPECS)
    assert chosen.best("Is my parcel there?", 3) == ("cancelParcel",)
    assert chosen.best("I want my money again", 3) == ()


def test_what_shares_no_word_is_found_by_its_meaning() -> None:
    meaning = Told(0.6, 0.05, 0.0, 0.2)
    chosen = Selector(SPECS, meaning)
    assert chosen.best("I want my money again", 3) == ("refund_order", "stock_price")
    assert chosen.best("I want my money again", 3, among=["stock_price"]) == ("stock_price",)
    assert meaning.read[1] == "cancel parcel. Stop a parcel that is under way."


def test_a_tool_that_both_find_goes_before_one_of_either() -> None:
    chosen = Selector(SPECS, Told(0.5, 0.4, 0.0, 0.3))
    assert chosen.best("Where is the parcel?", 2) == ("cancelParcel", "refund_order")


def test_what_nothing_is_near_to_finds_nothing() -> None:
    assert Selector(SPECS, Told(0.01, 0.09, -0.2, 0.0)).best("xylophone", 3) == ()
    assert Selector([], Told()).best("anything", 3) == ()


def test_the_local_model_needs_no_network_and_finds_what_is_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("wordllama")

    def refuse(*_: object) -> None:
        raise AssertionError("it went to the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    local_meaning.cache_clear()
    meaning = local_meaning()
    assert meaning is not None
    chosen = Selector(SPECS, meaning)
    assert chosen.best("Will it be cloudy tomorrow?", 1) == ("weather",)
    assert chosen.best("Will it be cloudy tomorrow?", 4) == chosen.best(
        "Will it be cloudy tomorrow?", 4
    )
