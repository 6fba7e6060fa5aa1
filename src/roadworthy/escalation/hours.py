"""When people work: `Hours`, in which the clock of a queue runs. `QueuePolicy` asks it.

Invariant: a pure function of the time given; what is added is working time, so that a deadline set
on a Friday evening falls on Monday.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from roadworthy.clock import MICROS, moment
from roadworthy.errors import DeclarationError
from roadworthy.spelling import spelled

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@spelled
@dataclass(frozen=True, kw_only=True)
class Hours:
    """Business hours: on these days from `opens` until `closes`, on the wall clock of `zone`.

    opens, closes: "09:00"; "24:00" closes at midnight. zone: such as "Europe/Berlin".
    Raises: DeclarationError.
    """

    opens: str = "09:00"
    closes: str = "17:00"
    days: Sequence[str] = ("mon", "tue", "wed", "thu", "fri")
    zone: str = "UTC"

    def __post_init__(self) -> None:
        unknown = [day for day in self.days if day not in _DAYS]
        if unknown or not self.days or isinstance(self.days, str):
            raise DeclarationError(f"Hours: days={self.days!r}: a list of {', '.join(_DAYS)}.")
        if not _minutes(self.opens, "opens") < _minutes(self.closes, "closes"):
            raise DeclarationError(
                f"Hours: opens={self.opens!r} is not before closes={self.closes!r}; hours over "
                "midnight are two queues, or whole days."
            )
        try:
            ZoneInfo(self.zone)
        except (OSError, KeyError, ValueError) as error:
            raise DeclarationError(
                f'Hours: zone={self.zone!r} is not known ({error}); such as "Europe/Berlin".'
            ) from None

    def after(self, now: int, seconds: float) -> int:
        """The moment (microseconds UTC) when so many working seconds have passed from `now`."""
        left, zone, at = seconds, ZoneInfo(self.zone), moment(now)
        day = at.astimezone(zone).date()
        while True:
            if _DAYS[day.weekday()] in self.days:
                begin = max(at, _at(day, self.opens, zone))
                left -= max(0.0, (_at(day, self.closes, zone) - begin).total_seconds())
                if left <= 0:
                    return round((_at(day, self.closes, zone).timestamp() + left) * MICROS)
            day += timedelta(days=1)


def _at(day: date, clock: str, zone: ZoneInfo) -> datetime:
    """A wall clock's time of that day, in UTC: differences of it are true seconds."""
    days, minutes = divmod(_minutes(clock, "opens"), 24 * 60)
    hour, minute = divmod(minutes, 60)
    local = datetime.combine(day + timedelta(days=days), time(hour, minute), zone)
    return local.astimezone(UTC)


def _minutes(clock: str, what: str) -> int:
    hour, _, minute = clock.partition(":")
    known = hour.isdecimal() and minute.isdecimal() and len(minute) == 2
    minutes = int(hour) * 60 + int(minute) if known else -1
    if not known or int(minute) > 59 or not 0 <= minutes <= 24 * 60:
        raise DeclarationError(f'Hours: {what}={clock!r}: a time of the day, such as "09:00".')
    return minutes
