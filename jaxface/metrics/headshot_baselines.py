"""What headshots can be told without a network: baselines and the control that stand beside every result.

The study told sex from the "mandible vector", 75 gray values along the jaw, by LightGBM and by a random
forest (Aoto et al., 10.1038/s41598-022-07560-2). Each baseline answers out of fold: a photograph is told by
a model that learned from other folds only, and folds keep a person whole unless the protocol is the
published one, which does not. Everything follows from the seed.
"""

from collections.abc import Callable

import numpy as np
import sklearn

from jaxface.errors import UserError, nearest


def out_of_fold(
    name: str, features: np.ndarray, label: np.ndarray, fold: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Probability of label 1 [N], each by a model that learned from the rows of all other folds.

    Args:
      name: a key of `BASELINES`.
      features: [N, F], such as mandible vectors [N, 75] or small pictures as rows of pixels.
      label: 0 or 1 [N].
      fold: int [N], the fold in which a row is told; rows of a negative fold are learned from and never
        told, and get NaN.
      seed: of what the model draws, the same for every fold.

    Raises:
      UserError: a name that is not known; a fold whose others have one label only.
    """
    if name not in BASELINES:
        raise UserError(f"there is no baseline {name!r}.{nearest(name, BASELINES)}")
    features = np.asarray(features, np.float64)
    features, label, fold = features.reshape(len(features), -1), np.asarray(label), np.asarray(fold)
    if not len(features) == len(label) == len(fold) or not np.isin(label, (0, 1)).all():
        raise ValueError("features, label and fold must have N rows, and labels must be 0 or 1")
    if not np.isfinite(features).all():
        raise ValueError("a feature is not finite")
    probability = np.full(len(label), np.nan)
    for one in np.unique(fold[fold >= 0]):
        test = fold == one
        if len(np.unique(label[~test])) < 2:
            raise UserError(
                f"fold {one}: all photographs of the other folds have one label, so nothing can be learned; "
                "use fewer folds, or a set with both labels"
            )
        model = BASELINES[name](seed).fit(features[~test], label[~test])
        probability[test] = model.predict_proba(features[test])[:, 1]
    return probability


def majority(seed: int):
    """The share of label 1 in what was learned from, always: the more frequent label is told."""
    return sklearn.dummy.DummyClassifier(strategy="prior", random_state=seed)


def gradient_boosting(seed: int):
    """38 rounds as in the study, which took LightGBM: the same method by scikit-learn.

    Leaves, rate and least leaf are LightGBM's defaults.
    """
    return sklearn.ensemble.HistGradientBoostingClassifier(
        max_iter=38, max_leaf_nodes=31, learning_rate=0.1, min_samples_leaf=20, early_stopping=False,
        random_state=seed,
    )  # fmt: skip


def random_forest(seed: int):
    """16 trees of depth 32 at most, as in the study, whose seed was 32."""
    return sklearn.ensemble.RandomForestClassifier(
        n_estimators=16, max_depth=32, random_state=seed, n_jobs=1
    )


def logistic_regression(seed: int):
    """For small pictures: pixels standardised, an L2 penalty on what is learned from them."""
    return sklearn.pipeline.make_pipeline(
        sklearn.preprocessing.StandardScaler(),
        sklearn.linear_model.LogisticRegression(C=0.01, max_iter=1000, random_state=seed),
    )


BASELINES: dict[str, Callable] = {  # {name: (seed) -> a model with fit and predict_proba}
    "majority": majority,
    "gradient_boosting": gradient_boosting,
    "random_forest": random_forest,
    "logistic_regression": logistic_regression,
}


def shuffled(label: np.ndarray, subject: np.ndarray, seed: int) -> np.ndarray:
    """Labels [N] given to others at random: what is learned from them tells how much a protocol leaks.

    Where each person has one label, people swap theirs and each keeps one, so that photographs of a person
    in training and test still show: an accuracy above chance is then recognition of people. Where labels
    belong to photographs, they are shuffled over all photographs.
    """
    label, subject = np.asarray(label), np.asarray(subject)
    rng = np.random.default_rng(seed)
    _, first, index = np.unique(subject, return_index=True, return_inverse=True)
    if (label == label[first][index]).all():
        return rng.permutation(label[first])[index]
    return rng.permutation(label)
