"""Nearest neighbours against all distances one by one."""

import numpy as np
import pytest
import scipy.spatial.distance

from jaxface.metrics import neighbours


def test_equals_all_distances(monkeypatch):
    rng = np.random.default_rng(0)
    samples, training = rng.normal(size=(7, 5)) + 1e3, rng.normal(size=(20, 5)) + 1e3
    expected = scipy.spatial.distance.cdist(samples, training)
    monkeypatch.setattr(neighbours, "ENTRIES", 60)  # three rows at a time
    indices, distances = neighbours.nearest(samples, training, 3)
    np.testing.assert_array_equal(indices, np.argsort(expected, axis=1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :3], rtol=1e-9)


def test_a_copy_is_at_distance_zero_and_none_is_its_own_neighbour():
    training = np.random.default_rng(1).normal(size=(9, 1280)).astype(np.float32)
    indices, distances = neighbours.nearest(training[[4]], training)
    assert (indices[0, 0], distances[0, 0]) == (4, 0.0)
    indices, distances = neighbours.nearest(training, training, leave_out=True)
    assert (indices[:, 0] != np.arange(9)).all()
    assert distances.min() > 1


def test_more_than_there_are():
    with pytest.raises(ValueError, match="no 3 neighbours"):
        neighbours.nearest(np.zeros((3, 2)), np.zeros((3, 2)), 3, leave_out=True)
