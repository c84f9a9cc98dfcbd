"""Features of places: shapes, padding of the last batch, and place by place where they belong."""

import numpy as np
import pytest

from jaxface.metrics.patches import patch_features

SHAPES = {"block3": (32, 32, 24), "block6": (16, 16, 32), "block13": (8, 8, 96)}


def test_shapes_and_batches():
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), np.uint8)
    found = patch_features(images, tuple(SHAPES), batch=2)
    assert [one.shape for one in found] == [(3, *shape) for shape in SHAPES.values()]
    alone = patch_features(images[2:], tuple(SHAPES), batch=2)
    for all_, one in zip(found, alone):
        np.testing.assert_allclose(all_[2], one[0], atol=1e-4)


def test_a_mark_moves_the_features_of_its_place():
    images = np.full((2, 64, 64, 1), 128, np.uint8)
    images[1, 40:46, 8:14] = 0
    for name, one in zip(SHAPES, patch_features(images, tuple(SHAPES), batch=2)):
        moved = np.abs(one[1] - one[0]).sum(-1)
        row, column = np.unravel_index(moved.argmax(), moved.shape)
        at = (np.array([row, column]) + 0.5) * 64 / len(moved)
        assert np.abs(at - (43, 11)).max() <= 64 / len(moved) + 3, name


def test_refusals():
    for wrong in (np.zeros((1, 64, 64, 3)), np.zeros((64, 64, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            patch_features(wrong, ("block3",))
