"""How the inbox works: `Inbox` and its queues. Declared on the Runtime, data.

Invariant: an inbox without a declaration of a queue still takes what is sent there, under the
default policy: nothing that needs a person is lost for want of configuration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from roadworthy.clock import MICROS
from roadworthy.errors import DeclarationError
from roadworthy.spelling import spelled


@spelled
@dataclass(frozen=True, kw_only=True)
class QueuePolicy:
    """One queue. due_seconds: from when it is put there until somebody must have taken it; None:
    no clock. lock_seconds: how long one who claimed an escalation keeps it from others without a
    sign of life. silent_seconds: after so long without a word of the person who owns it, a
    conversation goes back to the queue; None: never.
    Raises: DeclarationError.
    """

    name: str = "default"
    due_seconds: float | None = 900.0
    lock_seconds: float = 300.0
    silent_seconds: float | None = 3_600.0

    def __post_init__(self) -> None:
        if not self.name:
            raise DeclarationError('QueuePolicy: name="" is no name.')
        for what in ("due_seconds", "lock_seconds", "silent_seconds"):
            value = getattr(self, what)
            if value is None and what != "lock_seconds":
                continue
            if not value > 0:
                raise DeclarationError(f"QueuePolicy {self.name!r}: {what}={value!r}: above 0.")

    def due_at(self, now: int) -> int | None:
        """When somebody must have taken what comes in now. Microseconds UTC."""
        return None if self.due_seconds is None else now + int(self.due_seconds * MICROS)

    def locked_until(self, now: int) -> int:
        """Until when a claim made now keeps others away."""
        return now + int(self.lock_seconds * MICROS)


@spelled
@dataclass(frozen=True, kw_only=True)
class Inbox:
    """Where runs go that need a person: `Runtime(..., inbox=Inbox())`.

    Without one an agent that wants a person ends its run as `partial`. queues: those with a policy
    of their own. Raises: DeclarationError: two queues of one name.
    """

    queues: Sequence[QueuePolicy] = ()

    def __post_init__(self) -> None:
        names = [queue.name for queue in self.queues]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise DeclarationError(f"Inbox: two queues are named {sorted(twice)}; rename one.")

    def queue(self, name: str) -> QueuePolicy:
        """The policy of a queue; the default one under this name when none is declared."""
        known = {queue.name: queue for queue in self.queues}
        return known.get(name) or dataclasses.replace(
            known.get("default", QueuePolicy()), name=name
        )
