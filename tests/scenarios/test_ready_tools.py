"""HTTP, OpenAPI and SQL as an agent's tools: what servers do wrong, and what becomes of the run."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from roadworthy import Agent, RunResult, Runtime, Tool, ToolCall
from roadworthy.agent import Effect
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.tools.http import Client, OpenAPI, http_tool
from roadworthy.tools.sql import SQL, SqlTables, sql_tool
from tests.scenarios.world import url
from tests.unit.tools.http.serving import Handler, raw, serving

LOCAL = Client(allow=["127.0.0.1"], seconds=10)


def answering(*statuses: int, **headers: str) -> Handler:
    """Answers with these one after the other."""
    left = list(statuses)

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response({"paid": True}, status=left.pop(0), headers=headers)

    return handler


def pay(base: str, effect: Effect) -> Tool[Any]:
    return http_tool(
        "pay",
        "Pay an order back.",
        f"{base}/orders/{{order}}/refunds",
        {"order": {"type": "string"}},
        method="GET" if effect == "read" else "POST",
        effect=effect,
        client=LOCAL,
    )


async def go(folder: Path, tool: Tool[Any]) -> tuple[RunResult, ScriptedModel]:
    model = ScriptedModel([ToolCall("pay", {"order": "A-17"}), "That is all."])
    async with Runtime(url(folder), clock=FakeClock(auto=True)) as rt:
        return await rt.run(Agent("desk", model=model, tools=[tool]), "Go"), model


@pytest.mark.requirement("TOL-3", "TOL-4")
@pytest.mark.parametrize(
    ("effect", "statuses", "sent", "status"),
    [
        ("read", [503, 500, 200], 3, "completed"),
        ("read", [404], 1, "completed"),
        ("read", [302], 1, "completed"),
        ("write", [502, 200], 2, "completed"),
        ("write", [409], 1, "completed"),
        ("irreversible", [200], 1, "completed"),
        ("irreversible", [429, 200], 2, "completed"),
        ("irreversible", [422], 1, "completed"),
        ("irreversible", [500], 1, "waiting"),
        ("irreversible", [302], 1, "waiting"),
    ],
)
async def test_a_status_means_what_it_means(
    tmp_path: Path, effect: Effect, statuses: Sequence[int], sent: int, status: str
) -> None:
    async with serving(answering(*statuses, Location="/x")) as served:
        result, model = await go(tmp_path, pay(served.url, effect))
    assert (result.status, len(served.seen)) == (status, sent)
    keys = {heard.get("Idempotency-Key") for heard in served.heard}
    assert len(keys) == 1, "every attempt has the same"
    assert (keys == {None}) == (effect == "read")
    if statuses[-1] == 200:
        assert '{"paid":true}' in model.requests[1].results[0]


@pytest.mark.requirement("TOL-4")
async def test_an_effect_whose_connection_broke_is_put_before_a_person(tmp_path: Path) -> None:
    async with raw(b"") as served:
        result, _ = await go(tmp_path, pay(served.url, "irreversible"))
    assert (result.status, len(served.seen)) == ("waiting", 1)


@pytest.mark.requirement("TOL-4")
async def test_an_effect_that_reached_nobody_did_not_happen(tmp_path: Path) -> None:
    async with raw(b"") as served:
        pass
    result, model = await go(tmp_path, pay(served.url, "irreversible"))
    assert result.status == "completed"
    assert "cannot be reached" in model.requests[1].results[0]


async def test_a_described_service_and_a_database_are_toolsets(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as made:
        made.execute("CREATE TABLE orders (id TEXT, total REAL)")
        made.execute("INSERT INTO orders VALUES ('A-17', 40.5)")
    made.close()
    database = SQL(f"sqlite:///{tmp_path}/shop.db")
    document = {"openapi": "3.1.0", "paths": {"/now": {"get": {"operationId": "now"}}}}
    model = ScriptedModel(
        [
            [
                ToolCall("shop_query", {"sql": "SELECT * FROM orders"}),
                ToolCall("shop_query", {"sql": "DELETE FROM orders"}),
                ToolCall("total", {"order": "A-17"}),
                ToolCall("now", {}),
            ],
            "That is all.",
        ]
    )
    async with serving(answering(200)) as served:
        desk = Agent(
            "desk",
            model=model,
            tools=[
                SqlTables("shop", database),
                OpenAPI("clock", document, base_url=served.url, client=LOCAL),
                sql_tool(
                    "total",
                    "What an order costs.",
                    "SELECT total FROM orders WHERE id = :order",
                    database,
                    {"order": {"type": "string"}},
                ),
            ],
        )
        async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
            result = await rt.run(desk, "Go")
    assert result.status == "completed"
    asked, refused, total, now = model.requests[1].results
    assert '[["A-17",40.5]]' in asked
    assert "write one SELECT" in refused
    assert "[[40.5]]" in total
    assert '{"paid":true}' in now
