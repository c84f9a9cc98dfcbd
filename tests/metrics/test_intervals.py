"""Intervals over people: coverage, dependence within a person, and what cannot be known."""

import numpy as np
import pytest
import scipy.stats

from benchmarks import coverage
from jaxface.metrics import intervals
from jaxface.metrics.intervals import bootstrap, by_subject, jackknife, proportion

mean = lambda rows: float(rows.mean())


def test_rows_find_their_people():
    groups = by_subject(np.array([[1, 2], [3, 4], [5, 6]]), np.array(["b", "a", "b"]))
    assert list(groups) == ["a", "b"]
    np.testing.assert_array_equal(groups["b"], [[1, 2], [5, 6]])


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_coverage_over_people(method):
    """Photographs of a person share most of their error: people must be what is resampled."""
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(25), 4)
    covered = naive = 0
    for trial in range(60):
        values = rng.normal(size=25)[subjects] + 0.2 * rng.normal(size=100)
        options = {"method": method, "resamples": 199, "seed": trial}
        interval = bootstrap(by_subject(values, subjects), mean, **options)
        covered += interval.low <= 0 <= interval.high
        as_if_independent = bootstrap(by_subject(values, np.arange(100)), mean, **options)
        naive += as_if_independent.low <= 0 <= as_if_independent.high
    assert covered >= 52
    assert naive < 50


