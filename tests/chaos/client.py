"""The tests' side of the fork server: one request, one answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.structure.tree import ROOT


class Server:
    """The fork server, spoken to over pipes."""

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 -- this project's own module
            [sys.executable, "-m", "tests.chaos.server", module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def step(self, folder: Path, **more: float | None) -> dict[str, Any]:
        """One child on this folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"folder": str(folder), **more}), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
