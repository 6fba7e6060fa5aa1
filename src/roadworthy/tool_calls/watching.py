"""The loop guard's eyes: every outcome of a turn, and what the model is told of repeats.

The loop calls it after a turn's calls. Invariant: decided by recorded outcomes alone, so a resumed
run is told alike.
"""

from __future__ import annotations

from roadworthy.events import LoopNoticed, ToolRefused, ToolSucceeded
from roadworthy.guardrails.loops import LoopGuard
from roadworthy.run import Done, Run
from roadworthy.stops import Stop
from roadworthy.tool_calls.turn import Carried
from roadworthy.transcript import loop_note


async def watch(run: Run, guard: LoopGuard, carried: Carried) -> None:
    """Feed the loop guard; tell the model at the second repeat.

    Raises: Stop: at the last repeat, or when the model asks on after it was told to answer.
    """
    insists = any(isinstance(o, ToolRefused) and o.code == "limit" for o in carried.outcomes)
    if insists and run.last_call and not run.passed:
        most = run.limits.tool_calls
        raise Stop("tool_call_limit", f"The limit of {most} tool calls is reached.")
    belt = run.agent.toolbelt
    guard.next_reply()
    if carried.asked:
        guard.changed()
    worst = None
    for outcome in carried.outcomes:
        tool = belt.get(outcome.tool)
        succeeded = isinstance(outcome, ToolSucceeded) and outcome.source != "repeat"
        if succeeded and tool is not None and tool.effect != "read":
            guard.changed()
        if tool is not None and tool.polling:
            continue
        result_hash = getattr(outcome, "result_hash", "") or outcome.result.content
        call = outcome.arguments_hash or str(sorted(outcome.arguments))
        notice = guard.observe(outcome.tool, outcome.arguments, call, result_hash)
        if notice is not None and (worst is None or notice.repeat > worst.repeat):
            worst = notice
    if worst is None:
        return
    stopped = worst.repeat >= run.limits.repeats
    noticed = LoopNoticed(
        key=f"turn/{run.turn}/loop",
        kind=worst.kind,
        tool=worst.tool,
        repeat=worst.repeat,
        stopped=stopped,
    )

    async def effect() -> Done[LoopNoticed]:
        return Done(noticed)

    run.note(loop_note(await run.step(noticed.key, effect)))
    if stopped and not run.passed and not run.overtaken(run.turn):
        raise Stop("loop", f"{worst.tool} came to the same state {worst.repeat} times.")
