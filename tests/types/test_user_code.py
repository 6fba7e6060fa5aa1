"""User code infers the right types and mistakes are found, by mypy and by pyright."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
CODE = ("user_code.py", "mistakes.py")


@pytest.mark.timeout(300)
def test_mypy_strict_agrees(tmp_path: Path) -> None:
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = true\nmypy_path = {SOURCE}\n", encoding="utf-8")
    done = subprocess.run(  # noqa: S603 - the checker of this environment on files of ours
        [
            sys.executable, "-m", "mypy", "--config-file", str(config),
            "--cache-dir", str(tmp_path / "cache"), *(str(HERE / name) for name in CODE),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_pyright_strict_agrees(tmp_path: Path) -> None:
    for name in CODE:
        (tmp_path / name).write_text((HERE / name).read_text(encoding="utf-8"), encoding="utf-8")
    config = {
        "typeCheckingMode": "strict",
        "enableTypeIgnoreComments": True,
        "reportUnnecessaryTypeIgnoreComment": "error",
        "extraPaths": [str(SOURCE)],
        "pythonVersion": "3.11",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    done = subprocess.run(  # noqa: S603 - as above
        [
            sys.executable, "-m", "pyright", "--project", str(tmp_path),
            "--pythonpath", sys.executable,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
