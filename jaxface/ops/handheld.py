"""How two frames of a hand-held camera show one face, without anything that looks like swelling."""

import jax
import jax.numpy as jnp

from jaxface.ops.warp import sample_bilinear

ANGLE = 5.0  # degrees
SCALE = 0.05
LIGHT = 0.2  # of brightness, contrast and saturation
TINT = 0.1  # of each color, against the others


def vary_frames(images: jax.Array, keys: jax.Array) -> jax.Array:
    """Frames seen again: mirrored, turned, scaled, in another light.

    Mirrored half of the time; turned by up to 5 degrees and scaled by 0.95 to 1.05 about the middle,
    bilinearly, with the border repeated; brightness, contrast and saturation by 0.8 to 1.2 and the gain of
    each color by 0.9 to 1.1. Width and height always scale alike and nothing is cropped away: a face that
    is made wider, or whose jaw is out of the picture, would teach a network wrong swelling.

    Args:
      images: [N, S, S, 3] in [-1, 1].
      keys: [N] random keys.

    Returns:
      [N, S, S, 3] in [-1, 1].
    """
    return jax.vmap(_vary)(images, keys)


def _vary(image, key):
    k_mirror, k_angle, k_scale, k_light, k_tint = jax.random.split(key, 5)
    side = image.shape[0]
    angle = jnp.deg2rad(jax.random.uniform(k_angle, (), minval=-ANGLE, maxval=ANGLE))
    scale = jax.random.uniform(k_scale, (), minval=1 - SCALE, maxval=1 + SCALE)
    image = jnp.where(jax.random.bernoulli(k_mirror), image[:, ::-1], image)
    middle = (side - 1) / 2
    y, x = jnp.meshgrid(jnp.arange(side) - middle, jnp.arange(side) - middle, indexing="ij")
    row = middle + (y * jnp.cos(angle) + x * jnp.sin(angle)) / scale
    column = middle + (x * jnp.cos(angle) - y * jnp.sin(angle)) / scale
    seen = sample_bilinear(image, row, column) * 0.5 + 0.5
    brightness, contrast, saturation = jax.random.uniform(
        k_light, (3,), image.dtype, 1 - LIGHT, 1 + LIGHT
    )
    seen = seen * brightness * jax.random.uniform(k_tint, (3,), image.dtype, 1 - TINT, 1 + TINT)
    seen = seen.mean() + contrast * (seen - seen.mean())
    gray = seen.mean(-1, keepdims=True)
    seen = gray + saturation * (seen - gray)
    return jnp.clip(seen, 0, 1) * 2 - 1
