"""The words of a name or a sentence, as tools are compared and found by them.

Invariant: the same text always gives the same words; case, joints and endings make no difference.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_STOP = frozenset(
    re.split(
        r"\s+",
        """a an and any are as at be been but by can could do does for from get give has have he her
        his how i if in into is it its just let like may me my need of on one or our out please she
        so some that the their them then there these they this to up use used using want was we
        were what when where which who will with would you your""",
    )
)


def spoken(name: str) -> str:
    """A name as it is read aloud: `getOrder_v2` is "get order v 2"."""
    return " ".join(_WORD.findall(name)).lower()


def words(text: str) -> list[str]:
    """In order, with repeats; those that say nothing left out."""
    found = (word.lower() for word in _WORD.findall(text))
    return [_stem(word) for word in found if word not in _STOP]


def _stem(word: str) -> str:
    """The word without its commonest English endings: enough that orders meet order."""
    for ending, least in (("ations", 4), ("ation", 4), ("ings", 4), ("ing", 4), ("ies", 3)):
        if word.endswith(ending) and len(word) - len(ending) >= least:
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    if word.endswith("es") and len(word) > 4 and word[-3] in "sxzh":
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        word = word[:-1]
    if word.endswith("ed") and len(word) > 5:
        word = word[:-2]
    return word.removesuffix("e") if len(word) > 4 else word
