import math

import cv2
import numpy as np
import pytest

from jaxface.metrics import spot_ratio, spots

SIDE, FACE = 512, 400  # px; the finest spots have a sigma of 0.8 px
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
SKIN = ((COLUMNS - 256) / 200) ** 2 + ((ROWS - 256) / 245) ** 2 < 1
SHADE = 1 + 0.3 * np.sin(COLUMNS / 90) * np.cos(ROWS / 110)


def drawn(radii, contrast=(0.15, 0.4), noise=1.0, gain=1.0, shade=SHADE, seed=0):
    """A face of even skin with soft dark disks on a grid: photograph and which px they cover."""
    rng = np.random.default_rng(seed)
    places = [(y, x) for y in range(40, 480, 24) for x in range(40, 480, 24) if SKIN[y, x]]
    truth, pigment = np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE))
    for (y, x), radius in zip(rng.permutation(places), radii):
        disk = np.hypot(ROWS - y, COLUMNS - x) <= radius
        truth |= disk
        pigment[disk] = rng.uniform(*contrast)
    gray = gain * 120 * shade * (1 - cv2.GaussianBlur(pigment, (0, 0), 0.8))
    gray = np.where(SKIN, gray, 5) + rng.normal(0, noise, gray.shape)
    return np.clip(np.rint(gray), 0, 255).astype(np.uint8), truth & SKIN


@pytest.fixture(scope="module")
def detector():
    pictures = [drawn(np.linspace(2, 8, 60), seed=seed)[0] for seed in (7, 8)]
    return spots.fit(pictures, [FACE] * 2, [SKIN] * 2)


def test_spots_are_found_at_their_place_and_size(detector):
    gray, truth = drawn(np.linspace(2.5, 8, 60))
    found = detector(gray, FACE, SKIN)
    assert found.dtype == bool and found.shape == gray.shape and not (found & ~SKIN).any()
    assert (found & truth).sum() > 0.93 * found.sum()
    assert (found & truth).sum() > 0.9 * truth.sum()
    assert abs(spot_ratio(found, SKIN) / spot_ratio(truth, SKIN) - 1) < 0.1


def test_area_depends_little_on_contrast(detector):
    areas = [
        detector(drawn([5] * 60, contrast=(c, c), noise=0.5)[0], FACE, SKIN).sum()
        for c in (0.12, 0.25, 0.5)
    ]
    assert np.ptp(areas) < 0.08 * areas[0]


def test_gain_and_slow_shading_change_little(detector):
    radii = np.linspace(2.5, 8, 60)
    first = detector(drawn(radii, noise=0.5)[0], FACE, SKIN)
    for other in (
        drawn(radii, noise=0.5, gain=0.7)[0],
        drawn(radii, noise=0.5, shade=SHADE[::-1, ::-1])[0],
        drawn(radii, noise=0.5, shade=1.2 - 0.5 * COLUMNS / SIDE)[0],
    ):
        second = detector(other, FACE, SKIN)
        assert 2 * (first & second).sum() > 0.95 * (first.sum() + second.sum())
        assert abs(second.sum() / first.sum() - 1) < 0.04


def test_response_is_proportional_to_contrast_and_free_of_gain():
    gray = np.full((SIDE, SIDE), 200.0)
    disk = np.hypot(ROWS - 200, COLUMNS - 300) <= 3
    half, tenth = (np.where(disk, 200 * (1 - c), gray) for c in (0.5, 0.1))
    d = spots.response(half, FACE, SKIN)
    assert d.dtype == np.float32 and d.argmax() == 200 * SIDE + 300 and 0.25 < d.max() < 0.3
    np.testing.assert_allclose(spots.response(half / 4, FACE, SKIN), d, atol=1e-5)
    assert abs(spots.response(tenth, FACE, SKIN).max() / d.max() - 0.2) < 0.01
    assert np.abs(spots.response(gray, FACE, SKIN)).max() < 1e-5  # the edge of the skin is no spot


