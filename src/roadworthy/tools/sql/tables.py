"""`SqlTables`: a toolset with one tool, a SELECT that the model writes.

Invariant: whatever is written, it is one query, read-only, of the tables it may see, with an end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from roadworthy.agent import Tool, Toolset
from roadworthy.context import RunContext
from roadworthy.errors import ConfigurationError, ToolError
from roadworthy.spelling import spelled
from roadworthy.tools.declare import tool_from_schema
from roadworthy.tools.sources import of_database
from roadworthy.tools.sql.database import SQL, shown
from roadworthy.tools.sql.statements import MOST_SQL, one
from roadworthy.tools.toolset import checked

MOST_SCHEMA = 6_000
"""Characters of the schema that a model is shown."""


@spelled
@dataclass(frozen=True, eq=False)
class SqlTables(Toolset[Any]):
    """A tool `{name}_query` that takes one SELECT; its description shows tables and columns.

    tables: those it may read (None: all). SQLite enforces it, and a view's own tables must be named
    with it; on Postgres it must be what the role of the URL may read, or the toolset does not open.
    about: what the data is, told to the model. timeout: as `@tool`. per, required, seconds: as
    `Toolset` says. The rows answer nobody's permissions but the database's: for data of single
    users use `sql_tool` with bind=. Raises: DeclarationError.
    """

    name: str
    database: SQL
    _: KW_ONLY
    tables: Sequence[str] | None = None
    about: str = ""
    timeout: float | None = None
    per: Literal["process", "run"] = "process"
    required: bool = False
    seconds: float = 30.0
    only: frozenset[str] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        checked(self)
        only = None if self.tables is None else frozenset(each.lower() for each in self.tables)
        object.__setattr__(self, "only", only)

    @asynccontextmanager
    async def open(self, run: RunContext[None]) -> AsyncIterator[Sequence[Tool[Any]]]:
        """Read the schema. Raises: ConfigurationError: a table is not there."""
        bounds = self.database.bounds(free=True, tables=self.only)
        found = await asyncio.to_thread(self.database.driver.schema, bounds)
        missing = sorted((self.only or frozenset()) - {name.lower() for name in found})
        if missing:
            raise ConfigurationError(
                f"SqlTables {self.name!r}: there is no table {', '.join(missing)} to read."
            )
        yield [self._tool(found)]

    def _tool(self, schema: Mapping[str, Sequence[str]]) -> Tool[Any]:
        driver = self.database.driver
        bounds = self.database.bounds(free=True, tables=self.only)

        def call(sql: str) -> object:
            statement = one(sql, driver.dialect)
            if not statement.reads:
                raise ToolError(f"{statement.first[:20]} is not allowed: write one SELECT.")
            if statement.parameters:
                raise ToolError("There are no parameters here: write the values themselves.")
            return shown(driver.ask(statement, {}, bounds))

        named = {"sqlite": "SQLite", "postgres": "PostgreSQL"}[driver.dialect]
        return tool_from_schema(
            f"{self.name}_query",
            f"Ask a {named} database by one SELECT; at most {self.database.rows} rows come back, "
            f"in {self.database.seconds:g} s. {self.about} Tables: {told(schema)}",
            {
                "type": "object",
                "properties": {
                    "sql": {
                        "type": "string",
                        "description": f"One SELECT in the dialect of {named}.",
                        "maxLength": MOST_SQL,
                    }
                },
                "required": ["sql"],
            },
            call,
            effect="read",
            timeout=self.timeout,
            source=of_database(self.database.url),
        )


def told(schema: Mapping[str, Sequence[str]]) -> str:
    """Tables and columns in few words: `orders(id INTEGER, total REAL)`."""
    lines: list[str] = []
    size = 0
    for name, columns in schema.items():
        line = f"{name}({', '.join(columns)})"
        if size + len(line) > MOST_SCHEMA:
            lines.append(f"and {len(schema) - len(lines)} more")
            break
        lines.append(line)
        size += len(line) + 2
    return "; ".join(lines) or "none"
