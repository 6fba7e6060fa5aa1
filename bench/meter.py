"""What is read from the machine, and the few statistics made of it."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median


@dataclass(frozen=True)
class Reading:
    """CPU (user and system, all threads of this process) and wall time, in seconds."""

    cpu: float
    wall: float

    def __sub__(self, earlier: Reading) -> Reading:
        return Reading(self.cpu - earlier.cpu, self.wall - earlier.wall)


def read() -> Reading:
    """Now."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Reading(usage.ru_utime + usage.ru_stime, time.perf_counter())


def slope(values: Sequence[float]) -> float:
    """How much each step costs more than the one before: the median of all pairs' slopes
    (Theil-Sen), which single pauses do not move."""
    count = len(values)
    return median(
        (values[j] - values[i]) / (j - i) for i in range(count) for j in range(i + 1, count)
    )


def ends(values: Sequence[float], most: int = 10) -> tuple[float, float]:
    """The mean of the first and of the last `most` values."""
    return fmean(values[:most]), fmean(values[-most:])
