"""The repository as the structural tests read it: its root, its files, its parsed modules."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("src", "tests", "examples", "bench")


@cache
def files() -> tuple[Path, ...]:
    """Every file that is tracked, or would be after `git add`; relative to the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout  # noqa: S603 -- no input in it
    names = {Path(name) for name in listed.decode().split("\0") if name}
    return tuple(sorted(name for name in names if (ROOT / name).is_file()))


def modules() -> list[Path]:
    """Every Python file of ours, relative to the root."""
    return [name for name in files() if name.suffix == ".py" and name.parts[0] in CODE]


def tests() -> list[Path]:
    """Every file that pytest collects, relative to the root."""
    return [m for m in modules() if m.parts[0] == "tests" and m.name.startswith("test_")]


@cache
def source(name: Path) -> str:
    """The text of one file."""
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def parsed(name: Path) -> ast.Module:
    """The syntax tree of one Python file."""
    return ast.parse(source(name), filename=str(name))
