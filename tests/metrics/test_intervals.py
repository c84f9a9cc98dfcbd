"""Intervals over people: coverage, dependence within a person, and what cannot be known."""

import numpy as np
import pytest

from jaxface.metrics.intervals import bootstrap, by_subject

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
