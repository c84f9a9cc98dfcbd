"""Who is learned from and who is judged on, what a batch holds, and what a backbone's layers are called."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from volunteers import Volunteers

from jaxface import backbones, headshots
from jaxface.errors import UserError
from jaxface.system import Result
from jaxface.systems import classify

CONFIG = classify.Config(
    side=32,
    batch=8,
    folds=3,
    validation=0.3,
    head_steps=3,
    steps=2,
    together=2,
    backbone="expression",
)


def volunteers(change=None, **how):
    return Volunteers(dataclasses.replace(CONFIG, **(change or {})), **how)


def people(photos, rows):
    return set(photos.table.subject[rows])


@pytest.mark.parametrize("protocol", ["person_folds", "leave_one_out", "fixed"])
def test_no_person_is_in_two_parts_and_everybody_is_judged_once(protocol):
    photos = volunteers({"protocol": protocol}, people=20)
    jobs = [job for job in photos.plan if job.protocol == protocol and not job.shuffled]
    tested = []
    for job in jobs:
        learn, validation, test = photos.split(job)
        parts = [people(photos, rows) for rows in (learn, validation, test)]
        assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
        assert len(np.unique(photos.table.label[learn])) == 2
        assert len(validation) and (len(test) or job.fold == -1)
        tested += test.tolist()
    assert len(tested) == len(set(tested))
    if protocol != "fixed":
        assert sorted(tested) == list(range(len(photos.table.id)))
    assert [job.fold for job in jobs][-1] == -1  # learns from everybody, to be used


def test_labels_are_dealt_in_proportion():
    photos = volunteers(people=12)
    for fold in photos.folds("person_folds"):
        assert photos.table.label[fold.test].mean() == 0.5


def test_published_protocol_depends_on_what_a_label_is_of():
    sex, smile = volunteers(level="sex"), volunteers(level="smile")
    assert headshots.resolved(sex.table, "published") == "leave_one_out"
    assert headshots.resolved(smile.table, "published") == "image_folds"
    assert headshots.resolved(smile.table, "person_folds") == "person_folds"


def test_published_folds_of_photographs():
    """Clear ones, the first negatives, balanced, 10 folds of equal size; some are never tested."""
    table = volunteers(people=30, each=3, level="smile").table
    favor = np.where(table.label == 1, 15, 0)
    favor[np.flatnonzero(table.label == 1)[:4]] = 13  # 13 / 17 is not above 0.8
    favor[np.flatnonzero(table.label == 0)[:2]] = 1
    table = table._replace(favor=favor, against=17 - favor)
    folds = headshots.folds_of(table, "image_folds", 5, 0)
    one = np.flatnonzero(favor > 13)
    zero = np.flatnonzero(favor == 0)[: len(one)]
    assert len(folds) == 10 and len(one) == 41
    tested = np.concatenate([fold.test for fold in folds])
    assert len(tested) == len(set(tested)) == 80  # 4 + 4 a fold, 1 + 1 never
    for rest, test in folds:
        assert not set(rest) & set(test)
        assert set(rest) | set(test) == set(one) | set(zero)
        assert table.label[test].mean() == 0.5
    assert any(set(table.subject[rest]) & set(table.subject[test]) for rest, test in folds)


def test_a_leaking_protocol_says_so(capsys):
    photos = volunteers({"task": "smile"}, level="smile", undecided=3)
    assert {job.protocol for job in photos.plan} == {"person_folds", "image_folds"}
    told = capsys.readouterr().out
    assert "one person is in training and test at once" in told.replace("\n", " ")
    assert "3 photographs without a decided label (smile) are left out" in told
    used = {row for job in photos.plan for rows in photos.split(job) for row in rows.tolist()}
    assert used == set(range(3, len(photos.table.id)))


def test_a_person_in_two_parts_is_an_error():
    photos = volunteers()
    with pytest.raises(
        UserError, match="1 people would be learned from and judged on at once.*V00"
    ):
        headshots.apart(photos.table, headshots.Split(np.arange(2), np.arange(3, 6), np.array([2])))


def test_control_moves_labels_between_people_or_photographs():
    sex, smile = volunteers(people=20), volunteers(people=20, level="smile", undecided=2)
    for photos in (sex, smile):
        table = photos.table
        label = headshots.dealt_anew(table, 0)
        assert (label >= 0).sum() == (table.label >= 0).sum()
        assert 0.2 < np.mean(label != table.label) < 0.8
        decided = table.label >= 0
        assert (label[~decided] == -1).all() and sorted(label) == sorted(table.label)
    table = sex.table
    label = headshots.dealt_anew(table, 0)
    assert all(len(set(label[table.subject == one])) == 1 for one in np.unique(table.subject))


def chosen(table, rows, people, each):
    return set(headshots.subset(table, rows, people, each, [0, 1, 2]).tolist())


def test_subsets_are_nested_and_labels_take_turns():
    for level in ("sex", "smile"):
        photos = volunteers(people=16, each=4, level=level)
        table, rows = photos.table, np.arange(8, 64)
        make = functools.partial(chosen, table, rows)
        for n, k in (("3", "2"), ("8", "1"), ("4", "all")):
            few = make(n, k)
            assert len({table.subject[i] for i in few}) == int(n)
            assert len(few) == int(n) * (4 if k == "all" else int(k))
            assert few <= make("10", "all") and few <= make(n, "3" if k != "all" else "all")
        first = table.label[sorted(make("2", "1"))]
        assert set(first) == {0, 1}
        assert make("all", "all") == set(rows.tolist())
        assert make("5", "1") != set(headshots.subset(table, rows, "5", "1", [0, 1, 3]).tolist())


def test_a_study_has_every_budget_and_networks_in_few_folds():
    change = {"budgets": "2,4,99,all", "photographs": "1,3", "seeds": 2, "network_folds": 1}
    photos = volunteers(change | {"methods": "transfer,scratch"})
    jobs = photos.plan
    heads = [job for job in jobs if job.kind == "head"]
    assert (
        len(heads) == 3 * 3 * 2 * 2
    )  # folds, budgets that there are people for, photographs, seeds
    whole = [job for job in jobs if job.kind == "scratch"]
    assert [(job.fold, job.people, job.photographs, job.seed) for job in whole] == [
        (0, people, "3", 0) for people in ("2", "4", "all")
    ]
    assert jobs == heads + whole and not any(job.validates for job in jobs)


def test_groups_follow_each_other():
    jobs = [headshots.Job("transfer", "fixed", n) for n in range(3)]
    jobs += [headshots.Job("scratch", "fixed", n) for n in range(2)]
    groups = headshots.groups_of(jobs, {"head": 5, "scratch": 7}, {"head": 2, "scratch": 1})
    assert [(g.kind, g.jobs, g.first, g.steps) for g in groups] == [
        ("head", (0, 1), 0, 6),
        ("head", (2, 2), 6, 6),
        ("scratch", (3,), 12, 8),
        ("scratch", (4,), 20, 8),
    ]


def batches_of(photos, start=0, index=0, count=1):
    steps = {"head": 3, "scratch": 2, "finetune": 2}
    groups = headshots.groups_of(photos.plan, steps, {"head": 2, "scratch": 1, "finetune": 1})
    return groups, headshots.JobBatches(photos, groups, start, index, count)


@pytest.fixture(scope="module")
def photos():
    return volunteers({"methods": "transfer_augmented,transfer,scratch", "beside": "shuffled"})


def test_batches_hold_what_a_job_may_see(photos):
    groups, source = batches_of(photos)
    number, answered = len(photos.table.id), set()
    for group in groups:
        learned = {n: [] for n in group.jobs}
        for local in range(group.steps):
            batch = next(source)
            assert group.kind in batch and ("target" in batch) == (local < group.steps - 1)
            for column, n in enumerate(group.jobs):
                job, index = photos.plan[n], batch["index"][:, column]
                assert (batch["job"][:, column] == n).all()
                learn, validation, test = photos.split(job)
                if local == group.steps - 1:
                    own = np.concatenate([validation, test])
                    np.testing.assert_array_equal(index[: len(own)], own)
                    answered.add(n)
                    continue
                copy, row = np.divmod(index, number)
                assert set(row) <= set(learn)
                expected = {"transfer_augmented": range(1, 11)}.get(job.method, [0])
                assert set(copy) <= set(expected)
                np.testing.assert_array_equal(batch["target"][:, column], photos.labels(job)[row])
                learned[n] += row.tolist()
        for n, rows in learned.items():
            learn = photos.split(photos.plan[n]).learn
            whole = len(rows) // len(learn) * len(learn)
            assert sorted(rows[:whole]) == sorted(learn.tolist() * (whole // len(learn)))
    assert answered == set(range(len(photos.plan)))


def test_methods_learn_from_the_same_photographs(photos):
    groups, _ = batches_of(photos)
    seen = {}
    for group in groups:
        batch = next(batches_of(photos, group.first)[1])
        for column, n in enumerate(group.jobs):
            rows = batch["index"][:, column] % len(photos.table.id)
            seen.setdefault(photos.plan[n].name, []).append((rows, batch["seed"][0, column]))
    several = [found for found in seen.values() if len(found) > 1]
    assert len(several) == 3
    for (rows, seed), *others in several:
        for other, same in others:
            np.testing.assert_array_equal(rows, other)
            assert seed == same


def test_processes_see_the_rows_of_one(photos):
    groups, whole = batches_of(photos)
    parts = [batches_of(photos, 0, index, 2)[1] for index in (0, 1)]
    for _ in range(groups[-1].first + groups[-1].steps):
        one, two = next(whole), [next(part) for part in parts]
        assert one.keys() == two[0].keys()
        for name, value in one.items():
            np.testing.assert_array_equal(value, np.concatenate([part[name] for part in two]))


def test_targets_and_weights():
    change = {"soft_targets": True, "label_smoothing": 0.1, "methods": "transfer"}
    photos = volunteers(change, people=9)
    batch = next(batches_of(photos)[1])
    for column, n in enumerate((0, 1)):
        row = batch["index"][:, column]
        label, favor = photos.table.label[row], photos.table.favor[row]
        expected = 0.9 * favor / 17 + 0.05
        np.testing.assert_allclose(batch["target"][:, column], expected, rtol=1e-6)
        learn = photos.table.label[photos.split(photos.plan[n]).learn]
        weight = 0.5 / np.array([np.mean(learn == 0), np.mean(learn == 1)])
        np.testing.assert_allclose(batch["weight"][:, column], weight[label], rtol=1e-6)


def test_features_do_not_depend_on_who_else_is_there():
    photos = volunteers(people=6)
    network = backbones.load(photos.config, None)
    whole = headshots.features_of(photos, network, 1)
    np.testing.assert_array_equal(whole, headshots.features_of(photos, network, 1))
    keep = photos.table.subject != "V03"
    photos.table = headshots.Table(*(column[keep] for column in photos.table))
    photos.images = photos.images[keep]
    fewer = headshots.features_of(photos, network, 1)
    np.testing.assert_allclose(fewer, whole[np.tile(keep, 2)], rtol=1e-5, atol=1e-5)
    assert np.abs(whole[:18] - whole[18:]).max() > 1e-3  # copies differ


def test_layers_in_the_order_of_their_calls():
    network = backbones.residual(10, 4, jax.random.key(0))
    assert network.order[0] == "conv1" and network.order[-1] == network.last == "layer4_0"
    params = {"body": network.variables["params"], "head": {"Dense_0": {"kernel": 0}}}
    config = dataclasses.replace(CONFIG, freeze="layer4_0")
    free = classify.free(config, network, params)
    assert free["head"]["Dense_0"]["kernel"] and free["body"]["bn1"]["scale"]
    assert not free["body"]["conv1"]["kernel"] and not free["body"]["layer3_0"]["conv1"]["kernel"]
    assert free["body"]["layer3_0"]["downsample_norm"]["bias"]
    assert all(jax.tree.leaves(free["body"]["layer4_0"]))
    with pytest.raises(UserError, match="'layer5_0' is no layer of resnet10. Did you mean"):
        classify.free(dataclasses.replace(CONFIG, freeze="layer5_0"), network, params)
    folded = backbones.load(CONFIG, None)
    body = {"body": folded.variables["params"], "head": {}}
    free = classify.free(dataclasses.replace(CONFIG, freeze="dense3"), folded, body)["body"]
    assert free["dense0"]["conv0"]["bias"] and not free["dense0"]["conv0"]["kernel"]


def answered(photos, wrong=()):
    """Logits [jobs, answers] of models that are right of everybody but some people."""
    given = np.full([len(photos.plan), headshots.answers(photos)], np.nan)
    for number, job in enumerate(photos.plan):
        _, validation, test = photos.split(job)
        rows = np.concatenate([validation, test])
        side = np.where(np.isin(photos.table.subject[rows], wrong), -1, 1)
        given[number, : len(rows)] = 3 * side * (2 * photos.labels(job)[rows] - 1)
        given[number, : len(validation)] = 3 * (2 * photos.labels(job)[validation] - 1)
    return given


def test_judgement_counts_what_was_told():
    change = {"methods": "transfer,scratch", "task": "smile", "selection": "clear"}
    photos = volunteers(change, people=24, each=4, level="smile", undecided=2)
    favor = photos.table.favor.copy()
    favor[10] = 12  # decided, not clear
    photos.table = photos.table._replace(favor=favor, against=17 - favor)
    given = answered(photos, wrong=("V05", "V07"))
    for number, job in enumerate(photos.plan):
        if job.method == "scratch":
            given[number] *= -1
    results = headshots.judge(photos, given)
    table, clear = photos.table, headshots.clear(photos.table)
    right = ~np.isin(table.subject, ("V05", "V07"))
    assert results["accuracy"].value == pytest.approx(right[clear].mean())
    assert results["accuracy"].n == 24 and "clear votes alone" in results["accuracy"].protocol
    assert results["accuracy_all_decided"].value == pytest.approx(right[table.label >= 0].mean())
    assert results["accuracy_scratch"].value == pytest.approx(1 - right[clear].mean())
    gain = results["accuracy"].value - results["accuracy_scratch"].value
    assert results["accuracy_gain_scratch"].value == pytest.approx(gain)
    tested = np.concatenate([fold.test for fold in photos.folds("image_folds")])
    published = results["accuracy_published_protocol"]
    assert published.value == pytest.approx(right[tested].mean())
    assert "one person is learned from and judged on at once" in published.protocol
    assert results["accuracy_shuffled_labels"].value > 0.8  # as these answers are, of any label
    assert results["accuracy_baseline_majority"].value < 0.6
    assert results["accuracy_baseline_pixels"].value > 0.9  # the upper half is brighter
    assert results["sensitivity_at_validation"].value > 0.8
    assert results["temperature"].value < 1  # validation was told right: sharper is likelier
    assert results["told_wrong"].images.shape == (8, 32, 32, 3)
    assert "accuracy_skin_light" in results


def test_models_that_are_not_finished_are_not_judged():
    photos = volunteers({"beside": ""})
    given = answered(photos)
    assert headshots.judge(photos, np.full_like(given, np.nan)) == {}
    given[1:] = np.nan
    assert headshots.judge(photos, given)["accuracy"].n == len(
        people(photos, photos.folds("person_folds")[0].test)
    )


def test_a_study_fits_its_curve():
    change = {
        "budgets": "4,8,16,all",
        "photographs": "1,3",
        "seeds": 2,
        "methods": "transfer,scratch",
    }
    photos = volunteers(change, people=48)
    rng, given = np.random.default_rng(0), answered(photos)
    for number, job in enumerate(photos.plan):
        n = len(people(photos, photos.split(job).learn))
        given[number] *= np.where(rng.uniform(size=given.shape[1]) < 0.05 + 0.8 / n, -1, 1)
    runs = headshots.runs_of(photos, given, "transfer", "3")
    assert runs.people.tolist() == [4, 4, 8, 8, 16, 16, 32, 32]
    assert (runs.photographs.sum(1) == 48 * 3).all()  # the folds of a seed are one run
    results = headshots.study(photos, given)
    assert results["error_4_people"].value == pytest.approx(0.25, abs=0.08)
    assert results["error_32_people"].value == pytest.approx(0.075, abs=0.04)
    assert {"fit_a", "fit_b", "people_needed", "fit_a_scratch", "fit_c_1_photographs"} <= set(
        results
    )
    assert results["error_by_people"].images.shape[0] == 1
    assert "Whole networks were trained for" in results["error_by_people"].caption
    for result in results.values():
        if isinstance(result, Result):
            assert (result.low is None) == (result.high is None)


def test_whose_photographs_a_state_depends_on():
    photos = volunteers({"beside": "", "methods": "transfer"}, undecided=3)  # all of V00
    groups, _ = batches_of(photos)
    at = headshots.consumed(photos, groups)
    assert at(0) == frozenset()
    first = at(1)
    jobs = [photos.plan[n] for n in groups[0].jobs]
    rows = {int(i) for job in jobs for rows in photos.split(job) for i in rows}
    assert {pair for pair in first if pair[1]} == {photos.who(i) for i in rows}
    assert at(1) <= at(groups[0].steps) <= at(groups[-1].first + 1)
    assert at(groups[0].steps) == first and "V00" not in {name for name, _ in at(99)}
    assert {name for name, _ in first} == set(photos.table.subject) - {"V00"}


def test_a_photograph_is_answered_or_not():
    rng = np.random.default_rng(0)
    known = headshots.Known(rng.normal(size=(40, 3)), np.repeat(np.arange(20), 2), 0.5, 0.9)
    read = lambda x: headshots.read_photograph(
        "smile", np.zeros([8, 8, 3], np.uint8), x, 0.4, known
    )
    told = read(np.zeros(3)).numbers
    assert told["probability_of_smile"] == pytest.approx(1 / (1 + np.exp(-0.8)), abs=1e-4)
    assert told["answer"] == "smile" and told["answer_at_operating_point"] == "no smile"
    far = read(np.full(3, 50.0))
    assert far.numbers["answer"] == "withheld" and "unlike all those" in far.warnings[0]


def records(labels, subjects=None):
    count = len(labels)
    subjects = subjects or [f"V{n}" for n in range(count)]
    return [
        {"id": f"{s}/{n}".encode(), "subject": s.encode(), "photo": np.int32(n + 1),
         "labels": json.dumps(told).encode(), "ita": np.float32(10), "image": b""}
        for n, (s, told) in enumerate(zip(subjects, labels))
    ]  # fmt: skip


def table_of(labels, **change):
    photos = headshots.Photos(dataclasses.replace(CONFIG, **change))
    photos.__dict__["_source"] = records(labels)[::-1]
    return photos.table


def test_table_of_records():
    votes = {"sex": {"votes": [4, 13], "label": 1, "truth": 0}}
    table = table_of([votes, {"sex": {"votes": None, "label": 0, "truth": -1}}, {"smile": {}}])
    assert table.subject.tolist() == ["V0", "V1", "V2"]  # sorted, whatever the order of records
    assert table.label.tolist() == [1, 0, -1] and table.truth.tolist() == [0, -1, -1]
    assert table.favor.tolist() == [13, -1, -1] and table.record.tolist() == [2, 1, 0]


def test_tasks_that_cannot_be_learned():
    one = [{"sex": {"votes": None, "label": 1, "truth": -1}}] * 3
    with pytest.raises(UserError, match="task='smle'.*Did you mean 'smile'"):
        table_of([{"smile": {"votes": None, "label": 1, "truth": -1}}], task="smle")
    with pytest.raises(UserError, match="every photograph is labelled 1"):
        table_of(one)
    none = [{"sex": {"votes": [1, 1], "label": -1, "truth": -1}}] * 2
    with pytest.raises(UserError, match="has no decided label"):
        table_of(none)


def test_few_people_are_validated_by_a_larger_part():
    """Seven parts of six photographs a label are not to be had."""
    photos = volunteers({"folds": 2, "validation": 0.15}, people=24, each=1)
    learn, validation, test = photos.split(photos.plan[0])
    assert len(test) == 12 and len(validation) >= 2 and len(learn) + len(validation) == 12


def test_too_few_people():
    with pytest.raises(UserError, match="config.folds=3, but 2 people have a decided label"):
        print(volunteers(people=2).plan)
    photos = volunteers(people=3)
    with pytest.raises(UserError, match="all that is learned from has one label"):
        for job in photos.plan:
            photos.split(job)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "folds"}, "protocol='folds': use one of 'person_folds'"),
        ({"methods": "transfr"}, "methods names 'transfr'. Did you mean 'transfer'"),
        ({"methods": ""}, "methods is empty"),
        ({"beside": "chance"}, "beside names 'chance'"),
        ({"folds": 1}, "folds=1: use 2 or more"),
        ({"budgets": "8,some"}, "numbers and the word all"),
        ({"budgets": "8"}, "add all"),
        ({"validation": 0.7}, "validation=0.7: a share from 0 to 0.5"),
        ({"head": "dense"}, "no such head"),
        ({"backbone": "mobilenet"}, "'mobilenet' is no network. Did you mean 'mobilenet_v2'"),
        ({"backbone": "inception_v3"}, "needs its weights"),
        ({"ema": 1.0}, "ema=1.0"),
        ({"head_steps": 0}, "head_steps=0"),
    ],
)
def test_settings_that_cannot_be_used(change, message):
    with pytest.raises(UserError, match=message):
        classify.build(dataclasses.replace(CONFIG, **change))
