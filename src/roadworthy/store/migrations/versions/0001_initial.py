"""The first schema."""

from __future__ import annotations

from alembic import op

from roadworthy.store.schema import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    metadata.create_all(op.get_bind())
