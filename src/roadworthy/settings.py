"""Settings of the environment, in one table. Provider keys are read by the providers themselves.

ROADWORTHY_URL     the store, default sqlite:///roadworthy.db
ROADWORTHY_REDIS   redis://..., for live streams between machines; unset: by Postgres itself
ROADWORTHY_ENGINE  inline: on Postgres too, one process executes everything; unset: all do
ROADWORTHY_LOG     log level of the logger `roadworthy` (debug prints each turn); unset: quiet
ROADWORTHY_BUSY    seconds a call waits for others' reservations before it is refused, default 5
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

    @classmethod
    def from_environment(cls) -> Settings:
        """Raises: ConfigurationError: a variable cannot be read."""
        log = os.environ.get("ROADWORTHY_LOG", "").lower()
        if log and log not in _LEVELS:
            raise ConfigurationError(f"ROADWORTHY_LOG={log!r}: use one of {', '.join(_LEVELS)}.")
        busy = os.environ.get("ROADWORTHY_BUSY", "5")
        try:
            seconds = float(busy)
        except ValueError as error:
            raise ConfigurationError(f"ROADWORTHY_BUSY={busy!r}: use seconds, e.g. 5.") from error
        engine = os.environ.get("ROADWORTHY_ENGINE", "")
        if engine not in ("", "inline"):
            raise ConfigurationError(f"ROADWORTHY_ENGINE={engine!r}: use inline, or leave it out.")
        return cls(
            url=os.environ.get("ROADWORTHY_URL", cls.url),
            redis=os.environ.get("ROADWORTHY_REDIS"),
            engine=engine,
            log=log,
            busy_seconds=seconds,
        )


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
