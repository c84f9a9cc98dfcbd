"""Conformal intervals keep what they promise, and faces unlike the training get no estimate."""

import functools
import math

import matplotlib
import numpy as np
import pytest

from jaxface.metrics import conformal, edema, intervals, plots
from jaxface.metrics.edema import Videos


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    few = functools.partial(intervals.bootstrap, resamples=200)
    monkeypatch.setattr(edema, "bootstrap", few)


def patients_of(rng, number, most=15):
    """(subjects [N], errors [N] kg, training spreads [N] kg) of patients whose errors differ in scale.

    Errors of a patient share an offset, so they are not independent.
    """
    scale, days = np.exp(rng.normal(0, 0.5, number)), rng.integers(1, most, number)
    subjects = np.repeat(np.arange(number), days)
    errors = 0.5 * rng.normal(size=len(subjects)) + 0.2 * rng.normal(size=number)[subjects]
    learned = [conformal.spread(one * rng.normal(size=8), 1.0) for one in scale]
    return subjects, scale[subjects] * errors, np.array(learned)[subjects]


def test_one_error_a_patient_is_the_plain_quantile():
    rng = np.random.default_rng(0)
    for n in (1, 8, 9, 10, 19, 20, 57, 99, 100):
        residuals = rng.normal(size=n)
        for alpha in (0.05, 0.1, 0.2, 0.5):
            rank = math.ceil(round((n + 1) * (1 - alpha), 9))
            wanted = np.sort(np.abs(residuals))[rank - 1] if rank <= n else math.inf
            for new_patients in (True, False):
                found = conformal.calibrate(
                    residuals, np.arange(n), alpha, new_patients=new_patients
                )
                assert found == (wanted, alpha, n, n, False)


def test_patients_weigh_alike_by_hand():
    # 9 patients weigh 1/10 each; one of them has three errors, each 1/30.
    residuals = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, -0.5, 9, -10])
    subjects = np.array([*"abcdefgh", *"iii"])
    assert conformal.calibrate(residuals, subjects).half == 10  # 9/10 lies at or below
    assert conformal.calibrate(residuals, subjects, 0.13).half == 10  # 26/30 of 0.87 up to 9
    assert conformal.calibrate(residuals, subjects, 0.14).half == 9
    assert conformal.calibrate(residuals, subjects, 0.2).half == 8  # 0.5 and 1 to 8: 25/30
    assert conformal.calibrate(residuals, subjects, new_patients=False).half == 10
    assert conformal.calibrate(residuals, subjects, 0.25, new_patients=False).half == 8


def test_too_few_patients_promise_nothing():
    rng = np.random.default_rng(1)
    subjects = np.repeat(np.arange(8), 50)
    few = conformal.calibrate(rng.normal(size=400), subjects)
    assert few == (math.inf, 0.1, 8, 400, False)
    low, high = conformal.interval([60.0, 70.0], few)
    assert low.tolist() == [-math.inf] * 2 and high.tolist() == [math.inf] * 2
    # Counted as errors they are plenty.
    assert 1.3 < conformal.calibrate(rng.normal(size=400), subjects, new_patients=False).half < 2
    nobody = conformal.calibrate([], [])
    assert (nobody.half, nobody.patients, nobody.errors) == (math.inf, 0, 0)


def test_coverage_of_new_patients_is_what_was_promised():
    """39 patients as in the study; each trial meets 20 new ones."""
    rng = np.random.default_rng(2)
    share, width = {"plain": [], "scaled": []}, {"plain": [], "scaled": []}
    for _ in range(150):
        trained, met = patients_of(rng, 39), patients_of(rng, 20)
        for how in share:
            learned, its = (x[2] if how == "scaled" else None for x in (trained, met))
            found = conformal.calibrate(trained[1], trained[0], scales=learned)
            low, high = conformal.interval(np.zeros(len(met[1])), found, its)
            inside = (low <= met[1]) & (met[1] <= high)
            share[how].append(np.mean([inside[met[0] == p].mean() for p in range(20)]))
            width[how].append((high - low).mean())
    for how in share:
        assert 0.88 < np.mean(share[how]) < 0.93, how
    # Their spreads tell whose errors are large: the same promise with narrower intervals.
    assert np.mean(width["scaled"]) < 0.96 * np.mean(width["plain"])


