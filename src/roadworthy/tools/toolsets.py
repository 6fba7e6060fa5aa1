"""The toolsets of a process: opened once, or once a run, and tried again while they are away.

The runtime asks for an agent's tools before it registers it. Invariant: an agent that runs has
plain tools only; one whose toolset is away goes on without, and is told so in one line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from roadworthy.agent import Agent, Tool, Toolset
from roadworthy.clock import Clock
from roadworthy.context import RunContext, User
from roadworthy.errors import DeclarationError, NotApplied, RoadworthyError, ToolsetUnavailable
from roadworthy.rules import Unproven
from roadworthy.tools.execution import Lent
from roadworthy.tools.holding import Held

log = logging.getLogger("roadworthy.tools")
FIRST_RETRY, MOST_RETRY = 5.0, 300.0

_Tools: TypeAlias = Sequence[Tool[Any]]
_NOBODY: RunContext[None] = RunContext(run_id="", user=User(""), deps=None)


class Toolsets:
    """What is open of them in one process. `changed` is told of an agent whose tools came back."""

    def __init__(self, clock: Clock) -> None:
        self.changed: Callable[[Agent[Any, Any]], None] = lambda _: None
        self._clock = clock
        self._held: dict[Toolset[Any], Held[_Tools]] = {}
        self._listed: dict[Toolset[Any], _Tools] = {}
        self._away: dict[Toolset[Any], asyncio.Task[None]] = {}  # those that are tried again
        self._agents: dict[str, tuple[Agent[Any, Any], Agent[Any, Any]]] = {}  # declared, whole
        self._of_run: dict[str, dict[str, Held[_Tools]]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def whole(self, agent: Agent[Any, Any]) -> Agent[Any, Any]:
        """The agent with the tools of its toolsets in their places.

        Raises: ToolsetUnavailable: of one that is required. DeclarationError: the tools together
            make no agent.
        """
        if not agent.toolsets:
            return agent
        known = self._agents.get(agent.name)
        if known is not None and known[0] is agent:
            return known[1]
        async with self._one_at_a_time:
            await self._open_all(agent.toolsets)
            whole = self._put_together(agent)
            self._agents[agent.name] = (agent, whole)
            return whole

    async def open(self, agents: Iterable[Agent[Any, Any]]) -> None:
        """Open what these agents have, side by side. Raises: as `whole`."""
        async with self._one_at_a_time:
            await self._open_all({toolset for agent in agents for toolset in agent.toolsets})

    async def leave(self, run_id: str) -> None:
        """A segment is over: what was opened for it is closed."""
        for held in self._of_run.pop(run_id, {}).values():
            await held.close()

    async def close(self) -> None:
        """Close all."""
        for task in self._away.values():
            task.cancel()
        if self._away:
            await asyncio.wait(self._away.values())
        for run_id in [*self._of_run]:
            await self.leave(run_id)
        async with asyncio.TaskGroup() as group:
            for held in self._held.values():
                group.create_task(held.close())
        self._held.clear()
        self._listed.clear()

    # --- opening -------------------------------------------------------------------------

    async def _open_all(self, toolsets: Iterable[Toolset[Any]]) -> None:
        async with asyncio.TaskGroup() as group:
            tries = [group.create_task(self._try(toolset)) for toolset in toolsets]
        for attempt in tries:
            if (error := attempt.result()) is not None:
                raise error

    async def _try(self, toolset: Toolset[Any]) -> RoadworthyError | None:
        """Open it, or see to it that it is tried again. The error, when it must not be away."""
        if toolset in self._listed:
            return None
        if toolset in self._away and not toolset.required:
            return None
        try:
            await self._open(toolset)
        except DeclarationError as error:
            return error
        except RoadworthyError as error:
            if toolset.required:
                return error
            log.warning("%s Its agents go on without its tools.", error)
            self._away[toolset] = asyncio.create_task(self._again(toolset))
        return None

    async def _open(self, toolset: Toolset[Any]) -> None:
        held = _held(toolset, _NOBODY)
        tools = await held.opened()
        if toolset.per == "run":  # it was only to be listed
            await held.close()
        else:
            self._held[toolset] = held
        self._listed[toolset] = tools

    async def _again(self, toolset: Toolset[Any]) -> None:
        """Until it is there; its agents have its tools from then on, in new segments."""
        pause, last = FIRST_RETRY, ""
        while True:
            await self._clock.sleep(pause)
            pause = min(pause * 2, MOST_RETRY)
            try:
                await self._open(toolset)
                break
            except RoadworthyError as error:
                if str(error) != last:
                    last = str(error)
                    log.info("%s", last)
        self._away.pop(toolset, None)
        log.info("toolset %s is there again", toolset.name)
        for name, (agent, _) in [*self._agents.items()]:
            if toolset in agent.toolsets:
                self._come_back(name, agent)

    def _come_back(self, name: str, agent: Agent[Any, Any]) -> None:
        try:
            whole = self._put_together(agent)
        except DeclarationError as error:
            log.error("%s Agent %s goes on without.", error, name)  # noqa: TRY400 - it says it all
            return
        self._agents[name] = (agent, whole)
        self.changed(whole)

    # --- putting together ----------------------------------------------------------------

    def _put_together(self, agent: Agent[Any, Any]) -> Agent[Any, Any]:
        tools: list[Tool[Any]] = []
        notes: list[str] = []
        for each in agent.tools:
            if isinstance(each, Tool):
                tools.append(each)
            elif (found := self._listed.get(each)) is not None:
                tools += (self._placed(each, tool) for tool in found)
            else:
                notes.append(
                    f"The tools of {each.name!r} cannot be reached now: do without them, or tell "
                    "the user so."
                )
        rules = Unproven(agent.rules) if notes else agent.rules
        texts = (*agent.texts, *notes)
        return replace(agent, tools=tuple(tools), instructions=texts, rules=rules)

    def _placed(self, toolset: Toolset[Any], tool: Tool[Any]) -> Tool[Any]:
        """The tool; one of a toolset per run calls that of its own run."""
        if toolset.per == "process":
            return tool
        if tool.reconcile is not None or tool.alternatives:
            raise DeclarationError(
                f"Toolset {toolset.name!r}: {tool.name!r} has reconcile= or another tool as "
                'fallback=, which would act on what was opened to list it. Use per="process".'
            )

        async def of(run: RunContext[Any]) -> Tool[Any]:
            mine = (await self._own(toolset, run)).get(tool.name)
            if mine is None or mine.declared() != tool.declared():
                raise NotApplied(
                    f"{tool.name} is declared otherwise for this run than when the process began; "
                    "it is not called.",
                    retry=False,
                )
            return mine

        return replace(tool, function=Lent(of, tool), takes_context=True)

    async def _own(self, toolset: Toolset[Any], run: RunContext[Any]) -> Mapping[str, Tool[Any]]:
        """The tools of a run's own toolset, opened by whichever call comes first."""
        mine = self._of_run.setdefault(run.run_id, {})
        held = mine.get(toolset.name)
        if held is None:
            held = mine[toolset.name] = _held(toolset, replace(run, deps=None, key=""))
        try:
            return {tool.name: tool for tool in await held.opened()}
        except RoadworthyError as error:
            if mine.get(toolset.name) is held:
                del mine[toolset.name]
            retry = isinstance(error, ToolsetUnavailable)
            raise NotApplied(str(error), retry=retry) from error


def _held(toolset: Toolset[Any], run: RunContext[None]) -> Held[_Tools]:
    return Held(f"Toolset {toolset.name!r}", lambda: toolset.open(run), toolset.seconds)
