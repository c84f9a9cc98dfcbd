"""Photographs told one of two ways, judged: accuracy, operating points, calibration, strata, abstention.

Published measures are accuracy, precision, recall and F of photographs never learned from (Aoto et al.,
10.1038/s41598-022-07560-2), at a probability of 1/2; all others and all intervals are ours. Photographs of
a person are not independent, so intervals are by person: of shares `intervals.proportion`, of what is no
plain share `intervals.jackknife`; benchmarks/coverage.py tells how often they hold. Label 1 is positive
(female, smile) and is told where the probability is at least the threshold.
"""

from collections.abc import Callable

import numpy as np
import scipy
import sklearn

from jaxface.errors import UserError
from jaxface.metrics import intervals, plots
from jaxface.metrics.intervals import by_subject
from jaxface.metrics.spot_ratios import TONES
from jaxface.system import Figure, Result

FEWEST = 5  # people that a number of a stratum rests on
BINS = 10  # of calibration, with as many photographs each
SHARES = 10  # points of the curve of abstention
POSTERIOR = "interval by person (beta-binomial posterior)"
JACKKNIFE = "interval by person (jackknife, skewness removed)"
BCA = "interval by person (BCa)"
HOTTEST = 20.0  # temperatures are sought from its inverse to it


def scores(
    label: np.ndarray,
    probability: np.ndarray,
    subject: np.ndarray,
    *,
    threshold: float = 0.5,
    positive: int = 1,
    protocol: str = "on people never learned from",
    suffix: str = "",
) -> dict[str, Result]:
    """Everything reported of one method, under names that end in `suffix` ("_scratch").

    accuracy, sensitivity, specificity, precision, recall, f, auroc, auprc, brier, ece and ece_floor of
    photographs, and `person_accuracy` where each person has one label.

    Args:
      label: 0 or 1 [N].
      probability: of label 1 [N], 0..1.
      subject: person [N] of each photograph.
      threshold: of the probability, for everything that needs a yes or no; `operating_point` finds one.
      positive: the label that precision, recall and F look for. The published script counts male, which
        is 0 for the task "sex".
      protocol: which photographs these are, in words.

    Returns:
      {name: Result}. A measure without a meaning (AUROC of one class) is NaN without an interval, and
      its protocol says why.
    """
    label, probability, subject = _checked(label, probability, subject)
    told = (probability >= threshold).astype(int)
    at = f"at a probability of {threshold:.4g}, {protocol}"
    results = {
        "accuracy": _share(told == label, subject, f"share of photographs told right {at}"),
        **_by_class(label, told, subject, at),
        **_as_published(label == positive, told == positive, subject, f"label {positive}, {at}"),
        **_ranking(label, probability, subject, protocol),
        **_calibration(label, probability, subject, protocol),
    }
    whose, own, mean = by_person(label, probability, subject)
    if own is not None:
        results["person_accuracy"] = _share(
            (mean >= threshold) == own,
            whose,
            f"share of people told right by the mean probability of their photographs {at}",
        )
    return {name + suffix: result for name, result in results.items()}


