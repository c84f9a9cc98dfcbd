"""Error over people learned from: what is put in comes out, and what cannot be known is said."""

import numpy as np
import pytest
import scipy.optimize

from jaxface.errors import UserError
from jaxface.metrics import learning_curve, plots
from jaxface.metrics.learning_curve import Curve

SIZES = np.array([8.0, 16, 32, 64, 128, 220])


def exact(curve, people=3, photographs=1e6):
    """Runs of SIZES whose errors are those of the curve, to rounding."""
    whole = np.full((len(SIZES), people), photographs)
    return SIZES, whole * learning_curve.error_at(Curve(*curve), SIZES)[:, None], whole


def simulated(seed, curve=(0.02, 0.6, 0.6), people=40, repeats=3):
    """Counts of people who differ in difficulty, in runs that differ in what they learned from."""
    rng = np.random.default_rng(seed)
    sizes = np.repeat(SIZES, repeats)
    luck = np.exp(0.1 * rng.normal(size=(len(sizes), 1)))
    error = learning_curve.error_at(Curve(*curve), sizes)[:, None] * luck
    wrong = rng.binomial(9, np.clip(error * rng.gamma(3, 1 / 3, people), 0, 1))
    return sizes, wrong, np.full(wrong.shape, 9)


@pytest.mark.parametrize(
    "curve", [(0.02, 0.6, 0.6), (0.0, 1.0, 0.5), (0.01, 0.4, 1.3), (0.1, 0.3, 2.0)]
)
def test_noiseless_curves_come_back(curve):
    fitted = learning_curve.fit(*exact(curve), resamples=20)
    np.testing.assert_allclose(fitted.curve, curve, atol=1e-5)
    np.testing.assert_allclose(fitted.draws, np.tile(curve, (20, 1)), atol=1e-5)
    target = learning_curve.error_at(Curve(*curve), 500)
    np.testing.assert_allclose(learning_curve.people_needed(fitted, float(target)), 500, rtol=1e-3)
    assert bool(fitted.doubt) == (curve[2] == 2)


