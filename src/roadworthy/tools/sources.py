"""What is behind a foreign tool, in few words: its server, program or database.

Breakers and bulkheads go by it (`Tool.identity`), operators read it. Invariant: equal in all
processes, and without anything that opens a door.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from urllib.parse import parse_qsl, urlsplit

_DIGITS = 12
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "postgres": 5432}
_WHICH = ("host", "port", "dbname")  # of a Postgres URL's query; the rest is how, or a secret


def of_url(url: str) -> str:
    """Host and port, and a digest of path and query: some services have a key there."""
    parts = urlsplit(url)
    rest = "?".join(filter(None, (parts.path.strip("/"), parts.query)))
    return f"{_address(url)}{f'#{_digest(rest)}' if rest else ''}"


def of_command(command: Sequence[str], env: Mapping[str, str], cwd: str | None) -> str:
    """The program's name and a digest of how it is called; of `env` the names alone."""
    return f"{PurePath(command[0]).name}#{_digest(*command, *sorted(env), cwd or '')}"


def of_database(url: str) -> str:
    """A SQLite file by its name and a digest of where it is, a Postgres database by its host."""
    if url.startswith("sqlite:"):
        path = url.partition(":///")[2].partition("?")[0]
        return f"{PurePath(path).name}#{_digest(path)}"
    parts = urlsplit(url)
    more = [f"{key}={value}" for key, value in parse_qsl(parts.query) if key in _WHICH]
    return "?".join([f"{_address(url)}{parts.path}", *more])


def _address(url: str) -> str:
    parts = urlsplit(url)
    scheme = parts.scheme.partition("+")[0]
    return f"{parts.hostname or ''}:{parts.port or _PORTS.get(scheme, '')}".removesuffix(":")


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()[:_DIGITS]
