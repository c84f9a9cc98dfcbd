"""One side of one case in a process of its own; `benchmarks.harness` starts it and asks by lines.

    python -m benchmarks.worker SUITE NAME ours|theirs SIZES_AS_JSON

Says first what it is, then answers: "time" with the seconds of every call of the case by its share, each
the mean of calls that follow each other, "rare" with those of calls that are timed once, "peak" with the most
it ever had.
"""

import itertools
import json
import os
import sys
import time

from benchmarks import harness


def resident(field: str) -> int:
    """Bytes of memory that this process holds (VmRSS) or has held at most (VmHWM)."""
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def peak(side: str, foreign: int) -> int:
    """Most bytes so far: of the accelerator if there is one, else of this process less `foreign`."""
    if side == "theirs":
        torch = sys.modules.get("torch")
        if torch and torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
    else:
        import jax

        found = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
        if found:
            return found["peak_bytes_in_use"]
    return resident("VmHWM") - foreign


def seconds(call: harness.Call, least: float = 0.0) -> float:
    """Of one call, on average over those that take `least` seconds together."""
    began = time.perf_counter()
    for count in itertools.count(1):
        call.run()
        passed = time.perf_counter() - began
        if passed >= least:
            return passed / count * call.share


def main() -> None:
    suite, name, side, sizes = sys.argv[1:]
    channel, sys.stdout = sys.stdout, sys.stderr  # what libraries print is not an answer
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: harness.THREADS])
    if side == "ours":
        from jaxface import parallel

        parallel.keep_memory()  # before anything wakes JAX, as the launcher does
    foreign = 0
    if side == "theirs" and harness.has_torch():
        import torch

        torch.set_num_threads(harness.THREADS)
        foreign = resident("VmRSS")
    case = harness.cases(suite)[name]
    if side == "theirs" and harness.has_torch():
        from benchmarks import torch_reference  # noqa: F401

        foreign = resident("VmRSS") - foreign  # layer plans come from our package, and JAX with it
    build = case.ours if side == "ours" else case.theirs
    work = build(**json.loads(sizes))
    for call in work.calls:
        call.run()

    def total(what: str) -> float | None:
        counts = [(getattr(call, what), call.share) for call in work.calls]
        return None if None in (count for count, _ in counts) else sum(n * s for n, s in counts)

    def say(**answer) -> None:
        print(json.dumps(answer), file=channel, flush=True)

    say(compile_seconds=work.compile_seconds, operations=total("operations"), bytes=total("bytes"))
    often = [call for call in work.calls if call.share >= 0.5]
    rare = [call for call in work.calls if call.share < 0.5]
    for line in sys.stdin:
        word = line.strip()
        if word == "time":
            # The other side had the cores and their caches; in a training run a step follows a step.
            if not case.heavy:
                for call in often:
                    call.run()
            say(seconds=[seconds(call, harness.TURN) for call in often])
        elif word == "rare":
            say(seconds=[seconds(call) for call in rare])
        elif word == "peak":
            say(bytes=peak(side, foreign))


if __name__ == "__main__":
    main()
