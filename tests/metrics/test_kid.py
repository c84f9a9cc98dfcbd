"""KID: peers' outputs, a double loop, and what its interval promises."""

import golden
import numpy as np
import pytest

from jaxface.metrics import kid
from jaxface.metrics.kid import kid_interval, kid_subsets


def double_loop(a, b):
    """Binkowski et al., equation 4, one pair at a time."""
    kernel = lambda x, y: (x @ y / len(x) + 1) ** 3
    n, m = len(a), len(b)
    within_a = sum(kernel(a[i], a[j]) for i in range(n) for j in range(n) if i != j)
    within_b = sum(kernel(b[i], b[j]) for i in range(m) for j in range(m) if i != j)
    between = sum(kernel(x, y) for x in a for y in b)
    return within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * between / (n * m)


def test_peers():
    data = golden.load("metrics")
    a, b = data["in/f1"], data["in/f2"]
    n = min(len(a), len(b))
    value = kid(a[:n], b[:n])
    for peer in ("clean_fid_equalN_full", "torch_fidelity_mmd2_equalN"):
        assert value == pytest.approx(float(data[f"kid/{peer}"]), rel=1e-10)
    assert value == pytest.approx(float(data["kid/nvidia_equalN_full"]), rel=1e-5)


def test_peers_on_subsets():
    data = golden.load("metrics")
    a, b = data["in/f1"], data["in/f2"]
    values = kid_subsets(a, b, subsets=25, size=60)
    expected = data["kid/torch_fidelity_subsets25_size60_seed2020_mean_std"]
    assert values == pytest.approx(expected, rel=1e-10)
    mean, _ = kid_subsets(b, a, subsets=10, size=50, seed=int(data["kid/clean_fid_npseed"]))
    assert mean == pytest.approx(float(data["kid/clean_fid_subsets10_size50_npseed"]), rel=1e-10)


def test_subsets_of_everything_are_the_whole():
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(9, 3)), rng.normal(size=(9, 3))
    mean, spread = kid_subsets(a, b, subsets=3, size=9)
    assert mean == pytest.approx(kid(a, b), rel=1e-12)
    assert spread == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="no subsets of 10"):
        kid_subsets(a, b, size=10)


def test_double_loop_with_unequal_numbers(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(13, 5)), rng.normal(size=(9, 5)) + 0.4
    assert kid(a, b) == pytest.approx(double_loop(a, b), rel=1e-12)
    assert kid(a, b) == pytest.approx(kid(b, a), rel=1e-12)
    # The same in stretches of two rows, as large sets are summed.
    monkeypatch.setitem(kid.__globals__, "ENTRIES", 2 * len(b))
    assert kid(a, b) == pytest.approx(double_loop(a, b), rel=1e-12)


def test_no_bias_between_samples_of_one_distribution():
    rng = np.random.default_rng(1)
    values = [kid(rng.normal(size=(20, 6)), rng.normal(size=(30, 6))) for _ in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_interval_sums_are_those_of_images():
    """One draw of every unit is the estimate itself, however people and images are grouped."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(12, 4)), rng.normal(size=(10, 4)) + 1
    units = kid_interval.__globals__["_Units"]
    people = units(a, np.repeat([3, 1, 2, 0], 3), rng)
    once = np.ones((1, 4))
    n = len(a)
    kernel = (a @ a.T / 4 + 1) ** 3
    expected = (kernel.sum() - np.trace(kernel)) / (n * (n - 1))
    assert people.self_similarity(once)[0] == pytest.approx(expected, rel=1e-12)
    interval = kid_interval(a, b, resamples=50)
    assert interval.value == pytest.approx(kid(a, b), rel=1e-12)
    assert interval.n == 12


def test_self_similarity_of_a_drawn_set_by_loop():
    """Copies of a person are not compared with each other; one copy's own photographs are."""
    rng = np.random.default_rng(3)
    a, person = rng.normal(size=(5, 3)), np.array([0, 0, 1, 1, 2])
    units = kid_interval.__globals__["_Units"](a, person, rng)
    drawn = [0, 0, 2]  # person 0 twice, person 1 never
    copies = [(c, i) for c, p in enumerate(drawn) for i in np.flatnonzero(person == p)]
    pairs = [
        (a[i] @ a[j] / 3 + 1) ** 3
        for c, i in copies
        for d, j in copies
        if (c == d and i != j) or (c != d and person[i] != person[j])
    ]
    value = units.self_similarity(np.array([[2.0, 0.0, 1.0]]))[0]
    assert value == pytest.approx(np.mean(pairs), rel=1e-12)


def test_interval_covers_the_truth():
    rng = np.random.default_rng(4)
    shift = 0.7
    draw = lambda n, by: rng.normal(size=(n, 6)) + by
    truth = np.mean([kid(draw(1500, 0), draw(1500, shift)) for _ in range(4)])
    covered = 0
    for trial in range(100):
        interval = kid_interval(draw(50, 0), draw(70, shift), resamples=200, seed=trial)
        covered += interval.low <= truth <= interval.high
    assert covered >= 88


def test_people_count_and_not_their_photographs():
    rng = np.random.default_rng(5)
    people = rng.normal(size=(20, 6))
    photographs = np.repeat(people, 8, axis=0) + 0.05 * rng.normal(size=(160, 6))
    fakes = rng.normal(size=(300, 6)) + 0.5
    subjects = np.repeat(np.arange(20), 8)
    width = lambda interval: interval.high - interval.low
    right = kid_interval(photographs, fakes, subjects, resamples=300)
    wrong = kid_interval(photographs, fakes, None, resamples=300)
    assert right.n == 20
    assert width(right) > 1.5 * width(wrong)


def test_thousands_are_bundled(monkeypatch):
    monkeypatch.setitem(kid_interval.__globals__, "BUNDLES", 10)
    rng = np.random.default_rng(6)
    interval = kid_interval(rng.normal(size=(25, 2)), rng.normal(size=(21, 2)) + 2, resamples=40)
    assert interval.n == 25
    assert interval.low < interval.value < interval.high


def test_three_people_have_an_interval_of_numbers():
    a = np.random.default_rng(7).normal(size=(3, 2))
    interval = kid_interval(a, a + 1, resamples=200)
    assert np.isfinite([interval.low, interval.high]).all()
