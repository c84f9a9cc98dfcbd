import math

import numpy as np
import pytest
import scipy.stats

from jaxface.metrics import agreement


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(3)
    y = rng.gamma(2, 0.02, 24)
    return 0.8 * y + 0.01 + rng.normal(0, 0.008, 24), y, np.array([f"p{i:02}" for i in range(24)])


def test_correlation_is_scipys_with_an_interval_of_people(pairs):
    x, y, people = pairs
    r = agreement.pearson(x, y, people, "held out")
    assert r.value == pytest.approx(scipy.stats.pearsonr(x, y)[0], abs=1e-12)
    assert r.low < r.value < r.high < 1 and r.n == 24 and r.protocol == "held out"
    # Fisher's interval, for normal values, is the size to expect.
    z, half = np.arctanh(r.value), 1.96 / math.sqrt(21)
    assert abs(np.arctanh(r.low) - (z - half)) < 0.35
    assert abs(np.arctanh(r.high) - (z + half)) < 0.35


def test_photographs_of_one_person_are_drawn_together(pairs):
    x, y, people = pairs
    once = agreement.pearson(x, y, people)
    twice = agreement.pearson(np.tile(x, 2), np.tile(y, 2), np.tile(people, 2))
    assert twice.n == 24
    assert (twice.value, twice.low, twice.high) == pytest.approx((once.value, once.low, once.high))


def test_concordance_by_hand():
    x, y = np.array([1.0, 2, 3]), np.array([2.0, 3, 4])
    # s_xy = s_x² = s_y² = 2/3 and the means differ by 1: (4/3) / (4/3 + 1)
    assert agreement.lin_ccc(x, y, [0, 1, 2]).value == pytest.approx(4 / 7)
    assert agreement.lin_ccc(x, x, [0, 1, 2]).value == pytest.approx(1)
    assert agreement.lin_ccc(x, -x + 4, [0, 1, 2]).value == pytest.approx(-1)


def test_concordance_is_correlation_times_the_bias_correction(pairs):
    x, y, people = pairs
    v, u = x.std() / y.std(), (x.mean() - y.mean()) / math.sqrt(x.std() * y.std())
    expected = scipy.stats.pearsonr(x, y)[0] * 2 / (v + 1 / v + u**2)
    ccc = agreement.lin_ccc(x, y, people)
    assert ccc.value == pytest.approx(expected, abs=1e-12)
    assert ccc.low < ccc.value < ccc.high and ccc.n == 24


def test_bland_altman_by_hand(pairs):
    # differences 1, 3, 5: mean 3, standard deviation 2
    bias, low, high = agreement.bland_altman([2, 5, 8], [1, 2, 3], ["a", "b", "c"], "three")
    assert (bias.value, low.value, high.value) == pytest.approx((3, 3 - 3.92, 3 + 3.92))
    assert bias.protocol == low.protocol == high.protocol == "three"
    result = agreement.bland_altman(*pairs)
    for part in result:
        assert part.low < part.value < part.high and part.n == 24
    assert result.low.high < result.bias.low < result.bias.high < result.high.low


def test_difference_of_correlations_is_paired(pairs):
    x, y, people = pairs
    rng = np.random.default_rng(0)
    other = x + rng.normal(0, 0.002, 24)
    noise = rng.normal(0, 0.03, 24)
    r = lambda a: scipy.stats.pearsonr(a, y)[0]
    near = agreement.difference_of_r(x, other, y, people)
    far = agreement.difference_of_r(x, y + noise, y, people, "against noise")
    assert near.value == pytest.approx(r(x) - r(other), abs=1e-12)
    assert far.value == pytest.approx(r(x) - r(y + noise), abs=1e-12)
    assert near.low < near.value < near.high and near.n == 24
    assert far.low > 0 and far.protocol == "against noise"
    # Resampled apart, two correlations of this spread could not be told apart so closely.
    single = agreement.pearson(x, y, people)
    assert near.high - near.low < 0.5 * (single.high - single.low)


def test_equal_predictors_differ_by_exactly_zero(pairs):
    x, y, people = pairs
    assert agreement.difference_of_r(x, x, y, people)[:4] == (0.0, None, None, 24)


def test_degenerate_values_have_no_interval():
    people = list("abcd")
    flat, y = np.full(4, 0.1), np.array([0.1, 0.2, 0.3, 0.5])
    for result in (
        agreement.pearson(flat, y, people),
        agreement.pearson(y, flat, people),
        agreement.lin_ccc(flat, flat, people),
        agreement.difference_of_r(flat, y, y, people),
        agreement.bland_altman(y[:1], y[:1], people[:1]).low,
    ):
        assert math.isnan(result.value) and result.low is None and result.high is None
    assert agreement.lin_ccc(flat, y, people).value == 0
    assert agreement.bland_altman(flat, flat, people).bias[:3] == (0, None, None)
    nothing = agreement.pearson([], [], [])
    assert math.isnan(nothing.value) and nothing.n == 0
    one = agreement.pearson([1, 2, 4], [1, 2, 3], ["a"] * 3)
    assert one.value == pytest.approx(0.98198, abs=1e-5) and one.low is None and one.n == 1


def test_pairs_that_were_not_measured_are_left_out(pairs):
    x, y, people = pairs
    gap = np.array([*x[:23], math.nan])
    assert (
        agreement.pearson(gap, y, people)[:4] == agreement.pearson(x[:23], y[:23], people[:23])[:4]
    )
