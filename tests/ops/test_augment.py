"""The augmentation pipe and the fading blur against reference outputs and by analysis."""

import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.ops import augment as A
from jaxface.ops.augment import augment, blur

KEY = jax.random.key(0)
SINGLE = [*A.GEOMETRIC, *A.COLOR, "imgfilter", "noise", "cutout"]


@functools.partial(jax.jit, static_argnames="pipe")
def _at(images, q, pipe, field=None):
    """`augment` in debug mode with the noise field given."""
    numbers = jnp.zeros([len(images)])
    names = [*A._UNIFORM, *A._NORMAL, *(f"{name}_gate" for name in A._GATED)]
    draws = A.at_percentile(dict.fromkeys(names, numbers), q)
    return A.apply(images, draws | {"noise_field": field}, 1.0, pipe)


def _check(data, key, pipe, images):
    field = data.get(f"{key}/noise_field")
    field = jnp.zeros(images.shape) if field is None else golden.nhwc(field)
    ours = _at(images, float(key.rsplit("/q", 1)[1]), A.as_pipe(pipe), field)
    golden.assert_close(golden.nchw(ours), data[key], 2e-5, key)


def _keys(data, start):
    keys = [k for k in data if k.startswith(start) and not k.endswith("noise_field")]
    assert keys
    return keys


def test_golden_wavelets():
    data = golden.load("ada")
    np.testing.assert_allclose(A._LOW_PASS, data["const/Hz_geom"], atol=1e-7)
    np.testing.assert_allclose(A._bands(), data["const/Hz_fbank"], atol=1e-7)


@pytest.mark.parametrize("name", SINGLE)
def test_golden_single(name):
    data = golden.load("ada")
    for key in _keys(data, f"single/{name}/"):
        _check(data, key, {name: 1}, golden.nhwc(data["in/img"][:1]))


@pytest.mark.parametrize("name", ["bg", "bgc", "bgcfnc"])
def test_golden_preset(name):
    data = golden.load("ada")
    for key in _keys(data, f"preset/{name}/"):
        _check(data, key, name, golden.nhwc(data["in/img"][:1]))


@pytest.mark.parametrize("name", ["rect/bgc", "gray/bgc", "gray/bgcfnc"])
def test_golden_rectangular_and_gray(name):
    data = golden.load("ada")
    for key in _keys(data, f"{name}/"):
        _check(data, key, name.split("/")[1], golden.nhwc(data[f"in/{name.split('/')[0]}"]))


def test_golden_custom_ranges():
    data = golden.load("ada")
    ranges = data["meta"]["custom"]
    pipe = {name.rsplit("_", 1)[0]: 1 for name in ranges} | ranges
    _check(data, "custom/q0.9", pipe, golden.nhwc(data["in/img"][:1]))
    pipe = {"imgfilter": 1, "cutout": 1} | data["meta"]["custom2"]
    _check(data, "custom2/q0.9", pipe, golden.nhwc(data["in/img"][:1]))


def test_golden_gradient():
    data = golden.load("ada")
    images, weight = golden.nhwc(data["in/img"]), golden.nhwc(data["grad/bgc/r"])
    q = float(data["grad/bgc/q"])
    total = lambda x: jnp.sum(augment(x, KEY, 1.0, "bgc", debug_percentile=q) * weight)
    gradient = jax.jit(jax.grad(total))(images)
    golden.assert_close(golden.nchw(gradient), data["grad/bgc/gx"], 2e-5, "gx")


def test_golden_stochastic_with_the_reference_draws():
    data = golden.load("ada")
    numbers = {int(k[10:12]): v for k, v in data.items() if k.startswith("stoch/draw")}
    names = ["xflip", "rotate90", "xint", "scale", "rotate_pre", "aniso", "rotate_post", "xfrac"]
    names += [*A.COLOR, "band0", "band1", "band2", "band3", "noise"]
    draws = {}
    for i, name in enumerate(names):
        value = numbers[2 * i].reshape(4, -1)
        parts = [name] if value.shape[1] == 1 else [f"{name}_x", f"{name}_y"]
        draws |= dict(zip(parts, value.T, strict=True))
        draws[f"{name}_gate"] = numbers[2 * i + 1].reshape(4)
    draws["noise_field"] = golden.nhwc(numbers[36])
    draws["cutout_gate"] = numbers[37].reshape(4)
    draws["cutout_x"], draws["cutout_y"] = numbers[38].reshape(4, 2).T
    draws = {name: jnp.asarray(value) for name, value in draws.items()}
    ours = jax.jit(functools.partial(A.apply, pipe="bgcfnc"))(
        golden.nhwc(data["stoch/x"]), draws, data["stoch/p"]
    )
    golden.assert_close(golden.nchw(ours), data["stoch/y"], 2e-5, "stochastic")


