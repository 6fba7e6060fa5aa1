"""Follow a run in the terminal: Ctrl+C cancels it, a second one leaves it to go on by itself.

`run` and `chat` use it. Invariant: leaving the terminal never loses a run.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from roadworthy.cli.screen import Screen
from roadworthy.result import RunResult
from roadworthy.runtime import Runtime


def follow(rt: Runtime, run_id: str, screen: Screen) -> RunResult[Any]:
    """Show what is new of a run until it ends or waits. Raises: KeyboardInterrupt: left."""
    done: Future[RunResult[Any]] = Future()

    async def watch() -> None:
        try:
            async for event in rt.events(run_id, screen.after.get(run_id, -1)):
                screen.show(event)
            screen.end_line()
            done.set_result(await rt.result(run_id))
        except BaseException as error:  # border: handed to the thread that waits
            done.set_exception(error)
            raise

    try:
        rt.sync(watch())
    except KeyboardInterrupt:  # the watching goes on in the runtime's own thread
        screen.line("Cancelling. Ctrl+C again leaves; a call under way is waited for.", "yellow")
        rt.sync(rt.cancel(run_id, by="terminal"))
    return done.result()
