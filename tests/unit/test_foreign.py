"""Histories of other libraries become our messages, with nothing lost but system messages."""

import base64

import pytest
from pydantic_ai import messages as library

from roadworthy.errors import DeclarationError
from roadworthy.messages import File, Message, Reasoning, Text, ToolCall, ToolResult

PIXEL = base64.b64encode(b"png").decode()


def test_an_openai_chat() -> None:
    read = Message.from_openai(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Where is A-17?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "1", "function": {"name": "find", "arguments": '{"id": "A-17"}'}},
                    {"id": "2", "function": {"name": "find", "arguments": "{"}},
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "shipped"},
            {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "what?"}]},
            {"role": "assistant", "content": "It is on its way."},
        ]
    )
    assert read == [
        Message.user("Where is A-17?"),
        Message(
            role="assistant",
            parts=(
                ToolCall("find", {"id": "A-17"}, id="1"),
                ToolCall("find", id="2", malformed="{"),
            ),
        ),
        Message(
            role="tool",
            parts=(
                ToolResult(tool="find", call_id="1", content="shipped"),
                ToolResult(tool="find", call_id="2", content="what?"),
            ),
        ),
        Message.assistant("It is on its way."),
    ]


def test_openai_files_keep_their_bytes() -> None:
    content = [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "input_audio", "input_audio": {"data": PIXEL, "format": "wav"}},
    ]
    (message,) = Message.from_openai([{"role": "user", "content": content}])
    assert message.parts == (
        Text(text="Look"),
        File(media_type="image/png", data=b"png"),
        File(media_type="image/png", url="https://example.com/a.png"),
        File(media_type="audio/wav", data=b"png"),
    )


def test_openai_responses_items() -> None:
    read = Message.from_openai(
        [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "reasoning", "summary": []},
            {"type": "function_call", "call_id": "1", "name": "find", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "found"},
        ]
    )
    assert [message.role for message in read] == ["user", "assistant", "tool"]
    assert read[2].parts == (ToolResult(tool="find", call_id="1", content="found"),)


@pytest.mark.parametrize(
    "item",
    [
        {"role": "alien", "content": "x"},
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
        "Hi",
    ],
)
def test_what_cannot_be_kept_is_refused(item: object) -> None:
    with pytest.raises(DeclarationError, match="from_openai"):
        Message.from_openai([item])


def history() -> list[library.ModelMessage]:
    image = library.BinaryContent(b"png", media_type="image/png")
    return [
        library.ModelRequest(
            parts=[
                library.SystemPromptPart("Be brief."),
                library.UserPromptPart(
                    ["Look", image, library.ImageUrl("https://a.example/b.png")]
                ),
            ]
        ),
        library.ModelResponse(
            parts=[
                library.ThinkingPart("hm"),
                library.TextPart("Looking."),
                library.ToolCallPart("find", '{"id": 1}', tool_call_id="1"),
            ]
        ),
        library.ModelRequest(
            parts=[library.ToolReturnPart("find", {"found": True}, tool_call_id="1")]
        ),
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_pydantic_ai_history(*, as_json: bool) -> None:
    adapter = library.ModelMessagesTypeAdapter
    given = adapter.dump_python(history(), mode="json") if as_json else history()
    user, assistant, tool = Message.from_pydantic_ai(given)
    assert user.parts == (
        Text(text="Look"),
        File(media_type="image/png", data=b"png"),
        File(media_type="image/png", url="https://a.example/b.png"),
    )
    assert assistant.parts == (
        Reasoning(text="hm"),
        Text(text="Looking."),
        ToolCall("find", {"id": 1}, id="1"),
    )
    assert tool.parts == (ToolResult(tool="find", call_id="1", content='{"found": true}'),)


def test_another_objects_is_no_pydantic_ai_message() -> None:
    with pytest.raises(DeclarationError, match="from_pydantic_ai"):
        Message.from_pydantic_ai([{"role": "user"}])
