"""A folder of photograph pairs, and everything that may be wrong with one."""

import csv
import dataclasses
import functools
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxface.data import base, uvphoto
from jaxface.data.photos import PatchBatches, open_photos
from jaxface.errors import UserError
from jaxface.faces.portrait import portrait
from jaxface.phantom import skin, uv
from jaxface.phantom.people import draw_subject
from jaxface.system import RunConfig

SIDE = 272
HEADING = "file,subject,consent,uv,mask,view,device"


@dataclasses.dataclass
class Run(RunConfig):
    data: str = "uvphoto"
    manifest: str = ""
    purpose: str = "research"
    ledger: str = ""
    patch: int = 64
    coverage: float = 0.5
    shift: bool = False
    max_bad_fraction: float = 0.001


@functools.cache
def pair(seed):
    subject = draw_subject(seed)
    taken = uv.photograph(subject, skin.draw_marks(subject), uv.device_view(seed), SIDE)
    return taken.color, taken.uv


def save(path, image, **options):
    Image.fromarray(image).save(path, **options)


def shifted(image, rows, columns):
    matrix = np.float32([[1, 0, columns], [0, 1, rows]])
    return cv2.warpAffine(image, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)


class Folder:
    """A folder in the making: photographs and the rows of its manifest."""

    def __init__(self, path):
        self.path, self.rows = path / "photographs", []
        self.path.mkdir(parents=True)
        self.run = Run(data_dir=str(self.path), build_dir=str(path / "build"))

    def add(self, name, color, gray=None, subject=None, more="front,", mask="", **options):
        save(self.path / f"{name}.png", color, **options)
        if gray is not None:
            save(self.path / f"{name}_uv.png", gray)
        uv_name = f"{name}_uv.png" if gray is not None else ""
        self.rows.append(f"{name}.png,{subject or name},yes,{uv_name},{mask},{more}")

    def open(self, split="train+heldout", **settings):
        (self.path / "manifest.csv").write_text("\n".join([HEADING, *self.rows]) + "\n")
        tfds.disable_progress_bar()
        found = open_photos(dataclasses.replace(self.run, **settings), split)
        return {name: i for i, name in enumerate(found.labels["id"])}, found

    def table(self, name):
        """{file: texts} of left_out.csv or notes.csv of the only build."""
        (path,) = self.path.parent.glob(f"build/**/{name}")
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0][:2] == ["file", "subject"]
        found = {}
        for name, _, text in rows[1:]:
            found[name] = "; ".join([*filter(None, [found.get(name)]), text])
        return found


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_pairs_and_phones_become_records(folder, capsys):
    color, gray = pair(1)
    wide = np.pad(color, ((90, 70), (150, 60), (0, 0)), "edge")
    folder.add("a", wide, np.pad(gray, ((90, 70), (150, 60)), "edge"), "S1", "left,")
    folder.add("b", pair(2)[0], None, "S2", ",")
    folder.add("c", pair(3)[0], None, "S2", ",tablet")
    at, found = folder.open()
    assert sorted(at) == ["a.png", "b.png", "c.png"]
    labels = {name: {k: v[i] for k, v in found.labels.items()} for name, i in at.items()}
    told = lambda name: tuple(labels[name][k] for k in ("subject", "view", "device", "has_uv"))
    assert told("a.png") == ("S1", "left", "device", True)
    assert told("b.png") == ("S2", "unknown", "phone", False)
    assert told("c.png") == ("S2", "unknown", "tablet", False)
    assert folder.table("left_out.csv") == {}
    said = capsys.readouterr().out
    assert "3 photographs prepared, 1 with a UV photograph" in said
    assert not list(folder.path.parent.rglob("*.npz"))

    # Cropped to the face and its margin, everything that belongs to it moved alike.
    face = portrait(wide)
    assert abs(labels["a.png"]["face_width"] - face.face_width) < 1e-3
    corner = np.floor(face.landmarks[:, :2].min(0) - 0.25 * face.face_width).astype(int)
    left, top = np.maximum(corner, 0)
    crop = found.color(at["a.png"])
    height, width = crop.shape[:2]
    assert height < wide.shape[0] and width < wide.shape[1] - 60
    inside = (slice(top, top + height), slice(left, left + width))
    np.testing.assert_array_equal(crop, wide[inside])
    np.testing.assert_array_equal(found.mask(at["a.png"]), face.mask[inside])
    np.testing.assert_array_equal(
        found.uv(at["a.png"]), np.pad(gray, ((90, 70), (150, 60)), "edge")[inside]
    )
    np.testing.assert_allclose(
        found.landmarks(at["a.png"]), face.landmarks - [left, top, 0], atol=1e-3
    )
    assert face.mask.sum() == found.mask(at["a.png"]).sum()
    assert labels["a.png"]["ita"] == np.float32(face.ita)
    batch = next(PatchBatches(found, 2, 64, stride=8, coverage=0.5, window=96, seed=0, threads=0))
    assert batch["color"].shape == (2, 96, 96, 3)


