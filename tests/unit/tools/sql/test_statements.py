"""One statement, its parameters, and texts made to look like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy import ToolError
from roadworthy.tools.sql.statements import Dialect, one, tokens

BOTH: tuple[Dialect, ...] = ("sqlite", "postgres")
MARKS = [
    "'",
    '"',
    "`",
    "[",
    "]",
    "$$",
    "$a$",
    "--",
    "/*",
    "*/",
    "\n",
    "\r",
    ";",
    ":x",
    "::",
    "E'",
    "\\",
]


@pytest.mark.parametrize("dialect", BOTH)
@given(text=st.lists(st.sampled_from(MARKS) | st.text(max_size=3)).map("".join))
def test_the_pieces_are_the_text(dialect: Dialect, text: str) -> None:
    try:
        pieces = list(tokens(text, dialect))
    except ToolError:
        return
    assert "".join(piece.text for piece in pieces) == text
    assert all(piece.text for piece in pieces)


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT 1;",
        " SELECT 1 ; -- done; really",
        "SELECT ';' AS \"a;b\" /* ; */",
        "-- ;\nSELECT 1 /* -- */ ;",
        "(SELECT 1) UNION SELECT 2",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "SELECT 'it''s; fine'",
    ],
)
def test_one_statement_is_one(dialect: Dialect, sql: str) -> None:
    assert one(sql, dialect).reads


@pytest.mark.requirement("TOL-2")
@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    "sql",
    [
        "",
        ";",
        "-- nothing",
        "SELECT 1; DROP TABLE a",
        "SELECT 1;;SELECT 2",
        "SELECT 1 /* */; /* */ DELETE FROM a",
        "SELECT ''';'; DROP TABLE a",
        "SELECT 1 -- \n; DROP TABLE a",
        "SELECT 'open",
        "SELECT /* open",
        "SELECT \0",
        "SELECT 1" + " " * 30_000,
    ],
)
def test_none_and_several_are_refused(dialect: Dialect, sql: str) -> None:
    with pytest.raises(ToolError):
        one(sql, dialect)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 -- \r; DROP TABLE a",
        "SELECT E'\\'; DROP TABLE a; --' ; DROP TABLE a",
        "SELECT E'a'\n'\\''; DROP TABLE a --'",
        "SELECT $a$ $b$ $a$; DROP TABLE a",
        "SELECT \u20ac$x$; DROP TABLE a; SELECT \u20ac$x$",
        "SELECT /* /* */ 1; */ 1; DROP TABLE a",
        "SELECT 1::text; DROP TABLE a",
    ],
)
def test_several_are_several_as_postgres_reads_them(sql: str) -> None:
    with pytest.raises(ToolError, match="one statement"):
        one(sql, "postgres")


def test_what_postgres_quotes_is_no_second_statement() -> None:
    assert one("SELECT $$;$$, $q$ ' ; $q$, E'\\';'", "postgres").reads
    assert one("SELECT /* /* ; */ ; */ 1", "postgres").reads


def test_parameters_are_found_where_they_are_ones() -> None:
    sql = "SELECT :a, ':b', b::int, \"c:d\" /* :e */ FROM t WHERE x LIKE '%' AND y = :f_1"
    assert one(sql, "postgres").parameters == {"a", "f_1"}
    assert one(sql.replace("b::int", "b"), "sqlite").parameters == {"a", "f_1"}
    assert "%(f_1)s" in one(sql, "postgres").for_psycopg()
    assert "LIKE '%%'" in one(sql, "postgres").for_psycopg()
