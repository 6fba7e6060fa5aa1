"""`@toolset`: a function that opens something and yields its tools becomes a `Toolset`.

Invariant: a toolset that could not be opened and closed comes to no agent (DeclarationError).
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from roadworthy.agent import Tool, Toolset
from roadworthy.context import RunContext
from roadworthy.errors import DeclarationError
from roadworthy.spelling import spelled

Opens = Callable[..., AsyncIterator[Sequence[Tool[Any]]]]


@dataclass(frozen=True, kw_only=True)
class FromFunction(Toolset[Any]):
    """A toolset made by `@toolset`."""

    name: str
    function: Opens
    takes_run: bool
    per: Literal["process", "run"] = "process"
    required: bool = False
    seconds: float = 30.0

    def open(self, run: RunContext[None]) -> AbstractAsyncContextManager[Sequence[Tool[Any]]]:
        """What the function opens."""
        return asynccontextmanager(self.function)(*((run,) if self.takes_run else ()))


@spelled
def toolset(
    *,
    name: str | None = None,
    per: Literal["process", "run"] = "process",
    required: bool = False,
    seconds: float = 30.0,
) -> Callable[[Opens], Toolset[Any]]:
    """Make an async generator function a toolset: what comes before its one `yield` of tools opens
    it, what comes after closes it. It may take the run it is opened for.

    per, required, seconds: as `Toolset` says. Raises: DeclarationError.
    """

    def make(function: Opens) -> Toolset[Any]:
        called = name or str(getattr(function, "__name__", function))
        if not inspect.isasyncgenfunction(function):
            raise DeclarationError(
                f"Toolset {called!r}: write `async def` with one `yield [tool, ...]`."
            )
        return checked(
            FromFunction(
                name=called,
                function=function,
                takes_run=bool(inspect.signature(function).parameters),
                per=per,
                required=required,
                seconds=seconds,
            )
        )

    return make


def checked(made: Toolset[Any]) -> Toolset[Any]:
    """The toolset, if its fields make sense. Raises: DeclarationError."""
    if made.per not in ("process", "run"):
        raise DeclarationError(f'Toolset {made.name!r}: per={made.per!r} is "process" or "run".')
    if not 0 < made.seconds < float("inf"):
        raise DeclarationError(f"Toolset {made.name!r}: seconds= must be more than 0.")
    return made
