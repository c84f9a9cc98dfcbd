"""Fréchet distance between two sets of features (Heusel et al. 2017, arXiv 1706.08500, eq. 6).

    d² = |mu_a - mu_b|² + tr(S_a) + tr(S_b) - 2 tr((S_a S_b)^(1/2))

The last trace is a sum of singular values: with any factors S_a = A'A and S_b = B'B, the eigenvalues
of S_a S_b are the squared singular values of A B'. That needs no square root of a matrix, never turns
complex, and holds for covariances of fewer images than features, where `scipy.linalg.sqrtm` fails.
"""

import numpy as np


def _nuclear(a: np.ndarray, b: np.ndarray) -> float:
    """Sum of the singular values of a b'."""
    return float(np.linalg.svd(a @ b.T, compute_uv=False).sum())


def _scaled(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and a factor A with A'A = covariance, of at most D rows."""
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"features must be [N, D] of at least 2 images, got {x.shape}")
    mean = x.mean(0)
    a = (x - mean) / np.sqrt(len(x) - 1)
    return mean, np.linalg.qr(a, mode="r") if len(a) > a.shape[1] else a


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Squared Fréchet distance between Gaussians fitted to [N, D] and [M, D] features, float64.

    Covariances divide by N - 1. It is FID only if the features are TF-Inception's. Biased upwards by
    about 1/N: sets of different sizes are not comparable, and of 500 images of one distribution it is
    far from 0. Raises ValueError for less than two images.
    """
    mean_a, a = _scaled(features_a)
    mean_b, b = _scaled(features_b)
    traces = np.square(a).sum() + np.square(b).sum()
    return max(float(np.square(mean_a - mean_b).sum() + traces - 2 * _nuclear(a, b)), 0.0)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """B with B'B = covariance, from its eigenvalues; those at rounding level are zero."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    keep = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
    return np.sqrt(values[keep])[:, None] * vectors[:, keep].T


def frechet_from_statistics(
    mu_a: np.ndarray, cov_a: np.ndarray, mu_b: np.ndarray, cov_b: np.ndarray
) -> float:
    """`frechet_distance` from means [D] and covariances [D, D], as FID statistics files hold them."""
    mu_a, cov_a, mu_b, cov_b = (np.asarray(x, np.float64) for x in (mu_a, cov_a, mu_b, cov_b))
    means = np.square(mu_a - mu_b).sum()
    traces = np.trace(cov_a) + np.trace(cov_b)
    return max(float(means + traces - 2 * _nuclear(_factor(cov_a), _factor(cov_b))), 0.0)
