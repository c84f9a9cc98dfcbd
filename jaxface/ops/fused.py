"""Upsample, leaky ReLU, downsample in one GPU kernel that never writes the upsampled image.

The plain form (`jaxface.ops.filters.filtered_lrelu`) passes an image of four times the pixels, or
sixteen, through memory several times, and its gradient keeps one of them. This kernel reads the
input once and writes the output once. A program owns a stripe of columns and a block of channels,
and walks down the rows of the upsampled image: each is made from the few rows of the input that
reach it (a sum along the column, then a product with a banded matrix along the row, on the matrix
units), activated, filtered along the row by a second banded matrix, and added to the rows of the
output that it reaches, which stay in registers until they are complete. The gradient is the same
walk with the upsampled row made anew from the input, so that nothing is kept for it but the input;
a second derivative differentiates the plain form.

Of half precision, each matrix is a sum of two, so that taps are as exact as the plain form's. On one
H200 (jax 0.11.2; `python -m benchmarks.kernels` repeats it), bfloat16, milliseconds forward / forward
and backward of this kernel, of the plain form, and MiB of temporary memory of either backward:

    [16, 278, 278, 128], up 2, down 2     2.1 /  5.1    5.2 /  9.8    0    3,073
    [16, 278, 278, 184], up 2, down 2     3.1 /  8.4    7.4 / 14.5    0    4,418
    [16, 150, 150, 256], up 4, down 2     2.8 /  8.5    6.9 / 17.9    0    6,147
    [4, 1046, 1046, 32], up 2, down 2     2.2 /  5.5    5.4 /  9.6    0    2,684

The first row is 7 % of the speed of copying (4.2 TB/s) and about 17 % of that of a matrix product (789
TFLOP/s): neither bounds it, its short products and the rows between them do. A form of this kernel that
took other filters and types was not faster there, so this one does not: float32, by three TF32 products
(16.6 beside 16.5 and 15.4 beside 12.9 ms; by one it halves the time, at an error of 3e-4), and radial
filters (28.8 beside 25.5 ms in bfloat16). The interpreter takes float32 for tests. Of the plain forms the
polyphase one is the fastest on the GPU too: first row by banded matrices 13.7 / 29.9 ms, by a depthwise
convolution 93 / 183 ms.

Written in Pallas for its Triton backend, which JAX calls deprecated; its other GPU backend wants
copies aligned to 16 bytes, which 181 channels are not.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxface.ops import filters

_FINE = 64  # upsampled columns of a stripe
_BLOCK = 64  # channels that a program owns at most
_CHUNK = 16  # rows of the output that a program makes at least, where there are as many
_PROGRAMS = 2048  # keep a large GPU busy


class Nonlinearity(NamedTuple):
    """A filtered leaky ReLU without its bias. Taps act on both axes and are correlated."""

    up_taps: tuple[float, ...]
    down_taps: tuple[float, ...]
    up: int
    down: int
    padding: tuple[int, int, int, int]  # left, right, top, bottom of the upsampled image, for both
    gain: float
    slope: float
    clamp: float | None

    def fine_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the upsampled image."""
        left, right, top, bottom = self.padding
        lost = len(self.up_taps) - 1
        return height * self.up + top + bottom - lost, width * self.up + left + right - lost

    def out_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result."""
        fine = self.fine_size(height, width)
        return tuple((n - len(self.down_taps)) // self.down + 1 for n in fine)


class _Source(NamedTuple):
    """fine[j] = sum over k of taps[k] * image[(j + k - offset) / up], where that is whole.

    Offsets are (vertical, horizontal).
    """

    taps: tuple[float, ...]
    up: int
    offset: tuple[int, int]


class _Sink(NamedTuple):
    """out[r] = sum over k of taps[k] * fine[r * down + k - offset]."""

    taps: tuple[float, ...]
    down: int
    offset: tuple[int, int]
    shape: tuple[int, int]  # of the result


class _Tiling(NamedTuple):
    """How the work is dealt out."""

    columns: int  # of the result that a stripe makes
    together: int  # rows of the result after which the meeting of taps and rows repeats
    chunk: int  # rows of the result that a program makes
    block: int  # channels that a program owns
    firsts: tuple[int, ...]  # per source: the column it is read from for the leftmost stripe,
    pieces: tuple[tuple[int, ...], ...]  # and the widths that are read one after the other


class _Reader(NamedTuple):
    """Columns and channels of an image that a program reads, row after row."""

    image: object  # reference to [N, H, W, C]
    batch: jax.Array
    columns: jax.Array  # [n, 1], inside the image
    channels: jax.Array  # [1, block]
    inside: jax.Array  # [n, block]: the others are read as zero
    matrix: list[jax.Array]  # parts of the matrix [_FINE, n] that makes upsampled columns of them

    def row(self, number) -> jax.Array:
        """[n, block] float32, zero above and below the image."""
        height = self.image.shape[1]
        inside = self.inside & ((number >= 0) & (number < height))
        row = jnp.clip(number, 0, height - 1)
        at = self.image.at[self.batch, row, self.columns, self.channels]
        return plgpu.load(at, mask=inside, other=0).astype(jnp.float32)


def _power_of_two(n: int) -> int:
    """At least `n`, and 16: what a matrix unit takes."""
    return max(16, 1 << (n - 1).bit_length())


def _pieces(n: int) -> tuple[int, ...]:
    """Powers of two that add up to at least `n`, with little to spare."""
    larger = _power_of_two(n)
    half = larger // 2
    if half >= 16 and half + _power_of_two(n - half) < larger:
        return half, _power_of_two(n - half)
    return (larger,)


def _band(taps, k: np.ndarray, inside=True) -> np.ndarray:
    """Matrix of the taps with numbers `k`, zero where there is none."""
    inside = inside & (k >= 0) & (k < len(taps))
    return np.where(inside, np.asarray(taps)[np.clip(k, 0, len(taps) - 1)], 0).astype(np.float32)


def _walk(between, sources, sink, fine_shape, tiling, dot, *refs):
    """The kernel: see the module's docstring. refs: images, their matrices, the sink's, the result.

    Args:
      between: (list of upsampled rows, one a source) -> the row that is filtered.
      fine_shape: height and width of the upsampled image.
      dot: (parts of a matrix, rows of an image) -> product.
    """
    images, matrices = refs[: len(sources)], refs[len(sources) : 2 * len(sources)]
    sink_matrix, out = refs[-2:]
    columns, together, chunk, block = tiling[:4]
    chunks = pl.cdiv(sink.shape[0], chunk)
    channels = pl.program_id(0) * block + jnp.arange(block)
    stripe = pl.program_id(1)
    batch, first_row = pl.program_id(2) // chunks, pl.program_id(2) % chunks * chunk

    fine_columns = stripe * (columns * sink.down) - sink.offset[1] + jnp.arange(_FINE)
    fine_inside = (fine_columns >= 0) & (fine_columns < fine_shape[1])
    out_columns = jnp.arange(sink_matrix.shape[1])
    out_inside = (out_columns < columns) & (stripe * columns + out_columns < sink.shape[1])
    out_mask = out_inside[:, None] & (channels < out.shape[3])[None, :]
    out_columns = (stripe * columns + out_columns)[:, None]
    depth = -(-len(sink.taps) // sink.down)  # rows of the result that an upsampled row reaches

    def readers(source, image, matrix, first, widths):
        """One for each piece of the columns that make a stripe."""
        offset, found = 0, []
        for width in widths:
            at = stripe * (columns * sink.down // source.up) + first + offset + jnp.arange(width)
            inside = (at >= 0) & (at < image.shape[2])
            found.append(
                _Reader(
                    image,
                    batch,
                    jnp.clip(at, 0, image.shape[2] - 1)[:, None],
                    channels[None, :],
                    inside[:, None] & (channels < image.shape[3])[None, :],
                    [matrix[p, :, offset : offset + width] for p in range(matrix.shape[0])],
                )
            )
            offset += width
        return found

    reads = [readers(*a) for a in zip(sources, images, matrices, tiling.firsts, tiling.pieces)]
    sink_parts = [sink_matrix[p] for p in range(sink_matrix.shape[0])]

    def column_sums(source, pieces, number, base, rows):
        """Sums along the columns that reach an upsampled row: one [n, block] for each piece.

        Args:
          number: of that row less a multiple of `up`, and less the offset.
          base: row of the image at that multiple.
          rows: {(piece, row less base): row} that were read before; grows.
        """
        start = (-number) % source.up
        sums = []
        for i, reader in enumerate(pieces):
            total = jnp.zeros(reader.inside.shape, jnp.float32)
            for m, tap in enumerate(source.taps[start :: source.up]):
                row = (number + start) // source.up + m
                if (i, row) not in rows:
                    rows[i, row] = reader.row(base + row)
                total += tap * rows[i, row]
            sums.append(total)
        return sums

    def body(i, sums):
        begin = (first_row + i * together) * sink.down
        numbers = [n - sink.offset[0] for n in range(together * sink.down)]
        made = []  # per source: {number: column sums}, all of them first, of rows that are read once
        for source, pieces in zip(sources, reads):
            rows, base = {}, begin // source.up
            made.append(
                {n: column_sums(source, pieces, n - source.offset[0], base, rows) for n in numbers}
            )
        for place, n in enumerate(numbers):
            q = place % sink.down
            if place and q == 0:
                sums = (jnp.zeros_like(sums[0]), *sums[:-1])
            fine = [
                sum(dot(reader.matrix, column) for reader, column in zip(pieces, columns_of[n]))
                for pieces, columns_of in zip(reads, made)
            ]
            inside = fine_inside & (begin + n >= 0) & (begin + n < fine_shape[0])
            filtered = dot(sink_parts, jnp.where(inside[:, None], between(fine), 0))
            taps = sink.taps[q :: sink.down]
            sums = tuple(s + t * filtered for s, t in zip(sums, taps)) + sums[len(taps) :]
            if q == sink.down - 1:
                done = begin // sink.down + place // sink.down - (depth - 1)
                wanted = (done >= first_row) & (done < first_row + chunk) & (done < sink.shape[0])
                row = jnp.clip(done, 0, sink.shape[0] - 1)
                at = out.at[batch, row, out_columns, channels[None, :]]
                plgpu.store(at, sums[-1].astype(out.dtype), mask=out_mask & wanted)
        return jnp.zeros_like(sums[0]), *sums[:-1]

    zero = jnp.zeros((sink_matrix.shape[1], block), jnp.float32)
    jax.lax.fori_loop(0, pl.cdiv(chunk + depth - 1, together), body, (zero,) * depth)


def _parts(matrix: np.ndarray, dtype) -> jax.Array:
    """A float32 matrix as [1, ...], or as the sum of two of half precision: [2, ...]"""
    if dtype == jnp.float32:
        return jnp.asarray(matrix)[None]
    high = matrix.astype(dtype)
    return jnp.stack([high, (matrix - high.astype(np.float32)).astype(dtype)])


def _dot(parts, rows):
    product = functools.partial(
        jnp.dot, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )
    return sum(product(part, rows.astype(part.dtype)) for part in parts)


def _call(
    between: Callable, sources, images, sink: _Sink, fine_shape: tuple[int, int], interpret: bool
) -> jax.Array:
    """Runs the walk over whole images. -> [N, *sink.shape, C]"""
    n, channels, dtype = images[0].shape[0], images[0].shape[3], images[0].dtype
    together = math.lcm(*[s.up for s in sources], sink.down) // sink.down
    columns = (_FINE - len(sink.taps)) // sink.down + 1
    columns -= columns % together
    rows, fine = np.arange(_power_of_two(columns))[:, None], np.arange(_FINE)
    sink_matrix = _band(sink.taps, fine - rows * sink.down, rows < columns)

    firsts, pieces, matrices = [], [], []
    for source in sources:
        begin = -sink.offset[1] - source.offset[1]
        first = begin // source.up
        last = (begin + _FINE - 1 + len(source.taps) - 1) // source.up
        widths = _pieces(last - first + 1)
        k = (first + np.arange(sum(widths))) * source.up - begin - fine[:, None]
        firsts.append(first)
        pieces.append(widths)
        matrices.append(_band(source.taps, k))

    block = min(_BLOCK, _power_of_two(channels))
    stripes, blocks = pl.cdiv(sink.shape[1], columns), pl.cdiv(channels, block)
    chunks = max(1, min(sink.shape[0] // _CHUNK, _PROGRAMS // (n * stripes * blocks)))
    chunk = -(-sink.shape[0] // chunks)
    chunk += -chunk % together
    tiling = _Tiling(columns, together, chunk, block, tuple(firsts), tuple(pieces))
    return pl.pallas_call(
        functools.partial(_walk, between, sources, sink, fine_shape, tiling, _dot),
        out_shape=jax.ShapeDtypeStruct((n, *sink.shape, channels), dtype),
        grid=(blocks, stripes, n * pl.cdiv(sink.shape[0], chunk)),
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="filtered_lrelu",
    )(*images, *(_parts(m, dtype) for m in matrices), _parts(sink_matrix, dtype))


def _up_source(op: Nonlinearity) -> _Source:
    left, _, top, _ = op.padding
    # Upsampling keeps the mean brightness: gain up on each axis.
    return _Source(tuple(tap * op.up for tap in op.up_taps), op.up, (top, left))


def _activate(op: Nonlinearity, u):
    y = jnp.where(u > 0, u, op.slope * u) * op.gain
    return y if op.clamp is None else jnp.clip(y, -op.clamp, op.clamp)


def _derivative(op: Nonlinearity, u):
    """Of `_activate`."""
    slope = jnp.where(u > 0, op.gain, op.slope * op.gain)
    return slope if op.clamp is None else jnp.where(jnp.abs(u * slope) < op.clamp, slope, 0)


def _plain(x: jax.Array, op: Nonlinearity) -> jax.Array:
    """The same by `jaxface.ops.filters`, which can be differentiated twice."""
    x = filters.upfirdn2d(x, np.asarray(op.up_taps), op.up, 1, op.padding, True, op.up**2)
    return filters.upfirdn2d(_activate(op, x), np.asarray(op.down_taps), 1, op.down, 0, True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def filtered_lrelu(x: jax.Array, op: Nonlinearity, interpret: bool) -> jax.Array:
    """[N, H, W, C] float32, bfloat16 or float16 -> [N, *op.out_size(H, W), C] of the same type.

    Differentiable twice in reverse mode.

    Args:
      interpret: run on any backend, slowly; without it on an NVIDIA GPU.

    Raises:
      ValueError: the image is smaller than the filters.
    """
    shape = x.shape[1:3]
    size = op.out_size(*shape)
    if min(size) < 1:
        raise ValueError(f"{shape[0]} x {shape[1]} pixels are fewer than the filters' taps need")
    sink = _Sink(op.down_taps, op.down, (0, 0), size)
    between = lambda fine: _activate(op, fine[0])
    return _call(between, [_up_source(op)], [x], sink, op.fine_size(*shape), interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _backward(x: jax.Array, g: jax.Array, op: Nonlinearity, interpret: bool) -> jax.Array:
    """Gradient with respect to x, for a gradient g of the result."""
    up, shape = _up_source(op), x.shape[1:3]
    from_g = _Source(op.down_taps[::-1], op.down, (len(op.down_taps) - 1,) * 2)
    last = len(op.up_taps) - 1
    sink = _Sink(up.taps[::-1], op.up, (last - up.offset[0], last - up.offset[1]), shape)
    between = lambda fine: fine[1] * _derivative(op, fine[0])
    return _call(between, [up, from_g], [x, g], sink, op.fine_size(*shape), interpret)


def _plain_backward(x, g, op):
    return jax.vjp(lambda x: _plain(x, op), x)[1](g)[0]


filtered_lrelu.defvjp(
    lambda x, op, interpret: (filtered_lrelu(x, op, interpret), x),
    lambda op, interpret, x, g: (_backward(x, g, op, interpret),),
)
_backward.defvjp(
    lambda x, g, op, interpret: (_backward(x, g, op, interpret), (x, g)),
    lambda op, _, saved, gg: jax.vjp(lambda x, g: _plain_backward(x, g, op), *saved)[1](gg),
)
