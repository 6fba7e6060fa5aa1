"""Runs one attempt of one tool: async on the loop, plain functions in a bounded pool of threads.

`tool_calls` uses it. Invariant: whatever a tool does becomes a value or an `AttemptFailed`; a
thread that outlives its time limit keeps its slot until it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from roadworthy.agent import Tool
from roadworthy.context import RunContext
from roadworthy.errors import NotApplied, StoreUnavailable, ToolError
from roadworthy.tools.faults import Fault, fault

T = TypeVar("T")
_MISTAKES = (TypeError, AttributeError, NameError, AssertionError, ImportError, LookupError)
MOST_TEXT = 500


class AttemptFailed(Exception):
    """One attempt did not give a value.

    applied: "no" (surely no effect), "unknown". transient: trying again may help. far_side: what
    is behind the tool failed, not the tool. retry_after: seconds it asked to be left alone.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        applied: str,
        transient: bool,
        far_side: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.applied = applied
        self.transient = transient
        self.far_side = far_side
        self.retry_after = retry_after

    @property
    def definite(self) -> bool:
        """The tool gave its answer: it is told to the model, and nothing failed."""
        return self.code == "tool_error" and not self.transient


class ToolThreads:
    """The pool for plain functions. Context variables are kept."""

    def __init__(self, most: int = 64) -> None:
        self.most = most
        self.guard: Callable[[], None] = _free  # raises StoreUnavailable: no longer ours to act
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="roadworthy-tool")

    def close(self) -> None:
        """Let the process end; running functions are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def call(
        self,
        function: Callable[..., Any],
        arguments: tuple[object, ...],
        values: Mapping[str, Any],
        left: Callable[[], None] | None = None,
    ) -> object:
        """Call a user's function, on the loop when it is async, else in a thread.

        left: called on the loop once the function has returned, also long after its time limit.

        Raises: StoreUnavailable: this process may have been stopped so long that others have its
        runs; nothing was called.
        """
        if inspect.iscoroutinefunction(function):
            try:
                self.guard()
                return await function(*arguments, **values)
            finally:
                if left is not None:
                    left()
        run_in = contextvars.copy_context().run
        guarded = functools.partial(self._guarded, function, *arguments, **values)
        work = self._pool.submit(run_in, guarded)
        try:
            return await asyncio.wrap_future(work)
        finally:
            if left is not None:
                _when_done(work, left)

    def _guarded(self, function: Callable[..., T], *arguments: object, **values: object) -> T:
        self.guard()  # here, at the last moment, not before a thread was free
        return function(*arguments, **values)


def _free() -> None:
    """One process: nobody else has its runs."""


def _when_done(work: Future[Any], left: Callable[[], None]) -> None:
    """Call it now, or on this loop once the thread is free."""
    if work.done():
        left()
        return
    loop = asyncio.get_running_loop()

    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for the place
            loop.call_soon_threadsafe(left)

    work.add_done_callback(tell)


async def attempt(
    threads: ToolThreads,
    tool: Tool[Any],
    context: RunContext[Any],
    values: Mapping[str, Any],
    left: Callable[[], None] | None = None,
) -> object:
    """One try. The caller bounds its time.

    Raises: AttemptFailed; StoreUnavailable. TimeoutError: only the caller's own time limit.
    """
    arguments = (context,) if tool.takes_context else ()
    try:
        return await threads.call(tool.function, arguments, values, left)
    except StoreUnavailable:  # what became of the call is found out where the run goes on
        raise
    except NotApplied as error:
        raise _failed("not_applied", _said(error), "no", fault(error, context.now)) from error
    except ToolError as error:
        found = fault(error, context.now)
        raise _failed("tool_error", _said(error), _applied(tool, error), found) from error
    except Exception as error:  # border: a tool's code; REC-7, it never crashes a run
        mistake = isinstance(error, _MISTAKES)
        found = Fault(far_side=False, passing=False) if mistake else fault(error, context.now)
        said = f"{type(error).__name__}: {_said(error)}" if str(error) else type(error).__name__
        raise _failed("tool_bug" if mistake else "exception", said, "unknown", found) from error


def _failed(code: str, said: str, applied: str, found: Fault) -> AttemptFailed:
    return AttemptFailed(
        code,
        said,
        applied=applied,
        transient=found.passing,
        far_side=found.far_side,
        retry_after=found.retry_after,
    )


def _applied(tool: Tool[Any], error: ToolError) -> str:
    """A transient failure of what must never run twice says nothing; NotApplied would."""
    return "unknown" if error.retry and tool.effect == "irreversible" else "no"


def _said(error: BaseException) -> str:
    return str(error)[:MOST_TEXT]
