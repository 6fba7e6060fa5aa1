"""Fakes for testing agents: scripted and replayed models, a clock you move, tools that fail.

Public. Invariant: with these, a test needs no network, no key, no sleep and no mock.
"""

from roadworthy.models.providers import forbid_real_models
from roadworthy.testing.clock import FakeClock
from roadworthy.testing.failing import Failing, failing
from roadworthy.testing.recorded import RecordingModel, ReplayModel
from roadworthy.testing.scripted import RecordedRequest, ScriptedModel

__all__ = [
    "Failing",
    "FakeClock",
    "RecordedRequest",
    "RecordingModel",
    "ReplayModel",
    "ScriptedModel",
    "failing",
    "forbid_real_models",
]
