"""Alembic's entry: runs the migrations on the connection that `upgrade` opened."""

from __future__ import annotations

from alembic import context

from roadworthy.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
)
context.run_migrations()
