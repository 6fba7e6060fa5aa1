"""Our agents and chosen tools as an MCP server: `create_server` over an open runtime.

`roadworthy mcp` serves it. Invariant: whatever a client asks is a run like any other: journaled,
bounded, its effects under the rules their tools declare, there again after a crash.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as Offered

from roadworthy.agent import Agent, Tool
from roadworthy.context import User
from roadworthy.errors import ConfigurationError, DeclarationError, RoadworthyError, UnknownRun
from roadworthy.events import ToolOutcome, ToolSucceeded
from roadworthy.limits import Limits, Price
from roadworthy.messages import (
    DeltaSink,
    JsonObject,
    Message,
    ModelRequest,
    Reply,
    Text,
    TokenUsage,
    ToolCall,
    ToolResult,
)
from roadworthy.result import RunResult
from roadworthy.runtime import Runtime
from roadworthy.tools.mcp.connection import KEY
from roadworthy.tools.names import named

GET_RUN = "get_run"
_MESSAGE: JsonObject = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "What the user wants, in full."},
        "conversation": {
            "type": "string",
            "description": "Any id: the same one again goes on where the conversation stood.",
        },
    },
    "required": ["message"],
    "additionalProperties": False,
}
_RUN_ID: JsonObject = {
    "type": "object",
    "properties": {"run_id": {"type": "string"}},
    "required": ["run_id"],
    "additionalProperties": False,
}


class Direct:
    """A model that asks for the one call its input names, and answers with what came of it."""

    name = "roadworthy:direct"
    price: Price | None = Price.free()

    async def request(self, request: ModelRequest, on_text: DeltaSink | None = None) -> Reply:
        """The call, or its result."""
        results = [
            part
            for message in request.messages
            for part in message.parts
            if isinstance(part, ToolResult)
        ]
        if results:
            part: Text | ToolCall = Text(text=results[-1].content or "(empty)")
        else:
            asked = json.loads(next(m.text for m in request.messages if m.role == "user"))
            part = ToolCall(asked["tool"], asked["arguments"], id="direct")
        message = Message(role="assistant", parts=(part,), provider=self.name)
        return Reply(
            message=message,
            usage=TokenUsage(),
            model=self.name,
            finish="tools" if message.tool_calls else "stop",
        )


def direct(tool: Tool[Any], owner: Agent[Any, Any]) -> Agent[Any, Any]:
    """An agent that makes one call of a tool, with what its owner's tools are given."""
    return Agent(
        named("tool", [tool.name])[tool.name],
        model=Direct(),
        tools=[tool],
        deps=owner.deps,
        limits=Limits(turns=3, tool_calls=1, tool_seconds=owner.limits.tool_seconds),
        guardrails=[guard for guard in owner.guardrails if guard.stage == "output"],
        may=(),
    )


@dataclass(frozen=True, kw_only=True)
class Served:
    """What is offered. tools: each with the agent it belongs to. user: on whose authority clients
    act. wait: seconds until a client is told to ask for the result later."""

    agents: Sequence[Agent[Any, Any]]
    tools: Sequence[tuple[Tool[Any], Agent[Any, Any]]] = ()
    user: User = field(default_factory=lambda: User("mcp"))
    wait: float = 300.0

    def __post_init__(self) -> None:
        for tool, owner in self.tools:
            if owner.rulebook.governs(tool.name):
                raise DeclarationError(
                    f"{tool.name!r} is under rules of the agent {owner.name!r}, which hold in its "
                    "runs only. Offer the agent instead of the tool."
                )
        names = [agent.name for agent in self.agents] + [tool.name for tool, _ in self.tools]
        twice = sorted({name for name in [*names, GET_RUN] if [*names, GET_RUN].count(name) > 1})
        if twice:
            raise ConfigurationError(
                f"Several things to offer are named {', '.join(twice)} ({GET_RUN} is ours); "
                "rename one."
            )


def create_server(rt: Runtime, served: Served) -> Server[Any]:
    """The server, whatever carries it. Call it before `rt` is opened: it registers what runs a
    single tool. Raises: ConfigurationError: two things have one name."""
    desk = _Desk(rt, served)
    return Server(
        "roadworthy",
        instructions=f"Answers have a run id; {GET_RUN} tells what has become of a run.",
        on_list_tools=desk.list_tools,
        on_call_tool=desk.call_tool,
    )


