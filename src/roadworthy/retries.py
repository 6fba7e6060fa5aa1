"""When to try again, and what the record says of the tries before: for model calls and tools.

`calls` and `tool_calls` use it. Invariant: a count and a pause come from recorded events, so that
a process that dies resets neither.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from roadworthy.clock import MICROS
from roadworthy.deadline import time_is_over, time_left
from roadworthy.errors import ModelError, ModelOutcomeUnknown, ModelRejected
from roadworthy.events import ModelFailed, ModelIntended, RunEvent, ToolAttemptFailed, ToolIntended
from roadworthy.run import Run

MOST_ASKED = 60.0  # of a provider that says when to come back, in seconds


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Pauses of up to `first` seconds, a bound that doubles to at most `most`: full jitter, so that
    those who failed together do not come back together."""

    first: float
    most: float
    random: random.Random = field(default_factory=random.Random)  # noqa: S311 - jitter

    def seconds(self, attempt: int, retry_after: float | None = None) -> float:
        """Before the attempt after this one (the first is 1): the other side's word, if it gave
        one, up to a minute."""
        if retry_after is not None:
            return min(max(0.0, retry_after), MOST_ASKED)
        wait = min(self.first * 2 ** min(attempt - 1, 32), self.most)
        return float(wait * self.random.random())


async def rest(run: Run, until: int | None) -> None:
    """Wait for the recorded time of the next attempt.

    Raises: Stop: cancelled meanwhile, or that time is past the run's own.
    """
    if until is None:
        return
    left = (until - run.clock.now()) / MICROS
    if max(0.0, left) > time_left(run):
        raise await time_is_over(run)
    if left > 0:
        async with run.interruptible(None):  # no longer than any pause, if the clock was set back
            await run.clock.sleep(min(left, MOST_ASKED))


@dataclass
class ModelTries:
    """What is used up of a call's models.

    gone: how often a model of this name gave up. used: attempts of the one that has not yet.
    retry_at, error: when the next attempt is due, and why the last failed. A reopened run has all
    its attempts again: somebody may have mended what failed.
    """

    gone: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    retry_at: int | None = None
    error: ModelError = field(default_factory=lambda: ModelRejected("no model was tried"))

    @classmethod
    def recorded(cls, run: Run, key: str) -> ModelTries:
        """As the run's record says."""
        tries = cls()
        for event in run.past.attempts.get(key, ()):
            if event.seq > run.past.reopened_at:
                tries._count(event)
        return tries

    def _count(self, event: RunEvent) -> None:
        if isinstance(event, ModelIntended):
            self.used[event.model] += 1
            self.retry_at = None
        elif isinstance(event, ModelFailed):
            self.retry_at = event.retry_at
            self.error = _error(event)
            if event.gave_up:
                self.gone[event.model] += 1
                self.used[event.model] = 0
            elif event.retry_at is None and event.code != "crashed":
                self.used[event.model] -= 1  # a process that closed interrupted it

    def left(self, model: str, most: int) -> int:
        """How many of `most` attempts the chain's next model has. Ask in the chain's order: a
        name may stand in it twice."""
        if self.gone[model]:
            self.gone[model] -= 1
            return 0
        return max(0, most - self.used.pop(model, 0))


def tried_before(run: Run, key: str, since: int) -> int:
    """Attempts of a tool that count no more, being recorded up to `since`: a reopened run has all
    of them again, and so has a call that a person had tried again."""
    events = run.past.attempts.get(key, ())
    tried = (
        e.attempt
        for e in events
        if isinstance(e, ToolIntended | ToolAttemptFailed)
        if e.seq <= since
    )
    return max(tried, default=0)


def tool_retry_at(events: Iterable[RunEvent]) -> int | None:
    """When the next attempt of a tool is due: the last word of its record."""
    last = None
    for event in events:
        if isinstance(event, ToolAttemptFailed):
            last = event.retry_at
    return last


def _error(failed: ModelFailed) -> ModelError:
    """The failure as it was raised: what it means for the run must not depend on who saw it."""
    kinds: list[type[ModelError]] = [ModelError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    kind = next((k for k in kinds if k.__name__ == failed.code), ModelOutcomeUnknown)
    return kind(failed.message or "a process ended during the call")
