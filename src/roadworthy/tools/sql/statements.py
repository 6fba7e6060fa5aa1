"""Reads SQL as far as safety needs: comments, quotes, parameters, and where a statement ends.

Used when tools are declared and when a model wrote the SQL. Invariant: what this file takes for one
statement, the server takes for one; the servers' own refusals stand behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from roadworthy.errors import ToolError

Dialect = Literal["sqlite", "postgres"]
Kind = Literal["space", "quoted", "word", "parameter", "end", "other"]
MOST_SQL = 20_000

_SPACE = " \t\n\r\f\v"
_WORD = re.compile(r"[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*")  # as both servers see it
_LINE_END = {"sqlite": re.compile(r"\n"), "postgres": re.compile(r"[\n\r]")}
_DOLLAR = re.compile(r"\$([A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$")
_PIECES: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("end", re.compile(";")),
    ("word", _WORD),
    ("other", re.compile("::")),
    ("parameter", re.compile(r":[A-Za-z_][A-Za-z0-9_]*")),
)
_QUOTES = {"sqlite": {"'": "'", '"': '"', "`": "`", "[": "]"}, "postgres": {"'": "'", '"': '"'}}
_READS = frozenset({"SELECT", "WITH", "VALUES"})


class Token(NamedTuple):
    """A piece of a statement, as it is written."""

    kind: Kind
    text: str


def tokens(sql: str, dialect: Dialect) -> Iterator[Token]:
    """The pieces of a text; together they are the text. Raises: ToolError: something is not
    closed."""
    at, escapes = 0, False
    while at < len(sql):
        token = _next(sql, at, dialect, escapes=escapes)
        yield token
        at += len(token.text)
        # E'..' takes backslashes, and so do the quotes that continue it on the next line
        if token.kind != "space" and not (escapes and token.kind == "quoted"):
            escapes = dialect == "postgres" and token.kind == "word" and token.text in "Ee"


def _next(sql: str, at: int, dialect: Dialect, *, escapes: bool) -> Token:
    end = _space_end(sql, at, dialect)
    if end is not None:
        return Token("space", sql[at:end])
    end = _quoted_end(sql, at, dialect, escapes=escapes)
    if end is not None:
        return Token("quoted", sql[at:end])
    for kind, pattern in _PIECES:
        if (found := pattern.match(sql, at)) is not None:
            return Token(kind, found[0])
    return Token("other", sql[at])


def _space_end(sql: str, at: int, dialect: Dialect) -> int | None:
    if sql[at] in _SPACE:
        return at + 1
    if sql.startswith("--", at):
        ends = _LINE_END[dialect].search(sql, at)
        return ends.start() if ends else len(sql)
    return _comment_end(sql, at, dialect) if sql.startswith("/*", at) else None


def _quoted_end(sql: str, at: int, dialect: Dialect, *, escapes: bool) -> int | None:
    sign = sql[at]
    if sign in _QUOTES[dialect]:
        return _quote_end(sql, at, _QUOTES[dialect][sign], escaped=escapes and sign == "'")
    if dialect == "postgres" and (found := _DOLLAR.match(sql, at)):
        return _after(sql, found[0], found.end())
    return None


def _comment_end(sql: str, at: int, dialect: Dialect) -> int:
    if dialect == "sqlite":  # where comments do not nest
        end = sql.find("*/", at + 2)
        if end < 0:
            raise ToolError("A comment is not closed with */.")
        return end + 2
    depth = 0
    for found in re.compile(r"/\*|\*/").finditer(sql, at):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    raise ToolError("A comment is not closed with */.")


def _quote_end(sql: str, at: int, quote: str, *, escaped: bool) -> int:
    end = at + 1
    while end < len(sql):
        if escaped and sql[end] == "\\":
            end += 2
        elif sql[end] != quote:
            end += 1
        elif quote != "]" and sql.startswith(quote, end + 1):
            end += 2
        else:
            return end + 1
    raise ToolError(f"A quote {quote} is not closed.")


def _after(sql: str, sought: str, start: int) -> int:
    end = sql.find(sought, start)
    if end < 0:
        raise ToolError(f"The quote {sought} is not closed.")
    return end + len(sought)


class Statement(NamedTuple):
    """One statement, without what ends it. first: its first word, in capitals."""

    pieces: tuple[Token, ...]
    first: str
    parameters: frozenset[str]

    @property
    def reads(self) -> bool:
        """Whether it looks like a query; the database has the last word."""
        return self.first in _READS

    def text(self) -> str:
        """As written; parameters as `:name`."""
        return "".join(piece.text for piece in self.pieces)

    def for_psycopg(self) -> str:
        """With parameters as that driver wants them."""
        return "".join(
            f"%({piece.text[1:]})s" if piece.kind == "parameter" else piece.text.replace("%", "%%")
            for piece in self.pieces
        )


def one(sql: str, dialect: Dialect) -> Statement:
    """The one statement of a text. Raises: ToolError: none, several, or not readable."""
    if len(sql) > MOST_SQL:
        raise ToolError(f"The SQL is {len(sql):,} characters long; at most {MOST_SQL:,}.")
    if re.search(r"[\x00-\x08\x0e-\x1f]", sql):
        raise ToolError("The SQL holds control characters.")
    pieces: list[Token] = []
    ended = False
    for token in tokens(sql, dialect):
        if token.kind == "end":
            ended = True
        elif ended and token.kind != "space":
            raise ToolError("Only one statement a call; it ends at the first semicolon.")
        elif not ended:
            pieces.append(token)
    said = [piece for piece in pieces if piece.kind != "space" and piece.text != "("]
    if not said:
        raise ToolError("There is no statement.")
    parameters = frozenset(piece.text[1:] for piece in pieces if piece.kind == "parameter")
    return Statement(tuple(pieces), said[0].text.upper(), parameters)
