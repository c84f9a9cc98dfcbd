"""How the error falls with the people learned from, and how many people a wanted error takes.

err(n) = a + b n^-c, the power law with an asymptote of learning curves (Cortes et al., NIPS 1993; Viering &
Loog, arXiv 2103.10948), fitted by weighted least squares to the errors of runs that learned from n people.
What varies is who is tested and what each run learned from, so intervals resample test people, each with
all that all runs told of them, and the runs of each n (the pigeonhole bootstrap, Owen, Annals of Applied
Statistics 2007). An extrapolation is no better than the law: that it goes on beyond the largest n is assumed.
"""

from typing import NamedTuple

import numpy as np

from jaxface.errors import UserError
from jaxface.metrics.intervals import Interval, from_left_out
from jaxface.system import Result

SLOWEST, FASTEST = 0.02, 2.0  # bounds of c
GRID, ZOOMS = (
    33,
    7,
)  # values of c tried at once, and how often what lies about the best is looked at again
REWEIGHTED = 3  # times that the weights are taken from the curve itself


class Curve(NamedTuple):
    """err(n) = a + b n^-c, a >= 0, b >= 0, 0 < c <= 2; b is 0 where errors do not fall."""

    a: float
    b: float
    c: float


class Fit(NamedTuple):
    """A curve with what resampling makes of it."""

    curve: Curve
    draws: np.ndarray  # [resamples, 3]: a, b, c
    sizes: tuple[int, ...]  # the different n
    tested: int  # people
    doubt: str  # why the three numbers are not to be believed each by itself; "" if they may be


def error_at(curve: Curve, people: np.ndarray) -> np.ndarray:
    """Error 0..1 after learning from so many people [...]."""
    return curve.a + curve.b * np.asarray(people, np.float64) ** -curve.c


