"""Speed and memory of ours beside what a user would run today, ratios in one run.

    python -m benchmarks [--suite=step] [--only=NAME] [--repeats=5] [--json=FILE] [--roofline]

Times are medians with (fastest - slowest); "torch / ours" is a ratio of medians whose calls took turns. Peak
memory is that of each side's own process, or of the accelerator. Compilation is timed apart, without a cache.
"""

import argparse
import json
import pathlib
import sys

from rich.console import Console
from rich.table import Column, Table

from benchmarks import harness

CEILINGS = {
    "matmul": "operations",
    "copy": "bytes",
}  # cases of suite ops that tell what a device can


def seconds(side: harness.Side | None) -> str:
    if side is None:
        return "-"
    return f"{side.seconds:.3g} ({side.spread[0]:.3g} - {side.spread[1]:.3g})"


def ceilings(repeats: int) -> dict[str, float]:
    """{"operations", "bytes"}: a second, of this device at its best."""
    found = {}
    for name, what in CEILINGS.items():
        ours, _ = harness.measure("ops", name, repeats)
        found[what] = getattr(ours, what) / ours.spread[0]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", choices=harness.SUITES, help="default: all of them")
    parser.add_argument("--only", metavar="NAME", help="one case of the suite")
    parser.add_argument(
        "--repeats", type=int, default=5, help="turns of each side, a second or a call long"
    )
    parser.add_argument(
        "--json", type=pathlib.Path, metavar="FILE", help="results; cases already in it stay"
    )
    parser.add_argument(
        "--roofline",
        action="store_true",
        help="operations and bytes of each case (XLA's cost analysis) against what the device can",
    )
    flags = parser.parse_args()
    suites = [flags.suite] if flags.suite else list(harness.SUITES)
    chosen = [(s, n) for s in suites for n in harness.cases(s) if flags.only in (None, n)]
    if not chosen:
        known = ", ".join(f"{suite}: {' '.join(harness.cases(suite))}" for suite in suites)
        parser.error(f"--only={flags.only}: no such case; there are {known}")
    if flags.repeats < 1:
        parser.error(f"--repeats={flags.repeats}: use 1 or more")
    console = Console(width=None if sys.stdout.isatty() else 140)
    if not harness.has_torch():
        console.print(
            "PyTorch is not installed, so its column stays empty: pip install -r requirements-dev.txt"
        )
    limits = ceilings(flags.repeats) if flags.roofline else {}
    if limits:
        console.print(
            f"This device: {limits['operations'] / 1e9:.1f} GFLOP/s (product of large matrices), "
            f"{limits['bytes'] / 1e9:.1f} GB/s (copy, read and written)"
        )
    table = Table(
        Column("case", overflow="fold"),
        "ours, s",
        "torch, s",
        "torch / ours",
        "a second",
        "peak, MiB",
        "torch, MiB",
    )
    table.add_column("compile, s")
    for what in limits:
        table.add_column(f"G{'FLOP' if what == 'operations' else 'B'} (of ceiling)")
    failed = False
    for suite, name in chosen:
        case = harness.cases(suite)[name]
        console.print(f"[dim]{suite}: {name} ...[/dim]")
        try:
            ours, theirs = harness.measure(suite, name, flags.repeats)
        except harness.Died as died:
            console.print(f"[red]{died}[/red]")
            failed = True
            continue
        mib = lambda side: "-" if side is None else f"{side.peak_bytes / 2**20:,.0f}"
        row = [name, seconds(ours), seconds(theirs)]
        row += ["-" if theirs is None else f"{theirs.seconds / ours.seconds:.2f}"]
        row += [f"{case.number / ours.seconds:.3g}" if case.number else "-"]
        row += [mib(ours), mib(theirs)]
        row += ["-" if ours.compile_seconds is None else f"{ours.compile_seconds:.1f}"]
        for what, limit in limits.items():
            amount = getattr(ours, what)
            share = None if amount is None else amount / ours.seconds / limit
            row += ["-" if share is None else f"{amount / 1e9:.3g} ({share:.0%})"]
        table.add_row(*row)
        if flags.json:
            kept = json.loads(flags.json.read_text()) if flags.json.exists() else {}
            kept.setdefault(suite, {})[name] = harness.entry(ours, theirs)
            flags.json.write_text(json.dumps(kept, indent=1))
    console.print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
