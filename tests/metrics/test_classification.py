"""Judgement of yes and no on photographs: against scikit-learn, by hand, and what cannot be told."""

import functools

import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from jaxface.errors import UserError
from jaxface.metrics import classification, intervals

RNG = np.random.default_rng(0)
SUBJECT = np.repeat([f"p{i:02d}" for i in range(14)], 5)
LABEL = RNG.integers(0, 2, 70)
LOGIT = 2 * LABEL - 1 + RNG.normal(size=14).repeat(5) + RNG.normal(size=70)
PROBABILITY = np.round(scipy.special.expit(LOGIT), 2)  # rounded: there are ties


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    few = functools.partial(intervals.bootstrap)
    monkeypatch.setattr(
        intervals, "bootstrap", lambda *given, **options: few(*given, **options | {"resamples": 99})
    )


@pytest.fixture(scope="module")
def found():
    return classification.scores(LABEL, PROBABILITY, SUBJECT)


def test_values_are_those_of_scikit_learn(found):
    told = PROBABILITY >= 0.5
    assert len(np.unique(PROBABILITY)) < 70
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(LABEL, told),
        "sensitivity": sklearn.metrics.recall_score(LABEL, told),
        "specificity": sklearn.metrics.recall_score(LABEL, told, pos_label=0),
        "precision": sklearn.metrics.precision_score(LABEL, told),
        "recall": sklearn.metrics.recall_score(LABEL, told),
        "f": sklearn.metrics.f1_score(LABEL, told),
        "auroc": sklearn.metrics.roc_auc_score(LABEL, PROBABILITY),
        "auprc": sklearn.metrics.average_precision_score(LABEL, PROBABILITY),
        "brier": sklearn.metrics.brier_score_loss(LABEL, PROBABILITY),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value), name
        assert found[name].low < value < found[name].high, name
        assert "interval by person" in found[name].protocol
    assert found["accuracy"].n == 14
    assert "person_accuracy" not in found  # people smile now and then


def test_area_counts_ties_half():
    label, probability = np.array([1, 1, 0, 0, 1, 0]), np.array([0.9, 0.5, 0.5, 0.1, 0.1, 0.9])
    result = classification.scores(label, probability, list("abcdef"))["auroc"]
    wins = sum(
        (a > b) + 0.5 * (a == b) for a in probability[label == 1] for b in probability[label == 0]
    )
    assert result.value == pytest.approx(wins / 9)


def test_the_published_script_looks_for_label_0():
    told = PROBABILITY < 0.5
    results = classification.scores(LABEL, PROBABILITY, SUBJECT, positive=0, suffix="_x")
    expected = sklearn.metrics.precision_recall_fscore_support(LABEL == 0, told, average="binary")
    names = ("precision_x", "recall_x", "f_x")
    np.testing.assert_allclose([results[name].value for name in names], expected[:3])


def test_people_with_one_label_are_told_by_their_mean():
    subject, label = np.array(list("aabbcc")), np.array([1, 1, 0, 0, 1, 1])
    probability = np.array([0.9, 0.2, 0.6, 0.1, 0.4, 0.4])
    whose, own, mean = classification.by_person(label, probability, subject)
    assert list(whose) == ["a", "b", "c"] and list(own) == [1, 0, 1]
    np.testing.assert_allclose(mean, [0.55, 0.35, 0.4])
    results = classification.scores(label, probability, subject)
    assert results["person_accuracy"].value == pytest.approx(2 / 3)
    assert results["accuracy"].value == pytest.approx(2 / 6)
    assert results["person_accuracy"].n == 3


