"""Settings of the engine as the environment and the command line adjust them."""

from __future__ import annotations

import pytest

from roadworthy.engine.jobs import EngineSettings
from roadworthy.errors import ConfigurationError


def test_the_beat_follows_the_lease_and_roles_are_queues() -> None:
    found = EngineSettings().adjusted(lease=10, concurrency=7, drain=3, roles=["timers"])
    assert (found.lease, found.beat, found.drain) == (10, 2, 3)
    assert [(queue.name, queue.at_once) for queue in found.queues] == [("timers", 7)]
    assert EngineSettings().adjusted() == EngineSettings()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="No queue 'turn'"):
        EngineSettings().adjusted(roles=["turn"])
    with pytest.raises(ConfigurationError, match="lease"):
        EngineSettings().adjusted(lease=0.1)
    with pytest.raises(ConfigurationError, match="drain"):
        EngineSettings().adjusted(drain=-1)
    with pytest.raises(ConfigurationError, match="at least one"):
        EngineSettings().adjusted(concurrency=0)
