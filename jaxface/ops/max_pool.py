"""The largest of overlapping windows, with a gradient that XLA on CPU is quick at.

For the gradient XLA finds the places of the maxima and scatters, which takes a seventh of a ResNet-18 step.
Here the value is the maximum of the shifted images, and the gradient of a pixel the sum over the windows that
it is in, phase of the stride by phase, so that both are loops over arrays: forward and back 7 ms instead of
49 (8 x 112 x 112 x 64, float32, jaxlib 0.10.2, 2 CPU cores). On accelerators it is flax's.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxface.ops.here import for_cpu
from jaxface.ops.materialize import materialize


def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
    """[N, H, W, C] -> [N, (H + 2 * padding - window) // stride + 1, likewise, C]

    What is outside never is the largest. Where numbers of a window are equal, the gradient goes to the first
    of them, as it does in XLA. In reverse mode only, on CPU.
    """
    if not for_cpu(x.shape) or window <= stride:
        pads = ((padding, padding),) * 2
        return nn.max_pool(x, (window, window), (stride, stride), pads)
    return _max_pool(x, x.shape[1:3], window, stride, padding)


def _taps(x, window, stride, padding):
    """The pixels of every window, in the order of its rows: window^2 arrays [N, H', W', C]."""
    height, width = ((side + 2 * padding - window) // stride + 1 for side in x.shape[1:3])
    around = [(0, 0, 0), (padding, padding, 0), (padding, padding, 0), (0, 0, 0)]
    x = jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), around)
    reach = lambda first, count: slice(first, first + (count - 1) * stride + 1, stride)
    return [x[:, reach(i, height), reach(j, width)] for i in range(window) for j in range(window)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_pool(x, sides, window, stride, padding):
    return functools.reduce(jnp.maximum, _taps(x, window, stride, padding))


def _forward(x, sides, window, stride, padding):
    best, *others = _taps(materialize(x), window, stride, padding)
    which = jnp.zeros(best.shape, jnp.int8)
    for tap, value in enumerate(others, start=1):
        more = (value > best) | (jnp.isnan(value) & ~jnp.isnan(best))
        which = jnp.where(more, jnp.int8(tap), which)
        best = jnp.maximum(best, value)
    return best, materialize(which)


def _backward(sides, window, stride, padding, which, g):
    height, width = g.shape[1:3]
    g = materialize(g)
    # Of pixels i * stride + phase of the padded image, those that any window or the image reaches.
    counts = [-(-(side + 2 * padding) // stride) for side in sides]
    zero = jnp.zeros([], g.dtype)

    def share(phase):
        """The gradient of the pixels of a phase of rows and of columns: [N, counts, C]"""
        total = jnp.zeros((g.shape[0], *counts, g.shape[3]), g.dtype)
        for i in range(phase[0], window, stride):
            for j in range(phase[1], window, stride):
                from_tap = jnp.where(which == i * window + j, g, zero)
                down, right = i // stride, j // stride
                edges = [
                    (down, counts[0] - height - down, 0),
                    (right, counts[1] - width - right, 0),
                ]
                total += jax.lax.pad(from_tap, zero, [(0, 0, 0), *edges, (0, 0, 0)])
        return total

    rows = [jnp.stack([share((a, b)) for b in range(stride)], 3) for a in range(stride)]
    by_phase = jnp.stack(rows, 2)  # [N, counts, stride, counts, stride, C]
    padded = by_phase.reshape(g.shape[0], counts[0] * stride, counts[1] * stride, g.shape[3])
    inside = [slice(padding, padding + side) for side in sides]
    return (padded[:, inside[0], inside[1]],)


_max_pool.defvjp(_forward, _backward)
