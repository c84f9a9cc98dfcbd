"""Equivariance of a generator: EQ-T, EQ-T fractional and EQ-R (Karras et al. 2021, arXiv 2106.12423).

Does the picture move as a whole when the generator's input plane is moved? Section 2, equation 3:

    EQ = 10 log10( I_max² / E_{w, T, p, c} (g(T[z0]; w)_c(p) - T[g(z0; w)]_c(p))² )    in dB

with I_max = 2, p over the pixels whose value both sides know, and T a random translation of up to an
eighth of the picture's side in x and y, or a rotation by any angle. The generator does T on the left;
on the right it is done to the finished picture (appendix E):

  EQ-T          by whole pixels, exactly
  EQ-T frac     by any amount, with Lanczos windowed sinc filters, a = 3
  EQ-R          by any angle: interpolated with a Lanczos filter that turns with the picture, then
                low-passed with one along the pixel axes. What both filters pass is less than the square
                band of a picture, so the left side goes through the same two filters, unmoved.

The exact side of EQ-T leaves nothing to choose. The filters of the other two do: built from the
description alone, they let a perfectly equivariant picture of up to 0.3 cycles a pixel score 52 dB
(EQ-T frac) and 80 dB (EQ-R), of up to 0.4 cycles 33 and 45 dB. The published EQ-R ends at 48 dB.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

A = 3  # pixels that a Lanczos filter reaches to each side
FINE = 4  # samples per pixel and axis on which a rotated picture is low-passed
I_MAX = 2.0  # of pictures in [-1, 1]
SHIFT = 1 / 8  # of the picture's side, the largest translation
_REACH = 2 * A * 2**0.5  # at most, of both filters of a rotation, whatever the angle: px

Mapping = Callable[..., jax.Array]  # (z [N, z], c or None) -> ws [N, ...]
Synthesis = Callable[..., jax.Array]  # (ws, inverse affine matrices [N, 3, 3]) -> [N, H, W, C]


def _lanczos(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.abs(x) < A, jnp.sinc(x) * jnp.sinc(x / A), 0)


def _translated(image: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[H, W, C], (right, down) in pixels -> moved image and which pixels of it are known [H, W].

    The filter has a single tap where the shift is whole.
    """
    known = jnp.ones(image.shape[:2], bool)
    for axis, by in ((1, shift[0]), (0, shift[1])):
        whole = jnp.floor(by)
        taps = jnp.arange(1 - A, A + 1)
        weights = _lanczos(taps - (by - whole))
        weights = jnp.where(by == whole, taps == 0, weights / weights.sum())
        moved = jnp.zeros_like(image)
        inside = jnp.ones(image.shape[axis], bool)
        for tap, weight in zip(range(1 - A, A + 1), weights):
            # What lies at q moves to q + whole + tap; what wraps around is not known.
            step = (whole + tap).astype(int)
            moved += weight * jnp.roll(image, step, axis)
            source = jnp.arange(image.shape[axis]) - step
            inside &= (weight == 0) | ((source >= 0) & (source < image.shape[axis]))
        image = moved
        known &= inside[None, :] if axis == 1 else inside[:, None]
    return image, known


