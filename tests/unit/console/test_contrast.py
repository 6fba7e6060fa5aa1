"""The theme's colours, held to WCAG 2.2 AA: 4.5 to 1 for text, 3 to 1 for edges and marks."""

from __future__ import annotations

import re
from typing import Literal

import pytest

from roadworthy.console import assets

CSS = assets.files()["console.css"].decode()
PAIRS = {
    name: (light, dark)
    for name, light, dark in re.findall(
        r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", CSS
    )
}
TEXT = [
    *((ink, paper) for ink in ("text", "dim", "accent", "bad", "warn") for paper in ("bg", "card")),
    *((ink, "soft") for ink in ("text", "on-soft")),
    ("on-main", "main"),
    ("text", "mine"),
    ("on-soft", "mine"),
    ("ok", "okb"),
    ("bad", "badb"),
    ("warn", "warnb"),
    ("ok", "card"),
    ("card", "bad"),
]
MARKS = [(ink, paper) for ink in ("edge", "p1", "p2", "p3", "accent") for paper in ("bg", "card")]


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Between two colours, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("pairs", "least"), [(TEXT, 4.5), (MARKS, 3.0)], ids=["text", "edges and marks"]
)
def test_colours_can_be_told_apart(
    theme: Literal["light", "dark"], pairs: list[tuple[str, str]], least: float
) -> None:
    side = ("light", "dark").index(theme)
    found = {
        f"{ink} on {paper}": round(contrast(PAIRS[ink][side], PAIRS[paper][side]), 2)
        for ink, paper in pairs
    }
    assert {pair: ratio for pair, ratio in found.items() if ratio < least} == {}


def test_the_measure_is_the_right_one() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