def test_what_cannot_be_used_is_left_out_by_name_and_reason(folder, capsys):
    color, gray = pair(1)
    folder.add("good", color, gray)
    folder.add("blank", np.full_like(color, 120), gray)
    folder.add("moved", color, shifted(gray, 5, -3))
    folder.add("other", color, pair(2)[1])
    folder.add("noise", color, np.random.default_rng(0).integers(0, 256, gray.shape, np.uint8))
    folder.add("size", color, gray[:-2])
    folder.add("masked", color, None, mask="mask.png")
    save(folder.path / "mask.png", gray[:, :-2])
    small = cv2.resize(color, (52, 52), interpolation=cv2.INTER_AREA)
    folder.add("small", np.pad(small, ((80, 80), (80, 80), (0, 0)), "edge"))
    save(folder.path / "more.png", color)
    at, found = folder.open()
    assert list(at) == ["good.png"] and found.labels["has_uv"].all()
    reasons = folder.table("left_out.csv")
    said = capsys.readouterr().out
    for name, part in {
        "blank.png": "no face found",
        "moved.png": "not registered: the UV photograph lies up to ",
        "other.png": "not registered",
        "noise.png": "the UV photograph shows nothing of the color photograph",
        "size.png": f"size_uv.png is {SIDE} x {SIDE - 2} px, the photograph {SIDE} x {SIDE} px",
        "masked.png": f"mask.png is {SIDE - 2} x {SIDE} px",
        "small.png": "face too small for one patch: it is ",
        "more.png": "no row in manifest.csv",
    }.items():
        assert part in reasons.pop(name), name
        assert f"{name}: " in said
    assert not reasons
    assert "2.0 px are allowed; config.shift=True" in folder.table("left_out.csv")["moved.png"]
    assert "8 left out" in said


def test_nothing_that_can_be_used(folder):
    folder.add("a", np.full((80, 80, 3), 120, np.uint8))
    with pytest.raises(UserError, match="none of the 1 photographs can be used:\n  a.png: no face"):
        folder.open()


def test_a_shifted_uv_photograph_is_moved_where_that_is_asked_for(folder, tmp_path):
    color, gray = pair(1)
    folder.add("moved", color, shifted(gray, 5, -3))
    folder.add("far", color, shifted(gray, 20, 0))
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), 4, 1)
    folder.add("turned", color, cv2.warpAffine(gray, turn, (SIDE, SIDE)))
    at, found = folder.open(shift=True)
    assert list(at) == ["moved.png"]
    straight = Folder(tmp_path / "straight")
    straight.add("moved", color, gray)
    _, expected = straight.open()
    difference = found.uv(0).astype(int) - expected.uv(0)
    assert np.abs(difference[20:-20, 20:-20]).mean() < 2
    note = folder.table("notes.csv")["moved.png"]
    right, down = map(
        float, re.search(r"moved by (.*) px to the right, (.*) px down", note).groups()
    )
    assert abs(right - 3) <= 0.2 and abs(down + 5) <= 0.2


def test_uv_of_16_bits_and_in_rgb_equals_that_of_8_bits(folder):
    color, gray = pair(1)
    for name in ("a", "b", "c"):
        folder.add(name, color, gray)
    save(folder.path / "b_uv.png", gray.astype(np.uint16) * 257)
    save(folder.path / "c_uv.png", np.repeat(gray[..., None], 3, axis=-1))
    folder.add("d", color, np.dstack([gray, gray, gray + (gray < 250)]))  # a little blue
    at, found = folder.open()
    for name in ("b.png", "c.png"):
        np.testing.assert_array_equal(found.uv(at[name]), found.uv(at["a.png"]))
    assert np.abs(found.uv(at["d.png"]).astype(int) - found.uv(at["a.png"])).max() <= 1
    notes = folder.table("notes.csv")
    assert "d_uv.png: saved with colors" in notes["d.png"] and "colors" not in notes["c.png"]


def test_a_color_photograph_in_place_of_the_uv_photograph(folder):
    folder.add("a", pair(1)[0], pair(1)[0])
    with pytest.raises(UserError, match=r"a.png: a_uv.png: \d+% of it is colored"):
        folder.open()


