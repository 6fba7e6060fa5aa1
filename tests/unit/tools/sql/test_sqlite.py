"""SQL tools on SQLite: what they give, and what they are attacked with."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from roadworthy import DeclarationError, NotApplied, RunContext, ToolError, User
from roadworthy.errors import ConfigurationError
from roadworthy.tools.sql import SQL, SqlTables, sql_tool

TEXT = {"type": "string"}


def run(key: str = "k") -> RunContext[None]:
    return RunContext(run_id="r", user=User("ana"), deps=None, key=key)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as made:
        made.executescript(
            """
            CREATE TABLE orders (id TEXT PRIMARY KEY, customer TEXT, total REAL, photo BLOB);
            INSERT INTO orders VALUES ('A-1', 'ana', 10.5, x'00'), ('A-2', 'ana', 20, NULL),
                                      ('B-1', 'ben', 30, NULL);
            CREATE TABLE secret (word TEXT);
            INSERT INTO secret VALUES ('xyzzy');
            CREATE VIEW words AS SELECT word FROM secret;
            CREATE VIRTUAL TABLE notes USING fts5(text);
            INSERT INTO notes VALUES ('hello world');
            """
        )
    made.close()
    return path


@pytest.fixture
def db(file: Path) -> SQL:
    return SQL(f"sqlite:///{file}", rows=2, seconds=0.5)


async def query(db: SQL, sql: str, *tables: str) -> Any:  # noqa: ANN401 - JSON
    toolset = SqlTables("shop", db, tables=tables or None)
    async with toolset.open(run()) as (tool,):
        return tool.function(sql=sql)


def test_a_fixed_statement_binds_what_the_model_says_and_what_the_run_knows(db: SQL) -> None:
    orders = sql_tool(
        "orders",
        "Orders of the customer.",
        "SELECT id, total, photo FROM orders WHERE customer = :who AND id LIKE :like ORDER BY id",
        db,
        {"like": TEXT},
        bind={"who": lambda run: run.user.id},
    )
    assert "who" not in orders.parameters["properties"]
    found: Any = orders.function(run(), like="A%")
    assert found == {
        "columns": ["id", "total", "photo"],
        "rows": [["A-1", 10.5, "[1 bytes]"], ["A-2", 20.0, None]],
    }
    found = orders.function(run(), like="' OR 1=1; DROP TABLE orders; --")
    assert found["rows"] == []


async def test_rows_are_cut_and_it_is_said(db: SQL) -> None:
    found = await query(db, "SELECT id FROM orders ORDER BY id")
    assert found["rows"] == [["A-1"], ["A-2"]]
    assert "first 2 rows" in found["cut"]
    assert "cut" not in await query(db, "SELECT id FROM orders LIMIT 2")


async def test_the_model_sees_tables_and_columns(db: SQL) -> None:
    async with SqlTables("shop", db, tables=["Orders"]).open(run()) as (tool,):
        assert (tool.name, tool.effect) == ("shop_query", "read")
        assert "orders(id TEXT, customer TEXT, total REAL, photo BLOB)" in tool.description
        assert "secret" not in tool.description
    with pytest.raises(ConfigurationError, match="no table nothing"):
        async with SqlTables("shop", db, tables=["nothing"]).open(run()):
            pass


def _state(file: Path) -> tuple[bytes, list[Path]]:
    return file.read_bytes(), sorted(file.parent.iterdir())


ATTACKS = (
    "DELETE FROM orders",
    "INSERT INTO orders VALUES ('x', 'x', 1, NULL)",
    "WITH x AS (SELECT 1) DELETE FROM orders",
    "WITH x AS (SELECT 1) INSERT INTO orders SELECT 'x', 'x', 1, NULL",
    "WITH x AS (SELECT 1) UPDATE orders SET total = 0",
    "REPLACE INTO orders VALUES ('x', 'x', 1, NULL)",
    "DROP TABLE orders",
    "CREATE TABLE x (a)",
    "CREATE TEMP TABLE x (a)",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM pragma_table_info('orders')",
    "ATTACH 'x.db' AS x",
    "DETACH main",
    "VACUUM INTO 'x.db'",
    "BEGIN",
    "EXPLAIN SELECT 1",
    "SELECT load_extension('x.so')",
    "SELECT writefile('x', 'y')",
    "SELECT fts3_tokenizer('simple', x'00')",
    "SELECT 1; DELETE FROM orders",
    "SELECT 1 -- ;\n; DELETE FROM orders",
    "SELECT randomblob(1000000000)",
    "SELECT replace(hex(zeroblob(4000000)), '0', 'xxxxxxxxxx')",
    "WITH x AS (SELECT 1) UPDATE sqlite_master SET sql = 'x'",
    "SELECT :a",
    "SELECT ?1",
    "SELECT $a",
    "SELECT nothing FROM nowhere",
    "SELEKT 1",
)


@pytest.mark.requirement("TOL-7", "TOL-2")
@pytest.mark.parametrize("sql", ATTACKS)
async def test_a_query_is_a_query(
    db: SQL, file: Path, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    before = _state(file)
    with pytest.raises(ToolError):
        await query(db, sql)
    assert _state(file) == before


@pytest.mark.requirement("TOL-7")
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT word FROM secret",
        "SELECT count(*) FROM secret",
        "SELECT 1 FROM secret",
        "SELECT id FROM orders WHERE EXISTS (SELECT 1 FROM secret)",
        "WITH orders AS (SELECT word FROM secret) SELECT * FROM orders",
        "WITH orders AS (SELECT word FROM secret) SELECT count(*) FROM orders",
        "SELECT * FROM (SELECT word FROM secret) AS orders",
        "SELECT id FROM orders UNION SELECT word FROM secret",
        "SELECT id FROM orders ORDER BY (SELECT word FROM secret)",
        "SELECT * FROM orders NATURAL JOIN main.secret",
        "SELECT * FROM words",
        "WITH orders AS (SELECT * FROM words) SELECT * FROM orders",
        "SELECT sql FROM sqlite_master",
        "SELECT count(*) FROM sqlite_schema",
        "SELECT * FROM dbstat",
        "SELECT data FROM sqlite_dbpage",
    ],
)
async def test_tables_that_are_not_named_are_not_read(db: SQL, sql: str) -> None:
    with pytest.raises(ToolError):
        await query(db, sql, "orders")


@pytest.mark.parametrize(
    ("sql", "first"),
    [
        ("SELECT count(*) FROM orders", 3),
        ("WITH big AS (SELECT * FROM orders WHERE total > 15) SELECT count(*) FROM big", 2),
        (
            "WITH big AS (SELECT * FROM orders) SELECT o.id FROM big b JOIN orders o USING (id)",
            "A-1",
        ),
        ("SELECT max(total) OVER () FROM orders", 30.0),
        ("SELECT value FROM json_each('[7]')", 7),
        ("VALUES (1)", 1),
        ("SELECT text FROM notes WHERE notes MATCH 'hello'", "hello world"),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) "
            "SELECT sum(i) FROM n",
            45,
        ),
        ("SELECT date('2026-11-21', '+1 day')", "2026-11-22"),
    ],
)
async def test_what_is_allowed_is_not_refused(db: SQL, sql: str, first: object) -> None:
    found = await query(db, sql, "orders", "notes")
    assert found["rows"][0][0] == first


@pytest.mark.requirement("TOL-3")
@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n WHERE i > 1",
    ],
)
async def test_what_has_no_end_is_stopped(db: SQL, sql: str) -> None:
    with pytest.raises(ToolError, match=r"took over 0\.5 s"):
        await query(db, sql)


async def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    db = SQL(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(NotApplied):
        await query(db, "SELECT 1")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.requirement("TOL-4")
def test_an_effect_is_one_transaction(db: SQL, file: Path) -> None:
    pay = sql_tool(
        "pay",
        "Set what an order costs.",
        "INSERT INTO orders VALUES (:id, :key, :total, NULL)",
        db,
        {"id": TEXT, "total": {"type": "number"}},
        bind={"key": lambda run: run.key},
        effect="irreversible",
    )
    assert pay.function(run("k-9"), id="C-1", total=5) == {"changed": 1}
    with pytest.raises(ToolError, match="UNIQUE"):
        pay.function(run("k-9"), id="C-1", total=5)
    lock = sqlite3.connect(file, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    with pytest.raises(NotApplied, match="busy"):
        pay.function(run("k-10"), id="C-2", total=5)
    lock.execute("ROLLBACK")
    assert lock.execute("SELECT customer FROM orders WHERE id LIKE 'C%'").fetchall() == [("k-9",)]
    lock.close()


@pytest.mark.parametrize("value", [2**70, "\ud800", "x" * 9_000_000])
def test_values_that_do_not_fit_are_told(db: SQL, value: object) -> None:
    tool = sql_tool("a", "B.", "SELECT :v", db, {"v": {}})
    with pytest.raises(ToolError):
        tool.function(run(), v=value)


@pytest.mark.parametrize(
    ("sql", "options"),
    [
        ("DELETE FROM orders", {}),
        ("SELECT 1; SELECT 2", {}),
        ("SELECT :a", {}),
        ("SELECT 1", {"parameters": {"a": TEXT}}),
        ("SELECT :a", {"parameters": {"a": TEXT}, "bind": {"a": lambda run: 1}}),
        ("SELECT 'open", {}),
    ],
)
def test_wrong_declarations_fail_at_once(db: SQL, sql: str, options: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError):
        sql_tool("a", "B.", sql, db, **options)
    with pytest.raises(DeclarationError):
        SQL("mysql://x/y")
