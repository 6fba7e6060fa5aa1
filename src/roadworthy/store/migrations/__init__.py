"""Bring a store's schema up to date. Alembic is loaded only when there is something to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from roadworthy.errors import StoreVersionError
from roadworthy.store.database import Database, guarded

HEAD = "0001"


def upgrade(database: Database) -> None:
    """Migrate to HEAD, once, also when several processes open the store at the same time.

    Raises: StoreVersionError: a newer release wrote this store.
    """
    with guarded():
        connection = database.connect()
        version = _version(connection)
        if version == HEAD:
            return
        if version is not None and version > HEAD:
            raise StoreVersionError(
                f"The store has schema {version}, this release knows {HEAD}. Upgrade roadworthy."
            )
        _migrate(connection)


def _version(connection: sqlite3.Connection) -> str | None:
    known = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
    ).fetchone()
    if known is None:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def _migrate(connection: sqlite3.Connection) -> None:
    """All steps in one transaction: a process that dies on the way leaves the file as it was."""
    from alembic import command  # noqa: PLC0415 - 0.1 s that an up-to-date store need not pay
    from alembic.config import Config  # noqa: PLC0415
    from sqlalchemy import create_engine  # noqa: PLC0415
    from sqlalchemy.pool import StaticPool  # noqa: PLC0415

    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with engine.begin() as sql:  # Alembic leaves a transaction that is open already to us
        connection.execute("BEGIN IMMEDIATE")  # not before: connecting rolls back
        if _version(connection) != HEAD:
            config.attributes["connection"] = sql
            command.upgrade(config, "head")
