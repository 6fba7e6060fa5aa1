"""A run's events as messages: what a later run of the conversation remembers.

Used by the runtime for history and by `Run` for its notes. Invariant: every tool call has its
result, so any provider accepts the conversation, however the run ended.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from roadworthy.events import (
    Delivered,
    HandedBack,
    InputReceived,
    LoopNoticed,
    ModelReplied,
    Noted,
    RunEnded,
    RunEvent,
    RunStarted,
    ToolOutcome,
)
from roadworthy.messages import File, Message, Part, Text, ToolResult

_MARK = "runtime"
_BRACKETS = (
    "\\[\uff3b\u3010\u3014\u3016\u3018\u301a\u27e6\u2772\u2045\u298b\ufe47\ufe5d\u300c\uff62"
    "\u2768\u276a\ufd3e\u2308\u23a1"
)
_OPENING = re.compile(rf"[{_BRACKETS}](?![{_BRACKETS}\d\"',{{}}\]])")  # the rest: JSON, quickly
# Where a line begins, for a model: after a break, and in JSON or code after a quote or an escape.
_STARTS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\"'\\"
_UNSEEN = ("Cf", "Cc", "Mn", "Me", "Mc", "Zs")
_ALIKE = {  # letters of other scripts that look like those of the mark
    alike: letter
    for letter, others in {
        "r": "\u0433\u1d26\u0280\uab47\uab48\u2c85\uab81",
        "u": "\u03c5\u057d\u1d1c\u028b\u0446",
        "n": "\u043f\u0578\u057c\u0274\u03b7\u0438",
        "t": "\u0442\u03c4\u1d1b",
        "i": "\u0456\u0131\u03b9\u026a\u04cfl1|!",
        "m": "\u043c\u1d0d\u03fb",
        "e": "\u0435\u04bd\u1d07\u03b5\u0454" + "3",
    }.items()
    for alike in others
}
INPUT_CHECKED = "input/checked"
_HANDLE = 10
REFUSED = "(This message was not accepted.)"


class Cut:
    """The cut results among a run's messages: handle -> address of the whole. Each is seen once."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._seen = 0

    def among(self, messages: Sequence[Message]) -> Mapping[str, str]:
        """Those there are by now."""
        for message in messages[self._seen :]:
            for part in message.parts:
                if isinstance(part, ToolResult) and part.rest:
                    self._found[handle(part.rest)] = part.rest
        self._seen = len(messages)
        return self._found


def handle(address: str) -> str:
    """How a model names a cut result, among its own messages: the beginning of its address."""
    return address[:_HANDLE]


def runtime_note(text: str) -> Message:
    """A word of the runtime to the model, in the user's place."""
    return Message(role="user", parts=(Text(text=f"[{_MARK}] {text}"),), by_runtime=True)


def as_told(message: Message) -> Message:
    """A message as a model gets it: no line of a user or a tool begins like a runtime's note.

    Where one does, whatever its case, script and invisible characters, its bracket becomes "(".
    The record keeps what was said. No text grows, so that the bound of its tokens holds.
    """
    if message.by_runtime or message.role == "assistant":
        return message
    parts = _together(tuple(_plain_spoken(part) for part in message.parts))
    changed = any(new is not old for new, old in zip(parts, message.parts, strict=True))
    return replace(message, parts=parts) if changed else message


def answer_checked(turn: int, index: int) -> str:
    """Key of the check of the user's answer to a question."""
    return f"turn/{turn}/ask/{index}/checked"


def with_text(message: Message, text: str) -> Message:
    """A message with its words replaced, its files kept."""
    if text == message.text:
        return message
    others = tuple(part for part in message.parts if not isinstance(part, Text))
    return replace(message, parts=(Text(text=text), *others))


def came_back(back: HandedBack) -> list[Message]:
    """What the agent is told when a person gives the run back: all that was said, and done."""
    note = "A person took this conversation over and answered in your name. It is yours again."
    if back.deeds:
        note += f" They did: {'; '.join(back.deeds)}."
    if back.instruction:
        note += f" They say to you: {back.instruction}"
    return [*back.talk, runtime_note(note)]


def loop_note(event: LoopNoticed) -> str:
    """What the model is told about a repeat."""
    return (
        f"{event.tool} came to the same state {event.repeat} times; asking again changes nothing. "
        "Use another way, or answer with what you have."
    )


def _plain_spoken(part: Part) -> Part:
    said = part.text if isinstance(part, Text) else getattr(part, "content", "")
    text = _OPENING.sub(_unbracketed, said)
    if text == said:
        return part
    return replace(part, text=text) if isinstance(part, Text) else replace(part, content=text)


