import os
import pathlib

import drawn
import numpy as np
import pytest
from PIL import Image

from jaxface.faces import align, detect, mesh, prepare

PHOTOGRAPHS = pathlib.Path(
    os.environ.get(
        "JAXFACE_FACES", pathlib.Path(__file__).parents[3] / "shared/data/synthetic_faces"
    )
)


@pytest.fixture(scope="module")
def prepared():
    return prepare.prepare(drawn.face(256), 64)


def test_prepares(prepared):
    assert prepared.image.shape == (64, 64, 3) and prepared.image.dtype == np.uint8
    assert prepared.score > 0.9
    centers = mesh.centers(prepared.landmarks) / 64
    np.testing.assert_allclose(centers, align.FRAME, atol=0.03)


def test_undoes_pose_size_and_half_of_the_color(prepared):
    changed, _ = drawn.turn(drawn.face(500), -15, 0.7)
    changed = (changed * [1.0, 0.8, 0.65]).astype(np.uint8)
    other = prepare.prepare(changed, 64)
    difference = lambda a, b: np.abs(a.astype(float) - b)[12:60, 12:52].mean(axis=(0, 1))
    plain = align.align(changed, mesh.landmarks(changed, detect.detect([changed])[0][0]), 64)
    reference = align.align(
        drawn.face(256), mesh.landmarks(drawn.face(256), detect.detect([drawn.face(256)])[0][0]), 64
    )
    before = difference(plain, reference)
    after = difference(other.image, prepared.image)
    assert (after[1:] < 0.75 * before[1:]).all()


def test_many_in_order_with_gaps():
    blank = np.full((80, 80, 3), 90, np.uint8)
    results = prepare.prepare_all([blank, drawn.face(128), blank], 32)
    assert [r is None for r in results] == [True, False, True]
    with pytest.raises(prepare.NoFaceError, match="no face"):
        prepare.prepare(blank, 32)


def test_color_goes_half_the_way():
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal([120, 90, 70], 40, (64, 64, 3)), 1, 255).astype(np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    mean, std = np.array(prepare.SKIN_MEAN), np.mean(prepare.SKIN_STD)
    before = image[mask].astype(float)
    after = prepare.adjust_color(image, mask)[mask].astype(float)
    np.testing.assert_allclose(after.mean(0), np.sqrt(before.mean(0) * mean), rtol=0.02)
    brightened = np.mean(before.std(0) * np.sqrt(mean / before.mean(0)))
    np.testing.assert_allclose(after.std(0).mean(), np.sqrt(brightened * std), rtol=0.04)
    np.testing.assert_array_equal(prepare.adjust_color(image, mask, strength=0), image)
    whole = prepare.adjust_color(image, mask, mean=(130, 100, 80), std=(40, 40, 40), strength=1)
    np.testing.assert_allclose(whole[mask].mean(0), [130, 100, 80], atol=1)
    np.testing.assert_array_equal(prepare.adjust_color(image, np.zeros_like(mask)), image)


def test_color_cannot_run_away():
    flat = np.full((8, 8, 3), [10, 200, 4], np.uint8)
    flat[::2] += 2
    out = prepare.adjust_color(flat, np.ones((8, 8), bool), strength=1).astype(float)
    assert (out <= 2 * 1.2 * flat + 1).all() and out.std() > 0


def test_gray_stays_gray():
    gray = np.repeat(np.arange(64, dtype=np.uint8)[:, None, None], 64, 1).repeat(3, -1)
    out = prepare.adjust_color(gray, np.ones((64, 64), bool))
    assert np.ptp(out.astype(int), axis=-1).max() == 0 and out.mean() > gray.mean() + 20


def test_background_is_blurred_without_a_halo():
    rng = np.random.default_rng(0)
    image = drawn.face(256)
    points = mesh.landmarks(image, detect.detect([image])[0][0])
    noisy = np.clip(image + rng.normal(0, 20, image.shape), 0, 255).astype(np.uint8)
    out = prepare.blur_background(noisy, points)
    face = (slice(110, 190), slice(100, 156))
    np.testing.assert_array_equal(out[face], noisy[face])
    corner = (slice(0, 40), slice(0, 40))
    assert out[corner].std() < 0.3 * noisy[corner].std()
    dark = image.copy()
    dark[prepare.head_mask(points, 256, 256) > 0.5] = 0
    halo = prepare.blur_background(dark, points)[128, :30].astype(float)
    assert np.abs(halo - image[128, :30]).max() < 2


def test_photographs():
    files = sorted(PHOTOGRAPHS.glob("images/*.jpg"))[::64]
    if not files:
        pytest.skip(f"no photographs on this machine: {PHOTOGRAPHS} (set JAXFACE_FACES)")
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    results = [r for r in prepare.prepare_all(images, 64) if r]
    assert len(results) >= 0.9 * len(files)
    centers = np.stack([mesh.centers(r.landmarks) for r in results]) / 64
    np.testing.assert_allclose(centers.mean(axis=0), align.FRAME, atol=0.02)
    assert centers.std(axis=0).max() < 0.02
