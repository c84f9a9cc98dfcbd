"""The phantom of headshots, built very small, and what its volunteers and voters are like."""

import concurrent.futures
import dataclasses
import io
import json
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxface.data import base, phantom, phantom_headshots
from jaxface.errors import UserError
from jaxface.phantom import volunteers
from jaxface.system import RunConfig

SIDE, PEOPLE = 32, 3  # V0003 is held out


def build(folder, **settings):
    tfds.disable_progress_bar()
    config = phantom_headshots.config_for(**({"num_subjects": PEOPLE, "side": SIDE} | settings))
    builder = tfds.builder(
        "phantom_headshots", data_dir=folder, config=config, file_format="array_record"
    )
    builder.download_and_prepare()
    return builder


def records(builder):
    skip = {"image": tfds.decode.SkipDecoding()}
    return {split: list(part) for split, part in builder.as_data_source(decoders=skip).items()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("headshots"))


@pytest.fixture(scope="module")
def found(built):
    return records(built)


def pixels(record):
    return np.asarray(Image.open(io.BytesIO(record["image"])))


def test_nine_photographs_of_each_person(found):
    assert set(found) == {"train", "heldout"}
    for split, part in found.items():
        assert all(base.split_of(record["subject"].decode()) == split for record in part)
    everything = found["train"] + found["heldout"]
    names = {record["id"].decode() for record in everything}
    assert names == {f"V{n:04d}/{k}" for n in range(1, PEOPLE + 1) for k in range(1, 10)}
    assert len(everything) == 9 * PEOPLE
    for record in everything:
        assert record["id"].decode() == f"{record['subject'].decode()}/{record['photo']}"
        image = pixels(record)
        assert image.shape == (SIDE, SIDE, 3) and image.std() > 10
    assert len({record["image"] for record in everything}) == len(everything)


def test_truth_belongs_to_the_photographs(found):
    """Pictures are made of the person and the smile that gave truth and votes."""
    known = dict(phantom_headshots.people())
    for record in found["heldout"]:
        subject = known[record["subject"].decode()]
        one = phantom_headshots.headshots(subject)[record["photo"] - 1]
        labels = json.loads(record["labels"])
        assert labels["sex"]["truth"] == int(subject.sex < 0.5)
        assert one.taken.subject.smile == one.taken.smile
        assert labels["smile"]["votes"] == list(one.labels["smile"].votes)
        np.testing.assert_array_equal(pixels(record), phantom_headshots.picture(one.taken, SIDE))
        angle = phantom_headshots.typology_angle(subject)
        assert record["ita"] == np.float32(angle) and -60 < angle < 80
    assert len({record["labels"] for record in found["heldout"]}) > 1


def test_files_do_not_depend_on_the_threads(built, tmp_path, monkeypatch):
    pool = lambda workers: concurrent.futures.ThreadPoolExecutor(1)
    futures = types.SimpleNamespace(ThreadPoolExecutor=pool)
    monkeypatch.setattr(phantom, "concurrent", types.SimpleNamespace(futures=futures))
    again = build(tmp_path)
    contents = lambda b: {p.name: p.read_bytes() for p in b.data_path.glob("*.array_record*")}
    one, two = contents(built), contents(again)
    assert len(one) == 2 and one == two


def test_fewer_people_are_the_first_and_gray_is_of_one_channel(found, tmp_path):
    (part,) = records(build(tmp_path, num_subjects=1, channels=1)).values()
    colors = {record["id"]: record for record in found["train"]}
    for record in part:
        color = colors[record["id"]]
        gray = np.asarray(Image.open(io.BytesIO(color["image"])).convert("L"))
        np.testing.assert_array_equal(pixels(record), gray)
        assert record["labels"] == color["labels"] and record["ita"] == color["ita"]


@pytest.fixture(scope="module")
def study():
    return [
        (subject, phantom_headshots.headshots(subject)) for _, subject in phantom_headshots.people()
    ]


def test_as_many_as_in_the_study(study):
    assert [name for name, _ in phantom_headshots.people()] == [f"V{n:04d}" for n in range(1, 278)]
    assert sum(subject.sex < 0.5 for subject, _ in study) == 147
    assert len({subject.seed for subject, _ in study}) == 277
    for _, shots in study:
        assert [one.photo for one in shots] == list(range(1, 10))
        assert len({one.labels["sex"] for one in shots}) == 1  # a vote on the person
        assert all(sum(one.labels["smile"].votes) == 17 for one in shots)
        assert sum(shots[0].labels["sex"].votes) <= 21


