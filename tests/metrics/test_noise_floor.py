"""Split-half noise floor: how n enters, and that nobody is in both halves."""

import numpy as np
import pytest

from jaxface.metrics import frechet_distance, kid
from jaxface.metrics.noise_floor import split_half


def test_kid_has_no_mean_and_shrinks_with_n_while_fd_is_bias():
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=(60, 8)), rng.normal(size=(480, 8))
    kid_few, kid_many = split_half(few, kid, 40), split_half(many, kid, 40)
    assert abs(kid_few.mean) < kid_few.p95
    assert kid_many.p95 < kid_few.p95 / 4
    assert (kid_few.half, kid_few.splits) == (30, 40)
    fd_few, fd_many = (split_half(x, frechet_distance, 4) for x in (few, many))
    assert fd_few.mean > 5 * fd_many.mean > 0


def test_nobody_is_in_both_halves():
    features = np.arange(30.0)[:, None]
    subjects = np.repeat([f"p{i}" for i in range(10)], 3)

    def overlap(a, b):
        people_a, people_b = (set(subjects[x[:, 0].astype(int)]) for x in (a, b))
        assert len(people_a) == len(people_b) == 5
        return len(people_a & people_b)

    assert split_half(features, overlap, 20, subjects=subjects).p95 == 0


def test_two_people_have_no_floor():
    with pytest.raises(ValueError, match="4 people"):
        split_half(np.zeros((6, 2)), kid, subjects=np.array([0, 0, 0, 1, 1, 1]))
