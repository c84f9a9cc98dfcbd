"""What edema can be told without looking at the face: baselines that stand beside every result.

Each answers one fold: the rows (videos or frames) of one patient, those of some days in the bool mask
`train`, those of other days in `test`; never may rows of one day be in both. Each returns

    (logit of "edema present" [n_test], predicted kg [n_test])

with NaN throughout where it does not answer, as `jaxface.metrics.edema.Frames` wants it. `majority`,
`training_mean` and `class_mean` see no picture, and the last one even sees the label it is judged on. The
two of `fit_predict` see color and what surrounds the face: as far as they are right, a session is told by
its light, its place or its clothes, and a network could have learned the same.
"""

from collections.abc import Mapping

import numpy as np
import scipy

BINS = 16  # of a channel's histogram over the whole frame
BORDER = (
    16  # the border is a 16th of the side; an aligned crop leaves the face box a 12th on each side
)
BLOCKS = 4  # along each side of the border
BORDER_BINS = 8  # of a channel's histogram over the border
PENALTY = (
    0.01  # on squared coefficients, beside a mean loss over rows and features of mean square 1
)
ROWS = 256  # frames taken at once


def of_fold(
    features: Mapping[str, np.ndarray],
    label: np.ndarray,
    weight_kg: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """All baselines on one fold, under the names that follow `..._baseline_` in the results.

    Args:
      features: {name: [N, F]}, such as {"color_histogram": ..., "background": ...}.
      label: bool [N], edema present.
      weight_kg: [N].
      train, test: bool [N].
    """
    return {
        "majority": majority(label, train, test),
        "training_mean": training_mean(weight_kg, train, test),
        "class_mean_uses_label": class_mean(label, weight_kg, train, test),
    } | {name: fit_predict(x, label, weight_kg, train, test) for name, x in features.items()}


def majority(
    label: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The more frequent class of the training, always; no kg.

    The logit is ln((p + 1) / (a + 1)) of p rows with edema and a without (Laplace's rule of succession):
    0, a toss-up, for as many of both, and finite if there is one class only.
    """
    train, test = _masks(train, test, label)
    return np.full(test.sum(), _prior(np.asarray(label, bool)[train])), np.full(test.sum(), np.nan)


def training_mean(
    weight_kg: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The mean weight of the training, always; no logit.

    With one day left out at a time, that mean falls when the day left out is heavy: its correlation with
    the weight within a patient (`r_kg_within`) is below 0 by construction, -1 for one video a day.
    """
    train, test = _masks(train, test, weight_kg)
    mean = np.asarray(weight_kg, np.float64)[train].mean()
    return np.full(test.sum(), np.nan), np.full(test.sum(), mean)


def class_mean(
    label: np.ndarray, weight_kg: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The training's mean weight of the true class of each row tested: IT SEES THE LABEL; no logit.

    Nothing that looks at faces has to beat it; it shows how much of an error in kg is left to somebody
    who only knows whether the dialysis is over. Report it as `class_mean_uses_label`. A class without
    training rows gets the mean of all of them.
    """
    train, test = _masks(train, test, label, weight_kg)
    label, kg = np.asarray(label, bool), np.asarray(weight_kg, np.float64)
    predicted = np.full(test.sum(), kg[train].mean())
    for present in (False, True):
        rows = train & (label == present)
        if rows.any():
            predicted[label[test] == present] = kg[rows].mean()
    return np.full(test.sum(), np.nan), predicted


def fit_predict(
    features: np.ndarray,
    label: np.ndarray,
    weight_kg: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic and linear regression with a squared penalty (ridge), learned on one fold's training.

    Features are brought to mean 0 and variance 1 over the training rows (one that is constant there is
    left out), and divided by the root of their number, so that one penalty fits any number of them. Over
    the training rows

      logit: mean of log(1 + exp(-y f)), y = ±1, + PENALTY / 2 |w|², minimised by L-BFGS from 0
      kg:    mean of (kg - f)² / 2              + PENALTY / 2 |w|², solved in closed form

    with f = w x + b and a free b. One class in the training: `majority`. No feature that varies, or one
    weight only: the training's mean weight. One day of training is two videos and works as any other.

    Args:
      features: [N, F] of `features_histogram`, `features_background` or others.
      label: bool [N], edema present.
      weight_kg: [N].
      train, test: bool [N].
    """
    train, test = _masks(train, test, label, weight_kg, features)
    x, label = np.asarray(features, np.float64), np.asarray(label, bool)
    kg = np.asarray(weight_kg, np.float64)
    mean, spread = x[train].mean(0), x[train].std(0)
    varies = spread > 1e-9 * (1 + np.abs(mean))
    x = (x[:, varies] - mean[varies]) / spread[varies] / np.sqrt(max(1, varies.sum()))
    gram = x[train].T @ x[train] / train.sum() + PENALTY * np.eye(x.shape[1])
    slope = np.linalg.solve(gram, x[train].T @ (kg[train] - kg[train].mean()) / train.sum())
    predicted = x[test] @ slope + kg[train].mean()
    if label[train].all() or not label[train].any():
        return majority(label, train, test)[0], predicted
    w, b = _logistic(x[train], np.where(label[train], 1.0, -1.0), _prior(label[train]))
    return x[test] @ w + b, predicted


def common_rule(
    features: np.ndarray, label: np.ndarray, weight_kg: np.ndarray, subjects: np.ndarray
) -> np.ndarray:
    """What holds within every patient: slopes of `fit_predict`'s two models over many patients.

    Features and weights are taken about each patient's own mean, so that nothing is learned of who is
    heavy and nobody's constant is: it is the patient's own, of days of his.

    Args:
      features: [N, F].
      label: bool [N], edema present; a patient with one class of it adds to the slope of kg alone.
      weight_kg: [N].
      subjects: [N].

    Returns:
      [F, 2]: of the logit, and of kg.
    """
    x, label = np.asarray(features, np.float64), np.asarray(label, bool)
    kg = np.asarray(weight_kg, np.float64)
    _, index, sizes = np.unique(subjects, return_inverse=True, return_counts=True)
    centers = np.stack([x[index == i].mean(0) for i in range(len(sizes))])
    x = x - centers[index]
    kg = kg - (np.bincount(index, kg) / sizes)[index]
    spread = x.std(0)
    varies = spread > 1e-9 * (1 + np.abs(centers).max(0))
    scale = spread[varies] * np.sqrt(max(1, varies.sum()))
    x = x[:, varies] / scale
    gram = x.T @ x / len(x) + PENALTY * np.eye(x.shape[1])
    slope = np.linalg.solve(gram, x.T @ kg / len(x))
    share = (np.bincount(index, label) / sizes)[index]
    both = (share > 0) & (share < 1)
    w = np.zeros(x.shape[1])
    if both.any():
        w, _ = _logistic(x[both], np.where(label[both], 1.0, -1.0), 0.0)
    rule = np.zeros([len(varies), 2])
    rule[varies] = np.stack([w, slope], 1) / scale[:, None]
    return rule


def features_histogram(images_u8: np.ndarray) -> np.ndarray:
    """Share of a frame's pixels in each of 16 steps of red, green and blue, [N, 48].

    Nothing of it knows where a pixel is: it sees light, skin tone and clothes, not the face's outline.
    """
    return _by_parts(images_u8, lambda images: _histogram(images, BINS))


def features_background(images_u8: np.ndarray) -> np.ndarray:
    """What the border of a frame looks like, where no face is, [N, 72].

    The border is all pixels within H // 16 rows of the upper or lower end or W // 16 columns of the left
    or right one (at least one). An aligned crop leaves a 12th of its side around the box of the face, so
    that hair, neck, clothes and room are there at most. Features: mean red, green and blue (0..1) of four
    equal blocks along each of the four sides, and of all the border the shares of its pixels in eight
    steps of each channel.
    """
    return _by_parts(images_u8, _border)


def _border(images: np.ndarray) -> np.ndarray:
    height, width = images.shape[1:3]
    rows, columns = max(1, height // BORDER), max(1, width // BORDER)
    sides = [images[:, :rows], images[:, -rows:]]
    sides += [np.swapaxes(images[:, :, part], 1, 2) for part in (np.s_[:columns], np.s_[-columns:])]
    blocks = [part for side in sides for part in np.array_split(side, BLOCKS, axis=2)]
    means = [block.mean((1, 2)) / 255 for block in blocks]
    inside = np.zeros((height, width), bool)
    inside[rows : height - rows, columns : width - columns] = True
    return np.concatenate([*means, _histogram(images[:, ~inside][:, None], BORDER_BINS)], 1)


def _histogram(images: np.ndarray, bins: int) -> np.ndarray:
    """uint8 [N, H, W, 3] -> shares [N, 3 * bins]."""
    number, pixels = len(images), images.shape[1] * images.shape[2]
    step = images.reshape(number, pixels, 3).astype(np.int64) * bins // 256
    cell = step + bins * np.arange(3) + 3 * bins * np.arange(number)[:, None, None]
    counts = np.bincount(cell.ravel(), minlength=number * 3 * bins)
    return counts.reshape(number, 3 * bins) / pixels


def _by_parts(images: np.ndarray, function) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 [N, H, W, 3], got {images.dtype} {images.shape}")
    if min(images.shape[1:3]) < BLOCKS:
        raise ValueError(f"frames of {images.shape[1:3]} px are too small, the least is {BLOCKS}")
    # No frames at all still have their number of features.
    starts = range(0, max(1, len(images)), ROWS)
    return np.concatenate([function(images[first : first + ROWS]) for first in starts])


def _prior(label: np.ndarray) -> float:
    return float(np.log((label.sum() + 1) / ((~label).sum() + 1)))


def _logistic(x: np.ndarray, sign: np.ndarray, start: float) -> tuple[np.ndarray, float]:
    """Coefficients [F] and constant of the penalised logistic regression of sign ±1 [N] on x [N, F]."""

    def loss(coefficients):
        w, b = coefficients[:-1], coefficients[-1]
        margin = sign * (x @ w + b)
        slope = -sign * scipy.special.expit(-margin) / len(sign)
        value = np.logaddexp(0, -margin).mean() + PENALTY / 2 * w @ w
        return value, np.append(x.T @ slope + PENALTY * w, slope.sum())

    found = scipy.optimize.minimize(
        loss,
        np.append(np.zeros(x.shape[1]), start),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-9},
    )
    return found.x[:-1], float(found.x[-1])


def _masks(train, test, *columns) -> tuple[np.ndarray, np.ndarray]:
    train, test = np.asarray(train), np.asarray(test)
    lengths = {len(train), len(test), *map(len, columns)}
    if train.dtype != bool or test.dtype != bool or len(lengths) > 1:
        raise ValueError("train and test must be bool [N], as long as what they are masks of")
    if not train.any():
        raise ValueError("a fold needs a row to learn from")
    if (train & test).any():
        raise ValueError(f"{(train & test).sum()} row(s) are in both train and test")
    return train, test
