"""Standardized channels and the written-out gradients against those that JAX derives, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.ops.standardize import standardize

EPSILON = 1e-3


def _plain(x, scale, bias, lead, axis=None):
    axes = tuple(range(lead, x.ndim - 1))
    over = lambda value: value if axis is None else jax.lax.pmean(value, axis)
    mean = over(x.mean(axes, keepdims=True))
    variance = over(jnp.square(x - mean).mean(axes, keepdims=True))
    y = (x - mean) / jnp.sqrt(variance + EPSILON)
    return y if scale is None else y * scale + bias


def _arrays(shape):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(3, 2, shape))
    return x, jnp.asarray(rng.normal(size=shape[-1:])), jnp.asarray(rng.normal(size=shape[-1:]))


def _losses(function):
    """Value, gradients, and gradients of these: the loss is not linear in anything."""
    total = lambda x, *affine: jnp.sum(jnp.sin(function(x, *affine)) * jnp.cos(x))
    number = lambda affine: tuple(range(1 + len(affine)))

    def penalty(x, *affine):
        grads = jax.grad(total, number(affine))(x, *affine)
        return sum(jnp.sum(g**3) for g in grads)

    return jax.jit(
        lambda x, *affine: (
            function(x, *affine),
            jax.grad(total, number(affine))(x, *affine),
            jax.grad(penalty, number(affine))(x, *affine),
        )
    )


LARGE, SMALL = (2, 64, 64, 8), (3, 5, 4, 2)
FLAT = (6, 3)  # a single value of each channel, so that only the batch has a variance


@pytest.mark.parametrize(
    "shape, lead, affine",
    [
        *((shape, 0, affine) for shape in (SMALL, LARGE, FLAT) for affine in (True, False)),
        *((shape, 1, False) for shape in (SMALL, LARGE)),
    ],
)
def test_equals_what_jax_derives(shape, lead, affine):
    """Large images too, whose sums take another form on CPU."""
    with jax.enable_x64(True):
        x, *pair = _arrays(shape)
        given = (x, *pair) if affine else (x,)
        none = () if affine else (None, None)
        ours = _losses(lambda x, *a: standardize(x, *a, *none, lead, EPSILON, None)[0])(*given)
        theirs = _losses(lambda x, *a: _plain(x, *a, *none, lead))(*given)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10 * np.abs(b).max())


def test_statistics_are_those_of_the_batch_or_of_each_image():
    with jax.enable_x64(True):
        x, scale, bias = _arrays((3, 5, 4, 2))
        for lead, axes in ((0, (0, 1, 2)), (1, (1, 2))):
            _, mean, variance = standardize(x, scale, bias, lead, EPSILON, None)
            np.testing.assert_allclose(mean, x.mean(axes), rtol=1e-12)
            np.testing.assert_allclose(variance, x.var(axes), rtol=1e-12)


def test_devices_share_the_statistics_of_the_global_batch():
    """And the gradients are those of the whole batch on one device, here with vmap for devices."""
    with jax.enable_x64(True):
        x, scale, bias = _arrays((4, 6, 5, 3))
        loss = lambda y, x: jnp.sum(jnp.sin(y) * jnp.cos(x))
        whole = jax.grad(
            lambda x, s, b: loss(standardize(x, s, b, 0, EPSILON, None)[0], x), (0, 1, 2)
        )(x, scale, bias)

        def shard(x, scale, bias):
            grads = jax.grad(
                lambda x, s, b: loss(standardize(x, s, b, 0, EPSILON, "data")[0], x), (0, 1, 2)
            )(x, scale, bias)
            return grads[0], *jax.lax.psum(grads[1:], "data")

        parts = jax.vmap(shard, (0, None, None), axis_name="data")(
            x.reshape(2, 2, *x.shape[1:]), scale, bias
        )
        np.testing.assert_allclose(parts[0].reshape(x.shape), whole[0], rtol=1e-9, atol=1e-11)
        for part, expected in zip(parts[1:], whole[1:]):
            np.testing.assert_allclose(part[0], expected, rtol=1e-9)
