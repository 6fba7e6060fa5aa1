"""From an address to a store: which database it is.

The runtime opens here. Postgres' driver is an extra and loaded only when it is asked for.
"""

from __future__ import annotations

from roadworthy.errors import ConfigurationError
from roadworthy.store.database import Database
from roadworthy.store.sqlite import SqliteDatabase


def open_database(url: str) -> Database:
    """The store at this address. Raises: ConfigurationError: no address of a store."""
    if url.startswith("sqlite:"):
        return SqliteDatabase(url)
    if url.startswith(("postgresql://", "postgres://")):
        try:
            from roadworthy.store.postgres import PostgresDatabase  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigurationError(
                "Postgres needs its driver: pip install 'roadworthy[postgres]'."
            ) from error
        return PostgresDatabase(url)
    raise ConfigurationError(
        f"Cannot open {url!r}: use sqlite:///file.db (relative), sqlite:////path/file.db or "
        "postgresql://user@host/name."
    )
