"""The history of generated images that a discriminator is shown (CycleGAN's image pool)."""

import jax
import jax.numpy as jnp


def empty(size: int, side: int, channels: int) -> dict[str, jax.Array]:
    """A pool of `size` images, kept as 8-bit levels: what it holds is shown, never differentiated."""
    return {
        "images": jnp.zeros([size, side, side, channels], jnp.uint8),
        "count": jnp.zeros([], jnp.int32),  # images it was ever given
    }


def exchange(pool: dict, images: jax.Array, key: jax.Array) -> tuple[jax.Array, dict]:
    """Gives images to the pool and gets as many to show. [N, H, W, C] in [-1, 1], N <= size.

    While the pool fills, the images themselves come back and are kept. Afterwards each is, with the
    chance of one half, exchanged for one from the pool, which then keeps the new one. Shrivastava et al.
    2017 (arXiv 1612.07828, section 2.3), as CycleGAN uses it (1703.10593, section 4). Within one call
    every image meets another place of the pool, where the authors' loop may take one place twice.
    """
    number, size = images.shape[0], pool["images"].shape[0]
    if number > size:
        raise ValueError(f"{number} images do not fit a pool of {size}")
    key_place, key_take = jax.random.split(key)
    filling = pool["count"] < size
    in_turn = (pool["count"] + jnp.arange(number)) % size
    places = jnp.where(filling, in_turn, jax.random.permutation(key_place, size)[:number])
    kept = pool["images"][places]
    take = ~filling & jax.random.bernoulli(key_take, shape=[number])
    give = (filling | take)[:, None, None, None]
    levels = jnp.clip(jnp.round(images * 127.5 + 127.5), 0, 255).astype(jnp.uint8)
    stored = pool["images"].at[places].set(jnp.where(give, levels, kept))
    shown = jnp.where(take[:, None, None, None], kept.astype(images.dtype) / 127.5 - 1, images)
    count = jnp.minimum(pool["count"] + number, size)
    return shown, {"images": stored, "count": count}
