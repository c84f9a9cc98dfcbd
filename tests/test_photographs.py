"""Photographs through a translator: what is measured, told and drawn."""

import dataclasses

import cv2
import numpy as np
import pytest

from experiments import uvphoto as experiment
from jaxface import uv
from jaxface.errors import UserError
from jaxface.faces.portrait import Portrait
from jaxface.metrics import spots
from jaxface.phantom import skin
from jaxface.phantom import uv as phantom
from jaxface.phantom.people import draw_subject
from jaxface.system import TrainState

TINY = experiment.tiny
KNOWN = {"face_width": 200.0, "spot_threshold": 0.02}
blue_of = lambda patches: patches[..., 2:3]  # a network that is known by heart


# ---- what a run begins with -----------------------------------------------------------------------


def a_state(**params):
    stats = {name: {} for name in params}
    return TrainState(np.int32(0), params, {}, stats, {}, {})


def test_begins_with_what_it_is_given_as_far_as_it_has_it():
    state = a_state(generator={"w": np.zeros(2, np.float32)}, other={"w": np.zeros(3)})
    begun = uv.begin_with(state, {"params": {"generator": {"w": np.ones(2)}, "more": {"w": 1}}})
    assert begun.params["generator"]["w"].tolist() == [1, 1]
    assert begun.params["generator"]["w"].dtype == np.float32
    assert begun.params["other"]["w"].tolist() == [0, 0, 0]
    assert state.params["generator"]["w"].tolist() == [0, 0]


def test_what_does_not_fit_is_listed():
    state = a_state(generator={"a": np.zeros(2), "b": np.zeros(1)})
    with pytest.raises(UserError) as error:
        uv.begin_with(state, {"params": {"generator": {"a": np.zeros(3), "c": np.zeros(1)}}})
    for words in ("missing: b", "not in this network: c", "a: (3,) in the file, (2,) in this"):
        assert words in str(error.value)
    with pytest.raises(UserError, match="no generator"):
        uv.begin_with(state, {"params": {"discriminator": {}}})


def test_levels_and_facts():
    assert uv.scaled(np.array([0, 255], np.uint8)).tolist() == [-1, 1]
    told = uv.facts({"face_width": np.full(3, 150.0), "spot_threshold": np.full(3, 4.0)})
    assert {name: float(value) for name, value in told.items()} == {
        "face_width": 150, "spot_threshold": 4
    }  # fmt: skip
    assert uv.no_facts().keys() == told.keys()


# ---- pictures -----------------------------------------------------------------------------------


def test_outlined_draws_around_spots_and_not_on_them():
    image = np.full((40, 50, 3), 100, np.uint8)
    found = np.zeros((40, 50), bool)
    found[10:14, 20:25] = True
    drawn = uv.outlined(image, found)
    red = (drawn == (220, 40, 40)).all(-1)
    wanted = np.zeros_like(found)
    wanted[9:15, 19:26] = True
    assert (red == wanted & ~found).all()
    assert (drawn[~red] == 100).all() and (image == 100).all()


def test_side_by_side_shows_three_panels_around_the_face():
    points = np.zeros((468, 3), np.float32)
    points[:, 0], points[:, 1] = np.linspace(100, 300, 468), np.linspace(50, 350, 468)
    face = Portrait(points, None, 100.0, 0.0, 0.0, ())
    image = np.zeros((400, 400, 3), np.uint8)
    image[38:362, 88:312] = (200, 30, 30)  # the face and 12 px around it
    gray = np.where(image[..., 0] > 0, 90, 0).astype(np.uint8)
    shown = uv.side_by_side(image, gray, image[..., ::-1], face)
    panel = (uv.WIDTH - 32) // 3
    height = round(324 * panel / 224)
    assert shown.shape == (height + 56, uv.WIDTH, 3) and shown.dtype == np.uint8
    for k, color in enumerate(((200, 30, 30), (90, 90, 90), (30, 30, 200))):
        left = k * (panel + 16)
        assert (shown[56:, left : left + panel] == color).all(), k
        assert (shown[:, left + panel : left + panel + 16] == 255).all(), k


