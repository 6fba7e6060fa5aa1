"""What the commands print: streamed text, progress, one-line status, tables.

Invariant: text of models and tools never controls the terminal. Answers go to stdout, what is
about them to stderr.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from rich.console import Console

from roadworthy.clock import moment
from roadworthy.events import (
    BreakerRefused,
    Delivered,
    ModelFailed,
    RunEvent,
    RunWaiting,
    StreamEvent,
    TextDelta,
    TextReplaced,
    ToolAttemptFailed,
    ToolFailed,
    ToolIntended,
    ToolProgress,
    ToolRefused,
    ToolRungLeft,
    ToolSucceeded,
)
from roadworthy.limits import to_dollars
from roadworthy.result import RunResult, Status

EXIT: dict[Status, int] = {
    "completed": 0,
    "failed": 1,
    "stopped": 1,
    "queued": 3,
    "running": 3,
    "waiting": 3,
    "escalated": 3,
    "partial": 4,
}
COLOURS: dict[str, str] = {
    "completed": "green",
    "ok": "green",
    "failed": "red",
    "stopped": "red",
    "error": "red",
    "refused": "red",
    "waiting": "yellow",
    "escalated": "yellow",
    "partial": "yellow",
}
_WIDE = 160  # columns where nobody looks at a terminal
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def console(*, error: bool = False) -> Console:
    """A console that takes text as it is."""
    stream = sys.stderr if error else sys.stdout
    return Console(
        file=stream,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=True,
        width=None if stream.isatty() else _WIDE,
    )


def clean(text: str) -> str:
    """Without escapes and direction marks, which could show what was not said."""
    return _CONTROLS.sub("", text).encode("utf-8", "replace").decode()


def usd(nanos: int) -> str:
    """Dollars, as many digits as matter."""
    amount = to_dollars(nanos)
    if not nanos:
        return "$0"
    return (
        f"${amount:.2f}"
        if amount >= 1
        else f"${float(amount):.2g}"
        if amount < 0.0001
        else f"${amount:.4f}"
    )


def when(micros: int) -> str:
    """Local date and time."""
    return moment(micros).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(micros: int) -> str:
    """A duration."""
    if micros < 1_000_000:
        return f"{micros / 1000:.0f} ms"
    return f"{micros / 1_000_000:.2f} s"


def status_line(result: RunResult[Any]) -> str:
    """How a run ended, in one line."""
    usage = result.usage
    return " · ".join(
        (
            f"{result.status} ({result.reason})" if result.reason != result.status else "waiting",
            _count(usage.turns, "turn"),
            _count(usage.tool_calls, "tool call"),
            usd(usage.nanos + usage.assumed_nanos),
            result.run_id,
        )
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class Screen:
    """Shows one conversation's events as they come. `after`: how far a run was shown."""

    def __init__(self) -> None:
        self.after: dict[str, int] = {}
        self._err = console(error=True)
        self._key = ""
        self._streamed = ""
        self._fresh = True  # at the start of a line

    def show(self, event: StreamEvent) -> None:
        """Show one event."""
        if isinstance(event, RunEvent):
            self.after[event.run_id] = event.seq
        match event:
            case TextDelta():
                self._delta(event)
            case TextReplaced(text=text):
                self._replaced(text)
            case ToolProgress(tool=tool, text=text):
                self.line(f"  {tool}: {text}")
            case Delivered(text=text):
                self._delivered(text)
            case RunWaiting(result=result):
                self._delivered(result.text)
            case _:
                self._about(event)

    def _about(self, event: RunEvent) -> None:
        """What tools and models are doing."""
        match event:
            case ToolIntended(tool=tool, attempt=attempt):
                self.line(f"▸ {tool}" + (f" (attempt {attempt})" if attempt > 1 else ""))
            case ToolSucceeded(tool=tool, micros=micros):
                self.line(f"✓ {tool}  {span(micros)}", "green")
            case ToolFailed(tool=tool, code=code) | ToolRefused(tool=tool, code=code):
                self.line(f"✗ {tool}: {code.replace('_', ' ')}", "red")
            case ToolAttemptFailed(tool=tool, code=code):
                self.line(f"✗ {tool}: {code}, trying again", "yellow")
            case ToolRungLeft(tool=tool, code=code, next=following):
                self.line(f"✗ {tool}: {code}, next: {following.replace('_', ' ')}", "yellow")
            case BreakerRefused(model=model):
                self.line(f"✗ {model}: not asked, it failed too often just now", "yellow")
            case ModelFailed(model=model, code=code, gave_up=gave_up):
                self.line(f"✗ {model}: {code}{'' if gave_up else ', trying again'}", "yellow")
            case _:
                pass

    def line(self, text: str, style: str = "bright_black") -> None:
        """A line about the answer."""
        self.end_line()
        self._err.print(clean(text), style=style)

    def end_line(self) -> None:
        """Finish the line of streamed text."""
        if not self._fresh:
            self._write("\n")

    def _delta(self, event: TextDelta) -> None:
        if event.key != self._key or event.offset == 0:
            self.end_line()
            self._key, self._streamed = event.key, ""
        self._streamed += event.text
        self._write(event.text)

    def _replaced(self, text: str) -> None:
        if self._streamed:
            self.line("(taken back, here it is anew)")
        self._streamed = text
        self._write(text)

    def _delivered(self, text: str) -> None:
        if text.strip() != self._streamed.strip():
            self.end_line()
            self._write(text)
        self.end_line()
        self._key, self._streamed = "", ""

    def _write(self, text: str) -> None:
        shown = clean(text)
        if shown:
            sys.stdout.write(shown)
            sys.stdout.flush()
            self._fresh = shown.endswith("\n")
