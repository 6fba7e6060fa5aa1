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
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from roadworthy.agent import Tool, qualname
from roadworthy.context import RunContext
from roadworthy.errors import NotApplied, StoreUnavailable, ToolError
from roadworthy.tools.faults import NO_FAULT, Fault, fault

T = TypeVar("T")
_MISTAKES = (TypeError, AttributeError, NameError, AssertionError, ImportError, LookupError)
MOST_TEXT = 500


class AttemptFailed(Exception):
    """One attempt did not give a value.

    applied: "no" (surely no effect), "unknown". transient: trying again may help. fault: what it
    says of what is behind the tool.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        applied: str,
        transient: bool,
        fault: Fault = NO_FAULT,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.applied = applied
        self.transient = transient
        self.fault = fault

    @property
    def definite(self) -> bool:
        """The tool gave its answer: it is told to the model, and nothing failed."""
        return self.code == "tool_error" and not self.transient


class Lent:
    """In place of a function that is known only when it is called: `of` finds the tool whose it is.

    like: the tool as it was listed. plain: its function is no coroutine, and takes a thread.
    """

    def __init__(
        self, of: Callable[[RunContext[Any]], Awaitable[Tool[Any]]], like: Tool[Any]
    ) -> None:
        self.of, self.plain = of, takes_thread(like)
        self.__qualname__ = qualname(like.function)

    async def __call__(self, run: RunContext[Any], /, **values: object) -> object:
        """What it returns, called as users call a tool."""
        found = await self.of(run)
        result = found(*((run,) if found.takes_context else ()), **values)
        return await result if inspect.isawaitable(result) else result


def takes_thread(tool: Tool[Any]) -> bool:
    """Whether its function is a plain one."""
    if isinstance(tool.function, Lent):
        return tool.function.plain
    return not inspect.iscoroutinefunction(tool.function)


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
    try:
        found = await _lent(tool, context, left)
        arguments = (context,) if found.takes_context else ()
        return await threads.call(found.function, arguments, values, left)
    except StoreUnavailable:  # what became of the call is found out where the run goes on
        raise
    except NotApplied as error:
        raise _failed("not_applied", _said(error), "no", fault(error, context.now)) from error
    except ToolError as error:
        why = fault(error, context.now)
        raise _failed("tool_error", _said(error), _applied(tool, error), why) from error
    except Exception as error:  # border: a tool's code; REC-7, it never crashes a run
        mistake = isinstance(error, _MISTAKES)
        why = NO_FAULT if mistake else fault(error, context.now)
        said = f"{type(error).__name__}: {_said(error)}" if str(error) else type(error).__name__
        raise _failed("tool_bug" if mistake else "exception", said, "unknown", why) from error


async def _lent(
    tool: Tool[Any], context: RunContext[Any], left: Callable[[], None] | None
) -> Tool[Any]:
    """The tool whose function is called."""
    if not isinstance(tool.function, Lent):
        return tool
    try:
        return await tool.function.of(context)
    except BaseException:
        if left is not None:
            left()
        raise


def _failed(code: str, said: str, applied: str, found: Fault) -> AttemptFailed:
    return AttemptFailed(code, said, applied=applied, transient=found.passing, fault=found)


def _applied(tool: Tool[Any], error: ToolError) -> str:
    """A transient failure of what must never run twice says nothing; NotApplied would."""
    return "unknown" if error.retry and tool.effect == "irreversible" else "no"


def _said(error: BaseException) -> str:
    return str(error)[:MOST_TEXT]
