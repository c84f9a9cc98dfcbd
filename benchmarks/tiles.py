"""Memory and time of a large photograph through a U-Net, tile by tile.

    python -m benchmarks.tiles [--height=3000] [--width=4000]

Tiles of 256 px every 128 px through UNet (256, ngf 16, instance normalisation), in a process of its
own, one CPU core: 4,000 x 3,000 px takes 48.5 s (10.1 s more to compile); peak memory 0.52 GiB before
(JAX and the compiled network) and 0.58 GiB after, 0.08 GiB of it picture and result. 4,000 x 500 px:
0.49 and 0.51 GiB.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

import numpy as np

TILE, STRIDE, BATCH, NGF = 256, 128, 4, 16


def peak() -> float:
    """GiB of memory that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux


def measure(height: int, width: int) -> None:
    import jax

    from jaxface.models.unet import UNet
    from jaxface.ops import tiles

    net = UNet(output_nc=1, levels=8, ngf=NGF, norm="instance")
    variables = jax.jit(net.init)(jax.random.key(0), np.zeros((1, TILE, TILE, 3), np.float32))
    network = jax.jit(lambda x: net.apply(variables, x))
    start = time.perf_counter()
    network(np.zeros((BATCH, TILE, TILE, 3), np.float32)).block_until_ready()
    compiled = time.perf_counter() - start
    rng = np.random.default_rng(0)
    image = np.tile(
        rng.integers(0, 256, (100, 100, 3), np.uint8), (-(-height // 100), -(-width // 100), 1)
    )
    image = image[:height, :width].copy()
    before, start = peak(), time.perf_counter()
    out = tiles.translate(network, image, tile=TILE, stride=STRIDE, batch=BATCH)
    seconds = time.perf_counter() - start
    size = (image.nbytes + out.nbytes) / 2**30
    print(
        f"{width} x {height} px, {TILE} px tiles every {STRIDE} px: {seconds:.1f} s (and {compiled:.1f} s "
        f"to compile); peak memory {before:.2f} GiB before, {peak():.2f} GiB after, of which picture "
        f"and result {size:.2f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--width", type=int, default=4000)
    flags = parser.parse_args()
    # A process of its own, for whose peak nothing but this is to blame.
    again = [
        sys.executable,
        "-c",
        f"import benchmarks.tiles as t; t.measure{flags.height, flags.width}",
    ]
    subprocess.run(again, check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})


if __name__ == "__main__":
    main()
