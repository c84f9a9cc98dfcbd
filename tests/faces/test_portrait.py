import cv2
import drawn
import numpy as np
import pytest

from jaxface.faces import mesh, portrait, prepare, regions

SIDE = 1100  # px, at which the drawn face is over 400 px wide


@pytest.fixture(scope="module")
def face():
    """The drawn face, which is soft, with fine lines over eyes and lips, so that it is sharp there."""
    image = drawn.face(SIDE)
    for (x, y), a, b in ((drawn.EYES[0], 45, 25), (drawn.EYES[1], 45, 25), (drawn.MOUTH, 70, 26)):
        x, y = int(x * SIDE), int(y * SIDE)
        lines = image[y - b : y + b, x - a : x + a]
        lines[:, ::8] //= 2
        lines[:, 1::8] //= 2
        lines[:, 2::8] //= 2
    return image


@pytest.fixture(scope="module")
def plain(face):
    return portrait.portrait(face)


def heard(found: portrait.Portrait) -> str:
    return " | ".join(found.warnings)


def test_a_bare_face_is_skin(face, plain):
    assert plain.landmarks.shape == (468, 3)
    np.testing.assert_allclose(mesh.centers(plain.landmarks)[:2] / SIDE, drawn.EYES, atol=0.02)
    np.testing.assert_allclose(plain.face_width / SIDE, drawn.WIDTH, rtol=0.1)
    assert plain.mask.shape == (SIDE, SIDE) and plain.mask.dtype == bool
    assert plain.covered < 0.06 and plain.warnings == ()
    meant = regions.skin_mask(plain.landmarks, SIDE, SIDE)
    assert not (plain.mask & ~meant).any()
    np.testing.assert_allclose(1 - plain.mask.sum() / meant.sum(), plain.covered, atol=0.01)


def test_ita_is_that_of_the_skin():
    for skin in ((215, 165, 140), (120, 75, 50)):
        image = drawn.face(400, skin=skin)
        lab = cv2.cvtColor(np.float32([[skin]]) / 255, cv2.COLOR_RGB2LAB)[0, 0]
        expected = np.rad2deg(np.arctan2(lab[0] - 50, lab[2]))
        # The drawing's light raises the skin by up to 2 %.
        assert abs(portrait.portrait(image).ita - expected) < 6


