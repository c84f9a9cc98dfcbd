"""The published arrays of headshots, on made ones of their shape."""

import dataclasses
import io
import json

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxface.data import base, foxglovetree
from jaxface.data.consent import Ledger
from jaxface.data.foxglovetree import published_smile_selection
from jaxface.errors import UserError
from jaxface.system import RunConfig

PEOPLE = 6  # FT001 to FT006


def table(people=PEOPLE):
    """int64 [9 people - 1, 5]: the last photograph is missing, as 64 of the published ones are."""
    rows = []
    for volunteer in range(1, people + 1):
        for photo in range(1, 10):
            smile = (0, 5, 17, 0)[(volunteer + photo - 2) % 4]
            rows.append((volunteer, photo, volunteer % 2, 17 - smile, smile))
    return np.array(rows[:-1])


def write(folder, labels=None, images=None):
    labels = table() if labels is None else labels
    if images is None:
        rng = np.random.default_rng(1)
        images = rng.integers(0, 256, (len(labels), 359 * 359), dtype=np.uint8)
    np.save(folder / "headshot_labels.npy", labels)
    np.save(folder / "headshot_data.npy", images)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("published"))


@dataclasses.dataclass
class Run(RunConfig):
    data_dir: str = ""
    side: int = 299
    channels: int = 1
    purpose: str = "research"
    ledger: str = ""


def settle(**settings):
    return foxglovetree.Foxglovetree.settle(dataclasses.replace(Run(), **settings))


def build(where, **settings):
    tfds.disable_progress_bar()
    config = settle(**settings)
    builder = tfds.builder(
        "foxglovetree", data_dir=where, config=config, file_format="array_record"
    )
    builder.download_and_prepare()
    skip = {"image": tfds.decode.SkipDecoding()}
    parts = builder.as_data_source(decoders=skip)
    return builder, {r["id"].decode(): r for part in parts.values() for r in part}


def pixels(record):
    return np.asarray(Image.open(io.BytesIO(record["image"])))


def test_records_are_the_arrays_cropped(folder, tmp_path):
    builder, found = build(tmp_path, data_dir=str(folder))
    images, labels = np.load(folder / "headshot_data.npy"), np.load(folder / "headshot_labels.npy")
    assert len(found) == len(labels) == 53
    for image, (volunteer, photo, female, against, smile) in zip(images, labels.tolist()):
        record = found[f"FT{volunteer:03d}_{photo}"]
        np.testing.assert_array_equal(pixels(record), image.reshape(359, 359)[30:329, 30:329])
        assert record["subject"].decode() == f"FT{volunteer:03d}" and record["photo"] == photo
        assert json.loads(record["labels"]) == {
            "sex": {"votes": None, "label": female, "truth": -1},
            "smile": {"votes": [against, smile], "label": int(smile > 8), "truth": -1},
        }
        assert np.isnan(record["ita"])
    assert "must not be given away" in builder.info.description
    for split, info in builder.info.splits.items():
        subjects = [f"FT{n:03d}" for n in labels[:, 0]]
        assert info.num_examples == sum(base.split_of(one) == split for one in subjects)


def test_smaller_and_in_three_channels(folder, tmp_path):
    _, found = build(tmp_path, data_dir=str(folder), side=64, channels=3)
    image = np.load(folder / "headshot_data.npy")[0].reshape(359, 359)[30:329, 30:329]
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(pixels(found["FT001_1"]), np.stack([small] * 3, -1))


def test_a_ledger_decides(folder, tmp_path):
    ledger = Ledger.open(tmp_path / "ledger", create=True, keys=tmp_path / "keys")
    for n in range(1, 4):
        ledger.give(f"FT{n:03d}", ["research"])
    settings = {"data_dir": str(folder), "ledger": str(tmp_path / "ledger")}
    before = settle(**settings).name
    assert before != settle(data_dir=str(folder)).name
    ledger.withdraw("FT002")
    assert settle(**settings).name != before
    _, found = build(tmp_path / "built", **settings)
    assert {record["subject"] for record in found.values()} == {b"FT001", b"FT003"}
    ledger.withdraw("FT001"), ledger.withdraw("FT003")
    with pytest.raises(UserError, match="covers research for no volunteer"):
        build(tmp_path / "none", **settings)


