"""Convolution in the form that is fastest where it runs.

`convolution` stands where `jax.lax.conv_general_dilated` would, and `transposed` is its transpose to an
image. On accelerators both are lax's. XLA on CPU is as good as any at dense convolutions, and several times
slower at what JAX makes of the gradients of strided ones. There, a convolution whose kernel is a multiple of
its stride becomes a dense one: the pixels of a stride become channels, of the image as of the kernel (space
to depth). A dense one of 2 to 4 taps takes a third or a quarter of the multiplications (`winograd`), where
its image and channels are large enough for that to pay; one of a single tap is a matrix product. `_form` says
which of the others is taken where.

The forms are closed under differentiation in reverse mode, so that gradients of gradients (R1, gradient
penalties) take them too; on CPU there is no forward mode.

Images are [N, H, W, C], kernels [h, w, inputs, outputs].
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxface.ops import winograd

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
LARGE = 2**24  # multiplications from which on a convolution is worth the many ops that a form is
MOVING = 60  # multiplications that take as long as bringing a number into Winograd's form and back


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
    if (
        not dense
        or numbers(dimension_numbers) != numbers(DIMENSIONS)
        or jax.default_backend() != "cpu"
    ):
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
    sides, size = x.shape[1:3], kernel.shape[:2]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(sides, size, strides, padding)
    padding = tuple((int(before), int(after)) for before, after in padding)
    if tuple(size) == (1, 1) and not any(map(any, padding)):
        # A third to a half of the time that the kernel gradient takes as a convolution.
        x = x[:, :: strides[0], :: strides[1]]
        return jnp.matmul(x.reshape(-1, x.shape[3]), kernel[0, 0], precision=precision).reshape(
            *x.shape[:3], -1
        )
    return _conv(_Geometry(tuple(strides), padding, sides, size, precision), x, kernel)


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
    """Chooses "lax", "dense" or "winograd" for n images of so many channels; nothing else does.

    Milliseconds of CPU time, forward, image gradient, kernel gradient (float32, jaxlib 0.10.2, 2 CPU cores):

      images       kernel, stride     lax             dense          Winograd
      2 x 128 px   4x4  64-128, 2      26  36  75     30  27  42     20  19  26
      2 x 64 px    4x4 128-256, 2      30  46  68     27  30  31     24  27  29
      2 x 128 px   4x4  64-256, 2      62  76 125     59  64  69     31  28  39
      2 x 32 px    4x4 256-1024, 2     68 127  76     71 106  67     84 104 102    taken: dense
      2 x 32 px    4x4 256-512, 1     111 139 151                    50  56  49
      1 x 34 px    3x3 256-256, 1      17  20  16                    13  15  12
      8 x 56 px    3x3  64-64, 1       28  26  42                    15  18  25
      8 x 28 px    3x3 128-128, 1      25  24  30                    10  17  18
      8 x 7 px     3x3 512-512, 1      30  37  27                    33  52  33    taken: lax

    lax's is PyTorch's speed, a core's share of it, where there is no stride. Sums of shifted products and
    im2col are slower than lax's at every one of these, 3 times at 64 channels.
    """
    if not isinstance(n, int):  # a program that is exported, for any batch and other machines
        return "lax"
    (height, width), (rows, columns) = geometry.result, geometry.kernel
    direct = n * height * width * rows * columns * inputs * outputs  # multiplications
    divides = all(k % s == 0 for k, s in zip(geometry.kernel, geometry.stride))
    if jax.default_backend() != "cpu" or direct < LARGE or not divides:
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
    if _form(geometry, x.shape[0], *kernel.shape[2:], x.dtype) != "winograd":
        return _lax(geometry, x, kernel)
    return winograd.correlate(_image_to_depth(geometry, x), _kernel_to_depth(geometry, kernel), 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _to_image(geometry, g, kernel):
    """The transpose in the image. [N, H', W', O], [h, w, I, O] -> [N, H, W, I]"""
    form = _form(geometry, g.shape[0], *kernel.shape[2:], g.dtype)
    if form == "lax":
        x = jax.ShapeDtypeStruct((g.shape[0], *geometry.image, kernel.shape[2]), g.dtype)
        return jax.linear_transpose(lambda x: _lax(geometry, x, kernel), x)(g)[0]
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
    # Padding of 2 and more costs XLA on CPU 30 times as much here as the same written out.
    if max(max(pair) for pair in geometry.padding) > 1:
        x = _padded(x, geometry.padding)
        geometry = geometry._replace(padding=((0, 0), (0, 0)), image=x.shape[1:3])
    kernel = jax.ShapeDtypeStruct((*geometry.kernel, x.shape[3], g.shape[3]), x.dtype)
    return jax.linear_transpose(lambda kernel: _lax(geometry, x, kernel), kernel)(g)[0]


# ---- pixels of a stride as channels ------------------------------------------------------------


def _padded(x, pads):
    """[N, H, W, C] with zeros around it; less of it where a number is negative."""
    edges = ((0, 0, 0), *((before, after, 0) for before, after in pads), (0, 0, 0))
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
