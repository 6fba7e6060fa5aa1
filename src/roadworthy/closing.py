"""The closing answer: one last call without tools, from the reserve that is kept for it.

`ending` asks for it when a limit ends a run. Invariant: what it sends fits the reserve, whatever
the conversation was.
"""

from __future__ import annotations

from collections.abc import Sequence

from roadworthy.calls import CLOSING_INPUT, CLOSING_OUTPUT, Asked, ModelCalls
from roadworthy.errors import ModelError
from roadworthy.messages import Message, Part, Text, ToolResult
from roadworthy.models.tokens import fixed_bound, message_bound
from roadworthy.run import Run
from roadworthy.stops import RecordEnds, Stop
from roadworthy.transcript import runtime_note

_UNDO = "Say that this can still be undone, if the user wants that: {undo}."
_DIRECTIVE = (
    "You have to stop now: {why} Write your final answer for the user with what you have. "
    "Say plainly what is done and what is missing. Do not promise what you have not done."
)
_MOST_WHY, _MOST_INSTRUCTIONS = 600, 2_000  # bytes, in a closing call that must be short
_LEAST_PIECE = 40  # bytes; less of a message says nothing


async def closing_answer(run: Run, models: ModelCalls, stop: Stop, undoable: Sequence[str]) -> str:
    """One last call without tools, from the reserve kept for it; "" when even that is not to be."""
    undo = ", ".join(undoable)
    also = f" {_UNDO.format(undo=undo)}" if undo else ""
    directive = runtime_note(_DIRECTIVE.format(why=cut(stop.why, _MOST_WHY)) + cut(also, _MOST_WHY))
    instructions = "\n\n".join(t for t in run.agent.texts if isinstance(t, str))
    short = cut(instructions, _MOST_INSTRUCTIONS)
    room = CLOSING_INPUT - fixed_bound(short, (), None) - message_bound(directive)
    attempts = (
        (f"turn/{run.turn}/closing/{run.past.reopened}", instructions, run.messages),
        (f"turn/{run.turn}/closing_short/{run.past.reopened}", short, trimmed(run.messages, room)),
    )
    for key, texts, messages in attempts:
        asked = Asked(
            key=key,
            instructions=texts,
            messages=[*messages, directive],
            phase="finish",
            most_tokens=CLOSING_OUTPUT,
            closing=True,
        )
        try:
            reply = await models.ask(run, asked)
        except (Stop, ModelError):
            continue
        except RecordEnds:
            continue
        if reply.text:
            return reply.text
    return ""


def trimmed(messages: Sequence[Message], most_tokens: int) -> list[Message]:
    """The last words and results as one message of at most so many tokens, the newest kept.

    Each begins with who said it, on a line of its own; what was said follows, every line of it
    behind "> ", so that nothing a user or a tool wrote can pass for the words of another.
    """
    room = most_tokens - message_bound(Message.user(""))
    pieces: list[str] = []
    for message in reversed(messages):
        who = "runtime" if message.by_runtime else message.role
        for part in reversed(message.parts):
            text = _words(part)
            if text and room >= _LEAST_PIECE:
                piece = cut(f"{who}:\n{_quoted(text)}", max(_LEAST_PIECE, room // 2))
                pieces.append(piece.rstrip("\n"))  # cut at the end of a line
                room -= len(piece.encode()) + 1
    return [Message.user("\n".join(reversed(pieces)))]


def cut(text: str, most_bytes: int) -> str:
    """The beginning of a text, within so many bytes, no character broken."""
    return text.encode("utf-8", "replace")[: max(0, most_bytes)].decode("utf-8", "ignore")


def _words(part: Part) -> str:
    if isinstance(part, Text):
        return part.text
    return part.content if isinstance(part, ToolResult) else ""


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())
