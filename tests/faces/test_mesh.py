import drawn
import numpy as np
import pytest

from jaxface.faces import detect, mesh


def find(image):
    return mesh.landmarks(image, detect.detect([image])[0][0])


def test_eyes_and_mouth():
    points = find(drawn.face(256))
    assert points.shape == (468, 3)
    right, left, mouth = mesh.centers(points) / 256
    assert np.abs([right, left] - drawn.EYES).max() < 0.04 * drawn.WIDTH
    assert np.abs(mouth - drawn.MOUTH).max() < 0.04 * drawn.WIDTH
    nose, ear = points[1, 2], points[234, 2]
    assert nose < ear  # depth grows away from the camera


@pytest.mark.parametrize("degrees,scale", [(25, 0.8), (-30, 0.6)])
def test_turns_with_the_picture(degrees, scale):
    image = drawn.face(256)
    turned, matrix = drawn.turn(image, degrees, scale)
    expected = drawn.move(find(image)[:, :2], matrix)
    error = np.linalg.norm(find(turned)[:, :2] - expected, axis=1)
    assert error.mean() < 0.03 * scale * drawn.WIDTH * 256


def test_many_equal_one_by_one_and_none():
    images = [drawn.face(256), drawn.face(100)]
    faces = [found[0] for found in detect.detect(images)]
    points, scores = mesh.landmarks_of(images, faces)
    assert (scores > 0.9).all()
    for image, face, one in zip(images, faces, points):
        np.testing.assert_allclose(mesh.landmarks(image, face), one, atol=0.01)
    assert mesh.landmarks_of([], [])[0].shape == (0, 468, 3)


def test_second_look_is_wider_and_kept_if_better(monkeypatch):
    widths = []

    def run(images, crops):
        widths.extend(float(np.hypot(*crop[:, 0])) for crop in crops)
        score = {1: 0.3, 2: 0.4}.get(len(widths), 0.1)
        return np.full((len(crops), 468, 3), float(len(widths))), np.full(len(crops), score)

    monkeypatch.setattr(mesh, "_run", run)
    image = drawn.face(256)
    face = detect.Detection(np.array([80.0, 80, 180, 180]), np.eye(6, 2) * 50, 0.9)
    points, scores = mesh.landmarks_of([image], [face])
    np.testing.assert_allclose(np.array(widths) * 192, [150, 200])
    assert scores == [0.4] and (points == 2).all()


def test_looking_again_steadies_the_points(monkeypatch):
    image = drawn.face(256)
    face = detect.detect([image])[0][0]
    shifted = face._replace(box=face.box + [12, -8, 12, -8])
    spread = []
    for looks in (0, mesh.LOOKS):
        monkeypatch.setattr(mesh, "LOOKS", looks)
        spread.append(np.abs(mesh.landmarks(image, face) - mesh.landmarks(image, shifted)).mean())
    assert spread[1] < 0.5 * spread[0]
