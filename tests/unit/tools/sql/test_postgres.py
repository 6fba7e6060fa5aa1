"""SQL tools on a real Postgres, asked by a role of their own and attacked by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from roadworthy import NotApplied, RunContext, ToolError, User
from roadworthy.errors import ConfigurationError
from roadworthy.tools.sql import SQL, SqlTables, sql_tool
from tests.postgres import Server

pytestmark = pytest.mark.sqlite_only


def run(key: str = "k") -> RunContext[None]:
    return RunContext(run_id="r", user=User("ana"), deps=None, key=key)


@pytest.fixture
def owner(postgres: Server) -> Iterator[str]:
    url = postgres.empty()
    with psycopg.connect(url, autocommit=True) as made:
        made.execute("DROP ROLE IF EXISTS reader")
        made.execute("CREATE ROLE reader LOGIN")
        made.execute("CREATE TABLE orders (id text PRIMARY KEY, total numeric, facts jsonb)")
        made.execute("CREATE TABLE secret (word text)")
        made.execute("CREATE SEQUENCE numbers")
        made.execute(
            "INSERT INTO orders SELECT 'A-' || n, n + 0.10, '{\"a\": 1}' FROM "
            "generate_series(1, 9) n"
        )
        made.execute("GRANT SELECT ON orders TO reader")
        made.execute("GRANT INSERT, UPDATE, DELETE ON orders TO reader")
        made.execute("GRANT USAGE ON SEQUENCE numbers TO reader")
    yield url
    with psycopg.connect(url, autocommit=True) as made:
        made.execute("DROP OWNED BY reader")
        made.execute("DROP ROLE reader")


@pytest.fixture
def db(owner: str) -> SQL:
    """As the role that may also write: read-only is what the tool makes it."""
    return SQL(as_role(owner, "reader"), rows=2, seconds=1)


def as_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}@{place}"))


async def query(db: SQL, sql: str, *tables: str) -> Any:  # noqa: ANN401 - JSON
    async with SqlTables("shop", db, tables=tables or None).open(run()) as (tool,):
        return tool.function(sql=sql)


async def test_a_select_gives_rows_and_says_when_there_are_more(db: SQL) -> None:
    found = await query(db, "SELECT id, total, facts FROM orders ORDER BY id; -- all", "orders")
    assert [str(value) for value in found["rows"][0]] == ["A-1", "1.10", "{'a': 1}"]
    assert "first 2 rows" in found["cut"]
    assert (await query(db, "WITH a AS (SELECT 7 AS x) SELECT x FROM a"))["rows"] == [[7]]
    assert (await query(db, "VALUES (1), (2)"))["columns"] == ["column1"]
    assert (await query(db, "SELECT '100%', 'a:b', $$;$$"))["rows"] == [["100%", "a:b", ";"]]


async def test_the_model_sees_what_the_role_may_read(db: SQL) -> None:
    async with SqlTables("shop", db).open(run()) as (tool,):
        assert "orders(id text, total numeric, facts jsonb)" in tool.description
        assert "secret" not in tool.description


async def test_privileges_that_go_further_than_tables_are_refused(db: SQL, owner: str) -> None:
    with psycopg.connect(owner, autocommit=True) as made:
        made.execute("GRANT SELECT ON secret TO reader")
    with pytest.raises(ConfigurationError, match="may also read secret"):
        await query(db, "SELECT 1", "orders")


async def test_a_superuser_is_refused_for_free_queries(owner: str) -> None:
    with pytest.raises(ConfigurationError, match="superuser"):
        await query(SQL(owner), "SELECT 1")


ATTACKS = (
    "DELETE FROM orders",
    "WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x",
    "WITH x AS (INSERT INTO orders VALUES ('x') RETURNING *) SELECT * FROM x",
    "SELECT 1; DELETE FROM orders",
    "SELECT 1; COMMIT; DELETE FROM orders",
    "SELECT 1 -- \r; DELETE FROM orders",
    "SELECT * INTO copied FROM orders",
    "SELECT * FROM orders FOR UPDATE",
    "SELECT nextval('numbers')",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SET TRANSACTION READ WRITE",
    "COMMIT",
    "COPY orders TO PROGRAM 'touch /tmp/x'",
    "COPY orders TO STDOUT",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT query_to_xml('DELETE FROM orders', true, true, '')",
    "SELECT set_config('role', 'postgres', false), query_to_xml('TABLE secret', true, true, '')",
    "SELECT * FROM secret",
    "DO $$ BEGIN DELETE FROM orders; END $$",
    "EXPLAIN ANALYZE DELETE FROM orders",
    "CALL x()",
    "LISTEN a",
    "SELECT $1",
    "SELECT * FROM nowhere",
)


@pytest.mark.requirement("TOL-7", "TOL-2")
async def test_a_query_is_a_query(db: SQL, owner: str) -> None:
    for sql in ATTACKS:
        with pytest.raises(ToolError):
            await query(db, sql)
    with psycopg.connect(owner) as look:
        assert look.execute("SELECT count(*) FROM orders").fetchone() == (9,)
        assert look.execute("SELECT last_value, is_called FROM numbers").fetchone() == (1, False)


@pytest.mark.requirement("TOL-2")
async def test_the_driver_itself_takes_one_statement(db: SQL) -> None:
    """Behind the reader of statements: what it would let through is refused by the server."""
    from roadworthy.tools.sql.statements import Statement, Token  # noqa: PLC0415

    smuggled = Statement((Token("other", "SELECT 1; DELETE FROM orders"),), "SELECT", frozenset())
    for writes in (False, True):
        with pytest.raises(ToolError, match="multiple commands"):
            db.driver.ask(smuggled, {}, db.bounds(writes=writes))


@pytest.mark.requirement("TOL-3")
@pytest.mark.parametrize(
    "sql", ["SELECT pg_sleep(60)", "SELECT count(*) FROM generate_series(1, 1e12::bigint)"]
)
async def test_what_takes_too_long_is_stopped(db: SQL, sql: str) -> None:
    with pytest.raises(ToolError, match="took over 1 s"):
        await query(db, sql)


@pytest.mark.requirement("TOL-4")
def test_fixed_statements_bind_and_effects_commit_once(db: SQL, owner: str) -> None:
    add = sql_tool(
        "add",
        "Add an order.",
        "INSERT INTO orders (id, total) VALUES (:id || '%', :total) RETURNING id",
        db,
        {"id": {"type": "string"}, "total": {"type": "integer"}},
        effect="irreversible",
    )
    found: Any = add.function(run(), id="x'); DROP TABLE orders; --", total=3)
    assert [list(row) for row in found["rows"]] == [["x'); DROP TABLE orders; --%"]]
    with pytest.raises(ToolError, match="duplicate key"):
        add.function(run(), id="x'); DROP TABLE orders; --", total=3)
    read = sql_tool("one", "One order.", "SELECT total FROM orders WHERE id = :id", db, {"id": {}})
    got: Any = read.function(run(), id="A-1")
    assert str(got["rows"][0][0]) == "1.10"
    with pytest.raises(ToolError):
        read.function(run(), id="\0")
    with psycopg.connect(owner) as look:
        assert look.execute("SELECT count(*) FROM orders").fetchone() == (10,)


def test_a_server_that_is_not_there_was_asked_nothing() -> None:
    tool = sql_tool("a", "B.", "SELECT 1", SQL("postgresql://nobody@127.0.0.1:1/none"))
    with pytest.raises(NotApplied):
        tool.function(run())
