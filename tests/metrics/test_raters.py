import json
import pathlib

import numpy as np
import pytest

from jaxface.metrics import raters

REFERENCE = json.loads(pathlib.Path(__file__).with_name("raters.json").read_text())
ITEMS, POSITIVE = 2429, 0.45  # as many as the published headshots
WEAK = (0.97, 0.95, 0.6, 0.6, 0.6)
PANELS = [
    WEAK,
    (0.95, 0.9, 0.85, 0.8, 0.75),
    (0.85,) * 5,
    (0.99, 0.7, 0.7),
    (0.9,) * 10 + (0.55,) * 7,
]


@pytest.fixture(params=REFERENCE["fixtures"])
def fixture(request):
    said = REFERENCE["fixtures"][request.param]
    return np.array(said["table"]), said


def close(found, said):
    np.testing.assert_allclose(found, said, rtol=0, atol=1e-9)


def compare(table, classes, said):
    """Everything here against what other programs said of the same votes, to 1e-9."""
    counts = raters.counts_of(table, classes)
    close(raters.krippendorff_alpha(counts, resamples=9).value, said["alpha"])
    if "kappa" in said:
        close(raters.fleiss_kappa(counts, resamples=9).value, said["kappa"])
    ours = raters.majority(counts)
    told = ours >= 0
    assert told.sum() > len(table) / 2
    np.testing.assert_array_equal(ours[told], np.array(said["majority"])[told])
    for name in said:
        if name.startswith("dawid_skene_"):
            iterations = int(name.rpartition("_")[2])
            found = raters.dawid_skene(table, classes, iterations=iterations, tolerance=-1.0)
            assert (found.iterations, found.converged) == (iterations, False)
            for part in ("posterior", "prior", "confusion"):
                close(getattr(found, part), said[name][part])


def test_equals_statsmodels_krippendorff_and_crowd_kit(fixture):
    table, said = fixture
    compare(table, said["classes"], said)


def test_equals_the_programs_themselves():
    for name in ("statsmodels", "krippendorff", "crowdkit"):
        pytest.importorskip(name)
    import make_raters

    for name, (table, classes) in make_raters.tables().items():
        assert table == REFERENCE["fixtures"][name]["table"]
        compare(np.array(table), classes, make_raters.judge(np.array(table), classes))


def test_fleiss_example():
    # Fleiss 1971, as worked out in Wikipedia's article: 10 items, 14 raters, 5 classes.
    counts = [
        *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
        *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
    ]
    kappa = raters.fleiss_kappa(counts)
    assert kappa.value == pytest.approx(0.210, abs=5e-4) and kappa.n == 10 and not kappa.why
    assert kappa.low < kappa.value < kappa.high


def test_krippendorff_example():
    # Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, section C: four observers.
    rows = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    table = np.array([["12345".find(letter) for letter in row] for row in rows]).T
    assert table.min() == -1
    alpha = raters.krippendorff_alpha(raters.counts_of(table, 5))
    assert alpha.value == pytest.approx(0.743, abs=5e-4)


def slow_kappa(table):
    """Pair by pair."""
    rows = [[vote for vote in row if vote >= 0] for row in table.tolist()]
    agree = []
    for row in (row for row in rows if len(row) > 1):
        pairs = [(a, b) for i, a in enumerate(row) for j, b in enumerate(row) if i != j]
        agree.append(np.mean([a == b for a, b in pairs]))
    rows = [row for row in rows if row]
    share = [np.mean([row.count(k) / len(row) for row in rows]) for k in range(3)]
    chance = sum(s * s for s in share)
    return (np.mean(agree) - chance) / (1 - chance)


def test_kappa_of_unequal_numbers_of_votes():
    table = np.random.default_rng(2).integers(-1, 3, (60, 5))
    table[:4] = -1  # nobody voted
    found = raters.fleiss_kappa(raters.counts_of(table, 3), resamples=9)
    assert found.value == pytest.approx(slow_kappa(table), abs=1e-12) and found.n == 56


def test_several_items_of_a_person_are_drawn_together():
    table = np.random.default_rng(3).integers(0, 2, (40, 3))
    counts = raters.counts_of(table)
    for statistic in (raters.fleiss_kappa, raters.krippendorff_alpha):
        once = statistic(counts, resamples=400)
        people = [f"p{n:02}" for n in range(40)]
        assert once == statistic(counts, people, resamples=400)
        twice = statistic(np.repeat(counts, 2, 0), np.repeat(people, 2), resamples=400)
        alone = statistic(np.repeat(counts, 2, 0), resamples=400)
        assert (twice.n, alone.n) == (40, 80)
        assert twice.value == pytest.approx(once.value, abs=0.02)
        assert alone.high - alone.low < 0.85 * (twice.high - twice.low)


