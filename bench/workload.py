"""The one job that everything here does: a bicycle workshop books a repair.

Invariant: what is asked and answered is a pure function of the step, so all contenders send and
get the same words; no two steps of a long run are equal, as the loop guard would rightly object.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

INSTRUCTIONS = """You take repair requests for Spoke & Chain, a workshop for bicycles and cargo
bikes.
Work with the tools you are given and nothing else.
First find the customer's bike, then what such a repair needs, then whether the parts are in stock.
Offer a date only after you have looked it up, and book exactly one appointment for one request.
Say prices only as the parts list gives them, labour and tax included, and never promise a discount.
When a part is missing, name the day it arrives and book for the day after. When a tool reports an
error, correct the arguments once; if it fails again, say what could not be done and why.
Brakes come first: a bike whose brakes fail must not be ridden, and you tell the customer so.
Keep the final answer to three sentences: what is booked, what it costs, what to bring."""

TASK = (
    "The rear brake of my cargo bike (frame number SC-7719) squeals and hardly grips. "
    "Can you fix it?"
)
ANSWER = (
    "Your brake service is booked for Thursday at 9:30 and costs 64.80 euros with parts. Please do "
    "not ride the bike until then. Bring the key of the battery, so that we can test it. DONE"
)
PAID_STEPS = 5  # tool calls of the short run; one more model call gives the answer
Function = Callable[..., Awaitable[str]]


async def find_bike(frame_number: str, page: int) -> str:
    """Look a bike up by its frame number, with its repairs so far."""
    return json.dumps({
        "frame": frame_number, "page": page, "model": "Hauler 2", "year": 2023,
        "brakes": "hydraulic disc", "battery": True, "repairs": [f"tyre, visit {page}"],
    })  # fmt: skip


async def list_repairs(symptom: str, page: int) -> str:
    """Find the repairs that fit a symptom."""
    return json.dumps({
        "symptom": symptom, "page": page,
        "repairs": [{"id": f"R-{page}", "name": "brake service", "minutes": 45, "labour": 39.0}],
    })  # fmt: skip


async def check_parts(repair: str, quantity: int) -> str:
    """See whether the parts for a repair are in stock, and their prices."""
    return json.dumps({
        "repair": repair, "quantity": quantity,
        "parts": [{"name": "brake pads", "stock": 12, "price": 25.8, "arrives": None}],
    })  # fmt: skip


async def free_slots(week: int, minutes: int) -> str:
    """List the free appointments of a calendar week that are long enough."""
    return json.dumps({
        "week": week, "minutes": minutes,
        "slots": [{"day": "Thursday", "at": "9:30"}, {"day": "Friday", "at": "15:00"}],
    })  # fmt: skip


async def book_slot(slot: str, visit: int) -> str:
    """Book an appointment."""
    return json.dumps({"slot": slot, "visit": visit, "booking": f"B-{visit}", "state": "booked"})


READS: tuple[Function, ...] = (find_bike, list_repairs, check_parts, free_slots)
FUNCTIONS: Mapping[str, Function] = {f.__name__: f for f in (*READS, book_slot)}


def call(step: int) -> tuple[str, dict[str, Any]]:
    """The tool call of a step: the five in turn, each time with other arguments."""
    match step % 5:
        case 0:
            return "find_bike", {"frame_number": "SC-7719", "page": step}
        case 1:
            return "list_repairs", {"symptom": "rear brake squeals, weak grip", "page": step}
        case 2:
            return "check_parts", {"repair": "brake service", "quantity": step}
        case 3:
            return "free_slots", {"week": step, "minutes": 45}
        case _:
            return "book_slot", {"slot": "Thursday 9:30", "visit": step}


def parameters(name: str) -> dict[str, Any]:
    """The JSON schema of a tool's arguments."""
    _, sample = next(call(step) for step in range(5) if call(step)[0] == name)
    kinds = {str: "string", int: "integer"}
    return {
        "type": "object",
        "properties": {key: {"type": kinds[type(value)]} for key, value in sample.items()},
        "required": list(sample),
        "additionalProperties": False,
    }
