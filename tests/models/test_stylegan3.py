"""The alias-free generator against reference outputs, and by its own invariants."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.models import stylegan3

NAMES = ["sg3_t32_G", "sg3_t64c_G", "sg3_r32_G", "sg3_t128_G"]


def _arrays(data):
    return {k[2:]: v for k, v in data.items() if k.startswith("G/")}


def test_golden_layer_plans():
    for plan in golden.load("sg3_layer_plans_filters")["meta"]:
        r = plan["cfg"] == "r"
        made = stylegan3.layer_plan(
            plan["img_resolution"],
            3,
            plan["channel_base"],
            plan["channel_max"],
            num_fp16_res=4,
            conv_kernel=1 if r else 3,
            use_radial_filters=r,
        )
        for name in ("input_channels", "input_size", "input_sampling_rate", "input_bandwidth"):
            assert getattr(made, name) == plan[name]
        for ours, theirs in zip(made.layers, plan["layers"], strict=True):
            ours = ours._asdict()
            assert list(ours.pop("padding")) == theirs.pop("padding")
            ours["use_fp16"] = ours.pop("low_precision")
            assert ours == pytest.approx(theirs)


@pytest.mark.parametrize("name", NAMES)
def test_golden_generator(name):
    data = golden.load(name)
    g = stylegan3.from_state_dict(data["meta"]["G_kwargs"], _arrays(data))
    z, c = data["in/z"], data["in/c"]
    ws = g.mapping(z, c)
    assert ws.shape == (4, data["meta"]["num_ws"], g.module.w_dim)
    golden.assert_close(ws[:, 3], data["out/w"], 1e-5, "w")
    golden.assert_close(g.mapping(z, c, 0.7)[:, 0], data["out/w_psi0.7"], 1e-5, "psi 0.7")
    cut = g.mapping(z, c, 0.5, 8)
    golden.assert_close(cut, data["out/w_psi0.5_cutoff8"], 1e-5, "psi 0.5, cutoff 8")

    every = 2 if g.module.img_resolution >= 128 else 1

    def check(images, key, step=1):
        images = golden.nchw(images)[:, :, ::step, ::step]
        golden.assert_close(images, data[key], 1e-4, key)

    # One call of four samples: two as they are, one truncated, one mixed; one compilation.
    mixed = np.asarray(ws[:1]).copy()
    mixed[:, 7:] = np.asarray(ws[3:4, 7:])
    images = g.synthesis(np.concatenate([ws[:2], cut[:1], mixed]))
    assert images.dtype == jnp.float32
    check(images[:2], "out/image")
    check(images[2:3], "out/image_psi0.5_cutoff8", every)
    check(images[3:], "out/image_mix7", every)


@pytest.mark.parametrize("name", NAMES[:3])
def test_golden_activations_transform_and_running_means(name):
    data = golden.load(name)
    g = stylegan3.from_state_dict(data["meta"]["G_kwargs"], _arrays(data))
    z, c = data["in/z"], data["in/c"] if g.module.c_dim else None

    @jax.jit
    def run(variables):
        ws = g.mapping(z, c)
        return g.activations(ws[:1]), g.synthesis(ws[:1], data["in/transform"])

    activations, transformed = run(g.variables)
    golden.assert_close(golden.nchw(transformed), data["out/image_transform"], 1e-4, "transform")
    for key in [k for k in data if k.startswith("act/")]:
        a = golden.nchw(activations[key[4:]])
        a = a[:, :: max(1, a.shape[1] // 8)]
        golden.assert_close(a, data[key], 1e-4, key)

    @jax.jit
    def forward(variables):
        return g.module.apply(variables, z, c, update_emas=True, mutable=["stats"])

    images, changed = forward(g.variables)
    stats = changed["stats"]
    golden.assert_close(golden.nchw(images[:1]), data["ema/image_during"], 1e-4, "image")
    golden.assert_close(stats["mapping"]["w_avg"], data["ema/w_avg_after"], 1e-5, "w_avg")
    for key in [k for k in data if k.endswith("magnitude_ema_after")]:
        layer = key.split("/")[1].split(".")[0]
        golden.assert_close(stats["synthesis"][layer]["magnitude_ema"], data[key], 1e-4, key)
