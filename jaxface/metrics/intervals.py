"""Intervals over people: photographs of one person are not independent, so people are what counts.

`bootstrap` takes any statistic, and promises its 95 % for many people only: for a mean error of 10 people it
covers 87 to 91 %, and where all are right it has no answer. Of few people, `proportion` and `jackknife`
tell more; what each covers at 10, 24, 39 and 277 people is measured in benchmarks/coverage.py.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import scipy

RESAMPLES = 2000  # that `bootstrap` draws unless it is told
PRIOR = 0.7  # both parameters of the beta prior of a share: between Jeffreys' 1/2, which covers too much
#   near 1, and the uniform 1, which covers too little there (benchmarks/coverage.py)


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
    resamples: int | None = None,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of a statistic by resampling people with all that was measured of them.

    Args:
      values_by_subject: [rows, ...] of each person; `by_subject` makes it.
      statistic: of all rows of some people, [rows, ...] -> float; rows of a person drawn twice come
        twice.
      method: "BCa" (Efron 1987: bias-corrected and accelerated, costs one more evaluation a person)
        or "percentile".
      resamples: None for RESAMPLES.

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
            n_resamples=RESAMPLES if resamples is None else resamples,
            confidence_level=confidence,
            method=method,
            rng=np.random.default_rng(seed),
        )
    low, high = map(float, result.confidence_interval)
    if not (np.isfinite(low) and np.isfinite(high)) or np.ptp(result.bootstrap_distribution) == 0:
        return Interval(value, None, None, len(groups))
    return Interval(value, low, high, len(groups))


def proportion(hits: np.ndarray, subjects: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Interval of a share such as accuracy, from 0 or 1 [N] of photographs of people [N].

    People differ in their own share by a beta distribution, so that their counts are beta-binomial
    (Skellam, JRSS B 1948; Williams, Biometrics 1975); the ends are quantiles of the posterior of its mean,
    with a Beta(0.7, 0.7) prior of the mean and a uniform one of the correlation of two photographs of a
    person. One photograph a person is the binomial case, whose Jeffreys interval (Brown, Cai & DasGupta,
    Statistical Science 2001) it resembles. Unlike a design effect that is estimated and then believed (Rao
    & Scott, Biometrics 1992), it knows how little few errors tell of their own correlation, and it has an
    answer where all are right: the upper end is 1 then.

    How many photographs a person has must not depend on how often they are right. It does for precision,
    whose photographs are chosen by the prediction: that is a case for `jackknife`.

    Returns:
      value: the share of all photographs. The ends are None for less than two people.

    Raises:
      ValueError: a hit that is neither 0 nor 1; nothing to count.
    """
    hits = np.asarray(hits, np.float64)
    if not len(hits) or not np.isin(hits, (0, 1)).all():
        raise ValueError("a share needs hits that are 0 or 1, at least one")
    _, index, sizes = np.unique(np.asarray(subjects), return_inverse=True, return_counts=True)
    value = float(hits.mean())
    if len(sizes) < 2:
        return Interval(value, None, None, len(sizes))
    right = np.bincount(index, hits, len(sizes)).astype(int)
    # Beta-binomial probabilities are products of rising factorials, whose j-th factor occurs once for
    # everybody with a count above j.
    above = [
        np.cumsum(np.bincount(count)[::-1])[::-1][1:] for count in (right, sizes - right, sizes)
    ]
    root = (
        np.arange(32) + 0.5
    ) / 32  # of the correlation: dense near 0, where many photographs see it
    precision = 1 / root**2 - 1

    def log_posterior(logit):
        share = scipy.special.expit(logit)[:, None]
        total = PRIOR * (np.log(share) + np.log1p(-share)) + np.log(root)
        factors = (share * precision, scipy.special.expit(-logit)[:, None] * precision, precision)
        for people, factor, sign in zip(above, factors, (1, 1, -1)):
            for j, number in enumerate(people):
                total = total + sign * number * np.log(factor + j)
        return scipy.special.logsumexp(total, axis=1)

    coarse = np.linspace(-16, 16, 65)
    found = log_posterior(coarse)
    seen = np.flatnonzero(found > found.max() - 25)
    fine = np.linspace(coarse[max(seen[0] - 1, 0)], coarse[min(seen[-1] + 1, 64)], 129)
    found = log_posterior(fine)
    mass = np.exp(found - found.max())
    below = (np.cumsum(mass) - mass / 2) / mass.sum()  # half of a point's mass lies below it
    tail = (1 - confidence) / 2
    low, high = scipy.special.expit(np.interp([tail, 1 - tail], below, fine))
    low, high = (0.0 if value == 0 else low), (1.0 if value == 1 else high)
    return Interval(value, float(min(low, value)), float(max(high, value)), len(sizes))


