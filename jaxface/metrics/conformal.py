"""How sure an estimate in kg is, and when none is given.

Intervals by split conformal prediction (Vovk et al. 2005; Lei et al. 2018, arXiv 1604.04173): an interval is
as wide as errors on days that the models had not seen. Errors of one patient resemble each other, so they
cannot be counted as if each were new. For patients who took no part, the weight of each patient is spread
over his or her errors (hierarchical conformal prediction, Lee, Barber & Willett, arXiv 2306.06342);
with one error a patient that is the plain method. The promise holds on average over patients and days, not
for each patient, and no better than new patients resemble those calibrated on.

An estimate is withheld where the face, in the embedding, is farther from what was learned from than left-out
training videos are from each other.
"""

from typing import NamedTuple

import numpy as np

from jaxface.metrics import edema, plots
from jaxface.metrics.edema import Videos
from jaxface.metrics.neighbours import nearest
from jaxface.system import Figure, Result

PRIOR = 4.0  # weights that the common spread counts as, beside a patient's own
WITHHELD = 2.0  # score beyond which there is no estimate: 3.3 deviations, if normal
SHARES = 10  # points of the curve of abstention
NEIGHBOURS = 5  # the distance is that to the fifth nearest
ROUNDING = 1e-9  # a sum of weights that misses its goal by less has reached it


class Calibration(NamedTuple):
    """Half the width of an interval, and what it rests on; `calibrate` makes it."""

    half: float  # kg, or in spreads where errors were divided by them; inf: too few to promise anything
    alpha: float  # share of days that may lie outside
    patients: int
    errors: int
    scaled: bool  # whether errors were divided by spreads, and intervals must be multiplied by them


def calibrate(
    residuals: np.ndarray,
    subjects: np.ndarray,
    alpha: float = 0.1,
    *,
    scales: np.ndarray | None = None,
    new_patients: bool = True,
) -> Calibration:
    """Learns from errors on held-out days how wide an interval must be.

    Args:
      residuals: measured - predicted kg [N], of models that had not seen these days; signs are dropped.
      subjects: patient [N] of each.
      alpha: share of days that may lie outside, 0..1.
      scales: kg > 0 [N] that errors are divided by, such as `spread` of what each model learned from, so
        that a patient whose weight varies little gets a narrow interval. None: all alike.
      new_patients: True promises a day of a patient who took no part: 1 - alpha on average, if patients
        are alike in kind. It takes ceil(1 / alpha) - 1 patients, 9 for 0.1. False promises one more day
        of these patients and counts every error as if it stood alone, the plain quantile ceil((n + 1)
        (1 - alpha)) / n: it takes ceil(1 / alpha) - 1 errors.

    Returns:
      The calibration; `half` is inf where patients or errors are too few, which is the honest answer.
    """
    residuals, subjects = np.abs(np.asarray(residuals, np.float64)), np.asarray(subjects)
    if residuals.ndim != 1 or subjects.shape != residuals.shape:
        raise ValueError(
            f"residuals and subjects must be [N], got {residuals.shape}, {subjects.shape}"
        )
    if not np.isfinite(residuals).all():
        raise ValueError("a residual is not finite: leave out what has no estimate")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, a share between 0 and 1")
    if scales is not None:
        residuals = residuals / _positive(scales, residuals.shape)
    _, index, sizes = np.unique(subjects, return_inverse=True, return_counts=True)
    groups = index if new_patients else np.arange(len(residuals))
    half = _quantile(residuals, groups, 1 - alpha)
    return Calibration(half, alpha, len(sizes), len(residuals), scales is not None)


def interval(
    prediction: np.ndarray, calibration: Calibration, scales: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) in kg about predictions [N]; `scales` [N] exactly if the calibration had them."""
    prediction = np.asarray(prediction, np.float64)
    if calibration.scaled != (scales is not None):
        raise ValueError("intervals take scales exactly if they were calibrated with scales")
    factor = 1.0 if scales is None else _positive(scales, prediction.shape)
    return prediction - calibration.half * factor, prediction + calibration.half * factor


def by_others(
    prediction: np.ndarray,
    weight_kg: np.ndarray,
    subjects: np.ndarray,
    alpha: float = 0.1,
    *,
    scales: np.ndarray | None = None,
    new_patients: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) in kg [N] for each patient from the errors of all other patients; arguments all [N].

    With few patients the promise of `new_patients` costs width: it takes 10 and keeps more than it says
    until there are about 40. `new_patients=False` here promises nothing, but comes near 1 - alpha.
    """
    prediction, subjects = np.asarray(prediction, np.float64), np.asarray(subjects)
    residuals = np.asarray(weight_kg, np.float64) - prediction
    low, high = np.empty_like(prediction), np.empty_like(prediction)
    for one in np.unique(subjects):
        own = subjects == one
        of = lambda rows: None if scales is None else np.asarray(scales)[rows]
        found = calibrate(
            residuals[~own], subjects[~own], alpha, scales=of(~own), new_patients=new_patients
        )
        low[own], high[own] = interval(prediction[own], found, of(own))
    return low, high


def coverage(
    low: np.ndarray, high: np.ndarray, weight_kg: np.ndarray, subjects: np.ndarray
) -> Result:
    """Share of measured weights within their intervals, ends included, all [N]; mean over patients.

    Patients weigh alike because that is what `calibrate` promises. Infinite intervals count as right and
    are told in the protocol, as is the mean width of the others.
    """
    low, high, kg = (np.asarray(x, np.float64) for x in (low, high, weight_kg))
    if np.isnan(low).any() or np.isnan(high).any():
        raise ValueError("an interval has no ends: leave out what has no estimate")
    wide = ~np.isfinite(high - low)
    width = f"{(high - low)[~wide].mean():.2f} kg wide on average" if not wide.all() else ""
    endless = f"{wide.sum()} of {len(low)} endless" if wide.any() else ""
    told = ", ".join(filter(None, (width, endless)))
    inside = ((low <= kg) & (kg <= high)).astype(np.float64)
    return edema.mean_of_patients(
        inside,
        subjects,
        f"mean over patients of the share of measured weights within intervals ({told}); {edema.BCA}",
    )


