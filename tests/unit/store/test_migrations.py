"""Migrations build exactly the schema the code uses."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from roadworthy.errors import StoreVersionError
from roadworthy.store import migrations
from roadworthy.store.opening import open_database
from roadworthy.store.schema import metadata

pytestmark = pytest.mark.sqlite_only


def test_a_migrated_store_has_the_schema_of_the_code(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/s.db")
    migrations.upgrade(database)
    database.close()
    engine = create_engine(f"sqlite:///{tmp_path}/s.db")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_processes_that_open_a_new_store_together_migrate_it_once(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def open_it() -> None:
        database = open_database(f"sqlite:///{tmp_path}/s.db")
        try:
            migrations.upgrade(database)
        except BaseException as error:  # noqa: BLE001 - collected for the assertion
            failures.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_store_of_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/s.db")
    migrations.upgrade(database)
    with sqlite3.connect(tmp_path / "s.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreVersionError, match="Upgrade roadworthy"):
        migrations.upgrade(database)
    database.close()
