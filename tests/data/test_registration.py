"""Shifts, turns and strangers among photograph pairs, on rendered pairs whose registration is exact."""

import functools

import cv2
import numpy as np
import pytest

from jaxface.data import registration
from jaxface.data.registration import limit, moved_back, register
from jaxface.faces.portrait import portrait
from jaxface.phantom import skin, uv
from jaxface.phantom.people import draw_subject


@functools.cache
def pair(seed, side=288):
    subject = draw_subject(seed)
    taken = uv.photograph(subject, skin.draw_marks(subject), uv.device_view(seed), side)
    face = portrait(taken.color)
    return taken.color, taken.uv, face.landmarks, face.face_width


def warped(image, matrix):
    return cv2.warpAffine(
        image,
        np.float32(matrix),
        image.shape[:2][::-1],
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT,
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("rows,columns", [(0, 0), (0.5, -1.3), (9, -6)])
def test_shifts_are_measured(seed, rows, columns):
    color, gray, landmarks, width = pair(seed)
    shifted = warped(gray, [[1, 0, columns], [0, 1, rows]])
    fit = register(color, shifted, landmarks)
    np.testing.assert_allclose(fit.shift, (rows, columns), atol=0.2)
    assert abs(fit.misfit - np.hypot(rows, columns)) < 0.5
    assert fit.match > 0.6
    back = moved_back(shifted, fit.shift)
    assert register(color, back, landmarks).misfit < 0.5 < limit(width)
    inner = (slice(40, -40),) * 2
    assert np.abs(back[inner].astype(float) - gray[inner]).mean() < 1.5


def test_large_photographs_are_measured_in_their_own_px(monkeypatch):
    color, gray, landmarks, _ = pair(1)
    monkeypatch.setattr(registration, "WORK", 100)  # half of the face's width and less
    fit = register(color, warped(gray, [[1, 0, 6], [0, 1, 0]]), landmarks)
    np.testing.assert_allclose(fit.shift, (0, 6), atol=0.5)
    assert abs(fit.misfit - 6) < 1
    assert limit(500) == 2 and limit(3000) == 6


@pytest.mark.parametrize("degrees,scale", [(3, 1), (-3, 1), (0, 1.05)])
def test_turned_and_scaled_ones_do_not_fit(degrees, scale):
    color, gray, landmarks, width = pair(2)
    middle = tuple(float(x) for x in landmarks[[33, 263], :2].mean(axis=0))
    turned = warped(gray, cv2.getRotationMatrix2D(middle, degrees, scale))
    fit = register(color, turned, landmarks)
    assert fit.misfit > limit(width)
    assert np.hypot(*fit.shift) < fit.misfit


@pytest.mark.parametrize("side", [slice(None, 144), slice(144, None)])
def test_one_half_is_enough(side):
    color, gray, landmarks, width = pair(1)
    torn = gray.copy()
    torn[:, side] = np.roll(gray, 4, axis=0)[:, side]
    assert register(color, torn, landmarks).misfit > 3.5 > limit(width)


def test_another_person_does_not_fit():
    color, _, landmarks, width = pair(1)
    for seed in (2, 3):
        fit = register(color, pair(seed)[1], landmarks)
        assert fit.misfit > limit(width) or fit.match < registration.MATCH


def test_nothing_in_common():
    color, gray, landmarks, _ = pair(1)
    noise = np.random.default_rng(0).integers(0, 256, gray.shape, dtype=np.uint8)
    assert register(color, noise, landmarks).match < registration.MATCH
    assert register(color, np.full_like(gray, 90), landmarks).match < registration.MATCH
