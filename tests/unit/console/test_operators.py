"""Who is let in: a name on this machine, a token elsewhere, one's own sign-in, tenants apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request

from roadworthy import User
from roadworthy.api import create_app
from roadworthy.console import NameOnly, Operator, SignIn, Tokens
from roadworthy.errors import ConfigurationError
from roadworthy.testing import FakeClock
from tests.unit.api.desks import desk, payer, runtime

SECRET = "a-token-of-some-length"  # noqa: S105 - of this test only
LEA = Operator("lea", "Lea", tenant="acme")


@asynccontextmanager
async def opened(
    folder: Path, sign_in: SignIn | None = None, host: str = "localhost"
) -> AsyncIterator[httpx.AsyncClient]:
    async with runtime(folder) as rt:
        app = create_app(rt, sign_in=sign_in)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as made:
            yield made


async def enter(client: httpx.AsyncClient, said: str, to: str = "/runs") -> httpx.Response:
    return await client.post("/console/sign-in", data={"said": said, "to": to})


async def test_a_name_is_asked_for_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        sent = await client.get("/runs")
        assert (sent.status_code, sent.headers["location"]) == (303, "/console/sign-in?to=%2Fruns")
        form = await client.get(sent.headers["location"])
        assert 'type="text"' in form.text
        entered = await enter(client, " Lea <b>  Meier ")
        assert (entered.status_code, entered.headers["location"]) == (303, "/runs")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        page = await client.get("/runs")
        assert "Lea &lt;b&gt; Meier" in page.text
        assert (await client.get("/")).headers["location"] == "/inbox"
        assert (await client.get("/console/me")).status_code == 204
        await client.post("/console/sign-out")
        assert (await client.get("/runs")).status_code == 303


@pytest.mark.parametrize("name", ["", "   ", "x" * 81])
async def test_an_empty_or_endless_name_is_not_taken(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path) as client:
        refused = await enter(client, name)
    assert refused.status_code == 422
    assert "not accepted" in refused.text


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("desk.example", {}),
        ("localhost", {"x-forwarded-for": "10.0.0.9"}),
        ("localhost", {"forwarded": "for=10.0.0.9"}),
    ],
)
async def test_from_elsewhere_the_console_is_closed_until_it_has_a_sign_in(
    tmp_path: Path, host: str, headers: dict[str, str]
) -> None:
    async with opened(tmp_path, host=host) as client:
        client.headers.update({**headers, "cookie": "roadworthy_operator=lea"})
        for path in ("/", "/runs", "/console/runs", "/console/live", "/console/sign-in"):
            refused = await client.get(path)
            assert refused.status_code == 403, path
            assert "sign_in=Tokens" in refused.text
        entered = await enter(client, "lea")
        assert entered.status_code == 403
        assert "set-cookie" not in entered.headers


async def test_a_client_of_another_machine_is_not_believed() -> None:
    scope = {"type": "http", "headers": [(b"host", b"localhost")], "client": ("10.0.0.9", 4)}
    assert NameOnly().trouble(Request(scope))
    assert not NameOnly().trouble(Request(scope | {"client": ("::1", 4)}))


async def test_a_token_is_exchanged_for_a_session_that_ends(tmp_path: Path) -> None:
    clock = FakeClock()
    tokens = Tokens({SECRET: LEA, "another-operators-token": Operator("kim", "Kim")}, clock=clock)
    async with opened(tmp_path, tokens, host="desk.example") as client:
        assert (await enter(client, "not-a-token-at-all")).status_code == 422
        assert (await enter(client, "ü\U0001f600")).status_code == 422
        entered = await enter(client, f" {SECRET} ")
        assert entered.status_code == 303
        assert SECRET not in entered.headers["set-cookie"]
        assert "Lea" in (await client.get("/runs")).text
        cookie = client.cookies["roadworthy_operator"]
        ends, _, seal = cookie.partition(".")
        for forged in (
            f"{int(ends) + 1}.{seal}",
            f"{ends}.",
            ".",
            "",
            "ü.ü",
            f"{ends}.{seal[:-1]}",
        ):
            client.cookies.clear()
            headers = {b"cookie": f"roadworthy_operator={forged}".encode()}
            assert (await client.get("/runs", headers=headers)).status_code == 303, forged
        client.cookies.set("roadworthy_operator", cookie)
        assert (await client.get("/runs")).status_code == 200
        await clock.advance(12 * 3600 + 1)
        assert (await client.get("/runs")).status_code == 303


def test_a_token_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 16 characters"):
        Tokens({"short": LEA})
    with pytest.raises(ConfigurationError, match="token_urlsafe"):
        Tokens({})


class Header:
    """A sign-in of one's own: a proxy in front says who it is."""

    async def operator(self, request: Request) -> Operator | None:
        name = request.headers.get("x-user", "")
        return Operator(name, name, tenant=request.headers.get("x-tenant")) if name else None


