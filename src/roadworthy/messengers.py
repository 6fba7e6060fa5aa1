"""Sends the notices of the inbox over its channels: `Messenger`, one per keeper.

Invariant: nobody waits for it: it works beside runs, leases and clocks; what does not arrive is
tried again, later each time, in whatever process, and shown by `roadworthy doctor` in the end.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from roadworthy.clock import MICROS
from roadworthy.escalation import notices, rows, said
from roadworthy.escalation.channels import Channel, NotSent
from roadworthy.escalation.notices import Due, Fresh
from roadworthy.escalation.policy import Inbox
from roadworthy.house import House
from roadworthy.run import Unit
from roadworthy.store import runs
from roadworthy.store.codec import Seal
from roadworthy.store.database import Tx

log = logging.getLogger("roadworthy.runtime")
_MOST = 50
_LOOKED_AT = 200  # messages, for the newest of the user
_KEPT_SECONDS = 7 * 86_400
_MOST_WORDS = 500


class Messenger:
    """Addresses and sends what people are to be told."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def work(self) -> None:
        """One round. Raises: StoreError."""
        inbox = self._house.inbox
        if inbox is None:
            return
        for notice in await self._house.read(lambda tx: notices.fresh(tx, _MOST)):
            await self._fan(notice, inbox)
        channels = {channel.name: channel for channel in inbox.notify}
        if not channels:
            return
        async with asyncio.TaskGroup() as group:  # a channel that is slow holds up no other
            for channel in channels.values():
                group.create_task(self._send(channel))

    async def _fan(self, notice: Fresh, inbox: Inbox) -> None:
        now = self._house.clock.now()

        def apply(tx: Tx) -> None:
            item = rows.by_id(tx, notice.escalation)
            seal = Seal(runs.tenant_key_of(tx, item.tenant))
            wanted = [each for each in inbox.notify if notice.event in each.events]
            bodies = {each.name: _body(tx, notice, inbox, words=each.words) for each in wanted}
            notices.fan(tx, notice, bodies, seal, now)
            notices.forget(tx, now - _KEPT_SECONDS * MICROS)

        await self._house.journal.commit(Unit(apply=apply))

    async def _send(self, channel: Channel) -> None:
        began = self._house.clock.now()
        due = await self._house.read(lambda tx: notices.due(tx, channel.name, began, _MOST))
        for notice in due:
            now = self._house.clock.now()

            def claim(tx: Tx, notice: Due = notice, now: int = now) -> bool:
                return notices.claim(tx, notice, now)

            if await self._house.journal.commit(Unit(apply=claim)) is not True:
                continue  # another process sends it
            error = await _attempt(channel, notice, now)

            def settle(tx: Tx, notice: Due = notice, error: str = error) -> None:
                notices.settle(tx, notice.id, self._house.clock.now(), error)

            await self._house.journal.commit(Unit(apply=settle))


async def _attempt(channel: Channel, notice: Due, now: int) -> str:
    """Why it did not arrive; "" when it did."""
    try:
        await asyncio.to_thread(channel.send, notice.id, notice.body, now // MICROS)
    except NotSent as error:
        return str(error)
    except Exception as error:  # border: a channel of the deployer's own
        log.exception("channel %s failed", channel.name)
        return type(error).__name__
    return ""


def _body(tx: Tx, notice: Fresh, inbox: Inbox, *, words: bool) -> dict[str, Any]:
    """What is told: ids and codes; the words of people only where that was declared."""
    item = rows.by_id(tx, notice.escalation)
    body: dict[str, Any] = {
        "event": notice.event,
        "escalation": item.id,
        "run": item.run_id,
        "conversation": item.conversation,
        "tenant": item.tenant,
        "agent": item.agent,
        "kind": item.kind,
        "trigger": item.trigger,
        "queue": item.queue,
        "priority": item.priority,
        "status": item.status,
        "assignee": item.assignee,
        "at": notice.at // MICROS,
        "link": inbox.link.format(id=item.id) if inbox.link else "",
    }
    if words:
        since = max(0, said.last(tx, item.tenant, item.place) - _LOOKED_AT)
        talk = [s for s in said.after(tx, item.tenant, item.place, since) if s.who == "user"]
        body["reason"] = item.reason[:_MOST_WORDS]
        body["message"] = talk[-1].text[:_MOST_WORDS] if talk else ""
    return body
