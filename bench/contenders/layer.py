"""The same loop over the model library, which nothing makes durable or bounded."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from pydantic_ai import messages as m
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.tools import ToolDefinition

from bench.contenders import MODEL, Job
from bench.workload import FUNCTIONS, INSTRUCTIONS, TASK, parameters


async def start(url: str, _: AsyncExitStack) -> Job:
    """The loop by hand over the model library."""

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
