"""The quick form of a convolution against the plain one."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.ops import conv, filters, winograd


def _plain(x, w, padding):
    return jax.lax.conv_general_dilated(
        x, w, (1, 1), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _random(*shapes):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes)]


@pytest.mark.parametrize(("padding", "sides"), [(0, (9, 14)), (1, (8, 3)), (2, (1, 10))])
def test_values_and_two_derivatives_are_those_of_a_plain_convolution(padding, sides):
    """In float64, where rounding cannot hide a wrong term; sides that fill tiles and that do not."""

    def everything(conv):
        total = lambda x, w: jnp.sum(jnp.sin(conv(x, w, padding)))

        def penalty(x, w):
            by_x, by_w = jax.grad(total, (0, 1))(x, w)
            return jnp.sum(by_x**3) + jnp.sum(by_w**3)

        return jax.jit(
            lambda x, w: (
                conv(x, w, padding),
                jax.grad(total, (0, 1))(x, w),
                jax.grad(penalty, (0, 1))(x, w),
            )
        )

    with jax.enable_x64(True):
        x, w = _random((2, *sides, 5), (3, 3, 5, 4))
        ours, plain = everything(winograd.correlate)(x, w), everything(_plain)(x, w)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), ours, plain
        )


def test_rounding_of_float32_stays_far_below_what_networks_are_held_to():
    x, w = _random((2, 30, 30, 256), (3, 3, 256, 8))
    g = _random((2, 30, 30, 8))[0]
    ours, pull = jax.vjp(lambda x, w: winograd.correlate(x, w, 1), x, w)
    plain, pull_plain = jax.vjp(lambda x, w: _plain(x, w, 1), x, w)
    for a, b in zip((ours, *pull(g)), (plain, *pull_plain(g))):
        golden.assert_close(a, b, 5e-6)


def test_modulated_convolution_takes_the_form_that_pays(monkeypatch):
    x, w, s = _random((4, 36, 36, 128), (3, 3, 128, 128), (4, 128))

    def run(*args):
        # A function of its own each time: traces are kept by function.
        return jax.jit(lambda *args: filters.modulated_conv2d(*args, padding=2))(*args)

    taken = []
    quick = winograd.correlate
    monkeypatch.setattr(winograd, "correlate", lambda *args: taken.append(1) or quick(*args))
    ours = run(x, w, s)
    assert taken == [1]
    monkeypatch.setattr(conv, "MOVING", np.inf)
    golden.assert_close(ours, run(x, w, s), 5e-6)
    assert taken == [1]
