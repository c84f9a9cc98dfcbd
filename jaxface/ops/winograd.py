"""Convolution with small kernels in a third or a quarter of the multiplications, for XLA on CPU.

XLA's own convolution on CPU already runs at the speed of a matrix product (73 of 80 GFLOP/s a core at
256 channels), so only fewer multiplications make it faster. Winograd's minimal filtering F(4x4, 3x3)
(Lavin and Gray 2015, arXiv 1509.09308) computes a tile of 4x4 outputs from 6x6 inputs by 36 products
where the sum over the kernel takes 144: along each axis, polynomials of degree 3 and 2 are multiplied
by their values at five points and at infinity. Over all tiles these are 36 matrix products. Kernels of 2x2
and 4x4 go by the same points, as F(5x5, 2x2) with 36 for 100 products and F(3x3, 4x4) with 36 for 144.

The points 0, +-3/4, +-3/2 have exact coefficients and give a third of the error of the customary 0,
+-1, +-2: 3e-6 of the largest output, where a plain sum of float32 has 2e-7.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_REACH = 6  # input pixels of a tile along an axis, and points
POINTS = _REACH**2
TAPS = {2, 3, 4}  # kernels along an axis


def _matrices(taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A [6, tile], G [6, taps], B [6, 6]: outputs are A^T ((G w) * (B x)), along one axis.

    A and G evaluate polynomials at the points; B is the transpose of interpolation from them.
    """
    tile = _tile(taps)
    points = np.array([0, 3 / 4, -3 / 4, 3 / 2, -3 / 2])
    last = lambda n: np.eye(n)[-1:]  # at infinity only the leading coefficient counts
    A = np.concatenate([points[:, None] ** np.arange(tile), last(tile)])
    others = [np.delete(points, j) for j in range(len(points))]
    scale = [np.prod(p - rest) for p, rest in zip(points, others)]
    G = np.concatenate([points[:, None] ** np.arange(taps) / np.c_[scale], last(taps)])
    B = np.zeros([_REACH, _REACH])
    for j, rest in enumerate(others):
        B[j, :-1] = np.poly(rest)[::-1]
    B[-1] = np.poly(points)[::-1]
    return A, G, B


def _both(G):
    """[36, taps^2]: kernels at the points of both axes; the points of columns lead, as in `_values`."""
    return np.einsum("pk,ql->pqlk", G, G).reshape(POINTS, -1)


def _combine(row, arrays):
    """Sum of row[k] * arrays[k], without the terms that are 0."""
    terms = [a if c == 1 else float(c) * a for c, a in zip(row, arrays) if c]
    return functools.reduce(jnp.add, terms)


def _values(x, matrix, before: int, every: int, tiles: tuple[int, int]):
    """Evaluates every tile of an image at the points of both axes.

    Args:
      x: [N, H, W, C], to which `before` rows and columns of zeros are added, and more at the end.
      matrix: [6, K], of tiles that read K pixels along an axis and start `every` pixels.

    Returns:
      [36, N * vertical tiles * horizontal tiles, C].
    """
    points, reads = matrix.shape
    fill = lambda size, count: (before, (count - 1) * every + reads - before - size, 0)
    around = [(0, 0, 0), fill(x.shape[1], tiles[0]), fill(x.shape[2], tiles[1]), (0, 0, 0)]
    # Without this XLA computes what made x again for every pixel of a tile.
    x = jax.lax.optimization_barrier(jax.lax.pad(x, jnp.zeros((), x.dtype), around))

    def every_tile(x, axis):
        ends = [first + (tiles[axis - 2] - 1) * every + 1 for first in range(reads)]
        return [jax.lax.slice_in_dim(x, k, end, every, axis) for k, end in enumerate(ends)]

    rows = every_tile(x[None], 2)
    rows = jnp.concatenate([_combine(row, rows) for row in matrix])
    columns = every_tile(jax.lax.optimization_barrier(rows), 3)  # [points, N, tiles, tiles, C] each
    values = jnp.concatenate([_combine(column, columns) for column in matrix])
    return values.reshape(points**2, -1, x.shape[-1])


def _tile(taps: int) -> int:
    """Outputs of a tile along an axis."""
    return _REACH + 1 - taps


def tiles(sides: tuple[int, int], taps: int) -> tuple[int, int]:
    """How many tiles an output of `sides` is made of."""
    return tuple(-(-side // _tile(taps)) for side in sides)


def _apply(x, w, padding):
    n, taps = x.shape[0], w.shape[0]
    sides = tuple(size + 2 * padding - taps + 1 for size in x.shape[1:3])
    count, tile = tiles(sides, taps), _tile(taps)
    A, G, B = _matrices(taps)
    kernel = jnp.asarray(_both(G), w.dtype) @ w.reshape(taps**2, -1)
    products = _values(x, B, padding, tile, count) @ kernel.reshape(-1, *w.shape[2:])
    products = products.reshape(_REACH, _REACH, n, *count, -1)
    # The points of columns come first, as `_values` has them.
    columns = jnp.stack(
        [_combine(row, products) for row in A.T], 4
    )  # [6, N, tiles, tiles, tile, O]
    y = jnp.stack([_combine(row, jax.lax.optimization_barrier(columns)) for row in A.T], 2)
    return y.reshape(n, count[0] * tile, count[1] * tile, -1)[:, : sides[0], : sides[1]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def correlate(x: jax.Array, w: jax.Array, padding: int) -> jax.Array:
    """Cross-correlation with zeros around; any number of derivatives, in reverse mode only.

    Args:
      x: [N, H, W, I], float32 or float64; the tiles' sums cancel, which bfloat16 is too coarse for.
      w: [taps, taps, I, O], of 2, 3 or 4 taps.
      padding: 0 to taps - 1 zeros on every side.

    Returns:
      [N, H + 2 * padding - taps + 1, W + 2 * padding - taps + 1, O].
    """
    return _apply(x, w, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def kernel_gradient(x, g, padding):
    """[N, H, W, I], gradient of the output -> that of the kernel [taps, taps, I, O], from the same tiles."""
    taps = x.shape[1] + 2 * padding - g.shape[1] + 1
    A, G, B = _matrices(taps)
    count, tile = tiles(g.shape[1:3], taps), _tile(taps)
    inputs, outputs = _values(x, B, padding, tile, count), _values(g, A, 0, tile, count)
    products = jnp.einsum("pti,pto->pio", inputs, outputs)
    sums = jnp.asarray(_both(G).T, x.dtype) @ products.reshape(POINTS, -1)
    return sums.reshape(taps, taps, *products.shape[1:])


def _image_gradient(g, w, padding):
    return correlate(g, jnp.swapaxes(w[::-1, ::-1], 2, 3), len(w) - 1 - padding)


# Each is linear in both arguments, and each one's gradients are the other ones.
correlate.defvjp(
    lambda x, w, padding: (correlate(x, w, padding), (x, w)),
    lambda padding, saved, g: (
        _image_gradient(g, saved[1], padding),
        kernel_gradient(saved[0], g, padding),
    ),
)
kernel_gradient.defvjp(
    lambda x, g, padding: (kernel_gradient(x, g, padding), (x, g)),
    lambda padding, saved, w: (
        _image_gradient(saved[1], w, padding),
        correlate(saved[0], w, padding),
    ),
)
