"""Convolution in the form that is fastest where it runs.

`convolution` stands where `jax.lax.conv_general_dilated` would, `correlate` where one is differentiated
twice, and `transposed` is the transpose to an image. On accelerators, and where few ops are asked for
(`here`), all are lax's. XLA on CPU is as good as any at dense convolutions of large images, and several times
slower at the rest, above all at what JAX makes of gradients. There

- a kernel of one pixel is a matrix product;
- for few pixels the image becomes a matrix, of which a row is what the kernel meets at a pixel ("columns", as
  im2col): all else would move the kernel, of 16 MiB in the depth of a U-Net, into another order;
- a convolution whose kernel is a multiple of its stride becomes a dense one: the pixels of a stride become
  channels, of the image as of the kernel (space to depth);
- a dense one of 2 to 4 taps takes a third or a quarter of the multiplications (`winograd`), where its image
  and channels are large enough for that to pay.

`_form` says which is taken where. The forms are closed under differentiation in reverse mode, so that
gradients of gradients (R1, gradient penalties) take them too; on CPU, and in `correlate` and `transposed`,
there is no forward mode.

Images are [N, H, W, C], kernels [h, w, inputs, outputs].
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxface.ops import winograd
from jaxface.ops.here import for_cpu
from jaxface.ops.materialize import materialize

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
LARGE = 2**24  # multiplications from which on a convolution is worth the many ops that a form is
HEAVY = 2**18  # numbers of a kernel that no longer stay in a core's cache,
FEW = 512  # and pixels of all results up to which the image is the smaller array to move
MOVING = 100  # multiplications that take as long as bringing a number into Winograd's form and back


class _Geometry(NamedTuple):
    """What a convolution is besides its arrays; pairs are of rows and columns."""

    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]  # before and after
    image: tuple[int, int]  # sides of the input
    kernel: tuple[int, int]
    precision: Any

    @property
    def result(self) -> tuple[int, int]:
        """Sides of the output."""
        return tuple(
            (side + sum(padding) - size) // stride + 1
            for side, padding, size, stride in zip(
                self.image, self.padding, self.kernel, self.stride
            )
        )


def convolution(
    x: jax.Array,
    kernel: jax.Array,
    strides=(1, 1),
    padding="VALID",
    *,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=DIMENSIONS,
    feature_group_count: int = 1,
    precision=None,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` with the arguments that flax's `nn.Conv` gives it.

    [N, H, W, I], [h, w, I, O] -> [N, H', W', O]. What is dilated, grouped or laid out otherwise is lax's
    own on every machine.
    """
    dense = x.ndim == 4 and feature_group_count == 1
    dense &= all(d is None or set(d) == {1} for d in (lhs_dilation, rhs_dilation))
    numbers = functools.partial(jax.lax.conv_dimension_numbers, x.shape, kernel.shape)
    if not (dense and for_cpu(x.shape)) or numbers(dimension_numbers) != numbers(DIMENSIONS):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
            dimension_numbers=dimension_numbers,
            feature_group_count=feature_group_count,
            precision=precision,
        )
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    padding = tuple((int(before), int(after)) for before, after in padding)
    return _any(x, kernel, tuple(strides), padding, precision)


def _any(x, kernel, strides, padding, precision):
    size = kernel.shape[:2]
    if tuple(size) == (1, 1) and not any(map(any, padding)):
        x, strides = x[:, :: strides[0], :: strides[1]], (1, 1)
    return _conv(_Geometry(strides, padding, x.shape[1:3], size, precision), x, kernel)


