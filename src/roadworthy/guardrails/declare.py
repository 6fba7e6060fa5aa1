"""The `@guardrail` decorator."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from roadworthy.agent import Guardrail, Verdict
from roadworthy.context import RunContext
from roadworthy.errors import DeclarationError


def guardrail(
    stage: Literal["input", "output"], *, name: str = ""
) -> Callable[[Callable[[RunContext[Any], str], Verdict | Awaitable[Verdict]]], Guardrail]:
    """Make a check of `fn(run, text) -> Verdict`, plain or async.

    stage "input": the user's words before the agent sees them; "output": the answer before the
    user sees it. Raises: DeclarationError: the function does not take (run, text).
    """
    if stage not in ("input", "output"):
        raise DeclarationError(f'@guardrail({stage!r}): the stage is "input" or "output".')

    def make(function: Callable[[RunContext[Any], str], Verdict | Awaitable[Verdict]]) -> Guardrail:
        if len(inspect.signature(function).parameters) != 2:
            raise DeclarationError(
                f"Guardrail {function.__name__!r} must take (run: RunContext, text: str)."
            )
        return Guardrail(name=name or function.__name__, stage=stage, function=function)

    return make
