"""What another camera would have made of a photograph: colors, tone, blur, noise and JPEG.

Trained on one device alone, a network takes its camera for the world. These are the ways in which phones
differ most from it; ranges are chosen broadly and by nobody's measurement. All of it is drawn for each
photograph by its own key and computed where the network is.
"""

import jax
import jax.numpy as jnp
import numpy as np

GRAY = np.float32([0.299, 0.587, 0.114])  # ITU-R BT.601, as in JPEG
_TO_YCC = np.float32(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)
_LUMA = np.float32(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)  # ITU-T T.81, table K.1
_CHROMA = np.full([8, 8], 99, np.float32)  # table K.2
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
_TAPS = 4  # px that a blur reaches


def other_camera(images: jax.Array, keys: jax.Array, chance: float = 0.5) -> jax.Array:
    """Photographs as other cameras might have taken them, each with this chance.

    Args:
      images: [N, H, W, 3] in [-1, 1], sides multiples of 16.
      keys: [N] random keys.

    Returns:
      The same shape and range, without gradient: it stands in for the photograph itself.
    """
    changed = jax.vmap(lambda image, key: _other(image, key, chance))(images, keys)
    return jax.lax.stop_gradient(changed)


def _other(image, key, chance):
    k_if, k_wb, k_light, k_curve, k_color, k_blur, k_noise, k_level, k_jpeg = jax.random.split(
        key, 9
    )
    draw = lambda key, low, high: jax.random.uniform(key, (), image.dtype, low, high)
    value = (image + 1) / 2
    gain = 0.10 * jax.random.normal(k_wb, (3,), image.dtype) + draw(k_light, -0.25, 0.25)
    value = value * jnp.exp(gain / 2.2)  # gains are of light, values are about its 2.2th root
    value = blur(value, draw(k_blur, 0.05, 1.2))
    value = value + draw(k_level, 0.0, 5 / 255) * jax.random.normal(
        k_noise, value.shape, value.dtype
    )
    gray = (value @ GRAY)[..., None]
    value = gray + draw(k_color, 0.75, 1.5) * (value - gray)
    contrast = draw(k_curve, 0.6, 1.6)
    value = 0.5 + 0.5 * jnp.tanh(contrast * (2 * value - 1)) / jnp.tanh(contrast)
    value = jpeg(jnp.clip(value, 0, 1), draw(k_jpeg, 55.0, 97.0))
    return jnp.where(jax.random.bernoulli(k_if, chance), 2 * value - 1, image)


def blur(image: jax.Array, sigma: jax.Array) -> jax.Array:
    """Gaussian blur of [H, W, C], edges held; `sigma` in px, up to 1.5, may be traced."""
    at = jnp.arange(-_TAPS, _TAPS + 1)
    weights = jnp.exp(-0.5 * (at / sigma) ** 2)
    weights = (weights / weights.sum()).astype(image.dtype)
    for axis in (0, 1):
        pad = [(0, 0)] * 3
        pad[axis] = (_TAPS, _TAPS)
        wide, length = jnp.pad(image, pad, "edge"), image.shape[axis]
        shifted = [jax.lax.slice_in_dim(wide, t, t + length, axis=axis) for t in range(len(at))]
        image = sum(weight * part for weight, part in zip(weights, shifted))
    return image


def jpeg(image: jax.Array, quality: jax.Array) -> jax.Array:
    """What is left of [H, W, 3] in 0..1 after JPEG: 4:2:0 chroma and quantised 8 x 8 DCTs (ITU-T T.81).

    H and W are multiples of 16. `quality` from 1 to 100 scales the tables as libjpeg does; it may be
    traced.
    """
    scale = jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    ycc = 255 * image @ _TO_YCC.T
    luma = _quantised(ycc[..., 0] - 128, _LUMA * scale) + 128
    height, width = luma.shape
    chroma = ycc[..., 1:].reshape(height // 2, 2, width // 2, 2, 2).mean((1, 3))
    chroma = jnp.stack([_quantised(chroma[..., k], _CHROMA * scale) for k in (0, 1)], -1)
    chroma = jax.image.resize(chroma, (height, width, 2), "bilinear")
    back = jnp.linalg.inv(_TO_YCC).T.astype(image.dtype)
    return jnp.clip(jnp.concatenate([luma[..., None], chroma], -1) @ back / 255, 0, 1)


def _quantised(plane, table):
    k = np.arange(8)
    dct = np.cos(np.pi * (2 * k[None] + 1) * k[:, None] / 16) * np.where(k[:, None], 0.5, 0.5**1.5)
    dct = jnp.asarray(dct, plane.dtype)
    height, width = plane.shape
    blocks = plane.reshape(height // 8, 8, width // 8, 8)
    table = jnp.maximum(jnp.floor(table + 0.5), 1)[None, :, None, :]
    waves = jnp.round(jnp.einsum("ui,aibj,vj->aubv", dct, blocks, dct) / table) * table
    return jnp.einsum("ui,aubv,vj->aibj", dct, waves, dct).reshape(height, width)
