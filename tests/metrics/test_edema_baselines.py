"""Baselines that do not look at the face: by hand, by gradient, and on folds that lack something."""

import math

import numpy as np
import pytest

from jaxface.metrics import edema_baselines as baselines

LABEL = np.array([1, 0, 1, 0, 1, 1], bool)
KG = np.array([62.0, 60.0, 63.0, 61.0, 64.0, 66.0])
TRAIN = np.array([1, 1, 1, 1, 0, 0], bool)
TEST = ~TRAIN


def test_baselines_without_pictures_by_hand():
    logit, kg = baselines.majority(LABEL, TRAIN, TEST)
    assert logit.tolist() == [0, 0] and np.isnan(kg).all()
    one_more = TRAIN | (np.arange(6) == 4)
    logit, _ = baselines.majority(LABEL, one_more, ~one_more)
    assert logit.tolist() == [pytest.approx(math.log(4 / 3))]
    logit, kg = baselines.training_mean(KG, TRAIN, TEST)
    assert kg.tolist() == [61.5, 61.5] and np.isnan(logit).all()
    label = np.array([1, 0, 1, 0, 0, 1], bool)
    logit, kg = baselines.class_mean(label, KG, TRAIN, TEST)
    assert kg.tolist() == [60.5, 62.5] and np.isnan(logit).all()


def test_a_class_without_training():
    no_pre = np.array([0, 1, 0, 1, 0, 0], bool)
    _, kg = baselines.class_mean(LABEL, KG, no_pre, TEST)
    assert kg.tolist() == [60.5, 60.5]  # the mean of all that was learned from
    logit, _ = baselines.majority(LABEL, no_pre, TEST)
    assert logit.tolist() == [pytest.approx(math.log(1 / 3))] * 2
    features = np.random.default_rng(0).normal(size=(6, 3))
    logit, kg = baselines.fit_predict(features, LABEL, KG, no_pre, TEST)
    assert logit.tolist() == [pytest.approx(math.log(1 / 3))] * 2 and np.isfinite(kg).all()


def test_training_mean_goes_against_the_weight_left_out():
    kg = np.array([60.0, 61.5, 59.0, 63.0])
    predicted = [
        baselines.training_mean(kg, out != np.arange(4), out == np.arange(4))[1][0]
        for out in range(4)
    ]
    assert np.corrcoef(kg, predicted)[0, 1] == pytest.approx(-1)


@pytest.fixture(scope="module")
def rows():
    """240 rows; label and weight depend on two of eight features, the last one is constant."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(240, 8)) * np.geomspace(0.01, 100, 8) + 5
    x[:, 7] = 3.25
    z = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
    label = z[:, 0] + 0.5 * z[:, 4] + 0.3 * rng.normal(size=240) > 0
    return x, label, 70 + 1.5 * z[:, 1] - z[:, 4] + 0.1 * rng.normal(size=240), np.arange(240) < 160


def test_regressions_are_at_their_minimum(rows):
    """The objectives as documented, written out and minimised by Newton's method and by lstsq."""
    x, label, kg, train = rows
    logit, predicted = baselines.fit_predict(x, label, kg, train, ~train)
    z = (x[:, :7] - x[train, :7].mean(0)) / x[train, :7].std(0) / math.sqrt(7)
    ones = np.concatenate([z, np.ones((240, 1))], 1)
    ridge = np.sqrt(baselines.PENALTY * 160) * np.eye(7, 8)
    wanted = np.linalg.lstsq(
        np.concatenate([ones[train], ridge]), np.append(kg[train], np.zeros(7)), rcond=None
    )[0]
    np.testing.assert_allclose(predicted, ones[~train] @ wanted, atol=1e-9)
    w, penalty = np.zeros(8), baselines.PENALTY * np.diag([1.0] * 7 + [0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-ones[train] @ w))
        slope = ones[train].T @ (p - label[train]) / 160 + penalty @ w
        w -= np.linalg.solve(
            ones[train].T @ (ones[train] * (p * (1 - p))[:, None]) / 160 + penalty, slope
        )
    np.testing.assert_allclose(logit, ones[~train] @ w, atol=1e-5)
    assert np.mean((logit > 0) == label[~train]) > 0.85
    assert np.corrcoef(predicted, kg[~train])[0, 1] > 0.95


