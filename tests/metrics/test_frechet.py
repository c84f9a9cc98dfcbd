"""Fréchet distance: peers' outputs, closed forms, and a matrix square root where that works."""

import golden
import numpy as np
import pytest
import scipy.linalg

from jaxface.metrics import frechet_distance, frechet_from_statistics


def statistics(features):
    x = np.asarray(features, np.float64)
    return x.mean(0), np.cov(x, rowvar=False)


def both_ways(a, b):
    """The distance from features and from statistics: two routes that must agree."""
    return frechet_distance(a, b), frechet_from_statistics(*statistics(a), *statistics(b))


@pytest.mark.parametrize("pair", ["f1_f2", "f1_deficient", "deficient_deficient"])
def test_peers(pair):
    data = golden.load("metrics")
    deficient = data["in/f_rank_deficient"]
    sets = {
        "f1_f2": (data["in/f1"], data["in/f2"], 1e-6),
        "f1_deficient": (data["in/f1"], deficient, 1e-5),
        "deficient_deficient": (deficient, np.roll(deficient, 1, axis=1), 1e-5),
    }
    a, b, tolerance = sets[pair]
    for peer in ("pytorch_fid", "clean_fid", "torch_fidelity"):
        for distance in both_ways(a, b):
            assert distance == pytest.approx(float(data[f"fid/{pair}/{peer}"]), rel=tolerance)


def test_statistics_of_peers():
    data = golden.load("metrics")
    names = ("fid/mu1", "fid/sigma1", "fid/mu2", "fid/sigma2")
    distance = frechet_from_statistics(*(data[name] for name in names))
    assert distance == pytest.approx(float(data["fid/f1_f2/pytorch_fid"]), rel=1e-6)


def test_covariances_that_divide_by_n():
    data = golden.load("metrics")
    biased = lambda x: (x.mean(0, np.float64), np.cov(x, rowvar=False, bias=True))
    distance = frechet_from_statistics(*biased(data["in/f2"]), *biased(data["in/f1"]))
    assert distance == pytest.approx(float(data["fid/nvidia_real=f2_gen=f1"]), rel=1e-6)


def test_same_features():
    data = golden.load("metrics")
    for distance in both_ways(data["in/f1"], data["in/f1"]):
        assert distance == pytest.approx(float(data["fid/f1_f1/pytorch_fid"]), abs=1e-10)


def test_closed_form_of_diagonal_gaussians():
    mu_a, mu_b = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 5.0])
    s_a, s_b = np.array([1.0, 4.0, 0.0]), np.array([9.0, 4.0, 0.25])
    expected = 5.0 + np.square(np.sqrt(s_a) - np.sqrt(s_b)).sum()
    distance = frechet_from_statistics(mu_a, np.diag(s_a), mu_b, np.diag(s_b))
    assert distance == pytest.approx(expected, rel=1e-12)


def test_square_root_of_a_matrix():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(60, 8)) @ rng.normal(size=(8, 8))
    b = rng.normal(size=(50, 8)) @ rng.normal(size=(8, 8)) + 1
    (mu_a, cov_a), (mu_b, cov_b) = statistics(a), statistics(b)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    expected = np.square(mu_a - mu_b).sum() + np.trace(cov_a + cov_b - 2 * root)
    for distance in both_ways(a, b):
        assert distance == pytest.approx(expected, rel=1e-9)


def test_fewer_images_than_features():
    # Disjoint subspaces: the cross term is 0. A shift: the covariances are the same.
    rng = np.random.default_rng(1)
    a, b = np.zeros((12, 40)), np.zeros((9, 40))
    a[:, :20], b[:, 20:] = rng.normal(size=(12, 20)), rng.normal(size=(9, 20))
    (mu_a, cov_a), (mu_b, cov_b) = statistics(a), statistics(b)
    expected = np.square(mu_a - mu_b).sum() + np.trace(cov_a + cov_b)
    for distance in both_ways(a, b):
        assert distance == pytest.approx(expected, rel=1e-9)
    for distance in both_ways(a, a + 0.5):
        assert distance == pytest.approx(40 * 0.25, rel=1e-9)
    for distance in both_ways(a, a):
        assert 0 <= distance < 1e-9


def test_one_image_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(np.zeros((1, 4)), np.zeros((5, 4)))