# ---- a user's photographs -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photograph():
    subject = dataclasses.replace(draw_subject(60_000_003), beard=0.0)
    pair = phantom.photograph(
        subject, skin.draw_marks(subject), phantom.device_view(60_000_003), 384, None
    )
    return pair.color


@pytest.fixture(scope="module")
def face(photograph):
    return uv.portrait(photograph)


@pytest.fixture
def photographs():
    return uv.Photographs(TINY)


def test_reading_of_a_face_as_wide_as_those_of_the_training(photograph, face, photographs):
    known = KNOWN | {"face_width": face.face_width * 1.2}
    read = photographs.read(photograph, blue_of, known)
    made = read.pictures["uv"]
    assert made.shape == photograph.shape[:2] and made.dtype == np.uint8
    # Tiles of a network that looks at one px each are that px: nothing is scaled or moved.
    assert (made == np.where(face.mask, photograph[..., 2], 0)).all()
    assert read.warnings == face.warnings
    assert read.numbers["face_width_px"] == round(face.face_width)
    assert read.numbers["skin_covered"] == round(face.covered, 3)
    found = spots.Detector(known["spot_threshold"])(made, face.face_width, face.mask)
    right, left = uv.regions.cheeks(face.landmarks, *face.mask.shape)
    for name, cheek in (("right", right), ("left", left)):
        wanted = found[cheek & face.mask].mean()
        assert read.numbers[f"spot_ratio_{name}_cheek"] == pytest.approx(wanted)
    assert (read.pictures["overlay"] == uv.outlined(photograph, found)).all()
    assert read.pictures["side_by_side"].shape[1] == uv.WIDTH


@pytest.mark.parametrize("ratio,words", [(0.6, "finest detail"), (1.5, "small spots may not show")])
def test_a_face_of_another_width_is_scaled_for_the_network_only(
    photograph, face, photographs, ratio, words
):
    known = KNOWN | {"face_width": face.face_width * ratio}
    read = photographs.read(photograph, blue_of, known)
    assert any(words in warning and f"{ratio:.2f}" in warning for warning in read.warnings)
    for name in ("uv", "overlay"):
        assert read.pictures[name].shape[:2] == photograph.shape[:2]
    made, rim = read.pictures["uv"], cv2.erode(face.mask.astype(np.uint8), np.ones((9, 9))) > 0
    assert np.abs(made.astype(int) - photograph[..., 2])[rim].mean() < 6
    assert not made[cv2.dilate(face.mask.astype(np.uint8), np.ones((9, 9))) == 0].any()


def test_spots_of_a_face_that_grew_too_much_are_not_counted(photograph, face, photographs):
    known = KNOWN | {"face_width": face.face_width * uv.TOO_SMALL * 1.05}
    read = photographs.read(photograph, blue_of, known)
    counts = ("spot_ratio_right_cheek", "spot_ratio_left_cheek", "spots")
    assert {read.numbers[name] for name in counts} == {"not measured"}
    assert any("not counted" in warning for warning in read.warnings)
    assert (read.pictures["overlay"] == photograph).all()


def test_too_small_a_face_is_refused(photograph, face, photographs, monkeypatch):
    monkeypatch.setattr(uv, "portrait", lambda image: face._replace(face_width=31.0))
    with pytest.raises(UserError, match="31 px wide.*at least 32 px"):
        photographs.read(photograph, blue_of, KNOWN)


def test_a_face_that_is_covered_wholly_is_refused(photograph, face, photographs, monkeypatch):
    bare = face._replace(mask=np.zeros_like(face.mask), covered=1.0)
    monkeypatch.setattr(uv, "portrait", lambda image: bare)
    with pytest.raises(UserError, match="no bare skin"):
        photographs.read(photograph, blue_of, KNOWN | {"face_width": face.face_width})


