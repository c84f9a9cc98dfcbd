"""Low-pass filters and resampling of images, and StyleGAN's modulated convolution.

StyleGAN3 (arXiv 2106.12423, section 3 and appendix C) upsamples, applies its nonlinearity and
downsamples with designed filters in every layer, so a generator spends most of its time here. A
depthwise convolution over zero-stuffed pixels is 50-170 times slower than needed on CPU; instead
each axis is filtered alone, each output phase reads only the samples that are not zero, and the
gradient is written by hand: the adjoint of upsample-filter-downsample is the same operation with
the two factors exchanged and the filter reversed, so it can be differentiated any number of times
(in reverse mode; there is no forward mode). A filter that is a traced value, as in a blur that
fades during training, is applied as a matrix product instead, as are all where few ops are asked for:
two in place of three for each tap.

Images are [N, H, W, C] of any float type; taps are applied in at least float32.
"""

import contextlib
import contextvars
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from jaxface.ops import channels
from jaxface.ops.conv import correlate
from jaxface.ops.here import few_ops

# What policies of `jax.checkpoint` call the convolution of `modulated_conv2d`.
CONVOLVED = "convolved"

_RANK_TOLERANCE = 1e-8  # singular values below this part of the largest are rounding


def _kaiser_beta(numtaps: int, width: float) -> float:
    """Kaiser's window parameter for a transition band `width` in units of the Nyquist rate."""
    attenuation = 2.285 * (numtaps - 1) * math.pi * width + 7.95
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0


def _bessel_j1(x: np.ndarray) -> np.ndarray:
    """Bessel function J1 by Bessel's integral; the trapezoid rule is exact on a smooth period."""
    theta = (np.arange(256) + 0.5) * (np.pi / 256)
    return np.cos(theta - np.asarray(x)[..., None] * np.sin(theta)).mean(-1)


def design_lowpass_filter(
    numtaps: int, cutoff: float, width: float, fs: float, radial: bool = False
) -> np.ndarray | None:
    """Low-pass filter of unit gain at zero frequency, by Kaiser's method.

    Args:
      numtaps: filter length; 1 means no filter.
      cutoff: cutoff frequency, where the response is one half, in the unit of `fs`.
      width: full width of the transition band, in the unit of `fs`.
      fs: sampling rate.
      radial: a 2-D filter with a circular pass band (jinc times the window of each axis).

    Returns:
      float32 [numtaps], [numtaps, numtaps] when radial, None for one tap.

    Reference: Karras et al. 2021 (arXiv 2106.12423), appendix C.1; Kaiser 1974.
    """
    if numtaps == 1:
        return None
    position = (np.arange(numtaps) - (numtaps - 1) / 2) / fs
    window = np.kaiser(numtaps, _kaiser_beta(numtaps, width / (fs / 2)))
    if radial:
        radius = np.maximum(np.hypot(*np.meshgrid(position, position)), 1e-12)
        taps = _bessel_j1(2 * np.pi * cutoff * radius) / radius * np.outer(window, window)
    else:
        taps = np.sinc(2 * cutoff * position) * window
    return (taps / taps.sum()).astype(np.float32)


