"""How many tokens a request can have at most, before it is sent and without a tokenizer.

`calls.py` reserves by it. Invariant: never below what a provider counts, for text of any kind:
byte-level tokenizers (BPE and sentencepiece with byte fallback) make at most one token of a byte.
"""

from __future__ import annotations

import msgspec

from roadworthy.messages import File, Message, OutputSpec, Part, Reasoning, Text, ToolCall, ToolSpec

_CONSTANT = 64  # what wraps any request
_WITH_TOOLS = 600  # the provider's own tool prompt (Anthropic's longest published one is 530)
_PER_TOOL = 32
_PER_MESSAGE = 16
_PER_PART = 16  # some providers make a message of each part

_IMAGE = 8_192
_DOCUMENT = 8_192
_LINKED = 100_000  # a file behind a URL, of unknown length
_MOST = 1_000_000  # the longest context window on offer


def message_bound(message: Message) -> int:
    """Tokens one message can add to a request, at most.

    Files are bounded by constants: an image by 8,192 (one exception is known: gpt-4o-mini counts
    up to 48,000 at a thirtieth of the price), other data by its bytes and 8,192.
    """
    return _PER_MESSAGE + sum(map(_part_bound, message.parts))


def fixed_bound(instructions: str, tools: tuple[ToolSpec, ...], output: OutputSpec | None) -> int:
    """Tokens of what every request of an agent repeats: instructions, tools, output schema."""
    bound = _CONSTANT + _bytes(instructions)
    if tools or output is not None:
        bound += _WITH_TOOLS
    bound += sum(_PER_TOOL + len(msgspec.json.encode(tool)) for tool in tools)
    if output is not None:  # a schema may be told twice: as a format and in the instructions
        bound += 2 * (_PER_TOOL + len(msgspec.json.encode(output)))
    return bound


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _part_bound(part: Part) -> int:
    if isinstance(part, Text):
        return _PER_PART + _bytes(part.text) + _bytes(part.provider_state or "")
    if isinstance(part, ToolCall):
        arguments = len(msgspec.json.encode(part.arguments)) + _bytes(part.malformed or "")
        said = _bytes(part.tool) + _bytes(part.id) + _bytes(part.provider_state or "")
        return 2 * _PER_PART + said + arguments
    if isinstance(part, Reasoning):
        return _PER_PART + _bytes(part.text) + _bytes(part.provider_state or "")
    if isinstance(part, File):
        return _PER_PART + _file_bound(part)
    files = sum(_PER_PART + _file_bound(file) for file in part.files)
    return 2 * _PER_PART + _bytes(part.tool) + _bytes(part.call_id) + _bytes(part.told) + files


def _file_bound(file: File) -> int:
    if file.media_type.startswith("image/"):
        return _IMAGE
    if file.data is None:
        return _LINKED
    if file.media_type.startswith("text/"):
        return len(file.data) + _DOCUMENT
    return min(_MOST, len(file.data) + _DOCUMENT)