def _turn(angle: jax.Array) -> jax.Array:
    """Matrix [2, 2] from a place (x right, y down) in the turned picture to the one it came from."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.array([[cos, sin], [-sin, cos]])


def _fine_taps() -> tuple[np.ndarray, np.ndarray]:
    """Places (px) and weights of the low-pass along one axis, on the fine samples around a pixel."""
    places = (np.arange(2 * A * FINE) + 0.5) / FINE - A
    weights = np.sinc(places) * np.sinc(places / A)
    return places, weights / weights.sum()


def _rotated(image: jax.Array, angle: jax.Array) -> jax.Array:
    """[H, W, C] turned about its center and low-passed; only pixels far from the border are right."""
    height, width, _ = image.shape
    y, x = (
        (jnp.arange(side * FINE, dtype=image.dtype) + 0.5) / FINE - side / 2
        for side in (height, width)
    )
    turn = _turn(angle).astype(image.dtype)
    # Pixel coordinates that each fine sample came from; pixel i has its center at i.
    source_x = turn[0, 0] * x[None] + turn[0, 1] * y[:, None] + (width - 1) / 2
    source_y = turn[1, 0] * x[None] + turn[1, 1] * y[:, None] + (height - 1) / 2
    left, top = jnp.floor(source_x), jnp.floor(source_y)
    across = [_lanczos(source_x - left - tap) for tap in range(1 - A, A + 1)]
    down = [_lanczos(source_y - top - tap) for tap in range(1 - A, A + 1)]
    fine = 0
    for i, row in enumerate(down):
        rows = jnp.clip(top.astype(int) + i + 1 - A, 0, height - 1)
        for j, column in enumerate(across):
            columns = jnp.clip(left.astype(int) + j + 1 - A, 0, width - 1)
            fine += (row * column)[..., None] * image[rows, columns]
    fine = fine / (sum(down) * sum(across))[..., None]
    weights = jnp.asarray(_fine_taps()[1], image.dtype)
    border = A * FINE - FINE // 2
    filtered = fine.transpose(2, 0, 1)[:, None]
    for kernel, stride, padding in (
        (weights[:, None], (FINE, 1), ((border, border), (0, 0))),
        (weights[None], (1, FINE), ((0, 0), (border, border))),
    ):
        filtered = jax.lax.conv(
            jnp.pad(filtered, ((0, 0), (0, 0), *padding)),
            kernel[None, None],
            stride,
            "VALID",
            precision=jax.lax.Precision.HIGHEST,
        )
    return filtered[:, 0].transpose(1, 2, 0)


def _filtered_as_if_rotated(image: jax.Array, angle: jax.Array) -> jax.Array:
    """[H, W, C] through both filters of `_rotated`, without being moved."""
    reach = int(np.ceil(_REACH))
    pixels = jnp.arange(-reach, reach + 1, dtype=image.dtype)
    places, weights = (jnp.asarray(values, image.dtype) for values in _fine_taps())
    turn = _turn(angle).astype(image.dtype)
    # The turned filter at every distance (pixel + fine place), summed over the straight filter.
    line = (pixels[:, None] + places).reshape(-1)
    x, y = line[None], line[:, None]
    turned = _lanczos(turn[0, 0] * x + turn[0, 1] * y) * _lanczos(turn[1, 0] * x + turn[1, 1] * y)
    turned = turned.reshape(len(pixels), len(places), len(pixels), len(places))
    highest = jax.lax.Precision.HIGHEST
    kernel = jnp.einsum("iajb,a,b->ij", turned, weights, weights, precision=highest)
    kernel = (kernel / kernel.sum())[None, None]
    planes = image.transpose(2, 0, 1)[:, None]
    return jax.lax.conv(planes, kernel, (1, 1), "SAME", precision=highest)[:, 0].transpose(1, 2, 0)


def _far_from_borders(shape: tuple[int, int], angle: jax.Array) -> jax.Array:
    """Pixels [H, W] whose filters stay inside the picture, before and after it is turned."""
    y, x = ((jnp.arange(side) - (side - 1) / 2) for side in shape)
    x, y = x[None], y[:, None]
    turn = _turn(angle)
    known = True
    for across, down in (
        (x + 0 * y, y + 0 * x),
        (turn[0, 0] * x + turn[0, 1] * y, turn[1, 0] * x + turn[1, 1] * y),
    ):
        known &= jnp.abs(across) <= (shape[1] - 1) / 2 - _REACH
        known &= jnp.abs(down) <= (shape[0] - 1) / 2 - _REACH
    return known


@jax.jit
def _translation_error(still: jax.Array, moved: jax.Array, shifts: jax.Array):
    reference, known = jax.vmap(_translated)(still, shifts)
    known = jnp.broadcast_to(known[..., None], moved.shape)
    return (jnp.square(reference - moved) * known).sum((1, 2, 3)), known.sum((1, 2, 3))


@jax.jit
def _rotation_error(still: jax.Array, moved: jax.Array, angles: jax.Array):
    # One picture after another: the fine samples of a batch would not fit into memory.
    reference = jax.lax.map(lambda args: _rotated(*args), (still, angles))
    filtered = jax.lax.map(lambda args: _filtered_as_if_rotated(*args), (moved, angles))
    known = jax.vmap(functools.partial(_far_from_borders, still.shape[1:3]))(angles)
    known = jnp.broadcast_to(known[..., None], moved.shape)
    return (jnp.square(reference - filtered) * known).sum((1, 2, 3)), known.sum((1, 2, 3))


def _decibel(
    mapping: Mapping,
    synthesis: Synthesis,
    z_dim: int,
    motion: Callable[[np.random.Generator, jax.Array], tuple[np.ndarray, Callable]],
    samples: int,
    batch: int,
    seed: int,
    labels: np.ndarray | None,
) -> float:
    """Draws latents and motions, and compares; `motion` gives matrices and an error function."""
    if min(samples, batch) < 1:
        raise ValueError(f"no pictures among {samples} samples in batches of {batch}")
    if labels is not None and len(labels) < samples:
        raise ValueError(f"{samples} samples need as many labels, got {len(labels)}")
    rng = np.random.default_rng(seed)
    total = count = 0.0
    for first in range(0, samples, batch):
        z = rng.standard_normal((batch, z_dim), np.float32)
        c = None
        if labels is not None:
            c = np.take(labels, range(first, first + batch), axis=0, mode="clip")
        ws = mapping(z, c)
        still = synthesis(ws, np.broadcast_to(np.eye(3, dtype=np.float32), (batch, 3, 3)))
        inverse, error = motion(rng, still)
        squares, pixels = error(still, synthesis(ws, inverse))
        wanted = min(batch, samples - first)
        total += float(np.asarray(squares, np.float64)[:wanted].sum())
        count += float(np.asarray(pixels, np.float64)[:wanted].sum())
    if not count:
        raise ValueError("the pictures are too small: no pixel is far enough from every border")
    return float(10 * np.log10(I_MAX**2 * count / total)) if total else float("inf")


def eq_t(
    mapping: Mapping,
    synthesis: Synthesis,
    z_dim: int,
    *,
    fractional: bool = False,
    samples: int = 50_000,
    batch: int = 8,
    seed: int = 0,
    labels: np.ndarray | None = None,
) -> float:
    """EQ-T, in dB: equivariance to translation by up to an eighth of the picture's side.

    Infinite where not a single pixel differs.

    Args:
      mapping: (z [N, z_dim], c) -> ws; a generator's `mapping`.
      synthesis: (ws, transforms [N, 3, 3]) -> images [N, H, W, C] in [-1, 1], where a transform takes
        a place of the picture (x right, y down, 1 = a side, 0 = the center) to where it was in the
        untransformed one; a StyleGAN3 generator's `synthesis`.
      fractional: translate by any amount (EQ-T frac), not by whole pixels.
      samples: pictures; published values take 50,000.
      batch: pictures a call of the generator makes; also changes which latents are drawn.
      labels: class labels [samples, c_dim] of the pictures, or None.

    Raises:
      ValueError: no samples, too few labels, or pictures too small to compare.
    """

    def motion(rng, still):
        height, width = still.shape[1:3]
        sides = np.array([width, height], np.float32)
        shifts = rng.uniform(-SHIFT, SHIFT, (len(still), 2)).astype(np.float32) * sides
        if not fractional:
            shifts = np.round(shifts)
        inverse = np.tile(np.eye(3, dtype=np.float32), (len(still), 1, 1))
        inverse[:, :2, 2] = -shifts / sides
        return inverse, lambda still, moved: _translation_error(still, moved, shifts)

    return _decibel(mapping, synthesis, z_dim, motion, samples, batch, seed, labels)


def eq_r(
    mapping: Mapping,
    synthesis: Synthesis,
    z_dim: int,
    *,
    samples: int = 50_000,
    batch: int = 8,
    seed: int = 0,
    labels: np.ndarray | None = None,
) -> float:
    """EQ-R, in dB: equivariance to rotation by any angle; the arguments are those of `eq_t`.

    Pictures are square, and of 24 px at least: 9 px at each border are out of the filters' sight.

    Raises:
      ValueError: no samples, too few labels, or pictures too small to compare.
    """

    def motion(rng, still):
        angles = rng.uniform(0, 2 * np.pi, len(still)).astype(np.float32)
        inverse = np.tile(np.eye(3, dtype=np.float32), (len(still), 1, 1))
        inverse[:, :2, :2] = np.moveaxis(np.asarray(_turn(angles)), -1, 0)
        return inverse, lambda still, moved: _rotation_error(still, moved, angles)

    return _decibel(mapping, synthesis, z_dim, motion, samples, batch, seed, labels)