class _Desk:
    def __init__(self, rt: Runtime, served: Served) -> None:
        self._rt, self._served = rt, served
        self._agents = {agent.name: agent for agent in served.agents}
        self._tools = {tool.name: (tool, direct(tool, owner)) for tool, owner in served.tools}
        known = {pattern.name for pattern in rt.patterns}
        ours = [*served.agents, *(agent for _, agent in self._tools.values())]
        rt.register(*(agent for agent in ours if agent.name not in known))

    async def list_tools(
        self, _: ServerRequestContext[Any], __: PaginatedRequestParams | None
    ) -> ListToolsResult:
        """What there is."""
        found = [_offered_agent(agent) for agent in self._agents.values()]
        found += [_offered_tool(tool) for tool, _ in self._tools.values()]
        about = "What has become of a run: its answer, or what it still waits for."
        hints = ToolAnnotations(read_only_hint=True)
        found.append(
            Offered(name=GET_RUN, description=about, input_schema=dict(_RUN_ID), annotations=hints)
        )
        return ListToolsResult(tools=found)

    async def call_tool(
        self, context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        """A run, or what has become of one. Our errors are results a model can act on."""
        given, key = params.arguments or {}, (context.meta or {}).get(KEY)
        key = f"mcp:{key}" if isinstance(key, str) else None
        try:
            if params.name in self._agents:
                return await self._ask(self._agents[params.name], given, key)
            if params.name in self._tools:
                return await self._use(params.name, given, key)
            if params.name == GET_RUN:
                return await self._look(str(given.get("run_id", "")))
        except RoadworthyError as error:
            return _said(f"{error} {error.mend}", wrong=True)
        names = [*self._agents, *self._tools, GET_RUN]
        return _said(
            f"There is no tool {params.name!r}. There are: {', '.join(names)}.", wrong=True
        )

    async def _ask(
        self, agent: Agent[Any, Any], given: Mapping[str, Any], key: str | None
    ) -> CallToolResult:
        message, conversation = given.get("message"), given.get("conversation")
        if not isinstance(message, str) or not message.strip():
            return _said("message: give what the user wants, as text.", wrong=True)
        if not isinstance(conversation, str | None) or set(given) - set(_MESSAGE["properties"]):
            return _said("Give message and, if you like, conversation, both text.", wrong=True)
        run_id = await self._rt.start(
            agent, message, user=self._served.user, conversation=conversation, key=key
        )
        return _told(run_id, await self._result(run_id))

    async def _use(self, name: str, given: Mapping[str, Any], key: str | None) -> CallToolResult:
        asked = json.dumps({"tool": name, "arguments": dict(given)})
        run_id = await self._rt.start(self._tools[name][1], asked, user=self._served.user, key=key)
        return await self._used(run_id)

    async def _used(self, run_id: str) -> CallToolResult:
        result = await self._result(run_id)
        outcomes = [e for e in await self._rt.record(run_id) if isinstance(e, ToolOutcome)]
        if result is None or not result.over or not outcomes or result.status != "completed":
            return _told(run_id, result)
        shown = _told(run_id, result)
        shown.is_error = not isinstance(outcomes[-1], ToolSucceeded)
        shown.content += [
            ImageContent(data=base64.b64encode(file.data).decode(), mime_type=file.media_type)
            for file in outcomes[-1].result.files
            if file.data is not None and file.media_type.startswith("image/")
        ]
        return shown

    async def _look(self, run_id: str) -> CallToolResult:
        row = await self._rt.find(run_id)
        offered = {*self._agents, *(agent.name for _, agent in self._tools.values())}
        if (row.user, row.tenant) != (self._served.user.id, self._served.user.tenant):
            raise UnknownRun(f"There is no run {run_id}.")
        if row.pattern not in offered:
            raise UnknownRun(f"There is no run {run_id}.")
        if row.pattern in self._agents:
            return _told(run_id, await self._result(run_id))
        return await self._used(run_id)

    async def _result(self, run_id: str) -> RunResult[Any] | None:
        """None: it takes longer. Who gives up waiting stops nothing."""
        try:
            async with asyncio.timeout(self._served.wait):
                return await self._rt.wait(run_id)
        except TimeoutError:
            return None


def _offered_agent(agent: Agent[Any, Any]) -> Offered:
    about = agent.description or f"The agent {agent.name!r}: say what is wanted, in full."
    hints = ToolAnnotations(read_only_hint=False)
    return Offered(
        name=agent.name, description=about, input_schema=dict(_MESSAGE), annotations=hints
    )


def _offered_tool(tool: Tool[Any]) -> Offered:
    hints = ToolAnnotations(
        read_only_hint=tool.effect == "read",
        destructive_hint=tool.effect == "irreversible",
        idempotent_hint=tool.effect != "irreversible",
    )
    return Offered(
        name=tool.name,
        description=tool.description,
        input_schema=dict(tool.parameters),
        annotations=hints,
    )


def _told(run_id: str, result: RunResult[Any] | None) -> CallToolResult:
    if result is None:
        later = f"Run {run_id} takes longer. Ask {GET_RUN} for it later."
        return _said(later, {"run_id": run_id, "status": "running"})
    facts = {"run_id": run_id, "status": result.status, "reason": result.reason}
    if result.conversation is not None:
        facts["conversation"] = result.conversation
    wrong = result.status in ("failed", "stopped")
    return _said(_words(result), facts, wrong=wrong)


def _words(result: RunResult[Any]) -> str:
    if result.question is not None:
        return f"{result.question}\n[Answer with the conversation {result.conversation!r}.]"
    if result.over:
        return result.text or result.report.why
    waits = "; ".join(
        f"{each.tool} {json.dumps(each.arguments, default=str)} needs the word of the {each.asks} "
        f"(approval {each.id})"
        for each in result.waiting
    )
    said = f"{result.text}\n" if result.text else ""
    return (
        f"{said}[Waiting for a person{': ' if waits else ''}{waits}. Run {result.run_id}: ask "
        f"{GET_RUN} for it later.]"
    )


def _said(text: str, facts: JsonObject | None = None, *, wrong: bool = False) -> CallToolResult:
    content: list[ContentBlock] = [TextContent(text=text)]
    return CallToolResult(content=content, structured_content=facts, is_error=wrong)
