"""`SQL`: a database that tools may ask, and how far they may go.

`declare` and `tables` ask it. Invariant: it holds no connection; each call opens one and closes it.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

from roadworthy.errors import DeclarationError
from roadworthy.spelling import spelled
from roadworthy.tools.sql.asking import Bounds, Driver, Rows
from roadworthy.tools.sql.postgres import Postgres, there
from roadworthy.tools.sql.sqlite import Sqlite

MOST_ROWS = 100
_SCHEMES = ("postgresql://", "postgres://", "postgresql+psycopg://")


@spelled
@dataclass(frozen=True, eq=False)
class SQL:
    """A database: `sqlite:///path` or `postgresql://user@host/name`.

    rows: at most so many come back from one call. seconds: one statement may take.
    The file is opened read-only, Postgres in a READ ONLY transaction, unless a `sql_tool` is an
    effect. On Postgres what can be seen is what the role of the URL may see: give tools a role of
    their own. Raises: DeclarationError.
    """

    url: str = field(repr=False)
    _: KW_ONLY
    rows: int = MOST_ROWS
    seconds: float = 5.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("sqlite:///", *_SCHEMES)):
            raise DeclarationError(
                "SQL takes sqlite:///path/to/file.db or postgresql://user@host/name."
            )
        if not self.url.startswith("sqlite:///") and not there():
            raise DeclarationError("Postgres needs: pip install 'roadworthy[postgres]'.")
        if not 0 < self.rows <= 10_000 or not 0 < self.seconds < float("inf"):
            raise DeclarationError("SQL: rows= is 1 to 10,000, seconds= more than 0.")

    @property
    def driver(self) -> Driver:
        """How it is asked."""
        if self.url.startswith("sqlite:///"):
            return Sqlite(self.url.removeprefix("sqlite:///"))
        return Postgres(self.url.replace("+psycopg", "", 1))

    def bounds(
        self, *, writes: bool = False, free: bool = False, tables: frozenset[str] | None = None
    ) -> Bounds:
        """Of one call."""
        return Bounds(rows=self.rows, seconds=self.seconds, writes=writes, free=free, tables=tables)


def shown(found: Rows) -> dict[str, object]:
    """A result as the model gets it."""
    if found.changed is not None and not found.columns:
        return {"changed": found.changed}
    result: dict[str, object] = {
        "columns": list(found.columns),
        "rows": [[_plain(value) for value in row] for row in found.rows],
    }
    if found.more:
        result["cut"] = f"only the first {len(found.rows)} rows; narrow it down, or count"
    return result


def _plain(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value):,} bytes]"
    return value
