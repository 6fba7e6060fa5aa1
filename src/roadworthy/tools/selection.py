"""Which of many tools a request is likely to need: BM25 over names, descriptions and parameters.

`tool_calls.choice` shows a model the best and finds it others. Invariant: a pure function of the
declared tools and the words; the same words always give the same tools in the same order.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from roadworthy.messages import JsonObject, ToolSpec
from roadworthy.tools.words import words

_K, _B = (
    1.2,
    0.4,
)  # saturation and length of BM25 (Robertson, Zaragoza 2009); short texts want a low B
_NAME, _SAID, _PARAMETER = 2.0, 1.0, 0.5
_LONGEST = 4_000  # characters of a request that are looked at: its beginning and its end


class Selector:
    """An index of tools, made once for an agent."""

    def __init__(self, specs: Iterable[ToolSpec]) -> None:
        self._names: list[str] = []
        self._weights: dict[str, list[tuple[int, float]]] = defaultdict(list)
        documents = []
        for spec in specs:
            self._names.append(spec.name)
            documents.append(_document(spec))
        lengths = [sum(document.values()) for document in documents]
        mean = sum(lengths) / len(lengths) if lengths else 1.0
        held = Counter(word for document in documents for word in document)
        for index, (document, length) in enumerate(zip(documents, lengths, strict=True)):
            for word, count in document.items():
                rare = math.log(1 + (len(documents) - held[word] + 0.5) / (held[word] + 0.5))
                norm = _K * (1 - _B + _B * length / mean)
                self._weights[word].append((index, rare * count * (_K + 1) / (count + norm)))

    def best(self, text: str, most: int, among: Iterable[str] | None = None) -> tuple[str, ...]:
        """At most so many names, the likeliest first; none that shares no word with the text."""
        scores: dict[int, float] = defaultdict(float)
        for word in dict.fromkeys(words(_clipped(text))):
            for index, weight in self._weights.get(word, ()):
                scores[index] += weight
        allowed = None if among is None else frozenset(among)
        ranked = sorted(scores, key=lambda index: (-scores[index], index))
        names = (self._names[index] for index in ranked)
        return tuple(name for name in names if allowed is None or name in allowed)[:most]


def _document(spec: ToolSpec) -> Mapping[str, float]:
    """Words of a tool with their weight."""
    found: dict[str, float] = defaultdict(float)
    for text, weight in _texts(spec):
        for word in words(text):
            found[word] += weight
    return found


def _texts(spec: ToolSpec) -> Iterable[tuple[str, float]]:
    yield spec.name, _NAME
    yield spec.description, _SAID
    yield from _fields(spec.parameters)


def _fields(schema: JsonObject) -> Iterable[tuple[str, float]]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    for name, part in properties.items():
        yield name, _PARAMETER
        if isinstance(part, Mapping):
            yield str(part.get("description", "")), _PARAMETER
            yield " ".join(map(str, part.get("enum", ())))[:200], _PARAMETER


def _clipped(text: str) -> str:
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} {text[-half:]}"
