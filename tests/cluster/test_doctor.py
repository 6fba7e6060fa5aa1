"""`roadworthy doctor`: what is wrong with a deployment, and what to do."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from roadworthy import Agent, Runtime
from roadworthy.cli.doctor import app
from roadworthy.messages import ModelRequest
from roadworthy.testing import ScriptedModel


def told(_: ModelRequest) -> str:
    """What the model says."""
    return "Done."


async def test_a_fit_deployment_and_one_without_workers(database: str) -> None:
    desk = Agent("desk", model=ScriptedModel(told))
    async with (
        Runtime(database, patterns=[desk]),
        Runtime(database, patterns=[desk], execute=False) as looks,
    ):
        found = await looks.crew.checkup()
    assert {finding.level for finding in found} == {"ok"}
    assert any("1 workers" in finding.what for finding in found)
    async with Runtime(database, patterns=[desk], execute=False) as looks:
        found = await looks.crew.checkup()
    wrong = [finding for finding in found if finding.level != "ok"]
    assert [(f.level, f.what) for f in wrong] == [("failure", "no worker lives: nothing executes")]


async def test_streams_that_do_not_pass_are_told(database: str) -> None:
    async with Runtime(database, redis="redis://127.0.0.1:1") as rt:
        found = await rt.crew.checkup()
    assert "live streams do not pass between processes; facts do" in {f.what for f in found}


def test_a_store_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["--url", "postgresql://nobody@127.0.0.1:1/none"])
    assert result.exit_code == 1
    assert "Check that the server runs" in result.output
