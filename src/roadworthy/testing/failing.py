"""`failing`: a tool that fails as a test says, then works.

Invariant: the failure comes before the tool's own function runs, except where `after` is asked.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from roadworthy.agent import Tool

DepsT = TypeVar("DepsT")


@dataclass
class Failing:
    """What happened to a failing tool: `calls` holds the arguments of each call, in order."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    raised: list[BaseException] = field(default_factory=list)
    applied: int = 0


def failing(
    tool: Tool[DepsT], errors: Sequence[BaseException | None], *, after: bool = False
) -> tuple[Tool[DepsT], Failing]:
    """The tool with its first calls failing, and the log of its calls.

    errors: one per call, None for a call that works; later calls work. after: the function runs
    and its reply is lost, as when a connection breaks once the effect has happened.
    """
    log = Failing()
    function = tool.function

    @functools.wraps(function)
    async def broken(*args: object, **kwargs: object) -> object:
        number = len(log.calls)
        log.calls.append(_named(function, args, kwargs))
        error = errors[number] if number < len(errors) else None
        if error is not None and not after:
            log.raised.append(error)
            raise error
        result = function(*args, **kwargs)
        result = await result if inspect.isawaitable(result) else result
        log.applied += 1
        if error is not None:
            log.raised.append(error)
            raise error
        return result

    return replace(tool, function=broken), log


def _named(
    function: Callable[..., Any], args: tuple[object, ...], kwargs: dict[str, object]
) -> dict[str, Any]:
    return dict(inspect.signature(function).bind(*args, **kwargs).arguments)
