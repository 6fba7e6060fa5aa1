"""The inbox: the queue, one conversation, and why it is here.

Three panes, of which the queue and the case are parts that refresh. Invariant: an operator sees
their tenants' escalations only, and nothing on these pages is JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from starlette.responses import Response

from roadworthy.console import raising, words
from roadworthy.console.forms import Field, fields
from roadworthy.console.pages import Missing, Visit
from roadworthy.errors import ConfigurationError, UnknownEscalation
from roadworthy.escalation import Escalation
from roadworthy.packet import Packet
from roadworthy.people import People
from roadworthy.result import Approval
from roadworthy.runtime import Runtime

Tab: TypeAlias = Literal["open", "mine", "snoozed", "resolved"]
_MOST = 200
_MOST_RESOLVED = 50
ASKS: Mapping[str, tuple[str, str, str]] = {
    "approval": ("May this happen?", "Approve", "Reject"),
    "unknown_outcome": ("Did this happen?", "It did not: do it", "Leave it"),
    "failure": ("This failed every way it can. Try again?", "Try again", "Leave it"),
    "version": ("The agent has changed. May it go on?", "Go on", "Stop"),
}


async def inbox(visit: Visit) -> Response:
    """The page."""
    if not declared(visit.rt):
        return visit.page("no_inbox.html", {})
    queue = await _queue(visit)
    case_id = visit.asked("case")
    context: dict[str, object] = {"queue": visit.part("inbox_queue.html", queue), "case": ""}
    context |= {"case_id": case_id, "tab": queue["tab"]}
    if case_id:
        case = await _case(visit, case_id)
        context |= {"case": visit.part("inbox_case.html", case), "title": case["title"]}
    return visit.page("inbox.html", context)


async def queue_again(visit: Visit) -> Response:
    """The queue, refreshed."""
    return visit.refreshed("inbox_queue.html", await _queue(visit))


async def case_again(visit: Visit) -> Response:
    """The case, refreshed."""
    return visit.refreshed("inbox_case.html", await _case(visit, visit.request.path_params["id"]))


async def badge(visit: Visit) -> Response:
    """How many are open, for the navigation of every page."""
    tabs = (await _queue(visit))["tabs"] if declared(visit.rt) else {"open": [], "mine": []}
    return visit.refreshed("badge.html", {"tabs": tabs})


def declared(rt: Runtime) -> bool:
    """Whether there is an inbox at all."""
    try:
        _ = rt.inbox.declared
    except ConfigurationError:
        return False
    return True


def people_of(visit: Visit) -> People:
    """The operator's side, of the tenants that this operator sees."""
    return visit.rt.inbox.of(visit.operator.tenant)


async def packet_of(visit: Visit, case_id: str) -> Packet:
    """Everything about one escalation. Raises: Missing: none, or not this operator's to see."""
    try:
        return await people_of(visit).packet(case_id)
    except UnknownEscalation:
        raise Missing(f"No case {case_id!r} is known here.") from None


async def _queue(visit: Visit) -> dict[str, object]:
    """Each tab's items; those that ask for what this operator knows first."""
    people = people_of(visit)
    items = await people.list(most=_MOST)
    resolved = await people.list(status="resolved", most=_MOST_RESOLVED)
    now = visit.console.clock.now()
    tabs: dict[Tab, list[Escalation]] = {"open": [], "mine": [], "snoozed": []}
    for item in items:
        tabs[_tab_of(item, visit.operator.id, now)].append(item)
    tabs["open"].sort(key=lambda item: (item.assignee is not None, not _suits(item, visit)))
    tabs["resolved"] = sorted(resolved, key=lambda item: -(item.resolved_at or 0))
    asked = visit.asked("tab", "open")
    tab: Tab = next((known for known in tabs if known == asked), "open")
    return {"tabs": tabs, "tab": tab, "case_id": visit.asked("case"), "items": tabs[tab]}


def _tab_of(item: Escalation, operator: str, now: int) -> Tab:
    if item.snoozed_until is not None and item.snoozed_until > now:
        return "snoozed"
    return "mine" if item.assignee == operator else "open"


def _suits(item: Escalation, visit: Visit) -> bool:
    return not item.skill or not visit.operator.skills or item.skill in visit.operator.skills


async def _case(visit: Visit, case_id: str) -> dict[str, object]:
    packet = await packet_of(visit, case_id)
    item = packet.escalation
    return {
        "packet": packet,
        "item": item,
        "title": words.who(item.user),
        "tab": visit.asked("tab", "open"),
        "mine": item.assignee == visit.operator.id,
        "state": _state(packet, visit.operator.id),
        "asks": ASKS,
        "pending": [(one, _fields(packet, one)) for one in packet.pending],
        "limits": await raising.drawn(visit.rt, item),
        "tools": [(name, fields(packet.schemas.get(name, {}), {})) for name in packet.tools],
    }


def _fields(packet: Packet, one: Approval) -> Sequence[Field]:
    return fields(packet.schemas.get(one.tool, {}), one.arguments)


def _state(packet: Packet, operator: str) -> str:
    """Who speaks to the user now, in words."""
    if packet.escalation.status == "resolved":
        return "resolved"
    if packet.owner == "person":
        return "you speak" if packet.person == operator else f"{packet.person} speaks"
    return "the agent speaks" if packet.owner == "agent" else "waits for a person"
