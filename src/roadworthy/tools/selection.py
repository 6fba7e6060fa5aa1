"""Which of many tools a request is likely to need: BM25 over names, descriptions and parameters,
and, where there is a `Meaning`, how near they are to it, fused by reciprocal ranks.

`tool_calls.choice` shows a model the best and finds it others. Invariant: a pure function of the
declared tools and the words; the same words always give the same tools in the same order.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from roadworthy.messages import JsonObject, ToolSpec
from roadworthy.tools.meaning import Meaning, Nearness
from roadworthy.tools.words import spoken, words

_K, _B = (
    1.2,
    0.4,
)  # saturation and length of BM25 (Robertson, Zaragoza 2009); short texts want a low B
_NAME, _SAID, _PARAMETER = 2.0, 1.0, 0.5
_FUSE = 10  # reciprocal rank fusion (Cormack, Clarke, Buettcher 2009); short lists want a low K
_NEAR = 0.1  # a tool that shares no word is found from here on: nonsense is mostly below
_LONGEST = 4_000  # characters of a request that are looked at: its beginning and its end


class Selector:
    """An index of tools, made once for an agent. meaning: None ranks by words alone."""

    def __init__(self, specs: Iterable[ToolSpec], meaning: Meaning | None = None) -> None:
        self._names: list[str] = []
        self._weights: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self._near: Nearness | None = None
        documents, texts = [], []
        for spec in specs:
            self._names.append(spec.name)
            documents.append(_document(spec))
            texts.append(_sentence(spec))
        if meaning is not None and texts:
            self._near = meaning.index(texts)
        lengths = [sum(document.values()) for document in documents]
        mean = sum(lengths) / len(lengths) if lengths else 1.0
        held = Counter(word for document in documents for word in document)
        for index, (document, length) in enumerate(zip(documents, lengths, strict=True)):
            for word, count in document.items():
                rare = math.log(1 + (len(documents) - held[word] + 0.5) / (held[word] + 0.5))
                norm = _K * (1 - _B + _B * length / mean)
                self._weights[word].append((index, rare * count * (_K + 1) / (count + norm)))

    def best(self, text: str, most: int, among: Iterable[str] | None = None) -> tuple[str, ...]:
        """At most so many names, the likeliest first; none that has nothing to do with the text."""
        text = _clipped(text)
        ranked = self._by_words(text)
        if self._near is not None:
            ranked = _fused(ranked, self._by_meaning(text, self._near, frozenset(ranked)))
        allowed = None if among is None else frozenset(among)
        names = (self._names[index] for index in ranked)
        return tuple(name for name in names if allowed is None or name in allowed)[:most]

    def _by_words(self, text: str) -> list[int]:
        """Those that share a word with it."""
        scores: dict[int, float] = defaultdict(float)
        for word in dict.fromkeys(words(text)):
            for index, weight in self._weights.get(word, ()):
                scores[index] += weight
        return sorted(scores, key=lambda index: (-scores[index], index))

    def _by_meaning(self, text: str, near: Nearness, found: frozenset[int]) -> list[int]:
        """Those that are near to it, or share a word with it."""
        scores = near(text)
        there = [i for i in range(len(self._names)) if scores[i] >= _NEAR or i in found]
        return sorted(there, key=lambda index: (-scores[index], index))


def _fused(*rankings: Sequence[int]) -> list[int]:
    scores: dict[int, float] = defaultdict(float)
    for ranked in rankings:
        for rank, index in enumerate(ranked, start=1):
            scores[index] += 1 / (_FUSE + rank)
    return sorted(scores, key=lambda index: (-scores[index], index))


def _sentence(spec: ToolSpec) -> str:
    """A tool as a text to compare others with: its names taken apart into words."""
    properties: Mapping[str, Any] = spec.parameters.get("properties", {})
    said = [f"{spoken(spec.name)}. {spec.description}"]
    for name, part in properties.items():
        about = part.get("description", "") if isinstance(part, Mapping) else ""
        said.append(f"{spoken(name)} {about}")
    return " ".join(said)


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
