"""THE LOOP (pattern 1): one agent with its tools, from a request to a result.

The runtime calls `converse` for each segment of a run. It touches the world only through
`run.step`: after a crash the same code runs again and finds the recorded steps already done.
"""

from __future__ import annotations

from typing import Any

from roadworthy.ending import Desk, answered, checked_answer
from roadworthy.guardrails.loops import LoopGuard
from roadworthy.handover import gate, stopped, suspended
from roadworthy.result import RunResult
from roadworthy.run import Run
from roadworthy.stops import Stop, Suspend
from roadworthy.tool_calls import watch
from roadworthy.turns import (
    Answer,
    Escalate,
    Retry,
    UseTools,
    admit,
    begin_turn,
    decide,
    handed_over,
    heard,
    object_to,
    revise,
    told,
    turn_request,
)


async def converse(run: Run, desk: Desk) -> RunResult[Any]:
    """Turn after turn, until there is an answer, a limit, or somebody to wait for."""
    guard, revisions = LoopGuard(), 0
    try:
        await admit(run, desk)  # the user's words pass the input guardrails
        while True:
            await gate(run, desk)  # while a person owns the conversation, no further
            await begin_turn(run)  # limits, before anything is paid
            reply = await desk.models.ask(run, await turn_request(run, desk))
            run.messages.append(reply.message)
            match decide(run, desk, reply):
                case UseTools(calls):
                    carried = await desk.tools.carry_out(run, calls)
                    run.messages.append(await heard(run, desk, carried))
                    await watch(run, guard, carried)  # the same state again?
                case Answer(text, output):
                    verdict = await checked_answer(run, desk, text, output)
                    if verdict.verdict.action == "allow":
                        return await answered(run, desk, verdict.text, output)
                    revisions = object_to(run, verdict.verdict, revisions)
                case Retry(why, results):
                    if results:
                        run.messages.append(told(results))
                    else:
                        run.note(why)
                    revisions = revise(run, why, revisions)
                case Escalate() as asked:
                    raise await handed_over(run, asked)
    except Suspend as waits:
        return await suspended(run, desk, waits)
    except Stop as stop:
        return await stopped(run, desk, stop)
