"""Recorded provider exchanges, served over loopback, and our own reading of their bodies."""

import gzip
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

from tests.structure.tree import ROOT

KIT = Path(os.environ.get("ROADWORTHY_TESTKIT", ROOT.parent / "shared" / "testkit")) / "providers"

Body: TypeAlias = Any
"""Parsed JSON of a provider, read by its documented names."""


@dataclass(frozen=True)
class Seen:
    """What an exchange holds: visible text, (tool, arguments) of each call, tokens in and out."""

    text: str
    calls: tuple[tuple[str, Any], ...]
    input: int
    output: int
    cached: int = 0


@dataclass(frozen=True)
class Exchange:
    """One recorded answer of a flow."""

    flow: str
    index: int
    status: int
    streamed: bool
    body: str
    path: str

    @property
    def events(self) -> list[Any]:
        """The JSON events of a streamed answer."""
        lines = (line[5:].strip() for line in self.body.splitlines() if line.startswith("data:"))
        return [json.loads(line) for line in lines if line and line != "[DONE]"]


def flows(pack: str, ending: str) -> list[list[Exchange]]:
    """The flows of a pack whose paths all match `ending`: the model's own endpoint."""
    with gzip.open(KIT / f"{pack}.json.gz", "rt") as file:
        recorded = json.load(file)["flows"]
    found = []
    for flow in recorded:
        paths = [e["path"].split("?")[0].split("#")[0] for e in flow["flow"]]
        if all(re.search(ending, path) for path in paths):
            found.append([_exchange(flow["id"], i, e) for i, e in enumerate(flow["flow"])])
    return found


def _exchange(flow: str, index: int, recorded: dict[str, Any]) -> Exchange:
    kind = recorded["content_type"] or ""
    return Exchange(
        flow=flow,
        index=index,
        status=recorded["status"],
        streamed="event-stream" in kind or "eventstream" in kind,
        body=recorded["body"],
        path=recorded["path"],
    )


class Server:
    """The kit's replay server, at `url`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def use(self, flow: str) -> None:
        """Start this flow from its first answer."""
        self.get(f"/__use/{quote(flow, safe='')}")

    def get(self, path: str) -> Body:
        """One of the server's own pages."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:  # noqa: S310 -- loopback
            return json.load(answer)


@contextmanager
def serving(pack: str) -> Iterator[Server]:
    """Serve a pack on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script, data = KIT / "replay_server.py", KIT / f"{pack}.json.gz"
    command = [sys.executable, str(script), str(data), str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 -- the kit's script
    try:
        server = Server(port)
        _wait(server)
        yield server
    finally:
        process.terminate()
        process.wait()


def _wait(server: Server) -> None:
    for _ in range(2_000):
        try:
            server.get("/__log")
        except OSError:
            continue
        return
    raise TimeoutError("the replay server did not start")


def read_chat(body: Body) -> Seen:
    """OpenAI chat format (also Groq and Mistral)."""
    message, usage = body["choices"][0]["message"], body["usage"]
    said = message.get("content") or ""
    if isinstance(said, list):
        said = "".join(part["text"] for part in said if part["type"] == "text")
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    said = re.sub(r"^<think>.*?</think>", "", said, flags=re.DOTALL)  # thinking, told as text
    details = usage.get("prompt_tokens_details") or {}
    return Seen(
        text=said,
        calls=tuple((call["name"], _object(call["arguments"])) for call in calls),
        input=usage["prompt_tokens"],
        output=usage["completion_tokens"],
        cached=details.get("cached_tokens") or 0,
    )


def read_responses(body: Body) -> Seen:
    """OpenAI Responses format."""
    said = [part for item in body["output"] for part in item.get("content") or ()]
    calls = [item for item in body["output"] if item["type"] == "function_call"]
    usage = body["usage"]
    return Seen(
        text="".join(part["text"] for part in said if part["type"] == "output_text"),
        calls=tuple((call["name"], _object(call["arguments"])) for call in calls),
        input=usage["input_tokens"],
        output=usage["output_tokens"],
        cached=(usage.get("input_tokens_details") or {}).get("cached_tokens", 0),
    )


def read_anthropic(body: Body) -> Seen:
    """Anthropic messages format: its input tokens leave the cached ones out."""
    usage, blocks = body["usage"], body["content"]
    written = usage.get("cache_creation_input_tokens") or 0
    cached = usage.get("cache_read_input_tokens") or 0
    return Seen(
        text="".join(block["text"] for block in blocks if block["type"] == "text"),
        calls=tuple((b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"),
        input=usage["input_tokens"] + written + cached,
        output=usage["output_tokens"],
        cached=cached,
    )


def read_google(body: Body) -> Seen:
    """Gemini format: thoughts are counted apart from the answer."""
    content = body["candidates"][0].get("content") or {}
    parts, usage = content.get("parts") or [], body["usageMetadata"]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    return Seen(
        text="".join(part.get("text", "") for part in parts if not part.get("thought")),
        calls=tuple((call["name"], call.get("args") or {}) for call in calls),
        input=usage["promptTokenCount"] + usage.get("toolUsePromptTokenCount", 0),
        output=usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0),
        cached=usage.get("cachedContentTokenCount", 0),
    )


def read_bedrock(body: Body) -> Seen:
    """Bedrock converse format: its input tokens leave the cached ones out."""
    usage, blocks = body["usage"], body["output"]["message"]["content"]
    cached = usage.get("cacheReadInputTokens") or 0
    calls = [block["toolUse"] for block in blocks if "toolUse" in block]
    return Seen(
        text="".join(block.get("text", "") for block in blocks),
        calls=tuple((call["name"], call["input"]) for call in calls),
        input=usage["inputTokens"] + cached + (usage.get("cacheWriteInputTokens") or 0),
        output=usage["outputTokens"],
        cached=cached,
    )


def _object(raw: str) -> Body:
    """A call's arguments; None where the model wrote no object."""
    try:
        read = json.loads(raw or "{}")
    except ValueError:
        return None
    return read if isinstance(read, dict) else None
