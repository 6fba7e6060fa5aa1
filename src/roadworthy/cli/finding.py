"""From `FILE_OR_MODULE` to its runtime and agents.

The commands that run something call it. Invariant: one file gives the same runtime and agents
whichever command asks.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from roadworthy.agent import Agent
from roadworthy.errors import ConfigurationError, RoadworthyError
from roadworthy.runtime import Runtime

log = logging.getLogger("roadworthy.cli")


@dataclass(frozen=True)
class Found:
    """What a file offers: its runtime, or a default one, its agents by name, and what it calls
    `sign_in`: who may look at the console."""

    rt: Runtime
    agents: Mapping[str, Agent[Any, Any]]
    sign_in: object = None

    def agent(self, name: str | None) -> Agent[Any, Any]:
        """The named agent, or the only one. Raises: ConfigurationError."""
        names = ", ".join(sorted(self.agents))
        if name is None:
            if len(self.agents) > 1:
                raise ConfigurationError(f"There are several agents; choose with --agent: {names}.")
            return next(iter(self.agents.values()))
        if name not in self.agents:
            raise ConfigurationError(f"There is no agent {name!r}. There are: {names}.")
        return self.agents[name]


def find(target: str) -> Found:
    """The runtime and agents of a file (`desk.py`) or module (`shop.desk`).

    Raises: ConfigurationError: nothing there, or it cannot be imported.
    """
    module = _load(target)
    own = {v.name: v for v in vars(module).values() if isinstance(v, Agent)}
    rt = _runtime(module, target)
    registered = {} if rt is None else {agent.name: agent for agent in rt.patterns}
    agents = own | registered
    if rt is not None:
        rt.register(*(agent for name, agent in own.items() if name not in registered))
    if not agents:
        raise ConfigurationError(
            f"{target} has no agent at its top level. Declare one: "
            'desk = Agent("desk", model=..., tools=[...]).'
        )
    opened = rt if rt is not None else Runtime(patterns=tuple(own.values()))
    return Found(opened, agents, vars(module).get("sign_in"))


def _runtime(module: ModuleType, target: str) -> Runtime | None:
    """`rt`, or the only runtime there is."""
    named = vars(module).get("rt")
    if isinstance(named, Runtime):
        return named
    found = {id(v): v for v in vars(module).values() if isinstance(v, Runtime)}
    if len(found) > 1:
        raise ConfigurationError(f"{target} has several runtimes. Name the one to use `rt`.")
    return next(iter(found.values()), None)


def _load(target: str) -> ModuleType:
    path = Path(target)
    try:
        if target.endswith(".py") or path.is_file():
            return _load_file(path.resolve(), target)
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(target)
    except RoadworthyError:
        raise
    except Exception as error:  # border: the user's own file
        log.debug("loading %s", target, exc_info=True)
        raise ConfigurationError(_why(error, target)) from error


def _load_file(path: Path, target: str) -> ModuleType:
    if not path.is_file():
        raise ConfigurationError(f"There is no file {target}.")
    for folder in (_root(path), path.parent):  # so that it imports what lies beside it
        sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{target} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    with contextlib.redirect_stdout(sys.stderr):  # what it prints is not the command's answer
        spec.loader.exec_module(module)
    return module


def _root(path: Path) -> Path:
    """The folder that the file's package lies in."""
    folder = path.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _why(error: Exception, target: str) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f" ({Path(last.filename).name} line {last.lineno})"
    return (
        f"{target} cannot be loaded: {type(error).__name__}: {error}{place}. "
        "ROADWORTHY_LOG=debug shows the traceback."
    )
