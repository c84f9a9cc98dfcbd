"""Intervals over people: photographs of one person are not independent, so people are resampled."""

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import scipy.stats


class Interval(NamedTuple):
    """A number with the ends of its interval; None where the data cannot tell them."""

    value: float
    low: float | None
    high: float | None
    n: int  # people, or whatever was resampled


def by_subject(values: np.ndarray, subjects: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of `values` [N, ...] by the person [N] they belong to, people in order of name."""
    values = np.asarray(values)
    names, index, sizes = np.unique(np.asarray(subjects), return_inverse=True, return_counts=True)
    ordered = values[np.argsort(index, kind="stable")]
    groups = np.split(ordered, np.cumsum(sizes)[:-1])
    return {str(name): group for name, group in zip(names, groups)}


def bootstrap(
    values_by_subject: Mapping[str, np.ndarray],
    statistic: Callable[[np.ndarray], float],
    *,
    method: str = "BCa",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of a statistic by resampling people with all that was measured of them.

    Args:
      values_by_subject: [rows, ...] of each person; `by_subject` makes it.
      statistic: of all rows of some people, [rows, ...] -> float; rows of a person drawn twice come
        twice.
      method: "BCa" (Efron 1987: bias-corrected and accelerated, costs one more evaluation a person)
        or "percentile".

    Returns:
      The interval; its ends are None for less than two people and where every resample gives the same
      number (10 of 10 correct): a bootstrap knows nothing of what it never saw.
    """
    groups = [np.asarray(rows) for rows in values_by_subject.values()]
    rows, sizes = np.concatenate(groups), np.array([len(g) for g in groups])
    first = np.cumsum(sizes) - sizes

    def rows_of(people):
        drawn = sizes[people]
        offset = np.arange(drawn.sum()) - np.repeat(np.cumsum(drawn) - drawn, drawn)
        return rows[np.repeat(first[people], drawn) + offset]

    people = np.arange(len(groups))
    value = float(statistic(rows_of(people)))
    if len(groups) < 2:
        return Interval(value, None, None, len(groups))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degenerate data: answered with None below
        result = scipy.stats.bootstrap(
            (people,),
            lambda drawn: statistic(rows_of(drawn)),
            vectorized=False,
            n_resamples=resamples,
            confidence_level=confidence,
            method=method,
            rng=np.random.default_rng(seed),
        )
    low, high = map(float, result.confidence_interval)
    if not (np.isfinite(low) and np.isfinite(high)) or np.ptp(result.bootstrap_distribution) == 0:
        return Interval(value, None, None, len(groups))
    return Interval(value, low, high, len(groups))
