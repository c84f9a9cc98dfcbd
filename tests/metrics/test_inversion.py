"""Severity by inversion, on a tiny random generator: what it drew is normal, what was painted in is not."""

import functools

import jax
import numpy as np
import pytest

from jaxface.metrics import inversion, severity
from jaxface.metrics.inversion import Settings
from jaxface.models import stylegan3

SIDE = 16
QUICK = Settings(steps=40, adaptation_steps=10, adaptation_rate=1e-2, pixel_weight=1.0)


@pytest.fixture(scope="module")
def generator():
    module = stylegan3.Generator(
        z_dim=4,
        c_dim=0,
        w_dim=4,
        img_resolution=SIDE,
        channel_base=64,
        channel_max=8,
        num_layers=3,
        margin_size=2,
    )
    variables = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 4), np.float32))
    # NumPy, so that a change in place would show.
    variables = jax.tree.map(np.array, variables)
    return inversion.Generator(
        functools.partial(module.apply, method="mapping"),
        functools.partial(module.apply, method="synthesis"),
        variables,
        4,
    )


@pytest.fixture(scope="module")
def drawn(generator):
    """Three pictures of the generator, in [-1, 1] and as uint8."""
    z = jax.random.normal(jax.random.key(5), (3, 4))
    draw = jax.jit(lambda v, z: generator.synthesis(v, generator.mapping(v, z)))
    images = np.clip(np.asarray(draw(generator.variables, z)), -1, 1)
    return images, np.rint((images + 1) * 127.5).astype(np.uint8)


@pytest.fixture(scope="module")
def inverted(generator, drawn):
    return inversion.invert(generator, drawn[0], jax.random.key(1), QUICK)


def painted(images, rows, columns=slice(7, 10)):
    """A dark wedge from the nose into the mouth."""
    images = images.copy()
    images[:, rows, columns] = 0 if images.dtype == np.uint8 else -1
    return images


def test_the_face_is_found(generator, drawn, inverted):
    ws, losses = inverted
    assert ws.shape == (3, 5, 4)
    assert (ws == ws[:, :1]).all()
    assert losses.shape == (40, 3)
    assert (losses[-1] < 0.5 * losses[0]).all()
    made = np.asarray(jax.jit(generator.synthesis)(generator.variables, ws))
    start = drawn[0].mean(0)
    assert np.square(made - drawn[0]).mean() < 0.5 * np.square(start - drawn[0]).mean()


def test_weights_follow_the_face(generator, drawn, inverted):
    before = jax.tree.map(np.copy, generator.variables)
    brighter = drawn[0] * 0.5 + 0.4
    made, losses = inversion.adapt(generator, brighter, inverted[0], QUICK)
    assert made.shape == drawn[0].shape
    assert losses.shape == (10, 3)
    assert (losses[-1] < 0.7 * losses[0]).all(), losses
    jax.tree.map(np.testing.assert_array_equal, generator.variables, before)
    # The stop rule: half the steps are the first half of the way.
    half = QUICK._replace(adaptation_steps=5)
    _, shorter = inversion.adapt(generator, brighter, inverted[0], half)
    np.testing.assert_allclose(shorter, losses[:5], rtol=1e-4)


def test_nose_and_mouth_do_not_lead(generator, drawn, inverted):
    keep = np.asarray(inversion._keep(SIDE))
    np.testing.assert_array_equal(np.flatnonzero((keep == 0).any(1)), np.arange(7, 14))
    np.testing.assert_array_equal(np.flatnonzero((keep == 0).any(0)), np.arange(4, 12))
    noise = np.random.default_rng(0).uniform(-1, 1, drawn[0].shape).astype(np.float32)
    inside = np.where(keep[:, :, None] == 0, noise, drawn[0])
    one = slice(1)
    plain, _ = inversion.adapt(generator, drawn[0][one], inverted[0][one], QUICK)
    filled, _ = inversion.adapt(generator, inside[one], inverted[0][one], QUICK)
    np.testing.assert_array_equal(filled, plain)
    outside = np.where(keep[:, :, None] == 1, noise, drawn[0])
    other, _ = inversion.adapt(generator, outside[one], inverted[0][one], QUICK)
    assert np.abs(other - plain).max() > 1e-3

    few = QUICK._replace(steps=10)
    blind = few._replace(whole=False)
    search = lambda faces, settings: inversion.invert(
        generator, faces, jax.random.key(1), settings
    )[0]
    np.testing.assert_array_equal(search(inside, blind), search(drawn[0], blind))
    assert np.abs(search(inside, few) - search(drawn[0], few)).max() > 1e-3


def test_the_key_decides(generator, drawn, inverted):
    few = QUICK._replace(steps=10)
    search = lambda faces, key: inversion.invert(generator, faces, jax.random.key(key), few)[0]
    first = search(drawn[0], 1)
    np.testing.assert_array_equal(search(drawn[0], 1), first)
    assert np.abs(search(drawn[0], 2) - first).max() > 1e-4
    # Neither the number of neighbors nor their looks matter.
    others = drawn[0][[0, 2]]
    np.testing.assert_allclose(search(others, 1)[0], first[0], rtol=1e-3, atol=1e-4)


def test_faces_in_several_batches(generator, drawn, monkeypatch):
    few = QUICK._replace(steps=10)
    search = lambda: inversion.invert(generator, drawn[0], jax.random.key(1), few)
    whole = search()
    monkeypatch.setattr(inversion, "BATCH", 2)
    for apart, together in zip(search(), whole):
        assert apart.shape == together.shape
        np.testing.assert_allclose(apart, together, rtol=1e-3, atol=1e-4)


def test_score_grows_with_the_wedge(generator, drawn):
    blind = QUICK._replace(whole=False)
    scorer = inversion.fit(generator, drawn[1], blind)
    heat = scorer.heat(drawn[1])
    assert heat.shape == (3, severity.SIDE, severity.SIDE)
    outside = np.ones(heat.shape[1:], bool)
    outside[severity.MASK] = False
    assert (heat[:, outside] == 0).all()
    assert (heat[:, *severity.MASK] >= scorer.threshold).mean() < 0.003

    bright = np.maximum(drawn[1], 90)
    none = severity.score(heat, scorer.threshold)
    small = scorer(painted(bright, slice(9, 11)))
    large = scorer(painted(bright, slice(8, 13)))
    assert (none < 2).all()
    assert (small > none + 1).all()
    assert (large > small + 1).all()

    # Three again, for which everything is compiled.
    images = np.concatenate([drawn[1][:1], painted(drawn[1], slice(8, 13))[1:]])
    ratings = np.array([0, 0.4, 1])
    heat = scorer.heat(images)
    fit = lambda one: np.corrcoef(severity.score(heat, one.threshold), ratings)[0, 1]
    calibrated = scorer.calibrated(images, ratings)
    assert fit(calibrated) >= fit(scorer) - 1e-9
    figure = calibrated.figure(images)
    assert figure.images.shape == (9, severity.SIDE, severity.SIDE, 3)
    np.testing.assert_array_equal(figure.images[0], severity.canvas(images)[0])


def test_refusals(generator, drawn):
    with pytest.raises(ValueError, match="uint8"):
        inversion.Inverter(generator)(drawn[0])
    with pytest.raises(ValueError, match="16, 16, 1"):
        inversion.Inverter(generator)(drawn[1][..., :1])
    with pytest.raises(ValueError, match="without a cleft"):
        inversion.fit(generator, drawn[1][:0])
