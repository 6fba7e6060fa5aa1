"""Which accounts a run draws on: one per declared bound, subject and time bucket.

Used by the ledger. Invariant: rows exist only where a limit is declared, and buckets are fixed
UTC ones, so the same moment always means the same account.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import quote

from roadworthy.clock import moment
from roadworthy.limits import Budget, Limits, Scope, Window
from roadworthy.run import Run

Unit = Literal["usd", "tokens"]
OF_RUN = '["run", '
"""How the ids of accounts begin that only one run draws on."""
_BUCKETS: Mapping[Window, str] = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}


class Amount(NamedTuple):
    """Nano-dollars and tokens, held or spent together."""

    nanos: int = 0
    tokens: int = 0

    def of(self, unit: str) -> int:
        """The part that an account of this unit counts."""
        return self.nanos if unit == "usd" else self.tokens

    def within(self, other: Amount) -> bool:
        """Whether both parts fit."""
        return self.nanos <= other.nanos and self.tokens <= other.tokens


class Account(NamedTuple):
    """One bound with its cap, in nano-dollars or tokens."""

    id: str
    scope: Scope
    subject: str
    window: Window
    bucket: str
    unit: Unit
    cap: int


@dataclass(frozen=True, kw_only=True)
class Bearer:
    """Who pays: the subjects of a run, one for each scope."""

    run_id: str
    agent: str
    user: str
    tenant: str
    conversation: str | None
    limits: Limits

    def subject(self, scope: Scope) -> str | None:
        """The bearer's identity in a scope; None when it has none (a run without conversation).

        Users and conversations are named with their tenant: equal ids of two tenants are strangers.
        """
        if scope == "conversation":
            return None if self.conversation is None else self._named(self.conversation)
        return {
            "run": self.run_id,
            "user": self._named(self.user),
            "agent": self.agent,
            "tenant": self.tenant,
            "global": "all",
        }[scope]

    def _named(self, own: str) -> str:
        """With the tenant in front, so that no two pairs read alike."""
        return f"{quote(self.tenant, safe='')}/{quote(own, safe='')}"


def bearer_of(run: Run) -> Bearer:
    """Who pays for this run."""
    return Bearer(
        run_id=run.id,
        agent=run.agent.name,
        user=run.user.id,
        tenant=run.user.tenant,
        conversation=run.conversation,
        limits=run.options.limits or run.agent.limits,  # new money: under the newest, whatever turn
    )


def accounts_of(bearer: Bearer, budgets: Sequence[Budget], now: int) -> tuple[Account, ...]:
    """The accounts a paid call of this run draws on at this moment (microseconds UTC)."""
    limits = bearer.limits
    found = [*_of_unit("run", bearer.run_id, "total", "", limits)]
    for budget in budgets:
        subject = bearer.subject(budget.scope)
        if subject is None or (budget.of is not None and not _is_of(budget, bearer, subject)):
            continue
        bucket = bearer.run_id if budget.window == "request" else _bucket(budget.window, now)
        found += _of_unit(budget.scope, subject, budget.window, bucket, budget)
    tightest: dict[str, Account] = {}
    for account in found:  # one account may be bounded twice: the tighter bound binds
        known = tightest.get(account.id)
        if known is None or account.cap < known.cap:
            tightest[account.id] = account
    return tuple(tightest.values())


def _of_unit(
    scope: Scope, subject: str, window: Window, bucket: str, bound: Limits | Budget
) -> Iterator[Account]:
    """An account for each unit that is bounded."""
    if bound.nanos is not None:
        yield _account(scope, subject, window, bucket, "usd", bound.nanos)
    if bound.tokens is not None:
        yield _account(scope, subject, window, bucket, "tokens", bound.tokens)


def _is_of(budget: Budget, bearer: Bearer, subject: str) -> bool:
    """`of` names a subject; users and conversations by their own id or as `tenant/id`."""
    bare = {"user": bearer.user, "conversation": bearer.conversation}.get(budget.scope)
    return budget.of in ((subject,) if bare is None else (bare, f"{bearer.tenant}/{bare}"))


def _account(
    scope: Scope, subject: str, window: Window, bucket: str, unit: Unit, cap: int
) -> Account:
    return Account(
        json.dumps([scope, subject, window, bucket, unit]),  # no id can spell another one
        scope,
        subject,
        window,
        bucket,
        unit,
        cap,
    )


def _bucket(window: Window, now: int) -> str:
    form = _BUCKETS.get(window)
    return "" if form is None else moment(now).strftime(form)
