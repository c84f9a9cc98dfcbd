"""Perceptual path length (Karras et al. 2019, arXiv 1812.04948, section 4.1).

How far a small step in latent space moves the picture, as a perceptual distance over the step squared:

    z:  E[ d(G(f(slerp(z0, z1; t))), G(f(slerp(z0, z1; t + eps)))) ] / eps²        (equation 2)
    w:  E[ d(G(lerp(w0, w1; t)),     G(lerp(w0, w1; t + eps)))     ] / eps²,  w = f(z)   (equation 3)

"full" draws t from U(0, 1), "end" takes t = 0. Published values are means over 50,000 paths with
eps = 1e-4 and LPIPS-VGG16, of which the lowest and the highest hundredth is dropped; faces of FFHQ are
cropped to the middle first, and images above 256 px averaged down to it. `ppl2_wend` (StyleGAN2's
paper and StyleGAN3's tables) is space "w", sampling "end", no crop. Any other distance, number of
paths or data makes it another number, so it is named with its distance.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxface.ops import resize

SIDE = 256  # px that the distance sees at most
EPSILON = 1e-4

Mapping = Callable[..., jax.Array]  # (z [N, z], c or None) -> w [N, ...]
Synthesis = Callable[[jax.Array], jax.Array]  # w [N, ...] -> images [N, H, W, C] in [-1, 1]
Distance = Callable[[jax.Array, jax.Array], jax.Array]  # images, images -> [N]


def slerp(a: jax.Array, b: jax.Array, t: jax.Array) -> jax.Array:
    """Spherical interpolation of directions (Shoemake 1985): unit vectors [N, D] at t of the arc.

    Args:
      a, b: [N, D], of any length.
      t: scalar or [N]; 0 gives the direction of a, 1 that of b.
    """
    a, b = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    t = jnp.reshape(jnp.asarray(t, a.dtype), (-1, 1))
    # The component of b across a, and the arc between them: no arc cosine, which loses half the digits
    # of small angles.
    cosine = (a * b).sum(-1, keepdims=True)
    across = b - cosine * a
    sine = jnp.linalg.norm(across, axis=-1, keepdims=True)
    arc = t * jnp.arctan2(sine, cosine)
    return a * jnp.cos(arc) + across / jnp.maximum(sine, 1e-30) * jnp.sin(arc)


def seen(images: jax.Array, crop: bool = False) -> jax.Array:
    """What the distance sees: [N, H, W, C] -> the middle of a face if cropped, 256 px at most.

    The crop is the published one for aligned faces: rows 3/8 to 7/8, columns 2/8 to 6/8 of the height.
    """
    if crop:
        eighth = images.shape[1] // 8
        images = images[:, 3 * eighth : 7 * eighth, 2 * eighth : 6 * eighth]
    factor = images.shape[1] // SIDE
    if factor > 1:
        images = resize.area(images, (images.shape[1] // factor, images.shape[2] // factor))
    return images


def path_lengths(
    mapping: Mapping,
    synthesis: Synthesis,
    distance: Distance,
    z0: jax.Array,
    z1: jax.Array,
    t: jax.Array,
    c: jax.Array | None = None,
    *,
    space: str = "w",
    epsilon: float = EPSILON,
    crop: bool = False,
) -> jax.Array:
    """d / eps² of each path.

    Args:
      mapping: (z [N, z_dim], c) -> w; a generator's `mapping`.
      synthesis: w -> images [N, H, W, C] in [-1, 1]; a generator's `synthesis`.
      distance: two batches of images in [-1, 1] -> [N], quadratic in a small difference, as LPIPS is.
      z0, z1: ends [N, z_dim] of the paths.
      t: [N] in 0..1, where each path is measured.
      c: labels [N, c_dim], the same for both ends, or None.
      space: "z" or "w", where the path is straight.
      crop: look at the middle of the face only.

    Returns:
      [N], at least float32.

    Raises:
      ValueError: another space.
    """
    if space not in ("z", "w"):
        raise ValueError(f"a path lies in space 'z' or 'w', not {space!r}")
    if space == "w":
        w0, w1 = mapping(z0, c), mapping(z1, c)
        t = jnp.reshape(t, (-1, *[1] * (w0.ndim - 1)))
        ends = [w0 + (w1 - w0) * s for s in (t, t + epsilon)]
    else:
        ends = [mapping(slerp(z0, z1, s), c) for s in (t, t + epsilon)]
    # Both ends in one batch, so that nothing but the step differs between them.
    images = seen(synthesis(jnp.concatenate(ends)), crop)
    first, second = jnp.split(images, 2)
    return distance(first, second) / epsilon**2


def clipped_mean(lengths: np.ndarray) -> float:
    """Mean [N] without what lies below the 1st or above the 99th percentile, float64.

    Percentiles are values that occur, the next lower and the next higher one, as published.
    """
    x = np.asarray(lengths, np.float64)
    low = np.percentile(x, 1, method="lower")
    high = np.percentile(x, 99, method="higher")
    return float(x[(x >= low) & (x <= high)].mean())


def sample_lengths(
    mapping: Mapping,
    synthesis: Synthesis,
    distance: Distance,
    z_dim: int,
    *,
    samples: int = 50_000,
    batch: int = 16,
    seed: int = 0,
    space: str = "w",
    sampling: str = "end",
    epsilon: float = EPSILON,
    crop: bool = False,
    labels: np.ndarray | None = None,
) -> np.ndarray:
    """d / eps² of random paths.

    Args:
      mapping, synthesis, distance, space, epsilon, crop: see `path_lengths`.
      z_dim: length of a latent.
      samples: paths; published numbers take 50,000.
      batch: paths a call of the generator takes; changes the speed, and which latents are drawn.
      sampling: "full" for t ~ U(0, 1), "end" for t = 0.
      labels: class labels [samples, c_dim] of the paths, or None.

    Returns:
      float64 [samples].

    Raises:
      ValueError: another space or sampling, no samples, or too few labels.
    """
    if sampling not in ("full", "end"):
        raise ValueError(f"sampling is 'full' or 'end', not {sampling!r}")
    if labels is not None and len(labels) < samples:
        raise ValueError(f"{samples} paths need as many labels, got {len(labels)}")
    if min(samples, batch) < 1:
        raise ValueError(f"no path among {samples} samples in batches of {batch}")
    rng = np.random.default_rng(seed)
    lengths: list[np.ndarray] = []
    for first in range(0, samples, batch):
        # Every batch is whole, so that the generator is compiled for one shape.
        z0, z1 = rng.standard_normal((2, batch, z_dim), np.float32)
        t = rng.random(batch, np.float32) * np.float32(sampling == "full")
        c = None
        if labels is not None:
            c = np.take(labels, range(first, first + batch), axis=0, mode="clip")
        out = path_lengths(
            mapping, synthesis, distance, z0, z1, t, c, space=space, epsilon=epsilon, crop=crop
        )
        lengths.append(np.asarray(out, np.float64))
    return np.concatenate(lengths)[:samples]


def ppl(
    mapping: Mapping, synthesis: Synthesis, distance: Distance, z_dim: int, **options: Any
) -> float:
    """Perceptual path length; with LPIPS-VGG16 and no options it is `ppl2_wend`.

    With a generator g and `lpips = vgg.from_state_dict(...)`, call
    `ppl(g.mapping, g.synthesis, lpips.distance, z_dim)`. The options are those of `sample_lengths`;
    `ppl_zfull`, `ppl_wfull`, `ppl_zend` and `ppl_wend` of older tables are its `space` and `sampling`
    with `crop=True`.

    Returns:
      Mean over paths without the lowest and the highest hundredth.

    Raises:
      ValueError: as `sample_lengths`.
    """
    return clipped_mean(sample_lengths(mapping, synthesis, distance, z_dim, **options))
