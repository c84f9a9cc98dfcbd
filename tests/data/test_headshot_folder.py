"""A user's folder of headshots: labels, votes, who is who, and what becomes of the photographs."""

import csv
import dataclasses
import io
import json
import types

import drawn
import numpy as np
import pytest
import synthetic_faces
import tensorflow_datasets as tfds
from PIL import Image

from jaxface.data import base, headshot_folder, phantom_headshots
from jaxface.data.images import read_image
from jaxface.errors import UserError
from jaxface.faces import prepare
from jaxface.faces.portrait import portrait
from jaxface.system import RunConfig

SIDE = 64


@pytest.fixture(scope="module")
def faces():
    """Two photographs of each of three people."""
    return [
        [
            phantom_headshots.picture(one.taken, 96)
            for one in phantom_headshots.headshots(subject)[:2]
        ]
        for _, subject in phantom_headshots.people()[:3]
    ]


@pytest.fixture
def folder(tmp_path, faces):
    path = tmp_path / "photographs"
    path.mkdir()
    for person, pictures in zip("ABC", faces):
        for number, picture in enumerate(pictures, 1):
            Image.fromarray(picture).save(path / f"{person}{number}.png")
    return path


@pytest.fixture
def unprepared(monkeypatch):
    """Photographs count as prepared as they are: no network looks for a face."""

    def as_it_is(image, size):
        if image.std() < 1:
            raise prepare.NoFaceError("no face found")
        return types.SimpleNamespace(image=np.asarray(Image.fromarray(image).resize((size, size))))

    stub = types.SimpleNamespace(prepare=as_it_is, VERSION=prepare.VERSION)
    monkeypatch.setattr(headshot_folder, "prepare", stub)
    monkeypatch.setattr(headshot_folder, "portrait", lambda image: types.SimpleNamespace(ita=12.5))


FILES = ["A1.png", "A2.png", "B1.png", "B2.png", "C1.png", "C2.png"]


def write(folder, heading, rows, name="manifest.csv"):
    (folder / name).write_text("\n".join([heading, *rows]) + "\n")


def manifest(folder, columns="", values=("",) * 6, subjects="AABBCC"):
    rows = [f"{f},{s},yes{v and ','}{v}" for f, s, v in zip(FILES, subjects, values)]
    write(folder, "file,subject,consent" + (columns and "," + columns), rows)


def build(folder, where, **settings):
    tfds.disable_progress_bar()
    config = headshot_folder.config_for(folder, side=SIDE, **settings)
    builder = tfds.builder(
        "headshot_folder", data_dir=where, config=config, file_format="array_record"
    )
    builder.download_and_prepare()
    skip = {"image": tfds.decode.SkipDecoding()}
    parts = builder.as_data_source(decoders=skip).values()
    return builder, {r["id"].decode(): r for part in parts for r in part}


def told(record):
    return {task: one["label"] for task, one in json.loads(record["labels"]).items()}


def test_faces_are_found_and_written_anew(folder, tmp_path):
    Image.fromarray(drawn.face(96)).save(folder / "D1.png")
    write(folder, "file,subject,consent,sex", ["A1.png,A,yes,1", "D1.png,D,yes,male"])
    for name in FILES[1:]:
        (folder / name).unlink()
    _, found = build(folder, tmp_path)
    assert found.keys() == {"A1.png", "D1.png"}
    for name, record in found.items():
        image = read_image(folder / name)
        expected = prepare.prepare(image, SIDE).image
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(record["image"]))), expected)
        assert record["ita"] == np.float32(portrait(image).ita)
    assert told(found["A1.png"]) == {"sex": 1} and told(found["D1.png"]) == {"sex": 0}


def test_labels_of_columns(folder, tmp_path, unprepared):
    values = [
        "female,1,5,,x",
        "F,0,1,1,y",
        "0,no,2,0,1",
        ",yes,1,0,z",
        "male,,3,1,w",
        ",smile,1,,v",
    ]
    manifest(folder, "sex,smile,photo,glasses,notes", values)
    builder, found = build(folder, tmp_path)
    assert [told(found[name]) for name in FILES] == [
        {"sex": 1, "smile": 1, "glasses": -1},
        {"sex": 1, "smile": 0, "glasses": 1},
        {"sex": 0, "smile": 0, "glasses": 0},
        {"sex": -1, "smile": 1, "glasses": 0},
        {"sex": 0, "smile": -1, "glasses": 1},
        {"sex": -1, "smile": 1, "glasses": -1},
    ]
    assert [found[name]["photo"] for name in FILES] == [5, 1, 2, 1, 3, 1]
    assert all(record["ita"] == 12.5 for record in found.values())
    assert all(found[n]["subject"].decode() == n[0] for n in FILES)
    assert not (builder.data_path / "prepared").exists()