def test_patients_whose_errors_depend_would_be_promised_too_much():
    """One patient with nine tenths of all errors must not decide everybody's interval."""
    rng, share = np.random.default_rng(3), {True: [], False: []}
    for _ in range(100):
        days = np.array([300, *[2] * 19])
        subjects = np.repeat(np.arange(20), days)
        scale = np.array([0.2, *[1.0] * 19])
        errors = scale[subjects] * rng.normal(size=len(subjects))
        for new_patients in share:
            half = conformal.calibrate(errors, subjects, new_patients=new_patients).half
            share[new_patients].append(math.erf(half / math.sqrt(2)))
    assert np.mean(share[False]) < 0.6 and np.mean(share[True]) > 0.88


def test_each_patient_is_calibrated_on_the_others():
    rng = np.random.default_rng(4)
    subjects, errors, spreads = patients_of(rng, 12)
    kg = 60 + errors
    low, high = conformal.by_others(np.full(len(kg), 60.0), kg, subjects, scales=spreads)
    own = subjects == 5
    half = conformal.calibrate(errors[~own], subjects[~own], scales=spreads[~own]).half
    np.testing.assert_allclose(high[own], 60 + half * spreads[own], rtol=1e-12)
    np.testing.assert_allclose(low[own], 60 - half * spreads[own], rtol=1e-12)
    # What a patient weighs has no say in his or her own width.
    moved = conformal.by_others(np.full(len(kg), 60.0), kg + 9 * own, subjects, scales=spreads)
    np.testing.assert_array_equal(moved[1][own], high[own])
    assert (moved[1][~own] >= high[~own]).all()


@pytest.mark.parametrize(
    "patients, new_patients, least, most", [(39, True, 0.9, 0.93), (8, False, 0.87, 0.93)]
)
def test_coverage_of_patients_left_out(patients, new_patients, least, most):
    rng, share = np.random.default_rng(5), []
    for _ in range(40):
        subjects, errors, spreads = patients_of(rng, patients)
        options = {"scales": spreads, "new_patients": new_patients}
        low, high = conformal.by_others(np.zeros(len(errors)), errors, subjects, **options)
        inside = (low <= errors) & (errors <= high)
        share.append(np.mean([inside[subjects == p].mean() for p in range(patients)]))
    assert least < np.mean(share) < most


def test_coverage_by_hand():
    kg = np.array([60.0, 61, 62, 63, 70, 71])
    people = np.array(list("aaaabb"))
    low, high = kg - [1, 1, 1, -1, 0, -0.5], kg + [1, 1, 0, 2, 0, 2]
    found = conformal.coverage(low, high, kg, people)
    # Ends count as inside: three of four, one of two.
    assert found.value == pytest.approx((3 / 4 + 1 / 2) / 2) and found.n == 2
    assert found.low is not None and f"{np.mean(high - low):.2f} kg wide" in found.protocol
    assert "endless" not in found.protocol
    found = conformal.coverage(np.where(people == "b", -np.inf, low), high, kg, people)
    assert "2 of 6 endless" in found.protocol and "1.50 kg wide" in found.protocol
    endless = np.full(6, np.inf)
    found = conformal.coverage(-endless, endless, kg, people)
    assert found[:4] == (1.0, None, None, 2) and "(6 of 6 endless)" in found.protocol


def test_spread_is_drawn_to_the_common_one():
    assert conformal.spread([60.0], 1.25) == 1.25
    many = np.random.default_rng(6).normal(60, 2.0, 4000)
    assert conformal.spread(many, 0.5) == pytest.approx(many.std(ddof=1), rel=2e-3)
    assert conformal.spread([60.0, 62.0], 1.0) == pytest.approx(math.sqrt((2 + 4) / 5))
    assert conformal.spread([61.0, 61.0], 1.0) > 0
    for kg, common in (([], 1.0), ([60.0], 0.0)):
        with pytest.raises(ValueError, match="at least one weight"):
            conformal.spread(kg, common)


