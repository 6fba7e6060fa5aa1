"""The floor: a loop by hand over aiohttp."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp

from bench.contenders import MODEL, Job
from bench.workload import FUNCTIONS, INSTRUCTIONS, TASK, parameters


async def start(url: str, stack: AsyncExitStack) -> Job:
    """The least that asks a model and calls its tools."""
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
