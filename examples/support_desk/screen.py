"""The demo's screen: each event of a run as one line, and the tables between.

Invariant: it shows what the journal and the databases say, and computes nothing of its own.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from roadworthy import RunResult, ToolCall
from roadworthy.events import (
    ApprovalAsked,
    ApprovalDecided,
    BudgetRefused,
    Delivered,
    LoopNoticed,
    ModelFailed,
    ModelReplied,
    RunEnded,
    RunEvent,
    RunStarted,
    RunWaiting,
    SegmentStarted,
    StreamEvent,
    ToolAttemptFailed,
    ToolFailed,
    ToolIntended,
    ToolRefused,
    ToolSucceeded,
)
from roadworthy.limits import to_dollars

MOST = 170  # characters of a result
_WIDTH, _INDENT = 100, 11
_COLOURS = {
    "customer": "bold cyan",
    "model": "magenta",
    "result": "dim",
    "intent": "blue",
    "answer": "bold green",
    "ended": "green",
    "failed": "red",
    "refused": "yellow",
    "loop": "yellow",
    "budget": "yellow",
    "approval": "yellow",
    "waits": "yellow",
    "decided": "green",
    "process": "blue",
    "shop": "blue",
    "ledger": "blue",
    "replay": "blue",
}
_console = Console(
    width=min(_WIDTH, Console().width) if sys.stdout.isatty() else _WIDTH, highlight=False
)


def line(label: str, text: str, *, style: str = "") -> None:
    """One line with its label; long text goes on below itself."""
    first, *more = textwrap.wrap(text, _console.width - _INDENT) or [""]
    style = style or ("dim" if label == "result" else "")
    _console.print(Text.assemble((f"{label:>9}  ", _COLOURS.get(label, "")), (first, style)))
    for rest in more:
        _console.print(Text(" " * _INDENT + rest, style))


def title(name: str, notice: str) -> None:
    """A scene begins."""
    _console.print()
    _console.print(Rule(f"[bold]{escape(name)}[/]", align="left", style="dim"))
    line("", f"Notice: {notice}", style="italic")
    _console.print()


def panel(text: str, name: str) -> None:
    """A framed word to the reader."""
    _console.print(Panel(text, title=name, title_align="left", border_style="dim", padding=(0, 2)))


def say(text: str = "") -> None:
    """A plain line; never wrapped, so that commands can be copied."""
    _console.print(text, soft_wrap=True, markup=False)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A small table; headings that start with `>` are of numbers, the first column is never cut."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(headings):
        right = heading.startswith(">")
        name = heading.removeprefix(">")
        shown.add_column(name, justify="right" if right else "left", no_wrap=number == 0)
    for row in rows:
        shown.add_row(*(escape(cell) for cell in row))
    _console.print(shown)


def show(event: StreamEvent) -> None:
    """One event of a run, where it says something to a reader."""
    match event:
        case RunStarted(input=said):
            line("customer", said.text)
        case ModelReplied(reply=reply) if reply.tool_calls:
            line("model", "asks for " + " and ".join(map(call, reply.tool_calls)))
        case ModelFailed(code=code, message=why):
            line("failed", f"the model did not answer: {code}: {why}")
        case Delivered(text=text):
            line("answer", text)
        case RunWaiting(result=result):
            line("waits", outcome(result))
        case RunEnded(result=result):
            line("ended", outcome(result))
        case _:
            _step_in(event)


def _step_in(event: StreamEvent) -> None:
    """Where the runtime, or a person, steps in."""
    match event:
        case SegmentStarted(segment=segment) if segment > 1:
            line("process", f"the run goes on from its journal (segment {segment})")
        case ApprovalAsked(asks=who, tool=tool, arguments=arguments):
            line("approval", f"the {who} is asked: may {call(ToolCall(tool, arguments))} run?")
        case ApprovalDecided(decision=decision, by=who, note=note):
            line("decided", f"{decision} by {who}{f': {note}' if note else ''}")
        case BudgetRefused(need=need, left=left):
            kept = "beside what is kept for a last answer"
            line("budget", f"the next call may cost {usd(need)}; {usd(left)} is left {kept}")
        case LoopNoticed(tool=tool, kind=kind, repeat=repeat, stopped=stopped):
            then = "the run is stopped" if stopped else "the model is told"
            line("loop", f"{tool}, {kind.replace('_', ' ')}: the {_th(repeat)} time; {then}")
        case _:
            _tool(event)


def _tool(event: StreamEvent) -> None:
    match event:
        case ToolIntended(tool=tool, idempotency_key=key):
            line("intent", f"{tool} is written down before it happens, under key {key[:12]}")
        case ToolAttemptFailed(tool=tool, attempt=attempt, message=why, at=at, retry_at=again):
            pause = f"; again in {((again or at) - at) / 1e6:.2f} s"
            line("failed", f"{tool}, {_th(attempt)} attempt: {why}{pause}")
        case ToolSucceeded(tool=tool, result=result, source=source, attempts=attempts):
            tried = f" ({_th(attempts)} attempt)" if attempts > 1 else ""
            how = "" if source == "call" else f" [{source}]"
            line("result", f"{tool}{how}{tried}: {_short(result.content)}")
        case ToolFailed(tool=tool, result=result):
            line("failed", f"{tool}: {_short(result.content)}")
        case ToolRefused(result=result):
            line("refused", _short(result.content))
        case _:
            pass


def trail(events: Iterable[RunEvent], step: str) -> None:
    """The events of one step as a table, with the segments around them."""
    rows = []
    for event in events:
        match event:
            case SegmentStarted(segment=segment):
                detail = f"segment {segment}"
            case ToolIntended(tool=tool, idempotency_key=key, key=at) if at == step:
                detail = f"{tool} under {key[:12]}"
            case ToolSucceeded(tool=tool, source=source, key=at) if at == step:
                detail = f"{tool}, {source}"
            case RunEnded(status=status):
                detail = status
            case _:
                continue
        rows.append((str(event.seq), type(event).__name__, event.key, detail))
    table((">event", "in the journal", "step", "what"), rows)


def outcome(result: RunResult[Any]) -> str:
    """How a run stands: status, reason, usage."""
    used = result.usage
    reason = "" if result.reason == result.status else f" ({result.reason})"
    why = f" {result.report.why}" if result.report.why else ""
    turns = f"{used.turns} turn{'s' * (used.turns != 1)}"
    return f"{result.status}{reason}: {turns}, ${used.usd:.4f}, {used.seconds:.2f} s.{why}"


def call(asked: ToolCall) -> str:
    """A call as one would write it."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in asked.arguments.items())
    return f"{asked.tool}({arguments})"


def usd(nanos: int) -> str:
    """Nano-dollars as dollars."""
    return f"${to_dollars(nanos):.4f}"


def _short(text: str) -> str:
    text = text.replace(',"', ', "')
    return text if len(text) <= MOST else f"{text[:MOST]} ..."


def _th(number: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")
