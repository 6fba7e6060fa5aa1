"""Asking for a run to be undone: which runs can be, and the request that does it.

`Runtime.undo` calls it. Invariant: a run is undone by one other run, which begins only when the
first is over, and after which the first goes on no more.
"""

from __future__ import annotations

from roadworthy.compensation import Plan, limits_for, plan_of, undo_key, undone_by
from roadworthy.context import User
from roadworthy.errors import NotUndoable
from roadworthy.events import RunEvent
from roadworthy.executor import Executor
from roadworthy.intake import check_ids
from roadworthy.messages import Message
from roadworthy.reception import Request
from roadworthy.result import ENDS
from roadworthy.run import RunOptions
from roadworthy.store import recorded, runs
from roadworthy.store.database import Tx
from roadworthy.store.runs import RunRow


async def undoing(executor: Executor, run_id: str, by: str) -> Request | str:
    """The request that undoes a run, or the run that was asked to before.

    Raises: UnknownRun, PatternUnknown; NotUndoable: it is not over, or did nothing that a machine
    can take back.
    """

    def read(tx: Tx) -> tuple[RunRow, str | None, list[RunEvent]]:
        row = runs.get(tx, run_id)
        known = undone_by(tx, row)
        over = known is None and row.status in ENDS
        return row, known, recorded.events(tx, run_id) if over else []

    row, known, events = await executor.house.read(read)
    if known is not None:
        return known
    _check_over(row)
    await executor.complete(row.pattern)
    owner, plan = executor.agent(row.pattern), plan_of(events)
    agent = executor.roster.undoer(row.pattern)
    if agent is None or not plan.steps:
        raise _nothing(row, plan)
    clear = await executor.house.veil(row).reveal([step.arguments for step in plan.steps])
    plan = plan.with_arguments(clear)
    last = events[-1].seq

    def check(tx: Tx) -> None:
        """What holds when it begins; what it did is not what was planned on, if it went on."""
        now = runs.hold(tx, run_id)
        _check_over(now)
        if recorded.last_seq(tx, run_id) != last:
            raise NotUndoable(f"Run {run_id} went on while this was asked for. Ask again.")

    request = Request(
        pattern=agent,
        input=Message.user(f"Undo what run {run_id} did."),
        user=User(row.user, row.tenant),
        conversation=None,
        key=undo_key(run_id),
        options=RunOptions(
            limits=limits_for(owner, len(plan.steps)),
            tags={"undoes": run_id, "by": by},
            history=(Message.user(plan.encoded()),),
        ),
        check=check,
    )
    check_ids(request)
    return request


def _check_over(row: RunRow) -> None:
    if row.status not in ENDS:
        raise NotUndoable(
            f"Run {row.id} is {row.status}, not over. Wait for its end, or cancel it first: "
            "what it does after that cannot be told now."
        )


def _nothing(row: RunRow, plan: Plan) -> NotUndoable:
    if plan.steps:
        names = ", ".join(step.tool for step in plan.steps)
        return NotUndoable(
            f"Run {row.id} did {names}, but the tools of {row.pattern!r} declare no undo any more."
        )
    rest = f" A person has to look at: {'; '.join(plan.left)}." if plan.left else ""
    return NotUndoable(f"Run {row.id} did nothing that can be undone by itself.{rest}")
