"""Edema from face videos, judged: before or after dialysis, body weight in kg, for each patient and all.

The published measures are accuracy and mean absolute error in kg (Akamatsu et al.,
10.1109/JBHI.2022.3227517); AUC, correlations, the error of the change over a dialysis and all intervals
are ours. Videos of a patient are not independent, so intervals resample patients, and a patient is
always drawn with all of them. "before" the dialysis (session "pre") is edema present, "after" is absent.
"""

import csv
import pathlib
from typing import NamedTuple

import numpy as np
import scipy

from jaxface.metrics import agreement
from jaxface.metrics.intervals import bootstrap, by_subject
from jaxface.system import Result

UNSEEN = "on days that the patient's model has not seen"
BCA = "interval by patient (BCa)"


class Frames(NamedTuple):
    """What models said of M frames, each predicted once, of a day that its model has not seen.

    A method that does not answer one of the two questions has NaN in all of that column.
    """

    subject: np.ndarray  # str [M], pseudonym of the patient
    day: np.ndarray  # str [M], of the dialysis, sorts by time within a patient
    session: np.ndarray  # str [M], pre (edema present) or post (absent)
    video: np.ndarray  # str [M], unique name: no two patients, days or sessions share one
    weight_kg: np.ndarray  # [M], measured at the time of the video
    logit: np.ndarray  # [M], of "edema present"
    predicted_kg: np.ndarray  # [M]


class Videos(NamedTuple):
    """What models said of V videos, in order of their names; columns as in `Frames`."""

    subject: np.ndarray  # str [V]
    day: np.ndarray  # str [V]
    session: np.ndarray  # str [V]
    video: np.ndarray  # str [V]
    weight_kg: np.ndarray  # [V]
    logit: np.ndarray  # [V], mean over frames
    predicted_kg: np.ndarray  # [V], median over frames
    frames: np.ndarray  # int [V], how many there are


def by_video(frames: Frames) -> Videos:
    """Brings the frames of each video together.

    The logit is the mean over frames. The weight is the median: a weight has no bounds, so a few frames
    that were cropped badly could move a mean by kilograms, and the median is what absolute error, by which
    weights are learned and judged, makes best.

    Raises:
      ValueError: no frames; columns of different lengths; a session other than pre and post; a number
        that is not finite in a column that is not all NaN; a video of two patients, days, sessions or
        weights.
    """
    frames = _checked(frames)
    names, first, index = np.unique(frames.video, return_index=True, return_inverse=True)
    for column in ("subject", "day", "session", "weight_kg"):
        values = getattr(frames, column)
        strange = np.flatnonzero(values != values[first][index])
        if len(strange):
            raise ValueError(f"video {frames.video[strange[0]]} has more than one {column}")
    sizes = np.bincount(index)
    ends = np.cumsum(sizes)[:-1]
    grouped = lambda values: np.split(values[np.argsort(index, kind="stable")], ends)
    return Videos(
        *(getattr(frames, name)[first] for name in ("subject", "day", "session")),
        names,
        frames.weight_kg[first],
        np.array([values.mean() for values in grouped(frames.logit)]),
        np.array([np.median(values) for values in grouped(frames.predicted_kg)]),
        sizes,
    )


def scores(frames: Frames, suffix: str = "") -> dict[str, Result]:
    """Everything reported of one method, under names that end in `suffix` ("_scratch").

    `video_accuracy` and `mae_kg` are the published measures. What the method does not answer is left
    out. A measure without a meaning (AUC of one class, correlation of constants) is NaN.
    """
    frames, videos = _checked(frames), by_video(frames)
    results = {}
    if _answers(frames.logit):
        results |= _class_scores(frames, videos)
    if _answers(frames.predicted_kg):
        results |= _weight_scores(videos)
    return {name + suffix: result for name, result in results.items()}


def gain(frames_new: Frames, frames_old: Frames, name: str) -> dict[str, Result]:
    """By how much `frames_new` beats the method `name`: differences new - old over the same videos.

    Pairs of one patient are resampled together, which is why these intervals are much narrower than
    those of the two numbers suggest. What only one of them answers is left out.

    Raises:
      ValueError: they are not about the same videos.
    """
    new, old = by_video(frames_new), by_video(frames_old)
    only = sorted(set(new.video) ^ set(old.video))
    if only:
        raise ValueError(f"{len(only)} video(s) are in one method only, the first is {only[0]}")
    for column in ("subject", "day", "session", "weight_kg"):
        if (getattr(new, column) != getattr(old, column)).any():
            raise ValueError(f"the two methods give the same videos another {column}")
    results, how = {}, f"minus {name}, the same videos {UNSEEN}, paired; {BCA}"
    if _answers(new.logit) and _answers(old.logit):
        told = right(new.logit, new.session) - right(old.logit, old.session)
        results[f"video_accuracy_gain_{name}"] = pooled_mean(
            told, new.subject, f"share of videos told right {how}"
        )
    if _answers(new.predicted_kg) and _answers(old.predicted_kg):
        error = lambda videos: np.abs(videos.predicted_kg - videos.weight_kg)
        results[f"mae_kg_gain_{name}"] = pooled_mean(
            error(new) - error(old),
            new.subject,
            f"mean absolute error {how}; below 0 is better",
            "kg",
        )
    return results


