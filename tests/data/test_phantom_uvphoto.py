"""The phantom of a UV photo device and of phones, built very small."""

import concurrent.futures
import dataclasses
import functools
import types

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxface.data import phantom_uvphoto
from jaxface.data.base import split_of
from jaxface.errors import UserError
from jaxface.phantom import head as heads
from jaxface.phantom import render, shape, skin, uv
from jaxface.phantom.people import draw_subject
from jaxface.system import RunConfig

PEOPLE, SIDE = 8, 256
# At least two of each kind and split, of 8 / 384 of the whole.
WANTED = {("device", "train"): 3, ("device", "heldout"): 2,
          ("phone", "train"): 2, ("phone", "heldout"): 2}  # fmt: skip


def build(folder):
    tfds.disable_progress_bar()
    builder = tfds.builder(
        "phantom_uvphoto",
        data_dir=folder,
        config=phantom_uvphoto.config_for(PEOPLE, SIDE),
        file_format="array_record",
    )
    builder.download_and_prepare()
    return builder


def records(builder):
    return {split: list(part) for split, part in builder.as_data_source().items()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("uvphoto"))


@pytest.fixture(scope="module")
def found(built):
    return records(built)


def picture(code, flag=cv2.IMREAD_GRAYSCALE):
    return cv2.imdecode(np.frombuffer(code, np.uint8), flag)


def test_people_and_splits(found):
    assert set(found) == {"train", "heldout"}
    people = {split: {r["subject"].decode() for r in part} for split, part in found.items()}
    assert not people["train"] & people["heldout"]
    count = dict.fromkeys(WANTED, 0)
    for split, part in found.items():
        for record in part:
            name, device = record["subject"].decode(), record["device"].decode()
            assert record["id"] == record["subject"] and split_of(name) == split
            assert name[0] == {"device": "U", "phone": "H"}[device]
            count[device, split] += 1
    assert count == WANTED
    assert sum(map(len, people.values())) == sum(WANTED.values())  # nobody twice


def test_people_are_the_first_that_fit():
    for split in ("train", "heldout"):
        few, more = (
            [name for name, _, _ in phantom_uvphoto._people("device", split, n)] for n in (3, 20)
        )
        assert more[:3] == few and len(set(more)) == 20
        last = int(more[-1][1:])
        assert more == [f"U{n:04d}" for n in range(1, last + 1) if split_of(f"U{n:04d}") == split]
    seeds = [
        {seed for _, _, seed in phantom_uvphoto._people(device, split, 200)}
        for device in ("device", "phone")
        for split in ("train", "heldout")
    ]
    assert len(set.union(*seeds)) == 800


def test_what_training_may_see(found):
    for record in found["train"] + found["heldout"]:
        truth, pigment = picture(record["truth_uv"]), picture(record["pigment"])
        assert truth.shape == pigment.shape == picture(record["mask"]).shape == (SIDE, SIDE)
        if record["device"] == b"phone":
            assert record["uv"] == b""
        else:
            assert record["uv"] == record["truth_uv"]
        assert set(np.unique(pigment)) == {0, 255}
        # Pigment is darker in the UV photograph than the skin around it.
        mask = picture(record["mask"]) > 0
        assert truth[mask & (pigment > 0)].mean() < truth[mask & (pigment == 0)].mean() - 5
        assert 0.2 * SIDE < record["face_width"] < SIDE and 0 <= record["covered"] < 0.5
        assert record["landmarks"].shape == (468, 3) and -90 <= record["ita"] <= 90