def test_fit_is_repeatable_and_scale_free(rows):
    x, label, kg, train = rows
    once, twice = (baselines.fit_predict(x, label, kg, train, ~train) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(once, twice))
    moved = baselines.fit_predict(x * 8 - 100, label, kg, train, ~train)
    np.testing.assert_allclose(moved, once, atol=1e-5)
    # A row tested has no say in what is learned.
    other = x.copy()
    other[200:] += 1e3
    found = baselines.fit_predict(other, label, kg, train, ~train)
    assert all(np.array_equal(a[:40], b[:40]) for a, b in zip(once, found))


def test_folds_that_lack_something():
    x = np.random.default_rng(2).normal(size=(6, 4))
    one_day = np.array([1, 1, 0, 0, 0, 0], bool)  # a video before and one after
    logit, kg = baselines.fit_predict(x, LABEL, KG, one_day, ~one_day)
    assert np.isfinite(logit).all() and np.isfinite(kg).all() and np.ptp(logit) > 0
    one_row = np.arange(6) == 0
    logit, kg = baselines.fit_predict(x, LABEL, KG, one_row, ~one_row)
    assert kg.tolist() == [62.0] * 5 and logit.tolist() == [pytest.approx(math.log(2))] * 5
    logit, kg = baselines.fit_predict(np.ones((6, 4)), LABEL, KG, TRAIN, TEST)
    assert kg.tolist() == [61.5] * 2 and logit == pytest.approx([0, 0], abs=1e-6)
    _, kg = baselines.fit_predict(x, LABEL, np.full(6, 60.0), TRAIN, TEST)
    assert kg.tolist() == [60.0, 60.0]
    logit, kg = baselines.fit_predict(x, LABEL, KG, TRAIN, np.zeros(6, bool))
    assert logit.shape == kg.shape == (0,)
    # More features than rows, and classes that a line parts: finite all the same.
    wide = np.random.default_rng(3).normal(size=(6, 500))
    assert np.isfinite(baselines.fit_predict(wide, LABEL, KG, TRAIN, TEST)).all()


def test_masks_that_are_wrong():
    with pytest.raises(ValueError, match=r"4 row\(s\) are in both"):
        baselines.majority(LABEL, TRAIN, TRAIN)
    with pytest.raises(ValueError, match="row to learn from"):
        baselines.training_mean(KG, ~(TRAIN | TEST), TEST)
    with pytest.raises(ValueError, match="must be bool"):
        baselines.class_mean(LABEL, KG, TRAIN.astype(int), TEST)
    with pytest.raises(ValueError, match="as long as"):
        baselines.fit_predict(np.ones((5, 2)), LABEL, KG, TRAIN, TEST)


def test_all_of_a_fold():
    x = np.random.default_rng(4).normal(size=(6, 4))
    found = baselines.of_fold({"color_histogram": x, "background": -x}, LABEL, KG, TRAIN, TEST)
    assert list(found) == [
        "majority", "training_mean", "class_mean_uses_label", "color_histogram", "background"
    ]  # fmt: skip
    for logit, kg in found.values():
        assert logit.shape == kg.shape == (2,) and np.isfinite([*logit, *kg]).any()
    wanted = baselines.fit_predict(x, LABEL, KG, TRAIN, TEST)
    np.testing.assert_array_equal(found["color_histogram"], wanted)


