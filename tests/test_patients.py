"""Who is a target, what models learn from, and that nobody's left-out day is among it."""

import dataclasses

import numpy as np
import pytest
from clinic import Clinic

from experiments import edema as experiment
from experiments import edema_pretrain
from jaxface import patients
from jaxface.errors import UserError


@pytest.fixture(scope="module")
def clinic():
    return Clinic(dataclasses.replace(edema_pretrain.tiny, folds=2))


def test_folds_depend_on_the_name_alone():
    names = [f"E{n:04d}" for n in range(1, 400)]
    folds = [patients.fold_of(name, 3) for name in names]
    assert np.bincount(folds, minlength=3).min() > 100 and max(folds) == 2
    assert [patients.fold_of(name, 3) for name in names[50:60]] == folds[50:60]


def test_weights_about_each_patient_in_one_unit():
    subject = np.array(["a"] * 4 + ["b"] * 4)
    video = np.array(["a0", "a0", "a1", "a2", "b0", "b0", "b0", "b1"])
    weight = np.array([60.0, 60, 62, 64, 80, 80, 80, 81])
    normal, spread = patients.within(weight, subject, video)
    # By video, not by frame: means are 62 and 80.5.
    squares = (-2) ** 2 + 0 + 2**2 + 0.5**2 + 0.5**2
    assert spread == pytest.approx(np.sqrt(squares / (5 - 2)))
    np.testing.assert_allclose(normal * spread, [-2, -2, 0, 2, -0.5, -0.5, -0.5, 0.5])
    assert patients.within(weight[:1], subject[:1], video[:1]) == (np.array([0.0]), 1.0)


def test_pairs_share_patient_and_label_and_not_the_video(clinic):
    table, rows = clinic.table, clinic.learned_from
    assert clinic.is_target.any() and not clinic.is_target[rows].any()
    batches = patients.pair_batches(clinic, 0)
    drawn = [next(batches) for _ in range(40)]
    pairs = np.concatenate([batch["index"] for batch in drawn])
    assert np.isin(pairs, rows).all()
    for column in ("subject", "session"):
        values = getattr(table, column)[pairs]
        assert (values[:, 0] == values[:, 1]).all()
    videos = table.video[pairs]
    assert (videos[:, 0] != videos[:, 1]).all()  # everybody here has two days or more
    turns = np.unique(table.subject[pairs[:, 0]], return_counts=True)[1]
    assert turns.max() - turns.min() <= 1
    assert set(pairs.ravel()) == set(rows)
    label = np.concatenate([batch["label"] for batch in drawn])
    assert (label == (table.session[pairs] == "pre")).all()


def test_processes_see_the_rows_of_one(clinic):
    whole = patients.pair_batches(clinic, 5)
    parts = [patients.pair_batches(clinic, 5, index, 2) for index in (0, 1)]
    for _ in range(3):
        one, two = next(whole), [next(part) for part in parts]
        for name, value in one.items():
            np.testing.assert_array_equal(value, np.concatenate([part[name] for part in two]))


def test_everybody_in_the_fold_of_targets():
    frames = Clinic(dataclasses.replace(edema_pretrain.tiny, folds=2), days=(2,))
    frames.config = dataclasses.replace(frames.config, fold=patients.fold_of("P0", 2))
    with pytest.raises(UserError, match="nobody is left to learn from"):
        print(frames.learned_from)
    other = Clinic(dataclasses.replace(frames.config, fold=1 - frames.config.fold), days=(2,))
    with pytest.raises(UserError, match="nobody can be judged"):
        print(other.targets)


def test_a_day_without_both_videos_is_not_judged():
    frames = Clinic(dataclasses.replace(edema_pretrain.tiny, folds=2), days=(3,))
    frames.config = dataclasses.replace(frames.config, fold=patients.fold_of("P0", 2))
    keep = frames.table.video != "P0/1/post"
    frames.table = patients.Table(*(column[keep] for column in frames.table))
    assert frames.targets == {"P0": ["0", "2"]}


def test_plan_leaves_each_day_out_in_turn():
    days = {"a": ["1", "2", "3", "4"], "b": ["1", "2"]}
    jobs = patients.plan(days, 2, ("1", "3", "all"), seed=0)
    assert jobs == patients.plan(days, 2, ("1", "3", "all"), seed=0)
    judged = [job for job in jobs if job.test]
    for job in judged:
        assert job.test not in job.days and set(job.days) <= set(days[job.subject])
        assert len(job.days) == {"1": 1, "3": 3, "all": len(days[job.subject]) - 1}[job.budget]
    # Three others are all for a, one other is all for b: not trained twice.
    kinds = [(job.subject, job.budget) for job in judged if job.method == 0]
    assert kinds.count(("a", "1")) == 4 and ("a", "3") not in kinds and ("b", "1") not in kinds
    for one, two in zip(judged[::2], judged[1::2]):
        assert one._replace(method=1) == two
    kept = jobs[len(judged) :]
    assert [(job.subject, job.method, job.days) for job in kept] == [
        (name, 0, tuple(all_)) for name, all_ in days.items()
    ]