def test_turned_by_exif(folder):
    color, gray = pair(1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    folder.add("a", color, gray)
    folder.add("b", np.rot90(color).copy(), gray, exif=exif)
    at, found = folder.open()
    np.testing.assert_array_equal(found.color(at["a.png"]), found.color(at["b.png"]))
    landmarks = found.landmarks(at["b.png"])
    assert landmarks[152, 1] > landmarks[10, 1] + 100  # the chin is below the forehead


def header(width, height):
    """A PNG of that size without pixels worth decoding."""
    chunk = lambda kind, body: (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    )
    size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + size + body


def test_files_that_cannot_be_read(folder):
    color, gray = pair(1)
    for name in ("a", "b", "c"):
        folder.add(name, color, gray)
    (folder.path / "b.png").write_bytes(header(12500, 8000))
    (folder.path / "c_uv.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="2 of 3 images cannot be used, 0 may") as caught:
        folder.open()
    assert "b.png: 12500x8000 px is over 40 Mpx" in str(caught.value)
    assert "c.png: c_uv.png: no readable" in str(caught.value)
    at, _ = folder.open(max_bad_fraction=0.7)
    assert list(at) == ["a.png"]
    assert folder.table("left_out.csv")["c.png"].startswith("c_uv.png: no readable")


def test_bad_manifests(folder):
    folder.add("a", *pair(1))
    folder.rows += ["a_uv.png,S,yes,,,,", "b.png,S,no,gone.png,,,"]
    save(folder.path / "b.png", pair(1)[0])
    with pytest.raises(UserError) as caught:
        folder.open()
    for said in (
        "row 3, file: 'a_uv.png' has row 2 already",
        "row 4, uv: 'gone.png' is not in the folder: correct it or leave it empty",
        "row 4, consent: 'no' does not cover purpose 'research'",
    ):
        assert said in str(caught.value)
    with pytest.raises(UserError, match="--data_dir=FOLDER"):
        folder.open(data_dir="")


def test_own_mask_is_taken(folder):
    color, gray = pair(1)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[120:230, 60:200] = 255
    save(folder.path / "own.png", mask)
    folder.add("a", color, gray, mask="own.png")
    folder.add("b", color, gray)
    at, found = folder.open()
    own = found.mask(at["a.png"])
    rows, columns = np.nonzero(own)
    assert own.sum() == 110 * 140 and (np.ptp(rows), np.ptp(columns)) == (109, 139)
    assert found.mask(at["b.png"]).sum() != own.sum()


def test_covers_are_noted(folder):
    color, gray = pair(1)
    bearded = color.copy()
    face = portrait(color)
    lower = np.mgrid[:SIDE, :SIDE][0] > face.landmarks[13, 1] - 10
    bearded[lower] = (35, 28, 22)
    folder.add("a", bearded, gray)
    at, found = folder.open()
    assert found.labels["covered"][0] > 0.12
    assert "beard" in folder.table("notes.csv")["a.png"]


def test_name_follows_content_and_settings(folder):
    folder.add("a", *pair(1))
    (folder.path / "manifest.csv").write_text("\n".join([HEADING, *folder.rows]) + "\n")
    name = lambda **more: uvphoto.config_for(folder.path, **more).name
    first = name()
    assert first == name()
    changed = [{"patch": 64}, {"coverage": 0.6}, {"shift": True}, {"max_bad_fraction": 0.5}]
    assert len({first, *(name(**one) for one in changed)}) == 5
    save(folder.path / "a_uv.png", pair(2)[1])
    assert name() != first


def test_nothing_but_pixels_is_in_the_files(folder):
    exif = Image.Exif()
    exif[0x010E] = "patient Yamada"
    folder.add("a", *pair(1), exif=exif)
    assert b"Yamada" in (folder.path / "a.png").read_bytes()
    folder.open()
    files = [path for path in folder.path.parent.glob("build/**/*") if path.is_file()]
    assert any(".array_record" in path.name for path in files)
    for path in files:
        content = path.read_bytes()
        assert b"Yamada" not in content and str(folder.path).encode() not in content, path


def test_people_stay_in_their_split(folder):
    names = ("P1", "P2", "P5")
    assert {base.split_of(name) for name in names} == {"train", "heldout"}
    for name in names:
        folder.add(f"{name}-1", pair(1)[0], None, name)
        folder.add(f"{name}-2", pair(2)[0], None, name)
    _, train = folder.open("train")
    _, held_out = folder.open("heldout")
    assert set(train.labels["subject"]) | set(held_out.labels["subject"]) == set(names)
    assert len(train) + len(held_out) == 6
    for found, split in ((train, "train"), (held_out, "heldout")):
        assert {base.split_of(name) for name in found.labels["subject"]} == {split}
