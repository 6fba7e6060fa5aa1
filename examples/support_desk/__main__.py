"""`python -m examples.support_desk`: the story of the support desk in a terminal.

Without options a script plays the model, and everything else is real. With --model (and a key in
the environment) or --base-url a real model answers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from examples.support_desk import scenes, screen
from examples.support_desk.desk import DATA, SHOP, URL, open_runtime

_DESK = "examples/support_desk/desk.py"


def main() -> int:
    """Tell the story. Returns the exit code."""
    asked = _arguments()
    environment = {
        name: value
        for name, value in {
            "ROADWORTHY_DEMO_MODEL": asked.model,
            "ROADWORTHY_DEMO_BASE_URL": asked.base_url,
        }.items()
        if value
    }
    _start_afresh()
    _introduce(asked.model, asked.base_url)
    asyncio.run(_story(asked.model, asked.base_url, environment))
    return 0


async def _story(model: str | None, base_url: str | None, environment: dict[str, str]) -> None:
    rt = open_runtime(model, base_url)
    async with rt:
        await scenes.tell(rt, scripted=model is None)
    await scenes.crash(environment)
    screen.title("The runs", "each can be looked at, from any process, for as long as you keep it.")
    async with rt:
        await scenes.summary(rt)
        newest = (await rt.runs(1))[0].id
    screen.say(f"roadworthy runs show {newest} --url {URL}")
    screen.say(f"roadworthy serve {_DESK}")
    screen.say(f"roadworthy chat {_DESK}")


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


def _start_afresh() -> None:
    for name in (SHOP.name, "runs.db"):
        for suffix in ("", "-wal", "-shm"):
            (DATA / f"{name}{suffix}").unlink(missing_ok=True)


def _introduce(model: str | None, base_url: str | None) -> None:
    if model is None:
        screen.panel(
            "No model is given, so a [bold]SCRIPTED MODEL[/] plays its part: its words are written "
            "in script.py.\nEverything else is real: the tools, the shop's database, the ledger, "
            "the journal, the kill -9.\nWith a key: python -m examples.support_desk --model "
            "openai:gpt-5-mini",
            "Roadworthy: a support desk",
        )
    else:
        where = f" at {base_url}" if base_url else ""
        screen.panel(
            f"[bold]{model}[/]{where} answers. Scenes 3 and 5 need a model that errs on cue; only "
            "the scripted one does.\nWhat else happens is up to the model.",
            "Roadworthy: a support desk",
        )


if __name__ == "__main__":
    sys.exit(main())
