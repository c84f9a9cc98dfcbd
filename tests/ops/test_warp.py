"""Varied patches against positions read off ramps, scipy and their own invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from jaxface.ops import warp
from jaxface.ops.warp import ANGLE, SCALE, vary, window_for

PATCH = 16
WIDE = window_for(PATCH)


def windows(number, wide=WIDE):
    """Two channels that say where a pixel is, which no bilinear mean distorts, and one of noise."""
    row, column = np.mgrid[:wide, :wide].astype(np.float32)
    noise = np.random.default_rng(0).normal(size=(number, wide, wide))
    ramps = np.broadcast_to(np.stack([row, column], -1), (number, wide, wide, 2))
    return jnp.asarray(np.concatenate([ramps, noise[..., None]], -1), jnp.float32)


def keys(number, seed=0):
    return jax.random.split(jax.random.key(seed), number)


def step(patch):
    """Change of position [row, column] for a step down and one to the right, and at the middle."""
    at = np.asarray(patch[..., :2], np.float64)
    return at[-1, 0] - at[0, 0], at[0, -1] - at[0, 0], at.mean((0, 1))


def test_without_warp_pixels_stay_and_half_are_mirrored():
    source = windows(200)
    room = (WIDE - PATCH) // 2
    cut = np.asarray(source)[:, room:-room, room:-room]
    mirrored = np.asarray(source)[:, room:-room, ::-1][:, :, room:-room]
    found = np.asarray(vary(source, keys(200), PATCH, warp=0.0))
    as_is = np.array([np.array_equal(a, b) for a, b in zip(found, cut)])
    turned = np.array([np.array_equal(a, b) for a, b in zip(found, mirrored)])
    np.testing.assert_array_equal(as_is, ~turned)
    assert 75 < turned.sum() < 125  # 3.5 standard deviations


def test_angles_scales_and_how_often():
    patches = np.asarray(vary(windows(400), keys(400), PATCH, warp=0.5))
    angles, scales, mirrors = [], [], []
    for patch in patches:
        down, right, middle = step(patch)
        np.testing.assert_allclose(middle, (WIDE - 1) / 2, atol=1e-4)
        assert down @ right == pytest.approx(0, abs=1e-3)  # a turn, no shear
        assert np.linalg.norm(down) == pytest.approx(np.linalg.norm(right), abs=1e-3)
        mirrors.append(right[1] < 0)
        scales.append((PATCH - 1) / np.linalg.norm(down))
        angles.append(np.rad2deg(np.arctan2(down[1], down[0])))
    angles, scales = np.array(angles), np.array(scales)
    still = (np.abs(angles) < 1e-5) & (np.abs(scales - 1) < 1e-6)
    assert 160 < still.sum() < 240 and 160 < np.sum(mirrors) < 240
    assert -ANGLE <= angles.min() < -9 and 9 < angles.max() <= ANGLE + 1e-4
    assert 1 - SCALE - 1e-6 <= scales.min() < 0.91 and 1.09 < scales.max() <= 1 + SCALE + 1e-6
    # Turned whether or not mirrored, either way.
    assert abs(np.corrcoef(angles[~still], np.array(mirrors)[~still])[0, 1]) < 0.3


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("scale", [1 - SCALE, 1 + SCALE])
@pytest.mark.parametrize("patch", [7, 16, 64])
def test_largest_turn_equals_scipy_and_stays_in_the_window(monkeypatch, sign, scale, patch):
    def uniform(key, shape, minval, maxval):
        del key, shape
        return jnp.float32(scale if maxval == 1 + SCALE else sign * maxval)

    monkeypatch.setattr(jax.random, "uniform", uniform)
    monkeypatch.setattr(jax.random, "bernoulli", lambda key, p=0.5: jnp.asarray(p == 1.0))
    wide = window_for(patch)
    source = windows(1, wide)
    found = np.asarray(vary(source, keys(1), patch, warp=1.0))[0]
    angle = np.deg2rad(sign * ANGLE)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    offset = np.stack(np.meshgrid(*[np.arange(patch) - (patch - 1) / 2] * 2, indexing="ij"))
    at = np.einsum("ij,jhw->ihw", matrix, offset) + (wide - 1) / 2
    assert at.min() >= 0 and at.max() <= wide - 1
    noise = np.asarray(source[0, ..., 2], np.float64)
    expected = scipy.ndimage.map_coordinates(noise, at, order=1, mode="constant", cval=np.nan)
    np.testing.assert_allclose(found[..., :2], np.moveaxis(at, 0, -1), atol=1e-4)
    np.testing.assert_allclose(found[..., 2], expected, atol=2e-4)


@pytest.mark.parametrize("patch", [16, 255, 256])
def test_window_is_even_and_no_more_than_needed(patch):
    wide = window_for(patch)
    turn = np.deg2rad(ANGLE)
    needed = patch * (np.cos(turn) + np.sin(turn)) / (1 - SCALE)
    assert wide % 2 == 0 and needed <= wide <= needed + 4


def test_channels_of_a_pair_move_together():
    image = jax.random.normal(jax.random.key(3), [4, WIDE, WIDE, 1])
    pair = jnp.concatenate([image, windows(4), 2 * image + 1], -1)
    found = vary(pair, keys(4), PATCH, warp=1.0)
    np.testing.assert_allclose(found[..., -1], 2 * found[..., 0] + 1, atol=1e-5)
    alone = vary(image, keys(4), PATCH, warp=1.0)
    np.testing.assert_allclose(alone, found[..., :1], atol=1e-6)


def test_a_patch_depends_on_its_own_key_alone():
    source, of_each = windows(6), keys(6)
    together = jax.jit(lambda w, k: vary(w, k, PATCH, 1.0))(source, of_each)
    order = np.array([4, 1, 5])
    few = vary(source[order], of_each[order], PATCH, 1.0)
    np.testing.assert_allclose(few, together[order], atol=1e-4)
    assert len({tuple(np.round(p[0, 0, :2], 3)) for p in np.asarray(together)}) == 6


def test_bilinear_at_the_last_pixel():
    picture = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 2)), jnp.float32)
    row, column = np.mgrid[:3, :4].astype(np.float32)
    np.testing.assert_array_equal(warp.sample_bilinear(picture, row, column), picture)
