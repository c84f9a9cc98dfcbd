import csv
import dataclasses
import io
import math
import os

import drawn
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxface.data import base, cleft_folder, face_folder, folder
from jaxface.errors import UserError

SECRET = b"patient Yamada"


def save(path, image):
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    Image.fromarray(image).save(path, exif=exif, comment=SECRET, quality=95)


def noise(seed, size=24):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def write(folder_, rows, name="manifest.csv"):
    heading = "file,subject,consent,side,severity,name"
    (folder_ / name).write_text("\n".join([heading, *rows]) + "\n")


def make(tmp_path, number=8, **settings):
    """A folder of flat little pictures, each of another person, and its settings."""
    source = tmp_path / "photographs"
    source.mkdir()
    for i in range(number):
        save(source / f"{i}.jpg", np.full((20, 30, 3), 20 * i, np.uint8))
    write(source, [f"{i}.jpg,S{i},yes,left,0.{i},{SECRET.decode()}" for i in range(number)])
    return source, {"resolution": 16, "align": False} | settings


def build(cls_name, config, tmp_path):
    tfds.disable_progress_bar()
    builder = tfds.builder(
        cls_name, data_dir=tmp_path / "built", config=config, file_format="array_record"
    )
    builder.download_and_prepare()
    return builder


def records(builder):
    found = {}
    decoders = {"image": tfds.decode.SkipDecoding()}
    for split in builder.info.splits:
        for record in builder.as_data_source(split=split, decoders=decoders):
            image = np.asarray(Image.open(io.BytesIO(record["image"])))
            found[record["id"].decode()] = record | {"split": split, "image": image}
    return found


def test_records(tmp_path):
    source, settings = make(tmp_path)
    builder = build("cleft_folder", cleft_folder.config_for(source, **settings), tmp_path)
    found = records(builder)
    assert sorted(found) == [f"{i}.jpg" for i in range(8)]
    for i in range(8):
        record = found[f"{i}.jpg"]
        assert record["image"].shape == (16, 16, 3)
        assert np.abs(record["image"].astype(int) - 20 * i).max() <= 3
        assert record["subject"] == f"S{i}".encode() and record["side"] == b"left"
        assert abs(record["severity"] - i / 10) < 1e-6
        assert record["split"] == base.split_of(f"S{i}")


def test_nothing_but_pixels_is_in_the_files(tmp_path):
    source, settings = make(tmp_path)
    assert all(SECRET in file.read_bytes() for file in source.glob("*"))
    builder = build("face_folder", face_folder.config_for(source, **settings), tmp_path)
    files = [file for file in (tmp_path / "built").rglob("*") if file.is_file()]
    assert any(".array_record" in file.name for file in files)
    for file in files:
        content = file.read_bytes()
        for planted in (SECRET, b"Yamada", b"Exif", str(source).encode()):
            assert planted not in content, f"{planted} in {file}"
    assert not (builder.data_path / "prepared").exists()


def test_face_folder_has_no_labels_and_gray(tmp_path):
    source, settings = make(tmp_path)
    config = face_folder.config_for(source, channels=1, **settings)
    for record in records(build("face_folder", config, tmp_path)).values():
        assert record["side"] == b"unknown" and math.isnan(record["severity"])
        assert record["image"].shape == (16, 16)


def test_name_follows_the_content(tmp_path):
    source, settings = make(tmp_path)
    name = lambda **more: folder.config_for(source, **(settings | more)).name
    first = name()
    assert first == name()
    assert (
        len({first, name(resolution=32), name(channels=1), name(purpose="x"), name(align=True)})
        == 5
    )
    os.utime(source / "3.jpg", ns=(1, 1))
    second = name()
    save(source / "extra.jpg", noise(0))
    third = name()
    text = (source / "manifest.csv").read_text()
    (source / "manifest.csv").write_text(text.replace("S3", "S33"))
    assert len({first, second, third, name()}) == 4
    (tmp_path / "moved.csv").write_text((source / "manifest.csv").read_text())
    assert folder.config_for(source, tmp_path / "moved.csv", **settings).name == name()


