"""Each tenant's runs are paid with its own key, and no key is ever written down."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from roadworthy import Agent, ProviderOptions, Runtime, User
from roadworthy.errors import ConfigurationError
from tests.scenarios.world import url

pytest.importorskip("openai")
KEYS = {"acme": "first-of-acme", "bolt": "only-of-bolt"}


@dataclass
class Provider:
    """A server of OpenAI's chat format on loopback; it refuses the keys it is told to."""

    url: str = ""
    seen: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    def answer(self, authorization: str) -> tuple[int, object]:
        self.seen.append(authorization)
        if authorization.removeprefix("Bearer ") in self.refused:
            return 401, {"error": {"message": f"Incorrect key: {authorization}"}}
        said = {"role": "assistant", "content": "Hello."}
        return 200, {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "own",
            "choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        }


@contextmanager
def serving() -> Iterator[Provider]:
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status, said = provider.answer(self.headers["authorization"])
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    provider.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield provider
    server.shutdown()
    server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving() as found:
        yield found


DESK = Agent("desk", model="openai-chat:own")


def runtime(
    folder: Path, provider: Provider, keys: Mapping[str, str] | Callable[[str], str]
) -> Runtime:
    options = ProviderOptions(base_url=provider.url, api_key=keys)
    return Runtime(url(folder), providers={"openai-chat": options})


async def test_a_tenant_is_served_with_its_own_key(
    tmp_path: Path, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "roadworthy")
    keys = dict(KEYS)
    async with runtime(tmp_path, provider, keys) as rt:
        for tenant in ("acme", "bolt", "acme"):
            assert (await rt.run(DESK, "Hi", user=User("ana", tenant))).text == "Hello."
        keys["acme"] = "second-of-acme"
        assert (await rt.run(DESK, "Hi", user=User("ana", "acme"))).text == "Hello."
        provider.refused.add("only-of-bolt")
        failed = await rt.run(DESK, "Hi", user=User("ana", "bolt"))
    own = ["first-of-acme", "only-of-bolt", "first-of-acme", "second-of-acme", "only-of-bolt"]
    assert provider.seen == [f"Bearer {key}" for key in own]
    assert failed.reason == "model_rejected"
    written = [failed.report.why.encode(), caplog.text.encode()]
    written += [file.read_bytes() for file in sorted(tmp_path.iterdir())]  # noqa: ASYNC240 - a test
    assert not any(b"-of-" in text for text in written)


def broken(tenant: str) -> str:
    raise OSError(f"the vault refuses {KEYS['acme']}")


@pytest.mark.parametrize("keys", [KEYS, KEYS.__getitem__, lambda _: "", broken])
async def test_a_tenant_without_a_key_is_served_with_no_other(
    tmp_path: Path,
    provider: Provider,
    keys: Mapping[str, str] | Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-house")
    async with runtime(tmp_path, provider, keys) as rt:
        for user in (User("eve", "evil"), User("ana")):
            with pytest.raises(ConfigurationError, match="No key for tenant") as refused:
                await rt.run(DESK, "Hi", user=user)
            assert "ProviderOptions(api_key=" in str(refused.value)
            assert KEYS["acme"] not in str(refused.value)
        assert not await rt.runs()
    assert not provider.seen


async def test_a_key_taken_away_later_ends_the_run_and_says_why(
    tmp_path: Path, provider: Provider
) -> None:
    keys = dict(KEYS)
    async with runtime(tmp_path, provider, keys) as rt:
        await rt.run(DESK, "Hi", user=User("ana", "acme"))
        del keys["acme"]
        result = await rt.run(DESK, "Hi", user=User("ana", "acme"))
    assert (result.status, result.reason) == ("failed", "error")
    assert "No key for tenant 'acme'" in result.report.why
