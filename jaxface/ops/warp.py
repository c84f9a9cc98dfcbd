"""Turns, scales and mirrors patches that were cut with some room around them."""

import math

import jax
import jax.numpy as jnp

from jaxface.ops.materialize import materialize

ANGLE, SCALE = 10.0, 0.1  # largest turn in degrees, largest change of scale


def window_for(patch: int) -> int:
    """Side of the window that a patch needs around its center for every turn and scale; even."""
    turn = math.radians(ANGLE)
    side = patch * (math.cos(turn) + math.sin(turn)) / (1 - SCALE)
    return 2 * int(-(-side // 2)) + 2


def vary(windows: jax.Array, keys: jax.Array, patch: int, warp: float = 0.5) -> jax.Array:
    """Patches cut from the middle of windows, each varied in its own way.

    Mirrored left to right half of the time, and with the chance `warp` also turned by up to 10 degrees
    and scaled by 0.9 to 1.1, bilinearly. The others keep their pixels exactly: what is measured later is
    smaller than the blur of an interpolation. All channels move together, so a pair goes in as one.

    Args:
      windows: [N, W, W, C], W as `window_for` says.
      keys: [N] random keys.

    Returns:
      [N, patch, patch, C].
    """
    return jax.vmap(lambda window, key: _vary(window, key, patch, warp))(windows, keys)


def _vary(window, key, patch, warp):
    k_mirror, k_warp, k_angle, k_scale = jax.random.split(key, 4)
    warped = jax.random.bernoulli(k_warp, warp)
    angle = jnp.where(
        warped, jnp.deg2rad(jax.random.uniform(k_angle, (), minval=-ANGLE, maxval=ANGLE)), 0
    )
    scale = jnp.where(
        warped, jax.random.uniform(k_scale, (), minval=1 - SCALE, maxval=1 + SCALE), 1
    )
    window = jnp.where(jax.random.bernoulli(k_mirror), window[:, ::-1], window)
    offset = jnp.arange(patch) - (patch - 1) / 2
    middle = (window.shape[0] - 1) / 2
    y, x = jnp.meshgrid(offset, offset, indexing="ij")
    row = middle + (y * jnp.cos(angle) + x * jnp.sin(angle)) / scale
    column = middle + (x * jnp.cos(angle) - y * jnp.sin(angle)) / scale
    return sample_bilinear(window, row, column)


def sample_bilinear(window, row, column):
    """Values of [H, W, C] at float positions [h, w]; outside of it the border goes on. -> [h, w, C]"""
    height, width = window.shape[:2]
    row, column = jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)
    top = jnp.clip(jnp.floor(row).astype(jnp.int32), 0, height - 2)
    left = jnp.clip(jnp.floor(column).astype(jnp.int32), 0, width - 2)
    down, right = (row - top)[..., None], (column - left)[..., None]
    down, right = down.astype(window.dtype), right.astype(window.dtype)
    # One gather of 2x2 patches: its transpose is one scatter, twice as fast as four.
    patches = jax.lax.gather(
        window,
        jnp.stack([top, left], -1),
        jax.lax.GatherDimensionNumbers(
            offset_dims=(2, 3, 4), collapsed_slice_dims=(), start_index_map=(0, 1)
        ),
        slice_sizes=(2, 2, window.shape[2]),
        mode="promise_in_bounds",
    )
    upper = patches[:, :, 0, 0] * (1 - right) + patches[:, :, 0, 1] * right
    lower = patches[:, :, 1, 0] * (1 - right) + patches[:, :, 1, 1] * right
    return materialize(upper * (1 - down) + lower * down)
