"""The contention alarm: DBOS tells of a slowed queue only in its log."""

from __future__ import annotations

import logging

import pytest

from roadworthy.testing import FakeClock

pytest.importorskip("psycopg")

from roadworthy.engine.health import SlowedQueues

CONTENTION = "Contention detected in queue thread for turns. Increasing polling interval to 12.80."


def record(text: str, level: int = logging.WARNING, at: float = 0.0) -> logging.LogRecord:
    made = logging.LogRecord("dbos", level, "", 0, text, None, None)
    made.created = at
    return made


def test_contention_is_a_warning_and_wears_off(caplog: pytest.LogCaptureFixture) -> None:
    clock, slowed = FakeClock(), SlowedQueues()
    with caplog.at_level(logging.WARNING, "roadworthy.engine"):
        slowed.emit(record(CONTENTION, at=clock.now() / 1e6 - 28))
    assert CONTENTION in caplog.text
    assert slowed.polls(clock) == {"turns": pytest.approx(10.0, abs=0.01)}


def test_other_warnings_are_quiet_and_errors_are_not(caplog: pytest.LogCaptureFixture) -> None:
    slowed = SlowedQueues()
    with caplog.at_level(logging.INFO, "roadworthy.engine"):
        slowed.emit(record("Asyncio task cancelled"))
        slowed.emit(record("no database", logging.ERROR))
    assert [text.getMessage() for text in caplog.records] == ["dbos: no database"]