def test_most_faces_are_plain_and_a_few_are_not(study):
    sex = np.array([shots[0].labels["sex"].votes for _, shots in study])
    assert 0 < (sex.sum(1) < 21).mean() < 0.9  # some abstain
    labels = [shots[0].labels["sex"] for _, shots in study]
    assert sum(label.label != label.truth for label in labels) <= 2
    smile = [one.labels["smile"] for _, shots in study for one in shots]
    votes = np.array([label.votes for label in smile])
    truth = np.array([label.truth for label in smile])
    assert 0.01 < ((votes.min(1) >= 4).mean()) < 0.06
    clear = truth >= 0
    assert (np.array([label.label for label in smile]) == truth)[clear].mean() > 0.995
    assert 0.02 < (~clear).mean() < 0.08
    # Both sides of the published selection are to be had from most people.
    assert (votes[:, 1] > 0.8 * 17).sum() > 668 and (votes[:, 1] == 0).sum() > 668
    each = [{one.labels["smile"].label for one in shots} for _, shots in study]
    assert all(kinds == {0, 1} for kinds in each)


def test_photographs_of_a_person_differ_and_people_keep_their_room(study):
    subject, shots = study[0]
    for name in ("exposure", "yaw", "lights", "zoom", "seed"):
        assert len({getattr(one.taken.view, name) for one in shots}) == 9
    assert len({one.taken.view.distance for one in shots}) == 1
    walls = np.log([[one.taken.view.background for one in some] for _, some in study[:40]])
    assert walls.mean(1).std(0).min() > 2 * walls.std(1).mean()  # between people, within one
    assert all(one.taken.subject.seed == subject.seed for one in shots)
    # What a photograph looks like says nothing of what is asked.
    flat = [(s.sex, one) for s, some in study for one in some]
    asked = np.array([[sex, one.taken.smile] for sex, one in flat])
    views = np.array(
        [[v.yaw, v.zoom, v.exposure, *v.shift] for v in (o.taken.view for _, o in flat)]
    )
    assert np.abs(np.corrcoef(asked.T, views.T)[:2, 2:]).max() < 0.15


def test_voters():
    rng = np.random.default_rng(0)
    smile, sex = volunteers.draw_voters("smile"), volunteers.draw_voters("sex")
    assert len(smile.threshold) == 17 and len(sex.threshold) == 21
    many = lambda voters, strength: np.stack(
        [volunteers.vote(voters, strength, rng) for _ in range(400)]
    )
    assert (many(smile, 1.0) == 1).mean() > 0.999 and (many(smile, 0.0) == 0).mean() > 0.99
    middle = many(smile, 0.3)
    assert 0.3 < middle.mean() < 0.7 and (middle >= 0).all()  # nobody abstains
    assert middle.mean(0).std() > 0.1  # each draws the line elsewhere
    torn, plain = many(sex, 0.0), many(sex, 0.9)
    assert (torn == -1).mean() > 5 * (plain == -1).mean()
    assert (plain[plain >= 0] == 1).mean() > 0.98
    other = volunteers.draw_voters("smile", seed=1)
    assert not np.array_equal(other.threshold, smile.threshold)


@dataclasses.dataclass
class Run(RunConfig):
    num_subjects: int = 0
    side: int = phantom_headshots.SIDE
    channels: int = 3


def settle(**settings):
    return phantom_headshots.PhantomHeadshots.settle(dataclasses.replace(Run(), **settings))


def test_settings_make_the_name():
    assert settle() == phantom_headshots.config_for()
    names = [
        settle(num_subjects=n, side=s, channels=c).name
        for n in (0, 2, 277)
        for s in (64, 128)
        for c in (1, 3)
    ]
    assert len(set(names)) == 12
    assert phantom_headshots.config_for(seed=1).name != phantom_headshots.config_for().name


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"num_subjects": 278}, "config.num_subjects=278: phantom_headshots has 1 to 277"),
        ({"num_subjects": -1}, "config.num_subjects=-1"),
        ({"side": 31}, "config.side=31: .* 32 px or more"),
        ({"channels": 2}, r"config.channels=2: use 3 \(color\) or 1"),
    ],
)
def test_settings_that_cannot_be_built_are_named(settings, words):
    with pytest.raises(UserError, match=words):
        settle(**settings)


def test_a_seed_is_not_negative(tmp_path):
    with pytest.raises(UserError, match="config.seed=-1"):
        build(tmp_path, seed=-1)


def test_other_seeds_draw_other_people():
    first = {subject.seed for _, subject in phantom_headshots.people()}
    assert not first & {subject.seed for _, subject in phantom_headshots.people(1)}
