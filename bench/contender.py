"""One contender over real HTTP, in a process of its own: `python -m bench.contender NAME URL`.

floor: a loop by hand over aiohttp. layer: the same loop over the model library, which nothing
makes durable. roadworthy: the same model through the whole of it. Reads `RUNS STEPS` from stdin,
does so many runs one after the other, and answers with a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from bench.meter import read
from bench.workload import FUNCTIONS, INSTRUCTIONS, TASK, parameters

Job = Callable[[int], Awaitable[str]]
MODEL = "bench-model"


async def floor(url: str, stack: AsyncExitStack) -> Job:
    """The least that asks a model and calls its tools."""
    import aiohttp

    session = await stack.enter_async_context(aiohttp.ClientSession())
    tools = [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": function.__doc__,
                "parameters": parameters(name),
            },
        }
        for name, function in FUNCTIONS.items()
    ]

    async def job(steps: int) -> str:
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": INSTRUCTIONS},
            {"role": "user", "content": TASK},
        ]
        while True:
            body = {"model": MODEL, "messages": messages, "tools": tools}
            address = f"{url}/{steps}/0/chat/completions"
            async with session.post(address, json=body) as response:
                said = (await response.json())["choices"][0]["message"]
            messages.append(said)
            if "tool_calls" not in said:
                return str(said["content"])
            for call in said["tool_calls"]:
                asked = call["function"]
                result = await FUNCTIONS[asked["name"]](**json.loads(asked["arguments"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})

    return job


async def layer(url: str, _: AsyncExitStack) -> Job:
    """The loop by hand over the model library."""
    from pydantic_ai import messages as m
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.tools import ToolDefinition

    tools = [
        ToolDefinition(name=name, description=f.__doc__, parameters_json_schema=parameters(name))
        for name, f in FUNCTIONS.items()
    ]
    asked = ModelRequestParameters(function_tools=tools)
    models: dict[int, OpenAIChatModel] = {}

    async def job(steps: int) -> str:
        if steps not in models:
            provider = OpenAIProvider(base_url=f"{url}/{steps}/0", api_key="none")
            models[steps] = OpenAIChatModel(MODEL, provider=provider)
        parts: list[Any] = [m.SystemPromptPart(INSTRUCTIONS), m.UserPromptPart(TASK)]
        messages: list[m.ModelMessage] = [m.ModelRequest(parts=parts)]
        while True:
            response = await models[steps].request(messages, {"max_tokens": 4_096}, asked)
            messages.append(response)
            if not response.tool_calls:
                return response.text or ""
            parts = []
            for call in response.tool_calls:
                result = await FUNCTIONS[call.tool_name](**call.args_as_dict())
                parts.append(m.ToolReturnPart(call.tool_name, result, call.tool_call_id))
            messages.append(m.ModelRequest(parts=parts))

    return job


async def roadworthy(url: str, stack: AsyncExitStack) -> Job:
    """The same through Roadworthy: durable, bounded, everything on."""
    from bench.workshop import PRICE, budgets, desk
    from roadworthy import ProviderOptions, Runtime

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


CONTENDERS = {"floor": floor, "layer": layer, "roadworthy": roadworthy}


async def main(name: str, url: str) -> None:
    """Serve the conductor until it closes our stdin."""
    async with AsyncExitStack() as stack:
        job = await CONTENDERS[name](url, stack)
        while line := await asyncio.to_thread(sys.stdin.readline):
            runs, steps = map(int, line.split())
            before = read()
            for _ in range(runs):
                answer = await job(steps)
                if "DONE" not in answer:
                    raise SystemExit(f"{name} answered {answer!r}")
            used = read() - before
            told = {"cpu_ms": used.cpu / runs * 1e3, "wall_ms": used.wall / runs * 1e3}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
