import dataclasses

import numpy as np
import pytest

from jaxface.faces.align import FRAME
from jaxface.phantom import render as camera
from jaxface.phantom.people import IDENTITY
from jaxface.phantom.render import View, draw_subject, draw_view, render

SIZE = 64


def difference(a, b):
    return np.abs(a.image.astype(int) - b.image.astype(int)).max(-1)


@pytest.fixture(scope="module")
def person():
    return dataclasses.replace(draw_subject(3), melanin=0.2, smile=0.0, beard=0.0)


def cleft(person, severity, side="left"):
    return dataclasses.replace(person, severity=severity, side=side)


def test_same_seed_same_bytes():
    one, two = (render(draw_subject(5, cleft=True), draw_view(5), 32) for _ in range(2))
    np.testing.assert_array_equal(one.image, two.image)
    other = render(draw_subject(6, cleft=True), draw_view(6), 32)
    assert difference(one, other).mean() > 10


def test_image_is_a_picture(person):
    picture = render(person, View(), SIZE, supersample=1)
    assert picture.image.shape == (SIZE, SIZE, 3) and picture.image.dtype == np.uint8
    assert picture.mask.shape == (SIZE, SIZE) and picture.mask.dtype == bool
    assert 0.6 < picture.mask.mean() < 0.95
    assert picture.image.std() > 20


def test_frame_is_the_one_photographs_are_brought_to():
    side = camera.EYE_HALF_DISTANCE
    ours = [[0.5 - side, camera.EYES_Y], [0.5 + side, camera.EYES_Y], [0.5, camera.MOUTH_Y]]
    np.testing.assert_allclose(ours, FRAME)


@pytest.mark.parametrize("seed", range(4))
def test_landmarks_lie_in_the_frame(seed):
    picture = render(draw_subject(seed, cleft=True), draw_view(seed), SIZE, supersample=1)
    at = {name: np.array(place) / SIZE for name, place in picture.landmarks.items()}
    mouth = (at["left_mouth_corner"] + at["right_mouth_corner"]) / 2
    for place, target in zip((at["right_eye"], at["left_eye"], mouth), FRAME):
        np.testing.assert_allclose(place, target, atol=0.05)
    assert at["right_mouth_corner"][0] < at["nose_tip"][0] < at["left_mouth_corner"][0]
    assert at["left_eye"][1] < at["nose_tip"][1] < mouth[1]


def test_eyes_are_painted_where_the_landmarks_say(person):
    picture = render(dataclasses.replace(person, eye_color=(0.01, 0.01, 0.01)), View(), 128)
    luma = picture.image.mean(-1)
    for name in ("left_eye", "right_eye"):
        x, y = (int(value) for value in picture.landmarks[name])
        assert luma[y - 2 : y + 3, x - 2 : x + 3].min() < 50  # pupil
        assert luma[y + 12 : y + 18, x - 3 : x + 4].mean() > 110  # skin under the eye


def test_view_turns_as_documented(person):
    nose = lambda view: render(person, view, SIZE, supersample=1).landmarks["nose_tip"]
    front = nose(View())
    assert nose(View(yaw=10))[0] > front[0] + 1
    assert nose(View(pitch=6))[1] > front[1] + 0.5
    assert nose(View(roll=4))[0] < front[0] - 0.5  # the chin swings left when the head leans right
    assert nose(View(shift=(0.05, 0.0)))[0] == pytest.approx(front[0] + 0.05 * SIZE, abs=1e-3)


def test_light_comes_from_where_it_stands(person):
    lit = {}
    for sign in (-1, 1):
        view = View(lights=(((sign, 0.1, 0.5), (0.8, 0.8, 0.8)),))
        lit[sign] = render(person, view, SIZE, supersample=1).image.mean(-1)
    cheek = np.s_[36:44]
    assert lit[1][cheek, 40:50].mean() > 1.2 * lit[-1][cheek, 40:50].mean()
    assert lit[-1][cheek, 14:24].mean() > 1.2 * lit[1][cheek, 14:24].mean()


