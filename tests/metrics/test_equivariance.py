"""EQ-T and EQ-R: pictures that move perfectly, wrongly or not at all, and filters tap by tap."""

import golden
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.metrics import equivariance
from jaxface.metrics.equivariance import eq_r, eq_t
from jaxface.models import stylegan3

SIDE, WAVES = 40, 8
SMALL = {"samples": 6, "batch": 4}
_rng = np.random.default_rng(0)
ANGLES = _rng.uniform(0, 2 * np.pi, WAVES)
# Up to 0.25 cycles a pixel.
FREQUENCIES = (
    0.25 * SIDE * np.sqrt(_rng.random((WAVES, 1))) * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)
)
TEXTURE = _rng.normal(size=(SIDE, SIDE, 1)).astype(np.float32)


def phases(z, c=None):
    return 3 * z


def waves(ws, transforms):
    """Waves with phases ws [N, WAVES], drawn wherever each pixel came from: moves perfectly."""
    line = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    x, y = np.meshgrid(line, line)
    places = np.stack([x, y, np.ones_like(x)], -1)
    source = np.einsum("nij,hwj->nhwi", np.asarray(transforms, np.float64), places)[..., :2]
    angle = 2 * np.pi * source @ FREQUENCIES.T + np.asarray(ws)[:, None, None]
    return jnp.asarray(0.2 * np.sin(angle).sum(-1, keepdims=True), jnp.float32)


def test_perfect_translation():
    moves = lambda ws, t: np.round(waves(ws, t), 4)  # the same numbers wherever a pixel came from
    assert eq_t(phases, moves, WAVES, **SMALL) > 80
    assert eq_t(phases, waves, WAVES, fractional=True, **SMALL) > 50


def test_perfect_rotation():
    assert eq_r(phases, waves, WAVES, **SMALL) > 70


def test_a_picture_that_stays():
    stays = lambda ws, t: waves(ws, np.broadcast_to(np.eye(3), t.shape))
    assert eq_t(phases, stays, WAVES, **SMALL) < 20
    assert eq_r(phases, stays, WAVES, **SMALL) < 20


def test_a_picture_that_moves_the_wrong_way():
    back = lambda ws, t: waves(ws, np.linalg.inv(t))
    assert eq_t(phases, back, WAVES, **SMALL) < 20
    assert eq_r(phases, back, WAVES, **SMALL) < 20


def test_texture_that_sticks():
    """White noise of deviation s fixed to the pixels adds an error of 2 s²."""
    sticks = lambda ws, t: waves(ws, t) + 0.05 * TEXTURE
    expected = 10 * np.log10(4 / (2 * 0.05**2))
    assert eq_t(phases, sticks, WAVES, **SMALL) == pytest.approx(expected, abs=0.4)


def test_no_error_is_infinite():
    flat = lambda ws, t: jnp.zeros((len(t), SIDE, SIDE, 1))
    assert eq_t(phases, flat, WAVES, **SMALL) == float("inf")


def sinc_window(x):
    return np.sinc(x) * np.sinc(x / 3) * (np.abs(x) < 3)


@pytest.mark.parametrize("shift", [(2.0, -1.0), (1.3, 0.0), (-2.6, 3.25)])
def test_translation_by_loop(shift):
    image = np.random.default_rng(1).normal(size=(14, 17, 2)).astype(np.float32)
    moved, known = equivariance._translated(image, jnp.asarray(shift))
    for row, column in np.ndindex(14, 17):
        weights = [
            sinc_window(np.arange(n) - (at - by)) if by % 1 else 1.0 * (np.arange(n) == at - by)
            for n, at, by in ((14, row, shift[1]), (17, column, shift[0]))
        ]
        # Known if all six taps (one, of a whole shift) lie in the picture.
        inside = all(
            n - 1 >= (np.floor(at - by) + (3 if by % 1 else 0))
            and np.floor(at - by) - 2 * (by % 1 > 0) >= 0
            for n, at, by in ((14, row, shift[1]), (17, column, shift[0]))
        )
        assert known[row, column] == inside
        if inside:
            expected = np.einsum("h,w,hwc->c", *weights, image)
            expected /= weights[0].sum() * weights[1].sum()
            np.testing.assert_allclose(moved[row, column], expected, atol=1e-5)


def test_rotation_by_loop():
    image = np.random.default_rng(2).normal(size=(33, 33, 1)).astype(np.float32)
    angle, (row, column) = 0.6, (18, 14)
    places = (np.arange(24) + 0.5) / 4 - 3
    weights = sinc_window(places)
    cos, sin = np.cos(angle), np.sin(angle)
    total = 0
    for dy, wy in zip(places, weights):
        for dx, wx in zip(places, weights):
            x, y = column - 16 + dx, row - 16 + dy
            across = sinc_window(np.arange(33) - (cos * x + sin * y + 16))
            down = sinc_window(np.arange(33) - (-sin * x + cos * y + 16))
            value = np.einsum("h,w,hwc->", down, across, image) / across.sum() / down.sum()
            total += wy * wx * value
    rotated = equivariance._rotated(jnp.asarray(image), jnp.asarray(angle))
    assert rotated[row, column, 0] == pytest.approx(total / weights.sum() ** 2, abs=1e-5)


def test_quarter_turns():
    """By 0 both sides of EQ-R are one filter; by 90 degrees the picture turns and the filter stays."""
    image = np.random.default_rng(3).normal(size=(41, 41, 3)).astype(np.float32)
    still = equivariance._rotated(jnp.asarray(image), jnp.asarray(0.0))
    known = np.asarray(equivariance._far_from_borders((41, 41), jnp.asarray(0.0)))
    assert known.sum() == 23**2
    filtered = equivariance._filtered_as_if_rotated(jnp.asarray(image), jnp.asarray(0.0))
    np.testing.assert_allclose(filtered[known], still[known], atol=0.02)
    quarter = jnp.asarray(np.pi / 2, jnp.float32)
    turned = equivariance._rotated(jnp.asarray(image), quarter)
    # y points down, so a positive angle turns clockwise.
    np.testing.assert_allclose(turned[known], np.rot90(still, -1)[known], atol=1e-4)
    same = equivariance._filtered_as_if_rotated(jnp.asarray(image), quarter)
    np.testing.assert_allclose(same[known], filtered[known], atol=1e-4)


def test_small_pictures_and_labels():
    tiny = lambda ws, t: jnp.zeros((len(t), 16, 16, 1))
    with pytest.raises(ValueError, match="too small"):
        eq_r(phases, tiny, WAVES, **SMALL)
    with pytest.raises(ValueError, match="as many labels"):
        eq_t(phases, waves, WAVES, labels=np.zeros((5, 2)), **SMALL)
    given = []
    mapping = lambda z, c: given.append(c) or z
    eq_t(mapping, waves, WAVES, labels=np.arange(6)[:, None], **SMALL)
    np.testing.assert_array_equal(np.concatenate(given)[:6], np.arange(6)[:, None])


def test_stylegan3_t_translates_and_does_not_rotate():
    data = golden.load("sg3_t32_G")
    kwargs = data["meta"]["G_kwargs"]
    arrays = {k.removeprefix("G/"): v for k, v in data.items() if k.startswith("G/")}
    g = stylegan3.from_state_dict(kwargs, arrays)
    options = {"samples": 2, "batch": 2}
    assert eq_t(g.mapping, g.synthesis, kwargs["z_dim"], **options) > 50
    assert eq_r(g.mapping, g.synthesis, kwargs["z_dim"], **options) < 40
