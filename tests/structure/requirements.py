"""Reads docs/requirements.toml and the `requirement` markers; run, writes the one from the other.

The markers on the tests are the source; the list beside each requirement is for its reader.
`make requirements` runs this file; test_requirements.py holds the two equal.
"""

import ast
import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.structure import tree

PAGE = tree.ROOT / "docs" / "requirements.toml"
MARKER = "pytest.mark.requirement"
LIST = re.compile(r"^tests = \[(?:\]|$(?s:.*?)^\])\n", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One requirement as the page states it."""

    text: str
    parts: frozenset[int]
    tests: tuple[str, ...]


def delivered() -> frozenset[int]:
    """The parts of the work that are done."""
    return frozenset(tomllib.loads(PAGE.read_text(encoding="utf-8"))["delivered"])


def stated() -> Mapping[str, Requirement]:
    """Every requirement of the page, by id."""
    page = tomllib.loads(PAGE.read_text(encoding="utf-8"))
    return {
        id_: Requirement(text=r["text"], parts=frozenset(r["parts"]), tests=tuple(r["tests"]))
        for id_, r in page["requirements"].items()
    }


def marked() -> Mapping[str, list[str]]:
    """The tests that carry each requirement id, as pytest names them, sorted."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name in tree.tests():
        for test, ids in marks(name):
            for id_ in ids:
                found[id_].add(test)
    return {id_: sorted(tests) for id_, tests in found.items()}


def existing() -> frozenset[str]:
    """Every test there is, as pytest names it without its parameters."""
    return frozenset(test for name in tree.tests() for test, _ in marks(name))


def marks(name: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each test of a file with its requirement ids; those on its class or file count for it too."""
    module = tree.parsed(name)
    of_file = ids_in(
        [n.value for n in module.body if isinstance(n, ast.Assign) and is_pytestmark(n)]
    )
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            of_class = of_file + ids_in(node.decorator_list)
            yield from tests_in(node.body, f"{name.as_posix()}::{node.name}", of_class)
    yield from tests_in(module.body, name.as_posix(), of_file)


def tests_in(
    body: list[ast.stmt], prefix: str, inherited: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The test functions among the statements of a file or a class."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
            "test"
        ):
            yield f"{prefix}::{node.name}", inherited + ids_in(node.decorator_list)


def is_pytestmark(node: ast.Assign) -> bool:
    """Whether a statement marks the whole file."""
    return ast.unparse(node.targets[0]) == "pytestmark"


def ids_in(marks: list[ast.expr]) -> tuple[str, ...]:
    """The ids that `requirement` markers among these expressions name."""
    calls = (c for mark in marks for c in ast.walk(mark) if isinstance(c, ast.Call))
    arguments = [call.args for call in calls if ast.unparse(call.func) == MARKER]
    return tuple(ast.literal_eval(argument) for args in arguments for argument in args)


def write() -> None:
    """Put the tests that carry a requirement's marker beside it on the page."""
    text = PAGE.read_text(encoding="utf-8")
    found = marked()
    for id_ in stated():
        listed = "".join(f"\n  {json.dumps(test)}," for test in found.get(id_, []))
        line = f"tests = [{listed}\n]\n" if listed else "tests = []\n"
        head, entry = text.split(f"[requirements.{id_}]\n")
        text = f"{head}[requirements.{id_}]\n{LIST.sub(line, entry, count=1)}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
