import drawn
import numpy as np
import pytest

from jaxface.faces import align, mesh
from jaxface.faces.resample import resample


def points_at(eyes, mouth):
    """A mesh of which only eyes and mouth are known."""
    points = np.zeros((468, 3))
    for group, place in zip((mesh.RIGHT_EYE, mesh.LEFT_EYE, mesh.MOUTH_CORNERS), (*eyes, mouth)):
        points[list(group), :2] = place
    return points


def scale(factor, shift=0.0):
    return np.array([[factor, 0, shift], [0, factor, shift]])


def test_frame_undoes_a_similarity():
    angle, size = 0.3, 64
    turn = 2.5 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = align.FRAME * size @ turn.T + [40, 9]
    matrix = align.frame_of(points_at(moved[:2], moved[2]), size)
    np.testing.assert_allclose(matrix, np.column_stack([turn, [40, 9]]), atol=1e-9)
    back = align.to_frame(np.column_stack([moved, [2.5, 5, 0]]), matrix)
    np.testing.assert_allclose(back[:, :2], align.FRAME * size, atol=1e-9)
    np.testing.assert_allclose(back[:, 2], [1, 2, 0], atol=1e-9)


def test_long_face_is_not_stretched():
    eyes, mouth = np.array([[33.0, 40], [67, 40]]), np.array([50.0, 80])
    matrix = align.frame_of(points_at(eyes, mouth), 100)
    np.testing.assert_allclose(matrix[:, :2] / matrix[0, 0], np.eye(2), atol=1e-9)
    placed = mesh.centers(align.to_frame(points_at(eyes, mouth), matrix))
    np.testing.assert_allclose(placed.mean(axis=0), align.FRAME.mean(axis=0) * 100, atol=1e-9)
    assert 0.70 < placed[2, 1] / 100 < 0.78


def test_resample_identity_enlargement_and_shift():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resample(image, scale(1), 9), image)
    np.testing.assert_array_equal(resample(image, scale(1, 2.0), 5), image[2:7, 2:7])
    ramp = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None, :, None], 16, axis=0)
    twice = resample(ramp, scale(0.5), 32)[16, 4:28, 0].astype(int)  # pixel i is at (i + .5) / 2
    expected = 10 * ((np.arange(4, 28) + 0.5) / 2 - 0.5)
    np.testing.assert_allclose(twice, expected, atol=1)


@pytest.mark.parametrize("factor", [1.5, 2.0, 3.7, 16.0])
def test_shrinking_averages_instead_of_aliasing(factor):
    y, x = np.mgrid[:640, :640]
    stripes = np.where((x + y) % 2, 255, 0).astype(np.uint8)[..., None].repeat(3, -1)
    small = resample(stripes, scale(factor), int(640 / factor) - 2).astype(float)
    assert np.abs(small[2:-2, 2:-2] - 127.5).max() < (40 if factor < 2 else 6)
    half = np.where(x < 320, 0, 255).astype(np.uint8)[..., None].repeat(3, -1)
    edge = resample(half, scale(factor), int(640 / factor))[5, :, 0].astype(float) / 255
    np.testing.assert_allclose((1 - edge).sum() * factor, 320, atol=0.2 * factor)  # nothing moves


def test_beyond_the_edge_is_mirrored_then_blurred_then_one_color():
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, (128, 128, 3), dtype=np.uint8)
    plain = align.align_by(image, scale(1.0), 128)
    np.testing.assert_array_equal(plain, image)
    out = align.align_by(image, scale(1.0, -64.0), 192).astype(float)
    np.testing.assert_array_equal(out[64:, 64:], image)
    roughness = lambda a: np.abs(np.diff(a[..., 0], axis=1)).mean()
    assert roughness(out[70:, 40:54]) < 0.3 * roughness(image.astype(float))
    assert roughness(out[70:, :10]) < 0.5
    assert np.abs(out[70:, 60:64].mean() - image[6:, :4].mean()) < 6  # continues at the edge


def test_eyes_come_to_their_place():
    image, matrix = drawn.turn(drawn.face(256), 12, 0.7)
    points = points_at(drawn.move(256 * drawn.EYES, matrix), drawn.move(256 * drawn.MOUTH, matrix))
    aligned = align.align(image, points, 64).astype(float).mean(axis=-1)
    straight = align.align(drawn.face(256), points_at(256 * drawn.EYES, 256 * drawn.MOUTH), 64)
    assert np.abs(aligned - straight.mean(axis=-1))[8:56, 8:56].mean() < 6
    for x in (0.33, 0.67):  # pupils are the darkest place around each eye
        row, column = int(0.41 * 64), int(x * 64)
        window = aligned[row - 4 : row + 5, column - 5 : column + 6]
        dark = np.unravel_index(window.argmin(), window.shape)
        assert abs(dark[0] - 4) <= 2 and abs(dark[1] - 5) <= 2
