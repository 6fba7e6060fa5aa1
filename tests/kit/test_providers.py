"""Real recorded replies through `ProviderModel`: what is read, and what each fault becomes."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from roadworthy.errors import (
    ModelError,
    ModelOutcomeUnknown,
    ModelRateLimited,
    ModelRejected,
    ModelUnavailable,
)
from roadworthy.messages import Message, ModelRequest, ModelSettings, Reply
from roadworthy.models.adapter import ProviderModel
from roadworthy.models.providers import ProviderOptions, open_model
from tests.kit import recordings
from tests.kit.recordings import Exchange, Seen, Server

pytestmark = [
    pytest.mark.kit,
    pytest.mark.skipif(not recordings.KIT.is_dir(), reason="no test kit"),
]
MOST_FLOWS = 8


@dataclass(frozen=True)
class Wire:
    """One wire format: its recordings, a model that speaks it, and how we read its bodies."""

    pack: str
    path: str
    model: str
    read: Callable[[Any], Seen]
    base: str = ""

    def __str__(self) -> str:
        return self.model.partition(":")[0]


WIRES = [
    Wire("openai", r"/chat/completions$", "openai-chat:gpt-4o", recordings.read_chat, "/v1"),
    Wire("openai", r"/v1/responses$", "openai:gpt-5", recordings.read_responses, "/v1"),
    Wire("anthropic", r"/v1/messages$", "anthropic:claude-haiku-4-5", recordings.read_anthropic),
    Wire("google", r"enerateContent$", "google:gemini-2.5-flash", recordings.read_google),
    Wire("mistral", r"/chat/completions$", "mistral:mistral-large-latest", recordings.read_chat),
    Wire("groq", r"/chat/completions$", "groq:llama-3.3-70b-versatile", recordings.read_chat),
    Wire("bedrock", r"/converse", "bedrock:us.amazon.nova-micro-v1:0", recordings.read_bedrock),
]


@pytest.fixture(scope="module", params=WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Wire:
    found: Wire = request.param
    return found


@pytest.fixture(scope="module")
def server(wire: Wire) -> Iterator[Server]:
    with recordings.serving(wire.pack) as served:
        yield served


@pytest.fixture
async def asked(
    wire: Wire, server: Server, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Server, ProviderModel]]:
    pytest.importorskip("groq" if wire.pack == "groq" else "pydantic_ai")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    model = open_model(wire.model, ProviderOptions(base_url=server.url + wire.base))
    yield server, model
    await model.close()


def question(timeout: float = 20.0) -> ModelRequest:
    """Any request: the server answers by position, whatever is asked."""
    settings = ModelSettings(timeout=timeout)
    return ModelRequest(instructions="Be brief.", messages=[Message.user("Hi")], settings=settings)


def spread(flows: list[list[Exchange]]) -> list[list[Exchange]]:
    """A bounded choice from first to last, and all that stream."""
    step = max(1, len(flows) // MOST_FLOWS)
    streams = [flow for flow in flows if any(e.streamed for e in flow)]
    return [*flows[::step], *streams[:5]]


@pytest.mark.requirement("REC-7", "OBS-3")
async def test_replies_are_read_as_recorded(
    wire: Wire, asked: tuple[Server, ProviderModel]
) -> None:
    server, model = asked
    compared = 0
    for flow in spread(recordings.flows(wire.pack, wire.path)):
        server.use(flow[0].flow)
        for exchange in flow:
            pieces: list[str] = []
            try:
                reply = await model.request(
                    question(), pieces.append if exchange.streamed else None
                )
            except ModelRejected:
                assert exchange.status >= 400, exchange.flow
                continue
            if exchange.streamed:
                assert "".join(pieces) == reply.text, exchange.flow
                assert reply.usage.input > 0, exchange.flow
                compared += 1
            elif comparable(exchange):
                compare(wire.read(json.loads(exchange.body)), reply, exchange)
                compared += 1
    assert compared >= 8


def comparable(exchange: Exchange) -> bool:
    """Left out: work the provider goes on with by itself, and recordings without their usage."""
    if exchange.status >= 400:
        return False
    body = json.loads(exchange.body)
    usage = body.get("usage") or body.get("usageMetadata") or {}
    server_side = ("tool_search_call", "nova_code_interpreter")
    return any(usage.values()) and not any(word in exchange.body for word in server_side)


def compare(recorded: Seen, reply: Reply, exchange: Exchange) -> None:
    """Ours against our own reading of the body."""
    calls = tuple((c.tool, None if c.malformed else c.arguments) for c in reply.tool_calls)
    usage = reply.usage
    read = Seen(reply.text, calls, usage.input, usage.output, usage.cache_read)
    assert read == recorded, exchange.flow


@pytest.mark.requirement("REC-7", "TOL-3")
@pytest.mark.parametrize(
    ("fault", "error", "served"),
    [
        ("429", ModelRateLimited, 0),
        ("500", ModelUnavailable, 0),
        ("reset", ModelOutcomeUnknown, 0),
        ("trunc", ModelOutcomeUnknown, 1),
        ("slow", ModelOutcomeUnknown, 0),  # it is still stalling
    ],
)
async def test_each_fault_is_one_request_and_the_right_error(
    wire: Wire,
    asked: tuple[Server, ProviderModel],
    fault: str,
    error: type[ModelError],
    served: int,
) -> None:
    """A second attempt would be answered: the fault is only before the first."""
    server, model = asked
    plain = [f for f in recordings.flows(wire.pack, wire.path) if plainly_answered(f)]
    server.use(plain[0][0].flow)
    server.get(f"/__faults?seq={fault}")
    before = len(server.get("/__log"))
    with pytest.raises(error) as raised:
        await model.request(question(0.4 if fault == "slow" else 20))
    assert raised.value.charge_unknown == (error is ModelOutcomeUnknown)
    assert fault != "429" or raised.value.retry_after == 1.0
    assert len(server.get("/__log")) - before == served


def plainly_answered(flow: list[Exchange]) -> bool:
    return not flow[0].streamed and flow[0].status == 200


@pytest.mark.requirement("REC-7")
async def test_a_cut_stream_is_of_unknown_charge(
    wire: Wire, asked: tuple[Server, ProviderModel]
) -> None:
    server, model = asked
    streams = [f for f in recordings.flows(wire.pack, wire.path) if f[0].streamed]
    if not streams:
        pytest.skip("no recorded stream")
    before = len(server.get("/__log"))
    for flow in streams[:5]:
        server.use(flow[0].flow)
        server.get("/__faults?seq=trunc")
        with pytest.raises(ModelOutcomeUnknown):
            await model.request(question(), lambda _: None)
    assert len(server.get("/__log")) - before == len(streams[:5])
