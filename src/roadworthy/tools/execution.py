"""Runs one attempt of one tool: async on the loop, plain functions in a bounded pool of threads.

`tool_calls` uses it. Invariant: whatever a tool does becomes a value or an `AttemptFailed`; a
thread that outlives its time limit keeps its slot until it returns.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from roadworthy.agent import Tool
from roadworthy.context import RunContext
from roadworthy.errors import NotApplied, StoreUnavailable, ToolError

T = TypeVar("T")
_MISTAKES = (TypeError, AttributeError, NameError, AssertionError, ImportError, LookupError)
MOST_TEXT = 500


class AttemptFailed(Exception):
    """One attempt did not give a value.

    applied: "no" (surely no effect), "unknown". transient: trying again may help.
    """

    def __init__(self, code: str, message: str, *, applied: str, transient: bool) -> None:
        super().__init__(message)
        self.code = code
        self.applied = applied
        self.transient = transient


class ToolThreads:
    """The pool for plain functions. Context variables are kept."""

    def __init__(self, most: int = 64) -> None:
        self.guard: Callable[[], None] = _free  # raises StoreUnavailable: no longer ours to act
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="roadworthy-tool")

    def close(self) -> None:
        """Let the process end; running functions are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def call(
        self, function: Callable[..., Any], arguments: tuple[object, ...], values: Mapping[str, Any]
    ) -> object:
        """Call a user's function, on the loop when it is async, else in a thread.

        Raises: StoreUnavailable: this process may have been stopped so long that others have its
        runs; nothing was called.
        """
        if inspect.iscoroutinefunction(function):
            self.guard()
            return await function(*arguments, **values)
        run_in = contextvars.copy_context().run
        guarded = functools.partial(self._guarded, function, *arguments, **values)
        work = functools.partial(run_in, guarded)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _guarded(self, function: Callable[..., T], *arguments: object, **values: object) -> T:
        self.guard()  # here, at the last moment, not before a thread was free
        return function(*arguments, **values)


def _free() -> None:
    """One process: nobody else has its runs."""


async def attempt(
    threads: ToolThreads, tool: Tool[Any], context: RunContext[Any], values: Mapping[str, Any]
) -> object:
    """One try. The caller bounds its time.

    Raises: AttemptFailed; StoreUnavailable. TimeoutError: only the caller's own time limit.
    """
    arguments = (context,) if tool.takes_context else ()
    try:
        return await threads.call(tool.function, arguments, values)
    except StoreUnavailable:  # what became of the call is found out where the run goes on
        raise
    except NotApplied as error:
        raise AttemptFailed(
            "not_applied", _said(error), applied="no", transient=error.retry
        ) from error
    except ToolError as error:
        raise AttemptFailed(
            "tool_error", _said(error), applied=_applied(tool, error), transient=error.retry
        ) from error
    except Exception as error:  # border: a tool's code; REC-7, it never crashes a run
        mistake = isinstance(error, _MISTAKES)
        said = f"{type(error).__name__}: {_said(error)}" if str(error) else type(error).__name__
        raise AttemptFailed(
            "tool_bug" if mistake else "exception", said, applied="unknown", transient=not mistake
        ) from error


def _applied(tool: Tool[Any], error: ToolError) -> str:
    """A transient failure of what must never run twice says nothing; NotApplied would."""
    return "unknown" if error.retry and tool.effect == "irreversible" else "no"


def _said(error: BaseException) -> str:
    return str(error)[:MOST_TEXT]
