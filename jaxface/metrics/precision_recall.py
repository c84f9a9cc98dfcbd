"""Improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991, eq. 1 to 3)."""

import numpy as np

from jaxface.metrics.neighbours import distance_rows, nearest


def _inside(points: np.ndarray, manifold: np.ndarray, k: int) -> np.ndarray:
    """Which points [N] lie in a ball around a manifold point that reaches its k-th neighbour."""
    radii = nearest(manifold, manifold, k, leave_out=True)[1][:, -1]
    return np.concatenate([(d <= radii).any(1) for _, d in distance_rows(points, manifold)])


def memberships(
    real: np.ndarray, generated: np.ndarray, k: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Which generated images [M] lie among the reals, which reals [N] among the generated: bool."""
    return _inside(generated, real, k), _inside(real, generated, k)


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """(precision, recall) in 0..1 of features [N, D] and [M, D].

    Precision is the share of generated images that look real, recall the share of reals the generator
    can reach. Both depend on N, M and k: compare only equal sizes. Raises ValueError for sets of k
    images or fewer.
    """
    precise, recalled = memberships(real, generated, k)
    return float(precise.mean()), float(recalled.mean())
