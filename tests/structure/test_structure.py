"""Holds the shape that lint and the import contracts cannot: lengths, docstrings, cycles, names."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

from tests.structure import tree

FILE_LINES = 500
FUNCTION_LINES = 60
LOOP_LINES = 120

# Written so that no pattern matches its own source.
PLACES = {
    "a machine path": re.compile(r"(?<![\w.~*-])/(?:work|root|tmp/bash\w*)/"),
    "a registry host": re.compile(
        r"pypi\.org|pythonhosted\.org|registry\.npmjs|deb\.debian\.org|proxy\.golang\.org|crates\.io"
    ),
}


def test_no_python_file_is_longer_than_500_lines() -> None:
    lengths = {name: len(tree.source(name).splitlines()) for name in tree.modules()}
    assert not {str(name): n for name, n in lengths.items() if n > FILE_LINES}


def test_no_function_is_longer_than_60_lines() -> None:
    long = {
        f"{name}:{node.lineno} {node.name}": length
        for name in tree.modules()
        for node in functions(tree.parsed(name))
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    }
    assert not long


def test_the_loop_fits_a_screen() -> None:
    loop = Path("src/roadworthy/loop.py")
    if loop in tree.files():
        assert len(tree.source(loop).splitlines()) <= LOOP_LINES


def test_every_module_says_what_it_is() -> None:
    silent = [str(m) for m in tree.modules() if not ast.get_docstring(tree.parsed(m))]
    assert not silent


def test_no_module_imports_itself_through_others() -> None:
    """`acyclic_siblings` does not see a parent and its child; imports for types only count too."""
    graph = grimp.build_graph("roadworthy", cache_dir=None)
    edges = {m: graph.find_modules_directly_imported_by(m) for m in graph.modules}
    TopologicalSorter(edges).prepare()


def test_no_module_imports_from_the_root() -> None:
    """The root only re-exports: a module that imports from it would import everything."""
    graph = grimp.build_graph("roadworthy", cache_dir=None)
    assert not graph.find_modules_that_directly_import("roadworthy")


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = [
        f"{name}:{number} names {what}: {line.strip()[:80]}"
        for name in tree.files()
        for number, line in enumerate(text_lines(name), start=1)
        for what, pattern in PLACES.items()
        if pattern.search(line)
    ]
    assert not found


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def text_lines(name: Path) -> list[str]:
    content = (tree.ROOT / name).read_bytes()
    return [] if b"\0" in content else content.decode("utf-8", errors="replace").splitlines()