def test_middle_square_without_alignment(tmp_path):
    source, settings = make(tmp_path, number=0)
    picture = np.zeros((32, 96, 3), np.uint8)
    picture[:, 32:64] = noise(1, 32)
    Image.fromarray(picture).save(source / "a.png")
    write(source, ["a.png,S,yes,,,"])
    (record,) = records(
        build("face_folder", face_folder.config_for(source, resolution=32, align=False), tmp_path)
    ).values()
    np.testing.assert_array_equal(record["image"], picture[:, 32:64])


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Twelve drawn faces, one blank picture and one without a row."""
    source = tmp_path_factory.mktemp("faces")
    for i in range(12):
        face, _ = drawn.turn(drawn.face(160 + 20 * i), 3 * i - 15, 0.8)
        save(source / f"{i:02d}.jpg", face)
    save(source / "12.jpg", np.full((90, 70, 3), 140, np.uint8))
    save(source / "other.jpg", drawn.face(64))
    write(source, [f"{i:02d}.jpg,S{i},yes,,," for i in range(13)])
    return source


def test_faces_are_aligned_and_the_rest_is_listed(faces, tmp_path, capsys):
    builder = build("face_folder", face_folder.config_for(faces, resolution=32), tmp_path)
    found = records(builder)
    assert sorted(found) == [f"{i:02d}.jpg" for i in range(12)]
    images = np.stack([record["image"] for record in found.values()]).astype(float)
    assert images.std(axis=0)[8:28, 6:26].mean() < 12  # they lie on each other
    with open(builder.data_path / "left_out.csv", newline="") as file:
        left_out = list(csv.DictReader(file))
    assert left_out == [
        {"file": "12.jpg", "subject": "S12", "reason": "no face found"},
        {"file": "other.jpg", "subject": "", "reason": "no row in manifest.csv"},
    ]
    assert "12 images prepared, 2 left out" in capsys.readouterr().out


def test_too_many_without_a_face(tmp_path):
    source, settings = make(tmp_path)
    with pytest.raises(
        UserError, match=r"no face was found in 8 of 8 images.*align=False"
    ) as caught:
        build("face_folder", face_folder.config_for(source, **settings | {"align": True}), tmp_path)
    assert "7.jpg" in str(caught.value)
    assert not list((tmp_path / "built").rglob("*.png"))


def test_truncated_and_bomb_over_the_budget(tmp_path):
    source, settings = make(tmp_path)
    whole = (source / "1.jpg").read_bytes()
    (source / "1.jpg").write_bytes(whole[: len(whole) - 40])
    wide = Image.new("1", (30000, 4000))
    wide.save(source / "5.jpg", format="PNG")
    with pytest.raises(UserError) as caught:
        build("face_folder", face_folder.config_for(source, **settings), tmp_path)
    message = str(caught.value)
    for part in ("2 of 8", "max_bad_fraction", "1.jpg: truncated", "5.jpg: 30000x4000 px is over"):
        assert part in message
    assert not list((tmp_path / "built").rglob("*.png"))


def test_budget_for_bad_images(tmp_path):
    source, settings = make(tmp_path)
    (source / "1.jpg").write_bytes(b"broken")
    config = face_folder.config_for(source, **settings, max_bad_fraction=0.2)
    builder = build("face_folder", config, tmp_path)
    assert sorted(records(builder)) == [f"{i}.jpg" for i in range(8) if i != 1]
    assert '1.jpg,S1,"no readable' in (builder.data_path / "left_out.csv").read_text()


def test_no_readable_image(tmp_path):
    source, settings = make(tmp_path)
    for file in source.glob("*.jpg"):
        file.write_bytes(b"broken")
    with pytest.raises(UserError, match="no readable image"):
        config = face_folder.config_for(source, **settings, max_bad_fraction=1.0)
        build("face_folder", config, tmp_path)


@pytest.mark.parametrize(
    "rows,said",
    [
        (["0.jpg,S0,yes,,,", "gone.jpg,S1,yes,,,"], "row 3, file: 'gone.jpg' is not in the folder"),
        (["0.jpg,S0,yes,,,", "0.jpg,S1,yes,,,"], "row 3, file: '0.jpg' has row 2 already"),
        (["0.jpg,S0,,,,"], "row 2, consent"),
    ],
)
def test_bad_manifest(tmp_path, rows, said):
    source, settings = make(tmp_path)
    good = face_folder.config_for(source, **settings)
    write(source, rows)
    with pytest.raises(UserError, match=said):
        face_folder.config_for(source, **settings)
    with pytest.raises(UserError, match=said):  # also when it went bad after the settings were made
        build("face_folder", good, tmp_path)


def test_bad_settings(tmp_path):
    source, settings = make(tmp_path)
    with pytest.raises(UserError, match="resolution=100 is not a power of two: use 64 or 128"):
        face_folder.config_for(source, **settings | {"resolution": 100})
    with pytest.raises(UserError, match="channels=2"):
        face_folder.config_for(source, **settings | {"channels": 2})
    with pytest.raises(UserError, match="needs a folder"):
        build("face_folder", dataclasses.replace(base.FaceConfig(name="x")), tmp_path)


def test_withdrawing_a_person_moves_nobody_else(tmp_path):
    source, settings = make(tmp_path)
    before = records(build("face_folder", face_folder.config_for(source, **settings), tmp_path))
    lines = (source / "manifest.csv").read_text().splitlines()
    (source / "manifest.csv").write_text("\n".join(line for line in lines if "S3" not in line))
    after = records(build("face_folder", face_folder.config_for(source, **settings), tmp_path))
    assert before.keys() - after.keys() == {"3.jpg"}
    for name, record in after.items():
        assert record["split"] == before[name]["split"]
        np.testing.assert_array_equal(record["image"], before[name]["image"])