def test_a_folder_goes_on_after_files_that_cannot_be_read(photograph, face, photographs, tmp_path):
    cv2.imwrite(str(tmp_path / "b.png"), photograph[..., ::-1])
    (tmp_path / "a.jpg").write_text("not a picture")
    cv2.imwrite(str(tmp_path / "c.png"), np.full((90, 90, 3), 99, np.uint8))
    facts = KNOWN | {"face_width": face.face_width}
    state = a_state(generator={}).replace(
        control={"photographs": {k: np.float32(v) for k, v in facts.items()}}
    )
    found = dict(photographs.readings(state, blue_of, tmp_path))
    assert list(found) == ["a.jpg", "b.png", "c.png"]
    assert isinstance(found["a.jpg"], UserError) and isinstance(found["c.png"], UserError)
    assert "no face" in str(found["c.png"])
    assert found["b.png"].pictures["uv"].shape == photograph.shape[:2]
    (one,) = photographs.readings(state, blue_of, tmp_path / "b.png")
    assert one[0] == "b.png" and one[1].numbers == found["b.png"].numbers


# ---- judgement ----------------------------------------------------------------------------------


class One:
    """One held-out photograph in which the UV picture is the color one's red channel."""

    def __init__(self, image, face, shown=True):
        self.image, self.face, self.shown = image, face, shown
        self.labels = {"face_width": np.array([face.face_width])}

    color = lambda self, i: self.image
    truth_uv = lambda self, i: self.image[..., 0] if self.shown else None
    mask = lambda self, i: self.face.mask
    landmarks = lambda self, i: self.face.landmarks
    pigment = lambda self, i: self.image[..., 0] < 128


@pytest.mark.parametrize("whole", [True, False])
def test_a_perfect_network_has_the_ratio_of_the_real_photograph(
    photograph, face, photographs, whole
):
    known = KNOWN | {"spot_threshold": 0.03}  # of a response of 0.3 at most
    photographs.color_detector = spots.Detector(0.03)
    image = photograph.copy()
    plain = np.full(image.shape[:2], 170, np.uint8)  # skin, and dark dots all over it
    for y in range(8, 384, 24):
        for x in range(8, 384, 24):
            cv2.circle(plain, (x, y), 2, 90, -1)
    image[..., 0] = plain
    found = One(image, face)
    perfect = lambda patches: patches[..., :1]
    ratios, seen = photographs.measure(found, 0, perfect, known, whole)
    assert 0.005 < ratios["real"] < 0.2
    assert ratios["translated"] == pytest.approx(ratios["real"], abs=0 if whole else 2e-3)
    assert ratios["pigment"] == pytest.approx((image[..., 0] < 128)[seen["cheeks"]].mean())
    if whole:
        assert (seen["fake"] == np.where(face.mask, image[..., 0], 0)).all()
    # One that paints all skin alike finds nothing.
    blank = lambda patches: np.full_like(patches[..., :1], 0.3)
    assert photographs.measure(found, 0, blank, known, whole)[0]["translated"] == 0
    hidden = photographs.measure(One(image, face, shown=False), 0, perfect, known, whole)[0]
    assert "real" not in hidden


def test_the_network_is_called_with_one_shape_only(photograph, face, photographs):
    shapes = set()

    def network(patches):
        shapes.add((patches.shape, patches.dtype.name))
        return patches[..., :1]

    photographs.read(photograph, network, KNOWN | {"face_width": face.face_width})
    photographs.read(photograph, network, KNOWN | {"face_width": face.face_width * 0.5})
    assert shapes == {((uv.BATCH, TINY.patch, TINY.patch, 3), "float32")}


@pytest.mark.parametrize("whole", [True, False])
def test_without_skin_on_a_cheek_there_is_no_ratio(photograph, face, photographs, whole):
    photographs.color_detector = spots.Detector(0.03)
    brow = np.zeros_like(face.mask)
    row, column = np.nonzero(face.mask)
    brow[row.min() : row.min() + 20] = face.mask[row.min() : row.min() + 20]
    found = One(photograph, face._replace(mask=brow))
    ratios, seen = photographs.measure(found, 0, blue_of, KNOWN, whole)
    assert not seen["cheeks"].any() and np.isnan(list(ratios.values())).all()
    assert seen["fake"].any() == whole
