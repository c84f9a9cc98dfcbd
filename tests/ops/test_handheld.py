"""Frames seen again by a hand-held camera: what may change, and what must not."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxface.ops import handheld

SIDE = 48


def disc(radius=12.0):
    """A bright disc in the middle of a dark picture, [1, SIDE, SIDE, 3] in [-1, 1]."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    inside = 1 / (1 + np.exp(np.hypot(x, y) - radius))
    return jnp.asarray(np.repeat((inside * 1.2 - 0.8)[None, ..., None], 3, -1), jnp.float32)


@jax.jit
def varied(images, seeds):
    return handheld.vary_frames(images, jax.vmap(jax.random.key)(seeds))


def seen(image, seeds):
    return np.asarray(varied(jnp.repeat(image, len(seeds), 0), jnp.asarray(seeds)))


def test_faces_are_never_made_wider():
    """Second moments of a disc along both axes stay equal, and its size within the scales allowed."""
    offset = np.arange(SIDE) - (SIDE - 1) / 2
    sizes = []
    for picture in seen(disc(), range(40)):
        mass = picture[..., 0] - picture[..., 0].min()
        x, y = mass.sum(0) @ offset**2 / mass.sum(), mass.sum(1) @ offset**2 / mass.sum()
        assert abs(x / y - 1) < 0.01
        sizes.append(np.sqrt(x))
    plain = np.asarray(disc())[0, ..., 0] + 0.8
    expected = np.sqrt(plain.sum(0) @ offset**2 / plain.sum())
    ratio = np.array(sizes) / expected
    assert ratio.min() > 0.94 and ratio.max() < 1.06 and np.ptp(ratio) > 0.05


def test_light_and_color_change_within_bounds():
    flat = jnp.full([1, 8, 8, 3], 0.0)  # 0.5 in [0, 1]
    levels = (seen(flat, range(200)) + 1) / 2
    assert np.ptp(levels, axis=(1, 2)).max() < 1e-6  # flat stays flat
    gray, spread = levels[:, 0, 0].mean(-1), np.ptp(levels[:, 0, 0], axis=-1)
    assert 0.5 * 0.8 * 0.9 < gray.min() < 0.43 and 0.57 < gray.max() < 0.5 * 1.2 * 1.1
    assert 0.05 < spread.max() < 0.5 * 1.2 * 0.2 * 1.2


def test_half_are_mirrored():
    ramp = jnp.broadcast_to(jnp.linspace(-0.5, 0.5, SIDE)[None, None, :, None], [1, SIDE, SIDE, 3])
    slope = seen(ramp, range(100))[:, SIDE // 2, [4, -5], 0]
    assert 30 < (slope[:, 0] > slope[:, 1]).sum() < 70


def test_each_frame_by_its_own_key():
    images = disc()
    together, alone = seen(images, [3, 4, 5]), seen(images, [4])
    np.testing.assert_allclose(together[1], alone[0], atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 0.01
    assert together.min() >= -1 and together.max() <= 1


def test_borders_are_repeated():
    """A frame without dark corners gets none by being turned."""
    bright = jnp.full([1, SIDE, SIDE, 3], 0.6)
    assert np.ptp(seen(bright, range(20)), axis=(1, 2)).max() < 1e-5