@pytest.mark.parametrize("statistic", [raters.fleiss_kappa, raters.krippendorff_alpha])
def test_where_agreement_is_undefined(statistic):
    for counts, why in [
        ([[1, 0], [0, 1], [0, 0]], "no item has two votes"),
        ([[3, 0], [2, 0], [0, 0]], "all votes are the same: chance alone"),
        ([[0, 0]], "no item has two votes"),
    ]:
        found = statistic(np.array(counts))
        assert found.value is found.low is found.high is None and why in found.why
    perfect = statistic(np.array([[3, 0], [0, 3], [3, 0], [0, 3]]))
    assert perfect.value == 1 and perfect.low is None and "alike" in perfect.why
    alone = statistic(np.array([[3, 1], [1, 3]]), ["p", "p"])
    assert alone.n == 1 and alone.low is None and "too few" in alone.why
    with pytest.raises(ValueError, match=r"people must be \[2\]"):
        statistic(np.array([[3, 1], [1, 3]]), ["p"])


def test_majority_and_counts():
    counts = raters.counts_of([[0, 1, -1], [1, 1, -1], [-1, -1, -1], [2, 2, 0]], 3)
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0], [1, 0, 2]]
    assert raters.majority(counts).tolist() == [-1, 1, -1, 2]
    for table in ([[0, 2]], [[-2, 0]], [0, 1]):
        with pytest.raises(ValueError, match="a table is"):
            raters.counts_of(np.array(table), 2)


def test_items_and_raters_without_votes():
    table = np.random.default_rng(4).integers(0, 2, (30, 4))
    table[5], table[:, 2] = -1, -1
    found = raters.dawid_skene(table)
    assert np.isnan(found.confusion[2]).all() and np.isfinite(found.posterior).all()
    np.testing.assert_array_equal(found.posterior[5], found.prior)
    less = raters.dawid_skene(np.delete(np.delete(table, 5, 0), 2, 1))
    np.testing.assert_array_equal(np.delete(found.posterior, 5, 0), less.posterior)
    with pytest.raises(ValueError, match="no vote"):
        raters.dawid_skene(np.full((3, 2), -1))


def panel(skills, seed):
    """(truth [N], votes [N, R]) of raters who are right with these probabilities."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(ITEMS) < POSITIVE).astype(int)
    right = rng.random((ITEMS, len(skills))) < skills
    return truth, np.where(right, truth[:, None], 1 - truth[:, None])


def accuracies(skills, seed):
    """Percent right of the majority and of Dawid-Skene, and what the latter found."""
    truth, table = panel(skills, seed)
    found = raters.dawid_skene(table)
    by_vote = raters.majority(raters.counts_of(table))
    both = [100 * np.mean(said == truth) for said in (by_vote, found.posterior.argmax(1))]
    return *both, found


def test_dawid_skene_beats_the_majority_with_three_weak_voters_of_five():
    # Measured: 90.8 % and 97.0 %.
    rows = [accuracies(WEAK, seed) for seed in range(3)]
    by_vote, by_model = (np.mean([row[n] for row in rows]) for n in (0, 1))
    assert by_vote == pytest.approx(90.8, abs=0.7) and by_model == pytest.approx(97.1, abs=0.7)
    assert all(model > vote + 5 for vote, model, _ in rows)
    found = rows[0][2]
    assert found.converged and found.prior[1] == pytest.approx(POSITIVE, abs=0.03)
    skill = np.diagonal(found.confusion, axis1=1, axis2=2).mean(1)
    np.testing.assert_allclose(skill, WEAK, atol=0.03)


@pytest.mark.parametrize("skills", PANELS)
def test_dawid_skene_costs_nothing_where_it_gains_nothing(skills):
    for seed in (11, 12):
        by_vote, by_model, found = accuracies(skills, seed)
        assert found.converged and by_model >= by_vote - 0.2


def test_equal_votes_give_equal_bits():
    table = panel(WEAK, 7)[1][:200]
    one, other = raters.dawid_skene(table), raters.dawid_skene(table.copy())
    assert one.posterior.tobytes() == other.posterior.tobytes()
    counts = raters.counts_of(table)
    once, again = (raters.fleiss_kappa(counts, resamples=99) for _ in range(2))
    assert once == again and once.low < once.value < once.high
