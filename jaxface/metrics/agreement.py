"""How well two ways of measuring the same people agree: correlation, concordance, bias and limits.

Every number rests on pairs (x, y), one or several a person; intervals resample people. Pairs with a
value that is not finite (a cheek out of sight) are left out, and `n` counts the people who remain.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxface.metrics.intervals import bootstrap, by_subject
from jaxface.system import Result

LIMITS = 1.96  # standard deviations about the bias between which 95 % of normal differences lie


class Agreement(NamedTuple):
    """Bias of x against y, and the limits between which most differences x - y lie."""

    bias: Result
    low: Result
    high: Result


def pearson(x: np.ndarray, y: np.ndarray, subjects: np.ndarray, protocol: str = "") -> Result:
    """Pearson's correlation of x [N] and y [N] of people [N]; NaN where one of them is constant."""
    return _result(lambda rows: _correlation(rows[:, 0], rows[:, 1]), (x, y), subjects, protocol)


def lin_ccc(x: np.ndarray, y: np.ndarray, subjects: np.ndarray, protocol: str = "") -> Result:
    """Lin's concordance correlation of x [N] and y [N] of people [N]; 1 only if x = y.

    Lin, Biometrics 1989: 2 s_xy / (s_x² + s_y² + (mean x - mean y)²), moments divided by N.
    """
    return _result(_concordance, (x, y), subjects, protocol)


def bland_altman(
    x: np.ndarray, y: np.ndarray, subjects: np.ndarray, protocol: str = ""
) -> Agreement:
    """Mean and 95 % limits of the differences x - y (Bland & Altman, Lancet 1986), all [N].

    Limits are mean ± 1.96 standard deviations over all pairs.
    """

    def limit(side: float) -> Result:
        return _result(
            lambda rows: limits(rows[:, 0] - rows[:, 1])[side], (x, y), subjects, protocol
        )

    return Agreement(limit(0), limit(1), limit(2))


def limits(differences: np.ndarray) -> tuple[float, float, float]:
    """(bias, low, high) of differences [N]; the limits are NaN for less than two."""
    mean = differences.mean()
    spread = LIMITS * differences.std(ddof=1) if len(differences) > 1 else float("nan")
    return mean, mean - spread, mean + spread


def difference_of_r(
    x_new: np.ndarray,
    x_old: np.ndarray,
    y: np.ndarray,
    subjects: np.ndarray,
    protocol: str = "",
) -> Result:
    """r(x_new, y) - r(x_old, y), all [N] of the same people, who are resampled together."""

    def gain(rows):
        return _correlation(rows[:, 0], rows[:, 2]) - _correlation(rows[:, 1], rows[:, 2])

    return _result(gain, (x_new, x_old, y), subjects, protocol)


def _result(statistic: Callable, columns: tuple, subjects: np.ndarray, protocol: str) -> Result:
    rows = np.stack([np.asarray(column, np.float64) for column in columns], 1)
    finite = np.isfinite(rows).all(1)
    rows, people = rows[finite], np.asarray(subjects)[finite]
    value = float(statistic(rows)) if len(rows) else float("nan")
    if not np.isfinite(value):
        return Result(float("nan"), n=len(np.unique(people)), protocol=protocol)
    interval = bootstrap(by_subject(rows, people), statistic)
    return Result(value, interval.low, interval.high, interval.n, protocol=protocol)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    # Rounding leaves a constant column a little off its own mean.
    return float(np.clip(x @ y / scale, -1, 1)) if scale > 1e-24 else float("nan")


def _concordance(rows: np.ndarray) -> float:
    (mean_x, mean_y), centered = rows.mean(0), rows - rows.mean(0)
    (xx, xy), (_, yy) = centered.T @ centered / len(rows)
    scale = xx + yy + (mean_x - mean_y) ** 2
    return float(2 * xy / scale) if scale > 1e-24 else float("nan")