def area_of_spots(subject, marks, view):
    """Share of the photograph that ellipses of the visible pigment spots cover, each seen at its slant.

    From the subject's turned mesh; the renderer only tells where the eyes are, which gives the scale.
    """
    face = heads.load().faces[marks.face]
    corners = ((shape.build(subject) - heads.EYE * [0, 1, 1]) @ render._rotation(view).T)[face]
    ray = [0, 0, render.CAMERA] - corners.mean(1)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    cosine = np.einsum("sc,sc->s", normals, ray)
    facing = cosine / np.linalg.norm(normals, axis=1) / np.linalg.norm(ray, axis=1)
    places = render.look(subject, view, 128).landmarks
    eyes = np.subtract(places["left_eye"], places["right_eye"])
    unit = np.hypot(*eyes) / skin._EYES_APART  # sides of the photograph that a mesh unit measures
    area = np.pi * (marks.radius * unit) ** 2 * marks.shape[:, 0] * facing
    return area[(marks.kind == skin.MELANIN) & (facing > 0.25)].sum()


def test_share_of_pigment(found):
    """What the map calls pigment is what the marks cover: fewer pixels where spots overlap or hair hides
    them, a spot of 1 px more or less at this size."""
    shares = []
    for record in found["train"] + found["heldout"]:
        seed = int(record["subject"][1:]) + phantom_uvphoto._FIRST[record["device"].decode()]
        subject = dataclasses.replace(draw_subject(seed), beard=0.0)
        view = uv.phone_view(seed)[0] if record["device"] == b"phone" else uv.device_view(seed)
        expected = area_of_spots(subject, skin.draw_marks(subject), view)
        shares.append((picture(record["pigment"]) > 0).mean() / expected)
    assert min(shares) > 0.75 and max(shares) < 1.15
    assert np.mean(shares) == pytest.approx(0.92, abs=0.05)


def test_truth_belongs_to_the_photograph(found):
    for record in found["heldout"]:
        name, device = record["subject"].decode(), record["device"].decode()
        seed = {"device": 60_000_000, "phone": 70_000_000}[device] + int(name[1:])
        subject = dataclasses.replace(draw_subject(seed), beard=0.0)
        view, phone = uv.phone_view(seed) if device == "phone" else (uv.device_view(seed), None)
        pair = uv.photograph(subject, skin.draw_marks(subject), view, SIDE, phone)
        color = picture(record["color"], cv2.IMREAD_COLOR)[..., ::-1]
        np.testing.assert_array_equal(color, pair.color)
        np.testing.assert_array_equal(picture(record["truth_uv"]), pair.uv)
        np.testing.assert_array_equal(picture(record["pigment"]) > 0, pair.pigment)


def test_files_do_not_depend_on_the_threads(built, tmp_path, monkeypatch):
    pool = functools.partial(concurrent.futures.ThreadPoolExecutor, max_workers=1)
    futures = types.SimpleNamespace(ThreadPoolExecutor=pool)
    monkeypatch.setattr(phantom_uvphoto, "concurrent", types.SimpleNamespace(futures=futures))
    again = build(tmp_path)
    contents = lambda b: {p.name: p.read_bytes() for p in b.data_path.glob("*.array_record*")}
    one, two = contents(built), contents(again)
    assert len(one) == 2 and one == two


@dataclasses.dataclass
class Run(RunConfig):
    num_subjects: int = 0
    side: int = 1024


def settle(**settings):
    return phantom_uvphoto.PhantomUvphoto.settle(dataclasses.replace(Run(), **settings))


def test_settings_make_the_name():
    assert settle() == phantom_uvphoto.config_for()
    names = [settle(num_subjects=n, side=s).name for n in (0, 8, 384) for s in (256, 1024)]
    assert len(set(names)) == 6


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"num_subjects": 7}, "config.num_subjects=7: .* 8 to 384"),
        ({"num_subjects": -1}, "config.num_subjects=-1"),
        ({"num_subjects": 385}, "config.num_subjects=385"),
        ({"side": 254}, "config.side=254: .* even side from 256"),
        ({"side": 257}, "config.side=257"),
        ({"side": -512}, "config.side=-512"),
    ],
)
def test_settings_that_cannot_be_built_are_named(settings, words):
    with pytest.raises(UserError, match=words):
        settle(**settings)