def correlate(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    """A convolution whose gradients are differentiated too. [N, H, W, I], [h, w, I, O] -> [N, H', W', O]

    Left to itself, JAX makes of the gradient's gradient convolutions that are dilated on both sides, for
    which XLA has no fast code on CPU (5 to 7 times slower than these). In reverse mode only, everywhere.

    Args:
      stride, padding: alike on all sides.
    """
    return _any(x, kernel, (stride,) * 2, ((padding,) * 2,) * 2, None)


def transposed(y: jax.Array, kernel: jax.Array, stride: int, padding: int, sides) -> jax.Array:
    """The transpose of a convolution in its image: [N, h, w, O], [kh, kw, I, O] -> [N, H, W, I]

    Args:
      y: of the size that the convolution makes of `sides`.
      kernel: of the convolution.
      stride, padding: of the convolution, alike on all sides.
      sides: (H, W) of its input.
    """
    pads = ((padding, padding),) * 2
    geometry = _Geometry((stride,) * 2, pads, tuple(sides), kernel.shape[:2], None)
    if geometry.result != y.shape[1:3]:
        raise ValueError(f"a convolution makes {geometry.result} of {sides}, not {y.shape[1:3]}")
    return _to_image(geometry, y, kernel)


def _form(geometry: _Geometry, n: int, inputs: int, outputs: int, dtype) -> str:
    """Chooses "product", "columns", "lax", "dense" or "winograd" for n images of so many channels.

    Milliseconds forward, of image gradient and of kernel gradient (float32, jaxlib 0.10.2, 2 cores of an
    Intel Xeon with AVX-512), * the form that is taken:

      images       kernel, stride     lax             dense           columns          Winograd
      2 x 128 px   4x4  64-128, 2      7  12  20       7   8  11      14  25  19       8   6  10 *
      2 x 64 px    4x4 128-256, 2      7  10  11       6   7   8 *     9  13  12       8   7   7
      2 x 32 px    4x4 256-512, 2      7  10   9       7  12   8       9   9   8 *    16  20  10
      2 x 16 px    4x4 512-1024, 2     9  23  10      10  53   9      11   8   7 *    47  73  47
      2 x 8 px     4x4 512-512, 2      2   5   2       2  19   2       2   1   2 *    16  31  26
      2 x 4 px     4x4 512-512, 2      1  30   2       1  17   2       1   1   1 *    17  31  26
      2 x 32 px    4x4 256-512, 1     23  28  24                      28  51  32      11  16  12 *
      4 x 84 px    3x3  64-64, 1       7   7  13 *                    24  29  36       8   7  11
      8 x 28 px    3x3 128-128, 1      6   6   8                      10  16  16       4   5   5 *
      8 x 7 px     3x3 512-512, 1      7   9   7                       8   7   7 *     7  12   4
      4 x 36 px    3x3 512-512, 1     79  74  84                     112 192 118      38  43  41 *

    With AVX2 products are half as fast and Winograd's form gains more, from 64 channels on: 15, 18 and 25 ms
    of 28, 26 and 42 for 8 x 56 px. One rule for both, and for the 60 ops that this form has to compile.
    """
    if geometry.kernel == geometry.stride == (1, 1) and not any(map(any, geometry.padding)):
        return "product"
    if not for_cpu((n,)):
        return "lax"
    pixels, kernel = n * math.prod(geometry.result), math.prod(geometry.kernel) * inputs * outputs
    direct = pixels * kernel  # multiplications
    if pixels <= FEW and kernel >= HEAVY:
        return "columns"
    if direct < LARGE or any(k % s for k, s in zip(geometry.kernel, geometry.stride)):
        return "lax"
    inputs *= math.prod(geometry.stride)
    taps = {k // s for k, s in zip(geometry.kernel, geometry.stride)}
    if len(taps) == 1 and taps <= winograd.TAPS and dtype != jnp.bfloat16:
        tiles = n * math.prod(winograd.tiles(geometry.result, *taps))
        moved = tiles * inputs + tiles * outputs + inputs * outputs
        if winograd.POINTS * (tiles * inputs * outputs + MOVING * moved) < direct:
            return "winograd"
    return "lax" if geometry.stride == (1, 1) else "dense"


# ---- three functions, bilinear and each other's gradients --------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(geometry, x, kernel):
    """[N, H, W, I], [h, w, I, O] -> [N, H', W', O]"""
    form = _form(geometry, x.shape[0], *kernel.shape[2:], x.dtype)
    if form in ("lax", "dense"):
        return _lax(geometry, x, kernel)
    if form == "winograd":
        depth = _kernel_to_depth(geometry, kernel)
        return winograd.correlate(_image_to_depth(geometry, x), depth, 0)
    y = _product(geometry, _rows(geometry, form, x), _matrix(kernel))
    return y.reshape(x.shape[0], *geometry.result, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _to_image(geometry, g, kernel):
    """The transpose in the image. [N, H', W', O], [h, w, I, O] -> [N, H, W, I]"""
    form = _form(geometry, g.shape[0], *kernel.shape[2:], g.dtype)
    shape = (g.shape[0], *geometry.image, kernel.shape[2])
    if form == "lax":
        x = jax.ShapeDtypeStruct(shape, g.dtype)
        return jax.linear_transpose(lambda x: _lax(geometry, x, kernel), x)(g)[0]
    if form == "product":
        back = materialize(_matrix(kernel).T)
        return _product(geometry, g.reshape(-1, g.shape[3]), back).reshape(shape)
    if form == "columns":
        # So and not the other way round: XLA is 3 to 8 times slower at products with a large transpose.
        columns = _product(geometry, _matrix(kernel), g.reshape(-1, g.shape[3]).T)
        x = jax.ShapeDtypeStruct((shape[3], *shape[:3]), g.dtype)
        (x,) = jax.linear_transpose(lambda x: _columns(geometry, x), x)(columns)
        return materialize(x.transpose(1, 2, 3, 0))
    back = _kernel_to_depth(geometry, kernel)[::-1, ::-1].swapaxes(2, 3)
    if form == "winograd":
        x = winograd.correlate(g, back, len(back) - 1)
    else:
        around = _padded(g, [(size - 1, size - 1) for size in back.shape[:2]])
        x = _lax(_dense(around, back), around, back)
    return _image_from_depth(geometry, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _to_kernel(geometry, x, g):
    """The transpose in the kernel. [N, H, W, I], [N, H', W', O] -> [h, w, I, O]"""
    form = _form(geometry, x.shape[0], x.shape[3], g.shape[3], x.dtype)
    if form in ("product", "columns"):
        rows, g = _rows(geometry, form, x), materialize(g.reshape(-1, g.shape[3]))
        over = (((0,), (0,)), ((), ()))
        kernel = jax.lax.dot_general(rows, g, over, precision=geometry.precision)
        return kernel.reshape(*geometry.kernel, x.shape[3], -1)
    if form == "lax":
        return _lax_to_kernel(geometry, x, g)
    x = _image_to_depth(geometry, x)
    if form == "winograd":
        kernel = winograd.kernel_gradient(x, g, 0)
    else:
        taps = [size // stride for size, stride in zip(geometry.kernel, geometry.stride)]
        blank = jax.ShapeDtypeStruct((*taps, x.shape[3], g.shape[3]), x.dtype)
        kernel = _lax_to_kernel(_dense(x, blank), x, g)
    return _kernel_from_depth(geometry, kernel)


def _keeping(function):
    return lambda geometry, *arrays: (function(geometry, *arrays), arrays)


def _conv_backward(geometry, saved, g):
    x, kernel = saved
    return _to_image(geometry, g, kernel), _to_kernel(geometry, x, g)


def _to_image_backward(geometry, saved, x):
    g, kernel = saved
    return _conv(geometry, x, kernel), _to_kernel(geometry, x, g)


def _to_kernel_backward(geometry, saved, kernel):
    x, g = saved
    return _to_image(geometry, g, kernel), _conv(geometry, x, kernel)


_conv.defvjp(_keeping(_conv), _conv_backward)
_to_image.defvjp(_keeping(_to_image), _to_image_backward)
_to_kernel.defvjp(_keeping(_to_kernel), _to_kernel_backward)


# ---- lax's own forms ---------------------------------------------------------------------------


def _lax(geometry, x, kernel):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        geometry.stride,
        geometry.padding,
        dimension_numbers=DIMENSIONS,
        precision=geometry.precision,
    )


def _lax_to_kernel(geometry, x, g):
    if for_cpu(x.shape):
        # XLA brings the image into another order first. With padding, or with what made the image, inside
        # that op it takes 5 to 7 times as long; with padding of 2 and more inside the convolution 30 times.
        x = materialize(_padded(x, geometry.padding))
        geometry = geometry._replace(padding=((0, 0), (0, 0)), image=x.shape[1:3])
    kernel = jax.ShapeDtypeStruct((*geometry.kernel, x.shape[3], g.shape[3]), x.dtype)
    return jax.linear_transpose(lambda kernel: _lax(geometry, x, kernel), kernel)(g)[0]


# ---- matrix products ---------------------------------------------------------------------------


def _matrix(kernel):
    """[h, w, I, O] -> [h w I, O]"""
    return kernel.reshape(-1, kernel.shape[3])


def _product(geometry, a, b):
    return jnp.matmul(a, b, precision=geometry.precision)


def _rows(geometry, form, x):
    """[N, H, W, I] -> [N H' W', h w I]: what the kernel meets at every pixel of the result."""
    if form == "columns":
        x = jnp.concatenate(_under(geometry, materialize(x), 1), 3)
    return materialize(x.reshape(-1, x.shape[3]))


def _columns(geometry, x):
    """[I, N, H, W] -> [h w I, N H' W']"""
    under = jnp.stack(_under(geometry, x, 2))
    return under.reshape(-1, math.prod(under.shape[2:]))


def _under(geometry, x, axis):
    """By pixel of the kernel, what it meets everywhere; H and W are `axis` and the one behind it."""
    x = _padded(x, _seen(geometry), axis)
    (height, width), (s, t), (rows, columns) = geometry.result, geometry.stride, geometry.kernel
    by_row = lambda i: jax.lax.slice_in_dim(x, i, i + (height - 1) * s + 1, s, axis)
    by_both = lambda x, j: jax.lax.slice_in_dim(x, j, j + (width - 1) * t + 1, t, axis + 1)
    return [by_both(by_row(i), j) for i in range(rows) for j in range(columns)]


# ---- pixels of a stride as channels ------------------------------------------------------------


def _padded(x, pads, axis=1):
    """With zeros around H and W, `axis` and the one behind it; less of them where a number is negative."""
    edges = [(0, 0, 0)] * 4
    edges[axis : axis + 2] = ((before, after, 0) for before, after in pads)
    return jax.lax.pad(x, jnp.zeros([], x.dtype), edges)


def _dense(x, kernel) -> _Geometry:
    """Without stride and padding."""
    return _Geometry((1, 1), ((0, 0), (0, 0)), x.shape[1:3], kernel.shape[:2], None)


def _seen(geometry) -> list[tuple[int, int]]:
    """What to add around an image to have just the pixels that the convolution meets, by axis."""
    return [
        (before, (result - 1) * stride + size - before - side)
        for (before, _), result, stride, size, side in zip(
            geometry.padding, geometry.result, geometry.stride, geometry.kernel, geometry.image
        )
    ]


def _to_depth(x, stride):
    """[N, s H, t W, C] -> [N, H, W, s t C]"""
    n, height, width, channels = x.shape
    s, t = stride
    x = x.reshape(n, height // s, s, width // t, t, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // s, width // t, -1)


def _from_depth(x, stride):
    """The inverse of `_to_depth`."""
    n, height, width, channels = x.shape
    s, t = stride
    x = x.reshape(n, height, width, s, t, channels // (s * t))
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height * s, width * t, -1)


def _image_to_depth(geometry, x):
    return _to_depth(_padded(x, _seen(geometry)), geometry.stride)


def _image_from_depth(geometry, x):
    """The transpose of `_image_to_depth`."""
    cut = [(-before, -after) for before, after in _seen(geometry)]
    return _padded(_from_depth(x, geometry.stride), cut)


def _kernel_to_depth(geometry, kernel):
    """[s h, t w, I, O] -> [h, w, s t I, O]"""
    (s, t), (height, width, inputs, outputs) = geometry.stride, kernel.shape
    kernel = kernel.reshape(height // s, s, width // t, t, inputs, outputs)
    return kernel.transpose(0, 2, 1, 3, 4, 5).reshape(height // s, width // t, -1, outputs)


def _kernel_from_depth(geometry, kernel):
    """The inverse of `_kernel_to_depth`."""
    (s, t), (height, width, inputs, outputs) = geometry.stride, kernel.shape
    kernel = kernel.reshape(height, width, s, t, inputs // (s * t), outputs)
    return kernel.transpose(0, 2, 1, 3, 4, 5).reshape(height * s, width * t, -1, outputs)