def test_photographs_count_in_the_order_of_files(folder, tmp_path, unprepared):
    manifest(folder, "smile", "100101")
    _, found = build(folder, tmp_path, channels=1)
    assert [found[name]["photo"] for name in FILES] == [1, 2, 1, 2, 1, 2]
    gray = Image.open(io.BytesIO(found["B2.png"]["image"]))
    color = Image.fromarray(read_image(folder / "B2.png")).resize((SIDE, SIDE))
    np.testing.assert_array_equal(np.asarray(gray), np.asarray(color.convert("L")))


def test_votes_beside_the_manifest(folder, tmp_path, unprepared):
    manifest(folder, "glasses", "101010")
    rows = ["A1.png,,smile,14,3", "A2.png,,smile,2,2", "B1.png,,smile,0,17"]
    write(folder, "file,subject,task,for,against", rows, "smiles.csv")
    _, found = build(folder, tmp_path / "1", votes_=folder / "smiles.csv")
    smile = {name: json.loads(found[name]["labels"]).get("smile") for name in FILES}
    assert smile["A1.png"] == {"votes": [3, 14], "label": 1, "truth": -1}
    assert smile["A2.png"]["label"] == -1 and smile["B1.png"]["label"] == 0
    assert smile["C1.png"] is None and told(found["C1.png"]) == {"glasses": 1}
    write(folder, "subject,rater,vote", ["A,r1,female", "A,r2,female", "B,r1,male"], "sexes.csv")
    _, found = build(folder, tmp_path / "2", votes_=folder / "sexes.csv", task="sex")
    assert told(found["A2.png"])["sex"] == 1 and told(found["B1.png"])["sex"] == 0
    assert json.loads(found["A1.png"]["labels"])["sex"]["votes"] == [0, 2]


def test_what_cannot_be_used_is_listed(folder, tmp_path, unprepared):
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "D.png")
    (folder / "E.png").write_bytes(b"no picture")
    (folder / "A3.png").write_bytes((folder / "A1.png").read_bytes())
    rows = [f"{name},{name[0]},yes,1" for name in [*FILES[:5], "D.png", "E.png", "A3.png"]]
    write(folder, "file,subject,consent,smile", rows)
    settings = {"max_bad_fraction": 0.2}
    with pytest.raises(UserError, match="no face was found in 1 of 8"):
        build(folder, tmp_path / "1", **settings)
    (folder / "D.png").unlink()
    write(folder, "file,subject,consent,smile", [row for row in rows if not row.startswith("D")])
    with pytest.raises(UserError, match="1 of 7 images cannot be used"):
        build(folder, tmp_path / "2")
    builder, found = build(folder, tmp_path / "3", **settings)
    assert found.keys() == {"A1.png", "A2.png", "B1.png", "B2.png", "C1.png"}
    with open(builder.data_path / "left_out.csv", newline="") as file:
        listed = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert listed.keys() == {"E.png", "A3.png", "C2.png"}
    assert listed["A3.png"] == "the same photograph as A1.png" and "no row" in listed["C2.png"]


def test_one_photograph_of_two_subjects(folder, tmp_path, unprepared):
    image = Image.open(folder / "A2.png")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "B2.png")
    image.resize((60, 60)).save(folder / "C1.png")
    manifest(folder, "smile", "101010")
    with pytest.raises(UserError, match=r"A2.png \(A\) and B2.png \(B\)") as caught:
        build(folder, tmp_path)
    assert "A2.png (A) and C1.png (C)" in str(caught.value)
    assert "give both rows one subject" in str(caught.value)
    manifest(folder, "smile", "101010", subjects="AAAAAA")
    build(folder, tmp_path)


@pytest.mark.parametrize(
    "columns, values, words",
    [
        ("sex", ["1", "1", "woman", "f", "m", "x"], "row 7, sex: 'x' is no answer"),
        ("sex", ["1", "0", "1", "1", "0", "0"], "row 3, sex: A has another one in row 2"),
        ("glasses", ["1", "0", "perhaps", "1", "0", "0"], "row 4, glasses: 'perhaps' is no answer"),
        (
            "smile,photo",
            ["1,1", "1,1", "0,1", "0,2", "0,1", "1,2"],
            "row 3, photo: A has 1 in row 2",
        ),
        (
            "smile,photo",
            ["1,1", "1,0", "0,1", "0,2", "0,1", "1,2"],
            "row 3, photo: '0' is no whole",
        ),
        ("smile,photo", ["1,1", "1,2", "0,1", "0,", "0,1", "1,2"], "row 5, photo: '' is no whole"),
        ("", [""] * 6, "has no labels: add a column named by the task"),
        ("notes", ["a", "b", "1", "d", "e", "f"], "has no labels"),
    ],
)
def test_manifests_that_cannot_be_read(folder, columns, values, words):
    manifest(folder, columns, values)
    with pytest.raises(UserError, match=words):
        headshot_folder.config_for(folder)