def by_person(
    label: np.ndarray, probability: np.ndarray, subject: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """(person [P] in order of name, label [P] or None where somebody has both, mean probability [P])."""
    label, probability, subject = _checked(label, probability, subject)
    whose, index, sizes = np.unique(subject, return_inverse=True, return_counts=True)
    positive = np.bincount(index, label)
    mean = np.bincount(index, probability) / sizes
    if ((positive > 0) & (positive < sizes)).any():
        return whose, None, mean
    return whose, (positive > 0).astype(int), mean


def operating_point(label: np.ndarray, probability: np.ndarray, sensitivity: float) -> float:
    """The highest threshold that finds at least the required share of positives.

    To be chosen on validation people and used on test people, whose sensitivity is then a measurement.

    Args:
      label, probability: [N] of validation photographs.
      sensitivity: 0 < sensitivity <= 1, share of positives with at least that probability.

    Raises:
      UserError: there is no positive to find, or the share is none.
    """
    label, probability = np.asarray(label), np.asarray(probability, np.float64)
    if not 0 < sensitivity <= 1:
        raise UserError(
            f"sensitivity: {sensitivity} is required, but it must be above 0 and at most 1"
        )
    positives = np.sort(probability[label == 1])[::-1]
    if not len(positives):
        raise UserError(
            "sensitivity: the validation people have no photograph of label 1, so no threshold can be "
            "chosen for them; use another seed of the folds, or more people"
        )
    # Rounding up must not ask for one more than the share says: 0.95 * 20 is 19.
    needed = int(np.ceil(sensitivity * len(positives) - 1e-9))
    return float(positives[needed - 1])


def at_operating_point(
    label: np.ndarray,
    probability: np.ndarray,
    subject: np.ndarray,
    threshold: float,
    sensitivity: float,
    protocol: str = "on people never learned from",
) -> dict[str, Result]:
    """What test people get at a threshold that was chosen for a sensitivity on validation people.

    `threshold_validation`, `sensitivity_at_validation` and `specificity_at_validation`.
    """
    label, probability, subject = _checked(label, probability, subject)
    how = f"chosen on validation people for a sensitivity of {sensitivity:.4g}"
    told = (probability >= threshold).astype(int)
    found = _by_class(
        label, told, subject, f"at a probability of {threshold:.4g} {how}, {protocol}"
    )
    return {
        "threshold_validation": Result(float(threshold), protocol=f"probability {how}"),
        **{f"{name}_at_validation": result for name, result in found.items()},
    }


def temperature(label: np.ndarray, logit: np.ndarray) -> float:
    """The temperature T whose probabilities expit(logit / T) make the labels of validation likeliest.

    Guo et al. 2017 (arXiv 1706.04599, section 4.2). Where the logits [N] tell all labels right, no T is
    low enough: it is then 1/20, the least that is sought.

    Raises:
      UserError: a logit that is not finite, or nothing to fit.
    """
    label, logit = np.asarray(label, np.float64), np.asarray(logit, np.float64)
    if not len(label) or not np.isfinite(logit).all():
        raise UserError(
            "temperature: the validation people have no photograph or a logit that is not finite; "
            "validate on at least one person, and look whether training diverged"
        )
    # log(1 + exp(-sign * logit / T)) of each photograph, convex in 1/T
    loss = lambda inverse: np.logaddexp(0, (1 - 2 * label) * logit * inverse).mean()
    bounds = (1 / HOTTEST, HOTTEST)
    found = scipy.optimize.minimize_scalar(
        loss, bounds=bounds, method="bounded", options={"xatol": 1e-8}
    )
    ends = min((*bounds, found.x), key=loss)  # the search stops short of an end
    return float(1 / ends)


def tones(ita: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """Skin tone [N] of each photograph's person: light, medium, dark or unknown.

    By the median of the individual typology angle (degrees [N], NaN where unknown) over the photographs
    of the person, so that nobody is in two strata because of the light.
    """
    ita, subject = np.asarray(ita, np.float64), np.asarray(subject)
    found = np.full(len(ita), "unknown", dtype="<U16")
    for one in np.unique(subject):
        known = ita[(subject == one) & np.isfinite(ita)]
        for tone, (low, high) in TONES.items():
            if len(known) and low <= np.median(known) < high:
                found[subject == one] = tone
    return found


def strata(
    label: np.ndarray,
    probability: np.ndarray,
    subject: np.ndarray,
    stratum: np.ndarray,
    *,
    threshold: float = 0.5,
    name: str = "accuracy",
    protocol: str = "on people never learned from",
) -> dict[str, Result]:
    """Accuracy of each stratum [N], with its counts; NaN, without a number, for less than five people.

    Returns:
      {f"{name}_{stratum}": Result}, strata in order of name; `n` counts the people, the protocol the
      photographs as well.
    """
    label, probability, subject = _checked(label, probability, subject)
    stratum, right = np.asarray(stratum, str), (probability >= threshold) == label
    results = {}
    for one in np.unique(stratum).tolist():
        rows = stratum == one
        people = len(np.unique(subject[rows]))
        counts = f"{people} people, {rows.sum()} photographs of {one}"
        if people < FEWEST:
            why = f"{counts}: no number, which takes {FEWEST} people"
            results[f"{name}_{one}"] = Result(float("nan"), n=people, protocol=why)
            continue
        results[f"{name}_{one}"] = _share(
            right[rows],
            subject[rows],
            f"share of photographs told right at a probability of {threshold:.4g}, {counts}, {protocol}",
        )
    return results


def difference(
    label: np.ndarray,
    probability_new: np.ndarray,
    probability_old: np.ndarray,
    subject: np.ndarray,
    *,
    threshold: float | tuple[float, float] = 0.5,
    protocol: str = "on people never learned from",
) -> Result:
    """Accuracy of the new method minus that of the old one, on the same photographs.

    Photographs are paired and people are what varies. McNemar's test would be wrong here: it takes every
    photograph on which the two disagree for one independent toss, but those of a person tend to fall
    alike, so it finds differences where there are none.

    Args:
      threshold: of both probabilities [N], or (of the new, of the old).
    """
    label, new, subject = _checked(label, probability_new, subject)
    _, old, _ = _checked(label, probability_old, subject)
    high, low = np.broadcast_to(threshold, 2)
    right = lambda probability, at: ((probability >= at) == label).astype(float)
    gain = intervals.mean(right(new, high) - right(old, low), subject)
    why = "" if gain.low is not None else "; no interval: no person makes a difference"
    return Result(
        *gain,
        protocol=f"share of photographs told right, new minus old, paired, {protocol}; {JACKKNIFE}{why}",
    )


def abstention(
    label: np.ndarray,
    probability: np.ndarray,
    subject: np.ndarray,
    *,
    threshold: float = 0.5,
    protocol: str = "on people never learned from",
) -> dict[str, Result | Figure]:
    """Accuracy of the photographs that are answered, over the share of them: the surest first.

    How sure an answer is is the distance of its logit from that of the threshold; photographs that are
    as sure as the last one are answered too.

    Returns:
      accuracy_answered_{10, 20 ... 100} in percent of photographs, and "abstention", the curve.
    """
    label, probability, subject = _checked(label, probability, subject)
    right = (probability >= threshold) == label
    # Of 0 and 1 the logit is infinite; a threshold may be one of them.
    logit = lambda x: scipy.special.logit(np.clip(x, 1e-12, 1 - 1e-12))
    sure = np.abs(logit(probability) - logit(threshold))
    least = np.sort(sure)[::-1]
    results, shares = {}, []
    for k in range(1, SHARES + 1):
        answered = sure >= least[int(np.ceil(len(sure) * k / SHARES)) - 1]
        shares.append(answered.mean())
        results[f"accuracy_answered_{100 * k // SHARES}"] = _share(
            right[answered],
            subject[answered],
            f"share told right of the surest {answered.sum()} of {len(sure)} photographs, {protocol}",
        )
    figure = plots.accuracy_answered(
        np.array(shares),
        list(results.values()),
        caption="Accuracy of the photographs that are answered, the surest first, with intervals by person",
    )
    return {**results, "abstention": figure}


def reliability(label: np.ndarray, probability: np.ndarray, subject: np.ndarray) -> Figure:
    """Share of label 1 over the probability that was told, in the bins of `ece`."""
    label, probability, subject = _checked(label, probability, subject)
    told, seen = [], []
    for rows in bins(probability):
        told.append(float(probability[rows].mean()))
        seen.append(_share(label[rows] == 1, subject[rows], "share of label 1"))
    return plots.reliability(
        np.array(told),
        seen,
        people=len(np.unique(subject)),
        caption="What was told and what was so, in bins of as many photographs each, intervals by person",
    )


def roc(
    label: np.ndarray,
    curves: dict[str, np.ndarray],
    *,
    threshold: float | None = None,
    caption: str,
) -> Figure:
    """Sensitivity over false positives of each method's probabilities [N]; threshold: of the first.

    Raises:
      UserError: photographs of one class only.
    """
    label = np.asarray(label)
    if len(np.unique(label)) < 2:
        raise UserError(
            "a ROC curve needs photographs of both labels; these have one only: use people of both"
        )
    drawn, point = {}, None
    for name, probability in curves.items():
        false, true, at = sklearn.metrics.roc_curve(label, probability, drop_intermediate=False)
        drawn[name] = (false, true)
        if threshold is not None and point is None:
            told = at >= threshold
            point = (
                (float(false[told].max()), float(true[told].max())) if told.any() else (0.0, 0.0)
            )
    return plots.roc(drawn, point=point, caption=caption)


def ece(label: np.ndarray, probability: np.ndarray) -> float:
    """Expected calibration error: mean over photographs of |share of label 1 - mean probability| of the bin.

    Naeini et al. 2015, with 10 bins of as many photographs each (Nguyen & O'Connor 2015); equal
    probabilities share a bin.
    """
    label, probability = np.asarray(label, np.float64), np.asarray(probability, np.float64)
    gaps = [abs((label[rows] - probability[rows]).sum()) for rows in bins(probability)]
    return float(sum(gaps) / len(label))


def bins(probability: np.ndarray) -> list[np.ndarray]:
    """Rows of each of at most 10 bins with as many of the probabilities [N] each, equal ones together."""
    # Edges are probabilities themselves: each belongs to the last bin whose edge does not exceed it.
    edges = np.unique(np.sort(probability)[np.arange(BINS) * len(probability) // BINS])
    index = np.searchsorted(edges, probability, side="right")
    return [np.flatnonzero(index == one) for one in np.unique(index)]


def _share(hits: np.ndarray, subject: np.ndarray, protocol: str) -> Result:
    found = intervals.proportion(hits, subject)
    how = POSTERIOR if found.low is not None else "no interval: one person"
    return Result(*found, protocol=f"{protocol}; {how}")


def _smooth(
    statistic: Callable, rows: np.ndarray, subject: np.ndarray, protocol: str, without: str
) -> Result:
    """A statistic in 0..1 of rows; `without` says what is missing where it has no meaning."""
    if not np.isfinite(statistic(rows)):
        return Result(float("nan"), n=len(np.unique(subject)), protocol=f"{protocol}; {without}")
    found = intervals.jackknife(by_subject(rows, subject), statistic, bounds=(0, 1))
    why = "no interval: no person or only one makes a difference, or there are less than three"
    return Result(*found, protocol=f"{protocol}; {JACKKNIFE if found.low is not None else why}")


def _by_class(label, told, subject, at: str) -> dict[str, Result]:
    """sensitivity and specificity."""
    results = {}
    for name, one in (("sensitivity", 1), ("specificity", 0)):
        rows = label == one
        protocol = f"share of photographs of label {one} told so {at}"
        if not rows.any():
            why = f"{protocol}; no number: there is no photograph of label {one}"
            results[name] = Result(float("nan"), n=0, protocol=why)
            continue
        results[name] = _share(told[rows] == one, subject[rows], protocol)
    return results


def _as_published(label, told, subject, looking_for: str) -> dict[str, Result]:
    """precision, recall and f, from bool [N]."""
    counts = np.stack([label & told, ~label & told, label & ~told], 1).astype(float)
    # How many photographs are told positive depends on how often they are right: no plain share.
    precision = lambda rows: _ratio(rows[:, 0].sum(), rows[:, :2].sum())
    recall = lambda rows: _ratio(rows[:, 0].sum(), rows[:, [0, 2]].sum())
    f = lambda rows: _ratio(2 * rows[:, 0].sum(), 2 * rows[:, 0].sum() + rows[:, 1:].sum())
    measures = (
        ("precision", precision, "right share of photographs told to be of", "none is told so"),
        ("recall", recall, "share told so of photographs of", "there is none"),
        ("f", f, "harmonic mean of precision and recall of", "there is none and none is told so"),
    )
    return {
        name: _smooth(statistic, counts, subject, f"{words} {looking_for}", f"no number: {without}")
        for name, statistic, words, without in measures
    }


def _ranking(label, probability, subject, protocol: str) -> dict[str, Result]:
    """auroc and auprc."""
    rows = np.stack([label, probability], 1)

    def of_both(metric):
        both = lambda rows: len(np.unique(rows[:, 0])) == 2
        return lambda rows: float(metric(*rows.T)) if both(rows) else float("nan")

    without = "no number: all photographs have one label"
    ranked = (
        "how often a photograph of label 1 has a higher probability than one of label 0, ties half"
    )
    average = "average precision of label 1 over recall (no interpolation)"
    area, precision = sklearn.metrics.roc_auc_score, sklearn.metrics.average_precision_score
    return {
        "auroc": _smooth(of_both(area), rows, subject, f"{ranked}, {protocol}", without),
        "auprc": _smooth(of_both(precision), rows, subject, f"{average}, {protocol}", without),
    }


def _calibration(label, probability, subject, protocol: str) -> dict[str, Result]:
    """brier, ece, and what the ECE would be of probabilities that are right."""
    brier = intervals.mean(np.square(probability - label), subject)
    how = JACKKNIFE if brier.low is not None else "no interval: too few people, or all alike"
    rows = np.stack([label, probability], 1)
    error = intervals.bootstrap(by_subject(rows, subject), lambda rows: ece(*rows.T), resamples=500)
    shaky = BCA if error.low is not None else "no interval: resampling people only adds to it"
    rng = np.random.default_rng(0)
    floor = [ece(rng.random(len(label)) < probability, probability) for _ in range(200)]
    gap = f"|share of label 1 - mean probability| over {BINS} bins of as many photographs"
    return {
        "brier": Result(
            *brier, protocol=f"mean squared error of the probability, {protocol}; {how}"
        ),
        "ece": Result(
            *error, protocol=f"{gap}, {protocol}; never below 0 by chance, see ece_floor; {shaky}"
        ),
        "ece_floor": Result(
            float(np.mean(floor)),
            *np.quantile(floor, [0.025, 0.975]).tolist(),
            error.n,
            protocol=f"{gap}, had labels been drawn with these probabilities: mean and 95 % of 200 draws",
        ),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _checked(label, probability, subject) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label, probability, subject = map(np.asarray, (label, probability, subject))
    if not label.shape == probability.shape == subject.shape == (len(label),):
        shapes = [x.shape for x in (label, probability, subject)]
        raise ValueError(f"label, probability and subject must be [N], got {shapes}")
    if not len(label):
        raise UserError("there is no photograph to judge: are all people in other folds?")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("a label is neither 0 nor 1: leave out what is tied or unknown")
    probability = probability.astype(np.float64)
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("a probability is outside 0 to 1 or not a number")
    return label.astype(int), probability, subject
