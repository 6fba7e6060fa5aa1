"""Runs are handed to an engine that many machines share."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Which job of the engine a run is now, and whether it was enqueued."""
    for name, value in (("priority", "100"), ("dispatch", "1"), ("dispatched", "0")):
        column = sa.Column(name, sa.Integer(), nullable=False, server_default=value)
        op.add_column("run", column)
