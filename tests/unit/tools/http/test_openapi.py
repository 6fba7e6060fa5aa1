"""OpenAPI documents become tools: names, arguments, bodies, references, and our own API as one."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roadworthy import DeclarationError, Tool, ToolError
from roadworthy.api import create_app
from roadworthy.tools.http import Client, OpenAPI
from tests.unit.api.desks import runtime
from tests.unit.tools.http.serving import LOCAL, Served, run, serving
from tests.unit.tools.http.test_calls import echo

SHOP: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "shop", "version": "1"},
    "servers": [
        {"url": "https://{where}.example/v1/", "variables": {"where": {"default": "shop"}}}
    ],
    "paths": {
        "/orders/{order.id}": {
            "parameters": [{"$ref": "#/components/parameters/Order"}],
            "get": {
                "operationId": "orders.get one",
                "summary": "One order.",
                "description": "One order. With its lines.",
                "parameters": [
                    {"name": "tags", "in": "query", "schema": {"type": "array", "items": {}}},
                    {
                        "name": "ids",
                        "in": "query",
                        "explode": False,
                        "schema": {"type": "array", "items": {"type": "integer"}},
                    },
                    {
                        "name": "filter",
                        "in": "query",
                        "style": "deepObject",
                        "schema": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                    {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
                    {"name": "session", "in": "cookie", "schema": {"type": "string"}},
                    {"name": "Authorization", "in": "header", "schema": {"type": "string"}},
                    {
                        "name": "near",
                        "in": "query",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    },
                ],
            },
            "put": {
                "operationId": "put_order",
                "requestBody": {"$ref": "#/components/requestBodies/Order"},
            },
            "delete": {"operationId": "put_order", "deprecated": True},
        },
        "/trees": {
            "post": {
                "requestBody": {
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Tree"}}
                    }
                }
            }
        },
        "/login": {
            "post": {
                "operationId": "login",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/x-www-form-urlencoded": {
                            "schema": {
                                "type": "object",
                                "properties": {"who": {"type": "string"}, "n": {"type": "integer"}},
                            }
                        }
                    },
                },
            }
        },
        "/photo": {
            "post": {
                "operationId": "photo",
                "requestBody": {"required": True, "content": {"multipart/form-data": {}}},
            }
        },
        "/elsewhere": {"get": {"operationId": "far", "servers": [{"url": "https://evil.example"}]}},
    },
    "components": {
        "parameters": {
            "Order": {
                "name": "order.id",
                "in": "path",
                "required": True,
                "description": "Such as A-17.",
                "schema": {"type": "string"},
            }
        },
        "requestBodies": {
            "Order": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}},
            }
        },
        "schemas": {
            "Order": {
                "type": "object",
                "required": ["id", "euros"],
                "properties": {
                    "id": {"type": "string", "readOnly": True},
                    "euros": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
                    "note": {"type": "string", "nullable": True, "example": "x"},
                },
            },
            "Tree": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "inside": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}},
                },
            },
        },
    },
}


def shop(url: str = "", **options: Any) -> dict[str, Tool[Any]]:  # noqa: ANN401 - handed on
    made = OpenAPI("shop", SHOP, base_url=url, client=LOCAL, **options)
    return {tool.name: tool for tool in made.tools}


def test_operations_become_tools(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tools = shop()
    assert {name: tool.effect for name, tool in tools.items()} == {
        "orders_get_one": "read",
        "put_order": "irreversible",
        "put_order_delete_orders_order_id": "irreversible",
        "post_trees": "irreversible",
        "login": "irreversible",
    }
    assert tools["orders_get_one"].description == "One order. With its lines."
    assert "far: it has a server of its own" in caplog.text
    assert "photo: its multipart body is no plain object" in caplog.text
    with pytest.raises(DeclarationError, match="photo: its multipart body is"):
        shop(only=["photo"])


def test_what_the_deployer_knows_and_wants_counts() -> None:
    tools = shop(only=["put_order", "login"], effects={"put_order": "write"}, prefix="shop")
    assert {name: tool.effect for name, tool in tools.items()} == {
        "shop_put_order": "write",
        "shop_login": "irreversible",
    }
    for wrong in ({"only": ["put_ordr"]}, {"effects": {"put_ordr": "read"}}):
        with pytest.raises(DeclarationError, match="put_order"):
            shop(**wrong)


def test_schemas_are_those_of_json_schema_and_point_into_themselves() -> None:
    tools = shop()
    put = tools["put_order"].parameters
    assert set(put["properties"]) == {"order.id", "euros", "note"}
    assert put["required"] == ["order.id", "euros"]
    assert put["properties"]["euros"] == {"type": "number", "exclusiveMinimum": 0}
    assert put["properties"]["note"] == {"type": ["string", "null"]}
    assert put["properties"]["order.id"]["description"] == "Such as A-17."
    tree = tools["post_trees"]
    assert "components" not in json.dumps(tree.parameters)
    assert "inside" in str(tree.parameters["$defs"]["Tree"])


async def test_arguments_are_written_as_the_document_says() -> None:
    async with serving(echo) as served:
        tools = shop(f"{served.url}/v1/")
        given: dict[str, Any] = {
            "order.id": "A/1",
            "tags": ["a b", "c"],
            "ids": [1, 2],
            "filter": {"state": "new&x"},
            "X-Trace": "t-1",
            "session": "s;1",
            "near": {"lat": 1.5},
        }
        found: Any = await tools["orders_get_one"].function(run(), **given)
        assert found["path"] == (
            "/v1/orders/A%2F1?tags=a%20b&tags=c&ids=1,2&filter%5Bstate%5D=new%26x"
            "&near=%7B%22lat%22%3A1.5%7D"
        )
        assert served.heard[0]["X-Trace"] == "t-1"
        assert served.heard[0]["Cookie"] == "session=s%3B1"
        found = await tools["put_order"].function(run(), **{"order.id": "A"}, euros=1.5, note=None)
        assert json.loads(found["body"]) == {"euros": 1.5, "note": None}
        assert served.heard[1]["Content-Type"] == "application/json"
        found = await tools["login"].function(run(), who="a&b", n=1)
        assert found["body"] == "who=a%26b&n=1"
        found = await tools["post_trees"].function(run())
        assert found["body"] == ""


async def test_an_argument_cannot_stand_for_a_credential() -> None:
    async with serving(echo) as served:
        tools = shop(f"{served.url}", headers={"x-trace": "mine", "cookie": "sid=1"})
        given = {"order.id": "A", "X-Trace": "theirs", "session": "theirs"}
        await tools["orders_get_one"].function(run(), **given)
    assert "theirs" not in str(served.heard)
    assert "mine" in str(served.heard)


def test_files_of_json_and_yaml_are_read(tmp_path: Path) -> None:
    (tmp_path / "shop.json").write_text(json.dumps(SHOP))
    (tmp_path / "shop.yaml").write_text(
        "openapi: 3.1.0\nservers: [{url: 'https://shop.example'}]\npaths:\n  /now:\n    get:\n"
        "      operationId: now\n      parameters:\n        - {name: day, in: query, schema:"
        " {enum: [2026-11-21]}}\n      responses: {200: {description: ok}}\n"
    )
    assert len(OpenAPI("a", tmp_path / "shop.json", client=LOCAL).tools) == 5
    (now,) = OpenAPI("a", str(tmp_path / "shop.yaml")).tools
    assert now.parameters["properties"]["day"] == {"enum": ["2026-11-21"]}


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"swagger": "2.0"},
        {"openapi": "3.1.0", "paths": {}},
        SHOP | {"servers": [{"url": "/v1"}]},
        SHOP | {"servers": [{"url": "http://127.0.0.1/"}]},
        SHOP | {"servers": [{"url": "http://u:p@shop.example/"}]},
        "/nowhere/shop.json",
    ],
)
def test_a_document_of_no_use_is_said_at_once(document: Any) -> None:  # noqa: ANN401
    with pytest.raises(DeclarationError):
        OpenAPI("shop", document)


NAMES = st.sampled_from(["a", "b/c", "a b", "\u00e9", "", "x" * 90, "body"])
REFS = st.sampled_from(["#/components/schemas/a", "#", "#/nowhere", "other.json#/a", "#/paths"])
SCHEMAS = st.recursive(
    st.fixed_dictionaries({"$ref": REFS})
    | st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "object", "array", "odd", 7]),
            "nullable": st.booleans(),
            "enum": st.just([1]),
            "exclusiveMinimum": st.booleans(),
            "pattern": st.sampled_from(["(", "a+"]),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "items": inner,
            "allOf": st.lists(inner, max_size=2),
            "type": st.just("object"),
            "required": st.just(["a"]),
            "additionalProperties": inner | st.booleans(),
        },
    ),
    max_leaves=5,
)
PARAMETERS = st.fixed_dictionaries(
    {"name": NAMES, "in": st.sampled_from(["path", "query", "header", "cookie", "odd"])},
    optional={"schema": SCHEMAS, "required": st.booleans(), "explode": st.booleans(),
              "style": st.sampled_from(["form", "simple", "matrix", "deepObject"])},
) | st.fixed_dictionaries({"$ref": REFS})  # fmt: skip
OPERATIONS = st.fixed_dictionaries(
    {},
    optional={
        "operationId": NAMES,
        "summary": NAMES | st.none() | st.integers(),
        "parameters": st.lists(PARAMETERS, max_size=3),
        "requestBody": st.fixed_dictionaries(
            {"content": st.dictionaries(
                st.sampled_from(["application/json", "text/plain", "a/b", "*/*"]),
                st.fixed_dictionaries({"schema": SCHEMAS}), max_size=2)},
            optional={"required": st.booleans()},
        ) | SCHEMAS,
    },
)  # fmt: skip
DOCUMENTS = st.fixed_dictionaries(
    {
        "openapi": st.sampled_from(["3.0.0", "3.1.0"]),
        "servers": st.just([{"url": "https://shop.example"}]),
        "paths": st.dictionaries(
            st.sampled_from(["/a", "/{a}", "/{b/c}/x", "", "/\u00e9", "/a//{a}"]),
            st.dictionaries(
                st.sampled_from(["get", "post", "parameters", "$ref"]), OPERATIONS, max_size=2
            ),
            max_size=2,
        ),
        "components": st.fixed_dictionaries(
            {"schemas": st.dictionaries(st.sampled_from(["a", "b"]), SCHEMAS, max_size=2)}
        ),
    }
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=DOCUMENTS, values=st.data())
def test_no_document_breaks_more_than_itself(document: dict[str, Any], values: Any) -> None:  # noqa: ANN401
    try:
        made = OpenAPI("shop", document)
    except DeclarationError:
        return
    names = [tool.name for tool in made.tools]
    assert len(set(names)) == len(names)
    assert all(0 < len(name) <= 64 for name in names)
    for tool in made.tools:
        assert all(0 < len(key) <= 64 for key in tool.parameters["properties"])


async def test_our_own_api_is_run_by_tools_of_its_own_description(tmp_path: Path) -> None:
    app = create_app(runtime(tmp_path))
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    serving_it = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.wait([serving_it], timeout=0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        await _use(Served(f"http://127.0.0.1:{port}"), app.openapi())
    finally:
        server.should_exit = True
        await serving_it


async def _use(served: Served, document: Mapping[str, Any]) -> None:
    client = Client(allow=["127.0.0.1"])
    api = OpenAPI("api", document, base_url=served.url, client=client)
    assert len(api.tools) == sum(len(path) for path in document["paths"].values())
    tools = {tool.name: tool for tool in api.tools}
    begin = tools["run_v1_runs_post"]
    asked = {"agent": "desk", "input": "Where is A-17?", "user": "ana"}
    done: Any = await begin.function(run("same-key"), **asked)
    assert done["text"] == "Two lamps."
    again: Any = await begin.function(run("same-key"), **asked)
    assert again["run_id"] == done["run_id"], "the key went along"
    seen: Any = await tools["see_run_v1_runs__run_id__get"].function(run(), run_id=done["run_id"])
    assert '"completed"' in json.dumps(seen)
    with pytest.raises(ToolError, match="404"):
        await tools["see_run_v1_runs__run_id__get"].function(run(), run_id="nobody")