def right(logit: np.ndarray, session: np.ndarray) -> np.ndarray:
    """1 where the sign of the logit [N] is right, 0 where it is wrong, 1/2 for a logit of exactly 0."""
    sign = np.where(np.asarray(session) == "pre", 1, -1)
    return (np.sign(logit) * sign + 1) / 2


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties count half.

    The Mann-Whitney statistic over the number of pairs. NaN unless both classes of bool [N] are there, or
    for a score that is NaN.
    """
    score, positive = np.asarray(score, np.float64), np.asarray(positive, bool)
    pairs = positive.sum() * (~positive).sum()
    if not pairs or np.isnan(score).any():
        return float("nan")
    least = positive.sum() * (positive.sum() + 1) / 2  # ranks of the positives, were they lowest
    return float((scipy.stats.rankdata(score)[positive].sum() - least) / pairs)


def changes(videos: Videos) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Change of weight over each dialysis with videos before and after it.

    Returns:
      (patient, measured kg, predicted kg), all [days]; pre - post, so fluid taken out is above 0.
    """
    found, days = [], {}
    for i, key in enumerate(zip(videos.subject, videos.day)):
        days.setdefault(key, []).append(i)
    for (subject, _), rows in days.items():
        rows = np.array(rows)
        before = videos.session[rows] == "pre"
        if before.all() or not before.any():
            continue
        apart = lambda kg, b=rows[before], a=rows[~before]: kg[b].mean() - kg[a].mean()
        found.append((subject, apart(videos.weight_kg), apart(videos.predicted_kg)))
    subjects, measured, predicted = zip(*found) if found else ((), (), ())
    return np.array(subjects, str), np.array(measured, float), np.array(predicted, float)


def by_patient(frames: Frames) -> list[dict[str, str | int | float]]:
    """One row a patient, in order of pseudonym; NaN where a measure has no meaning.

    Fields: subject, days, videos, images, and image_accuracy, video_accuracy, auc, mae_kg, rmse_kg, r_kg,
    mae_kg_change as in `scores`, without intervals: a few days of one patient do not carry one.
    """
    frames, videos = _checked(frames), by_video(frames)
    whose, measured, predicted = changes(videos)
    told = right(frames.logit, frames.session)
    rows = []
    for subject in np.unique(videos.subject):
        own = Videos(*(column[videos.subject == subject] for column in videos))
        error = own.predicted_kg - own.weight_kg
        change = (predicted - measured)[whose == subject]
        rows.append(
            {
                "subject": str(subject),
                "days": len(np.unique(own.day)),
                "videos": len(own.video),
                "images": int(own.frames.sum()),
                "image_accuracy": float(told[frames.subject == subject].mean()),
                "video_accuracy": float(right(own.logit, own.session).mean()),
                "auc": auc(own.logit, own.session == "pre"),
                "mae_kg": float(np.abs(error).mean()),
                "rmse_kg": float(np.sqrt(np.square(error).mean())),
                "r_kg": agreement.pearson(own.predicted_kg, own.weight_kg, own.subject).value,
                "mae_kg_change": float(np.abs(change).mean()) if len(change) else float("nan"),
            }
        )
    return rows


