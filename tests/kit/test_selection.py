"""How often the selector shows the tool that is needed, on tools and requests nobody here wrote.

The data are those of the package `bfcl-eval` (BFCL v4, Apache-2.0), of which only the files are
read: `pip install --no-deps bfcl-eval`. Measured when this was written: see each test.
"""

from __future__ import annotations

import importlib.util
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from roadworthy.messages import ToolSpec
from roadworthy.tools.meaning import Meaning, local_meaning
from roadworthy.tools.selection import Selector

pytestmark = [pytest.mark.kit, pytest.mark.requirement("TOL-6")]

MOST, TOOLS = 7, 60
APIS = (
    "gorilla_file_system", "math_api", "message_api", "posting_api", "ticket_api", "trading_bot",
    "travel_booking", "vehicle_control",
)  # fmt: skip


def rows(name: str) -> list[dict[str, Any]]:
    spec = importlib.util.find_spec("bfcl_eval")
    folders = list((spec.submodule_search_locations or []) if spec else [])
    if not folders:
        pytest.skip("the package bfcl-eval is not installed")
    text = (Path(folders[0]) / "data" / name).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


@pytest.fixture(params=["words", "fused"])
def meaning(request: pytest.FixtureRequest) -> Meaning | None:
    """None ranks by BM25 alone."""
    if request.param == "words":
        return None
    pytest.importorskip("wordllama")
    return local_meaning()


def selector(tools: list[dict[str, Any]], meaning: Meaning | None) -> Selector:
    specs = (
        ToolSpec(name=t["name"], description=t["description"], parameters=t["parameters"])
        for t in tools
    )
    return Selector(specs, meaning)


def said(turn: list[dict[str, str]]) -> str:
    return " ".join(m["content"] for m in turn if m["role"] == "user")


@pytest.mark.parametrize(
    ("split", "by_words", "fused"),
    [  # measured .985 and 1.000 of 200, .970 and .977 of 1,053
        ("multiple", 0.97, 0.99),
        ("live_multiple", 0.96, 0.97),
    ],
)
def test_the_one_tool_needed_is_among_seven_of_sixty(
    split: str, by_words: float, fused: float, meaning: Meaning | None
) -> None:
    cases = rows(f"BFCL_v4_{split}.json")
    answers = rows(f"possible_answer/BFCL_v4_{split}.json")
    gold = {a["id"]: next(iter(a["ground_truth"][0])) for a in answers}
    pool = {tool["name"]: tool for case in cases for tool in case["function"]}
    hits, drawn = [], random.Random(7)  # noqa: S311 - the same draw each time
    for case in cases:
        own = [tool["name"] for tool in case["function"]]
        if gold.get(case["id"]) not in own:
            continue
        names = list(dict.fromkeys([*own, *drawn.sample(sorted(pool), TOOLS)]))[:TOOLS]
        drawn.shuffle(names)
        chosen = selector([pool[name] for name in names], meaning)
        best = chosen.best(said(case["question"][0]), MOST)
        hits.append(gold[case["id"]] in best)
    assert len(hits) >= 200
    assert sum(hits) / len(hits) >= (by_words if meaning is None else fused)


def test_most_of_what_a_turn_needs_is_among_seven_of_128(meaning: Meaning | None) -> None:
    """Measured .765 and .815 of 1,100: what is not said (log in first) is left to `find_tool`."""
    tools = {t["name"]: t for api in APIS for t in rows(f"multi_turn_func_doc/{api}.json")}
    answers = rows("possible_answer/BFCL_v4_multi_turn_base.json")
    gold = {answer["id"]: answer["ground_truth"] for answer in answers}
    chosen, hits, needed = selector([*tools.values()], meaning), 0, 0
    for case in rows("BFCL_v4_multi_turn_base.json"):
        for turn, calls in zip(case["question"], gold[case["id"]], strict=True):
            names = {found[0] for call in calls if (found := re.match(r"\w+", call.strip()))}
            hits += len(names & {*chosen.best(said(turn), MOST)})
            needed += len(names)
    assert len(tools) > 120
    assert hits / needed >= (0.74 if meaning is None else 0.8)