def test_response_equals_slow_differences_of_gaussians():
    def gaussian(x, sigma):
        reach = int(6 * sigma) + 1
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        kernel /= kernel.sum()
        rows = np.apply_along_axis(np.convolve, 1, x, kernel, "same")
        return np.apply_along_axis(np.convolve, 0, rows, kernel, "same")

    face = 900
    flat = 1 - 0.3 * np.exp(-((ROWS - 250) ** 2 + (COLUMNS - 260) ** 2) / (2 * 3.0**2))
    sigmas = [0.002 * face * k for k in (1, 1.4, 2, 2.8, 4)]
    blurred = [gaussian(flat, s)[200:300, 210:310] for s in sigmas]
    expected = np.max(
        [(b - a) / (t / s - 1) for a, b, s, t in zip(blurred, blurred[1:], sigmas, sigmas[1:])], 0
    )
    # One spot darkens the shading of 45 px around it by 0.4 %.
    actual = spots.response(100 * flat, face)[200:300, 210:310]
    np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_the_smallest_spots_survive(detector):
    gray, truth = drawn([2] * 60, contrast=(0.25, 0.25))
    found = detector(gray, FACE, SKIN)
    count, labels = cv2.connectedComponents(truth.astype(np.uint8))
    hit = [found[labels == k].any() for k in range(1, count)]
    assert np.mean(hit) > 0.97


def test_moles_and_specks_are_left_out(detector):
    gray = np.full((SIDE, SIDE), 150.0)
    mole = np.hypot(ROWS - 256, COLUMNS - 256) <= 12  # 0.3 % of the face
    spot = np.hypot(ROWS - 150, COLUMNS - 256) <= 7
    gray[mole], gray[spot], gray[400, 200] = 90, 110, 120
    found = detector(gray, FACE, SKIN)
    assert not found[mole].any() and not found[395:405, 195:205].any()
    assert found[spot].mean() > 0.9


@pytest.mark.parametrize("turn", [0, 30, 45])
def test_creases_are_left_out_and_oval_spots_are_not(detector, turn):
    gray = np.full((SIDE, SIDE), 150, np.float32)
    cv2.ellipse(gray, (256, 150), (30, 2), turn, 0, 360, 110, -1)
    cv2.ellipse(gray, (256, 350), (8, 5), turn, 0, 360, 110, -1)
    found = detector(cv2.GaussianBlur(gray, (0, 0), 0.8), FACE, SKIN)
    assert not found[:250].any() and found[340:361, 245:268].sum() > 100


def test_even_noisy_skin_has_next_to_no_spots():
    photographs = [drawn([], noise=2, seed=seed)[0] for seed in range(3)]
    detector = spots.fit(photographs[:2], [FACE] * 2, [SKIN] * 2)
    assert spot_ratio(detector(photographs[2], FACE, SKIN), SKIN) < 0.005


def test_same_detector_at_twice_the_resolution(detector):
    gray, truth = drawn([5] * 60, noise=0)
    size = (3 * SIDE, 3 * SIDE)
    large = cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC)
    valid = cv2.resize(SKIN.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    small, found = detector(gray, FACE, SKIN), detector(large, 3 * FACE, valid)
    assert found.shape == large.shape
    assert abs(found.sum() / 9 / small.sum() - 1) < 0.06


def test_threshold_is_that_of_the_skin_between_spots():
    plain = [drawn([], seed=seed)[0] for seed in range(3)]
    spotted = [drawn([4] * 60, seed=seed)[0] for seed in range(3)]
    few, many = (spots.fit(iter(p), [FACE] * 3, [SKIN] * 3).threshold for p in (plain, spotted))
    assert few < many < 1.3 * few
    values = np.concatenate([spots.response(p, FACE, SKIN)[SKIN] for p in plain])
    skin = values[values < few]
    median = np.median(skin)
    expected = median + 5 * 1.4826 * np.median(np.abs(skin - median))
    assert abs(few / expected - 1) < 0.03  # of a sample


def test_degenerate_photographs():
    black = np.zeros((64, 64), np.uint8)
    detector = spots.fit([black + 128], [50], [None])
    assert detector.threshold == spots.FAINTEST
    assert not detector(black, 50, None).any()
    assert not detector(black, 50, black > 0).any()  # no skin at all
    with pytest.raises(ValueError, match="no usable skin"):
        spots.fit([black], [50], [black > 0])
    with pytest.raises(ValueError, match="no usable skin"):
        spots.fit([], [], [])
    with pytest.raises(ValueError, match="shapes"):
        detector(black, 50, black[:10] > 0)


def test_spot_ratio():
    region = np.zeros((4, 4), bool)
    region[:2] = True
    found = np.eye(4, dtype=bool)
    assert spot_ratio(found, region) == 2 / 8
    assert math.isnan(spot_ratio(found, region & False))
