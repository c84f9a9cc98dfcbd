"""Kernel Inception Distance (Binkowski et al. 2018, arXiv 1801.01401), for whatever features.

The unbiased estimate of the squared maximum mean discrepancy under the kernel (x.y / D + 1)³. Its
expectation does not depend on the number of images, so it is the number to read where FD is all bias.
"""

from collections.abc import Iterator

import numpy as np

from jaxface.metrics.intervals import Interval

ENTRIES = 2**24  # of a kernel matrix held at once (128 MiB)
BUNDLES = 2000  # units resampled at most; more people or images are bundled


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _rows(x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
    """Kernel of x [N, D] against y [M, D], some whole rows at a time."""
    height = max(1, ENTRIES // len(y))
    for first in range(0, len(x), height):
        yield _kernel(x[first : first + height], y)


def _checked(features_a, features_b) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(features_a, np.float64), np.asarray(features_b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"features must be [N, D] and [M, D] of at least 2 images, got {a.shape}, {b.shape}"
        )
    return a, b


def _self_similarity(x: np.ndarray) -> float:
    """Mean kernel over all pairs of two different images."""
    total = sum(k.sum() for k in _rows(x, x))
    diagonal = ((np.square(x).sum(1) / x.shape[1] + 1) ** 3).sum()
    return (total - diagonal) / (len(x) * (len(x) - 1))


def kid(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Unbiased KID between all of [N, D] and all of [M, D] features, float64, N and M free.

    Equation 4 of the paper with its section 4 kernel; no random subsets. May be slightly below 0 for
    two samples of one distribution. Raises ValueError for less than two images.
    """
    a, b = _checked(features_a, features_b)
    between = sum(k.sum() for k in _rows(a, b)) / (len(a) * len(b))
    return float(_self_similarity(a) + _self_similarity(b) - 2 * between)


def kid_subsets(
    features_a: np.ndarray,
    features_b: np.ndarray,
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 2020,
) -> tuple[float, float]:
    """(mean, standard deviation) of `kid` over random subsets, as published tables have it.

    Each subset draws `size` images without replacement from A, then from B. The draws are those of
    torch-fidelity (its defaults are ours); clean-fid draws from the reals' side first, so there A is
    its second set. The spread says how a KID of `size` images varies, not how sure the mean is:
    `kid` with `kid_interval` is the better estimate. Raises ValueError for less images than `size`.
    """
    a, b = _checked(features_a, features_b)
    if not 2 <= size <= min(len(a), len(b)):
        raise ValueError(f"{len(a)} and {len(b)} images have no subsets of {size}")
    draws = np.random.RandomState(seed)  # its stream is frozen, so that numbers can be compared
    values = []
    for _ in range(subsets):
        first = a[draws.choice(len(a), size, replace=False)]
        values.append(kid(first, b[draws.choice(len(b), size, replace=False)]))
    return float(np.mean(values)), float(np.std(values))


class _Units:
    """Features sorted by the unit (person, or bundle of images) that is resampled as a whole."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, rng: np.random.Generator):
        _, unit = np.unique(labels, return_inverse=True)
        self.people = int(unit.max()) + 1
        if self.people > BUNDLES:
            unit = (rng.permutation(self.people) * BUNDLES // self.people)[unit]
        order = np.argsort(unit, kind="stable")
        self.features = features[order]
        self.sizes = np.bincount(unit).astype(np.float64)
        self.first = np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(int)

    def sums(self, other: "_Units") -> np.ndarray:
        """Kernel summed over all pairs of images of two units. -> [units, units of other]"""
        blocks = _rows(self.features, other.features)
        rows = [np.add.reduceat(k, other.first, axis=1) for k in blocks]
        return np.add.reduceat(np.concatenate(rows), self.first, axis=0)

    def draws(self, resamples: int, rng: np.random.Generator) -> np.ndarray:
        """How often each unit is drawn. -> [resamples, units]"""
        units = len(self.sizes)
        return rng.multinomial(units, np.full(units, 1 / units), resamples).astype(np.float64)

    def self_similarity(self, draws: np.ndarray) -> np.ndarray:
        """Mean kernel over pairs of different images of drawn units. -> [resamples]

        Two copies of one unit are not compared with each other: an image is too similar to itself, and
        counting that would move every resample up.
        """
        sums = self.sums(self)
        diagonal = (np.square(self.features).sum(1) / self.features.shape[1] + 1) ** 3
        within = np.diag(sums) - np.add.reduceat(diagonal, self.first)
        quadratic = lambda matrix: ((draws @ matrix) * draws).sum(1)
        total = quadratic(sums - np.diag(np.diag(sums))) + draws @ within
        drawn = draws @ self.sizes
        pairs = drawn**2 - draws**2 @ self.sizes**2 + draws @ (self.sizes * (self.sizes - 1))
        return total / pairs


def kid_interval(
    real: np.ndarray,
    generated: np.ndarray,
    subjects: np.ndarray | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """KID with a percentile bootstrap interval over real people and generated images.

    Args:
      real, generated: features [N, D], [M, D].
      subjects: person [N] of each real image; None: each its own.

    Returns:
      (value, low, high, number of people). Kernels are summed once per pair of people, so that 1,000
      resamples cost three matrix products. Where KID is near 0 its estimate is a degenerate
      U-statistic, and the interval is wider than it need be.
    """
    a, b = _checked(real, generated)
    rng = np.random.default_rng(seed)
    labels = np.arange(len(a)) if subjects is None else np.asarray(subjects)
    people, images = _Units(a, labels, rng), _Units(b, np.arange(len(b)), rng)
    if people.people < 2:
        return Interval(kid(a, b), None, None, people.people)
    draws_a, draws_b = people.draws(resamples, rng), images.draws(resamples, rng)
    between = ((draws_a @ people.sums(images)) * draws_b).sum(1)
    between /= (draws_a @ people.sizes) * (draws_b @ images.sizes)
    with np.errstate(invalid="ignore"):  # one image drawn again and again has no pair: left out
        replicates = people.self_similarity(draws_a) + images.self_similarity(draws_b) - 2 * between
    replicates = replicates[np.isfinite(replicates)]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(replicates, [tail, 100 - tail])
    return Interval(kid(a, b), float(low), float(high), people.people)
