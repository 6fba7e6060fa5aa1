"""The client: where it goes, how often, how much it reads."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc

import pytest
from aiohttp import web

from roadworthy import DeclarationError, NotApplied
from roadworthy.tools.http import Client, Request
from tests.unit.tools.http.serving import LOCAL, at, raw, serving, text


def get(url: str, **headers: str) -> Request:
    return Request(method="GET", url=url, headers=headers)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0",
    ],
)
async def test_this_machine_is_refused_however_it_is_written(host: str) -> None:
    async with serving(text) as served:
        with pytest.raises(NotApplied) as caught:
            await Client().send(get(f"http://{host}:{served.port}/"))
    assert not caught.value.retry
    assert served.seen == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/", "gopher://127.0.0.1/", "//x/"])
async def test_only_http(url: str) -> None:
    with pytest.raises(NotApplied):
        await LOCAL.send(get(url))
    with pytest.raises(DeclarationError):
        LOCAL.check(url)


@pytest.mark.requirement("TOL-7")
async def test_a_name_that_changes_its_address_after_the_check_leads_nowhere_else() -> None:
    """The second answer would be this machine; it is never asked for."""
    resolve = at(["192.0.2.1"], ["127.0.0.1"])
    async with serving(text) as served:
        with pytest.raises(NotApplied, match=r"192\.0\.2\.1"):
            await Client(resolve=resolve).send(get(f"http://shop.example:{served.port}/"))
        asked = 0

        async def counted(host: str, port: int) -> list[str]:
            nonlocal asked
            asked += 1
            return ["127.0.0.1"] if asked == 1 else ["192.0.2.1"]

        client = Client(allow=["shop.example"], resolve=counted)
        answer = await client.send(get(f"http://shop.example:{served.port}/a"))
    assert (answer.body, asked) == (b"hello /a", 1)
    assert served.heard[0]["Host"] == f"shop.example:{served.port}"


async def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    client = Client(resolve=at(["1.1.1.1", "10.0.0.1"]))
    with pytest.raises(NotApplied, match=r"10\.0\.0\.1"):
        await client.send(get("http://shop.example/"))


async def test_redirects_are_answers_unless_some_are_allowed() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/start":
            raise web.HTTPFound("/end")
        return await text(request)

    async with serving(handler) as served:
        assert (await LOCAL.send(get(f"{served.url}/start"))).status == 302
        follows = Client(allow=["127.0.0.1"], follow=1)
        assert (await follows.send(get(f"{served.url}/start"))).body == b"hello /end"
        posted = await follows.send(Request(method="POST", url=f"{served.url}/start"))
        assert posted.status == 302


async def test_a_redirect_to_a_private_address_is_refused_and_credentials_stay_behind() -> None:
    async with serving(text) as other:

        async def handler(request: web.Request) -> web.StreamResponse:
            to = request.query["to"]
            raise web.HTTPFound(f"http://{to}:{other.port}/x")

        async with serving(handler) as served:
            client = Client(
                allow=["shop.example", "other.example"], follow=3, resolve=at(["127.0.0.1"])
            )
            base = f"http://shop.example:{served.port}/?to="
            with pytest.raises(NotApplied, match="not a public address"):
                await client.send(get(f"{base}127.0.0.1", Authorization="Bearer s", Cookie="s"))
            assert other.seen == []
            headers = {"Authorization": "Bearer s", "Accept": "text/plain", "X-Api-Key": "s"}
            answer = await client.send(get(f"{base}other.example", **headers))
    assert answer.status == 200
    assert other.heard[0]["Accept"] == "text/plain"
    assert not {"Authorization", "X-Api-Key", "Cookie"} & set(other.heard[0])


async def test_redirects_end() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/again")

    async with serving(handler) as served:
        answer = await Client(allow=["127.0.0.1"], follow=4).send(get(f"{served.url}/"))
    assert (answer.status, len(served.seen)) == (302, 5)


async def test_a_packed_bomb_is_read_as_far_as_it_may() -> None:
    block = gzip.compress(bytes(64 * 1024 * 1024), 9)

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(body=block, headers={"Content-Encoding": "gzip"})

    async with serving(handler) as served:
        tracemalloc.start()
        try:
            answer = await Client(allow=["127.0.0.1"], most=1000).send(get(f"{served.url}/"))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 8 * 1024 * 1024
    assert (len(answer.body), answer.cut) == (1000, True)


async def test_a_body_without_end_is_cut() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except ConnectionError:
            return response

    async with serving(handler) as served:
        answer = await LOCAL.send(get(f"{served.url}/"))
    assert (len(answer.body), answer.cut) == (1_000_000, True)


async def test_a_body_that_never_comes_ends_in_time() -> None:
    done = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await done.wait()
        return response

    async with serving(handler) as served:
        with pytest.raises(TimeoutError):
            await Client(allow=["127.0.0.1"], seconds=0.2).send(get(f"{served.url}/"))
        done.set()


@pytest.mark.requirement("TOL-4")
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_nothing_is_sent_twice_when_the_connection_breaks(method: str) -> None:
    async with raw(b"") as served:
        with pytest.raises(ConnectionError):
            await LOCAL.send(Request(method=method, url=f"{served.url}/x"))
    assert len(served.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_answer_is_an_unknown_outcome(answer: bytes) -> None:
    async with raw(answer) as served:
        with pytest.raises(ConnectionError):
            await LOCAL.send(get(f"{served.url}/"))


async def test_nobody_listening_means_that_nothing_was_sent() -> None:
    async with raw(b"") as served:
        pass
    with pytest.raises(NotApplied) as caught:
        await LOCAL.send(get(f"{served.url}/"))
    assert caught.value.retry


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-A", "a\r\nX-B: c"), ("X-A", "a\0"), ("X A", "a"), ("Host", "x"), ("X-A", "\u20ac")],
)
async def test_headers_cannot_be_smuggled(name: str, value: str) -> None:
    async with serving(text) as served:
        with pytest.raises(NotApplied):
            await LOCAL.send(get(f"{served.url}/", **{name: value}))
    assert served.seen == []


async def test_proxies_of_the_environment_and_cookies_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(headers={"Set-Cookie": "a=b"})

    async with serving(handler) as served:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        await LOCAL.send(get(f"{served.url}/"))
        await LOCAL.send(get(f"{served.url}/"))
    assert "Cookie" not in served.heard[1]


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://localhost/", "http://u:p@x.example/"])
def test_what_would_be_refused_is_said_at_the_declaration(url: str) -> None:
    with pytest.raises(DeclarationError):
        Client().check(url)
    Client(allow=["127.0.0.1", "localhost"]).check("http://127.0.0.1/")
