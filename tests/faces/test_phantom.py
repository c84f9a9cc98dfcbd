"""Detector, mesh and alignment on rendered heads, whose landmarks are known."""

import numpy as np
import pytest

from jaxface.faces import align, detect, mesh, prepare
from jaxface.phantom import render


@pytest.fixture(scope="module")
def pictures():
    return [
        render.render(render.draw_subject(seed, cleft=seed % 2 == 1), render.draw_view(seed), 128)
        for seed in range(6)
    ]


def truth(picture):
    """Right eye, left eye and middle of the mouth [3, 2] in px."""
    at = {name: np.array(place) for name, place in picture.landmarks.items()}
    mouth = (at["right_mouth_corner"] + at["left_mouth_corner"]) / 2
    return np.stack([at["right_eye"], at["left_eye"], mouth])


def test_eyes_within_four_percent_of_the_width(pictures):
    images = [picture.image for picture in pictures]
    found = detect.detect(images)
    assert all(found)
    points, scores = mesh.landmarks_of(images, [faces[0] for faces in found])
    assert scores.min() > 0.9
    for picture, one in zip(pictures, points):
        width = np.ptp(one[list(mesh.OVAL), 0])
        errors = np.linalg.norm(mesh.centers(one) - truth(picture), axis=1) / width
        assert errors[:2].mean() < 0.04 and errors[2] < 0.06


def test_prepared_heads_are_in_the_frame(pictures):
    for picture, result in zip(pictures, prepare.prepare_all([p.image for p in pictures], 64)):
        one = mesh.landmarks(picture.image, detect.detect([picture.image])[0][0])
        matrix = align.frame_of(one, 64)
        placed = align.to_frame(np.column_stack([truth(picture), np.zeros(3)]), matrix)[:, :2] / 64
        assert np.abs(placed - align.FRAME).max() < 0.04
        assert result.image.shape == (64, 64, 3)
