"""The small turns, shifts, shears and zooms that a classifier of headshots is trained with.

As the study of constrained headshots has them (Aoto et al., Sci Rep 12:3730, 2022; its code, by the
names of Keras' generator of images): rotation by up to 6 degrees, shifts by up to 0.06 of the side,
shear by up to 2 degrees, zoom by up to 0.08 of each axis, mirrored half of the time, the nearest pixel
where the picture has ended. The study makes 10 copies of each photograph and keeps them; here a copy is a
photograph and a number, made anew wherever it is needed.
"""

import jax
import jax.numpy as jnp

from jaxface.ops.warp import sample_bilinear

ANGLE, SHEAR = 6.0, 2.0  # degrees
SHIFT, ZOOM = 0.06, 0.08  # of the side, of an axis


def vary_headshots(images: jax.Array, keys: jax.Array) -> jax.Array:
    """Headshots turned, shifted, sheared, zoomed and mirrored, each by its own key.

    Args:
      images: [N, S, S, C].
      keys: [N] random keys.

    Returns:
      [N, S, S, C], bilinear, with the border repeated; the same range.
    """
    return jax.vmap(_vary)(images, keys)


def _vary(image, key):
    k_mirror, k_angle, k_shear, k_shift, k_zoom = jax.random.split(key, 5)
    side = image.shape[0]
    within = lambda key, most, shape=(): jax.random.uniform(key, shape, minval=-most, maxval=most)
    angle = jnp.deg2rad(within(k_angle, ANGLE))
    shear = jnp.deg2rad(within(k_shear, SHEAR))
    shift = side * within(k_shift, SHIFT, (2,))
    zoom = 1 + within(k_zoom, ZOOM, (2,))
    image = jnp.where(jax.random.bernoulli(k_mirror), image[:, ::-1], image)
    # From a place in the result to the place in the photograph: zoom, shear, shift, rotation, about the
    # middle; rows first.
    middle = (side - 1) / 2
    y, x = jnp.meshgrid(jnp.arange(side) - middle, jnp.arange(side) - middle, indexing="ij")
    y, x = y * zoom[0], x * zoom[1]
    y, x = y - jnp.sin(shear) * x + shift[0], jnp.cos(shear) * x + shift[1]
    row = middle + jnp.cos(angle) * y - jnp.sin(angle) * x
    column = middle + jnp.sin(angle) * y + jnp.cos(angle) * x
    return sample_bilinear(image, row, column)