def test_statistic_of_several_columns():
    rng = np.random.default_rng(1)
    x = rng.normal(size=80)
    pairs = np.stack([x, 0.8 * x + 0.6 * rng.normal(size=80)], axis=1)
    correlation = lambda rows: float(np.corrcoef(rows.T)[0, 1])
    interval = bootstrap(by_subject(pairs, np.arange(80) // 2), correlation, resamples=300)
    assert interval.value == pytest.approx(np.corrcoef(pairs.T)[0, 1])
    assert interval.low < interval.value < interval.high < 1
    assert interval.n == 40


def test_people_with_different_numbers_of_rows_come_whole():
    seen = []
    groups = {"a": np.array([1.0]), "b": np.array([2.0, 2.5, 2.7]), "c": np.array([3.0, 3.5])}
    bootstrap(groups, lambda rows: seen.append(tuple(rows)) or mean(rows), resamples=50)
    allowed = {tuple(v) for v in groups.values()}
    for rows in seen:
        rows = list(rows)
        while rows:
            person = next(p for p in allowed if p[0] == rows[0])
            assert tuple(rows[: len(person)]) == person
            del rows[: len(person)]


def test_what_cannot_be_known_is_none():
    all_correct = bootstrap(by_subject(np.ones(10), np.arange(10)), mean, resamples=99)
    assert (all_correct.value, all_correct.low, all_correct.high) == (1.0, None, None)
    one_person = bootstrap({"a": np.array([0.2, 0.4])}, mean)
    assert one_person.low is None and one_person.n == 1


def test_same_seed_same_interval():
    groups = by_subject(np.random.default_rng(2).normal(size=30), np.arange(30))
    assert bootstrap(groups, mean, resamples=99) == bootstrap(groups, mean, resamples=99)


@pytest.mark.parametrize("people", [10, 24])
@pytest.mark.parametrize("share, correlation", [(0.8, 0.5), (0.93, 0.1)])
def test_coverage_of_a_share(people, share, correlation):
    """200 simulations tell 95 % to within 1.5; the whole table is benchmarks/coverage.py."""
    draw = lambda rng, n: coverage.share_of(rng, n, share, correlation)
    found = coverage.measure(draw, proportion, share, people, 200)
    assert 90 < found["covered"] < 99.5 and not found["silent"]
    alone = lambda hits, subjects: proportion(hits, np.arange(len(hits)))
    assert correlation < 0.5 or coverage.measure(draw, alone, share, people, 200)["covered"] < 85


@pytest.mark.parametrize("people", [10, 24, 39, 277])
def test_coverage_of_a_mean(people):
    found = coverage.measure(coverage.exponential, intervals.mean, 1.0, people, 600)
    assert 92 < found["covered"] < 98
    normal = lambda values, _: intervals.Interval(
        0, *scipy.stats.t.interval(0.95, len(values) - 1, values.mean(), scipy.stats.sem(values)), 0
    )
    if people == 10:  # what forgets the skewness covers less
        worse = coverage.measure(coverage.exponential, normal, 1.0, people, 600)
        assert worse["covered"] < found["covered"] - 2


def test_one_photograph_each_is_the_binomial_case():
    for right, people in ((7, 10), (10, 10), (0, 12), (271, 277)):
        found = proportion(np.arange(people) < right, np.arange(people))
        low, high = scipy.stats.beta.ppf([0.025, 0.975], right + 0.7, people - right + 0.7)
        ends = (low if right else 0, high if right < people else 1)
        np.testing.assert_allclose(found[1:3], ends, atol=2e-3)
        assert found.value == right / people and found.n == people


def test_a_share_equals_its_posterior_summed_slowly():
    right, sizes = np.array([9, 9, 4, 9, 7, 6, 9, 1]), np.array([9, 9, 8, 9, 7, 9, 9, 5])
    share, correlation = np.linspace(0.0005, 0.9995, 1000), (np.arange(300) + 0.5) / 300
    a = share[:, None] * (1 / correlation - 1)
    b = (1 - share)[:, None] * (1 / correlation - 1)
    total = sum(scipy.stats.betabinom.logpmf(x, m, a, b) for x, m in zip(right, sizes))
    posterior = np.exp(total).sum(1) * scipy.stats.beta.pdf(share, 0.7, 0.7)
    ends = np.interp([0.025, 0.975], np.cumsum(posterior) / posterior.sum(), share)
    hits = np.concatenate([np.arange(m) < x for x, m in zip(right, sizes)])
    found = proportion(hits, np.repeat(list("abcdefgh"), sizes))
    np.testing.assert_allclose(found[1:3], ends, atol=2e-3)
    narrower = proportion(hits, np.repeat(list("abcdefgh"), sizes), confidence=0.8)
    assert found.low < narrower.low < narrower.high < found.high
    # The same counts, were they spread over people evenly, tell more.
    even = proportion(np.arange(65) < right.sum(), np.arange(65) % 8)
    assert even.high - even.low < found.high - found.low


def test_what_is_no_share_is_refused():
    with pytest.raises(ValueError, match="0 or 1"):
        proportion([0, 0.5, 1], ["a", "b", "c"])
    with pytest.raises(ValueError, match="at least one"):
        proportion([], [])
    assert proportion([1, 0], ["a", "a"]) == (0.5, None, None, 1)


def test_jackknife_is_t_without_skewness_and_leans_with_it():
    values = np.array([-3.0, -2, -1, 0, 1, 2, 3])
    found = jackknife(by_subject(values, np.arange(7)), mean)
    half = scipy.stats.t.ppf(0.975, 6) * scipy.stats.sem(values)
    np.testing.assert_allclose(found[:3], (0, -half, half), atol=1e-9)
    skewed = np.array([0.1, 0.2, 0.2, 0.3, 0.5, 0.9, 3.0])
    right = jackknife(by_subject(skewed, np.arange(7)), mean)
    left = jackknife(by_subject(-skewed, np.arange(7)), mean)
    assert right.high - right.value > 1.5 * (right.value - right.low)
    np.testing.assert_allclose((left.low, left.high), (-right.high, -right.low))
    assert jackknife(by_subject(skewed, np.arange(7)), mean, bounds=(0, 1)).high == 1


def test_mean_is_the_jackknife_of_a_pooled_mean():
    rng = np.random.default_rng(3)
    subjects = rng.permutation(np.repeat(np.arange(12), rng.integers(1, 6, 12)))
    values = rng.gamma(1.0, size=len(subjects))
    np.testing.assert_allclose(
        intervals.mean(values, subjects), jackknife(by_subject(values, subjects), mean)
    )


def test_where_leaving_out_tells_nothing_there_is_no_interval():
    constant = by_subject(np.full(10, 0.1), np.arange(10))
    assert jackknife(constant, mean)[1:3] == (None, None)
    only_one = lambda rows: float("nan") if not rows.sum() else 1.0
    assert jackknife(by_subject(np.eye(5)[0], np.arange(5)), only_one)[1:3] == (None, None)
    assert intervals.mean([1.0, 2.0], ["a", "b"]) == (1.5, None, None, 2)
    assert intervals.mean([1.0, 2.0], ["a", "a"]) == (1.5, None, None, 1)