def test_the_published_selection():
    votes = np.array([[17, 0], [3, 14], [4, 13], [0, 17], [17, 0], [16, 1], [17, 0], [0, 0]])
    smiling, neutral = published_smile_selection(votes)
    assert smiling.tolist() == [1, 3]  # 14 of 17 is more than 0.8, 13 is not
    assert neutral.tolist() == [0, 4]  # the first ones of the file, as many
    smiling, neutral = published_smile_selection(votes[1:5])
    assert smiling.tolist() == [0, 2] and neutral.tolist() == [3]


def test_what_is_not_downloaded_is_said_with_where_it_is(tmp_path):
    for data_dir in ("", str(tmp_path), str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match="headshot_data.tbz2.*168 MiB.*257d6854") as caught:
            settle(data_dir=data_dir)
        assert "forbid" in str(caught.value)


def changed(row, column, value):
    labels = table()
    labels[row, column] = value
    return labels


ROW = np.zeros((53, 359 * 359), np.uint8)


@pytest.mark.parametrize(
    "labels, images, words",
    [
        (table(), ROW[:, 1:], r"headshot_data.npy is uint8 \[53, 128880\]"),
        (table(), ROW.astype(np.float32), "headshot_data.npy is float32"),
        (table(), ROW[0], r"is uint8 \[128881\]"),
        (table()[:, :4], ROW, r"headshot_labels.npy is int64 \[53, 4\], not whole numbers"),
        (table().astype(float), ROW, "headshot_labels.npy is float64"),
        (table()[:-1], ROW, "has 52 rows for the 53 photographs"),
        (changed(7, 0, 278), ROW, "row 7, volunteer: 278 is not from 1 to 277"),
        (changed(7, 1, 0), ROW, "row 7, photograph: 0 is not from 1 to 9"),
        (changed(7, 2, 2), ROW, "row 7, female: 2 is not from 0 to 1"),
        (changed(0, 3, 16), ROW, "row 0, votes: 16 and 0 are not 17 votes"),
        (changed(0, 3, -1), ROW, "row 0, votes: -1"),
        (changed(7, 1, 7), ROW, "row 7, photograph: 7 of volunteer 1 has row 6 already"),
        (changed(7, 2, 0), ROW, "row 7, female: 0, but 1 in row 0 of volunteer 1"),
        (changed(slice(0, 20), 3, 99), ROW, "and 15 more"),
    ],
)
def test_arrays_that_are_none(tmp_path, labels, images, words):
    with pytest.raises(UserError, match=words):
        settle(data_dir=str(write(tmp_path, labels, images)))


def spoil(path, kind):
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "text":
        path.write_bytes(b"not an array")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "archive":
        with path.open("wb") as file:
            np.savez(file, a=np.zeros(3))
    else:
        np.save(path, np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize("kind", ["cut", "text", "empty", "archive", "objects"])
@pytest.mark.parametrize("name", ["headshot_data.npy", "headshot_labels.npy"])
def test_files_that_are_none(tmp_path, name, kind):
    spoil(write(tmp_path) / name, kind)
    with pytest.raises(UserError, match=f"{name} is .*md5"):
        settle(data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "settings, words",
    [({"side": 300}, "config.side=300: .* 16 to 299"), ({"channels": 2}, "config.channels=2")],
)
def test_settings_that_cannot_be_built(folder, settings, words):
    with pytest.raises(UserError, match=words):
        settle(data_dir=str(folder), **settings)


def test_the_name_changes_with_the_arrays_and_the_settings(tmp_path):
    folder = str(write(tmp_path))
    names = {settle(data_dir=folder, side=s, channels=c).name for s in (64, 299) for c in (1, 3)}
    assert len(names) == 4
    np.save(tmp_path / "headshot_labels.npy", table().astype(np.int32))
    assert settle(data_dir=folder).name not in names
