"""Settings of the environment, in one table. Provider keys are read by the providers themselves.

ROADWORTHY_URL   the store, default sqlite:///roadworthy.db
ROADWORTHY_LOG   log level of the logger `roadworthy` (debug prints each turn); unset: quiet
ROADWORTHY_BUSY  seconds a call waits for others' reservations before it is refused, default 5
On Postgres, where the code does not say otherwise (`Runtime(redis=, engine=)`):
ROADWORTHY_REDIS        redis://..., for live streams between machines; unset: Postgres itself
ROADWORTHY_ENGINE       inline: one process executes everything, as on a file; unset: all do
ROADWORTHY_LEASE        seconds after which a silent worker is dead, default 5
ROADWORTHY_CONCURRENCY  runs that a worker executes at once, default 200
ROADWORTHY_DRAIN        seconds that a worker's runs have when it is asked to end, default 30
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from roadworthy.errors import ConfigurationError

_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the environment says. `.env` files are not read, nothing is sent anywhere."""

    url: str = "sqlite:///roadworthy.db"
    redis: str | None = None
    engine: str = ""
    log: str = ""
    busy_seconds: float = 5.0
    lease: float | None = None
    concurrency: int | None = None
    drain: float | None = None

    @classmethod
    def from_environment(cls) -> Settings:
        """Raises: ConfigurationError: a variable cannot be read."""
        log = os.environ.get("ROADWORTHY_LOG", "").lower()
        if log and log not in _LEVELS:
            raise ConfigurationError(f"ROADWORTHY_LOG={log!r}: use one of {', '.join(_LEVELS)}.")
        engine = os.environ.get("ROADWORTHY_ENGINE", "")
        if engine not in ("", "inline"):
            raise ConfigurationError(f"ROADWORTHY_ENGINE={engine!r}: use inline, or leave it out.")
        busy, at_once = _number("ROADWORTHY_BUSY"), _number("ROADWORTHY_CONCURRENCY")
        return cls(
            url=os.environ.get("ROADWORTHY_URL", cls.url),
            redis=os.environ.get("ROADWORTHY_REDIS"),
            engine=engine,
            log=log,
            busy_seconds=cls.busy_seconds if busy is None else busy,
            lease=_number("ROADWORTHY_LEASE"),
            concurrency=None if at_once is None else int(at_once),
            drain=_number("ROADWORTHY_DRAIN"),
        )


def _number(name: str) -> float | None:
    """A number of the environment. Raises: ConfigurationError."""
    said = os.environ.get(name)
    try:
        return None if said is None else float(said)
    except ValueError as error:
        what = "a number" if name.endswith("CONCURRENCY") else "seconds"
        raise ConfigurationError(f"{name}={said!r}: use {what}, e.g. 5.") from error


class _RunIds(logging.Filter):
    """Every record has a run id, `-` outside runs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a record."""
        if not hasattr(record, "run"):
            record.run = "-"
        return True


def set_up_logging(level: str) -> None:
    """Print the logger `roadworthy` at this level, run id in every line. Quiet without a level."""
    logger = logging.getLogger("roadworthy")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    if level and not any(isinstance(h, logging.StreamHandler) for h in logger.handlers):
        handler = logging.StreamHandler()
        handler.addFilter(_RunIds())
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(run)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(level.upper())