def fit(
    people: np.ndarray,
    wrong: np.ndarray,
    photographs: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fits the curve to K runs that were tested on P people.

    A run is all that one seed tells with one n; where it is a cross-validation its folds are one row.
    Weights are those of shares: photographs / (err (1 - err)), err from the curve before.

    Args:
      people: n [K], people that each run learned from.
      wrong: [K, P], photographs of each test person told wrong.
      photographs: [K, P], of each test person in that run; 0 where he or she was not tested.

    Raises:
      UserError: less than three different n, or less than three test people.
      ValueError: shapes that do not fit, a run without a photograph, more told wrong than there are.
    """
    people, wrong, photographs = (np.asarray(x, np.float64) for x in (people, wrong, photographs))
    if wrong.shape != photographs.shape or wrong.shape[:1] != people.shape or wrong.ndim != 2:
        shapes = people.shape, wrong.shape, photographs.shape
        raise ValueError(f"people must be [K], wrong and photographs [K, P], got {shapes}")
    if (people < 1).any() or (wrong < 0).any() or (wrong > photographs).any():
        raise ValueError(
            "every run learns from people, and no more photographs are wrong than tested"
        )
    if not photographs.any(1).all():
        raise ValueError("a run was tested on nobody")
    sizes, of_size = np.unique(people, return_inverse=True)
    tested = int(photographs.any(0).sum())
    if len(sizes) < 3 or tested < 3:
        raise UserError(
            f"learning curve: {len(sizes)} different number(s) of people learned from and {tested} test "
            "people, but a + b n^-c takes three of each at least: name more sizes, or use more people"
        )
    curve = Curve(*_fitted(people, wrong.sum(1)[None], photographs.sum(1)[None])[0].tolist())
    rng = np.random.default_rng(seed)
    runs = [np.flatnonzero(of_size == k) for k in range(len(sizes))]
    told, count = [], []
    while len(told) < resamples:
        times = np.bincount(
            rng.integers(0, wrong.shape[1], wrong.shape[1]), minlength=wrong.shape[1]
        )
        drawn = np.concatenate([rng.choice(rows, len(rows)) for rows in runs])
        if (photographs[drawn] @ times).all():  # else a run was tested on none of those drawn
            told.append(wrong[drawn] @ times)
            count.append(photographs[drawn] @ times)
    # Runs of a size are drawn in the place of runs of that size.
    order = np.concatenate(runs)
    draws = _fitted(people[order], np.array(told), np.array(count))
    return Fit(curve, draws, tuple(sizes.astype(int).tolist()), tested, _doubt(curve, len(sizes)))


def people_needed(fitted: Fit, target: float) -> tuple[float, float, float]:
    """(n, low, high): the people that an error of `target` takes, with 95 % of the resamples.

    inf where the asymptote is not below the target: no number of people is enough. At least 1.

    Raises:
      UserError: a target outside 0 to 1.
    """
    if not 0 < target < 1:
        raise UserError(f"target: {target} is no error to ask for, it must be between 0 and 1")
    value = _needed(np.array([fitted.curve]), target)
    low, high = np.quantile(_needed(fitted.draws, target), [0.025, 0.975], method="inverted_cdf")
    return float(value[0]), float(low), float(high)


def results(fitted: Fit, target: float, suffix: str = "") -> dict[str, Result]:
    """`fit_a`, `fit_b`, `fit_c` and `people_needed`, under names that end in `suffix` ("_scratch").

    Infinity is told in words: `people_needed` has the value inf where the target is out of reach, and no
    upper end where it may be.
    """
    how = "interval by test person and by run (percentile)"
    sizes = ", ".join(map(str, fitted.sizes))
    law = f"of err(n) = a + b n^-c over runs with {sizes} people"
    doubt = f"; {fitted.doubt}" if fitted.doubt else ""
    words = {"a": "error with no end of people", "b": "factor", "c": "exponent"}
    found = {}
    for k, name in enumerate(Curve._fields):
        low, high = np.quantile(fitted.draws[:, k], [0.025, 0.975]).tolist()
        value = fitted.curve[k]
        found[f"fit_{name}"] = Result(
            value,
            min(low, value),
            max(high, value),
            fitted.tested,
            protocol=f"{words[name]} {law}; {how}{doubt}",
        )
    value, low, high = people_needed(fitted, target)
    protocol = f"people to learn from for an error of {100 * target:.3g} %, {law}; {how}"
    if np.isinf(value):
        protocol += f"; no number is enough: the curve ends at {100 * fitted.curve.a:.3g} %"
    elif np.isinf(high):
        protocol += "; without an upper end: in more than 2.5 % of resamples no number is enough"
    if np.isfinite(value) and value > fitted.sizes[-1]:
        times = value / fitted.sizes[-1]
        protocol += f"; extrapolated to {times:.3g} times the {fitted.sizes[-1]} people there were"
    found["people_needed"] = Result(
        value,
        low if np.isfinite(low) else None,
        high if np.isfinite(high) else None,
        fitted.tested,
        "people",
        protocol + doubt,
    )
    return {name + suffix: result for name, result in found.items()}


def errors(
    people: np.ndarray, wrong: np.ndarray, photographs: np.ndarray
) -> tuple[np.ndarray, list[Result]]:
    """(n [S] increasing, error over all runs of each n with its interval by test person).

    For the figure; arguments as in `fit`.
    """
    people, wrong, photographs = map(np.asarray, (people, wrong, photographs))
    sizes, found = np.unique(people), []
    for n in sizes:
        part, whole = wrong[people == n].sum(0), photographs[people == n].sum(0)
        part, whole = part[whole > 0].astype(float), whole[whole > 0].astype(float)
        left_out = (part.sum() - part) / np.maximum(whole.sum() - whole, 1)
        value = float(part.sum() / whole.sum())
        interval = (
            from_left_out(value, left_out, (0, 1), 0.95)
            if len(whole) > 1
            else Interval(value, None, None, len(whole))
        )
        protocol = (
            f"share told wrong after learning from {n} people; interval by test person (jackknife)"
        )
        found.append(Result(*interval, protocol=protocol))
    return sizes, found


def _fitted(people: np.ndarray, wrong: np.ndarray, photographs: np.ndarray) -> np.ndarray:
    """[B, 3]: a, b, c of B sets of K runs, from counts [B, K].

    For a given c the best a and b are known (variable projection, Golub & Pereyra 1973), so only c is
    sought, on a grid that narrows: all sets at once, and never in a minimum beside the best.
    """
    error, rows = wrong / photographs, np.arange(len(wrong))[:, None]
    weight = photographs
    for _ in range(REWEIGHTED + 1):
        low, high = np.full(len(error), SLOWEST), np.full(len(error), FASTEST)
        for _ in range(ZOOMS):
            c = np.linspace(low, high, GRID, axis=1)
            loss, a, b = _projected(people, error, weight, c)
            best = loss.argmin(1)[:, None]
            low = c[rows, np.maximum(best - 1, 0)][:, 0]
            high = c[rows, np.minimum(best + 1, GRID - 1)][:, 0]
        a, b, c = (x[rows, best] for x in (a, b, c))
        curve = a + b * people**-c
        # No error at all would weigh infinitely: half a photograph is the least that a run can tell.
        curve = np.clip(curve, 0.5 / photographs, 1 - 0.5 / photographs)
        weight = photographs / (curve * (1 - curve))
    return np.concatenate([a, b, c], 1)


def _projected(people, error, weight, c) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(loss, a, b) [B, C] of the best a >= 0 and b >= 0 for each c [B, C]."""
    x = people ** -c[..., None]  # [B, C, K]
    y, w = error[:, None], weight[:, None] / weight.sum(1)[:, None, None]
    middle_x, middle_y = (w * x).sum(-1), (w * y).sum(-1)
    apart = x - middle_x[..., None]
    b = (w * apart * y).sum(-1) / (w * apart**2).sum(-1)
    a = middle_y - b * middle_x
    through_0 = (w * x * y).sum(-1) / (w * x**2).sum(-1)
    falls = b > 0
    b = np.where(falls & (a < 0), through_0, np.where(falls, b, 0))
    a = np.where(falls, np.maximum(a, 0), middle_y)
    return (w * (y - a[..., None] - b[..., None] * x) ** 2).sum(-1), a, b


def _needed(curves: np.ndarray, target: float) -> np.ndarray:
    """[B] of a, b, c [B, 3]."""
    a, b, c = curves.T
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.where(b > 0, (b / (target - a)) ** (1 / c), 1)
    return np.where(a < target, np.maximum(needed, 1), np.inf)


def _doubt(curve: Curve, sizes: int) -> str:
    if curve.b == 0:
        return "errors do not fall with more people, so b and c tell nothing"
    found = []
    if sizes == 3:
        found.append("three sizes fit three numbers whatever the law")
    if curve.c >= FASTEST - 1e-6 or curve.c <= SLOWEST + 1e-6:
        found.append(f"c is at its bound {curve.c:.3g}, so a and b are not told apart from it")
    return " and ".join(found)