def test_golden_blur():
    data = golden.load("sg3_ops")
    images = golden.nhwc(data["blur/x"])
    for sigma in (0.2, 1.0, 2.5, 10.0):
        ours = blur(images, sigma, 10.0)
        golden.assert_close(golden.nchw(ours), data[f"blur/sigma{sigma}"], 1e-5, f"sigma {sigma}")
    narrow = blur(images, 2.5, 2.5)
    golden.assert_close(golden.nchw(narrow), data["blur/sigma2.5"], 1e-5, "its own maximum")


def test_blur_faded_to_nothing_changes_nothing():
    images = jax.random.normal(KEY, [1, 8, 8, 2])
    np.testing.assert_array_equal(blur(images, 0.0, 3.0), images)
    assert np.abs(blur(images, 1.0, 3.0) - images).max() > 0.1


def _smooth(size=24):
    """Slow waves that continue over the reflected edge. The wavelet is not quite symmetric, so only
    such an image survives being turned, and by a twentieth of a pixel; noise is filtered a little."""
    x, y = np.meshgrid(*[np.pi * np.arange(size) / (size - 1)] * 2)
    waves = [np.cos(x) + np.cos(2 * y), np.cos(x + y), np.cos(2 * x) * np.cos(y) + np.cos(y)]
    return np.stack(waves, -1)[None].astype(np.float32)


def test_flips_and_quarter_turns_are_numpys():
    x = _smooth()
    flip, turn = (A.as_pipe({name: 1}) for name in ("xflip", "rotate90"))
    field = jnp.zeros(x.shape)
    np.testing.assert_allclose(_at(x, 0.2, flip, field), x, atol=1e-5)
    np.testing.assert_allclose(_at(x, 0.7, flip, field), x[:, :, ::-1], atol=0.04)
    for quarters in range(4):
        expected = np.rot90(x, quarters, axes=(1, 2))
        ours = _at(x, (quarters + 0.5) / 4, turn, field)
        np.testing.assert_allclose(ours, expected, atol=0.04, err_msg=str(quarters))


def test_rotation_by_a_right_angle_is_a_quarter_turn():
    x = _smooth()
    pipe = A.as_pipe({"rotate": 1})
    ours = np.asarray(_at(x, 0.75, pipe, jnp.zeros(x.shape)))  # (2 q - 1) * 180 = 90 degrees
    np.testing.assert_allclose(ours, np.rot90(x, 1, axes=(1, 2)), atol=0.04)


def test_whole_pixel_shift_reflects_at_the_edge():
    x = np.random.default_rng(0).normal(size=[1, 16, 16, 1]).astype(np.float32)
    ours = _at(x, 1.0, A.as_pipe({"xint": 1}), jnp.zeros(x.shape))  # 0.125 * 16 = 2 pixels
    padded = np.pad(x, [(0, 0), (2, 0), (2, 0), (0, 0)], mode="reflect")
    np.testing.assert_allclose(ours, padded[:, :16, :16], atol=2e-5)


def test_bounded_pipes_need_no_more_margin_than_they_take(monkeypatch):
    """The margin fixed at compile time: the largest one gives the same pixels."""
    x = np.random.default_rng(0).normal(size=[4, 32, 24, 3]).astype(np.float32)
    draws = jax.jit(lambda: A.draw(KEY, jnp.arange(4), x.shape[1:], field=False))()
    for pipe in ({"xint": 1}, {"rotate90": 1, "xint": 1}, {"rotate": 1, "xint": 1}):
        pipe = A.as_pipe(pipe)
        assert A._margins(32, 24, pipe) < (31, 23)
        ours = jax.jit(lambda d, pipe=pipe: A.apply(x, d, 1.0, pipe))(draws)
        with monkeypatch.context() as patch:
            patch.setattr(A, "_margins", lambda height, width, pipe: (height - 1, width - 1))
            largest = jax.jit(lambda d, pipe=pipe: A.apply(x, d, 1.0, pipe))(draws)
        np.testing.assert_allclose(ours, largest, atol=2e-5)


