"""Other cameras: JPEG against Pillow, blur against scipy, and what the whole must keep."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from jaxface.ops import camera
from jaxface.ops.camera import other_camera

SIDE = 32


def photo(side, seed=0):
    """Colors that change slowly, detail that is mostly gray, a little noise: [side, side, 3] in 0..1."""
    rng = np.random.default_rng(seed)
    soft = lambda sigma, n: scipy.ndimage.gaussian_filter(
        rng.normal(size=(side, side, n)), (sigma, sigma, 0), mode="wrap"
    )
    color, detail = soft(side / 8, 3), soft(1.2, 1)
    picture = 0.5 + 0.12 * color / color.std() + 0.08 * detail / detail.std()
    return np.clip(picture + 0.01 * rng.normal(size=picture.shape), 0, 1).astype(np.float32)


def pictures(number, side=SIDE):
    return jnp.asarray(np.stack([photo(side, n) for n in range(number)]) * 2 - 1)


def keys(number, seed=0):
    return jax.random.split(jax.random.key(seed), number)


@functools.cache
def compiled():
    return jax.jit(other_camera)


@pytest.mark.parametrize("quality", [40, 55, 75, 95])
def test_jpeg_equals_pillow(quality):
    picture = np.rint(photo(96) * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=quality, subsampling="4:2:0")
    expected = np.asarray(Image.open(file)).astype(float)
    found = 255 * np.asarray(jax.jit(camera.jpeg)(picture / np.float32(255), quality))
    apart, lost = np.abs(found - expected), np.abs(expected - picture)
    # Pillow rounds to whole levels between its steps; of a wave near the middle between two multiples
    # either may be taken. Tables that round another way at one half lie 1.25 and 1.4 apart.
    assert apart.mean() < 1.15 and np.percentile(apart, 99) < 6.5
    assert apart.mean() < lost.mean() / 2
    assert np.abs(found - picture).mean() == pytest.approx(lost.mean(), rel=0.05)


def test_jpeg_of_one_color_is_that_color():
    color = np.float32([0.8, 0.5, 0.3])
    flat = np.broadcast_to(color, (16, 32, 3))
    np.testing.assert_allclose(camera.jpeg(flat, 95.0), flat, atol=2 / 255)


@pytest.mark.parametrize("sigma", [0.05, 0.4, 0.8, 1.2])
def test_blur_equals_scipy(sigma):
    picture = photo(24)[:, :20]
    expected = scipy.ndimage.gaussian_filter(
        picture.astype(np.float64), (sigma, sigma, 0), mode="nearest", radius=(4, 4, 0)
    )
    np.testing.assert_allclose(jax.jit(camera.blur)(picture, sigma), expected, atol=1e-6)


def test_chance_of_none_is_the_photograph_itself():
    images = pictures(8)
    np.testing.assert_array_equal(compiled()(images, keys(8), 0.0), images)


def test_chance_of_one_changes_each_in_its_own_way():
    images = jnp.repeat(pictures(1), 8, 0)
    found = np.asarray(compiled()(images, keys(8), 1.0))
    assert found.shape == images.shape and found.dtype == images.dtype
    assert np.all(np.abs(found - images).mean((1, 2, 3)) > 0.01)
    colors = found.mean((1, 2))
    assert np.all(colors.std(0) > 0.02)
    # Still the same picture: blur, noise and JPEG leave the coarse detail, tone and colors are monotonic.
    coarse = lambda x: np.asarray(x).mean(-1).reshape(8, 8, 4, 8, 4).mean((2, 4)).reshape(8, -1)
    for one, other in zip(coarse(images), coarse(found)):
        assert np.corrcoef(one, other)[0, 1] > 0.9


def test_how_often():
    images, changed = pictures(8), 0
    for of_each in keys(200).reshape(25, 8):
        found = np.asarray(compiled()(images, of_each, 0.3))
        changed += (np.abs(found - images).max((1, 2, 3)) > 0).sum()
    assert 38 < changed < 84  # 3.5 standard deviations about 60


def test_range_holds_at_the_ends():
    images = jnp.ones([8, SIDE, SIDE, 3]).at[::2].set(-1)
    for seed in range(4):
        found = np.asarray(compiled()(images, keys(8, seed), 1.0))
        assert np.isfinite(found).all() and np.abs(found).max() <= 1
        assert found[::2].mean() < -0.5 and found[1::2].mean() > 0.5


def test_no_gradient():
    """Not even where the photograph is its own: the gradient of x * constant is that constant."""
    images, of_each = pictures(1, 16), keys(1)
    slope = jax.jit(jax.grad(lambda x: (x * other_camera(x, of_each, 0.0)).sum()))(images)
    np.testing.assert_array_equal(slope, images)


def test_a_photograph_depends_on_its_own_key_alone():
    images, of_each = pictures(8), keys(8)
    together = np.asarray(compiled()(images, of_each, 1.0))
    order = np.array([3, 0, 2, 1, 7, 6, 4, 5])
    shuffled = np.asarray(compiled()(images[order], of_each[order], 1.0))
    alone = np.asarray(compiled()(images[2:3], of_each[2:3], 1.0))[0]
    # A wave in the middle between two multiples may be rounded either way.
    close = lambda a, b: np.mean(np.abs(a - b) < 1e-4) > 0.98
    assert close(shuffled, together[order]) and close(alone, together[2])
    assert not close(np.asarray(compiled()(images, of_each[order], 1.0))[1], together[1])
