"""Filters and resampling against reference outputs, a slow NumPy version and known responses."""

import golden
import jax
import numpy as np
import pytest

from jaxface.ops import filters


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
