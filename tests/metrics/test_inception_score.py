"""Inception Score: a peer's output and scores known beforehand."""

import golden
import numpy as np
import pytest

from jaxface.metrics import inception_score


@pytest.mark.parametrize("splits", [1, 5, 10])
def test_peer(splits):
    data = golden.load("metrics")
    expected = data[f"isc/torch_fidelity_splits{splits}_mean_std"]
    assert inception_score(data["isc/in_logits"], splits) == pytest.approx(expected, rel=1e-6)


def test_sure_and_varied_is_the_number_of_classes():
    logits = np.tile(100 * np.eye(5), (4, 1))
    assert inception_score(logits, splits=1) == pytest.approx((5, 0))


def test_one_answer_for_all_is_one():
    rng = np.random.default_rng(0)
    logits = np.tile(rng.normal(size=7), (20, 1)) + rng.normal(
        size=(20, 1)
    )  # shifts change nothing
    assert inception_score(logits, splits=4) == pytest.approx((1, 0))


def test_by_hand_without_shuffling():
    p = np.array([[0.8, 0.2], [0.4, 0.6], [0.5, 0.5], [0.5, 0.5]])
    first = np.exp(np.mean((p[:2] * np.log(p[:2] / [0.6, 0.4])).sum(1)))
    expected = np.mean([first, 1]), np.std([first, 1])
    assert inception_score(np.log(p), splits=2, seed=None) == pytest.approx(expected)


def test_fewer_images_than_splits():
    with pytest.raises(ValueError, match="10 splits"):
        inception_score(np.zeros((9, 3)))
