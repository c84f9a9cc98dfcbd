"""Precision and recall: peers' outputs and cases that can be counted by eye."""

import golden
import numpy as np
import pytest

from jaxface.metrics import precision_recall


@pytest.mark.parametrize("k", [3, 5])
def test_peers(k):
    data = golden.load("metrics")
    precision, recall = precision_recall(data["in/f2"], data["in/f1"], k)
    expected = data[f"prc/torch_fidelity_k{k}_full"]
    assert precision == pytest.approx(expected[0], abs=1e-6)
    assert recall == pytest.approx(expected[1], abs=1e-6)


def test_nvidia():
    data = golden.load("metrics")
    got = precision_recall(data["in/f2"], data["in/f1"], 3)
    # Its radii are rounded to float16, so that a borderline sample may differ.
    np.testing.assert_allclose(got, data["prc/nvidia_k3_real=f2_gen=f1"], atol=1.5 / 150)


def test_on_a_line():
    # Reals at 0..4, each ball reaching its nearest real at distance 1.
    real = np.arange(5.0)[:, None]
    generated = np.array([[0.5], [2.2], [9.0], [9.1]])
    precision, recall = precision_recall(real, generated, k=1)
    assert precision == 0.5  # 9.0 and 9.1 are in no ball
    # Radii of the generated: 1.7, 1.7, 0.1, 0.1. Balls [-1.2, 2.2] and [0.5, 3.9] cover 0, 1, 2, 3.
    assert recall == 0.8


def test_equal_and_distant_sets():
    real = np.random.default_rng(0).normal(size=(30, 4))
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, real + 100) == (0.0, 0.0)


def test_too_few():
    with pytest.raises(ValueError, match="3 training images"):
        precision_recall(np.zeros((3, 2)), np.zeros((9, 2)), k=3)
