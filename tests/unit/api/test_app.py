"""The API in one process: runs, streams, decisions, and one shape for all that goes wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.api import asgi, create_app, problems
from roadworthy.api.door import MOST_BYTES
from roadworthy.errors import ConfigurationError, RoadworthyError
from roadworthy.testing import ScriptedModel
from tests.unit.api.desks import runtime


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with runtime(tmp_path) as rt:
        transport = httpx.ASGITransport(create_app(rt), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://desk") as made:
            yield made


JSON = {"content-type": "application/json"}
FOREIGN = {"origin": "http://elsewhere"}


async def post(client: httpx.AsyncClient, agent: str, **more: object) -> dict[str, Any]:
    body = {"agent": agent, "input": "Where is A-17?"} | more
    response = await client.post("/v1/runs", json=body)
    assert response.status_code in (200, 202), response.text
    found: dict[str, Any] = response.json()
    return found


def frames(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream; each frame's name and id say what its data says."""
    found = []
    for frame in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.splitlines())
        if fields:
            event = json.loads(fields["data"])
            assert fields["event"] == event["type"]
            assert fields.get("id") == (str(event["seq"]) if "seq" in event else None)
            found.append(event)
    return found


# --- running ----------------------------------------------------------------------------------


async def test_a_run_is_answered_and_seen(client: httpx.AsyncClient) -> None:
    done = await post(client, "desk", user="ana", tenant="acme", conversation="c")
    assert (done["status"], done["text"]) == ("completed", "Two lamps.")
    seen = (await client.get(f"/v1/runs/{done['run_id']}")).json()
    assert seen["result"] == done
    assert (seen["run"]["user"], seen["run"]["tenant"]) == ("ana", "acme")
    listed = (await client.get("/v1/runs")).json()["runs"]
    assert [run["id"] for run in listed] == [done["run_id"]]
    said = await client.get("/v1/conversations/c", params={"user": "ana", "tenant": "acme"})
    assert [m["role"] for m in said.json()["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    other = await client.get("/v1/conversations/c", params={"user": "eve", "tenant": "acme"})
    assert (other.status_code, other.json()["error"]) == (404, "unknown_conversation")


async def test_a_background_run_is_accepted_at_once(client: httpx.AsyncClient) -> None:
    body = {"agent": "desk", "input": "x", "background": True}
    response = await client.post("/v1/runs", json=body)
    assert response.status_code == 202
    run_id = response.json()["run_id"]
    stream = await client.get(f"/v1/runs/{run_id}/events")
    assert frames(stream)[-1]["result"]["text"] == "Two lamps."


@pytest.mark.requirement("TOL-7")
async def test_a_request_may_narrow_what_its_run_uses(client: httpx.AsyncClient) -> None:
    done = await post(client, "desk", options={"tools": []})
    events = (await client.get(f"/v1/runs/{done['run_id']}/events?detail=full")).text
    assert "not_allowed" in events
    body = {"agent": "desk", "input": "x", "options": {"tools": ["launch"]}}
    wrong = await client.post("/v1/runs", json=body)
    assert wrong.status_code in (400, 422)
    assert "has no tool 'launch'" in wrong.text


async def test_files_come_as_base64(client: httpx.AsyncClient) -> None:
    part = {"media_type": "image/png", "data": base64.b64encode(b"12345").decode(), "name": "a.png"}
    done = await post(client, "echo", input=["See: ", part])
    assert done["text"] == "See: , image/png of 5"
    events = (await client.get(f"/v1/runs/{done['run_id']}/events?detail=full")).text
    assert '"data":"5 bytes"' in events


@pytest.mark.requirement("TOL-4")
async def test_the_same_key_is_the_same_run_and_never_another_request(
    client: httpx.AsyncClient,
) -> None:
    key = {"Idempotency-Key": "k"}
    body = {"agent": "desk", "input": "x"}
    first = await client.post("/v1/runs", json=body, headers=key)
    again = await client.post("/v1/runs", json=body, headers=key)
    assert first.json() == again.json()
    other = await client.post("/v1/runs", json=body | {"input": "y"}, headers=key)
    assert (other.status_code, other.json()["error"]) == (409, "idempotency_conflict")
    assert len((await client.get("/v1/runs")).json()["runs"]) == 1


@pytest.mark.requirement("ORC-1")
async def test_a_question_is_answered_in_its_conversation(client: httpx.AsyncClient) -> None:
    asked = await post(client, "asker", conversation="c")
    assert (asked["status"], asked["question"]) == ("waiting", "Which?")
    done = await post(client, "asker", conversation="c", input="A-17")
    assert (done["run_id"], done["status"]) == (asked["run_id"], "completed")


async def test_the_stream_of_an_answer_tells_what_follows_it(client: httpx.AsyncClient) -> None:
    body = {"agent": "asker", "input": "Where?", "conversation": "c"}
    asked = frames(await client.post("/v1/runs/stream", json=body))
    assert asked[-1]["type"] == "RunWaiting"
    answer = body | {"input": "A-17"}
    key = {"Idempotency-Key": "answer"}
    told = frames(await client.post("/v1/runs/stream", json=answer, headers=key))
    assert next(e["seq"] for e in told if "seq" in e) == asked[-1]["seq"] + 1
    assert told[-1]["type"] == "RunEnded"
    again = frames(await client.post("/v1/runs/stream", json=answer, headers=key))
    assert again == [e for e in told if "seq" in e]


async def test_the_one_agent_there_is_need_not_be_named(tmp_path: Path) -> None:
    async with runtime(tmp_path) as rt:
        alone = create_app(rt, [agent for agent in rt.patterns if agent.name == "echo"])
        transport = httpx.ASGITransport(alone)
        async with httpx.AsyncClient(transport=transport, base_url="http://desk") as asks:
            response = await asks.post("/v1/runs", json={"input": "Hello"})
    assert response.json()["text"] == "Hello"


@pytest.mark.requirement("REC-5", "CST-4")
async def test_limits_of_a_request_and_of_a_resume_keep_the_rest(client: httpx.AsyncClient) -> None:
    done = await post(client, "small", options={"limits": {"usd": 0.5}, "tags": {"a": "b"}})
    assert (done["status"], done["reason"]) == ("partial", "turn_limit")
    path = f"/v1/runs/{done['run_id']}"
    limits = (await client.get(path)).json()["limits"]
    assert (limits["turns"], limits["tool_calls"], limits["usd"]) == (1, 7, "0.5")
    resumed = await client.post(f"{path}/resume", json={"limits": {"turns": 9}})
    assert resumed.status_code == 202
    last = frames(await client.get(f"{path}/events"))[-1]
    assert (last["result"]["status"], last["result"]["text"]) == ("completed", "Both.")
    assert (await client.get(path)).json()["limits"] == limits | {"turns": 9}
    refused = await client.post(f"{path}/resume", json={})
    assert (refused.status_code, refused.json()["error"]) == (409, "not_resumable")


@pytest.mark.requirement("REC-5")
async def test_a_run_is_undone_once_by_a_run_of_its_own(tmp_path: Path) -> None:
    @tool
    def cancel(city: str) -> str:
        """Cancel. city: where."""
        return "cancelled"

    @tool(undo=cancel)
    def book(city: str) -> str:
        """Book. city: where."""
        return "booked"

    model = ScriptedModel([ToolCall("book", {"city": "Rome"}), "Booked."])
    async with Runtime(
        f"sqlite:///{tmp_path}/t.db", patterns=[Agent("travel", model=model, tools=[book])]
    ) as rt:
        transport = httpx.ASGITransport(create_app(rt))
        async with httpx.AsyncClient(transport=transport, base_url="http://desk") as asks:
            done = await post(asks, "travel")
            assert done["report"]["undoable"] == ["book"]
            path = f"/v1/runs/{done['run_id']}/undo"
            first, second = [await asks.post(path, json={"by": who}) for who in ("ana", "lea")]
            assert (first.status_code, second.status_code) == (202, 202)
            assert first.json()["run_id"] == second.json()["run_id"] != done["run_id"]
            last = frames(await asks.get(f"/v1/runs/{first.json()['run_id']}/events"))[-1]
            assert last["result"]["text"] == "Undone: book (by cancel)."
            refused = await asks.post(f"/v1/runs/{first.json()['run_id']}/undo", json={"by": "x"})
    assert (refused.status_code, refused.json()["error"]) == (409, "not_undoable")


# --- deciding ---------------------------------------------------------------------------------


async def test_an_approval_is_decided_once(client: httpx.AsyncClient) -> None:
    held = await post(client, "payer")
    (approval,) = held["waiting"]
    path = f"/v1/approvals/{approval['id']}"
    bad = {"decision": "edit", "by": "lea", "arguments": {"order_id": "A-17"}}
    refused = await client.post(path, json=bad)
    assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request")
    edit = bad | {"arguments": {"order_id": "A-17", "euros": 30}}
    assert (await client.post(path, json=edit)).status_code == 202
    again = await client.post(path, json=edit)
    assert (again.status_code, again.json()["error"]) == (404, "unknown_approval")
    events = frames(await client.get(f"/v1/runs/{held['run_id']}/events?detail=full"))
    (done,) = [e for e in events if e["type"] == "ToolSucceeded"]
    assert done["result"]["content"].endswith("refunded 30 of A-17")


async def test_a_waiting_run_is_cancelled(client: httpx.AsyncClient) -> None:
    held = await post(client, "payer")
    path = f"/v1/runs/{held['run_id']}"
    assert (await client.post(f"{path}/cancel", json={"by": "lea"})).status_code == 202
    last = frames(await client.get(f"{path}/events"))[-1]
    assert (last["status"], last["reason"]) == ("stopped", "cancelled")


# --- streams ----------------------------------------------------------------------------------


async def test_a_stream_is_attached_again_where_it_broke(client: httpx.AsyncClient) -> None:
    body = {"agent": "desk", "input": "x"}
    streamed = await client.post("/v1/runs/stream", json=body)
    events = frames(streamed)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert "".join(e["text"] for e in events if e["type"] == "TextDelta") == "Two lamps."
    path = f"/v1/runs/{streamed.headers['x-run-id']}/events"
    recorded = [e for e in events if "seq" in e]
    assert [e["seq"] for e in recorded] == list(range(len(recorded)))
    for place in range(len(recorded) - 1):
        rest = await client.get(path, headers={"Last-Event-ID": str(place)})
        assert frames(rest) == recorded[place + 1 :]
        assert frames(await client.get(f"{path}?after={place}")) == recorded[place + 1 :]
    end = await client.get(path, headers={"Last-Event-ID": str(recorded[-1]["seq"])})
    assert end.status_code == 204


@pytest.mark.requirement("GRD-2")
async def test_users_streams_hold_only_checked_text(client: httpx.AsyncClient) -> None:
    done = await post(client, "desk")
    path = f"/v1/runs/{done['run_id']}/events"
    assert "secret of the tool" not in (await client.get(path)).text
    assert "secret of the tool" in (await client.get(f"{path}?detail=full")).text


@pytest.mark.requirement("OBS-1", "OBS-2", "OBS-3")
async def test_a_trace_says_what_was_done_and_what_it_cost(client: httpx.AsyncClient) -> None:
    done = await post(client, "desk")
    steps = (await client.get(f"/v1/runs/{done['run_id']}/trace")).json()["steps"]
    kinds = [step["kind"] for step in steps]
    assert kinds == ["run", "model", "decision", "tool", "model", "decision", "run"]
    call = steps[3]
    assert call["detail"]["arguments"] == {"order_id": "A-17"}
    assert call["detail"]["result"] == "A-17: secret of the tool"
    models = [steps[1], steps[4]]
    assert all(0 < step["settled"] <= step["reserved"] for step in models)
    assert (models[0]["before"], models[0]["after"]) == (0, models[1]["before"])
    assert models[1]["after"] == done["usage"]["nanos"]


# --- what goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "code"),
    [
        ("GET", "/nothing", {}, 404, "not_found"),
        ("PUT", "/v1/runs", {}, 405, "method_not_allowed"),
        ("GET", "/v1/runs/none", {}, 404, "unknown_run"),
        ("GET", "/v1/runs/none/events", {}, 404, "unknown_run"),
        ("GET", "/v1/runs/none/trace", {}, 404, "unknown_run"),
        ("GET", "/v1/runs?most=0", {}, 422, "invalid_request"),
        ("GET", "/v1/conversations/c", {}, 422, "invalid_request"),
        ("GET", "/v1/conversations/c?user=", {}, 422, "invalid_request"),
        ("GET", "/v1/conversations/c?user=u", {}, 404, "unknown_conversation"),
        ("POST", "/v1/runs", {"json": {"input": "x"}}, 422, "agent_missing"),
        (
            "POST",
            "/v1/runs",
            {"json": {"agent": "desk", "input": "x"}, "headers": FOREIGN},
            403,
            None,
        ),
        ("POST", "/v1/runs/none/cancel", {"json": {}}, 404, "unknown_run"),
        ("POST", "/v1/approvals/no", {"json": {"decision": "approve", "by": "x"}}, 404, None),
        ("POST", "/v1/runs", {"json": {"agent": "no", "input": "x"}}, 404, "unknown_agent"),
        ("POST", "/v1/runs", {"json": {"agent": "desk", "input": " "}}, 422, "invalid_request"),
        ("POST", "/v1/runs", {"json": {"agent": "desk", "input": []}}, 422, "invalid_request"),
        ("POST", "/v1/runs", {"json": {"agent": "desk", "input": "x", "more": 1}}, 422, None),
        ("POST", "/v1/runs", {"json": []}, 422, "invalid_request"),
        (
            "POST",
            "/v1/runs",
            {"json": {"agent": "desk", "input": "x", "options": {"model": "no"}}},
            422,
            "unknown_model",
        ),
        ("POST", "/v1/runs", {"content": b"{", "headers": JSON}, 422, "invalid_json"),
        ("POST", "/v1/runs", {"content": b"[" * 100_000, "headers": JSON}, None, None),
        ("POST", "/v1/runs", {"content": b"x" * (MOST_BYTES + 1)}, 413, "too_large"),
    ],
)
async def test_every_error_has_one_shape(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    sent: dict[str, Any],
    status: int | None,
    code: str | None,
) -> None:
    response = await client.request(method, path, **sent)
    body = response.json()
    assert 400 <= response.status_code < 500
    assert response.status_code == (status or response.status_code)
    assert set(body) == {"error", "message", "mend"}
    assert body["error"] == (code or body["error"])
    assert body["message"]
    assert body["mend"]


def kinds_of(error: type[RoadworthyError]) -> list[type[RoadworthyError]]:
    return [error, *(kind for sub in error.__subclasses__() for kind in kinds_of(sub))]


@pytest.mark.parametrize("kind", kinds_of(RoadworthyError))
async def test_every_kind_of_error_says_how_to_mend_it(kind: type[RoadworthyError]) -> None:
    assert "mend" in vars(kind), "the mend of a wider kind is rarely that of this one"
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    async def fail() -> None:
        raise kind("It went wrong.")

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://desk") as asks:
        response = await asks.get("/")
    assert response.status_code >= 400
    assert response.json()["mend"] == kind.mend


async def test_a_body_without_a_length_is_bounded_too(client: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1_000_000

    response = await client.post("/v1/runs", content=endless())
    assert response.status_code == 413


class Troubled(Runtime):
    """A runtime whose disk is full."""

    @property
    def trouble(self) -> str | None:
        return "the disk is full"


@pytest.mark.requirement("REC-7")
async def test_health_fails_while_the_store_cannot_commit(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    assert (await client.get("/health")).json() == {"status": "ok"}
    troubled = Troubled(patterns=runtime(tmp_path).patterns)
    transport = httpx.ASGITransport(create_app(troubled))
    async with httpx.AsyncClient(transport=transport, base_url="http://desk") as asks:
        response = await asks.get("/health")
    assert response.status_code == 503
    assert response.json()["message"] == "the disk is full"


async def test_nothing_to_serve_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError, match="no agent to serve"):
        asgi(Runtime())


# --- mounted ----------------------------------------------------------------------------------


async def test_it_is_mounted_in_an_app_of_ones_own(tmp_path: Path) -> None:
    rt = runtime(tmp_path)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with rt:
            yield

    own = FastAPI(lifespan=lifespan)
    own.mount("/agents", asgi(rt))

    @own.get("/hello")
    async def hello() -> str:
        return (await rt.run(rt.patterns[0], "Where is A-17?")).text

    transport = httpx.ASGITransport(own, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://desk") as asks:
        body = {"agent": "desk", "input": "Where is A-17?"}
        early = await asks.post("/agents/v1/runs", json=body)
        assert early.status_code == 500
        assert "async with Runtime" in early.json()["message"]
        async with own.router.lifespan_context(own):
            assert (await asks.get("/hello")).json() == "Two lamps."
            done = (await asks.post("/agents/v1/runs", json=body)).json()
            assert done["text"] == "Two lamps."
            told = frames(await asks.post("/agents/v1/runs/stream", json=body))
            assert told[-1]["result"]["text"] == "Two lamps."
            wrong = await asks.post("/agents/v1/runs", json={})
            assert set(wrong.json()) == {"error", "message", "mend"}
            assert (await asks.get("/agents/nothing")).json()["error"] == "not_found"
            here = {"host": "localhost", "cookie": "roadworthy_operator=lea"}
            page = await asks.get(f"/agents/runs/{done['run_id']}", headers=here)
            assert page.status_code == 200
            assert 'src="/agents/console/static/' in page.text
        with pytest.raises(ConfigurationError, match="not open"):
            await rt.runs()
