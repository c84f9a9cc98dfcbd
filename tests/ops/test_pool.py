"""The pool of generated images against a loop over one image at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.ops import pool as pools

SIDE = 4


def pictures(number, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (number, SIDE, SIDE, 2)).astype(np.float32)


def slow(held, count, images, key):
    """CycleGAN's loop over images, with the draws of `exchange`: another place for every image."""
    size = len(held)
    key_place, key_take = jax.random.split(key)
    places = np.asarray(jax.random.permutation(key_place, size))
    take = np.asarray(jax.random.bernoulli(key_take, shape=[len(images)]))
    held, shown = list(held), []
    filling = count < size
    for i, image in enumerate(images):
        if filling:
            held[(count + i) % size] = image
            shown.append(image)
        elif take[i]:
            shown.append(held[places[i]])
            held[places[i]] = image
        else:
            shown.append(image)
    return held, min(count + len(images), size), shown


@pytest.mark.parametrize("size, number", [(6, 2), (5, 2), (4, 4), (7, 3), (3, 1)])
def test_equals_a_loop(size, number):
    """Also where the size is no multiple of the images at once and the last ones start anew."""
    pool = pools.empty(size, SIDE, 2)
    held, count = [None] * size, 0
    exchange = jax.jit(pools.exchange)
    for turn in range(12):
        images, key = pictures(number, turn), jax.random.key(turn)
        shown, pool = exchange(pool, jnp.asarray(images), key)
        held, count, expected = slow(held, count, images, key)
        np.testing.assert_allclose(shown, expected, atol=0.5 / 127.5 + 1e-6)
        assert int(pool["count"]) == count
        for place, image in enumerate(held):
            if image is not None:
                kept = np.asarray(pool["images"][place], np.float64) / 127.5 - 1
                np.testing.assert_allclose(kept, image, atol=0.5 / 127.5 + 1e-6)
    assert count == size


def test_while_it_fills_images_come_back_untouched():
    pool = pools.empty(4, SIDE, 2)
    for turn in range(2):
        assert int(pool["count"]) == 2 * turn
        images = jnp.asarray(pictures(2, turn))
        shown, pool = pools.exchange(pool, images, jax.random.key(turn))
        np.testing.assert_array_equal(shown, images)
    assert int(pool["count"]) == 4
    expected = np.rint(np.concatenate([pictures(2, 0), pictures(2, 1)]) * 127.5 + 127.5)
    np.testing.assert_array_equal(pool["images"], expected.astype(np.uint8))


def full(size):
    """A pool whose images are all of the level of their place."""
    levels = np.broadcast_to(np.arange(size, dtype=np.uint8)[:, None, None, None], (size, 1, 1, 1))
    return {"images": jnp.asarray(levels), "count": jnp.int32(size)}


def test_half_of_the_images_are_exchanged_and_with_every_place():
    size, number, turns = 8, 4, 500
    new = jnp.full([number, 1, 1, 1], 1.0)  # level 255, which no place holds
    one = lambda key: pools.exchange(full(size), new, key)
    shown, after = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), turns))
    levels = np.rint(np.asarray(shown).reshape(turns, number) * 127.5 + 127.5).astype(int)
    taken = levels < 255
    assert abs(taken.mean() - 0.5) < 0.04  # 3.6 standard deviations
    assert np.all(np.abs(taken.mean(0) - 0.5) < 0.08)
    counts = np.bincount(levels[taken], minlength=size)
    assert len(counts) == size and counts.min() > 80  # about 125 each
    for row, stored in zip(levels, np.asarray(after["images"]).reshape(turns, size)):
        old = row[row < 255]
        assert len(set(old)) == len(old)  # no place is met twice
        expected = np.arange(size)
        expected[old] = 255  # what was shown made room for a new one
        np.testing.assert_array_equal(stored, expected)


def test_levels_out_of_range_are_clipped():
    images = jnp.asarray([[[[-1.5]]], [[[1.5]]], [[[-1.0]]], [[[1.0]]]])
    _, pool = pools.exchange(pools.empty(4, 1, 1), images, jax.random.key(0))
    np.testing.assert_array_equal(pool["images"].ravel(), [0, 255, 0, 255])


def test_jit_equals_eager():
    pool, images, key = full(5), jnp.asarray([0.25, -0.5]).reshape(2, 1, 1, 1), jax.random.key(3)
    for one, two in zip(
        jax.tree.leaves(pools.exchange(pool, images, key)),
        jax.tree.leaves(jax.jit(pools.exchange)(pool, images, key)),
    ):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_more_images_than_places():
    with pytest.raises(ValueError, match="3 images do not fit a pool of 2"):
        pools.exchange(pools.empty(2, SIDE, 2), jnp.asarray(pictures(3)), jax.random.key(0))
