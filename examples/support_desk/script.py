"""The scripted model: it plays a model's part where no provider key is given.

Only its words are scripted: tools, ledger and journal are the real ones, and what it says of orders
it reads from the results it is given. It keeps no state, so a resumed run goes on where it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from roadworthy import Price, ToolCall, ToolResult
from roadworthy.messages import ModelRequest
from roadworthy.testing import ScriptedModel

Says: TypeAlias = "str | ToolCall | Sequence[str | ToolCall]"

# What the customers say in the story. The script knows these words; to others it improvises.
LOOKUP = "Hello, where are my orders A-1002 and A-2001?"
REFUND = "The espresso machine of A-1001 arrived broken. I want my money back."
INVENTED = "Has my desk lamp A-2001 been shipped?"
FLAKY = "Where are my bookends, A-2002?"
LOOP = "Tell me the moment my pan A-3001 arrives, please."
BUDGET = "Have all of my orders arrived? Check each one with the carrier."
CRASH = "The mug of A-2003 never came. Please refund it."


@dataclass(frozen=True)
class Heard:
    """What a request tells: the customer's last words, and the results since then."""

    words: str
    results: tuple[ToolResult, ...]
    last_word: bool  # no tools are offered any more: the closing answer

    def data(self, index: int) -> Any:  # noqa: ANN401 - a tool's JSON
        """A result as JSON."""
        return json.loads(self.results[index].content)

    def rows(self, index: int) -> list[dict[str, str]]:
        """A result's records: a JSON list, or the table it is shown as where that is shorter."""
        content = self.results[index].content
        if content.startswith("["):
            return [{k: str(v) for k, v in row.items()} for row in json.loads(content)]
        _, columns, *lines = content.splitlines()
        cells = ([_cell(text) for text in line.split("|")] for line in lines)
        return [dict(zip(columns.split("|"), row, strict=True)) for row in cells]


def play(request: ModelRequest) -> Says:
    """The next thing to say."""
    words, results = "", list[ToolResult]()
    for message in request.messages:
        if message.role == "user" and not message.by_runtime:
            words, results = message.text, []
        results += [part for part in message.parts if isinstance(part, ToolResult)]
    heard = Heard(words, tuple(results), last_word=not request.tools)
    return _STORIES.get(words, improvise)(heard)


scripted = ScriptedModel(play, name="scripted", price=Price(input=3, output=15))


# --- the story ----------------------------------------------------------------------------------


def lookup(heard: Heard) -> Says:
    """Two reads in one reply; the second is of another customer's order."""
    if not heard.results:
        return [_call("find_order", "A-1002"), _call("find_order", "A-2001")]
    found = [_standing(heard.data(i)) for i, r in enumerate(heard.results) if r.status == "ok"]
    return " ".join(found if len(found) == len(heard.results) else [*found, _OTHER])


def refund_of(order_id: str, reason: str) -> Callable[[Heard], Says]:
    """Look first, then pay back what was paid."""

    def tell(heard: Heard) -> Says:
        match heard.results:
            case ():
                return [_call("find_order", order_id), ToolCall("refund_policy")]
            case (_, _):
                euros = heard.data(0)["euros"]
                arguments = {"order_id": order_id, "euros": euros, "reason": reason}
                return ToolCall("refund", arguments)
            case (_, _, paid) if paid.status == "ok":
                return f"Sorry for the trouble. {paid.content}"
            case _:
                return f"I am sorry, the refund of {order_id} was not made."

    return tell


def invented(heard: Heard) -> Says:
    """Ask for a tool that does not exist, then mend it as told."""
    match heard.results:
        case ():
            return _call("get_shipping_status", "A-2001")
        case (_,):
            return _call("shipping_status", "A-2001")
        case _:
            return _arrival(heard.data(-1))


def flaky(heard: Heard) -> Says:
    """One call; that the carrier fails meanwhile, the model never learns."""
    return _arrival(heard.data(0)) if heard.results else _call("shipping_status", "A-2002")


def loop(heard: Heard) -> Says:
    """Ask the same again and again, whatever the answer."""
    if not heard.last_word:
        return _call("shipping_status", "A-3001")
    return f"{_arrival(heard.data(-1))} I cannot watch it for you; please ask again tomorrow."


def budget(heard: Heard) -> Says:
    """One parcel a turn, until all are known or the money is gone."""
    if not heard.results:
        return ToolCall("list_orders")
    ids = [order["id"] for order in heard.rows(0)]
    known = [heard.data(index) for index in range(1, len(heard.results))]
    if len(known) < len(ids) and not heard.last_word:
        return _call("shipping_status", ids[len(known)])
    there = [parcel["order_id"] for parcel in known if parcel["state"] == "delivered"]
    parts = [f"Arrived: {', '.join(there) or 'none'}."]
    parts += [_arrival(parcel) for parcel in known if parcel["state"] != "delivered"]
    if len(known) < len(ids):
        parts.append(f"Not checked: {', '.join(ids[len(known) :])}.")
    return " ".join(parts)


_STORIES: dict[str, Callable[[Heard], Says]] = {
    LOOKUP: lookup,
    REFUND: refund_of("A-1001", "arrived broken"),
    INVENTED: invented,
    FLAKY: flaky,
    LOOP: loop,
    BUDGET: budget,
    CRASH: refund_of("A-2003", "never came"),
}


# --- for the chat without a key -----------------------------------------------------------------


def improvise(heard: Heard) -> Says:
    """Enough to try the chat: orders, parcels and refunds by their number."""
    words = heard.words.lower()
    number = re.search(r"[Aa]-\d{4}", heard.words)
    if number is None:
        return _without_number(heard) if "order" in words else _HELP
    order_id = number[0].upper()
    if "refund" in words or "money" in words:
        return _refund(heard, order_id)
    if heard.results:
        return _arrival(heard.data(-1)) if heard.results[-1].status == "ok" else _UNKNOWN
    return _call("shipping_status", order_id)


_OTHER = "I find no order of yours under the other number."
_UNKNOWN = "I find no order of yours under that number."
_HELP = (
    "I am a scripted stand-in for a model, so I only understand a little. Try 'Where is A-1002?', "
    "'Refund A-2003' or 'List my orders'. For a real conversation set ROADWORTHY_DEMO_MODEL."
)


def _without_number(heard: Heard) -> Says:
    if not heard.results:
        return ToolCall("list_orders")
    return " ".join(_standing(order) for order in heard.rows(0)) or "You have no orders with us."


def _refund(heard: Heard, order_id: str) -> Says:
    if heard.results and heard.results[0].status != "ok":
        return _UNKNOWN
    return refund_of(order_id, "asked for in the chat")(heard)


def _cell(text: str) -> str:
    """A cell of a table; one with odd characters is quoted as JSON."""
    return str(json.loads(text)) if text.startswith('"') else text


def _call(tool: str, order_id: str) -> ToolCall:
    return ToolCall(tool, {"order_id": order_id})


def _standing(order: dict[str, Any]) -> str:
    return f"{order['id']} ({order['item']}) is {order['state']}."


def _arrival(parcel: dict[str, Any]) -> str:
    return f"{parcel['order_id']} is {parcel['state']} ({parcel['place']})."
