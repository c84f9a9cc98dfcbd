import drawn
import numpy as np
import pytest

from jaxface.faces import detect, mesh, regions


@pytest.fixture(scope="module")
def points():
    image = drawn.face(256)
    return mesh.landmarks(image, detect.detect([image])[0][0])


def test_skin(points):
    mask = regions.skin_mask(points, 256, 256)
    assert mask.dtype == bool and mask.shape == (256, 256)
    cheek, forehead, chin = (105, 155), (128, 95), (128, 190)
    inside = [mask[y, x] for x, y in (cheek, forehead, chin)]
    right, left, mouth = mesh.centers(points).astype(int)
    outside = [mask[y, x] for x, y in (right, left, mouth, (128, 10), (20, 128))]
    assert all(inside) and not any(outside)
    truth = np.pi * 0.21 * 0.29 * 0.75 * 256**2  # the face's ellipse below the hairline
    assert 0.6 * truth < mask.sum() < 1.2 * truth


def test_masks_scale_with_the_picture(points):
    small = regions.skin_mask(points / 2, 128, 128)
    large = regions.skin_mask(points, 256, 256)
    assert abs(4 * small.sum() / large.sum() - 1) < 0.05


def test_head_holds_the_face_and_hair_and_fades(points):
    head = regions.head_mask(points, 256, 256)
    skin = regions.skin_mask(points, 256, 256)
    assert head[skin].min() > 0.9 and head[skin].mean() > 0.99
    assert head[128, 5] == 0 and head[128, 250] == 0
    assert head[45, 128] > 0.9  # hair above the forehead
    assert np.abs(np.diff(head, axis=1)).max() < 0.1
    assert ((head > 0.05) & (head < 0.95)).any()


def test_outline_may_leave_the_picture(points):
    assert regions.skin_mask(points - [128, 0, 0], 256, 256).any()
    assert not regions.skin_mask(points + [999, 0, 0], 256, 256).any()
    assert regions.head_mask(points - [128, 90, 0], 100, 60).shape == (100, 60)


def test_cheeks_lie_between_lid_nose_mouth_and_jaw(points):
    right, left = regions.cheeks(points, 256, 256)
    skin = regions.skin_mask(points, 256, 256)
    eye, other_eye, mouth = mesh.centers(points)
    for cheek, alar, corner, side in ((right, 129, 61, -1), (left, 358, 291, 1)):
        assert cheek.dtype == bool and cheek.shape == (256, 256)
        rows, columns = np.nonzero(cheek)
        assert not (cheek & ~skin).any()
        assert rows.min() > max(eye[1], other_eye[1]) and rows.max() < points[corner, 1]
        beside = rows > points[alar, 1]  # the nose narrows above its wing
        assert beside.any() and ((columns[beside] - points[alar, 0]) * side > 0).all()
        assert ((columns - points[4, 0]) * side > 0.05 * 256 * drawn.WIDTH).all()
        face = np.pi * 0.21 * 0.29 * 256**2
        assert 0.04 < cheek.sum() / face < 0.15
    assert abs(right.sum() / left.sum() - 1) < 0.1  # the drawn face is symmetric


def test_cheeks_are_eroded_by_a_share_of_the_face(points):
    square = points.copy()
    corners = np.array([[40, 60], [40, 110], [90, 110], [90, 60]], float)
    square[list(regions.RIGHT_CHEEK), :2] = corners[[0, 1, 2] + [3] * 11]
    square[[234, 454], :2] = [[30, 100], [230, 100]]  # 200 px wide: 4 px on every side
    right, _ = regions.cheeks(square, 256, 256)
    assert abs(right.sum() - 42**2) <= 2 * 43
    assert regions.face_width(square) == 200


def test_cheeks_outside_the_picture_are_empty(points):
    right, left = regions.cheeks(points - [200, 0, 0], 256, 256)
    assert not right.any() and right.shape == left.shape == (256, 256)
