"""What is asked of a database, within which bounds, and what comes back.

Shared by the drivers and those who use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from roadworthy.tools.sql.statements import Dialect, Statement

Values: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one call may take. free: a model wrote the statement. tables: those it may read; None:
    all that the database lets it."""

    rows: int
    seconds: float
    writes: bool = False
    free: bool = False
    tables: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What came of a statement. more: there were further rows. changed: how many it changed."""

    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    more: bool = False
    changed: int | None = None


class Driver(Protocol):
    """How one kind of database is asked."""

    @property
    def dialect(self) -> Dialect:
        """How its SQL is read."""
        ...

    def ask(self, statement: Statement, values: Values, bounds: Bounds) -> Rows:
        """In a transaction of its own. Raises: ToolError: it refused. NotApplied: not reached, or
        rolled back. RuntimeError: whether it committed is not known."""
        ...

    def schema(self, bounds: Bounds) -> Mapping[str, Sequence[str]]:
        """Tables with their columns (`name type`). Raises: ConfigurationError: more can be read
        than `bounds.tables` says."""
        ...
