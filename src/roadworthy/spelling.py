"""Keyword names of declarations: one that does not exist is said with the nearest that does.

`Limits`, `Budget`, `Agent` and `@tool` are wrapped. Invariant: their signatures stay as written for
type checkers and readers, and a right call pays nothing.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from roadworthy.errors import DeclarationError

T = TypeVar("T")


def spelled(declaration: T) -> T:
    """The class or function; a keyword it does not have is a DeclarationError, not a TypeError."""
    if isinstance(declaration, type):
        made = cast(Any, declaration)
        made.__init__ = _spelled(made.__init__, made.__name__)
        return declaration
    function = cast(Callable[..., Any], declaration)
    return cast(T, _spelled(function, f"@{function.__name__}"))


def _spelled(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*given: object, **named: object) -> object:
        try:
            return function(*given, **named)
        except TypeError:
            _check(function, name, named)
            raise

    return call


def _check(function: Callable[..., Any], name: str, named: dict[str, object]) -> None:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind in kinds and p.name != "self"]
    for wrong in named:
        if wrong not in known:
            near = difflib.get_close_matches(wrong, known, 1)
            mend = f"did you mean `{near[0]}`?" if near else f"it takes {', '.join(known)}."
            raise DeclarationError(f"{name} has no `{wrong}`; {mend}") from None
