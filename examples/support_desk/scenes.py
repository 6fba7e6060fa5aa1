"""The story in seven scenes. `__main__` tells it.

Each scene is a run of the real agent on the real runtime; what is on screen is read from its
events. Only scene 7 needs processes of its own (`crash.py`): they are there to die.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from examples.support_desk import books, screen, script
from examples.support_desk.desk import URL, support
from roadworthy import RunOptions, Runtime
from roadworthy.events import RunEvent, RunStarted, RunWaiting

TICKET = "ticket-2003"  # the idempotency key of scene 7's request


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One request of a customer. usd: the run's own limit, instead of the agent's."""

    name: str
    notice: str
    user: str
    words: str
    usd: str = ""

    @property
    def options(self) -> RunOptions:
        """The scene's name goes with the run as a tag, so that the journal knows it."""
        limits = replace(support.limits, usd=self.usd) if self.usd else None
        return RunOptions(limits=limits, tags={"scene": self.name})


LOOKUP = Scene(
    name="1 A lookup",
    notice="two reads run side by side; A-2001 is Ben's, and Ana's run cannot see it.",
    user="ana",
    words=script.LOOKUP,
)
REFUND = Scene(
    name="2 A careful refund",
    notice="from 50 euros on a person decides. Meanwhile the run is a row, not a process.",
    user="ana",
    words=script.REFUND,
)
INVENTED = Scene(
    name="3 An invented tool",
    notice="an invented name never runs; the model is told the nearest one and recovers.",
    user="ben",
    words=script.INVENTED,
)
FLAKY = Scene(
    name="4 A flaky carrier",
    notice="retried after a pause; the model never hears of it and pays no turn.",
    user="ben",
    words=script.FLAKY,
)
LOOP = Scene(
    name="5 A loop",
    notice="the same call, the same result: told at the second time, stopped at the third.",
    user="chloe",
    words=script.LOOP,
)
BUDGET = Scene(
    name="6 A spent budget",
    notice="five cents, never overspent: before each call its worst case is reserved.",
    user="dana",
    words=script.BUDGET,
    usd="0.05",
)
CRASH = Scene(
    name="7 A kill -9",
    notice="in mid-refund: the bank has paid, the journal does not know it. Nothing is paid twice.",
    user="ben",
    words=script.CRASH,
)


async def tell(rt: Runtime, *, scripted: bool) -> bool:
    """Scenes 1 to 6, on an open runtime. False: the model cannot be asked at all."""
    first = await rt.result(await play(rt, LOOKUP))
    if first.status == "failed":
        return False
    await refund_with_approval(rt)
    if scripted:
        await play(rt, INVENTED)
    await play(rt, FLAKY)
    if scripted:
        await play(rt, LOOP)
    await budget(rt)
    return True


async def play(rt: Runtime, scene: Scene) -> str:
    """One run, shown as it happens. Returns its id."""
    screen.title(scene.name, scene.notice)
    run_id = await rt.start(support, scene.words, user=scene.user, options=scene.options)
    async for event in rt.events(run_id):
        screen.show(event)
    return run_id


async def refund_with_approval(rt: Runtime) -> None:
    """The run waits; Lea decides; it goes on."""
    run_id = await play(rt, REFUND)
    result = await rt.result(run_id)
    _book("A-1001")
    for approval in result.waiting:
        note = "photo seen, policy allows it"
        await rt.resolve(approval.id, "approve", by="lea", note=note)
    await _follow(rt, run_id)
    _book("A-1001")


async def _follow(rt: Runtime, run_id: str) -> None:
    """What happened after the run's last wait."""
    waited = False
    async for event in rt.events(run_id):
        if waited:
            screen.show(event)
        waited = waited or isinstance(event, RunWaiting)


async def budget(rt: Runtime) -> None:
    """Then the ledger's view of the same run."""
    run_id = await play(rt, BUDGET)
    rows = [
        (step, state, screen.usd(most), screen.usd(paid) if state == "settled" else "")
        for step, state, most, paid in books.calls(run_id)
    ]
    screen.table(("paid call", "state", ">reserved", ">paid"), rows)
    cap, settled, assumed, held = map(screen.usd, books.run_account(run_id))
    screen.line("ledger", f"limit {cap}: settled {settled}, assumed {assumed}, still held {held}")


# --- scene 7: three processes -------------------------------------------------------------------


async def crash(environment: Mapping[str, str]) -> None:
    """One process is killed in the middle of the refund; another one finishes the run."""
    screen.title(CRASH.name, CRASH.notice)
    pid, code = await _process("pay-and-die", environment)
    async with Runtime(URL) as reader:  # knows no agent, so it only reads
        [run, *_] = await reader.runs(1)
        died_at, kind, step = books.last_event(run.id)
        async for event in reader.events(run.id):
            screen.show(event)
            if isinstance(event, RunEvent) and event.seq == died_at:
                break
    screen.line("process", f"{pid} is {_ending(code)} right after it told the bank to pay")
    screen.line("process", f"the journal says {run.status!r}, and ends with no. {died_at}: {kind}")
    _book("A-2003")

    pid, code = await _process("resume", environment)
    screen.line("process", f"{pid} opened the same file with the same request: {_ending(code)}")
    async with Runtime(URL) as reader:
        events = [event async for event in reader.events(run.id) if isinstance(event, RunEvent)]
    for event in events:
        if event.seq > died_at:
            screen.show(event)
    _book("A-2003")
    screen.trail(events, step)


async def _process(part: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """Run one part of `crash.py` in a process of its own. Returns its id and exit code."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "examples.support_desk.crash",
        part,
        env=os.environ | environment,
    )
    return child.pid, await child.wait()


def _ending(code: int) -> str:
    return f"killed (signal {-code})" if code < 0 else f"done (exit code {code})"


def _book(order_id: str) -> None:
    """The bank's book on an order, as it stands."""
    lines = [
        f"no. {paid.id}: {paid.euros} euros, reference {paid.reference[:12]}"
        for paid in books.refunds(order_id)
    ]
    screen.line("shop", f"refunds of {order_id} in the bank's book: {'; '.join(lines) or 'none'}")


# --- the end ------------------------------------------------------------------------------------


async def summary(rt: Runtime) -> None:
    """All runs, as the journal has them."""
    rows = []
    for run in reversed(await rt.runs()):
        result = await rt.result(run.id)
        rows.append(
            (
                run.id,
                await _scene_of(rt, run.id),
                run.status,
                run.reason,
                str(result.usage.turns),
                screen.usd(run.nanos),
                "same" if not (await rt.replay(run.id)).differences else "differs",
            )
        )
    screen.table(("run", "scene", "status", "reason", ">turns", ">cost", "replay"), rows)
    screen.line("replay", "each run was re-executed from its journal: no model asked, no tool run")
    screen.line("ledger", f"held by all budgets together: {screen.usd(books.held())}")


async def _scene_of(rt: Runtime, run_id: str) -> str:
    async for event in rt.events(run_id):
        if isinstance(event, RunStarted):
            return str(event.options.get("tags", {}).get("scene", ""))
    return ""
