"""MCP servers over HTTP that want a sign-in: a token, a function, client credentials."""

from __future__ import annotations

from pathlib import Path

import pytest

from roadworthy import DeclarationError, Runtime
from roadworthy.agent import Effect
from roadworthy.errors import ToolsetUnavailable
from roadworthy.events import ToolSucceeded
from roadworthy.testing import FakeClock
from roadworthy.tools.mcp import MCP, ClientCredentials
from tests.scenarios.odd_http import OddHttp
from tests.scenarios.test_mcp import agent, of, url


async def called(folder: Path, mine: MCP, times: int = 1) -> str:
    """How the last of so many runs ended that call the server's one tool."""
    async with Runtime(url(folder), clock=FakeClock(auto=True)) as rt:
        for _ in range(times):
            events = await rt.record(
                (await rt.run(agent(mine, calls={"odd_look": {}}), "Look.")).run_id
            )
    (done,) = of(ToolSucceeded, events)
    return str(done.result.content)


async def test_a_token_is_sent_and_asked_for_anew_when_it_is_refused(tmp_path: Path) -> None:
    tokens = ["old", "new"]

    async def token() -> str:
        return tokens.pop(0) if len(tokens) > 1 else tokens[0]

    reads: dict[str, Effect] = {"look": "read"}
    with OddHttp(demands="new") as odd:
        mine = MCP("odd", url=odd.url, effects=reads, auth="new")
        assert await called(tmp_path, mine) == "well"
        assert odd.refused == 0
        mine = MCP("odd", url=odd.url, effects=reads, auth=token)
        assert await called(tmp_path, mine) == "well"
    assert odd.callers == ["Bearer new", "Bearer new"]
    assert odd.refused == 1
    assert "new" not in repr(MCP("odd", url=odd.url, auth="new"))


def client(secret: str, issuer: str) -> ClientCredentials:
    return ClientCredentials(client_id="desk", client_secret=secret, issuer=issuer)


async def test_a_client_signs_in_by_its_credentials(tmp_path: Path) -> None:
    with OddHttp(demands="t-1") as odd:
        issuer = odd.url.removesuffix("/mcp")
        desk = client("geheim", issuer)
        mine = MCP("odd", url=odd.url, effects={"look": "read"}, auth=desk)
        assert await called(tmp_path, mine, times=2) == "well"
    assert (odd.callers, odd.signed_in) == (["Bearer t-1"] * 2, 1)
    assert "geheim" not in repr(desk)


@pytest.mark.parametrize("way", ["secret", "token", "broken"])
async def test_who_cannot_sign_in_has_no_tools_and_no_secret_is_told(
    tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> str:
        raise OSError("the vault refuses xyz")

    with OddHttp(demands="t-1") as odd:
        issuer = odd.url.removesuffix("/mcp")
        wrong = client("xyz", issuer)
        auth = {"secret": wrong, "token": "xyz", "broken": broken}[way]
        mine = MCP("odd", url=odd.url, auth=auth, required=True)  # type: ignore[arg-type]
        with pytest.raises(ToolsetUnavailable) as raised:
            async with Runtime(url(tmp_path), patterns=[agent(mine)]):
                pass
    assert odd.callers == []
    assert "xyz" not in f"{raised.value}{caplog.text}"


def test_what_makes_no_sense_to_sign_in_with_is_said() -> None:
    with pytest.raises(DeclarationError, match="env="):
        MCP("odd", command=["x"], auth="t")
    with pytest.raises(DeclarationError, match="issuer="):
        client("b", "auth.example.com")
