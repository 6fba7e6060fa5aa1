"""`make bench`: measures everything in one run and prints a table; under three minutes.

Contenders take turns round by round, so that a busy machine is busy for all of them. No time is
asserted: the figures are read by people (docs/bench.md) and kept in bench/results as JSON.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
CONTENDERS = ("floor", "layer", "roadworthy")
SCENARIOS = ("alone", "together", "long", "resume")
IMPORTS = {
    "import roadworthy": ["-c", "import roadworthy"],
    "from roadworthy import Runtime, Agent, tool": [
        "-c",
        "from roadworthy import Runtime, Agent, tool",
    ],
    "roadworthy --help": ["-c", "from roadworthy.cli import main; main()", "--help"],
}
ROUNDS, RUNS = 21, 8
LONG_ROUNDS, LONG = 3, 100
Figures = dict[str, Any]


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process of ours that is spoken to in lines, ended with the block."""
    arguments = [sys.executable, "-m", *command]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as child:  # noqa: S603 - ours
        try:
            yield child
        finally:
            if child.stdin is not None and not child.stdin.closed:
                child.stdin.close()


def ask(child: subprocess.Popen[str], runs: int, steps: int) -> Mapping[str, float]:
    """Let a contender do some runs. Raises: SystemExit: it died."""
    assert child.stdin is not None and child.stdout is not None  # noqa: S101, PT018 - pipes
    child.stdin.write(f"{runs} {steps}\n")
    child.stdin.flush()
    line = child.stdout.readline()
    if not line:
        raise SystemExit("A contender died; what it said is above.")
    told: Mapping[str, float] = json.loads(line)
    return told


def over_http() -> Figures:
    """Everybody's runs over real HTTP, short and long, round by round."""
    with ExitStack() as stack:
        provider = stack.enter_context(process("bench.provider"))
        assert provider.stdout is not None  # noqa: S101 - a pipe
        url = f"http://127.0.0.1:{int(provider.stdout.readline())}"
        children = {
            name: stack.enter_context(process("bench.contender", name, url)) for name in CONTENDERS
        }
        short = _rounds(children, ROUNDS, RUNS, 5)
        long = _rounds(children, LONG_ROUNDS, 1, LONG)
    return {"short": short, "long": long, **_compared(short, long)}


def _rounds(
    children: Mapping[str, subprocess.Popen[str]], rounds: int, runs: int, steps: int
) -> Figures:
    for child in children.values():
        ask(child, max(1, runs // 2), steps)  # warm up
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in children}
    for turn in range(rounds):
        for name in list(children)[:: 1 if turn % 2 else -1]:
            found[name].append(ask(children[name], runs, steps))
    return {
        name: {
            "cpu_ms": statistics.median(r["cpu_ms"] for r in told),
            "cpu_ms_best": min(r["cpu_ms"] for r in told),
            "wall_ms": statistics.median(r["wall_ms"] for r in told),
            "rounds_cpu_ms": [r["cpu_ms"] for r in told],
        }
        for name, told in found.items()
    }


def _compared(short: Figures, long: Figures) -> Figures:
    """Differences are taken round by round: a busy machine is busy for both of a round."""

    def more(figures: Figures) -> float:
        pairs = (figures[name]["rounds_cpu_ms"] for name in ("roadworthy", "layer"))
        return float(statistics.median(full - bare for full, bare in zip(*pairs, strict=True)))

    base = short["floor"]["cpu_ms"]
    return {
        "over_floor": {name: short[name]["cpu_ms"] / base for name in CONTENDERS},
        "own_cpu_ms": more(short),
        "own_cpu_ms_best": short["roadworthy"]["cpu_ms_best"] - short["layer"]["cpu_ms_best"],
        "own_cpu_ms_per_step_of_long_run": more(long) / LONG,
    }


def scenario(name: str) -> Figures:
    """One scenario of `bench.scripted`."""
    with process("bench.scripted", name) as child:
        told, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"Scenario {name!r} failed; what it said is above.")
    figures: Figures = json.loads(told)
    return figures


