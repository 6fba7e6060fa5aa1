"""What every test shares: async tests run on asyncio, through anyio's pytest plugin."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The one event loop that Roadworthy supports."""
    return "asyncio"
