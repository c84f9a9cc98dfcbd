"""The severity score: on phantoms whose truth is known, on painted marks, and against its own loops."""

import numpy as np
import pytest

from jaxface.metrics import severity
from jaxface.phantom.render import draw_subject, draw_view, render


def faces(first, number, cleft=False, side=64):
    people = [(draw_subject(first + i, cleft), draw_view(first + i)) for i in range(number)]
    images = np.stack([render(who, view, side, supersample=1).image for who, view in people])
    return images, np.array([who.severity for who, _ in people])


@pytest.fixture(scope="module")
def normals():
    return faces(0, 120)[0]


@pytest.fixture(scope="module")
def scorer(normals):
    return severity.fit(normals)


@pytest.fixture(scope="module")
def judged():
    (normal, zero), (cleft, truth) = faces(5000, 12), faces(6000, 16, cleft=True)
    return np.concatenate([normal, cleft]), np.concatenate([zero, truth])


def test_severity_follows_the_truth(scorer, normals, judged):
    images, truth = judged
    scores = scorer(images)
    assert (scores >= 0).all()
    reached = np.corrcoef(scores, truth)[0, 1]
    plain = np.corrcoef(severity.plain_difference(images, normals), truth)[0, 1]
    assert reached > 0.75
    assert reached > plain + 0.2
    assert np.median(scores[truth > 0.5]) > np.median(scores[truth == 0]) + 0.6


def test_threshold_is_what_one_in_a_thousand_normal_pixels_exceeds(scorer):
    heat = scorer.heat(faces(9000, 20)[0])
    share = (heat[:, *severity.MASK] >= scorer.threshold).mean()
    assert share < 0.02
    outside = np.ones((64, 64), bool)
    outside[severity.MASK] = False
    assert (heat[:, outside] == 0).all()


def test_heat_is_where_the_face_is_wrong(scorer, judged):
    image = judged[0][:1].copy()
    image[0, 44:49, 34:38] = (70, 10, 20)  # a gap in the lip
    heat = scorer.heat(image)[0]
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 43 <= row <= 50
    assert 32 <= column <= 40
    assert scorer(image)[0] > scorer(judged[0][:1])[0] + 1
    # The nearest normal face closes it again.
    normal = scorer.normalized(image)[0, 45:48, 35:37].astype(float).mean((0, 1))
    closer = np.abs(normal - judged[0][0, 45:48, 35:37].mean((0, 1))).sum()
    assert closer < 0.3 * np.abs(normal - (70, 10, 20)).sum()


def test_score_by_loop():
    heat = np.zeros((2, 64, 64))
    heat[0, 40, 30], heat[0, 41, 30], heat[0, 42, 30] = 3.0, 2.0, 1.9
    scores = severity.score(heat, 2.0)
    np.testing.assert_allclose(scores, [np.sqrt(100 * 5 / 64**2), 0])


def test_nearest_normal_face_is_where_reweighted_least_squares_end(scorer, judged):
    ycbcr = severity.to_ycbcr(severity.canvas(judged[0][-2:]))
    found = scorer._nearest(ycbcr) - scorer.mean
    for one, fitted in zip(ycbcr[:, severity._FACE].reshape(2, -1) - scorer.mean, found):
        exact = np.zeros_like(one)
        for _ in range(40):
            misfit = np.abs(one - exact).reshape(-1, 3).sum(-1)
            trust = 1 / (1 + np.square(misfit / (2 * np.median(misfit))))
            weighted = scorer.axes * np.repeat(trust, 3) / severity.NOISE**2
            system = weighted @ scorer.axes.T + np.diag(1 / scorer.variance)
            exact = np.linalg.solve(system, weighted @ one) @ scorer.axes
        assert np.abs(fitted - exact).max() < 0.02 * np.abs(one - exact).max()


def test_patch_memory_by_loop(scorer, judged):
    small = severity.canvas(judged[0][-1:])
    (x,) = severity.patch_features(small, (severity.BLOCK,))
    rows, columns = severity._places(32)
    x = (x[0, rows, columns] - scorer.feature_mean) / scorer.feature_std
    nearest = np.zeros((32, 32))
    for i, j in np.ndindex(x.shape[:2]):
        nearest[rows.start + i, columns.start + j] = min(
            np.square(x[i, j] - known).sum() for known in scorer.memory[i, j]
        )
    heat = scorer._patch_heat(small)[0]
    # Bilinear upsampling by two keeps sums, but for the mask's edge.
    assert heat.sum() == pytest.approx(4 * nearest.sum(), rel=1e-3)


def test_a_cleft_counts_the_same_at_any_size_of_picture(scorer):
    large, _ = faces(6000, 4, cleft=True, side=128)
    small, _ = faces(6000, 4, cleft=True)
    np.testing.assert_allclose(scorer(large), scorer(small), atol=1.2)


def test_calibration_chooses_by_other_people(scorer):
    images, truth = faces(7000, 10, cleft=True)
    images = np.concatenate([images, faces(7500, 6)[0]])
    truth = np.concatenate([truth, np.zeros(6)])
    calibrated = scorer.calibrated(images, truth)
    fit = lambda one: np.corrcoef(one(images), truth)[0, 1]
    assert fit(calibrated) >= fit(scorer) - 1e-12
    assert calibrated.units == scorer.units
    with pytest.raises(ValueError, match="calibration needs"):
        scorer.calibrated(images, np.ones(16))


def test_people_that_judge_are_not_remembered(normals):
    """Every picture twice: if the twin stayed in the memory, its patches would be no distance away."""
    twice = np.concatenate([normals[:50], normals[:50]])
    apart = severity.fit(twice, np.tile(np.arange(50), 2))
    together = severity.fit(twice)
    assert apart.units[1] > 0
    assert apart.memory.shape[2] == 80
    assert together.units[1] < apart.units[1]


def test_agreement_has_an_interval_over_people():
    rng = np.random.default_rng(0)
    truth = np.concatenate([np.zeros(20), rng.uniform(0, 1, 20)])
    scores = truth + 0.2 * rng.normal(size=40)
    found = severity.agreement(scores, truth, np.arange(40))
    assert found.value == pytest.approx(np.corrcoef(scores, truth)[0, 1])
    assert found.low < found.value < found.high < 1
    assert found.n == 40
    assert "20 of them above" in found.protocol
    pairs = severity.agreement(
        np.repeat(scores, 3), np.repeat(truth, 3), np.repeat(np.arange(40), 3)
    )
    assert pairs.n == 40
    assert pairs.high - pairs.low == pytest.approx(found.high - found.low, rel=0.2)
    with pytest.raises(ValueError, match="that differ"):
        severity.agreement(np.zeros(4), np.arange(4), np.arange(4))


def test_pictures(scorer, judged):
    figure = scorer.figure(judged[0][-4:])
    assert figure.images.shape == (12, 64, 64, 3)
    assert figure.images.dtype == np.uint8
    assert figure.photographs
    np.testing.assert_array_equal(figure.images[0], judged[0][-4])


def test_asymmetry_sees_one_side():
    image = np.full((1, 64, 64, 1), 100, np.uint8)
    assert severity.asymmetry(image)[0] == pytest.approx(0, abs=1e-9)
    image[0, 40:44, 36:40] = 0
    rows, columns = severity.MASK
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    assert severity.asymmetry(image)[0] == pytest.approx(2 * 16 * 100 / area)


def test_refusals(normals):
    with pytest.raises(ValueError, match="40 people"):
        severity.fit(normals[:39])
    with pytest.raises(ValueError, match="uint8"):
        severity.asymmetry(np.zeros((1, 64, 64, 3)))
