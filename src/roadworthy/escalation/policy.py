"""How the inbox works: `Inbox` and its queues. Declared on the Runtime, data.

Invariant: an inbox without a declaration of a queue still takes what is sent there, under the
default policy: nothing that needs a person is lost for want of configuration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from roadworthy.clock import MICROS
from roadworthy.errors import DeclarationError
from roadworthy.escalation.channels import Channel
from roadworthy.escalation.hours import Hours
from roadworthy.result import Approval
from roadworthy.spelling import spelled


@spelled
@dataclass(frozen=True, kw_only=True)
class QueuePolicy:
    """One queue. due_seconds: from when it is put there until somebody must have taken it; what
    nobody took by then is escalated further, at each such time; None: no clock. lock_seconds: how
    long one who claimed an escalation keeps it from others without a sign of life.
    silent_seconds: after so long without a word or deed of the person who owns it, a conversation
    goes back to the queue; None: never. overflow: the queue that gets what is overdue; empty: it
    stays in this one, before others. hours: when this queue is worked on; due_seconds run only
    then. skills: operator -> what they know, or a function that gives it; an escalation that needs
    a skill is then taken, or decided, only by who has it. Empty: by anybody. four_eyes: tools
    (patterns such as "refund*"), or a function of the `Approval`, whose approvals need two persons
    who agree to exactly the same arguments; one alone can turn them down.
    Raises: DeclarationError.
    """

    name: str = "default"
    due_seconds: float | None = 900.0
    lock_seconds: float = 300.0
    silent_seconds: float | None = 3_600.0
    overflow: str = ""
    hours: Hours | None = None
    skills: Mapping[str, Sequence[str]] | Callable[[str], Sequence[str]] = field(
        default_factory=dict
    )
    four_eyes: Sequence[str] | Callable[[Approval], bool] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise DeclarationError('QueuePolicy: name="" is no name.')
        for what in ("due_seconds", "lock_seconds", "silent_seconds"):
            value = getattr(self, what)
            if value is None and what != "lock_seconds":
                continue
            if not value > 0:
                raise DeclarationError(f"QueuePolicy {self.name!r}: {what}={value!r}: above 0.")
        if isinstance(self.four_eyes, str):
            raise DeclarationError(
                f'QueuePolicy {self.name!r}: write four_eyes=["{self.four_eyes}"], a list.'
            )
        if not callable(self.skills):
            wrong = [who for who, known in self.skills.items() if isinstance(known, str)]
            if wrong:
                raise DeclarationError(
                    f"QueuePolicy {self.name!r}: the skills of {wrong[0]!r} are a list of names."
                )

    def due_at(self, now: int) -> int | None:
        """When somebody must have taken what comes in now. Microseconds UTC."""
        if self.due_seconds is None:
            return None
        if self.hours is not None:
            return self.hours.after(now, self.due_seconds)
        return now + int(self.due_seconds * MICROS)

    def silent_at(self, now: int) -> int | None:
        """When a conversation goes back to the queue whose owner gave a sign of life now."""
        return None if self.silent_seconds is None else now + int(self.silent_seconds * MICROS)

    def lacks(self, who: str, skill: str) -> bool:
        """Whether this operator must not take what needs this skill."""
        if not skill or not self.skills:
            return False
        known = self.skills(who) if callable(self.skills) else self.skills.get(who, ())
        return skill not in known

    def needs_two(self, approval: Approval) -> bool:
        """Whether two persons must agree to this call."""
        if callable(self.four_eyes):
            return bool(self.four_eyes(approval))
        return any(fnmatchcase(approval.tool, pattern) for pattern in self.four_eyes)

    def locked_until(self, now: int) -> int:
        """Until when a claim made now keeps others away."""
        return now + int(self.lock_seconds * MICROS)


@spelled
@dataclass(frozen=True, kw_only=True)
class Inbox:
    """Where runs go that need a person: `Runtime(..., inbox=Inbox())`.

    Without one an agent that wants a person ends its run as `partial`. queues: those with a policy
    of their own. notify: where people are told of it: `Webhook`, `Slack`, `Email`. link: the
    address of one escalation for them, such as "https://desk.example/inbox/{id}".
    Raises: DeclarationError: two queues or channels of one name.
    """

    queues: Sequence[QueuePolicy] = ()
    notify: Sequence[Channel] = ()
    link: str = ""

    def __post_init__(self) -> None:
        names = [queue.name for queue in self.queues]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise DeclarationError(f"Inbox: two queues are named {sorted(twice)}; rename one.")
        channels = [channel.name for channel in self.notify]
        if len(set(channels)) < len(channels):
            raise DeclarationError(f"Inbox: give each of notify a name= of its own: {channels}.")
        if self.link and "{id}" not in self.link:
            raise DeclarationError(f'Inbox: link={self.link!r} has no "{{id}}" in it.')
        for queue in self.queues:
            if queue.overflow and queue.overflow not in (*names, "default"):
                raise DeclarationError(
                    f"QueuePolicy {queue.name!r}: overflow={queue.overflow!r} is no queue of this "
                    f"inbox: {', '.join(sorted(names))}."
                )

    def queue(self, name: str) -> QueuePolicy:
        """The policy of a queue; the default one under this name when none is declared."""
        known = {queue.name: queue for queue in self.queues}
        return known.get(name) or dataclasses.replace(
            known.get("default", QueuePolicy()), name=name
        )
