"""Convolution with 3x3 kernels in a quarter of the multiplications, for XLA on CPU.

XLA's own convolution on CPU already runs at the speed of a matrix product (73 of 80 GFLOP/s a core at
256 channels), so only fewer multiplications make it faster. Winograd's minimal filtering F(4x4, 3x3)
(Lavin and Gray 2015, arXiv 1509.09308) computes a tile of 4x4 outputs from 6x6 inputs by 36 products
where the sum over the kernel takes 144: along each axis, polynomials of degree 3 and 2 are multiplied
by their values at five points and at infinity. Over all tiles these are 36 matrix products.

The points 0, +-3/4, +-3/2 have exact coefficients and give a third of the error of the customary 0,
+-1, +-2: 3e-6 of the largest output, where a plain sum of float32 has 2e-7.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

_TILE, _TAPS = 4, 3
_REACH = _TILE + _TAPS - 1  # input pixels of a tile along an axis, and points


# Where the form takes less time than XLA's convolution: its fixed costs are a kernel's transform, which
# its use by this many tiles repays, and some 60 ops to compile. Of XLA's time it takes, forward and for the
# gradients of image and kernel, 36, 35 and 37 % (4 x 36 x 36 px, 512 to 512 channels) or 57, 55 and 93 %
# (4 x 84 x 84 px, 64 to 64): CPU seconds on 2 CPU cores that others worked on too.
_CHANNELS, _TILES, _MULTIPLICATIONS = 32, 64, 2**26


def pays(image: tuple[int, ...], kernel: tuple[int, ...], dtype) -> bool:
    """Whether `conv3x3` is the faster form of a stride-1 convolution that is being traced.

    On CPU, for kernels of 3x3 between enough channels: transforming tiles costs in proportion to
    channels, what it saves to their square. Accelerators have libraries of their own, and sums of
    bfloat16 are too coarse.

    Args:
      image, kernel: shapes [N, H, W, I] and [K, K, I, O].
    """
    pixels = math.prod(image[:3])
    return (
        jax.default_backend() == "cpu"
        and kernel[:2] == (_TAPS, _TAPS)
        and dtype == jnp.float32
        and min(kernel[2:]) >= _CHANNELS
        and pixels >= _TILES * _TILE**2
        and pixels * math.prod(kernel) >= _MULTIPLICATIONS
    )


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A [6, 4], G [6, 3], B [6, 6]: outputs are A^T ((G w) * (B x)), along one axis.

    A and G evaluate polynomials at the points; B is the transpose of interpolation from them.
    """
    points = np.array([0, 3 / 4, -3 / 4, 3 / 2, -3 / 2])
    last = lambda n: np.eye(n)[-1:]  # at infinity only the leading coefficient counts
    A = np.concatenate([points[:, None] ** np.arange(_TILE), last(_TILE)])
    others = [np.delete(points, j) for j in range(len(points))]
    scale = [np.prod(p - rest) for p, rest in zip(points, others)]
    G = np.concatenate([points[:, None] ** np.arange(_TAPS) / np.c_[scale], last(_TAPS)])
    B = np.zeros([_REACH, _REACH])
    for j, rest in enumerate(others):
        B[j, :-1] = np.poly(rest)[::-1]
    B[-1] = np.poly(points)[::-1]
    return A, G, B


_A, _G, _B = _matrices()
# [36, 9]: kernels at the points of both axes; the points of columns lead, as in `_values`.
_G_BOTH = np.einsum("pk,ql->pqlk", _G, _G).reshape(_REACH**2, _TAPS**2)


def _combine(row, arrays):
    """Sum of row[k] * arrays[k], without the terms that are 0."""
    terms = [a if c == 1 else float(c) * a for c, a in zip(row, arrays) if c]
    return functools.reduce(jnp.add, terms)