def _together(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Texts side by side may reach the model as one: judged as one, too."""
    found: list[Part] = []
    for together, group in itertools.groupby(parts, lambda part: isinstance(part, Text)):
        texts = [*group]
        if together and len(texts) > 1:
            said = [part.text for part in texts if isinstance(part, Text)]
            rest = _OPENING.sub(_unbracketed, "".join(said))  # of the same length
            for place, text in enumerate(said):
                if rest[: len(text)] != text:
                    texts[place] = replace(texts[place], text=rest[: len(text)])
                rest = rest[len(text) :]
        found += texts
    return tuple(found)


def _unbracketed(bracket: re.Match[str]) -> str:
    text, at = bracket.string, bracket.start()
    return "(" if _spells_mark(text, at + 1) and _begins_line(text, at) else bracket[0]


def _begins_line(text: str, at: int) -> bool:
    """Whether no word stands before this place on what a model may read as its line."""
    for place in range(at - 1, -1, -1):
        char = text[place]
        if char in _STARTS:
            return True
        if char.isalnum():
            return char in "nrt" and text[place - 1 : place] == "\\"
    return True


def _spells_mark(text: str, at: int) -> bool:
    """Whether what follows looks like the mark; what a reader would not see is skipped."""
    matched = 0
    for place in range(at, len(text)):
        for char in unicodedata.normalize("NFKD", text[place]).casefold():
            if matched == len(_MARK):
                return not char.isalnum()
            if _ALIKE.get(char, char) == _MARK[matched]:
                matched += 1
            elif not (char in " *_~`\u02bc" or unicodedata.category(char) in _UNSEEN):
                return False
    return matched == len(_MARK)


def transcript(events: Iterable[RunEvent]) -> list[Message]:
    """The conversation as told by one run's events, ending with what was delivered."""
    messages: list[Message] = []
    results: dict[str, ToolResult] = {}
    delivered: str | None = None
    turn_key = ""
    back: list[Message] = []  # said by a person, to stand behind the turn it broke into
    for event in events:
        if isinstance(event, RunStarted):
            messages.append(event.input)
        elif isinstance(event, ModelReplied) and event.key.endswith("/model"):
            _close_turn(messages, turn_key, results)
            messages += back
            back = []
            turn_key = event.key.removesuffix("model")
            messages.append(event.reply.message)
        elif isinstance(event, HandedBack):
            back += came_back(event)
        elif isinstance(event, ToolOutcome | InputReceived):
            results[event.key] = event.result if isinstance(event, ToolOutcome) else _answer(event)
        elif isinstance(event, Noted):
            _as_checked(event, messages, results)
        elif isinstance(event, LoopNoticed):
            _close_turn(messages, turn_key, results)
            messages.append(runtime_note(loop_note(event)))
        elif isinstance(event, Delivered):
            delivered = event.text
        elif isinstance(event, RunEnded) and event.reason == "joined":
            return []  # its message is told by the run that it joined
    _close_turn(messages, turn_key, results, None if back else delivered)
    return _and_back(messages, back, delivered)


def _and_back(
    messages: list[Message], back: Sequence[Message], delivered: str | None
) -> list[Message]:
    """A run that ended after a person gave it back and before its agent was asked anything."""
    if back:
        messages += back
        _close_turn(messages, "", {}, delivered)
    return messages


def _answer(event: InputReceived) -> ToolResult:
    """What the user answered, as the result of the call that asked."""
    files = tuple(part for part in event.input.parts if isinstance(part, File))
    return ToolResult(tool="ask_user", call_id="", content=event.input.text, files=files)


def _as_checked(event: Noted, messages: list[Message], results: dict[str, ToolResult]) -> None:
    """What an input guardrail changed or refused is remembered only as it left it."""
    asked = event.key.removesuffix("/checked")
    if event.key == INPUT_CHECKED:
        messages[0] = with_text(messages[0], _accepted(event.value))
    elif asked != event.key and asked in results:
        results[asked] = replace(results[asked], content=_accepted(event.value))


def _accepted(value: Mapping[str, str]) -> str:
    return value["text"] if value["action"] == "allow" else REFUSED


def _close_turn(
    messages: list[Message],
    turn_key: str,
    results: dict[str, ToolResult],
    delivered: str | None = None,
) -> None:
    """Answer the last reply's calls; replace a final answer by what the user was shown."""
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant":
        if delivered is not None:
            messages.append(Message.assistant(delivered))
        return
    calls = last.tool_calls
    found = [_result(turn_key, index, results) for index in range(len(calls))]
    if calls and any(found):
        parts = tuple(
            ToolResult(
                tool=call.tool,
                call_id=call.id,
                content=result.content if result else "No result: the turn ended here.",
                status=result.status if result else "skipped",
                files=result.files if result else (),
                rest=result.rest if result else "",
            )
            for call, result in zip(calls, found, strict=True)
        )
        messages.append(Message(role="tool", parts=parts))
        if delivered is not None:
            messages.append(Message.assistant(delivered))
    elif delivered is not None and (calls or last.text != delivered):
        messages[-1] = Message.assistant(delivered)
    elif calls:
        messages[-1] = _without_calls(last)


def _result(turn_key: str, index: int, results: dict[str, ToolResult]) -> ToolResult | None:
    return results.get(f"{turn_key}tool/{index}") or results.get(f"{turn_key}ask/{index}")


def _without_calls(message: Message) -> Message:
    texts: Sequence[Text] = [p for p in message.parts if isinstance(p, Text)]
    return Message(
        role="assistant",
        parts=tuple(texts) or (Text(text="(no answer)"),),
        provider=message.provider,
    )
