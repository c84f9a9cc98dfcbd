"""Times a case of ours beside its comparator: two processes, by turns, so that a ratio is of one run.

A suite is a module of this package with `CASES`, {name: Case}. Each side of a case runs in a process of its
own (`python -m benchmarks.worker`), whose peak memory is then nobody else's; both have two threads and the
same allocator variables, are warmed up, and compute only when it is their turn. Compilation is timed apart
and without a cache.
"""

import dataclasses
import importlib
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

SUITES = {"ops": "ops", "step": "steps", "data": "data", "metrics": "metrics", "tiles": "tiles"}
THREADS = 2
# Without them a third of a step goes into page faults of memory that glibc hands back and takes again.
ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "OMP_NUM_THREADS": str(THREADS),
    "OMP_WAIT_POLICY": "PASSIVE",
}
ROOT = pathlib.Path(__file__).parents[1]


TURN = 1.0  # seconds at least that a side has before the other one's turn


class Call(NamedTuple):
    """Something to be timed."""

    run: Callable[[], Any]  # returns when the result is there
    share: float = 1.0  # of the case's time; one below a half is timed once, not every turn
    operations: float | None = (
        None  # floating-point operations and bytes of memory traffic, by XLA's
    )
    bytes: float | None = None  # cost analysis


class Work(NamedTuple):
    """One side of a case, ready to run."""

    calls: tuple[Call, ...]
    compile_seconds: float | None = None


class Case(NamedTuple):
    """A case of a suite. `ours` and `theirs` take `sizes` by name and return a Work."""

    ours: Callable[..., Work]
    theirs: Callable[..., Work] | None = None
    sizes: dict = {}
    number: int = 0  # of images or records a call handles, for a rate
    heavy: bool = False  # too much memory for both sides at once: one after the other
    needs_torch: bool = True  # whether the comparator is PyTorch


@dataclasses.dataclass
class Side:
    """What was measured of one side."""

    seconds: float
    spread: tuple[float, float]
    peak_bytes: int
    compile_seconds: float | None
    operations: float | None
    bytes: float | None


class Died(RuntimeError):
    """A worker ended before its work was done; what it said is on the terminal."""


def compiled(function: Callable, *args, share: float = 1.0) -> tuple[Call, float]:
    """A jitted function of fixed arguments as a Call, and the seconds that compiling it took."""
    import jax

    began = time.perf_counter()
    program = function.lower(*args).compile()
    seconds = time.perf_counter() - began
    return Call(lambda: jax.block_until_ready(program(*args)), share, *costs(program)), seconds


def costs(program) -> tuple[float | None, float | None]:
    """(operations, bytes) of an XLA executable by its own account."""
    found = program.cost_analysis() or {}
    return found.get("flops"), found.get("bytes accessed")


def eager(function: Callable, *args) -> Work:
    """A function that nothing compiles, on fixed arguments."""
    return Work((Call(lambda: function(*args)),))


def cases(suite: str) -> dict[str, Case]:
    return importlib.import_module(f"benchmarks.{SUITES[suite]}").CASES


def has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


class _Worker:
    """A process that holds one side of a case."""

    def __init__(self, suite: str, name: str, side: str, sizes: dict):
        environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        command = [sys.executable, "-m", "benchmarks.worker", suite, name, side, json.dumps(sizes)]
        self.what = f"{suite}/{name}, {side}"
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment | ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise Died(f"{self.what}: the worker ended with status {self.process.wait()}")
        return json.loads(line)

    def ask(self, word: str) -> dict:
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def measure(
    suite: str, name: str, repeats: int = 5, sizes: dict | None = None
) -> tuple[Side, Side | None]:
    """Times one case: (ours, the comparator's or None where there is none or PyTorch is not installed).

    Args:
      repeats: turns of each side, of which the median counts; a turn is the mean of calls one after the
        other for `TURN` seconds, after one that is not timed where sides alternate.
      sizes: in place of the case's own, all or some.

    Raises:
      Died: a worker ended, for want of memory perhaps.
    """
    case = cases(suite)[name]
    sizes = case.sizes | (sizes or {})
    sides = ["ours"]
    if case.theirs and (has_torch() or not case.needs_torch):
        sides.append("theirs")
    turns = [[side] for side in sides] if case.heavy else [sides]
    found = [
        done for together in turns for done in _by_turns(suite, name, together, sizes, repeats)
    ]
    return found[0], found[1] if len(found) > 1 else None


def _by_turns(suite: str, name: str, sides: list[str], sizes: dict, repeats: int) -> list[Side]:
    """What was measured of some sides of a case, which are in memory together."""
    workers = []
    try:
        for side in sides:
            workers.append(_Worker(suite, name, side, sizes))
        found = [[] for _ in workers]
        for _ in range(repeats):
            for worker, times in zip(workers, found):
                times.append(worker.ask("time")["seconds"])
        return [_side(worker, times) for worker, times in zip(workers, found)]
    finally:
        for worker in workers:
            worker.close()


def _side(worker: _Worker, times: list[list[float]]) -> Side:
    """Sums what the calls of a case take, each by its share."""
    about, rare = worker.about, worker.ask("rare")["seconds"]
    rest = sum(rare)
    totals = [sum(turn) + rest for turn in times]
    return Side(
        seconds=statistics.median(totals),
        spread=(min(totals), max(totals)),
        peak_bytes=worker.ask("peak")["bytes"],
        compile_seconds=about["compile_seconds"],
        operations=about["operations"],
        bytes=about["bytes"],
    )


def entry(ours: Side, theirs: Side | None) -> dict:
    """What --json keeps of a case."""
    return {
        "seconds": ours.seconds,
        "torch_seconds": theirs and theirs.seconds,
        "ratio": theirs and theirs.seconds / ours.seconds,
        "peak_bytes": ours.peak_bytes,
        "torch_peak_bytes": theirs and theirs.peak_bytes,
        "compile_seconds": ours.compile_seconds,
        "spread": ours.spread,
        "torch_spread": theirs and theirs.spread,
    }
