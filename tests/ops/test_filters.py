"""Filters and resampling against reference outputs, a slow NumPy version and known responses."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.ops import filters, here


@pytest.fixture(params=["by phases", "in few ops"])
def form(request):
    """Both forms of a filter that is known when the program is traced."""
    with here.in_few_ops(request.param == "in few ops"):
        yield


@pytest.fixture(scope="module")
def ops():
    return golden.load("sg3_ops")


def _filter(ops, name):
    return None if name is None else ops[f"filter/{name}"]


def test_golden_filter_design():
    data = golden.load("sg3_layer_plans_filters")
    checked = 0
    for plan in data["meta"]:
        for layer in plan["layers"]:
            rate = layer["tmp_sampling_rate"]
            for side, cutoff, half, taps, radial in (
                ("up", "in_cutoff", "in_half_width", "up_taps", False),
                ("down", "out_cutoff", "out_half_width", "down_taps", layer["down_radial"]),
            ):
                made = filters.design_lowpass_filter(
                    layer[taps], layer[cutoff], 2 * layer[half], rate, radial
                )
                expected = data.get(f"{plan['key']}/{layer['name']}/{side}_filter")
                if expected is None:
                    assert made is None
                else:
                    assert made.dtype == np.float32
                    golden.assert_close(made, expected, 1e-6, f"{plan['key']} {layer['name']}")
                    checked += 1
    assert checked > 100


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("i", range(11))
def test_golden_filtered_lrelu(ops, i):
    meta = dict(ops["meta"]["filtered_lrelu"][i])
    a = {k: ops[f"filtered_lrelu/{i}/{k}"] for k in ("x", "b", "y", "r", "gx", "gb")}
    fu, fd = _filter(ops, meta.pop("fu")), _filter(ops, meta.pop("fd"))
    padding = meta.pop("pad")

    @jax.jit
    def run(x, b, r):
        y, pull = jax.vjp(
            lambda x, b: filters.filtered_lrelu(x, fu, fd, b, padding=padding, **meta), x, b
        )
        return y, *pull(r)

    y, gx, gb = run(golden.nhwc(a["x"]), a["b"], golden.nhwc(a["r"]))
    golden.assert_close(golden.nchw(y), a["y"], 1e-5, "y")
    golden.assert_close(golden.nchw(gx), a["gx"], 1e-5, "gx")
    golden.assert_close(gb, a["gb"], 1e-5, "gb")


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("i", range(9))
def test_golden_upfirdn2d(ops, i):
    meta = dict(ops["meta"]["upfirdn2d"][i])
    a = {k: ops[f"upfirdn2d/{i}/{k}"] for k in ("x", "y", "r", "gx")}
    f, padding = _filter(ops, meta.pop("f")), meta.pop("pad")
    flip, gain = meta.pop("flip_filter", False), meta.pop("gain", 1)

    @jax.jit
    def run(x, r):
        y, pull = jax.vjp(
            lambda x: filters.upfirdn2d(
                x, f, meta["up"], meta["down"], padding, flip_filter=flip, gain=gain
            ),
            x,
        )
        return y, *pull(r)

    y, gx = run(golden.nhwc(a["x"]), golden.nhwc(a["r"]))
    golden.assert_close(golden.nchw(y), a["y"], 1e-5, "y")
    golden.assert_close(golden.nchw(gx), a["gx"], 1e-5, "gx")


@pytest.mark.parametrize(
    "key, f, function, options",
    [
        ("upsample2d_k4", "k4", filters.upsample2d, {}),
        ("downsample2d_k4", "k4", filters.downsample2d, {}),
        ("filter2d_k4", "k4", filters.filter2d, {}),
        ("upsample2d_F12", "F12", filters.upsample2d, {}),
        ("downsample2d_F12", "F12", filters.downsample2d, {}),
        ("downsample2d_asym_flip", "asym5", filters.downsample2d, {"flip_filter": True}),
    ],
)
def test_golden_resampling(ops, key, f, function, options):
    y = jax.jit(lambda x: function(x, _filter(ops, f), **options))(golden.nhwc(ops["resample/x"]))
    golden.assert_close(golden.nchw(y), ops[f"resample/{key}"], 1e-5)


def test_golden_activations(ops):
    x, b = golden.nhwc(ops["resample/x"]), ops["bias_act/b"]
    for key in [k for k in ops if k.startswith("bias_act/") and k != "bias_act/b"]:
        act = key.split("/")[1]
        options = {}
        if act.startswith("lrelu_"):
            act, options = "lrelu", {"alpha": 0.3, "gain": 2, "clamp": 1}
        y = filters.bias_act(2 * x, b, act, **options)
        golden.assert_close(golden.nchw(y), ops[key], 1e-5, key)


def test_golden_setup_filter(ops):
    eight = np.arange(1.0, 9)
    for made, key in (
        (filters.setup_filter([1, 3, 3, 1]), "k4"),
        (filters.setup_filter(eight), "setup_8tap"),
        (filters.setup_filter(eight, normalize=False), "setup_8tap_nonorm"),
    ):
        golden.assert_close(made, ops[f"filter/{key}"], 1e-6, key)


@pytest.mark.parametrize("i", range(4))
def test_golden_modulated_convolution(ops, i):
    meta = ops["meta"]["other"][i]
    a = {k: ops[f"modconv/{i}/{k}"] for k in ("x", "w", "s", "y", "r", "gx", "gw", "gs")}

    @jax.jit
    def run(x, w, s, r):
        y, pull = jax.vjp(
            lambda x, w, s: filters.modulated_conv2d(
                x, w, s, meta["demodulate"], meta["padding"], meta["input_gain"]
            ),
            x,
            w,
            s,
        )
        return y, *pull(r)

    w = a["w"].transpose(2, 3, 1, 0)
    y, gx, gw, gs = run(golden.nhwc(a["x"]), w, a["s"], golden.nhwc(a["r"]))
    golden.assert_close(golden.nchw(y), a["y"], 1e-5, "y")
    golden.assert_close(golden.nchw(gx), a["gx"], 1e-5, "gx")
    golden.assert_close(gw, a["gw"].transpose(2, 3, 1, 0), 1e-5, "gw")
    golden.assert_close(gs, a["gs"], 1e-5, "gs")


# ---- what needs nothing outside the repository ---------------------------------------------------


def _slow(x, f, up, down, padding, flip):
    """upfirdn2d pixel by pixel in float64, as its docstring defines it."""
    f = np.ones((1, 1)) if f is None else np.asarray(f, np.float64)
    f = np.outer(f, f) if f.ndim == 1 else f
    f = f if flip else f[::-1, ::-1]
    n, h, w, c = x.shape
    left, right, top, bottom = padding
    stuffed = np.zeros((n, h * up, w * up, c))
    stuffed[:, ::up, ::up] = x
    padded = np.pad(
        stuffed,
        [(0, 0)] + [(max(a, 0), max(b, 0)) for a, b in ((top, bottom), (left, right))] + [(0, 0)],
    )
    padded = padded[:, max(-top, 0) : padded.shape[1] - max(-bottom, 0)]
    padded = padded[:, :, max(-left, 0) : padded.shape[2] - max(-right, 0)]
    kh, kw = f.shape
    out = [
        [
            np.einsum("nijc,ij->nc", padded[:, i : i + kh, j : j + kw], f)
            for j in range(0, padded.shape[2] - kw + 1, down)
        ]
        for i in range(0, padded.shape[1] - kh + 1, down)
    ]
    return np.moveaxis(np.array(out), 2, 0)


RNG = np.random.default_rng(0)
CASES = [  # filter, up, down, padding, flip
    (RNG.standard_normal(12), 2, 1, (9, 8, -3, 8), False),
    (RNG.standard_normal(24), 4, 2, (-6, 5, 20, 3), True),
    (RNG.standard_normal(9), 3, 2, (5, 4, 4, 5), False),
    (RNG.standard_normal((3, 4)), 2, 3, (1, 2, 3, 0), False),
    (filters.design_lowpass_filter(12, 2, 12, 32, radial=True), 1, 2, (4, 1, 4, 4), False),
    (None, 2, 1, (-1, 2, 0, 1), False),
]


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("case", CASES)
def test_resampling_and_both_derivatives_in_float64(case):
    f, up, down, padding, flip = case
    x = RNG.standard_normal((2, 7, 9, 3))
    expected = _slow(x, f, up, down, padding, flip)
    run = lambda x: filters.upfirdn2d(x, f, up, down, padding, flip)
    r, v = RNG.standard_normal(expected.shape), RNG.standard_normal(x.shape)
    # d/dx of <v, gradient of sum(y^2) / 2> = A'A v, which needs the adjoint's own gradient.
    energy = lambda x: jnp.sum(run(x) ** 2) / 2

    @jax.jit
    def all_of(x, r, v):
        y, pull = jax.vjp(run, x)
        return y, *pull(r), jax.grad(lambda x: jnp.sum(jax.grad(energy)(x) * v))(x)

    with jax.enable_x64(True):
        y, gx, twice = map(np.asarray, all_of(x, r, v))
    assert y.dtype == gx.dtype == twice.dtype == np.float64
    golden.assert_close(y, expected, 1e-13)
    # The adjoint: <A v, r> = <v, A' r>.
    there = np.sum(_slow(v, f, up, down, padding, flip) * r)
    np.testing.assert_allclose(np.sum(v * gx), there, rtol=1e-10)
    np.testing.assert_allclose(
        np.sum(v * twice), np.sum(_slow(v, f, up, down, padding, flip) ** 2), rtol=1e-10
    )


def test_traced_taps_equal_constant_ones_and_have_a_gradient():
    x = RNG.standard_normal((2, 9, 8, 3)).astype(np.float32)
    f = RNG.standard_normal(5).astype(np.float32)
    run = lambda x, f: filters.upfirdn2d(x, f, 2, 3, (3, 1, 2, 2), gain=1.5)
    golden.assert_close(jax.jit(run)(x, f), run(x, f), 1e-6)
    slope = jax.grad(lambda f: run(x, f).sum())(f)
    step = 1e-2 * RNG.standard_normal(5).astype(np.float32)
    change = (run(x, f + step).sum() - run(x, f - step).sum()) / 2
    np.testing.assert_allclose(np.sum(slope * step), change, rtol=1e-3)
    with pytest.raises(TypeError, match="2-D filter"):
        jax.jit(run)(x, np.ones((2, 2), np.float32))


@pytest.mark.usefixtures("form")
def test_vmap_and_bfloat16():
    x = RNG.standard_normal((2, 3, 6, 5, 4)).astype(np.float32)
    f = filters.design_lowpass_filter(12, 2, 12, 32)
    run = jax.jit(lambda x: filters.filtered_lrelu(x, f, f, None, 2, 2, (9, 8, 9, 8)))
    together = run(x.reshape(6, 6, 5, 4)).reshape(2, 3, 4, 3, 4)
    golden.assert_close(jax.vmap(run)(x), together, 1e-6)
    half = run(x[0].astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    golden.assert_close(half, together[0], 0.02)


def test_few_ops_are_few():
    """A pass over each axis is a product and a transposition."""
    f = filters.design_lowpass_filter(12, 2, 12, 32)
    shape = jax.ShapeDtypeStruct((2, 8, 8, 3), np.float32)
    ops = lambda: str(jax.make_jaxpr(lambda x: filters.upfirdn2d(x, f, 2))(shape)).count(" = ")
    with here.in_few_ops():
        assert ops() == 4
    assert ops() > 40


def test_too_small_an_image_is_refused():
    with pytest.raises(ValueError, match="fewer than the 12 filter taps"):
        filters.upfirdn2d(np.ones((1, 4, 4, 1), np.float32), np.ones(12), padding=2)


@pytest.mark.parametrize("radial", [False, True])
def test_lowpass_response(radial):
    """Unit gain at zero, one half at the cutoff, little in the stopband; a circle when radial."""
    taps, cutoff, width, rate = 48, 6.0, 6.0, 32.0
    f = filters.design_lowpass_filter(taps, cutoff, width, rate, radial).astype(np.float64)
    position = (np.arange(taps) - (taps - 1) / 2) / rate

    def response(frequency, angle=0.0):
        if not radial:
            return f @ np.cos(2 * np.pi * frequency * position)
        x, y = np.meshgrid(position, position)
        return np.sum(f * np.cos(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle))))

    for angle in (0.0, 0.4, np.pi / 4) if radial else (0.0,):
        assert response(0, angle) == pytest.approx(1, abs=1e-6)
        assert response(cutoff, angle) == pytest.approx(0.5, abs=0.06)
        passed = [response(v, angle) for v in np.linspace(0, cutoff - width / 2, 9)]
        stopped = [response(v, angle) for v in np.linspace(cutoff + width / 2, rate / 2, 9)]
        np.testing.assert_allclose(passed, 1, atol=0.01)
        np.testing.assert_allclose(stopped, 0, atol=0.01)


@pytest.mark.parametrize("padding", [0, 2])
def test_modulated_convolution_equals_scaled_weights(padding):
    """Against the definition: one weight tensor per sample, scaled and demodulated."""
    x, w = RNG.standard_normal((2, 5, 6, 4)), RNG.standard_normal((3, 3, 4, 3))
    s, gain = RNG.standard_normal((2, 4)), RNG.uniform(0.5, 2, (2, 4))
    unit = w / np.sqrt((w**2).mean((0, 1, 2)))
    scale = s / np.sqrt((s**2).mean())
    padded = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    expected = []
    for n in range(2):
        weight = unit * scale[n][:, None]
        weight = weight / np.sqrt((weight**2).sum((0, 1, 2)) + 1e-8) * gain[n][:, None]
        h, v = padded.shape[1] - 2, padded.shape[2] - 2
        windows = [
            [np.einsum("ijc,ijco->o", padded[n, i : i + 3, j : j + 3], weight) for j in range(v)]
            for i in range(h)
        ]
        expected.append(windows)
    with jax.enable_x64(True):
        y = filters.modulated_conv2d(*map(jnp.asarray, (x, w, s)), True, padding, jnp.asarray(gain))
    golden.assert_close(y, np.array(expected), 1e-12)
