"""`sql_tool`: one statement, written by the deployer, as a tool.

Invariant: what a model says is bound as a value, never part of the statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from roadworthy.agent import Effect, Tool
from roadworthy.context import RunContext
from roadworthy.errors import DeclarationError, ToolError
from roadworthy.messages import JsonObject
from roadworthy.spelling import spelled
from roadworthy.tools.declare import Approval, tool_from_schema
from roadworthy.tools.sources import of_database
from roadworthy.tools.sql.database import SQL, shown
from roadworthy.tools.sql.statements import Statement, one

Bind = Mapping[str, Callable[[RunContext[Any]], object]]


@spelled
def sql_tool(  # noqa: PLR0913 - a declaration
    name: str,
    description: str,
    statement: str,
    database: SQL,
    parameters: JsonObject | None = None,
    *,
    bind: Bind | None = None,
    effect: Effect = "read",
    approval: Approval | None = None,
    timeout: float | None = None,
) -> Tool[Any]:
    """A statement with `:parameters` as a tool: `sql_tool("orders", "A customer's orders.",
    "SELECT id, total FROM orders WHERE customer = :who AND status = :status", db,
    {"status": {"type": "string"}}, bind={"who": lambda run: run.user.id})`.

    parameters: JSON schemas by name (all are required), or the schema of an object; what is left
    out is bound to NULL. bind: values that the run decides and the model never sees. effect: what
    changes something needs "write" (repeating does no harm: bind run.key) or "irreversible"; it is
    one transaction. approval, timeout: as `@tool`. Raises: DeclarationError.
    """
    bound = dict(bind or {})
    try:
        read = one(statement, database.driver.dialect)
    except ToolError as error:
        raise DeclarationError(f"Tool {name!r}: {error}") from error
    if effect == "read" and not read.reads:
        raise DeclarationError(
            f'Tool {name!r}: {read.first} is no query; say effect="write" or "irreversible".'
        )
    schema = _schema(name, read, parameters or {}, bound)
    bounds = database.bounds(writes=effect != "read")

    def call(run: RunContext[Any], /, **given: object) -> object:
        values = {each: given.get(each) for each in read.parameters}
        values |= {each: function(run) for each, function in bound.items()}
        return shown(database.driver.ask(read, values, bounds))

    return tool_from_schema(
        name,
        description,
        schema,
        call,
        effect=effect,
        approval=approval,
        timeout=timeout,
        source=of_database(database.url),
    )


def _schema(name: str, read: Statement, parameters: JsonObject, bound: Bind) -> JsonObject:
    """Of the arguments; they and those bound are exactly what the statement has."""
    schema = parameters
    if not isinstance(parameters.get("properties"), Mapping) and parameters.get("type") != "object":
        schema = {
            "type": "object",
            "properties": dict(parameters),
            "required": list(parameters),
        }
    known = set(schema.get("properties", {}))
    if twice := sorted(known & set(bound)):
        raise DeclarationError(f"Tool {name!r}: {', '.join(twice)} is in parameters= and bind=.")
    if odd := sorted((known | set(bound)) ^ read.parameters):
        raise DeclarationError(
            f"Tool {name!r}: the statement and parameters= with bind= differ in {', '.join(odd)}."
        )
    return schema
