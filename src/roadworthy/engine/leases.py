"""Which processes are alive: a row each, renewed every second by the event loop.

`engine/distributed.py` uses it; the clock is the database's. Invariant: an expired lease is never
renewed, so whoever has seen it expired may take its jobs.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, LiteralString

import psycopg

from roadworthy.clock import Clock
from roadworthy.engine.jobs import Worker
from roadworthy.errors import StoreUnavailable

_TABLE = """
CREATE TABLE IF NOT EXISTS roadworthy_executor (
    id text PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    queues text[] NOT NULL,
    version text NOT NULL,
    draining boolean NOT NULL DEFAULT false,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
)
"""
_LOCK = 0x726F6164  # CREATE IF NOT EXISTS alone fails when two processes do it at once


class Line:
    """One autocommitting connection that opens itself again; statements queue for it."""

    def __init__(self, url: str, patience: float) -> None:
        self._url = url
        self._patience = patience
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()

    async def rows(self, sql: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """What a statement returns. Raises: StoreUnavailable: no answer within the patience."""
        try:
            async with asyncio.timeout(self._patience), self._turn:
                try:
                    return await self._execute(sql, values)
                except BaseException:
                    await self.close()  # whatever it was, the connection's state is unknown
                    raise
        except (psycopg.Error, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"The engine's database does not answer: {error!r}") from error

    async def close(self) -> None:
        """Drop the connection; the next statement opens one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _execute(self, sql: LiteralString, values: Sequence[object]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        cursor = await self._connection.execute(sql, values)
        return await cursor.fetchall() if cursor.description else []


@dataclass(frozen=True, kw_only=True)
class Holder:
    """What a process says of itself when it takes a lease."""

    id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    version: str

    @classmethod
    def here(cls, queues: Sequence[str], version: str) -> Holder:
        """A new identity of this process. It never comes again, on no machine."""
        host, pid = socket.gethostname(), os.getpid()
        identity = f"{host}-{pid}-{secrets.token_hex(4)}"
        return cls(id=identity, host=host, pid=pid, queues=tuple(queues), version=version)


class Leases:
    """The table of executors. Every call raises StoreUnavailable when the database is silent."""

    def __init__(self, url: str, seconds: float) -> None:
        self._line = Line(url, seconds)
        self._seconds = seconds

    @classmethod
    async def set_up(cls, url: str) -> None:
        """Create the table. Any number of processes may do it at once."""
        try:
            async with await psycopg.AsyncConnection.connect(url) as connection:
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
                await connection.execute(_TABLE)
        except psycopg.Error as error:
            raise StoreUnavailable(f"The engine cannot set up its table: {error}") from error

    async def take(self, holder: Holder) -> None:
        """Begin a lease under a new identity."""
        await self._line.rows(
            "INSERT INTO roadworthy_executor (id, host, pid, queues, version, expires_at)"
            " VALUES (%s, %s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s))",
            holder.id, holder.host, holder.pid, list(holder.queues), holder.version, self._seconds,
        )  # fmt: skip

    async def renew(self, identity: str) -> Literal["held", "draining", "lost"]:
        """Extend a lease that still runs. draining: somebody asks this process to drain."""
        rows = await self._line.rows(
            "UPDATE roadworthy_executor SET"
            " expires_at = clock_timestamp() + make_interval(secs => %s)"
            " WHERE id = %s AND expires_at > clock_timestamp() RETURNING draining",
            self._seconds, identity,
        )  # fmt: skip
        if not rows:
            return "lost"
        return "draining" if rows[0][0] else "held"

    async def drop(self, identity: str) -> None:
        """End a lease now. The row stays as a dead one, so that what it left behind is found."""
        await self._line.rows(
            "UPDATE roadworthy_executor SET expires_at = clock_timestamp()"
            " WHERE id = %s AND expires_at > clock_timestamp()",
            identity,
        )

    async def ask_to_drain(self, identity: str) -> bool:
        """Mark a worker; it sees it with its next beat. False: no live one has this id."""
        rows = await self._line.rows(
            "UPDATE roadworthy_executor SET draining = true"
            " WHERE id = %s AND expires_at > clock_timestamp() RETURNING id",
            identity,
        )
        return bool(rows)

    async def dead(self) -> list[str]:
        """Executors whose lease has run out, until they are forgotten."""
        rows = await self._line.rows(
            "SELECT id FROM roadworthy_executor WHERE expires_at <= clock_timestamp()"
        )
        return [row[0] for row in rows]

    async def known(self) -> frozenset[str]:
        """Executors that have a row, alive or dead."""
        return frozenset(
            row[0] for row in await self._line.rows("SELECT id FROM roadworthy_executor")
        )

    async def live(self) -> list[Worker]:
        """Who holds a lease now, the oldest first."""
        rows = await self._line.rows(
            "SELECT id, host, pid, queues, version, draining, started_at,"
            " extract(epoch FROM expires_at - clock_timestamp())::float8"
            " FROM roadworthy_executor WHERE expires_at > clock_timestamp() ORDER BY started_at"
        )
        return [
            Worker(
                id=row[0], host=row[1], pid=row[2], queues=tuple(row[3]), version=row[4],
                draining=row[5], started_at=row[6], lease_left=row[7],
            )
            for row in rows
        ]  # fmt: skip

    async def forget(self, seconds: float = 600.0) -> None:
        """Delete the rows of executors that have been dead for so long."""
        await self._line.rows(
            "DELETE FROM roadworthy_executor"
            " WHERE expires_at < clock_timestamp() - make_interval(secs => %s)",
            seconds,
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._line.close()


class Lease:
    """One identity's lease, and how long it surely lasts by this machine's own clock."""

    def __init__(self, leases: Leases, holder: Holder, seconds: float, clock: Clock) -> None:
        self.id = holder.id
        self._leases = leases
        self._holder = holder
        self._seconds = seconds
        self._clock = clock
        self._renewed = clock.monotonic()

    async def begin(self) -> None:
        """Take it. Raises: StoreUnavailable."""
        self._renewed = self._clock.monotonic()
        await self._leases.take(self._holder)

    @property
    def left(self) -> float:
        """Seconds for which nobody else can have seen it expired."""
        return self._renewed + self._seconds - self._clock.monotonic()

    async def renew(self) -> Literal["held", "draining", "lost"]:
        """Extend it; lost also when nobody answered for as long as it lasted.

        Raises: StoreUnavailable: it runs still, perhaps the next attempt succeeds.
        """
        asked, left = self._clock.monotonic(), self.left
        if left <= 0:  # this process was stopped, or its loop blocked, or the database away
            return "lost"
        try:
            async with asyncio.timeout(left):
                state = await self._leases.renew(self.id)
        except TimeoutError:
            return "lost"
        if state != "lost":
            self._renewed = asked
        return state
