"""Nearest neighbours in feature space: whom does a sample resemble, and how much."""

from collections.abc import Iterator

import numpy as np

ENTRIES = 2**24  # of a distance matrix held at once (128 MiB)


def distance_rows(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Euclidean distances of a [N, D] to b [M, D], float64, some whole rows of the matrix at a time."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    center = b.mean(0)
    a, b = a - center, b - center
    squares_b = np.square(b).sum(1)
    height = max(1, ENTRIES // len(b))
    for first in range(0, len(a), height):
        part = a[first : first + height]
        sizes = np.square(part).sum(1)[:, None] + squares_b
        squared = sizes - 2 * part @ b.T
        # |a|² + |b|² - 2ab leaves rounding noise between equal images, whose distance is 0.
        squared[squared < 1e-13 * sizes] = 0
        yield slice(first, first + height), np.sqrt(squared)


def nearest(
    samples: np.ndarray, training: np.ndarray, k: int = 1, *, leave_out: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest training images of each sample, nearest first.

    Args:
      samples, training: features [N, D], [M, D].
      leave_out: samples are the training images themselves, and none is its own neighbour.

    Returns:
      (indices [N, k] into training, distances [N, k] in feature units). Raises ValueError if there
      are less than k images to choose from.
    """
    if k > len(training) - leave_out:
        raise ValueError(f"{len(training)} training images have no {k} neighbours to give")
    indices, distances = [], []
    for rows, distance in distance_rows(samples, training):
        if leave_out:
            own = np.arange(len(training))[rows]
            distance[np.arange(len(own)), own] = np.inf
        chosen = np.argpartition(distance, k - 1, axis=1)[:, :k]
        found = np.take_along_axis(distance, chosen, axis=1)
        order = np.argsort(found, axis=1, kind="stable")
        indices.append(np.take_along_axis(chosen, order, axis=1))
        distances.append(np.take_along_axis(found, order, axis=1))
    return np.concatenate(indices), np.concatenate(distances)