async def test_a_sign_in_of_ones_own_decides(tmp_path: Path) -> None:
    async with opened(tmp_path, Header(), host="desk.example") as client:
        assert (await client.get("/runs")).status_code == 401
        assert (await client.get("/console/sign-in")).status_code == 404
        assert (await enter(client, "lea")).status_code == 404
        assert "Lea" in (await client.get("/runs", headers={"x-user": "Lea"})).text


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil", "", "/a\r\nb"])
async def test_one_lands_on_a_page_of_the_console(tmp_path: Path, to: str) -> None:
    async with opened(tmp_path) as client:
        assert (await enter(client, "lea", to)).headers["location"] == "/inbox"


async def test_another_tenants_runs_are_not_there(tmp_path: Path) -> None:
    async with runtime(tmp_path) as rt:
        theirs = await rt.run(payer, "secret words", user=User("eve", tenant="other"))
        own = await rt.run(desk, "x", user=User("ana", tenant="acme"))
        transport = httpx.ASGITransport(create_app(rt, sign_in=Header()))
        headers = {"x-user": "lea", "x-tenant": "acme"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://desk", headers=headers
        ) as client:
            listed = await client.get("/runs")
            assert own.run_id in listed.text
            assert theirs.run_id not in listed.text
            assert (await client.get(f"/console/runs/{own.run_id}")).status_code == 200
            unknown = await client.get("/console/runs/run_none")
            for path in (
                f"/runs/{theirs.run_id}",
                f"/console/runs/{theirs.run_id}",
                f"/console/live?run={theirs.run_id}",
            ):
                refused = await client.get(path)
                assert refused.status_code == 404
                assert refused.text == unknown.text.replace("run_none", theirs.run_id)
            (approval,) = theirs.waiting
            path = f"/console/runs/{theirs.run_id}/approvals/{approval.id}"
            refused = await client.post(path, data={"decision": "approve"})
            assert refused.status_code == 404
            through = f"/console/runs/{own.run_id}/approvals/{approval.id}"
            assert (await client.post(through, data={"decision": "approve"})).status_code == 404
            assert (await rt.find(theirs.run_id)).status == "waiting"


async def test_a_page_of_another_site_cannot_act(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        for origin in ("http://evil.example", "null"):
            refused = await client.post("/console/sign-out", headers={"origin": origin})
            assert refused.status_code == 403
        allowed = await client.post("/console/sign-out", headers={"origin": "http://localhost"})
        assert allowed.status_code == 303


async def test_pages_are_strict(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        await enter(client, "lea")
        for path in ("/runs", "/console/sign-in"):
            page = await client.get(path)
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert page.headers["referrer-policy"] == "same-origin"
            assert page.headers["cache-control"] == "no-store"
            assert page.headers["x-content-type-options"] == "nosniff"
        (style,) = [part for part in page.text.split('"') if part.endswith("console.css")]
        served = await client.get(style)
        assert "immutable" in served.headers["cache-control"]
        assert served.headers["content-type"].startswith("text/css")
        assert (await client.get("/console/static/x/../app.py")).status_code == 404
        assert (await client.get("/console/static/x/vendored.toml")).status_code == 404