def mean(values: np.ndarray, subjects: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Interval of the mean of all values [N] of people [N] alike, as `jackknife` gives it.

    For errors, Brier scores and differences of two methods on the same photographs.
    """
    values = np.asarray(values, np.float64)
    _, index, sizes = np.unique(np.asarray(subjects), return_inverse=True, return_counts=True)
    total = np.bincount(index, values, len(sizes))
    if len(sizes) < 2:
        return Interval(float(values.mean()), None, None, len(sizes))
    left_out = (total.sum() - total) / (len(values) - sizes)
    return from_left_out(float(values.mean()), left_out, (-np.inf, np.inf), confidence)


def jackknife(
    values_by_subject: Mapping[str, np.ndarray],
    statistic: Callable[[np.ndarray], float],
    *,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    confidence: float = 0.95,
) -> Interval:
    """Interval of a smooth statistic from what it becomes without each person in turn.

    The jackknife tells variance and skewness of the statistic (Efron, The Jackknife, the Bootstrap and
    Other Resampling Plans, 1982), Student's t with n - 1 degrees of freedom is asked, and Hall's
    transformation takes the skewness out (Hall, On the removal of skewness by transformation, JRSS B 1992):
    as good as a bootstrap-t, with nothing drawn. For means, AUROC, precision, F and the like; not for
    medians, which do not change smoothly.

    Args:
      values_by_subject: [rows, ...] of each person; `by_subject` makes it.
      statistic: of all rows of some people, [rows, ...] -> float.
      bounds: of what the statistic can be; ends beyond them are put there.

    Returns:
      The interval; its ends are None for less than three people, where leaving out any person changes
      nothing (an AUROC of 1), and where the statistic has no meaning without some person.
    """
    groups = [np.asarray(rows) for rows in values_by_subject.values()]
    rows, ends = np.concatenate(groups), np.cumsum([0] + [len(group) for group in groups])
    value = float(statistic(rows))
    if len(groups) < 2:
        return Interval(value, None, None, len(groups))
    others = lambda i: np.concatenate([rows[: ends[i]], rows[ends[i + 1] :]])
    left_out = np.array([statistic(others(i)) for i in range(len(groups))], np.float64)
    return from_left_out(value, left_out, bounds, confidence)


def from_left_out(value: float, left_out: np.ndarray, bounds, confidence: float) -> Interval:
    """Hall's interval from the statistic without each person [n]."""
    n = len(left_out)
    influence = left_out.mean() - left_out
    spread = np.sqrt(np.square(influence).mean())
    # Rounding makes sums without a person differ even where no person makes a difference.
    if n < 3 or not np.isfinite(spread) or spread <= 1e-12 * max(abs(value), 1):
        return Interval(value, None, None, n)
    error = np.sqrt(n - 1) * spread
    skewness = np.mean(influence**3) / spread**3 * np.sqrt(n * (n - 1)) / (n - 2)
    bend = skewness / np.sqrt(n)

    def untransformed(t):
        if abs(bend) < 1e-9:
            return t
        return 3 / bend * (np.cbrt(1 + bend * (t - bend / 6)) - 1)

    t = scipy.stats.t.ppf((1 + confidence) / 2, n - 1)
    ends = (value - error * untransformed(t), value - error * untransformed(-t))
    low, high = np.clip(ends, *bounds)
    return Interval(value, float(min(low, value)), float(max(high, value)), n)
