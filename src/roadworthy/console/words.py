"""Values as people read them: money, times, names of fields, arguments of calls.

Templates use them as filters. Invariant: nothing here shows JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from markupsafe import Markup, escape

from roadworthy.clock import MICROS, moment
from roadworthy.limits import to_dollars

_CENT = Decimal("0.01")
_DONE = {
    "raised": "opened this",
    "claimed": "put it on their list",
    "released": "put it back",
    "taking": "asked to take over",
    "taken": "took over",
    "assigned": "gave it to",
    "woken": "brought it back",
    "said": "wrote to the user",
    "user said": "heard from the user",
    "called": "used",
    "note": "noted",
    "approve": "approved",
    "edit": "edited and approved",
    "reject": "rejected",
    "respond": "answered instead",
    "escalated": "passed it on",
}


def usd(nanos: int) -> str:
    """Money: cents where there are any, else as many digits as it takes."""
    dollars = to_dollars(nanos)
    if not dollars:
        return "$0"
    if abs(dollars) >= 1:
        return f"${dollars:,.2f}"
    if abs(dollars) >= Decimal("0.001"):
        return f"${dollars:.4f}"
    places = 1 - math.floor(math.log10(abs(dollars)))
    return f"${dollars:.{places}f}"


def when(micros: int | None) -> Markup:
    """An instant. The page's script shows it in the reader's own time zone."""
    return _time(micros, "at")


def ago(micros: int | None) -> Markup:
    """An instant as the time since then, which the page's script keeps counting."""
    return _time(micros, "ago")


def left(micros: int | None) -> Markup:
    """An instant as the time until then, which the page's script keeps counting."""
    return _time(micros, "left")


def name(field: str) -> str:
    """A field, tool or code as words: `order_id` is "Order id"."""
    if field == "usd":
        return "Dollars"
    said = " ".join(field.replace("_", " ").replace("-", " ").split())
    return said[:1].upper() + said[1:]


def plain(value: object) -> str:
    """A value as words: lists with commas, yes and no, fields of fields behind their names."""
    if isinstance(value, Mapping):
        pairs = (f"{name(str(key))}: {plain(item)}" for key, item in value.items())
        return "; ".join(pairs) or "nothing"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:,.10g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "nothing" if value in (None, "") else str(value)


def who(user: str) -> str:
    """A user as operators call them. Visitors of the chat have no name, only a number."""
    kind, _, number = user.partition("-")
    if kind == "visitor" and number:
        return f"Visitor {number[:4]}"
    return "A user" if user in ("", "anonymous") else user


def did(action: str) -> str:
    """An entry of the log as what somebody did."""
    said = action.replace("_", " ")
    return _DONE.get(said, said)


def count(number: int, one: str, many: str = "") -> str:
    """A number and its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _time(micros: int | None, kind: str) -> Markup:
    if micros is None:
        return Markup("")
    at = moment(micros)
    iso = at.isoformat(timespec="seconds")
    shown = f"{at.day} {at:%b %Y, %H:%M} UTC"
    milliseconds = micros * 1_000 // MICROS
    return Markup('<time datetime="{}" data-{}="{}">{}</time>').format(
        iso, kind, milliseconds, escape(shown)
    )


FILTERS: Mapping[str, Callable[..., object]] = {
    "usd": usd,
    "when": when,
    "ago": ago,
    "left": left,
    "name": name,
    "plain": plain,
    "count": count,
    "who": who,
    "did": did,
}