def test_fit_is_the_weighted_least_squares_of_scipy():
    sizes, wrong, whole = simulated(5)
    fitted = learning_curve.fit(sizes, wrong, whole, resamples=10)
    error = wrong.sum(1) / whole.sum(1)
    at = learning_curve.error_at(fitted.curve, sizes)
    expected, _ = scipy.optimize.curve_fit(
        lambda n, a, b, c: a + b * n**-c, sizes, error, fitted.curve,
        sigma=np.sqrt(at * (1 - at)), bounds=([0, 0, 0.02], [1, 10, 2]), xtol=1e-12, ftol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(fitted.curve, expected, rtol=2e-2)


def test_intervals_hold_and_follow_from_the_seed():
    truth = ((0.05 - 0.02) / 0.6) ** (-1 / 0.6)
    covered = missed = 0
    for seed in range(40):
        fitted = learning_curve.fit(*simulated(seed), resamples=80)
        _, low, high = learning_curve.people_needed(fitted, 0.05)
        covered += low <= truth <= high
        missed += low <= 3 * truth <= high
    assert covered >= 34  # of 40: 38 are promised
    assert missed <= 30  # three times as many people are often told from that
    again = [learning_curve.fit(*simulated(1), resamples=20, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(again[0].draws, again[1].draws)
    assert (again[0].draws != again[2].draws).any()


def test_people_are_drawn_with_all_their_runs():
    """Wherever a person is told wrong in all runs, the curve moves as a whole: its fall is known."""
    whole = np.full((6, 20), 1000.0)
    base = learning_curve.error_at(Curve(0.0, 0.5, 0.5), SIZES)[:, None]
    wrong = whole * base * np.where(np.arange(20) % 2, 1.8, 0.2)
    fitted = learning_curve.fit(SIZES, wrong, whole, resamples=100)
    assert np.std(fitted.draws[:, 1]) > 0.05
    np.testing.assert_allclose(fitted.draws[:, 2], 0.5, atol=0.01)


def test_a_target_below_the_asymptote_takes_no_number_of_people():
    fitted = learning_curve.fit(*exact((0.05, 0.6, 0.6)), resamples=20)
    assert learning_curve.people_needed(fitted, 0.04) == (np.inf, np.inf, np.inf)
    found = learning_curve.results(fitted, 0.04, "_scratch")
    needed = found["people_needed_scratch"]
    assert needed.value == np.inf and needed.low is needed.high is None and needed.unit == "people"
    assert "no number is enough: the curve ends at 5 %" in needed.protocol
    assert list(found) == [
        "fit_a_scratch",
        "fit_b_scratch",
        "fit_c_scratch",
        "people_needed_scratch",
    ]
    assert found["fit_a_scratch"].value == pytest.approx(0.05, abs=1e-5)
    near = learning_curve.results(fitted, 0.052)["people_needed"]
    assert near.value > 220 and "times the 220 people there were" in near.protocol
    inside = learning_curve.results(fitted, 0.1)["people_needed"]
    assert inside.low <= inside.value <= inside.high and "extrapolated" not in inside.protocol


def test_an_interval_without_an_upper_end_says_so():
    fitted = learning_curve.fit(*simulated(3), resamples=60)
    target = float(np.quantile(fitted.draws[:, 0], 0.9))
    assert fitted.curve.a < target  # reached by the curve, but not in a tenth of the resamples
    needed = learning_curve.results(fitted, target)["people_needed"]
    assert np.isfinite(needed.value) and needed.low is not None and needed.high is None
    assert "without an upper end" in needed.protocol


def test_doubts_are_told():
    people, wrong, whole = exact((0.3, 0.0, 1.0))
    flat = learning_curve.fit(people, wrong, whole, resamples=10)
    assert flat.curve.b == 0 and "do not fall" in flat.doubt
    assert learning_curve.people_needed(flat, 0.4)[0] == 1
    assert learning_curve.people_needed(flat, 0.2)[0] == np.inf
    people, wrong, whole = exact((0.02, 0.6, 0.6))
    three = learning_curve.fit(people[:3], wrong[:3], whole[:3], resamples=10)
    assert (
        "three sizes" in three.doubt
        and "three sizes" in learning_curve.results(three, 0.1)["fit_c"].protocol
    )
    steep = learning_curve.fit(*exact((0.05, 30.0, 2.5)), resamples=10)
    assert steep.curve.c == pytest.approx(2) and "at its bound 2" in steep.doubt
    with pytest.raises(UserError, match="2 different number"):
        learning_curve.fit(people[:2], wrong[:2], whole[:2])
    with pytest.raises(UserError, match="2 test people"):
        learning_curve.fit(people, wrong[:, :2], whole[:, :2])
    with pytest.raises(UserError, match="between 0 and 1"):
        learning_curve.people_needed(three, 1.5)
    with pytest.raises(ValueError, match="tested on nobody"):
        learning_curve.fit(people, wrong * 0, whole * (people[:, None] > 8))
    with pytest.raises(ValueError, match="no more photographs are wrong"):
        learning_curve.fit(people, whole + 1, whole)


def test_points_and_picture():
    sizes, wrong, whole = simulated(4)
    whole[0, 0] = wrong[0, 0] = 0  # not tested in that run
    people, found = learning_curve.errors(sizes, wrong, whole)
    np.testing.assert_array_equal(people, SIZES)
    assert found[0].value == pytest.approx(wrong[:3].sum() / whole[:3].sum())
    assert found[0].low < found[0].value < found[0].high and found[0].n == 40
    fitted = learning_curve.fit(sizes, wrong, whole, resamples=20)
    draw = lambda needed: plots.error_by_people(
        {"scratch": (people, found)},
        {"scratch": lambda n: learning_curve.error_at(fitted.curve, n)},
        target=0.05,
        needed={"scratch": needed},
        caption="how many people it takes",
    )
    ended, open_, never = (
        draw((150.0, 90.0, 300.0)),
        draw((150.0, 90.0, np.inf)),
        draw((np.inf,) * 3),
    )
    assert ended.images.shape == (1, 1100, 1600, 3) and ended.caption == "how many people it takes"
    assert (ended.images != open_.images).any() and (open_.images != never.images).any()