def test_histogram_by_counting():
    images = np.random.default_rng(5).integers(0, 256, (3, 12, 10, 3), np.uint8)
    images[0] = (0, 255, 128)
    found = baselines.features_histogram(images)
    wanted = np.array([
        [np.mean(image[..., c] // 16 == step) for c in range(3) for step in range(16)]
        for image in images
    ])  # fmt: skip
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, atol=1e-15)
    assert found[0].nonzero()[0].tolist() == [0, 31, 40]
    # Where a pixel is plays no part.
    np.testing.assert_array_equal(found, baselines.features_histogram(images[:, ::-1]))


def test_background_is_the_border():
    images = np.random.default_rng(6).integers(0, 256, (2, 64, 96, 3), np.uint8)
    found = baselines.features_background(images)
    assert found.shape == (2, 72) and np.isfinite(found).all()
    inside = images.copy()
    inside[:, 4:-4, 6:-6] = 7
    np.testing.assert_array_equal(found, baselines.features_background(inside))
    for place in ((0, 40), (63, 0), (3, 95), (30, 5), (30, 90)):
        changed = images.copy()
        changed[0, place[0], place[1]] ^= 128
        other = baselines.features_background(changed)
        assert (found[0] != other[0]).any() and (found[1] == other[1]).all()
    # Upper side, first block: 4 rows of 24 px; left side, last block: 16 rows of 6 px.
    np.testing.assert_allclose(found[0, :3], images[0, :4, :24].mean((0, 1)) / 255)
    np.testing.assert_allclose(found[0, 33:36], images[0, 48:, :6].mean((0, 1)) / 255)
    border = np.ones((64, 96), bool)
    border[4:-4, 6:-6] = False
    wanted = [np.mean(images[1][border][:, c] // 32 == k) for c in range(3) for k in range(8)]
    np.testing.assert_allclose(found[1, 48:], wanted, atol=1e-15)


def test_frames_of_any_number():
    images = np.random.default_rng(7).integers(0, 256, (5, 8, 8, 3), np.uint8)
    many = np.tile(images, (60, 1, 1, 1))  # more than are taken at once
    for features in (baselines.features_histogram, baselines.features_background):
        np.testing.assert_array_equal(features(many), np.tile(features(images), (60, 1)))
        assert features(images[:0]).shape == (0, features(images).shape[1])
        with pytest.raises(ValueError, match="uint8"):
            features(images.astype(np.float32))
        with pytest.raises(ValueError, match="too small"):
            features(images[:, :2])


def test_common_rule_is_what_holds_within_everybody():
    """Slopes are those of ridge regression on what is left of each patient's mean; by a slow reference."""
    rng = np.random.default_rng(0)
    subjects = np.repeat([f"P{i}" for i in range(6)], 20)
    label = np.tile([True, False], 60)
    constant = np.repeat(
        rng.normal(size=(6, 4)) * 30, 20, 0
    )  # who it is, far above what fluid does
    x = constant + rng.normal(size=(120, 4)) + label[:, None] * [1.0, 0, 0, 0]
    x[:, 3] = 7.0  # tells nothing
    kg = 60 + constant[:, 1] + 2.0 * label + 0.1 * rng.normal(size=120)
    rule = baselines.common_rule(x, label, kg, subjects)
    within = lambda v: np.concatenate(
        [v[subjects == s] - v[subjects == s].mean(0) for s in np.unique(subjects)]
    )
    z, left = within(x)[:, :3], within(kg)
    scale = z.std(0) * np.sqrt(3)
    z = z / scale
    wanted = (
        np.linalg.solve(z.T @ z / 120 + baselines.PENALTY * np.eye(3), z.T @ left / 120) / scale
    )
    np.testing.assert_allclose(rule[:3, 1], wanted, rtol=1e-9)
    assert (rule[3] == 0).all() and rule[0, 0] > 2 * np.abs(rule[1:3, 0]).max()
    # Nothing changes when a patient is heavier or looks otherwise, all days alike.
    again = baselines.common_rule(x - constant, label, kg - constant[:, 1], subjects)
    np.testing.assert_allclose(again, rule, rtol=1e-5, atol=1e-7)
    # One class of a patient teaches no logit.
    only = np.where(subjects == "P0", True, label)
    alone = subjects != "P0"
    few = baselines.common_rule(x[alone], label[alone], kg[alone], subjects[alone])
    some = baselines.common_rule(x, only, kg, subjects)
    assert np.abs(some[:3, 0] / few[:3, 0] - 1).max() < 0.2
    assert (baselines.common_rule(x, np.ones(120, bool), kg, subjects)[:, 0] == 0).all()
