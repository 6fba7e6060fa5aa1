"""The same model through the whole of Roadworthy."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack

from bench.contenders import MODEL, Job
from bench.workload import TASK
from bench.workshop import PRICE, budgets, desk
from roadworthy import ProviderOptions, Runtime


async def start(url: str, stack: AsyncExitStack) -> Job:
    """The same through Roadworthy: durable, bounded, everything on."""

    folder = stack.enter_context(tempfile.TemporaryDirectory())
    runtimes: dict[int, Runtime] = {}

    async def job(steps: int) -> str:
        if steps not in runtimes:
            options = ProviderOptions(base_url=f"{url}/{steps}/0", price=PRICE)
            runtimes[steps] = await stack.enter_async_context(
                Runtime(
                    f"sqlite:///{folder}/{steps}.db",
                    budgets=budgets(),
                    providers={"openai-chat": options},
                )
            )
        result = await runtimes[steps].run(desk(f"openai-chat:{MODEL}", steps), TASK)
        return result.text

    return job
