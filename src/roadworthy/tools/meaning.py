"""How near texts are in meaning, by a small local model: the extra `select`.

`selection` ranks tools with it beside their words. Invariant: nothing is downloaded, nothing leaves
this process, and without the extra everything works by words alone.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

log = logging.getLogger("roadworthy.tools")

Nearness: TypeAlias = Callable[[str], Sequence[float]]
"""How near a text is to each of those that were indexed, from -1 to 1."""


class Meaning(Protocol):
    """What compares texts by what they mean."""

    def index(self, texts: Sequence[str], /) -> Nearness:
        """Read these once, to compare others with them."""
        ...


class WordLlama:
    """Averages of word vectors (https://github.com/dleemiller/WordLlama): 16 MB of weights in the
    wheel, some 0.05 ms a sentence, the same numbers each time."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - an untyped library
        self._model = model

    def index(self, texts: Sequence[str], /) -> Nearness:
        """As `Meaning` says."""
        vectors = self._model.embed(list(texts), norm=True)

        def near(text: str) -> Sequence[float]:
            found: list[float] = (vectors @ self._model.embed([text], norm=True)[0]).tolist()
            return found

        return near


@functools.cache
def local_meaning() -> Meaning | None:
    """The model of the extra `select`; None: it is not installed. The first call takes half a
    second: not on an event loop."""
    try:
        import wordllama  # noqa: PLC0415 - an extra, with numpy under it
    except ImportError:
        return None
    place = Path(wordllama.__file__).parent  # else it would look for its weights at a hub
    try:
        return WordLlama(wordllama.WordLlama.load(cache_dir=place, disable_download=True))
    except OSError as error:
        log.warning("wordllama has no weights (%s): tools are found by words alone", error)
        return None
