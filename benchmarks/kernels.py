"""The fused GPU kernel of the filtered leaky ReLU beside the plain form, layer by layer.

    python -m benchmarks.kernels

Layers of StyleGAN3-t in bfloat16 at 256 and 1024 px, forward, and forward with gradient. Beside the times:
the share of the device's speed of copying that the kernel's reads and writes reach, each counted once (the
backward pass reads the input again). Needs an H100 or H200.
"""

import statistics
import sys
import time

import jax
import jax.numpy as jnp

from jaxface.ops import filters

FILTERS = {up: filters.design_lowpass_filter(6 * up, 2, 3, 12) for up in (2, 4)}
PADDING = {2: (9, 8, 9, 8), 4: (-6, -9, -6, -9)}
LAYERS = [  # name, input [N, H, W, C] after the convolution, up
    ("36 px, 512 channels", (32, 38, 38, 512), 2),
    ("276 px, 128 channels", (16, 278, 278, 128), 2),
    ("276 px, 181 channels", (16, 278, 278, 181), 2),
    ("276 px, 184 channels", (16, 278, 278, 184), 2),
    ("148 to 276 px, 256 channels", (16, 150, 150, 256), 4),
    ("1044 px, 51 channels", (4, 1046, 1046, 51), 2),
    ("1044 px, 32 channels", (4, 1046, 1046, 32), 2),
]


def seconds(program, *args, calls: int = 10, repeats: int = 3) -> float:
    """Median time of a call among calls that follow each other."""
    jax.block_until_ready([program(*args) for _ in range(2)])
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(calls):
            out = program(*args)
        jax.block_until_ready(out)
        times.append((time.perf_counter() - began) / calls)
    return statistics.median(times)


def layer(up: int):
    """Function of an image, and one that also takes a gradient of the result back."""

    def forward(x):
        return filters.filtered_lrelu(
            x, FILTERS[up], FILTERS[2], None, up, 2, PADDING[up], clamp=256.0
        )

    def both(x, g):
        y, pull = jax.vjp(forward, x)
        return y, *pull(g)

    return forward, both


def main() -> None:
    device = jax.devices()[0].device_kind
    if not any(name in device for name in ("H100", "H200")):
        sys.exit(f"the kernel is for an H100 or H200, this is {device}")
    n = 2**30
    copying = 8 * n / seconds(jax.jit(lambda x: x + 1), jnp.zeros(n))
    a, b = (jax.random.normal(jax.random.key(i), (8192, 8192), jnp.bfloat16) for i in range(2))
    product = 2 * 8192**3 / seconds(jax.jit(jnp.matmul), a, b)
    print(f"{device}: copies {copying / 1e12:.2f} TB/s, multiplies {product / 1e12:.0f} TFLOP/s")
    for name, shape, up in LAYERS:
        x = jax.random.normal(jax.random.key(0), shape, jnp.bfloat16)
        forward, both = layer(up)
        g = jnp.ones_like(forward(x))
        for what, function, args, moved in (
            ("forward", forward, (x,), x.nbytes + g.nbytes),
            ("and backward", both, (x, g), 3 * x.nbytes + 2 * g.nbytes),
        ):
            plain = jax.jit(function).lower(*args).compile()
            kernel = jax.jit(filters.whole_images()(function)).lower(*args).compile()
            took, plainly = seconds(kernel, *args), seconds(plain, *args)
            temporary = (p.memory_analysis().temp_size_in_bytes / 2**20 for p in (kernel, plain))
            print(
                "{:28s} {:12s} kernel {:6.2f} ms, {:4.0%} of copying; plain {:6.2f} ms; "
                "temporary MiB {:,.0f} and {:,.0f}".format(
                    name, what, took * 1e3, moved / copying / took, plainly * 1e3, *temporary
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
