"""Bring a store's schema up to date. Alembic is loaded only when there is something to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roadworthy.errors import StoreVersionError
from roadworthy.store.database import Database

HEAD = "0005"


def upgrade(database: Database) -> None:
    """Migrate to HEAD, once, also when several processes open the store at the same time.

    Raises: StoreVersionError: a newer release wrote this store.
    """
    with database.guarded():
        connection = database.connect()
        version = database.version(connection)
        if version == HEAD:
            return
        if version is not None and version > HEAD:
            raise StoreVersionError(
                f"The store has schema {version}, this release knows {HEAD}. Upgrade roadworthy."
            )
        _migrate(database, connection)


def _migrate(database: Database, connection: Any) -> None:  # noqa: ANN401 - a driver's connection
    """All steps in one transaction: a process that dies on the way leaves the store as it was."""
    from alembic import command  # noqa: PLC0415 - 0.1 s that an up-to-date store need not pay
    from alembic.config import Config  # noqa: PLC0415
    from sqlalchemy import create_engine  # noqa: PLC0415
    from sqlalchemy.pool import StaticPool  # noqa: PLC0415

    engine = create_engine(database.engine, creator=lambda: connection, poolclass=StaticPool)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with engine.begin() as sql:  # Alembic leaves a transaction that is open already to us
        database.alone(connection)  # not before: connecting rolls back
        if database.version(connection) != HEAD:
            config.attributes["connection"] = sql
            command.upgrade(config, "head")