def _values(x, matrix, before: int, tiles: tuple[int, int]):
    """Evaluates every tile of an image at the points of both axes.

    Args:
      x: [N, H, W, C], to which `before` rows and columns of zeros are added, and more at the end.
      matrix: [6, K], of tiles that read K pixels along an axis and start every 4 pixels.

    Returns:
      [36, N * vertical tiles * horizontal tiles, C].
    """
    points, reads = matrix.shape
    fill = lambda size, count: (before, (count - 1) * _TILE + reads - before - size, 0)
    around = [(0, 0, 0), fill(x.shape[1], tiles[0]), fill(x.shape[2], tiles[1]), (0, 0, 0)]
    # Without this XLA computes what made x again for every pixel of a tile.
    x = jax.lax.optimization_barrier(jax.lax.pad(x, jnp.zeros((), x.dtype), around))

    def every_tile(x, axis):
        ends = [first + (tiles[axis - 2] - 1) * _TILE + 1 for first in range(reads)]
        return [jax.lax.slice_in_dim(x, k, end, _TILE, axis) for k, end in enumerate(ends)]

    rows = every_tile(x[None], 2)
    rows = jnp.concatenate([_combine(row, rows) for row in matrix])
    columns = every_tile(jax.lax.optimization_barrier(rows), 3)  # [points, N, tiles, tiles, C] each
    values = jnp.concatenate([_combine(column, columns) for column in matrix])
    return values.reshape(points**2, -1, x.shape[-1])


def _tiles(height: int, width: int) -> tuple[int, int]:
    return -(-height // _TILE), -(-width // _TILE)


def _apply(x, w, padding):
    n, height, width, _ = x.shape
    height, width = (size + 2 * padding - _TAPS + 1 for size in (height, width))
    tiles = _tiles(height, width)
    kernel = jnp.asarray(_G_BOTH, w.dtype) @ w.reshape(_TAPS**2, -1)
    products = _values(x, _B, padding, tiles) @ kernel.reshape(-1, *w.shape[2:])
    products = products.reshape(_REACH, _REACH, n, *tiles, -1)
    # The points of columns come first, as `_values` has them.
    columns = jnp.stack([_combine(row, products) for row in _A.T], 4)  # [6, N, tiles, tiles, 4, O]
    y = jnp.stack([_combine(row, jax.lax.optimization_barrier(columns)) for row in _A.T], 2)
    return y.reshape(n, tiles[0] * _TILE, tiles[1] * _TILE, -1)[:, :height, :width]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3x3(x: jax.Array, w: jax.Array, padding: int) -> jax.Array:
    """Cross-correlation with zeros around; any number of derivatives, in reverse mode only.

    Args:
      x: [N, H, W, I], float32 or float64; the tiles' sums cancel, which bfloat16 is too coarse for.
      w: [3, 3, I, O].
      padding: 0 to 2 zeros on every side.

    Returns:
      [N, H + 2 * padding - 2, W + 2 * padding - 2, O].
    """
    return _apply(x, w, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _weight_gradient(x, g, padding):
    """[N, H, W, I], gradient of the output -> [3, 3, I, O], from the same tiles."""
    tiles = _tiles(*g.shape[1:3])
    inputs, outputs = _values(x, _B, padding, tiles), _values(g, _A, 0, tiles)
    products = jnp.einsum("pti,pto->pio", inputs, outputs)
    sums = jnp.asarray(_G_BOTH.T, x.dtype) @ products.reshape(_REACH**2, -1)
    return sums.reshape(_TAPS, _TAPS, *products.shape[1:])


def _image_gradient(g, w, padding):
    return conv3x3(g, jnp.swapaxes(w[::-1, ::-1], 2, 3), _TAPS - 1 - padding)


# Each is linear in both arguments, and each one's gradients are the other ones.
conv3x3.defvjp(
    lambda x, w, padding: (conv3x3(x, w, padding), (x, w)),
    lambda padding, saved, g: (
        _image_gradient(g, saved[1], padding),
        _weight_gradient(saved[0], g, padding),
    ),
)
_weight_gradient.defvjp(
    lambda x, g, padding: (_weight_gradient(x, g, padding), (x, g)),
    lambda padding, saved, w: (
        _image_gradient(saved[1], w, padding),
        conv3x3(saved[0], w, padding),
    ),
)
