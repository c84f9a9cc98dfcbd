"""Values of a channel brought to mean 0 and variance 1, as batch and instance normalisation do.

The gradient is written out. What JAX derives sums three times over the pixels, the third time only to find
0 but for rounding, and on CPU a sum costs as much as all else (`ops/channels.py`).
"""

import functools

import jax
import jax.numpy as jnp

from jaxface.ops import channels


def _over_devices(value, axis):
    return value if axis is None else jax.lax.pmean(value, axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def standardize(x, scale, bias, lead: int, epsilon: float, axis: str | None):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, and mean and variance, which pass no gradient on.

    Args:
      x: [N, ..., C].
      scale, bias: [C] each, or both None.
      lead: 0 for statistics of the batch, 1 for those of each image.
      axis: pmap axis; statistics are then those of the global batch.

    Returns:
      x's shape; [C] or, of each image, [N, C]; the same. The variance is the biased one.

    Reference: Ioffe and Szegedy 2015 (arXiv 1502.03167), algorithm 1, and the gradients of section 3.
    """
    return _forward(x, scale, bias, lead, epsilon, axis)[0]


def _forward(x, scale, bias, lead, epsilon, axis):
    mean = _over_devices(channels.mean(x, lead), axis)
    centered = x - channels.spread(mean, x.shape)
    variance = _over_devices(channels.mean(jnp.square(centered), lead), axis)
    inverse = jax.lax.rsqrt(variance + epsilon)
    gain = inverse if scale is None else inverse * scale
    y = centered * channels.spread(gain, x.shape)
    y = y if bias is None else y + channels.spread(bias, x.shape)
    return (y, mean, variance), (x, scale, mean, inverse)


def _backward(lead, epsilon, axis, saved, cotangents):
    x, scale, mean, inverse = saved
    g = cotangents[0]
    spread = lambda values: channels.spread(values, x.shape)
    standard = (x - spread(mean)) * spread(inverse)
    by_bias, by_scale = channels.total(g, lead), channels.total(g * standard, lead)
    pixels = x.size // by_bias.size
    along_bias, along_scale = (_over_devices(s, axis) / pixels for s in (by_bias, by_scale))
    gain = inverse if scale is None else inverse * scale
    by_x = (g - spread(along_bias) - standard * spread(along_scale)) * spread(gain)
    return (by_x, None, None) if scale is None else (by_x, by_scale, by_bias)


standardize.defvjp(_forward, _backward)
