import math

import numpy as np
import pytest

from jaxface.metrics import perceptual
from jaxface.metrics.likeness import likeness


@pytest.fixture(scope="module")
def real():
    rows, columns = np.mgrid[:300, :280]
    noise = np.random.default_rng(0).normal(0, 10, (300, 280))
    return np.clip(120 + 40 * np.sin(rows / 9) * np.cos(columns / 7) + noise, 0, 255).astype(
        np.uint8
    )


@pytest.fixture(scope="module")
def mask():
    result = np.zeros((300, 280), bool)
    result[10:290, 5:275] = True
    result[100:150, 100:180] = False  # an eye
    return result


def test_equal_inside_the_mask_is_equal(real, mask):
    made = np.where(mask, real, 0).astype(np.uint8)
    assert likeness(made, real, mask) == pytest.approx((0, math.inf, 1, 0), abs=1e-9)


def test_levels_and_decibels_by_hand(real, mask):
    made = real.copy()
    made[50:100, 50:100] += 10  # 2,500 px of the skin
    made[:5] = 0  # outside
    result = likeness(made, real, mask)
    assert result.mae == pytest.approx(10 * 2500 / mask.sum())
    assert result.psnr == pytest.approx(10 * math.log10(255**2 / (100 * 2500 / mask.sum())))
    assert 0.9 < result.ssim < 1 and 0 < result.lpips < 0.1


def test_structure_equals_the_formula(real):
    made = np.clip(
        real.astype(int) + np.random.default_rng(1).integers(-30, 30, real.shape), 0, 255
    )
    made = made.astype(np.uint8)
    mask = np.zeros(real.shape, bool)
    mask[100:160, 90:150] = True
    cut = np.where(mask, made, real).astype(float)
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(window, window) / window.sum() ** 2
    values = []
    for y in range(110, 150, 3):  # windows within the mask
        for x in range(100, 140, 3):
            at = np.s_[y - 5 : y + 6, x - 5 : x + 6]
            a, b = cut[at], real[at].astype(float)
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
            both = (window * a * b).sum() - mean_a * mean_b
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * both + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    assert likeness(made, real, mask).ssim == pytest.approx(np.mean(values), abs=0.02)


def test_perceptual_distance_is_that_of_the_tile():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 256, (2, 256, 256), dtype=np.uint8)
    network = perceptual.networks()["lpips_alexnet"]
    x, y = (image[None, ..., None].astype(np.float32) / 127.5 - 1 for image in (a, b))
    whole = np.ones((256, 256), bool)
    expected = float(network.distance(x, y)[0])
    assert likeness(a, b, whole).lpips == pytest.approx(expected, rel=1e-4)
    # The same again beside it is as far; skin that is half as large is not half as different.
    twice = likeness(np.tile(a, (1, 2)), np.tile(b, (1, 2)), np.tile(whole, (1, 2)))
    assert twice.lpips == pytest.approx(expected, rel=1e-4)
    half = whole.copy()
    half[:, 128:] = False
    assert likeness(a, b, half).lpips == pytest.approx(expected, rel=0.2)


def test_small_or_no_skin(real):
    mask = np.zeros(real.shape, bool)
    assert all(map(math.isnan, likeness(real, real, mask)))
    mask[3:6, 3:6] = True
    assert likeness(real, real, mask) == pytest.approx((0, math.inf, 1, 0), abs=1e-9)
    with pytest.raises(ValueError, match="shapes"):
        likeness(real[:9], real, mask)
