"""Tools that fail on demand."""

from collections.abc import Mapping
from typing import Any

import pytest

from roadworthy.agent import Tool
from roadworthy.errors import NotApplied
from roadworthy.messages import JsonObject
from roadworthy.testing import failing


class Plain:
    """Reads arguments as they are."""

    def read(self, arguments: JsonObject) -> Mapping[str, Any]:
        return arguments

    def canonical(self, values: Mapping[str, Any]) -> JsonObject:
        return values


def refund_tool(paid: list[int]) -> Tool[None]:
    def refund(euros: int) -> str:
        paid.append(euros)
        return "refunded"

    return Tool(name="refund", description="Pay.", parameters={}, function=refund, reader=Plain())


@pytest.mark.requirement("REC-7")
async def test_the_first_calls_fail_and_later_ones_work() -> None:
    paid: list[int] = []
    tool, log = failing(refund_tool(paid), [NotApplied("busy"), None])
    with pytest.raises(NotApplied):
        await tool.function(euros=4)
    assert await tool.function(euros=4) == "refunded"
    assert await tool.function(5) == "refunded"
    assert (paid, log.applied) == ([4, 5], 2)
    assert log.calls == [{"euros": 4}, {"euros": 4}, {"euros": 5}]


async def test_a_reply_can_be_lost_after_the_effect() -> None:
    paid: list[int] = []
    tool, log = failing(refund_tool(paid), [TimeoutError()], after=True)
    with pytest.raises(TimeoutError):
        await tool.function(euros=4)
    assert (paid, log.applied, len(log.raised)) == ([4], 1, 1)
