"""What the engine's tests need: worker processes, a record of what they executed, and waiting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from roadworthy.engine.jobs import EngineSettings

PARTITIONED = EngineSettings(
    queues=tuple(
        replace(queue, partitioned=queue.name == "turns") for queue in EngineSettings().queues
    )
)
_RECORD = """
CREATE TABLE run (id text PRIMARY KEY, epoch integer NOT NULL DEFAULT 0,
                  finished integer NOT NULL DEFAULT 0);
CREATE TABLE seen (number bigserial PRIMARY KEY, job text NOT NULL, pid integer NOT NULL,
                   what text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE INDEX ON seen (job);
"""


class Process:
    """A worker in a process of its own."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._popen = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "tests.engine.worker", url, json.dumps(options)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
            cwd=Path(__file__).parents[2],
        )
        self.pid = self._popen.pid

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """kill -9, and no zombie."""
        self._popen.kill()
        self._popen.wait()

    def ends(self, seconds: float = 10) -> int:
        """The exit code, once it ended by itself."""
        return self._popen.wait(seconds)


class Desk:
    """One database, the workers on it, and what they did."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._sql = psycopg.connect(url, autocommit=True)
        self.processes: list[Process] = []

    @staticmethod
    def create(url: str, name: str, template: str | None) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            extra = f" TEMPLATE {template}" if template else ""
            connection.execute(f"CREATE DATABASE {name}{extra}".encode())

    @staticmethod
    async def set_up(url: str) -> None:
        from roadworthy.engine.distributed import DbosEngine  # noqa: PLC0415 - optional here

        await DbosEngine.set_up(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_RECORD)

    def rows(self, sql: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        cursor = self._sql.execute(sql, values)
        return cursor.fetchall() if cursor.description else []

    def one(self, sql: LiteralString, *values: object) -> Any:  # noqa: ANN401 - any column
        return self.rows(sql, *values)[0][0]

    def worker(self, **options: Any) -> Process:  # noqa: ANN401 - of worker.py
        """Start a worker and wait until it lives. Lease 2 s, beat 0.25 s if not said otherwise."""
        return self.workers(1, **options)[0]

    def workers(self, number: int, **options: Any) -> list[Process]:  # noqa: ANN401 - of worker.py
        """Start several at once."""
        begun = [Process(self.url, {"lease": 2.0, "beat": 0.25} | options) for _ in range(number)]
        self.processes += begun
        pids = {process.pid for process in begun}
        self.until(lambda: pids <= self.living(), 20)
        return begun

    def living(self) -> set[int]:
        return {
            row[0]
            for row in self.rows(
                "SELECT pid FROM roadworthy_executor WHERE expires_at > clock_timestamp()"
            )
        }

    def until(self, condition: Callable[[], object], seconds: float = 15) -> float:
        """Wait for a condition; the seconds that took."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds:
                raise AssertionError(f"not within {seconds} s; {self.rows(_STATE)}")
            select_nothing()
        return time.monotonic() - began

    def begun(self, job: str) -> list[int]:
        """The processes that began a job, in order."""
        return [
            row[0]
            for row in self.rows(
                "SELECT pid FROM seen WHERE job = %s AND what = 'begin' ORDER BY number", job
            )
        ]

    def order(self) -> list[tuple[str, str]]:
        """(what, job) as it happened."""
        return self.rows("SELECT what, job FROM seen ORDER BY number")

    def finished(self) -> int:
        return int(self.one("SELECT count(*) FROM run WHERE finished > 0"))

    def status(self, job: str) -> str:
        found = self.rows("SELECT status FROM dbos.workflow_status WHERE workflow_uuid = %s", job)
        return str(found[0][0]) if found else ""

    def close(self) -> None:
        for process in self.processes:
            process.signal(signal.SIGCONT)
            process.kill()
        self._sql.close()


_STATE: LiteralString = (
    "SELECT status, queue_name, executor_id, count(*) FROM dbos.workflow_status GROUP BY 1, 2, 3"
)


def select_nothing() -> None:
    """Let others run for a moment: between two looks at a condition, never instead of one."""
    signal.sigtimedwait([], 0.01)