def test_colors_by_hand():
    x = np.random.default_rng(0).normal(size=[1, 4, 4, 3]).astype(np.float32)
    gray = x.mean(-1, keepdims=True)
    at = lambda q, **pipe: np.asarray(_at(x, q, A.as_pipe(pipe), jnp.zeros(x.shape)))
    np.testing.assert_allclose(at(0.7, lumaflip=1), x - 2 * gray, atol=1e-5)
    # A third of a turn about the gray axis permutes red, green and blue.
    third = at(0.5 + 1 / 3, hue=1)
    np.testing.assert_allclose(third, np.roll(x, 1, -1), atol=1e-5)
    assert np.allclose(at(0.5, brightness=1, contrast=1, hue=1, saturation=1), x, atol=1e-5)
    faint = at(1e-6, saturation=1, saturation_std=9.0)
    np.testing.assert_allclose(faint, np.broadcast_to(gray, x.shape), atol=1e-5)


def test_filter_bank_splits_what_adds_up():
    np.testing.assert_allclose(A._bands().sum(0), np.eye(1, 43, 21)[0], atol=1e-12)
    constant = A._band_matrices(16) @ np.ones(16)
    np.testing.assert_allclose(constant[0], 1, atol=1e-12)
    np.testing.assert_allclose(constant[1:], 0, atol=1e-12)


def test_cutout_blackens_its_rectangle():
    x = np.ones([1, 16, 8, 2], np.float32)
    ours = np.asarray(_at(x, 0.5, A.as_pipe({"cutout": 1}), jnp.zeros(x.shape)))
    expected = x.copy()
    expected[:, 4:12, 2:6] = 0
    np.testing.assert_array_equal(ours, expected)


@jax.jit
def _augment(images, key, p, index):
    return augment(images, key, p, "bgcfnc", index=index)


def test_probability_zero_returns_the_image():
    images = jax.random.uniform(KEY, [4, 16, 16, 3], minval=-1)
    np.testing.assert_allclose(_augment(images, KEY, 0.0, jnp.arange(4)), images, atol=5e-6)
    changed = _augment(images, KEY, 1.0, jnp.arange(4))
    assert np.abs(changed - images).max((1, 2, 3)).min() > 0.1


def test_an_image_draws_the_same_wherever_it_is():
    images = jax.random.uniform(KEY, [4, 16, 16, 3], minval=-1)
    index = jnp.array([3, 9, 4, 7])
    whole = _augment(images, KEY, 0.8, index)
    order = np.array([2, 0, 3, 1])
    moved = _augment(images[order], KEY, 0.8, index[order])
    np.testing.assert_allclose(moved, whole[order], atol=1e-6)
    on_device = lambda x, i: augment(x, KEY, 0.8, "bgcfnc", index=i)
    split = jax.pmap(on_device)(images[:, None], index[:, None])
    np.testing.assert_allclose(split[:, 0], whole, atol=2e-6)
    assert np.abs(_augment(images, jax.random.key(1), 0.8, index) - whole).max() > 0.1


def test_default_index_counts_from_zero():
    images = jax.random.uniform(KEY, [4, 8, 8, 3], minval=-1)
    default, given = jax.jit(
        lambda x: (
            augment(x, KEY, 0.8, "color"),
            augment(x, KEY, 0.8, "color", index=jnp.arange(4)),
        )
    )(images)
    np.testing.assert_array_equal(default, given)


def test_draws_follow_their_distributions():
    n = 4000
    draws = jax.jit(lambda: A.draw(KEY, jnp.arange(n), (1, 1, 1), field=True))()
    for name in [*A._UNIFORM, *(f"{name}_gate" for name in A._GATED)]:
        values = np.sort(draws[name])
        assert np.abs(values - (np.arange(n) + 0.5) / n).max() < 1.95 / n**0.5, name  # KS, 0.1 %
    for name in A._NORMAL:
        assert abs(draws[name].mean()) < 4 / n**0.5 and abs(draws[name].std() - 1) < 0.05, name
    values = np.stack([v for k, v in draws.items() if k != "noise_field"])
    correlation = np.corrcoef(values) - np.eye(len(values))
    assert np.abs(correlation).max() < 5 / n**0.5


