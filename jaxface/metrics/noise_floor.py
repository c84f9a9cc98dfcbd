"""What a metric says of two halves of one set: a difference smaller than that is no difference."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Floor(NamedTuple):
    """Split-half noise floor."""

    mean: float
    p95: float  # one split in twenty exceeds it
    splits: int
    half: int  # images in the smaller half, on average


def split_half(
    features: np.ndarray,
    metric: Callable[[np.ndarray, np.ndarray], float],
    splits: int = 20,
    seed: int = 0,
    subjects: np.ndarray | None = None,
) -> Floor:
    """The metric between random halves of a real set, no person in both.

    n enters twice. Halves of n/2 images are compared with each other, so the floor is that of a
    comparison of n/2 with n/2: for KID, unbiased, the mean is about 0 for every n, the spread shrinks
    like 1/n, and the 95th percentile is the floor to beat. FD is biased by about 1/n: its floor at n/2
    is about twice what two sets of n would give, so it is an upper bound.

    Args:
      features: [n, D] of reals.
      metric: (features, features) -> float, such as `kid` or `frechet_distance`.
      subjects: person [n] of each image, people are dealt out whole; None: each image its own.

    Raises:
      ValueError: less than four people, whose halves have no spread.
    """
    labels = np.arange(len(features)) if subjects is None else np.asarray(subjects)
    names, person = np.unique(labels, return_inverse=True)
    if len(names) < 4:
        raise ValueError(f"a split-half noise floor needs 4 people, got {len(names)}")
    rng = np.random.default_rng(seed)
    values, halves = [], []
    for _ in range(splits):
        first = (rng.permutation(len(names)) < len(names) // 2)[person]
        values.append(metric(features[first], features[~first]))
        halves.append(min(first.sum(), (~first).sum()))
    return Floor(
        float(np.mean(values)), float(np.percentile(values, 95)), splits, round(np.mean(halves))
    )