def test_one_class_only_has_no_area_and_says_why():
    results = classification.scores(np.ones(12, int), np.linspace(0, 1, 12), np.arange(12) // 2)
    for name, why in (
        ("auroc", "one label"),
        ("auprc", "one label"),
        ("specificity", "no photograph of label 0"),
    ):
        assert np.isnan(results[name].value) and results[name].low is None
        assert why in results[name].protocol
    nothing = classification.scores(LABEL, np.zeros(70), SUBJECT)["precision"]
    assert np.isnan(nothing.value) and "none is told so" in nothing.protocol
    perfect = classification.scores(LABEL, LABEL.astype(float), SUBJECT)
    assert (perfect["auroc"].value, perfect["auroc"].low) == (1, None)
    assert "no interval" in perfect["auroc"].protocol
    assert (
        perfect["accuracy"].value == perfect["accuracy"].high == 1 > perfect["accuracy"].low > 0.7
    )
    assert perfect["ece"].value == perfect["ece_floor"].value == 0


def test_operating_point_finds_what_is_asked_and_no_more():
    label = np.array([1] * 20 + [0] * 5)
    probability = np.concatenate([np.arange(1, 21) / 20, np.full(5, 0.5)])
    for sensitivity, threshold in ((0.95, 0.1), (1.0, 0.05), (0.951, 0.05), (0.5, 0.55)):
        at = classification.operating_point(label, probability, sensitivity)
        assert at == threshold
        assert (probability[label == 1] >= at).mean() >= sensitivity
    tied = classification.operating_point([1, 1, 1, 0], [0.7, 0.7, 0.7, 0.9], 0.5)
    assert tied == 0.7  # all three, as equal probabilities cannot be told apart
    with pytest.raises(UserError, match="no photograph of label 1"):
        classification.operating_point([0, 0], [0.1, 0.2], 0.9)
    with pytest.raises(UserError, match="above 0"):
        classification.operating_point([1], [0.1], 0.0)
    results = classification.at_operating_point(LABEL, PROBABILITY, SUBJECT, 0.2, 0.95)
    assert results["threshold_validation"].value == 0.2
    told = PROBABILITY >= 0.2
    assert results["sensitivity_at_validation"].value == pytest.approx(told[LABEL == 1].mean())
    assert results["specificity_at_validation"].value == pytest.approx(1 - told[LABEL == 0].mean())


def test_calibration_error_by_hand():
    label, probability = np.array([0, 1, 1, 1]), np.array([0.1, 0.1, 0.8, 0.9])
    # Two equal ones share a bin, the others have their own.
    assert classification.ece(label, probability) == pytest.approx((2 * 0.4 + 0.2 + 0.1) / 4)
    rows = classification.bins(np.arange(100) / 100)
    assert [len(bin) for bin in rows] == [10] * 10
    assert sorted(np.concatenate(classification.bins(PROBABILITY))) == list(range(70))


def test_calibration_error_of_right_probabilities_is_its_floor():
    probability = RNG.random(600)
    label = (RNG.random(600) < probability).astype(int)
    results = classification.scores(label, probability, np.arange(600) // 40)
    floor = results["ece_floor"]
    assert floor.low <= results["ece"].value <= floor.high
    wrong = classification.scores(label, probability**3, np.arange(600) // 40)
    assert wrong["ece"].value > wrong["ece_floor"].high


def test_temperature_is_found_again():
    logit = 2 * RNG.normal(size=20000)
    label = RNG.random(20000) < scipy.special.expit(logit)
    assert classification.temperature(label, 3 * logit) == pytest.approx(3, rel=0.05)
    assert classification.temperature(label, logit / 2) == pytest.approx(0.5, rel=0.05)
    assert classification.temperature([0, 1], [-1.0, 1.0]) == pytest.approx(1 / 20)
    assert classification.temperature([1, 0], [-1.0, 1.0]) == pytest.approx(20)
    with pytest.raises(UserError, match="not finite"):
        classification.temperature([1], [np.nan])


def test_strata_tell_counts_and_no_number_for_a_few():
    stratum = np.where(SUBJECT < "p03", "dark", "light")
    results = classification.strata(LABEL, PROBABILITY, SUBJECT, stratum)
    light = stratum == "light"
    right = (PROBABILITY >= 0.5) == LABEL
    assert results["accuracy_light"].value == pytest.approx(right[light].mean())
    assert results["accuracy_light"].n == 11
    assert "11 people, 55 photographs" in results["accuracy_light"].protocol
    few = results["accuracy_dark"]
    assert np.isnan(few.value) and few.low is None and few.n == 3
    assert "3 people, 15 photographs" in few.protocol


def test_a_person_has_one_skin_tone():
    ita = np.array([50.0, 39, 45, np.nan, np.nan, 12, 5, -95, 41])
    found = classification.tones(ita, np.array(list("aaabcddef")))
    assert list(found) == ["light"] * 3 + ["unknown"] * 2 + ["dark"] * 2 + ["unknown", "light"]


def test_difference_is_paired():
    worse = np.where(np.arange(70) % 7 == 0, 1 - PROBABILITY, PROBABILITY)
    result = classification.difference(LABEL, PROBABILITY, worse, SUBJECT)
    right = lambda probability: (probability >= 0.5) == LABEL
    gain = right(PROBABILITY).mean() - right(worse).mean()
    assert result.value == pytest.approx(gain) and result.low < gain < result.high
    alone = classification.scores(LABEL, PROBABILITY, SUBJECT)["accuracy"]
    assert result.high - result.low < alone.high - alone.low
    same = classification.difference(LABEL, PROBABILITY, PROBABILITY, SUBJECT)
    assert (same.value, same.low) == (0, None) and "no person makes a difference" in same.protocol
    moved = classification.difference(
        LABEL, PROBABILITY, PROBABILITY, SUBJECT, threshold=(0.5, 0.9)
    )
    assert moved.value != 0


def test_the_surest_are_answered_first():
    results = classification.abstention(LABEL, PROBABILITY, SUBJECT)
    sure = np.abs(scipy.special.logit(PROBABILITY))
    least = np.sort(sure)[::-1][34]
    right = ((PROBABILITY >= 0.5) == LABEL)[sure >= least]
    assert results["accuracy_answered_50"].value == pytest.approx(right.mean())
    assert f"the surest {len(right)} of 70" in results["accuracy_answered_50"].protocol
    assert results["accuracy_answered_100"].value == ((PROBABILITY >= 0.5) == LABEL).mean()
    assert results["accuracy_answered_30"].value > results["accuracy_answered_100"].value
    assert results["abstention"].images.shape == (1, 1000, 1600, 3)
    certain = classification.abstention(LABEL, LABEL.astype(float), SUBJECT, threshold=1.0)
    assert certain["accuracy_answered_10"].value == 1  # nothing to divide, nothing infinite


def test_curves_are_drawn():
    reliability = classification.reliability(LABEL, PROBABILITY, SUBJECT)
    curves = {"ours": PROBABILITY, "baseline": np.full(70, 0.5)}
    roc = classification.roc(LABEL, curves, threshold=0.5, caption="")
    assert reliability.images.shape == roc.images.shape == (1, 1400, 1600, 3)
    moved = classification.roc(LABEL, curves, threshold=0.9, caption="")
    assert (roc.images != moved.images).any()
    with pytest.raises(UserError, match="both labels"):
        classification.roc(np.ones(70), curves, caption="")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"label": np.where(np.arange(70) == 3, -1, LABEL)}, "neither 0 nor 1"),
        ({"probability": np.where(np.arange(70) == 3, np.nan, PROBABILITY)}, "outside 0 to 1"),
        ({"probability": LOGIT}, "outside 0 to 1"),
        ({"subject": SUBJECT[1:]}, r"must be \[N\]"),
    ],
)
def test_what_is_not_judged(change, message):
    given = {"label": LABEL, "probability": PROBABILITY, "subject": SUBJECT} | change
    with pytest.raises(ValueError, match=message):
        classification.scores(**given)
    with pytest.raises(UserError, match="no photograph to judge"):
        classification.scores([], [], [])
