"""The study's augmentation: how far a headshot may be turned, shifted, sheared and zoomed."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxface.ops import affine

SIDE = 48


@jax.jit
def varied(image, seeds):
    images = jnp.repeat(image[None], len(seeds), 0)
    return affine.vary_headshots(images, jax.vmap(jax.random.key)(seeds))


def places(seeds):
    """Where the pixels of copies come from, in px about the middle [n, S, S, (row, column)].

    Pictures whose levels are their own coordinates are warped; the border, which is repeated, is cut off.
    """
    at = jnp.arange(SIDE, dtype=jnp.float32) - (SIDE - 1) / 2
    coordinates = jnp.stack(jnp.meshgrid(at, at, indexing="ij"), -1)
    return np.asarray(varied(coordinates, jnp.asarray(seeds)))[:, 8:-8, 8:-8]


def test_turns_shifts_and_zooms_stay_within_the_published_ranges():
    found = places(range(300))
    down = (found[:, -1] - found[:, 0]).mean(1) / 31  # how the place moves with a row [n, 2]
    right = (found[:, :, -1] - found[:, :, 0]).mean(1) / 31
    mirrored = right[:, 1] < 0
    assert 110 < mirrored.sum() < 190
    right = np.where(mirrored[:, None], right * [1, -1], right)
    down = np.where(mirrored[:, None], down * [1, -1], down)
    angle = np.rad2deg(np.arctan2(down[:, 1], down[:, 0]))
    assert np.abs(angle).max() <= 6.01 and np.abs(angle).max() > 5.5
    rows, columns = np.hypot(*down.T), np.hypot(*right.T)
    for zoom in (rows, columns):
        assert 0.91 < zoom.min() < 0.94 and 1.06 < zoom.max() < 1.09
    assert np.abs(np.corrcoef(rows, columns)[0, 1]) < 0.2  # axes zoom by themselves
    cosine = (down * right).sum(1) / (rows * columns)
    assert 1.5 < np.rad2deg(np.arcsin(np.abs(cosine).max())) < 2.01
    middle = found.mean((1, 2)) / SIDE
    assert 0.05 < np.abs(middle).max() < 0.068  # turned shifts reach further along one axis


def test_border_is_the_nearest_pixel_and_each_copy_its_own():
    bright = jnp.full([SIDE, SIDE, 3], 0.6)
    assert np.ptp(varied(bright, jnp.arange(20))) < 1e-5
    picture = jax.random.uniform(jax.random.key(0), [SIDE, SIDE, 3])
    together, alone = varied(picture, jnp.array([3, 4])), varied(picture, jnp.array([4]))
    place = np.spacing(np.float32(SIDE))  # as exact as float32 has it, in pixels of slope up to 1
    np.testing.assert_allclose(together[1], alone[0], atol=4 * place)
    assert np.abs(together[0] - together[1]).max() > 0.1