@pytest.mark.parametrize(
    "word, top, bottom",
    [("hair", 0.30, 0.40), ("glasses", 0.43, 0.55), ("beard", 0.62, 0.80)],
)
def test_a_cover_is_left_out_and_named_by_its_place(face, plain, word, top, bottom):
    cover = np.zeros((SIDE, SIDE), bool)
    cover[int(top * SIDE) : int(bottom * SIDE)] = True
    meant = regions.skin_mask(plain.landmarks, SIDE, SIDE)
    small = 4  # as `portrait` does: looked at in a small copy
    image = np.where((cover & meant)[..., None], (25, 22, 20), face).astype(np.uint8)
    image = cv2.resize(image, (SIDE // small,) * 2, interpolation=cv2.INTER_AREA)
    points = plain.landmarks[:, :2] / small
    region = regions.skin_mask(points, *image.shape[:2])
    other = portrait.foreign(image, region, points)
    truth = cover[::small, ::small] & region
    assert (other & truth).sum() / (other | truth).sum() > 0.8
    warning = portrait._of_cover(other, region, points, other.sum() / region.sum())
    assert len(warning) == 1 and word in warning[0] and "%" in warning[0]
    assert len({"hair at", "glasses", "beard"} & set(warning[0].split())) <= 1


def test_glasses_in_a_photograph(face):
    image = face.copy()
    for x in (0.415, 0.585):
        center = (int(x * SIDE), int(0.465 * SIDE))
        cv2.ellipse(
            image, center, (int(0.08 * SIDE), int(0.07 * SIDE)), 0, 0, 360, (15, 15, 18), -1
        )
    found = portrait.portrait(image)
    assert found.covered > 0.12 and "glasses" in heard(found)
    assert not found.mask[int(0.50 * SIDE), int(0.415 * SIDE)]


def test_spots_redness_and_shade_stay(face, plain):
    rng = np.random.default_rng(0)
    image = face.astype(np.float32)
    freckles = np.zeros((SIDE, SIDE), np.float32)
    for y, x in rng.integers(0, SIDE, (600, 2)):
        cv2.circle(freckles, (int(x), int(y)), 4, 1, -1)
    image *= 1 - 0.3 * freckles[..., None]
    x = np.linspace(0, 1, SIDE)[None, :, None]
    image *= np.clip(1.4 - 1.0 * x, 0.5, 1)  # one side has half the light
    image[..., 1:] *= 0.9
    found = portrait.portrait(np.clip(image, 0, 255).astype(np.uint8))
    assert found.covered < 0.1


def test_gloss_stays_and_a_white_mask_does_not(plain):
    """Gloss adds white light to skin that is still under it; a mask is white alone."""
    small = drawn.face(SIDE // 4, skin=(120, 75, 50)).astype(np.float32)
    points = plain.landmarks[:, :2] / 4
    region = regions.skin_mask(points, *small.shape[:2])
    place = region & (np.arange(len(small)) > 0.60 * len(small))[:, None]
    cover = np.where(place[..., None], (235, 238, 240), small).astype(np.uint8)
    other = portrait.foreign(cover, region, points)
    assert (other & place).sum() > 0.9 * place.sum()
    shine = region & (np.arange(len(small)) < 0.42 * len(small))[:, None]
    glossy = np.clip(small + 60 * shine[..., None], 0, 255).astype(np.uint8)
    assert portrait.foreign(glossy, region, points).sum() < 0.05 * region.sum()


def test_a_users_mask_is_taken_at_its_word(face):
    mine = np.zeros((SIDE, SIDE), bool)
    mine[int(0.2 * SIDE) : int(0.6 * SIDE), int(0.4 * SIDE) : int(0.6 * SIDE)] = True
    found = portrait.portrait(face, mine)
    np.testing.assert_array_equal(found.mask, mine)
    assert 0.1 < found.covered < 0.6  # the hair in it
    with pytest.raises(ValueError, match="mask"):
        portrait.portrait(face, mine[1:])


def test_no_face_and_many(face):
    blank = np.full((80, 120, 3), 90, np.uint8)
    with pytest.raises(prepare.NoFaceError, match="no face"):
        portrait.portrait(blank)
    small = drawn.face(300)
    found = portrait.portraits([blank, small, blank])
    assert [one is None for one in found] == [True, False, True]
    assert found[1].mask.shape == (300, 300)
    np.testing.assert_allclose(
        found[1].landmarks, portrait.portrait(small).landmarks, atol=1e-3 * 300
    )


def test_says_what_is_wrong_with_a_photograph(face):
    assert "px wide" in heard(portrait.portrait(drawn.face(400)))
    assert "blurred, by about" in heard(portrait.portrait(drawn.face(SIDE)))
    crowd = np.full((SIDE, 2 * SIDE, 3), 205, np.uint8)
    crowd[:, :SIDE] = face
    other = drawn.face(SIDE // 2)
    crowd[200 : 200 + len(other), SIDE + 100 : SIDE + 100 + len(other)] = other
    found = portrait.portrait(crowd)
    assert "2 faces" in heard(found) and mesh.centers(found.landmarks)[0, 0] < SIDE


def test_yaw_is_signed_by_the_hidden_cheek():
    points = np.zeros((468, 3))
    right, left = portrait.SIDES
    points[right], points[left] = [0, 0, -30], [100, 0, 30]  # z grows away from the camera
    assert portrait.yaw(points) == pytest.approx(np.rad2deg(np.arctan(1.3 * 0.6)))
    assert "left cheek" in portrait._of_pose(points)[0]
    points[:, 2] *= -1
    assert "right cheek" in portrait._of_pose(points)[0]
    points[:, 2] *= 0.5
    assert portrait._of_pose(points) == []


@pytest.mark.parametrize("blur", [1.5, 3.0])
def test_edge_width_of_a_known_blur(blur):
    image = np.zeros((200, 200, 3), np.uint8)
    image[:, np.arange(200) % 24 < 12] = 200
    image = cv2.GaussianBlur(image, (0, 0), blur)
    corners = np.array([[20, 20], [180, 20], [180, 180], [20, 180]], np.float64)
    assert portrait.edge_width(image, corners) == pytest.approx(blur, rel=0.2)