def test_gates_open_with_strength_times_p():
    """Flips by one half of strength 0.5 at p 0.8; a cutout of strength 1 at p 0.8."""
    n = 4000
    images = jnp.broadcast_to(jnp.linspace(0.5, 1, 4)[:, None], [n, 4, 4, 1])
    pipe = A.as_pipe({"lumaflip": 0.5, "cutout": 1, "cutout_size": 2.0})
    y = np.asarray(jax.jit(lambda x: augment(x, KEY, 0.8, pipe))(images))
    black = (y == 0).all((1, 2, 3))
    assert abs(black.mean() - 0.8) < 4 * (0.8 * 0.2 / n) ** 0.5
    flipped = (y < 0).any((1, 2, 3))[~black]
    assert abs(flipped.mean() - 0.2) < 4 * (0.2 * 0.8 / len(flipped)) ** 0.5


def test_either_rotation_happens_with_strength_times_p():
    n, p = 4000, 0.36
    draws = jax.jit(lambda: A.draw(KEY, jnp.arange(n), (1, 1, 1), field=False))()
    gate = 1 - (1 - p) ** 0.5
    turned = (draws["rotate_pre_gate"] < gate) | (draws["rotate_post_gate"] < gate)
    assert abs(turned.mean() - p) < 4 * (p * (1 - p) / n) ** 0.5
    x = _smooth(12)
    one = {k: v[:64] for k, v in draws.items()}
    y = jax.jit(lambda d: A.apply(jnp.repeat(x, 64, 0), d, p, {"rotate": 1}))(one)
    moved = np.abs(np.asarray(y) - x).max((1, 2, 3)) > 1e-3
    np.testing.assert_array_equal(moved, turned[:64])


def test_gradients_are_those_of_finite_differences():
    """The pipe is affine in the image, so a directional difference of any length is exact."""
    with jax.enable_x64(True):
        images = jax.random.normal(KEY, [2, 16, 16, 3], jnp.float64)
        towards, weight = jax.random.normal(jax.random.key(1), [2, *images.shape], jnp.float64)
        draws = jax.jit(lambda: A.draw(KEY, jnp.arange(2), (16, 16, 3), field=True))()
        total = jax.jit(lambda x: jnp.sum(A.apply(x, draws, 0.9, "bgcfnc") * weight))
        slope = jnp.sum(jax.jit(jax.grad(total))(images) * towards)
        np.testing.assert_allclose(total(images + towards) - total(images), slope, rtol=1e-9)


def test_second_derivatives_pass_through():
    """R1 penalizes gradients taken through the pipe."""
    images = jax.random.normal(KEY, [2, 16, 16, 3])

    def penalty(scale):
        inner = lambda x: jnp.sum(jnp.tanh(scale * augment(x, KEY, 0.7, "bgc")))
        return jnp.sum(jax.grad(inner)(images) ** 2)

    ours = jax.jit(jax.grad(penalty))(0.5)
    step = 1e-2
    value = jax.jit(penalty)
    np.testing.assert_allclose(
        ours, (value(0.5 + step) - value(0.5 - step)) / (2 * step), rtol=1e-2
    )


def test_unknown_names_are_answered_with_the_nearest():
    images = jnp.zeros([1, 8, 8, 3])
    for pipe, message in (
        ("bgcc", "Did you mean 'bgc'"),
        ({"rotat": 1}, "Did you mean 'rotate'"),
        ({"imgfilter_bands": [1, 1]}, "takes 4 strengths"),
    ):
        with pytest.raises(ValueError, match=message):
            augment(images, KEY, 1.0, pipe)
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        jax.eval_shape(lambda x: augment(x, KEY, 1.0, "color"), images[..., :2])


def test_low_precision_images_keep_their_type():
    images = jax.random.uniform(KEY, [2, 16, 16, 3], minval=-1)
    ours, exact = jax.jit(lambda *x: [augment(x, KEY, 0.5, "bg") for x in x])(
        images.astype(jnp.bfloat16), images
    )
    assert ours.dtype == jnp.bfloat16
    golden.assert_close(ours, exact, 2e-2)