def test_wrong_calls():
    good = conformal.calibrate(np.ones(20), np.arange(20), scales=np.full(20, 2.0))
    assert good.half == 0.5 and good.scaled
    for call, match in (
        (lambda: conformal.calibrate([1.0, np.nan], ["a", "b"]), "not finite"),
        (lambda: conformal.calibrate([1.0, 2.0], ["a"]), r"must be \[N\]"),
        (lambda: conformal.calibrate([1.0], ["a"], 1.0), "between 0 and 1"),
        (lambda: conformal.calibrate([1.0], ["a"], scales=[0.0]), "above 0"),
        (lambda: conformal.interval([60.0], good), "exactly if"),
        (lambda: conformal.coverage([np.nan], [61.0], [60.0], ["a"]), "no ends"),
        (lambda: conformal.interval([60.0], good, scales=[-1.0]), "above 0"),
        (lambda: conformal.interval([60.0], good._replace(scaled=False), [1.0]), "exactly if"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


# ---- abstention ----


def embedded(rng, center, videos, frames=20):
    """[videos * frames, 32] about a center; videos differ more than frames of one do."""
    day = np.repeat(rng.normal(0, 0.7, (videos, 32)), frames, 0)
    return center + day + rng.normal(0, 0.3, (videos * frames, 32))


def test_strangers_get_no_estimate():
    rng = np.random.default_rng(7)
    shown, strange = [], []
    for _ in range(20):
        patient = rng.normal(0, 1, 32)
        train, groups = embedded(rng, patient, 8), np.repeat(np.arange(8), 20)
        test = np.concatenate([embedded(rng, patient, 1), embedded(rng, rng.normal(0, 1, 32), 1)])
        found = conformal.unlike(train, test, groups)
        assert found.threshold == conformal.WITHHELD
        assert (found.withheld == (found.score > found.threshold)).all()
        shown.append(np.median(found.score[:20]))
        strange.append(np.median(found.score[20:]))
    assert np.mean(np.array(shown) <= 1) >= 0.8 and max(shown) < conformal.WITHHELD
    assert np.mean(np.array(strange) > conformal.WITHHELD) >= 0.9


def test_frames_of_the_same_video_do_not_count_as_neighbours():
    rng = np.random.default_rng(8)
    train, groups = embedded(rng, 0.0, 8), np.repeat(np.arange(8), 20)
    test = embedded(rng, 0.0, 4)
    by_video = conformal.unlike(train, test, groups).score
    by_frame = conformal.unlike(train, test, np.arange(160)).score
    assert np.median(by_video) < 1 and by_frame.min() > conformal.WITHHELD


def test_scores_by_hand():
    # On a line: two videos of one frame each 1 apart, two more 1 apart and 9 away; all distances are
    # to the farthest of the three others: 11, 10, 10, 11.
    train, groups = np.array([[0.0], [1], [10], [11]]), list("abcd")
    usual = np.quantile([11, 10, 10, 11], (0.5, 0.95))
    found = conformal.unlike(train, [[5.5], [-1], [-9]], groups)
    wanted = (np.array([5.5, 12, 20]) - usual[0]) / (usual[1] - usual[0])
    np.testing.assert_allclose(found.score, wanted)
    assert found.withheld.tolist() == [False, True, True]
    # Ten rows on either side: the fifth nearest of the other video is 14 away for the first.
    train = np.concatenate([np.arange(10.0), 10 + np.arange(10.0)])[:, None]
    distances = [14 - x for x in range(10)] + [x - 5 for x in range(10, 20)]
    middle, high = np.quantile(distances, (0.5, 0.95))
    found = conformal.unlike(train, [[-6.0]], np.repeat([0, 1], 10))
    assert found.score == pytest.approx([(10 - middle) / (high - middle)])


def test_unlike_at_its_ends():
    # All training rows alike: the same is usual, anything else is not.
    found = conformal.unlike(np.ones((4, 3)), [[1, 1, 1], [1, 1, 1.1]], [0, 0, 1, 1])
    assert found.withheld.tolist() == [False, True]
    assert found._replace(score=np.full(2, np.nan)).withheld.tolist() == [True, True]
    with pytest.raises(ValueError, match="1 different"):
        conformal.unlike(np.ones((3, 2)), np.ones((1, 2)), ["a"] * 3)
    with pytest.raises(ValueError, match="2 groups"):
        conformal.unlike(np.ones((3, 2)), np.ones((1, 2)), ["a", "b"])
    with pytest.raises(ValueError, match="not finite"):
        conformal.unlike(np.ones((2, 2)), [[np.nan, 1]], ["a", "b"])


def videos_of(score, right, error):
    """Videos of ten patients, one a row, that are told right or wrong and in error by some kg."""
    n = len(score)
    session = np.where(np.arange(n) % 2, "post", "pre")
    sign = np.where(session == "pre", 1.0, -1.0)
    names = np.array([f"{i:03}" for i in range(n)])
    subject = np.array([f"p{i % 10}" for i in range(n)])
    kg = np.full(n, 60.0)
    logit = np.where(right, sign, -sign)
    return Videos(subject, names, session, names, kg, logit, kg + error, np.full(n, 5))


SCORE = np.linspace(-1, 3.95, 100)[np.random.default_rng(9).permutation(100)]
LIKE = conformal.Unlike(SCORE, 2.0)
VIDEOS = videos_of(SCORE, SCORE < 1.98, np.where(SCORE < 1.98, 0.25, 2.0))


def test_what_is_answered_is_judged_alone():
    found = conformal.answered(VIDEOS, LIKE)
    kept = SCORE <= 2
    assert found["share_answered"].value == pytest.approx(kept.mean())
    assert found["share_answered"].low < kept.mean() < found["share_answered"].high
    wrong = (kept & (SCORE >= 1.98)).sum()
    assert found["video_accuracy_answered"].value == pytest.approx(1 - wrong / kept.sum())
    wanted = (0.25 * (kept.sum() - wrong) + 2.0 * wrong) / kept.sum()
    assert found["mae_kg_answered"].value == pytest.approx(wanted)
    assert found["mae_kg_answered"].unit == "kg" and found["mae_kg_answered"].n == 10
    nobody = conformal.answered(VIDEOS, LIKE._replace(threshold=-5.0))
    assert nobody["share_answered"].value == 0 and math.isnan(nobody["mae_kg_answered"].value)


def test_curve_of_abstention(monkeypatch):
    seen, draw = {}, plots.drawn
    monkeypatch.setattr(plots, "drawn", lambda canvas: seen.update(canvas=canvas) or draw(canvas))
    figure = conformal.abstention_curve(VIDEOS, LIKE, caption="who is answered")
    assert figure.images.dtype == np.uint8 and figure.images.shape == (1, 1200, 1600, 3)
    assert figure.caption == "who is answered"
    upper, lower = seen["canvas"].axes
    told = SCORE[np.argsort(SCORE)] < 1.98
    wanted = [100 * told[: 10 * k].mean() for k in range(1, 11)]
    x, y = upper.lines[0].get_data()
    np.testing.assert_allclose(x, np.arange(10, 101, 10))
    np.testing.assert_allclose(y, wanted)
    np.testing.assert_allclose(lower.lines[0].get_ydata(), [2 - 1.75 * w / 100 for w in wanted])
    words = [t.get_text() for t in seen["canvas"].findobj(matplotlib.text.Text)]
    share = f"{100 * (SCORE <= 2).mean():.0f}"
    assert f"threshold in use: {share} % answered" in words and "error (kg)" in words
    few = Videos(*(column[:3] for column in VIDEOS))
    small = conformal.abstention_curve(few, LIKE._replace(score=SCORE[:3]), caption="")
    assert small.images.shape == figure.images.shape
    assert len(seen["canvas"].axes[0].lines[0].get_xdata()) == 3
