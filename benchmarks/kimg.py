"""Seconds per thousand images of StyleGAN3's training on a GPU, the unit of the paper's table.

    python -m benchmarks.kimg [--variant t r] [--resolution 128 256 512 1024] [--precision bfloat16]
        [--batch 32] [--accumulate 1 1 2 4] [--repeats 5] [--plain_filters]
        [--json=FILE]

A whole iteration as `jaxface.train` runs it: generator, discriminator, ADA's bgc pipe, R1 every 16th time,
averaged generator; channel base 32768, maximum 512 (doubled by -r). Each row is a process of its own, so that
its peak memory is nobody else's. Published for one A100, batch 32, float16 in the highest resolutions:
27.2 / 49.8 / 90.3 / 156.9 s/kimg for -t at 128 / 256 / 512 / 1024 px (arXiv 2106.12423's code, its
configurations page); ours lowers the same four resolutions, to bfloat16.
"""

import argparse
import contextlib
import fcntl
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import time
from unittest import mock


def measure(row: dict, repeats: int, plain_filters: bool, lock: str | None) -> dict:
    """One row in this process.

    Args:
      row: fields of `cleftgan.Config`.
      repeats: timed calls of each program, of which the median counts.
      plain_filters: never use the fused kernel.
      lock: a file that is locked while timing, so that several rows can be compiled at once.
    """
    import jax

    from benchmarks import scaling, steps
    from jaxface.ops import filters
    from jaxface.systems import cleftgan

    config = cleftgan.Config(**row, augment_p=0.3)
    choice = mock.patch.object(filters, "_kernel_pays", lambda *_: False)
    with choice if plain_filters else contextlib.nullcontext():
        work = steps.training(steps.stylegan3, config)
    with open(lock, "w") if lock else contextlib.nullcontext() as file:
        if lock:
            fcntl.flock(file, fcntl.LOCK_EX)
        seconds = 0.0
        for call in work.calls:
            call.run()
            times = []
            for _ in range(repeats):
                began = time.perf_counter()
                call.run()
                times.append(time.perf_counter() - began)
            seconds += statistics.median(times) * call.share
        memory = jax.devices()[0].memory_stats() or {}
    # G runs forward twice and once back, D forward three times and, twice with its weights, back; XLA's own
    # account leaves out what cuDNN does.
    picture = scaling.convolutions(config)
    operations = config.batch * (4 * picture["generator"] + 8 * picture["discriminator"])
    return row | {
        "plain_filters": plain_filters,
        "device": jax.devices()[0].device_kind,
        "seconds_per_kimg": seconds * 1000 / config.batch,
        "peak_bytes": memory.get("peak_bytes_in_use"),
        "compile_seconds": work.compile_seconds,
        "operations": operations,  # of the convolutions of an iteration without R1
    }


def shown(found: dict) -> str:
    peak = found["peak_bytes"]
    memory = "-" if peak is None else f"{peak / 2**30:.1f} GiB"
    seconds = found["seconds_per_kimg"] * found["batch"] / 1000
    return (
        f"{found['variant']} {found['resolution']:4d} px {found['precision']:8s} "
        f"batch {found['batch']} in {found['accumulate']}"
        f"{', plain filters' if found['plain_filters'] else ''}: "
        f"{found['seconds_per_kimg']:.1f} s/kimg, {memory}, "
        f"{found['operations'] / seconds / 1e12:.0f} TFLOP/s, "
        f"{found['compile_seconds']:.0f} s to compile ({found['device']})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", nargs="+", choices=("t", "r"), default=["t", "r"])
    parser.add_argument("--resolution", nargs="+", type=int, default=[128, 256, 512, 1024])
    parser.add_argument(
        "--precision", nargs="+", choices=("float32", "bfloat16"), default=["bfloat16"]
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--accumulate", nargs="+", type=int, default=[1], help="one for all, or one a resolution"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each program")
    parser.add_argument("--plain_filters", action="store_true", help="without the fused kernel")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="rows are added to it")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # of the process that measures it
    parser.add_argument("--lock", metavar="FILE", help="locked while timing: compile several")
    flags = parser.parse_args()
    if flags.row:
        print(
            json.dumps(
                measure(json.loads(flags.row), flags.repeats, flags.plain_filters, flags.lock)
            )
        )
        return 0
    if len(flags.accumulate) not in (1, len(flags.resolution)):
        parser.error("--accumulate takes one number, or one for each --resolution")
    parts = dict(zip(flags.resolution, itertools.cycle(flags.accumulate)))
    failed = False
    for variant, precision, resolution in itertools.product(
        flags.variant, flags.precision, flags.resolution
    ):
        row = {
            "variant": variant,
            "resolution": resolution,
            "precision": precision,
            "batch": flags.batch,
            "accumulate": parts[resolution],
        }
        command = [sys.executable, "-m", "benchmarks.kimg", f"--row={json.dumps(row)}"]
        command += [f"--repeats={flags.repeats}"] + ["--plain_filters"] * flags.plain_filters
        command += [f"--lock={flags.lock}"] * bool(flags.lock)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"{variant} {resolution} px {precision}: failed", flush=True)
            failed = True
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(shown(found), flush=True)
        if flags.json:
            kept = json.loads(flags.json.read_text()) if flags.json.exists() else []
            flags.json.write_text(json.dumps([*kept, found], indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
