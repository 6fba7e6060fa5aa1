"""`python -m examples.support_desk`: the story of the support desk in a terminal.

Without options a script plays the model, and everything else is real. With --model (and a key in
the environment) or --base-url a real model answers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from examples.support_desk import scenes, screen
from examples.support_desk.desk import DATA, SHOP, URL, open_runtime
from roadworthy.errors import ConfigurationError

_DESK = "examples/support_desk/desk.py"
_NAME = "Roadworthy: a support desk"


def main() -> int:
    """Tell the story. Returns the exit code."""
    asked = _arguments()
    environment = _environment(asked.model, asked.base_url)
    _start_afresh()
    _introduce(asked.model, asked.base_url)
    try:
        told = asyncio.run(_story(asked.model, asked.base_url, environment))
    except ConfigurationError as error:  # a missing key, package or price: it says the mend
        screen.say(f"\n{error}")
        return 1
    if not told:
        screen.say("\nThe model does not answer, so the story ends here. Without --model, it runs.")
        return 1
    if asked.chat or _wants_chat():
        return _chat(environment)
    return 0


async def _story(model: str | None, base_url: str | None, environment: Mapping[str, str]) -> bool:
    rt = open_runtime(model, base_url)
    async with rt:
        if not await scenes.tell(rt, scripted=model is None):
            return False
    await scenes.crash(environment)
    screen.title("All runs", "they stay in the store, to be looked at from any process.")
    async with rt:
        await scenes.summary(rt)
        [newest, *_] = await rt.runs(1)
    screen.title("Look closer", "the same agent, its runs and its people, from the shell.")
    screen.say(f"roadworthy runs show {newest.id} --url {URL}")
    screen.say(f"roadworthy serve {_DESK}   # /chat/support as a customer, /inbox as Lea")
    screen.say(f"roadworthy chat {_DESK} --user ana")
    return True


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.support_desk", description=__doc__)
    parser.add_argument(
        "--model",
        default=os.environ.get("ROADWORTHY_DEMO_MODEL"),
        help="such as openai:gpt-5-mini; or the server's name for it, with --base-url",
    )
    parser.add_argument(
        "--base-url",
        default=os.environ.get("ROADWORTHY_DEMO_BASE_URL"),
        help="a server that speaks OpenAI's chat format, such as http://127.0.0.1:11434/v1",
    )
    parser.add_argument("--chat", action="store_true", help="talk to the desk after the story")
    asked = parser.parse_args()
    if asked.base_url and not asked.model:
        parser.error("--base-url needs --model, the name the server knows it by")
    return asked


def _environment(model: str | None, base_url: str | None) -> dict[str, str]:
    """How the demo's other processes learn which model answers."""
    chosen = {"ROADWORTHY_DEMO_MODEL": model, "ROADWORTHY_DEMO_BASE_URL": base_url}
    return {name: value for name, value in chosen.items() if value}


def _start_afresh() -> None:
    for name in (SHOP.name, "runs.db"):
        for suffix in ("", "-wal", "-shm"):
            (DATA / f"{name}{suffix}").unlink(missing_ok=True)


def _introduce(model: str | None, base_url: str | None) -> None:
    if model is None:
        screen.panel(
            "No model is given, so a [bold]SCRIPTED MODEL[/] plays its part: its words are written "
            "in script.py.\nEverything else is real: the tools, the shop's database, the ledger, "
            "the journal, the kill -9.\n\nWith a key in the environment, add: --model "
            "openai:gpt-5-mini\nWith a server of your own, add:     --base-url "
            "http://127.0.0.1:11434/v1 --model NAME",
            _NAME,
        )
    else:
        where = f" at {base_url}" if base_url else ""
        screen.panel(
            f"[bold]{model}[/]{where} answers; what it does is its own.\nScenes 3 and 5 are left "
            "out: they need a model that errs on cue. Whether the money of scene 6\nruns out "
            "depends on the model's price.",
            _NAME,
        )


def _wants_chat() -> bool:
    """Asked only where somebody can answer."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return input("\nTalk to the desk now? [y/N] ").strip().lower().startswith("y")
    except (EOFError, KeyboardInterrupt):
        return False


def _chat(environment: Mapping[str, str]) -> int:
    command = [str(Path(sys.executable).with_name("roadworthy")), "chat", _DESK, "--user", "ana"]
    return subprocess.run(command, env=os.environ | environment, check=False).returncode  # noqa: S603 - our own command


if __name__ == "__main__":
    sys.exit(main())