@pytest.mark.parametrize("other", ["a", "A ", "Ａ"])
def test_a_person_written_in_two_ways(folder, other):
    rows = ["A1.png,A,yes,1", f'A2.png,"{other}x",yes,1', "B1.png,Ax,yes,0"]
    write(folder, "file,subject,consent,smile", rows)
    with pytest.raises(UserError, match="row 4, subject: 'Ax' is .* in row 3: write one person"):
        headshot_folder.config_for(folder)


def test_votes_and_columns_that_contradict(folder):
    manifest(folder, "smile", "101010")
    write(folder, "file,rater,vote", ["A1.png,r,yes"], "votes.csv")
    with pytest.raises(UserError, match="has votes on 'smile', and .* a column"):
        headshot_folder.config_for(folder, votes_=folder / "votes.csv", task="smile")
    with pytest.raises(UserError, match="the task '' is no word: say with config.task"):
        headshot_folder.config_for(folder, votes_=folder / "votes.csv")
    write(folder, "file,rater,vote", ["Z1.png,r,yes"], "votes.csv")
    with pytest.raises(UserError, match="'Z1.png' is not in the manifest"):
        headshot_folder.config_for(folder, votes_=folder / "votes.csv", task="glasses")


def test_consent_is_asked_for(folder):
    write(folder, "file,subject,consent,smile", ["A1.png,A,teaching,1"])
    with pytest.raises(UserError, match="row 2, consent: .*does not cover purpose 'research'"):
        headshot_folder.config_for(folder)
    assert headshot_folder.config_for(folder, purpose="teaching").purpose == "teaching"


@dataclasses.dataclass
class Run(RunConfig):
    data_dir: str = ""
    manifest: str = ""
    side: int = 128
    channels: int = 3
    votes: str = ""
    task: str = "smile"
    purpose: str = "research"
    ledger: str = ""
    max_bad_fraction: float = 0.001


def test_the_name_changes_with_all_that_matters(folder):
    manifest(folder, "sex", "111100")
    write(folder, "file,rater,vote", ["A1.png,r,yes"], "votes.csv")

    def settle(**settings):
        run = dataclasses.replace(Run(data_dir=str(folder)), **settings)
        return headshot_folder.HeadshotFolder.settle(run)

    votes = {"votes": str(folder / "votes.csv")}
    variants = [{}, {"side": 96}, {"channels": 1}, {"purpose": "yes"}, votes, votes | {"task": "x"}]
    names = [settle(**variant).name for variant in variants]
    write(folder, "file,rater,vote", ["A1.png,r,no"], "votes.csv")
    names.append(settle(**votes).name)
    assert len(set(names)) == 7 and settle() == settle()
    with pytest.raises(UserError, match="say where they are with --data_dir"):
        settle(data_dir="")
    with pytest.raises(UserError, match="config.side=63"):
        settle(side=63)
    with pytest.raises(UserError, match="config.channels=2"):
        settle(channels=2)


def test_people_are_split_by_name(folder, tmp_path, unprepared):
    names = [f"S{n}" for n in range(40)]
    held = next(name for name in names if base.split_of(name) == "heldout")
    rows = [f"{f},{s},yes,{i % 2}" for i, (f, s) in enumerate(zip(FILES, [held] * 2 + ["B"] * 4))]
    write(folder, "file,subject,consent,smile", rows)
    builder, _ = build(folder, tmp_path)
    assert {s: i.num_examples for s, i in builder.info.splits.items()} == {"train": 4, "heldout": 2}


def test_a_folder_that_a_machine_has_labelled(folder):
    rows = ["A1.png,0.97,0.02", "B1.png,0.03,0.95", "C1.png,0.5,0.4"]
    write(folder, "file,p_male,p_happy", rows, "labels.csv")
    assert synthetic_faces.write_manifest(folder) == 3
    labels = headshot_folder.read_folder(folder).labels
    assert {name: {task: one.label for task, one in of.items()} for name, of in labels.items()} == {
        "A1.png": {"sex": 0, "smile": 0},
        "B1.png": {"sex": 1, "smile": 1},
        "C1.png": {"sex": -1, "smile": -1},
    }
