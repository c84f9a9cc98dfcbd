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
