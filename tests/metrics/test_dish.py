"""DISH against loops and scipy, and what the index must say of sets whose truth is known."""

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats

from jaxface.metrics import dish
from jaxface.metrics.dish import HUMAN, reported


def clefts(n, seed=0):
    return 100 * np.random.default_rng(seed).beta(1.5, 1.8, n)


def normals(n, seed=0):
    return np.abs(2 * np.random.default_rng([seed, 1]).normal(size=n))


def test_definition_by_loop():
    a, b = clefts(90), clefts(40, 1) + 5
    found = dish(a, b)
    top = np.percentile(a, 99.5)
    p, q = np.full(20, 0.5), np.full(20, 0.5)
    for histogram, scores in ((p, a), (q, b)):
        for score in scores:
            histogram[min(int(score / (top / 20)), 19)] += 1
    p, q = p / (90 + 10), q / (40 + 10)
    assert found.js == pytest.approx(scipy.spatial.distance.jensenshannon(p, q, 2) ** 2, rel=1e-12)
    assert found.kl == pytest.approx(scipy.stats.entropy(p, q), rel=1e-12)
    # Of the scores themselves: the area between their two distribution functions.
    grid = np.linspace(0, 120, 1_200_001)
    below = lambda scores: np.searchsorted(np.sort(scores), grid, "right") / len(scores)
    assert found.w1 == pytest.approx(np.abs(below(a) - below(b)).mean() * 120, rel=1e-3)


def test_identical_sets_are_at_zero():
    a = clefts(514)
    found = dish(a, a[::-1])
    assert (found.js, found.kl, found.w1) == (0, 0, 0)
    assert found.indistinguishable
    assert found.low == 0
    assert 0 < found.noise_floor < 0.05


def test_normal_faces_against_clefts_are_far_apart():
    found = dish(clefts(514), normals(2000))
    assert found.js > 0.5
    assert found.low > 10 * found.noise_floor
    assert not found.indistinguishable
    assert dish(normals(514), clefts(2000)).js > 0.5


def test_monotone_when_mild_cases_are_filtered_out():
    training, generated = clefts(514), clefts(2000, 1)
    kept = [generated[generated >= least] for least in (0, 20, 40, 60, 80)]
    for part in ("js", "w1"):
        values = [getattr(dish(training, some), part) for some in kept]
        assert values == sorted(values)
        assert values[-1] > 10 * values[0]
    assert dish(training, kept[0]).indistinguishable
    assert not dish(training, kept[1]).indistinguishable


def test_noise_floor_is_the_95th_percentile_over_halves():
    a = clefts(60)
    found = dish(a, clefts(60, 1), edges=[0, 25, 50, 75, 100])
    rng = np.random.default_rng(5)
    values = []
    for _ in range(1500):
        order = rng.permutation(60)
        halves = [np.histogram(a[part], found.edges)[0] + 0.5 for part in (order[:30], order[30:])]
        values.append(scipy.spatial.distance.jensenshannon(*halves, 2) ** 2)
    assert found.noise_floor == pytest.approx(np.percentile(values, 95), rel=0.12)


def test_two_sets_of_one_distribution_exceed_the_floor_at_most_once_in_twenty():
    above = [not dish(clefts(100, s), clefts(100, 1000 + s)).indistinguishable for s in range(100)]
    assert np.mean(above) <= 0.05


def test_interval_covers_the_divergence_of_the_distributions():
    edges = np.linspace(0, 100, 11)
    truth = dish(clefts(10**6), 100 * (clefts(10**6, 1) / 100) ** 1.7, edges).js
    inside = 0
    for trial in range(100):
        found = dish(clefts(300, trial), 100 * (clefts(500, 500 + trial) / 100) ** 1.7, edges)
        assert found.low <= found.js <= found.high
        inside += found.low <= truth <= found.high
    assert inside >= 88


def test_people_are_resampled_whole():
    scores, people = np.repeat(clefts(40), 6), np.repeat(np.arange(40), 6)
    other = clefts(400, 1)
    whole, apart = dish(scores, other, subjects=people), dish(scores, other)
    assert whole.js == apart.js
    assert whole.noise_floor > 2 * apart.noise_floor


def test_outer_bins_are_open_and_the_human_scale_has_its_own():
    found = dish([1, 2, 3, 9, -4], [1.2, 2.2, 3.3, 6.6, 0.1], edges=HUMAN)
    np.testing.assert_allclose(found.training, [0.4, 0.2, 0.2, 0, 0, 0.2])
    np.testing.assert_array_equal(found.training, found.generated)
    assert found.js == 0 < found.w1


def test_a_report_names_the_score_and_the_floor():
    results = reported(clefts(80), normals(50), np.arange(80) // 2, "score of a test")
    assert set(results) == {"dish_js", "dish_kl", "dish_w1", "dish_noise_floor"}
    assert results["dish_js"].n == 40
    assert "score of a test" in results["dish_js"].protocol
    assert "above its noise floor" in results["dish_js"].protocol
    assert results["dish_js"].low > results["dish_noise_floor"].value


def test_refusals():
    with pytest.raises(ValueError, match="not above 0"):
        dish(np.zeros(5), np.ones(5))
    with pytest.raises(ValueError, match="finite"):
        dish([1, np.nan], [1, 2])
    with pytest.raises(ValueError, match="increase"):
        dish([1, 2], [1, 2], edges=[0, 2, 1])
    with pytest.raises(ValueError, match="subjects"):
        dish([1, 2, 3], [1, 2], subjects=[0, 1])
