"""Sums over pixels and their transposes against float64 sums, for shapes of both ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.ops import channels

# Below the size from which products are taken, above it, of two axes, and with a single row or column.
SHAPES = [(2, 3, 5, 4), (3, 40, 31, 16), (2, 1, 9000, 2), (2, 9000, 1, 2), (40, 21, 33)]


def numbers(*shape: int, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("lead", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_total_is_the_sum_over_pixels(shape, lead):
    x = numbers(*shape)
    over = tuple(range(lead, len(shape) - 1))
    exact = x.astype(np.float64).sum(over)
    for dtype, bound in ((jnp.float32, 1e-6), (jnp.bfloat16, 8e-3)):
        given = jnp.asarray(x, dtype)
        found = jax.jit(channels.total, static_argnums=1)(given, lead)
        assert found.dtype == dtype
        wanted = np.asarray(given, np.float64).sum(over)
        np.testing.assert_allclose(
            np.asarray(found, np.float64), wanted, rtol=bound, atol=bound * np.sqrt(x.size)
        )
    pixels = np.prod(shape[lead:-1])
    np.testing.assert_allclose(
        channels.mean(jnp.asarray(x), lead), exact / pixels, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_spread_repeats_values_at_every_pixel(shape):
    every, each = numbers(shape[-1]), numbers(shape[0], shape[-1])
    found = channels.spread(jnp.asarray(every), shape)
    np.testing.assert_array_equal(found, np.broadcast_to(every, shape))
    found = channels.spread(jnp.asarray(each), shape)
    between = each.reshape(shape[0], *[1] * (len(shape) - 2), shape[-1])
    np.testing.assert_array_equal(found, np.broadcast_to(between, shape))


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1]])
@pytest.mark.parametrize("lead", [0, 1])
def test_gradients_of_any_order(shape, lead):
    """What normalisation does with them, twice differentiated, in float64 where that is asked for."""
    with jax.enable_x64(True):
        x, gain = (
            numbers(*shape, dtype=np.float64),
            numbers(*shape[:lead], shape[-1], dtype=np.float64),
        )

        def normal(x, gain):
            y = x - channels.spread(channels.mean(x, lead), x.shape)
            deviation = jnp.sqrt(channels.mean(y**2, lead) + 1e-3)
            return (jnp.tanh(y) * channels.spread(gain / deviation, x.shape)).sum() / x.size

        def plain(x, gain):
            over = tuple(range(lead, x.ndim - 1))
            y = x - x.mean(over, keepdims=True)
            deviation = jnp.sqrt((y**2).mean(over, keepdims=True) + 1e-3)
            between = gain.reshape(*shape[:lead], *[1] * len(over), shape[-1])
            return (jnp.tanh(y) * between / deviation).sum() / x.size

        both = [jax.grad(f, (0, 1)) for f in (normal, plain)]
        for ours, theirs in zip(*(g(x, gain) for g in both)):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-15)
        twice = [jax.grad(lambda x, g=g: jnp.sum(g(x, gain)[0] ** 2) * x.size) for g in both]
        np.testing.assert_allclose(*(g(x) for g in twice), rtol=1e-8, atol=1e-15)


def test_an_exported_program_takes_any_batch():
    batch = jax.export.symbolic_shape("n")[0]
    x = jax.ShapeDtypeStruct((batch, 64, 64, 8), jnp.float32)
    program = jax.export.export(jax.jit(lambda x: channels.spread(channels.mean(x, 1), x.shape)))(x)
    given = numbers(3, 64, 64, 8)
    wanted = np.broadcast_to(given.mean((1, 2), keepdims=True), given.shape)
    np.testing.assert_allclose(program.call(given), wanted, atol=1e-5)
