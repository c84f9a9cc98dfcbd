import drawn
import numpy as np
import pytest

from jaxface.faces import detect


def test_anchors_lie_in_the_middle_of_their_cells():
    anchors = detect.anchors()
    assert anchors.shape == (896, 2)
    np.testing.assert_array_equal(anchors[[0, 1, 2, 32]], [[8, 8], [8, 8], [24, 8], [8, 24]])
    np.testing.assert_array_equal(
        anchors[[512, 517, 518, 895]], [[16, 16]] * 2 + [[48, 16], [240, 240]]
    )


@pytest.mark.parametrize("size", [96, 256, 900])
def test_finds_the_eyes(size):
    (face,) = detect.detect([drawn.face(size)])[0]
    assert face.score > 0.7
    error = np.abs(face.keypoints[:2] / size - drawn.EYES).max()
    assert error < 0.04 * drawn.WIDTH
    left, top, right, bottom = face.box / size
    assert left < 0.415 < 0.585 < right and top < 0.46 and bottom > 0.685


def test_place_in_a_wide_picture_and_largest_first():
    picture = np.full((300, 800, 3), 190, np.uint8)
    picture[100:228, 40:168] = drawn.face(128)
    picture[20:276, 500:756] = drawn.face(256)
    first, second = detect.detect([picture])[0]
    np.testing.assert_allclose(first.keypoints[:2], [500, 20] + 256 * drawn.EYES, atol=8)
    np.testing.assert_allclose(second.keypoints[:2], [40, 100] + 128 * drawn.EYES, atol=8)


def test_nothing_on_pictures_without_a_face():
    noise = np.random.default_rng(0).integers(0, 256, (64, 200, 3), dtype=np.uint8)
    assert detect.detect([np.full((100, 100, 3), 128, np.uint8), noise]) == [[], []]
    assert detect.detect([]) == []


def test_batches_are_filled_up_without_a_trace():
    sizes = []

    def network(batch):
        sizes.append(len(batch))
        value = batch[:, 0, 0, 0].astype(float)
        return value, -value

    inputs = [np.full((2, 2, 3), i, np.uint8) for i in range(5)]
    ups, downs = detect.batched(network, inputs, 2)
    np.testing.assert_array_equal(ups, np.arange(5))
    np.testing.assert_array_equal(downs, -np.arange(5))
    assert sizes == [detect.BATCH] * 3


def test_boxes_of_one_face_are_blended_by_score():
    points = np.zeros((3, 8, 2))
    points[:, 0] = [[0, 0], [2, 0], [50, 50]]
    points[:, 1] = [[10, 10], [12, 10], [59, 59]]
    best, other = detect._suppress(points, np.array([0.6, 0.9, 0.7]), 0.5)
    np.testing.assert_allclose(best.box, [1.2, 0, 11.2, 10])
    np.testing.assert_allclose([best.score, other.score], [0.9, 0.7])
    assert not detect._suppress(points, np.array([0.6, 0.9, 0.7]), 0.95)