@pytest.fixture(scope="module")
def judged():
    config = dataclasses.replace(experiment.tiny, folds=2, together=2, budgets="1,all")
    return Clinic(config), config


def test_batches_of_jobs_hold_their_days_alone(judged):
    frames, config = judged
    jobs = patients.plan(frames.targets, 2, ("1", "all"), 0)
    source = patients.JobBatches(frames, jobs, config, 1.5, 0, 0, 1)
    table, seen = frames.table, set()
    for step in range(config.num_steps * -(-len(jobs) // 2)):
        batch = next(source)
        local = step % config.num_steps
        assert ("whole" in batch) == (config.head_steps <= local < config.num_steps - 1)
        assert ("label" in batch) == (local < config.num_steps - 1)
        for column in (0, 1):
            number = int(batch["job"][0, column])
            job, rows = jobs[number], batch["index"][:, column]
            assert number == min(2 * (step // config.num_steps) + column, len(jobs) - 1)
            if "label" not in batch:
                expected = patients.rows_of(table, job.subject, (job.test,))
                assert set(rows[: len(expected)]) == set(expected)
                seen.add(number)
                continue
            assert (table.subject[rows] == job.subject).all()
            assert set(table.day[rows]) <= set(job.days)
            assert (batch["begin"] == (local == 0)).all()
            np.testing.assert_array_equal(batch["label"][:, column], table.session[rows] == "pre")
            assert batch["label"][:, column].mean() == 0.5
            mean = patients.mean_weight(table, patients.rows_of(table, job.subject, job.days))
            np.testing.assert_allclose(
                batch["target"][:, column] * 1.5 + mean, table.weight_kg[rows], rtol=1e-6
            )
    assert seen == set(range(len(jobs)))


def test_methods_learn_from_the_same_frames(judged):
    frames, config = judged
    jobs = patients.plan(frames.targets, 2, ("all",), 0)
    batch = next(patients.JobBatches(frames, jobs, config, 1.0, 0, 0, 1))
    for name in ("index", "draw", "target"):
        np.testing.assert_array_equal(batch[name][:, 0], batch[name][:, 1])
    assert batch["method"][0].tolist() == [0, 1]
    later = next(patients.JobBatches(frames, jobs, config, 1.0, 1, 0, 1))
    assert (later["draw"] != batch["draw"]).mean() > 0.9


def test_processes_see_the_rows_of_one_in_jobs(judged):
    frames, config = judged
    jobs = patients.plan(frames.targets, 1, ("all",), 0)
    make = lambda index, count: patients.JobBatches(frames, jobs, config, 1.0, 0, index, count)
    whole, parts = make(0, 1), [make(0, 2), make(1, 2)]
    for _ in range(config.num_steps):
        one, two = next(whole), [next(part) for part in parts]
        assert one.keys() == two[0].keys()
        for name, value in one.items():
            if name == "example" and "label" not in one:
                continue
            np.testing.assert_array_equal(value, np.concatenate([part[name] for part in two]))


def test_answers_become_kilograms(judged):
    frames, config = judged
    jobs = patients.plan(frames.targets, 1, ("all",), 0)
    given = np.full([len(jobs), patients.answers(config), 2], np.nan)
    assert patients.told(frames.table, jobs, given, 2.0, 0, "all") is None
    job, rows = jobs[1], patients.rows_of(frames.table, jobs[1].subject, (jobs[1].test,))
    given[1, : len(rows), 0] = 3.0
    given[1, : len(rows), 1] = -0.5
    found = patients.told(frames.table, jobs, given, 2.0, 0, "all")
    np.testing.assert_array_equal(found.rows, rows)
    mean = patients.mean_weight(frames.table, patients.rows_of(frames.table, job.subject, job.days))
    np.testing.assert_allclose(found.kg, mean - 1.0)
    assert (found.logit == 3).all() and (found.scale > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 12}, "depth=12: use one of 10, 18"),
        ({"folds": 1}, "folds=1: use 2 or more"),
        ({"fold": 3}, "fold=3: use 0 to 2"),
        ({"width": 0}, "width=0"),
        ({"precision": "half"}, "precision='half'"),
    ],
)
def test_settings_that_cannot_be_used(change, message):
    with pytest.raises(UserError, match=message):
        patients.check(dataclasses.replace(edema_pretrain.tiny, **{"folds": 3} | change))


def test_a_rule_is_zero_in_the_middle_of_the_days_learned(judged):
    frames, _ = judged
    jobs = patients.plan(frames.targets, 2, ("1", "all"), 0)
    network = lambda x: np.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0]], 1)
    rule = np.array([[3.0, -1.0], [0.5, 2.0]])
    features = patients.embedded(network, frames.pixels(patients.target_rows(frames)))
    found = patients.constants(frames, jobs, features, rule)
    for job, constant in zip(jobs, found):
        rows = patients.rows_of(frames.table, job.subject, job.days)
        told = patients.embedded(network, frames.pixels(rows)) @ rule + constant
        pre = frames.table.session[rows] == "pre"
        middle = (told[pre].mean(0) + told[~pre].mean(0)) / 2
        assert (constant == 0).all() if job.method else np.abs(middle).max() < 1e-6
