"""A pytest fixture for tests of agents: `pytest_plugins = ["roadworthy.testing.plugin"]`.

Invariant: a test that uses it leaves no file behind and asks no real model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from roadworthy.models.providers import forbid_real_models
from roadworthy.runtime import Runtime
from roadworthy.testing.clock import FakeClock


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """An open Runtime on a store of its own: `runtime.run_sync(agent, "Hello")`.

    Pauses between attempts cost no time, and a real model is never asked.
    """
    url = f"sqlite:///{tmp_path}/roadworthy.db"
    with forbid_real_models(), Runtime(url, clock=FakeClock(auto=True)) as opened:
        yield opened