def test_exposure_and_white_balance(person):
    gray = render(person, View(), 32).image.astype(float)
    assert render(person, View(exposure=0.5), 32).image.mean() < 0.85 * gray.mean()
    warm = render(person, View(white_balance=(1.2, 1.0, 0.8)), 32).image.astype(float)
    assert warm[..., 0].mean() > gray[..., 0].mean() + 5
    assert warm[..., 2].mean() < gray[..., 2].mean() - 5
    np.testing.assert_allclose(warm[..., 1], gray[..., 1], atol=1)


def test_severity_changes_the_mouth_and_nothing_else(person):
    plain = render(person, View(), SIZE)
    changed = difference(plain, render(cleft(person, 1.0), View(), SIZE)) > 0
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert rows.min() > 0.46 * SIZE and rows.max() < 0.82 * SIZE
    assert columns.min() > 0.28 * SIZE and columns.max() < 0.75 * SIZE


@pytest.mark.parametrize("size,least", [(64, 12), (32, 3)])
def test_cleft_grows_with_severity_and_shows(person, size, least):
    plain = render(person, View(), size, supersample=4)
    area = [
        (difference(plain, render(cleft(person, severity), View(), size, supersample=4)) > 40).sum()
        for severity in (0.1, 0.25, 0.4, 0.6, 0.8, 1.0)
    ]
    assert all(a <= b for a, b in zip(area, area[1:])), area
    assert area[-1] > 1.5 * area[2] and area[2] >= least, area


def test_side_flips(person):
    plain = render(person, View(), SIZE)
    middle = {}
    for side in ("left", "right"):
        changed = difference(plain, render(cleft(person, 0.7, side), View(), SIZE)) > 40
        middle[side] = np.nonzero(changed)[1].mean() + 0.5
    nose = plain.landmarks["nose_tip"][0]
    assert middle["right"] < nose - 1 and middle["left"] > nose + 1


def test_cleft_leaves_the_landmarks(person):
    plain = render(person, View(), 32).landmarks
    severe = render(cleft(person, 1.0), View(), 32).landmarks
    for name in ("left_eye", "right_eye", "left_mouth_corner", "right_mouth_corner"):
        assert plain[name] == severe[name]


def test_cleft_is_drawn_apart_from_the_person():
    plain, with_cleft = draw_subject(11), draw_subject(11, cleft=True)
    assert plain == dataclasses.replace(with_cleft, severity=0.0, side="none")
    assert len(plain.shape) == 2 * len(IDENTITY)
    hash(with_cleft), hash(draw_view(1))


def test_spread_of_people():
    people = [draw_subject(seed, cleft=True) for seed in range(400)]
    severity = np.array([person.severity for person in people])
    assert severity.min() > 0.1 and severity.max() <= 1 and severity.max() > 0.9
    assert abs(severity.mean() - 0.51) < 0.05
    assert abs(np.mean([person.side == "left" for person in people]) - 2 / 3) < 0.08
    melanin = np.array([person.melanin for person in people])
    assert melanin.std() > 0.2
    assert abs(np.corrcoef(severity, melanin)[0, 1]) < 0.15
    views = [draw_view(seed) for seed in range(400)]
    for name, limit in (("yaw", 12), ("pitch", 6), ("roll", 4)):
        values = np.abs([getattr(view, name) for view in views])
        assert limit * 0.7 < values.max() <= limit


def test_smile_lifts_the_corners(person):
    plain = render(person, View(), SIZE, supersample=1).landmarks
    smiling = render(dataclasses.replace(person, smile=1.0), View(), SIZE, supersample=1).landmarks
    wide = lambda at: at["left_mouth_corner"][0] - at["right_mouth_corner"][0]
    assert wide(smiling) > wide(plain) + 1
