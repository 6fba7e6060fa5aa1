"""Events to rows and back: nothing lost, text apart, newer releases refused by name."""

from __future__ import annotations

import json

import pytest

from roadworthy.errors import StoreVersionError
from roadworthy.events import EVENT_TYPES, ModelReplied, RunEnded, RunEvent, RunStarted
from roadworthy.limits import Usage
from roadworthy.messages import (
    File,
    Message,
    Reasoning,
    Reply,
    Text,
    TokenUsage,
    ToolCall,
    ToolResult,
)
from roadworthy.result import Report, RunResult
from roadworthy.store.codec import EventRow, Seal, decode, encode, references

SEAL = Seal(b"k" * 32)
PHOTO = File(media_type="image/png", data=b"\x89PNG\x00\xff", name="a.png")


def there_and_back(event: RunEvent) -> tuple[RunEvent, EventRow, dict[str, bytes]]:
    payloads: dict[str, bytes] = {}
    row = encode(event, SEAL, payloads)
    return decode(row, payloads, ("run_1", 3, 99)), row, payloads


STARTED = RunStarted(
    key="",
    agent="desk",
    fingerprint="f",
    input=Message(role="user", parts=(Text(text='Secret "sha":"x"'), PHOTO)),
    limits={"turns": 3},
)
REPLIED = ModelReplied(
    key="turn/1/model",
    attempt=2,
    model="m",
    reply=Reply(
        message=Message(
            role="assistant",
            parts=(
                Reasoning(text="hm", provider_state='{"s":"\u00e9=="}'),
                Text(text="Hi \U0001f600"),
                ToolCall("look", {"sha": "a" * 40, "x": [1, 2.5, None]}, id="c", malformed=None),
            ),
            provider="p",
        ),
        usage=TokenUsage(input=5, output=7, raw="{}"),
        model="m",
        finish="tools",
    ),
    input_tokens=5,
    output_tokens=7,
    nanos=12,
)


@pytest.mark.requirement("REC-8")
@pytest.mark.parametrize("event", [STARTED, REPLIED], ids=["started", "replied"])
def test_an_event_comes_back_as_it_was(event: RunEvent) -> None:
    back, _, _ = there_and_back(event)
    expected = type(event)(
        **{n: getattr(event, n) for n in event.__struct_fields__}
        | {"run_id": "run_1", "seq": 3, "at": 99}
    )
    assert back == expected


def test_text_and_bytes_stand_in_payloads_only() -> None:
    _, row, payloads = there_and_back(STARTED)
    assert "Secret" not in row.body
    assert PHOTO.data in payloads.values()
    assert len(payloads) == 2
    assert set(references(row)) < set(payloads)


def test_the_same_content_is_one_payload_and_another_tenant_cannot_tell() -> None:
    payloads: dict[str, bytes] = {}
    encode(STARTED, SEAL, payloads)
    encode(STARTED, SEAL, payloads)
    assert len(payloads) == 2
    encode(STARTED, Seal(b"o" * 32), payloads)
    assert len(payloads) == 4


def test_defaults_are_not_written() -> None:
    _, row, _ = there_and_back(REPLIED)
    assert "cache_read_tokens" not in json.loads(row.body)


def test_a_result_with_files_and_output_comes_back() -> None:
    result: RunResult[object] = RunResult(
        run_id="r",
        status="completed",
        reason="answered",
        text="Hi.",
        output={"n": 1},
        report=Report(done=("look",)),
        usage=Usage(turns=2, by_phase={}),
    )
    back, _, _ = there_and_back(RunEnded(status="completed", reason="answered", result=result))
    assert isinstance(back, RunEnded)
    assert back.result == result


def test_an_erased_file_comes_back_without_its_bytes() -> None:
    payloads: dict[str, bytes] = {}
    row = encode(STARTED, SEAL, payloads)
    address = SEAL.address(PHOTO.data or b"")
    del payloads[address]
    back = decode(row, payloads, ("r", 0, 0))
    assert isinstance(back, RunStarted)
    (file,) = [p for p in back.input.parts if isinstance(p, File)]
    assert (file.data, file.sha) == (None, address)


@pytest.mark.parametrize(("kind", "v"), [("Dreamt", 1), ("RunStarted", 2)])
def test_an_event_of_a_newer_release_is_refused_by_name(kind: str, v: int) -> None:
    _, row, payloads = there_and_back(STARTED)
    with pytest.raises(StoreVersionError, match=rf"{kind} v{v} of a newer release"):
        decode(row._replace(type=kind, v=v), payloads, ("r", 0, 0))


def test_every_event_type_has_its_own_name_and_documents_its_payload_fields() -> None:
    for name, cls in EVENT_TYPES.items():
        assert cls.__name__ == name
        assert set(cls.payload) <= set(cls.__struct_fields__)


def test_a_file_inside_a_tool_result_is_stored_apart() -> None:
    result = ToolResult(tool="scan", call_id="c", content="a page", files=(PHOTO,))
    event = EVENT_TYPES["ToolSucceeded"](key="turn/1/tool/0", tool="scan", result=result)  # type: ignore[call-arg]
    back, _, payloads = there_and_back(event)
    assert getattr(back, "result") == result  # noqa: B009
    assert PHOTO.data in payloads.values()