def imports() -> Figures:
    """Seconds of wall time of a fresh interpreter, less those of an empty one; best of five."""
    with tempfile.TemporaryDirectory() as folder:  # compiled once, as after an installation
        environment = {"PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        bare = _best(["-c", "pass"], environment)
        return {name: _best(command, environment) - bare for name, command in IMPORTS.items()}


def _best(arguments: list[str], environment: Mapping[str, str]) -> float:
    found = []
    for _ in range(6):
        begun = time.perf_counter()
        command = [sys.executable, *arguments]
        done = subprocess.run(  # noqa: S603 - ours
            command, capture_output=True, cwd=ROOT, env={**os.environ, **environment}
        )
        found.append(time.perf_counter() - begun)
        if done.returncode:
            return float("nan")  # that part is not there
    return min(found)


def rows(figures: Figures) -> Iterator[tuple[str, str, str]]:
    """What is printed: name, figure, target."""
    http = figures["http"]
    for name in CONTENDERS:
        short, times = http["short"][name], http["over_floor"][name]
        text = f"{short['cpu_ms']:.2f} ms ({times:.1f}x floor), wall {short['wall_ms']:.1f} ms"
        yield f"CPU of a run, {name}", text, ""
    own = f"{http['own_cpu_ms']:.2f} ms (of the best rounds {http['own_cpu_ms_best']:.2f} ms)"
    yield "roadworthy less layer", own, "<= 3 ms"
    for name in CONTENDERS:
        yield f"CPU of a run of {LONG} steps, {name}", f"{http['long'][name]['cpu_ms']:.0f} ms", ""
    more = http["own_cpu_ms_per_step_of_long_run"]
    yield "roadworthy less layer, per step", f"{more:.2f} ms", ""
    alone, together = figures["alone"], figures["together"]
    yield "scripted: CPU of a run", f"{alone['cpu_ms']:.2f} ms", ""
    yield "scripted: 200 at once, wall over ideal", f"{together['over_ideal']:.2f}x", "<= 1.2x"
    yield "scripted: 200 at once, CPU of a run", f"{together['cpu_ms']:.2f} ms", ""
    long, resume = figures["long"], figures["resume"]
    ten = f"{long['cpu_us_first_ten']:.0f} -> {long['cpu_us_last_ten']:.0f} us"
    ratio = f"{ten} ({long['cpu_last_over_first']:.2f}x)"
    yield f"scripted: {LONG} steps, CPU of a step, first -> last ten", ratio, "<= 1.3x"
    growth = f"{long['cpu_us_growth_per_step']:.2f} us"
    yield "scripted: growth of a step's CPU per step", growth, "<= 20 us"
    ten = f"{long['bytes_first_ten']:.0f} -> {long['bytes_last_ten']:.0f}"
    ratio = f"{ten} ({long['bytes_last_over_first']:.2f}x)"
    yield "scripted: bytes of a step, first -> last ten", ratio, "<= 1.3x"
    text = f"{resume['wall_ms']:.0f} ms wall, {resume['cpu_ms']:.0f} ms CPU"
    yield f"resume a run of {LONG} steps", text, ""
    for name, seconds in figures["imports"].items():
        yield name, f"{seconds:.2f} s", "<= 0.3 s"


def main() -> None:
    """Measure, print, keep."""
    begun = time.perf_counter()
    figures: Figures = {"http": over_http()}
    figures |= {name: scenario(name) for name in SCENARIOS}
    figures["imports"] = imports()
    figures["about"] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "seconds": round(time.perf_counter() - begun, 1),
    }
    table = Table("what", "measured", "target")
    for row in rows(figures):
        table.add_row(*row)
    console = Console(width=110)
    console.print(table)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    console.print(f"{figures['about']['seconds']} s. Kept in {path.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
