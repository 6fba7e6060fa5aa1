"""Circuit breakers: what keeps failing at the far side is left alone, by all processes."""

from roadworthy.breakers.circuits import Admission, Circuits, Ended

__all__ = ["Admission", "Circuits", "Ended"]