def setup_filter(
    f,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> np.ndarray:
    """Taps as a float32 filter: 1-D where it is applied per axis, else its 2-D outer product.

    Args:
      f: list or array, 1-D or 2-D; None or a number is a single tap.
      normalize: divide by the sum, so that the gain at zero frequency is `gain`.
      separable: keep 1-D taps 1-D; by default from 8 taps on.
    """
    f = np.atleast_1d(np.asarray(1.0 if f is None else f, np.float32))
    if separable is None:
        separable = f.ndim == 1 and f.size >= 8
    if f.ndim == 1 and not separable:
        f = np.outer(f, f)
    if normalize:
        f = f / f.sum()
    if flip_filter:
        f = np.flip(f)
    return np.asarray(f * gain ** (f.ndim / 2), np.float32)


class _Fir(NamedTuple):
    """y[o] = sum over k of taps[k] * u[o * down + k - offset], u[i * up] = x[i], zero elsewhere."""

    taps: tuple[float, ...]
    up: int
    down: int
    offset: int
    n_in: int
    n_out: int
    axis: int
    second: bool  # of the two passes over an image

    def adjoint(self) -> "_Fir":
        return _Fir(
            self.taps[::-1],
            self.down,
            self.up,
            len(self.taps) - 1 - self.offset,
            self.n_out,
            self.n_in,
            self.axis,
            not self.second,
        )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _fir(x: jax.Array, spec: _Fir) -> jax.Array:
    """Filters one axis."""
    return _by_phases(x, spec)


# Under jit, to be traced once for all that filter alike, and written in `lax`: else half of the time that a
# training step takes to trace goes here.
@functools.partial(jax.jit, static_argnums=1)
def _by_phases(x: jax.Array, spec: _Fir) -> jax.Array:
    """Filters one axis, phase by phase."""
    taps, up, down, offset, n_in, n_out, axis, second = spec
    common = math.gcd(up, down)
    phases, stride = up // common, down // common
    if phases == 1 and second and len(taps) >= 8:
        # XLA would compute the first pass anew for every tap; it stops at 16 readers, so there
        # are two phases of readers (3.4 ms less of 7.9 for a layer of 36 px and 64 channels).
        phases, stride = 2, 2 * stride
    count = -(-n_out // phases)
    reads = [  # per phase: (tap, index of the first sample it reads)
        [
            (tap, (q * down + k - offset) // up)
            for k, tap in enumerate(taps)
            if (q * down + k - offset) % up == 0 and tap != 0
        ]
        for q in range(phases)
    ]
    starts = [start for phase in reads for _, start in phase]
    low = min(starts, default=0)
    high = max(starts, default=0) + (count - 1) * stride + 1
    exact = jnp.promote_types(x.dtype, jnp.float32)
    widths = [(0, 0, 0)] * x.ndim
    widths[axis] = (-low, high - n_in, 0)  # negative widths crop
    # Without this XLA computes what made x again for every tap, which doubles a backward pass.
    x = jax.lax.optimization_barrier(x)
    padded = jax.lax.pad(x, np.zeros((), x.dtype), widths)
    padded = jax.lax.convert_element_type(padded, exact)

    def phase(taps_and_starts):
        same = {}  # symmetric taps: add first, multiply once
        for tap, start in taps_and_starts:
            first = start - low
            samples = jax.lax.slice_in_dim(
                padded, first, first + (count - 1) * stride + 1, stride, axis
            )
            same[tap] = jax.lax.add(same[tap], samples) if tap in same else samples
        weigh = lambda tap, samples: jax.lax.mul(samples, jax.lax.full_like(samples, tap))
        terms = [weigh(tap, samples) for tap, samples in same.items()]
        if not terms:
            shape = list(x.shape)
            shape[axis] = count
            return jnp.zeros(shape, x.dtype)
        return jax.lax.convert_element_type(functools.reduce(jax.lax.add, terms), x.dtype)

    outputs = [phase(p) for p in reads]
    if phases == 1:
        return outputs[0]
    shape = list(x.shape)
    shape[axis] = count * phases
    y = jnp.stack(outputs, axis + 1).reshape(shape)
    return jax.lax.slice_in_dim(y, 0, n_out, axis=axis)


_fir.defvjp(
    lambda x, spec: (_fir(x, spec), None),
    lambda spec, _, g: (_fir(g, spec.adjoint()),),
)


def _as_product(x: jax.Array, taps, spec: _Fir) -> jax.Array:
    """The same as a product with the banded matrix that the taps form, NumPy's or a traced value."""
    xp = jnp if isinstance(taps, jax.core.Tracer) else np
    i, o = np.arange(spec.n_in), np.arange(spec.n_out)
    k = i[None, :] * spec.up + spec.offset - o[:, None] * spec.down
    inside = (k >= 0) & (k < len(taps))
    exact = jnp.promote_types(x.dtype, jnp.float32)
    matrix = xp.where(inside, taps.astype(exact)[np.clip(k, 0, len(taps) - 1)], xp.zeros([], exact))
    over = (((1,), (spec.axis,)), ((), ()))
    y = jax.lax.dot_general(matrix, x.astype(exact), over, precision=jax.lax.Precision.HIGHEST)
    order = list(range(1, x.ndim))
    order.insert(spec.axis, 0)
    return jax.lax.transpose(y, order).astype(x.dtype)


def _filter_axis(x, taps, up, down, pad, axis, second):
    """Correlates one axis with `taps` (NumPy or traced)."""
    n_in, traced = x.shape[axis], isinstance(taps, jax.core.Tracer)
    n_out = (n_in * up + pad[0] + pad[1] - len(taps)) // down + 1
    if not traced and taps.tolist() == [1.0] and up == down == 1 and tuple(pad) == (0, 0):
        return x
    if n_out < 1:
        raise ValueError(
            f"{n_in} pixels, up {up}, padding {pad} are fewer than the {len(taps)} filter taps"
        )
    spec = _Fir(() if traced else tuple(taps.tolist()), up, down, pad[0], n_in, n_out, axis, second)
    return _as_product(x, taps, spec) if traced or few_ops() else _fir(x, spec)


@functools.lru_cache(maxsize=256)
def _separable_terms(data: bytes, shape: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """A 2-D filter as a sum of (vertical, horizontal) pairs, the way that has fewer taps.

    An outer product has one singular vector; the rows of a radial filter are alike in pairs.
    """
    f = np.frombuffer(data, np.float64).reshape(shape)
    u, s, v = np.linalg.svd(f)
    keep = np.flatnonzero(s > _RANK_TOLERANCE * max(s[0], 1e-300))
    by_rank = [(u[:, i] * s[i], v[i]) for i in keep]
    rows, which = np.unique(f, axis=0, return_inverse=True)
    by_row = [((which.ravel() == i).astype(float), row) for i, row in enumerate(rows)]
    return min(
        by_rank, by_row, key=lambda pairs: sum(np.count_nonzero(taps) for p in pairs for taps in p)
    )


def _parse_padding(padding) -> tuple[int, int, int, int]:
    """An int for all sides, [x, y], or [left, right, top, bottom]."""
    if isinstance(padding, int | np.integer):
        padding = [padding] * 4
    if len(padding) == 2:
        padding = [padding[0], padding[0], padding[1], padding[1]]
    left, right, top, bottom = (int(p) for p in padding)
    return left, right, top, bottom


def _parse_filter(f):
    """None, NumPy, list or jax array -> float64 NumPy, or the traced array."""
    if isinstance(f, jax.core.Tracer):
        if f.ndim != 1:
            raise TypeError("a 2-D filter must be known when the program is traced")
        return f
    return np.ones(1) if f is None else np.asarray(f, np.float64)


def upfirdn2d(
    x: jax.Array,
    f,
    up: int = 1,
    down: int = 1,
    padding=0,
    flip_filter: bool = False,
    gain: float = 1,
) -> jax.Array:
    """Upsamples with zeros, pads or crops, convolves, and keeps every `down`-th pixel.

    Args:
      x: [N, H, W, C].
      f: None (identity), taps of both axes [K], or a 2-D filter [Kh, Kw] (not traced).
      padding: int, [x, y] or [left, right, top, bottom] after upsampling; negative crops.
      flip_filter: correlate instead of convolving.
      gain: factor on the result; upsampling keeps the mean brightness with `up ** 2`.

    Returns:
      [N, (H * up + top + bottom - Kh) // down + 1, likewise, C], the dtype of `x`.

    Raises:
      ValueError: the padded image is smaller than the filter.
      TypeError: a 2-D filter that is a traced value.

    Reference: Karras et al. 2020 (arXiv 1912.04958), figure 2. A 2-D filter is a sum of separable
    ones: its distinct rows (a radial filter of 12 taps has 6) or its singular vectors.
    """
    left, right, top, bottom = _parse_padding(padding)
    f = _parse_filter(f)
    if not flip_filter:
        f = f[::-1] if f.ndim == 1 else f[::-1, ::-1]
    if f.ndim == 1:
        terms = [(f, f * gain)]
    else:
        f = f * gain
        terms = _separable_terms(np.ascontiguousarray(f).tobytes(), f.shape)
    y = None
    for vertical, horizontal in terms:
        if f.ndim == 2 and down > 1:  # the pass of few taps first, at the higher resolution
            part = _filter_axis(x, vertical, up, down, (top, bottom), 1, False)
            part = _filter_axis(part, horizontal, up, down, (left, right), 2, True)
        else:
            part = _filter_axis(x, horizontal, up, down, (left, right), 2, False)
            part = _filter_axis(part, vertical, up, down, (top, bottom), 1, True)
        y = part if y is None else y + part
    return y


def _taps(f) -> tuple[int, int]:
    """Height and width of a filter; separable taps are as long both ways."""
    shape = (1,) if f is None else np.shape(f)
    return (shape[0], shape[0]) if len(shape) == 1 else shape


def upsample2d(x, f, up: int = 2, padding=0, flip_filter: bool = False, gain: float = 1):
    """Enlarges `up` times, keeping brightness. [N, H, W, C] -> [N, H * up, W * up, C]

    `padding` adds to the amounts that centre the filter.
    """
    left, right, top, bottom = _parse_padding(padding)
    height, width = _taps(f)
    padding = (
        left + (width + up - 1) // 2,
        right + (width - up) // 2,
        top + (height + up - 1) // 2,
        bottom + (height - up) // 2,
    )
    return upfirdn2d(x, f, up, 1, padding, flip_filter, gain * up**2)


def downsample2d(x, f, down: int = 2, padding=0, flip_filter: bool = False, gain: float = 1):
    """Shrinks `down` times. [N, H, W, C] -> [N, H / down, W / down, C]; see `upsample2d`."""
    left, right, top, bottom = _parse_padding(padding)
    height, width = _taps(f)
    padding = (
        left + (width - down + 1) // 2,
        right + (width - down) // 2,
        top + (height - down + 1) // 2,
        bottom + (height - down) // 2,
    )
    return upfirdn2d(x, f, 1, down, padding, flip_filter, gain)


def filter2d(x, f, padding=0, flip_filter: bool = False, gain: float = 1):
    """Filters at the same size. [N, H, W, C] -> [N, H, W, C]; see `upsample2d`."""
    left, right, top, bottom = _parse_padding(padding)
    height, width = _taps(f)
    padding = (
        left + width // 2,
        right + (width - 1) // 2,
        top + height // 2,
        bottom + (height - 1) // 2,
    )
    return upfirdn2d(x, f, 1, 1, padding, flip_filter, gain)


_ACTIVATIONS = {  # name: (function of x and alpha, default alpha, default gain)
    "linear": (lambda x, alpha: x, 0.0, 1.0),
    "relu": (lambda x, alpha: jax.nn.relu(x), 0.0, math.sqrt(2)),
    "lrelu": (lambda x, alpha: jnp.where(x > 0, x, alpha * x), 0.2, math.sqrt(2)),
    "tanh": (lambda x, alpha: jnp.tanh(x), 0.0, 1.0),
    "sigmoid": (lambda x, alpha: jax.nn.sigmoid(x), 0.0, 1.0),
    "elu": (lambda x, alpha: jax.nn.elu(x), 0.0, 1.0),
    "selu": (lambda x, alpha: jax.nn.selu(x), 0.0, 1.0),
    "softplus": (lambda x, alpha: jax.nn.softplus(x), 0.0, 1.0),
    "swish": (lambda x, alpha: jax.nn.silu(x), 0.0, math.sqrt(2)),
}


def bias_act(
    x: jax.Array,
    b: jax.Array | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> jax.Array:
    """Adds a bias [C] to the last axis, activates, multiplies by `gain` and limits to +-`clamp`.

    Args:
      act: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus or swish.
      alpha: slope of lrelu below zero, 0.2 by default.
      gain: by default the one that keeps unit variance: sqrt(2) for relu, lrelu and swish.
    """
    function, default_alpha, default_gain = _ACTIVATIONS[act]
    if b is not None:
        x = x + channels.spread(b.astype(x.dtype), x.shape)
    x = function(x, default_alpha if alpha is None else alpha)
    gain = default_gain if gain is None else gain
    x = x if gain == 1 else x * gain
    return x if clamp is None else jnp.clip(x, -clamp, clamp)


_WHOLE = contextvars.ContextVar("whole", default=False)


@contextlib.contextmanager
def whole_images():
    """Says that what is traced inside runs on one device, or on each its own part of a batch.

    Only there may it use a GPU kernel, which the compiler cannot split among devices.
    """
    token = _WHOLE.set(True)
    try:
        yield
    finally:
        _WHOLE.reset(token)


def _kernel_pays(x: jax.Array, fu, fd) -> bool:
    """Whether `jaxface.ops.fused` is the faster form: where it measured so, which it tells."""
    separable = all(np.ndim(f) == 1 and not isinstance(f, jax.core.Tracer) for f in (fu, fd))
    if not (separable and x.dtype in (jnp.bfloat16, jnp.float16) and _WHOLE.get()):
        return False
    return any(name in jax.devices()[0].device_kind for name in ("H100", "H200"))


def filtered_lrelu(
    x: jax.Array,
    fu=None,
    fd=None,
    b: jax.Array | None = None,
    up: int = 1,
    down: int = 1,
    padding=0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
) -> jax.Array:
    """Leaky ReLU at a raised sampling rate: bias, upsample, activate, downsample.

    Args:
      x: [N, H, W, C].
      fu, fd: filters before and after the nonlinearity, as in `upfirdn2d`.
      b: bias [C].
      padding: around the upsampled image, for both filters together; negative crops.
      gain, slope, clamp: of the nonlinearity.

    Returns:
      [N, (H * up + padding - (taps of fu - 1) - (taps of fd - 1) + down - 1) // down, ..., C]

    Reference: Karras et al. 2021 (arXiv 2106.12423), section 3.2, "filtered nonlinearities".
    """
    if b is not None:
        x = x + channels.spread(b.astype(x.dtype), x.shape)
    if _kernel_pays(x, fu, fd):
        from jaxface.ops import fused  # brings Pallas, which others need not wait for

        flip = slice(None, None, 1 if flip_filter else -1)
        taps = (tuple(np.asarray(f, np.float64)[flip].tolist()) for f in (fu, fd))
        op = fused.Nonlinearity(*taps, up, down, _parse_padding(padding), gain, slope, clamp)
        return fused.filtered_lrelu(x, op, False)
    x = upfirdn2d(x, fu, up, 1, padding, flip_filter, up**2)
    x = bias_act(x, None, "linear" if slope == 1 else "lrelu", slope, gain, clamp)
    return upfirdn2d(x, fd, 1, down, 0, flip_filter)


def modulated_conv2d(
    x: jax.Array,
    w: jax.Array,
    s: jax.Array,
    demodulate: bool = True,
    padding: int = 0,
    input_gain: jax.Array | float | None = None,
    axis: str | None = None,
) -> jax.Array:
    """Convolution with weights scaled per sample and input channel (cross-correlation).

    The styles scale the activations and the demodulation scales the outputs, which equals scaling
    the weights and lets the whole batch share one dense convolution.

    Args:
      x: [N, H, W, I].
      w: [Kh, Kw, I, O].
      s: styles [N, I].
      demodulate: give every output channel unit expected variance for unit inputs.
      padding: zeros on every side.
      input_gain: scalar, [I] or [N, I] factor on the inputs, outside the demodulation.
      axis: pmap axis; with demodulation the styles are first divided by their root mean square
        over the whole batch, that of all devices.

    Returns:
      [N, H + 2 * padding - Kh + 1, W + 2 * padding - Kw + 1, O], the dtype of `x`.

    Reference: Karras et al. 2020 (arXiv 1912.04958), equations 1-3; 2106.12423, appendix F.
    """
    exact = jnp.promote_types(x.dtype, jnp.float32)
    w, s = w.astype(exact), s.astype(exact)
    if demodulate:
        w = w * jax.lax.rsqrt(jnp.mean(w**2, (0, 1, 2), keepdims=True))
        mean_square = jnp.mean(s**2)
        if axis is not None:
            mean_square = jax.lax.pmean(mean_square, axis)
        s = s * jax.lax.rsqrt(mean_square)
        demodulation = jax.lax.rsqrt(
            jnp.matmul(s**2, jnp.sum(w**2, (0, 1)), precision=jax.lax.Precision.HIGHEST) + 1e-8
        )
    if input_gain is not None:
        s = s * input_gain
    x = x * channels.spread(s.astype(x.dtype), x.shape)
    w = w.astype(x.dtype)
    x = checkpoint_name(correlate(x, w, 1, padding), CONVOLVED)
    if demodulate:
        x = x * channels.spread(demodulation.astype(x.dtype), x.shape)
    return x
