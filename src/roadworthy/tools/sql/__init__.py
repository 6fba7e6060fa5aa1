"""SQL as tools: `sql_tool` is one fixed statement, `SqlTables` lets a model write SELECTs.

Needs the extra `sql`, and `postgres` for Postgres. Invariant: one statement a call, with bound
parameters, read-only unless the declaration says otherwise, and never without an end.
"""

from roadworthy.tools.sql.database import SQL
from roadworthy.tools.sql.declare import sql_tool
from roadworthy.tools.sql.tables import SqlTables

__all__ = ["SQL", "SqlTables", "sql_tool"]
