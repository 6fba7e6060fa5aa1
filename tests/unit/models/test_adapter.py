"""What `ProviderModel` sends, reads and raises, against the model library's own function model."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pydantic_ai import exceptions as theirs
from pydantic_ai import messages as library
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from roadworthy import errors
from roadworthy.messages import (
    File,
    Message,
    ModelRequest,
    ModelSettings,
    OutputSpec,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    ToolSpec,
)
from roadworthy.models.adapter import ProviderModel
from roadworthy.models.failures import failure

Answer = Callable[
    [list[library.ModelMessage], AgentInfo],
    library.ModelResponse | Awaitable[library.ModelResponse],
]
USED = RequestUsage(input_tokens=100, output_tokens=20, cache_read_tokens=60)
TOOL = ToolSpec(name="find", description="Find it.", parameters={"type": "object"})


def model_of(answer: Answer) -> ProviderModel:
    inner: Model = FunctionModel(answer)
    return ProviderModel(name="test:function", provider="test", library=lambda: inner)


def saying(*parts: library.ModelResponsePart, usage: RequestUsage = USED) -> Answer:
    def answer(_: list[library.ModelMessage], __: AgentInfo) -> library.ModelResponse:
        return library.ModelResponse(parts=list(parts), usage=usage, finish_reason="stop")

    return answer


def asking(*messages: Message, **settings: float) -> ModelRequest:
    return ModelRequest(
        instructions="Be brief.",
        messages=messages or (Message.user("Hi"),),
        tools=(TOOL,),
        settings=ModelSettings(timeout=settings.get("timeout", 5.0)),
    )


async def test_a_reply_keeps_text_reasoning_and_calls_in_order() -> None:
    thought = library.ThinkingPart("hm", signature="sig", provider_name="function")
    call = library.ToolCallPart("find", '{"q": "Zürich"}', tool_call_id="c1")
    reply = await model_of(saying(thought, library.TextPart("Looking."), call)).request(asking())
    assert reply.text == "Looking."
    kinds = [type(part) for part in reply.message.parts]
    assert kinds == [Reasoning, Text, ToolCall]
    assert reply.tool_calls[0].arguments == {"q": "Zürich"}
    assert (reply.usage.input, reply.usage.cache_read, reply.finish) == (100, 60, "stop")
    assert reply.message.provider == "test"


@pytest.mark.requirement("TOL-8", "REC-3")
@pytest.mark.parametrize("raw", ["{", "[1]", "null", '{"a": NaN}', "find it", '"\\ud800"'])
async def test_arguments_that_are_no_object_are_kept_as_malformed(raw: str) -> None:
    reply = await model_of(saying(library.ToolCallPart("find", raw))).request(asking())
    call = reply.tool_calls[0]
    assert call.malformed == raw
    assert call.arguments == {}


async def test_half_characters_become_something_that_can_be_stored() -> None:
    reply = await model_of(saying(library.TextPart("a\ud800b"))).request(asking())
    assert reply.text == "a?b"


async def test_a_reply_without_usage_is_charged_at_its_bound() -> None:
    silent = saying(library.TextPart("x"), usage=RequestUsage(unmeasured_requests=1))
    inner: Model = Silent(silent)
    model = ProviderModel(name="test:silent", provider="test", library=lambda: inner)
    reply = await model.request(asking())
    assert reply.usage.input > 600
    assert reply.usage.output == 2_000
    assert json.loads(reply.usage.raw) == {"assumed": True}


class Silent(FunctionModel):
    """The function model invents usage where there is none; a provider does not."""

    async def request(
        self,
        messages: list[library.ModelMessage],
        model_settings: object,
        model_request_parameters: ModelRequestParameters,
    ) -> library.ModelResponse:
        unmeasured = RequestUsage(unmeasured_requests=1)
        return library.ModelResponse(parts=[library.TextPart("x")], usage=unmeasured)


async def test_what_was_signed_goes_back_to_its_provider_only() -> None:
    seen: list[library.ModelMessage] = []

    def answer(messages: list[library.ModelMessage], _: AgentInfo) -> library.ModelResponse:
        seen[:] = messages
        return library.ModelResponse(parts=[library.TextPart("ok")], usage=USED)

    state = '{"id":"rs_1","signature":"sig","details":{"k":1}}'
    parts = (Reasoning(text="hm", provider_state=state), Text(text="So."), ToolCall("find", id="c"))
    model = model_of(answer)
    ours = Message(role="assistant", parts=parts, provider="test")
    await model.request(asking(Message.user("Hi"), ours))
    kept = seen[1].parts[0]
    assert isinstance(kept, library.ThinkingPart)
    assert (kept.signature, kept.id, kept.provider_details) == ("sig", "rs_1", {"k": 1})
    other = Message(role="assistant", parts=parts, provider="elsewhere")
    await model.request(asking(Message.user("Hi"), other))
    assert [part.part_kind for part in seen[1].parts] == ["text", "tool-call"]


async def test_a_part_of_a_kind_we_do_not_know_comes_back_unchanged() -> None:
    seen: list[library.ModelMessage] = []
    native = library.NativeToolCallPart("web_search", {"q": "x"}, provider_name="function")

    def answer(messages: list[library.ModelMessage], _: AgentInfo) -> library.ModelResponse:
        seen[:] = messages
        return library.ModelResponse(parts=[native, library.TextPart("ok")], usage=USED)

    model = model_of(answer)
    reply = await model.request(asking())
    assert reply.tool_calls == ()
    await model.request(asking(Message.user("Hi"), reply.message))
    returned = seen[1].parts[0]
    assert isinstance(returned, library.NativeToolCallPart)
    assert returned.args == {"q": "x"}


async def test_results_and_files_are_told_as_what_they_are() -> None:
    seen: list[library.ModelMessage] = []

    def answer(messages: list[library.ModelMessage], _: AgentInfo) -> library.ModelResponse:
        seen[:] = messages
        return library.ModelResponse(parts=[library.TextPart("ok")], usage=USED)

    image = File(media_type="image/png", data=b"1")
    results = (
        ToolResult(tool="find", call_id="a", content="found"),
        ToolResult(tool="find", call_id="b", content="no", status="refused", files=(image,)),
    )
    linked = File(media_type="application/pdf", url="https://example.com/a.pdf")
    await model_of(answer).request(
        asking(Message.user(["Look", image, linked]), Message(role="tool", parts=results))
    )
    prompt = seen[0].parts[0]
    assert isinstance(prompt, library.UserPromptPart)
    assert [getattr(item, "kind", "text") for item in prompt.content] == [
        "text",
        "binary",
        "document-url",
    ]
    outcomes = [getattr(part, "outcome", "") for part in seen[1].parts]
    assert outcomes == ["success", "failed"]


async def test_an_output_is_a_tool_unless_it_is_native() -> None:
    infos: list[AgentInfo] = []

    def answer(_: list[library.ModelMessage], info: AgentInfo) -> library.ModelResponse:
        infos.append(info)
        return library.ModelResponse(parts=[library.TextPart("{}")], usage=USED)

    model = model_of(answer)
    spec = OutputSpec(name="answer", parameters={"type": "object", "properties": {}})
    native = OutputSpec(name="answer", parameters=spec.parameters, native=True)
    for output in (spec, native):
        await model.request(ModelRequest(instructions="", messages=[], output=output))
    assert [tool.name for tool in infos[0].output_tools] == ["answer"]
    assert not infos[0].allow_text_output
    assert infos[1].model_request_parameters.output_mode == "native"


async def test_a_message_is_converted_once() -> None:
    seen: list[list[library.ModelMessage]] = []

    def answer(messages: list[library.ModelMessage], _: AgentInfo) -> library.ModelResponse:
        seen.append(list(messages))
        return library.ModelResponse(parts=[library.TextPart("ok")], usage=USED)

    model, first = model_of(answer), Message.user("Hi")
    await model.request(asking(first))
    await model.request(asking(first, Message.assistant("ok"), Message.user("And?")))
    assert seen[0][0] is seen[1][0]


@pytest.mark.requirement("TOL-3")
async def test_a_slow_reply_is_given_up_and_of_unknown_charge() -> None:
    async def answer(_: list[library.ModelMessage], __: AgentInfo) -> library.ModelResponse:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(errors.ModelOutcomeUnknown, match=r"0\.05 s"):
        await model_of(answer).request(asking(timeout=0.05))


async def test_visible_text_alone_is_streamed() -> None:
    async def words(_: list[library.ModelMessage], __: AgentInfo) -> AsyncIterator[str]:
        for word in ("Your ", "money ", "is on the way."):
            yield word

    inner: Model = FunctionModel(stream_function=words)
    model = ProviderModel(name="test:function", provider="test", library=lambda: inner)
    pieces: list[str] = []
    with pytest.raises(errors.ModelOutcomeUnknown, match="cut"):  # it names no end
        await model.request(asking(), pieces.append)
    assert "".join(pieces) == "Your money is on the way."


@pytest.mark.requirement("REC-7")
@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (theirs.ModelRateLimitError("m", "x", retry_after=2), errors.ModelRateLimited),
        (theirs.ModelRateLimitError("m", "x", in_stream=True), errors.ModelOutcomeUnknown),
        (theirs.ModelQuotaExceededError("m", "x"), errors.ModelRejected),
        (theirs.ModelOverloadedError("m", "x"), errors.ModelUnavailable),
        (theirs.ModelServerError("m", "x"), errors.ModelUnavailable),
        (theirs.ModelServerError("m", "x", in_stream=True), errors.ModelOutcomeUnknown),
        (theirs.ModelHTTPError(504, "m"), errors.ModelOutcomeUnknown),
        (theirs.ModelHTTPError(409, "m"), errors.ModelUnavailable),
        (theirs.ModelHTTPError(413, "m"), errors.ModelContextOverflow),
        (theirs.ModelHTTPError(418, "m"), errors.ModelRejected),
        (theirs.ModelConnectionError("m", "x", phase="connect"), errors.ModelUnavailable),
        (theirs.ModelConnectionError("m", "x", phase="read"), errors.ModelOutcomeUnknown),
        (theirs.ModelConnectionError("m", "x"), errors.ModelOutcomeUnknown),
        (theirs.ModelTimeoutError("m", "x", phase="pool"), errors.ModelUnavailable),
        (theirs.ModelRequestTimeout("m", 3), errors.ModelOutcomeUnknown),
        (theirs.ModelContextWindowExceededError("m", "x"), errors.ModelContextOverflow),
        (theirs.ModelAuthenticationError("m", "x"), errors.ModelAuthenticationFailed),
        (theirs.ModelNotFoundError("m", "x"), errors.ModelRejected),
        (theirs.ModelAPIError("m", "no JSON"), errors.ModelOutcomeUnknown),
        (theirs.UnexpectedModelBehavior("x"), errors.ModelOutcomeUnknown),
        (theirs.UserError("x"), errors.ModelRejected),
        (ZeroDivisionError(), errors.ModelOutcomeUnknown),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_every_error_of_the_library_is_one_of_ours(
    error: Exception, ours: type[errors.ModelError]
) -> None:
    made = failure(error, sent=True)
    assert type(made) is ours
    assert isinstance(made, errors.ModelError)
    assert made.retry_after == getattr(error, "retry_after", None)


def test_a_key_in_an_error_is_not_repeated() -> None:
    said = str(failure(theirs.UserError("bad key sk-proj-abcdef1234567890abcd!"), sent=False))
    assert "abcdef" not in said
    assert "sk-***" in said
