"""`http_tool`: where arguments go, and what a status means."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from roadworthy import DeclarationError, File, NotApplied, RunContext, ToolError
from roadworthy.tools.http import Answer, http_tool
from roadworthy.tools.http.calls import meaning
from roadworthy.tools.http.operations import Operation, Parameter, filled
from tests.unit.tools.http.serving import LOCAL, run, serving, text

STRING = {"type": "string"}


async def echo(request: web.Request) -> web.StreamResponse:
    body = (await request.read()).decode()
    return web.json_response({"path": request.raw_path, "body": body})


async def test_arguments_go_to_their_places_encoded() -> None:
    async with serving(echo) as served:
        order = http_tool(
            "order",
            "One order.",
            f"{served.url}/orders/{{id}}?view={{view}}&v=2",
            {"id": STRING, "view": STRING, "page": {"type": "integer"}},
            client=LOCAL,
        )
        assert order.effect == "read"
        found: Any = await order.function(run(), id="a/b?c#d %&", view="x&v=3", page=2)
    assert found["path"] == "/orders/a%2Fb%3Fc%23d%20%25%26?v=2&view=x%26v%3D3&page=2"
    assert "Idempotency-Key" not in served.heard[0]


@pytest.mark.requirement("TOL-4")
async def test_an_effect_carries_the_key_and_the_credentials_of_its_user() -> None:
    async def headers(context: RunContext[Any]) -> dict[str, str]:
        return {"Authorization": f"Bearer {context.user.id}"}

    async with serving(echo) as served:
        pay = http_tool(
            "pay",
            "Pay an order back.",
            f"{served.url}/orders/{{id}}/refunds",
            {"id": STRING, "euros": {"type": "integer"}, "Authorization": STRING},
            method="post",
            headers=headers,
            client=LOCAL,
        )
        assert pay.effect == "irreversible"
        found: Any = await pay.function(run("key-7"), id="A-17", euros=40, Authorization="evil")
    assert served.heard[0]["Idempotency-Key"] == "key-7"
    assert served.heard[0]["Authorization"] == "Bearer ana"
    assert found["body"] == '{"euros":40,"Authorization":"evil"}'


async def test_credentials_that_cannot_be_had_are_no_unknown_outcome() -> None:
    def headers(_: RunContext[Any]) -> dict[str, str]:
        raise KeyError("secret")

    async with serving(text) as served:
        tool = http_tool("a", "B.", f"{served.url}/", method="POST", headers=headers, client=LOCAL)
        with pytest.raises(NotApplied) as caught:
            await tool.function(run())
    assert "secret" not in str(caught.value)
    assert served.seen == []


@pytest.mark.parametrize("value", ["..", ".", "", "a/../b", "..\\x", "x/..", "a\nb", "\0"])
async def test_an_argument_cannot_leave_its_place_in_the_path(value: str) -> None:
    async with serving(text) as served:
        tool = http_tool("a", "B.", f"{served.url}/users/{{id}}", {"id": STRING}, client=LOCAL)
        with pytest.raises(ToolError, match="cannot stand in a path"):
            await tool.function(run(), id=value)
    assert served.seen == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(path=VALUES, query=VALUES, header=VALUES, cookie=VALUES)
def test_whatever_a_model_says_host_and_scheme_stay(**values: object) -> None:
    styles = {"path": "simple", "query": "form", "header": "simple", "cookie": "form"}
    operation = Operation(
        name="a",
        description="B.",
        method="GET",
        base="https://shop.example",
        path="/v1/{path}/end",
        parameters=tuple(
            Parameter(key=at, name=at, at=at, style=styles[at])  # type: ignore[arg-type]
            for at in styles
        ),
    )
    try:
        found = filled(operation, values)
    except ToolError:
        return
    parts = urlsplit(found.url)
    assert (parts.scheme, parts.netloc) == ("https", "shop.example")
    assert found.url.isascii()
    assert parts.path.startswith("/v1/")
    assert parts.path.endswith("/end")
    assert parts.path.count("/") == 3
    assert ".." not in unquote(parts.path).split("/")
    assert all(value.isascii() and value.isprintable() for value in found.headers.values())


def answered(status: int, body: bytes = b"", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=named, body=body)


@pytest.mark.requirement("TOL-3")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422, 499])
@pytest.mark.parametrize("changes", [False, True])
def test_a_refusal_is_told_to_the_model_in_the_servers_words(status: int, changes: bool) -> None:
    with pytest.raises(ToolError, match="no such order") as caught:
        meaning(answered(status, b"no such order" + b"." * 9000), "GET /x", changes=changes)
    assert not caught.value.retry
    assert len(str(caught.value)) < 500


@pytest.mark.requirement("TOL-3")
def test_too_many_requests_wait_as_long_as_the_server_says() -> None:
    with pytest.raises(NotApplied) as caught:
        meaning(answered(429, retry_after="7"), "POST /x", changes=True)
    assert (caught.value.retry, caught.value.retry_after) == (True, 7)
    then, later = "Sat, 21 Nov 2026 10:00:00 GMT", "Sat, 21 Nov 2026 10:01:30 GMT"
    with pytest.raises(ToolError) as busy:
        meaning(answered(503, date=then, retry_after=later), "GET /x", changes=False)
    assert (busy.value.retry, busy.value.retry_after) == (True, 90)


@pytest.mark.parametrize("odd", ["", "soon", "-1", "9" * 400, "Sat, 99 Nov"])
def test_an_odd_retry_after_harms_nothing(odd: str) -> None:
    with pytest.raises(NotApplied) as caught:
        meaning(answered(429, retry_after=odd), "GET /x", changes=False)
    assert (caught.value.retry_after or 0) <= 86_400


@pytest.mark.requirement("TOL-4")
@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 302])
def test_an_effect_that_the_server_failed_in_is_of_unknown_outcome(status: int) -> None:
    with pytest.raises(RuntimeError):
        meaning(answered(status), "POST /x", changes=True)


def test_redirects_say_what_became_of_it() -> None:
    assert meaning(answered(303, location="/done"), "POST /x", changes=True) == "done"
    for status, changes in ((307, True), (308, True), (302, False)):
        with pytest.raises(NotApplied) as caught:
            meaning(answered(status, location="/"), "x", changes=changes)
        assert not caught.value.retry


def test_results_are_what_they_are() -> None:
    def value(body: bytes, kind: str, *, cut: bool = False) -> object:
        answer = Answer(status=200, headers={"content-type": kind}, body=body, cut=cut)
        return meaning(answer, "GET /x", changes=False)

    assert value(b'{"a": 1.10}', "application/json; charset=utf-8") == {"a": 1.1}
    assert value(b'{"a": NaN}', "application/problem+json") == {"a": "NaN"}
    assert value(b"{broken", "application/json") == "{broken"
    assert value(b"[" * 100_000, "application/json") == "[" * 100_000
    assert value(b"[" * 500 + b"]" * 500, "application/json") == "[" * 500 + "]" * 500
    assert (
        value("gr\u00fc\u00df".encode("latin-1"), "text/plain; charset=latin-1") == "gr\u00fc\u00df"
    )
    assert value(b"x", "text/plain; charset=odd") == "x"
    assert value(b"\xff\0", "application/octet-stream").__class__ is str
    assert isinstance(value(b"\x89PNG", "image/png"), File)
    assert str(value(b"abc", "text/plain", cut=True)).startswith("[cut: only the first 3 bytes")
    assert meaning(answered(204), "DELETE /x", changes=True) == "done"


@pytest.mark.parametrize(
    ("url", "parameters"),
    [
        ("https://{host}/x", {"host": STRING}),
        ("{scheme}://shop.example/x", {"scheme": STRING}),
        ("https://shop.example/{id}", {}),
        ("https://shop.example/?a=x{id}", {"id": STRING}),
        ("https://shop.example/{id}", {"type": "object", "properties": {"id": STRING}}),
        ("ftp://shop.example/", {}),
        ("/orders", {}),
    ],
)
def test_wrong_declarations_fail_at_once(url: str, parameters: dict[str, object]) -> None:
    with pytest.raises(DeclarationError):
        http_tool("a", "B.", url, parameters)
