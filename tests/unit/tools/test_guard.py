"""A process whose lease may be over calls no tool any more."""

from __future__ import annotations

import pytest

from roadworthy.errors import StoreUnavailable
from roadworthy.tools.execution import ToolThreads


@pytest.mark.parametrize("sync", [True, False])
async def test_nothing_is_called_once_others_may_have_the_run(*, sync: bool) -> None:
    called = []

    def plain(item: str) -> str:
        called.append(item)
        return item

    async def on_loop(item: str) -> str:
        return plain(item)

    def over() -> None:
        raise StoreUnavailable("This worker's lease is over.")

    threads = ToolThreads()
    function = plain if sync else on_loop
    assert await threads.call(function, (), {"item": "a"}) == "a"
    threads.guard = over
    with pytest.raises(StoreUnavailable):
        await threads.call(function, (), {"item": "b"})
    assert called == ["a"]
    threads.close()
