"""What a run's record looks like to a reader: as plain JSON, and as the story of its steps.

The API, the CLI and pages read through it. Invariant: a projection of the journal, never a second
truth, and complete before a run is over as well.
"""

from roadworthy.trace.plain import Detail, plain_event, plain_json, plain_row
from roadworthy.trace.story import Kind, State, Step, limits_of, story

__all__ = [
    "Detail",
    "Kind",
    "State",
    "Step",
    "limits_of",
    "plain_event",
    "plain_json",
    "plain_row",
    "story",
]