def spread(weight_kg: np.ndarray, common_kg: float) -> float:
    """Standard deviation in kg of the weights [N] a patient's model learned from, drawn to a common one.

    sqrt(((N - 1) s² + PRIOR c²) / (N - 1 + PRIOR)): with one weight it is c, with many it is s.
    """
    kg = np.asarray(weight_kg, np.float64)
    if not len(kg) or not common_kg > 0:
        raise ValueError("a spread takes at least one weight and a common spread above 0")
    own = np.square(kg - kg.mean()).sum()
    return float(np.sqrt((own + PRIOR * common_kg**2) / (len(kg) - 1 + PRIOR)))


class Unlike(NamedTuple):
    """How far rows are from what a model learned from; `unlike` makes it."""

    score: np.ndarray  # [N]: up to 1 is usual
    threshold: float  # beyond it no estimate is given

    @property
    def withheld(self) -> np.ndarray:
        """bool [N]."""
        return ~(self.score <= self.threshold)


def unlike(features_train: np.ndarray, features_test: np.ndarray, groups: np.ndarray) -> Unlike:
    """How much farther faces are from those of the training than these are from each other.

    A row's distance is the Euclidean one to its fifth nearest training row (Ramaswamy et al., SIGMOD
    2000). For a training row only rows of other groups count, as frames of its own video are near copies
    of it. The score is (d - m) / (u - m), where m and u are the median and the 95th percentile of the
    training's distances: 0 is as far as half of the training, 1 farther than 19 in 20, less than 0 near.
    Reading distances against their own spread matters in many dimensions, where all of them are alike.

    Args:
      features_train: embedding [N, D] of the training's frames or videos.
      features_test: [M, D]; of a video's frames take the median of their scores.
      groups: video (or day, if there are several) [N] of each training row.

    Raises:
      ValueError: one group only, which has nothing to be left out from; or a feature is not finite.
    """
    train, test = np.asarray(features_train, np.float64), np.asarray(features_test, np.float64)
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < 2 or len(index) != len(train):
        raise ValueError(
            f"each training row takes a group, and there must be two: {len(train)} rows, "
            f"{len(index)} groups, {len(names)} different"
        )
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        raise ValueError("a feature is not finite")
    usual = np.concatenate([_far(train[index == g], train[index != g]) for g in range(len(names))])
    middle, high = np.quantile(usual, (0.5, 0.95))
    # Where all distances are one, whatever is farther is unlike.
    unit = max(high - middle, 1e-9 * high, np.finfo(np.float64).tiny)
    return Unlike((_far(test, train) - middle) / unit, WITHHELD)


def answered(videos: Videos, found: Unlike) -> dict[str, Result]:
    """Share of the videos [V] that get an estimate, and how good these estimates are."""
    keep = ~found.withheld
    kept = Videos(*(column[keep] for column in videos))
    who = f"videos whose face is not unlike the training (score up to {found.threshold:g})"
    return {
        "share_answered": edema.pooled_mean(
            keep.astype(np.float64), videos.subject, f"share of {who}; {edema.BCA}"
        ),
        **_judged(kept, f"only {who}", "_answered"),
    }


def abstention_curve(videos: Videos, found: Unlike, *, caption: str) -> Figure:
    """Accuracy and error in kg of the videos [V] most like the training, over the share answered."""
    order = np.argsort(found.score, kind="stable")
    counts = np.unique(np.ceil(np.arange(1, SHARES + 1) / SHARES * len(order)).astype(int))
    kept = [Videos(*(column[order[:count]] for column in videos)) for count in counts]
    judged = [_judged(some, "") for some in kept]
    return plots.answered(
        counts / len(order),
        {name: [results[name] for results in judged] for name in judged[0]},
        at=float((~found.withheld).mean()),
        caption=caption,
    )


def _judged(videos: Videos, who: str, suffix: str = "") -> dict[str, Result]:
    error = np.abs(videos.predicted_kg - videos.weight_kg)
    told = edema.right(videos.logit, videos.session)
    how = f"{who}; {edema.BCA}"
    found = {
        "video_accuracy": edema.pooled_mean(told, videos.subject, f"share told right, {how}"),
        "mae_kg": edema.pooled_mean(error, videos.subject, f"mean absolute error, {how}", "kg"),
    }
    return {name + suffix: result for name, result in found.items()}


def _far(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N]: distance to the NEIGHBOURS-th nearest of the others, to the farthest if they are fewer."""
    return nearest(rows, others, min(NEIGHBOURS, len(others)))[1][:, -1]


def _quantile(values: np.ndarray, groups: np.ndarray, level: float) -> float:
    """The least value below or at which lies a weight of `level`.

    Each of the G groups weighs 1 / (G + 1), spread evenly over its values; as much lies at infinity.
    """
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    weight = np.cumsum((1 / sizes / (len(sizes) + 1))[index[order]])
    reached = np.flatnonzero(weight >= level - ROUNDING)
    return float(values[order[reached[0]]]) if len(reached) else float("inf")


def _positive(scales, shape) -> np.ndarray:
    scales = np.broadcast_to(np.asarray(scales, np.float64), shape)
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise ValueError("scales must be above 0 and finite")
    return scales
