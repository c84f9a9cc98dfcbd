"""The phantom of edema, built very small."""

import concurrent.futures
import dataclasses
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxface.data import phantom, phantom_edema
from jaxface.data.base import split_of
from jaxface.errors import UserError
from jaxface.phantom import fluid
from jaxface.system import RunConfig

SIDE, FRAMES, PEOPLE = 32, 2, 9  # E0009 is the first who is held out


def build(folder, monkeypatch):
    """Nine patients with at most two days each."""
    tfds.disable_progress_bar()
    monkeypatch.setattr(phantom_edema, "_days", lambda seed, patients: [1, 2] * 19 + [1])
    builder = tfds.builder(
        "phantom_edema",
        data_dir=folder,
        config=phantom_edema.config_for(PEOPLE, SIDE, FRAMES),
        file_format="array_record",
    )
    builder.download_and_prepare()
    return builder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return build(tmp_path_factory.mktemp("edema"), patch)


@pytest.fixture(scope="module")
def found(built):
    return {split: list(part) for split, part in built.as_data_source().items()}


def test_patients_days_videos_and_frames(found):
    assert set(found) == {"train", "heldout"}
    for split, part in found.items():
        assert all(split_of(record["subject"].decode()) == split for record in part)
    records = found["train"] + found["heldout"]
    expected = {
        f"E{n:04d}/{day:02d}/{session}/{frame:03d}"
        for n in range(1, PEOPLE + 1)
        for day in range(1, 2 - n % 2 + 1)
        for session in ("pre", "post")
        for frame in range(FRAMES)
    }
    assert {record["id"].decode() for record in records} == expected
    assert len(records) == len(expected)
    for record in records:
        parts = [record[name].decode() for name in ("subject", "day", "session")]
        assert record["video"].decode() == "/".join(parts)
        assert record["image"].shape == (SIDE, SIDE, 3) and record["image"].dtype == np.uint8
        assert record["image"].std() > 10
    assert len({record["image"].tobytes() for record in records}) == len(records)


def test_truth_belongs_to_the_frames(found):
    """Frames are made of the session that gave fluid and weight."""
    patients = {patient.name: patient.truth for patient in phantom_edema.patients(0)}
    for record in found["heldout"]:
        day = int(record["day"]) - 1
        both = fluid.draw_days(patients[record["subject"].decode()], day + 1)[day]
        session = both[record["session"] == b"post"]
        assert record["fluid_kg"] == np.float32(session.fluid_kg)
        assert record["weight_kg"] == np.float32(session.weight_kg)
        frame = int(record["id"][-3:])
        time, image = list(fluid.film(session, FRAMES, SIDE))[frame]
        assert record["time"] == np.float32(time)
        np.testing.assert_array_equal(record["image"], image)


def test_files_do_not_depend_on_the_threads(built, tmp_path, monkeypatch):
    pool = lambda workers: concurrent.futures.ThreadPoolExecutor(1)
    futures = types.SimpleNamespace(ThreadPoolExecutor=pool)
    monkeypatch.setattr(phantom, "concurrent", types.SimpleNamespace(futures=futures))
    again = build(tmp_path, monkeypatch)
    contents = lambda b: {p.name: p.read_bytes() for p in b.data_path.glob("*.array_record*")}
    one, two = contents(built), contents(again)
    assert len(one) == 2 and one == two


def test_as_many_as_in_the_paper():
    patients = phantom_edema.patients(0)
    assert [patient.name for patient in patients] == [f"E{n:04d}" for n in range(1, 40)]
    assert sum(patient.truth.subject.sex > 0.5 for patient in patients) == 25
    days = [patient.days for patient in patients]
    assert sum(days) == 196 and min(days) == 1 and max(days) == 10
    assert len({patient.truth.subject.seed for patient in patients}) == 39
    # Leaving days out needs patients of three days or more among those held out.
    kept = [p.days for p in patients if split_of(p.name) == "heldout"]
    assert sum(number >= 3 for number in kept) >= 5


def test_other_seeds_draw_other_patients():
    seeds = [p.truth.subject.seed for seed in range(3) for p in phantom_edema.patients(seed)]
    assert len(set(seeds)) == 3 * 39
    assert all(sum(p.days for p in phantom_edema.patients(seed)) == 196 for seed in range(3))


@dataclasses.dataclass
class Run(RunConfig):
    num_subjects: int = 0
    side: int = phantom_edema.SIDE
    frames: int = phantom_edema.FRAMES


def settle(**settings):
    return phantom_edema.PhantomEdema.settle(dataclasses.replace(Run(), **settings))


def test_settings_make_the_name():
    assert settle() == phantom_edema.config_for()
    names = [
        settle(num_subjects=n, side=s, frames=f).name
        for n in (0, 2, 39)
        for s in (64, 96)
        for f in (12, 100)
    ]
    assert len(set(names)) == 12
    assert phantom_edema.config_for(seed=1).name != phantom_edema.config_for().name


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"num_subjects": 40}, "config.num_subjects=40: phantom_edema has 1 to 39"),
        ({"num_subjects": -1}, "config.num_subjects=-1"),
        ({"side": 31}, "config.side=31: .* 32 px or more"),
        ({"frames": 0}, "config.frames=0: .* 1 to 1000"),
        ({"frames": 1001}, "config.frames=1001"),
    ],
)
def test_settings_that_cannot_be_built_are_named(settings, words):
    with pytest.raises(UserError, match=words):
        settle(**settings)


def test_a_seed_is_not_negative(tmp_path):
    config = phantom_edema.config_for(1, SIDE, 1, seed=-1)
    builder = tfds.builder(
        "phantom_edema", data_dir=tmp_path, config=config, file_format="array_record"
    )
    with pytest.raises(UserError, match="config.seed=-1"):
        builder.download_and_prepare()