def write_table(workdir: pathlib.Path, rows: list[dict]) -> None:
    """patients.csv: the rows of `by_patient`; a field is empty where a measure has no meaning."""
    with open(workdir / "patients.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: "" if value != value else value for name, value in row.items()})


def pooled_mean(values: np.ndarray, subjects: np.ndarray, protocol: str, unit: str = "") -> Result:
    """Mean of all values [N] alike: patients with more of them weigh more."""
    pooled = lambda rows: float(rows[:, 0].sum() / rows[:, 1].sum())
    return _reported(_sums(values, subjects), np.unique(subjects), pooled, protocol, unit)


def mean_of_patients(
    values: np.ndarray, subjects: np.ndarray, protocol: str, unit: str = ""
) -> Result:
    """Mean over patients of their own mean of values [N]: patients weigh alike."""
    mean = lambda rows: float((rows[:, 0] / rows[:, 1]).mean())
    return _reported(_sums(values, subjects), np.unique(subjects), mean, protocol, unit)


def _class_scores(frames: Frames, videos: Videos) -> dict[str, Result]:
    images = right(frames.logit, frames.session)
    told = right(videos.logit, videos.session)
    present = videos.session == "pre"
    people = np.unique(videos.subject)
    own = [videos.subject == one for one in people]
    own = np.array([auc(videos.logit[rows], present[rows]) for rows in own])
    both = np.isfinite(own)
    sign = "has the right sign (0 counts half)"
    mean = "mean over patients of the share of"
    ranked = "how often a video before dialysis has a higher mean logit than one after it"
    return {
        "image_accuracy": pooled_mean(
            images, frames.subject, f"share of frames whose logit {sign}, {UNSEEN}; {BCA}"
        ),
        "image_accuracy_by_patient": mean_of_patients(
            images, frames.subject, f"{mean} frames whose logit {sign}, {UNSEEN}; {BCA}"
        ),
        "video_accuracy": pooled_mean(
            told, videos.subject, f"share of videos whose mean logit {sign}, {UNSEEN}; {BCA}"
        ),
        "video_accuracy_by_patient": mean_of_patients(
            told, videos.subject, f"{mean} videos whose mean logit {sign}, {UNSEEN}; {BCA}"
        ),
        "video_auc": _reported(
            np.stack([videos.logit, present], 1),
            videos.subject,
            lambda rows: auc(rows[:, 0], rows[:, 1]),
            f"{ranked}, pairs of all patients together, {UNSEEN}; {BCA}",
        ),
        "video_auc_by_patient": pooled_mean(
            own[both],
            people[both],
            f"{ranked}, pairs of one patient, mean over patients with both, {UNSEEN}; {BCA}",
        ),
    }


def _weight_scores(videos: Videos) -> dict[str, Result]:
    error = videos.predicted_kg - videos.weight_kg
    own = lambda kg: kg - _patient_mean(kg, videos.subject)
    whose, measured, predicted = changes(videos)
    weight = f"median predicted weight of a video, {UNSEEN}"
    return {
        "mae_kg": pooled_mean(
            np.abs(error), videos.subject, f"mean absolute error of the {weight}; {BCA}", "kg"
        ),
        "mae_kg_by_patient": mean_of_patients(
            np.abs(error),
            videos.subject,
            f"mean over patients of the mean absolute error of the {weight}; {BCA}",
            "kg",
        ),
        "rmse_kg": _reported(
            _sums(np.square(error), videos.subject),
            np.unique(videos.subject),
            lambda rows: float(np.sqrt(rows[:, 0].sum() / rows[:, 1].sum())),
            f"root of the mean squared error of the {weight}; {BCA}",
            "kg",
        ),
        "r_kg": agreement.pearson(
            videos.predicted_kg,
            videos.weight_kg,
            videos.subject,
            f"correlation of the {weight}, all patients together, which differences between patients "
            f"raise far above what tells one day from another (see r_kg_within); {BCA}",
        ),
        "r_kg_within": agreement.pearson(
            own(videos.predicted_kg),
            own(videos.weight_kg),
            videos.subject,
            f"correlation of the {weight}, each patient's own mean taken from both; {BCA}",
        ),
        "mae_kg_change": pooled_mean(
            np.abs(predicted - measured),
            whose,
            f"mean over dialyses of the absolute error of the change of weight, from the {weight}; {BCA}",
            "kg",
        ),
    }


def _reported(rows, subjects, statistic, protocol: str, unit: str = "") -> Result:
    value = float(statistic(rows)) if len(rows) else float("nan")
    if not np.isfinite(value):
        return Result(value, n=len(np.unique(subjects)), unit=unit, protocol=protocol)
    interval = bootstrap(by_subject(rows, subjects), statistic)
    return Result(value, interval.low, interval.high, interval.n, unit, protocol)


def _sums(values: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """[P, 2]: sum and number of the values of each patient, which is all that their mean needs."""
    people, index = np.unique(subjects, return_inverse=True)
    total = np.bincount(index, values, minlength=len(people))
    return np.stack([total, np.bincount(index, minlength=len(people))], 1)


def _patient_mean(values: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """[N]: of each row, the mean of the values [N] of its patient."""
    sums = _sums(values, subjects)
    return (sums[:, 0] / sums[:, 1])[np.unique(subjects, return_inverse=True)[1]]


def _answers(column: np.ndarray) -> bool:
    return not np.isnan(column).any()


def _checked(frames: Frames) -> Frames:
    columns = [np.asarray(column) for column in frames]
    if any(column.shape != columns[0].shape or column.ndim != 1 for column in columns):
        shapes = {name: np.shape(column) for name, column in zip(Frames._fields, columns)}
        raise ValueError(f"columns must be [M] of one length, got {shapes}")
    if not len(columns[0]):
        raise ValueError("there are no frames to judge")
    frames = Frames(*columns[:4], *(column.astype(np.float64) for column in columns[4:]))
    for word in np.unique(frames.session).tolist():
        if word not in ("pre", "post"):
            raise ValueError(f"session {word!r} is neither pre nor post")
    for name in ("weight_kg", "logit", "predicted_kg"):
        column = getattr(frames, name)
        silent = name != "weight_kg" and np.isnan(column).all()
        if not (np.isfinite(column).all() or silent):
            raise ValueError(
                f"{name} of video {frames.video[~np.isfinite(column)][0]} is not finite"
            )
    return frames
