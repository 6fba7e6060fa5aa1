"""The server in a real process: dropped clients, re-attaching, the page in a real browser."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from tests.scenarios.faces import Place, Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ("--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
Event = dict[str, Any]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    os.mkfifo(tmp_path / "gate")
    return Place(tmp_path)


@pytest.fixture
def server(place: Place) -> Iterator[Server]:
    served = Server(place)
    yield served
    served.close()


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as made:
        yield made


@pytest.fixture
def browser_page(server: Server) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(FLAGS), chromium_sandbox=False
        )
        page = browser.new_page(base_url=server.url)
        page.goto("/")
        page.get_by_label("Your name").fill("lea")
        page.get_by_role("button", name="Go on").click()
        page.wait_for_url("**/inbox")
        yield page
        browser.close()


def asks(agent: str, **more: str | bool) -> dict[str, Any]:
    return {"json": {"agent": agent, "input": "Where is <i>A-17</i>?", **more}}


def read(lines: Iterator[str], until: Sequence[str]) -> list[Event]:
    """Events of a stream, up to one of these types or its end."""
    found: list[Event] = []
    for line in lines:
        if line.startswith("data: "):
            found.append(json.loads(line.removeprefix("data: ")))
            if found[-1]["type"] in until:
                break
    return found


def places(events: Sequence[Event]) -> list[int]:
    """Positions in the journal."""
    return [event["seq"] for event in events if "seq" in event]


@pytest.mark.requirement("REC-7")
def test_a_dropped_client_cancels_nothing_and_attaches_again(
    place: Place, client: httpx.Client
) -> None:
    with client.stream("POST", "/v1/runs/stream", **asks("gated")) as response:
        first = read(response.iter_lines(), ["DecisionMade"])
        run_id = response.headers["x-run-id"]
    assert first[0]["type"] == "RunStarted"
    last = str(places(first)[-1])
    (place.folder / "gate").write_text("open")  # returns once the tool, still at work, reads it
    headers = {"Last-Event-ID": last}
    with client.stream("GET", f"/v1/runs/{run_id}/events", headers=headers) as response:
        rest = read(response.iter_lines(), ["RunEnded"])
    assert places(first) + places(rest) == list(range(rest[-1]["seq"] + 1))
    assert rest[-1]["result"]["status"] == "completed"
    assert rest[-1]["result"]["text"] == "The gate is open."
    seen = client.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": str(rest[-1]["seq"])})
    assert seen.status_code == 204


def test_a_second_server_on_the_same_file_shows_and_starts_runs(
    place: Place, client: httpx.Client
) -> None:
    other = Server(place)
    try:
        with httpx.Client(base_url=other.url, timeout=30, trust_env=False) as guest:
            done = guest.post("/v1/runs", **asks("desk")).json()
            assert done["status"] == "completed"
            assert client.get(f"/v1/runs/{done['run_id']}").json()["result"] == done
    finally:
        other.close()


def test_only_its_own_names_and_pages_are_answered(client: httpx.Client) -> None:
    strange = client.get("/v1/runs", headers={"Host": "evil.example"})
    assert (strange.status_code, strange.json()["error"]) == (403, "wrong_host")
    foreign = client.post("/v1/runs", headers={"Origin": "http://evil.example"}, **asks("desk"))
    assert (foreign.status_code, foreign.json()["error"]) == (403, "wrong_origin")


@pytest.mark.requirement("OBS-1")
def test_the_page_shows_text_as_text_and_asks_nobody_else(
    client: httpx.Client, browser_page: Page
) -> None:
    asked: list[str] = []
    said: list[str] = []
    browser_page.on("request", lambda request: asked.append(request.url))
    browser_page.on("console", lambda message: said.append(message.text))
    browser_page.on("pageerror", lambda error: said.append(str(error)))
    browser_page.on("dialog", lambda dialog: said.append(dialog.message))
    run_id = client.post("/v1/runs", **asks("desk", user="<b>ana</b>")).json()["run_id"]
    browser_page.goto(f"/runs/{run_id}")
    browser_page.locator(".beside .text", has_text="Two lamps. <img src=x").wait_for()
    browser_page.locator("summary", has_text="find_order").last.click()
    browser_page.locator("details[open] dd", has_text="<script>alert(1)").wait_for()
    assert browser_page.locator("h1").inner_text() == "Where is <i>A-17</i>?"
    assert (
        browser_page.locator("main img, main script, main i i, main b b, h1 i, h1 b").count() == 0
    )
    browser_page.goto("/runs")
    browser_page.get_by_text("<b>ana</b>").wait_for()
    assert said == []
    assert [url for url in asked if not url.startswith((str(client.base_url), "data:"))] == []


@pytest.mark.requirement("ORC-1")
def test_the_page_follows_a_run_and_takes_a_decision(
    place: Place, client: httpx.Client, browser_page: Page
) -> None:
    run_id = client.post("/v1/runs", **asks("payer")).json()["run_id"]
    browser_page.goto(f"/runs/{run_id}")
    browser_page.get_by_role("button", name="Approve").click()
    browser_page.locator(".beside .text", has_text="It is on its way.").wait_for()
    browser_page.get_by_text("approve by lea").wait_for()
    assert (place.folder / "bank.txt").read_text() == "A-17 40\n"


def test_a_port_in_use_is_one_clear_line(place: Place, server: Server) -> None:
    port = server.url.rstrip("/").rpartition(":")[2]
    refused = place.cli("serve", "desk.py", "--port", port)
    assert refused.returncode == 2
    assert "Choose another with --port." in refused.stderr
