"""A run's trace as lines of text: turns, decisions, calls, money around each.

`runs show` prints it. Invariant: everything that `roadworthy.trace` tells is shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from roadworthy.cli.screen import COLOURS, clean, console, span, usd, when
from roadworthy.events import RunEvent
from roadworthy.store.runs import RunRow
from roadworthy.trace import Step, limits_of, story

_INDENT = " " * 12


def show_run(row: RunRow, events: Sequence[RunEvent]) -> None:
    """Print a run."""
    out = console()
    _head(out, row, events)
    turn = 0
    for step in story(events):
        if step.turn > turn:
            turn = step.turn
            out.print(f"\nTurn {turn}", style="bold")
        _step(out, step)


def _head(out: Console, row: RunRow, events: Sequence[RunEvent]) -> None:
    why = f" ({row.reason})" if row.reason not in ("", row.status) else ""
    status = Text(row.status + why)
    status.stylize(f"bold {COLOURS.get(row.status, 'cyan')}")
    out.print(Text(f"{row.id}  ", style="bold"), status, sep="")
    who = f"{row.user} of {row.tenant}" if row.tenant else row.user
    place = f", conversation {row.conversation}" if row.conversation else ""
    out.print(clean(f"{row.pattern} for {who}{place}, {when(row.created_at)}"))
    limits = limits_of(events)
    bound = "no limit" if limits.usd is None else f"limit ${limits.usd}"
    out.print(
        f"{usd(row.nanos)} ({bound}), {row.input_tokens:,} tokens in, {row.output_tokens:,} out, "
        f"{limits.turns} turns, {limits.tool_calls} tool calls and {limits.seconds:g} s at most"
    )


def _step(out: Console, step: Step) -> None:
    line = Text(f"  {step.kind:<9} ", style="bright_black")
    line.append(clean(step.title), style=COLOURS.get(step.state, ""))
    for fact in _facts(step):
        line.append(f"  {fact}", style="bright_black")
    out.print(line)
    for trouble in step.troubles:
        out.print(f"{_INDENT}{clean(trouble)}", style="yellow")
    for name, value in step.detail.items():
        if value not in ("", None, [], {}):
            _detail(out, name, value)


def _facts(step: Step) -> Iterator[str]:
    if step.kind in ("tool", "person", "model") and step.state != "ok":
        yield step.state
    if step.ended is not None and step.ended > step.began:
        yield span(step.ended - step.began)
    if step.attempts > 1:
        yield f"{step.attempts} attempts"
    if step.kind == "model":
        yield f"{step.tokens[0]:,} in {step.tokens[1]:,} out"
        if step.phase != "execute":
            yield step.phase
    if step.kind == "model" or step.reserved or step.settled or step.assumed:
        yield f"reserved {usd(step.reserved)} settled {usd(step.settled)}"
        if step.assumed:
            yield f"assumed {usd(step.assumed)}"
        yield f"spent {usd(step.before)} → {usd(step.after)}"


def _detail(out: Console, name: str, value: object) -> None:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    label = f"{name.replace('_', ' ')}: "
    first, *more = clean(text).split("\n")
    line = Text(f"{_INDENT}{label}", style="bright_black")
    line.append(first, style="default")
    out.print(line)
    for rest in more:
        out.print(f"{_INDENT}{' ' * len(label)}{rest}")
