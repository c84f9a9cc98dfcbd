"""The alias-free generator against reference outputs, and by its own invariants."""

import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxface.models import stylegan3

NAMES = ["sg3_t32_G", "sg3_t64c_G", "sg3_r32_G", "sg3_t128_G"]
SMALL = dict(
    z_dim=8,
    c_dim=3,
    w_dim=8,
    img_resolution=16,
    img_channels=3,
    mapping_kwargs={"num_layers": 2},
    channel_base=64,
    channel_max=8,
    num_layers=2,
    num_critical=1,
    margin_size=4,
    filter_size=2,
)


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
    ws = np.asarray(g.mapping(z, c))
    assert ws.shape == (4, data["meta"]["num_ws"], g.module.w_dim)
    golden.assert_close(ws[:, 3], data["out/w"], 1e-5, "w")
    golden.assert_close(g.mapping(z, c, 0.7)[:, 0], data["out/w_psi0.7"], 1e-5, "psi 0.7")
    cut = np.asarray(g.mapping(z, c, 0.5, 8))
    golden.assert_close(cut, data["out/w_psi0.5_cutoff8"], 1e-5, "psi 0.5, cutoff 8")

    # One compilation for everything: two as they are, one truncated, one mixed, one transformed.
    mixed = np.where(np.arange(ws.shape[1])[:, None] < 7, ws[:1], ws[3:])
    batch = np.concatenate([ws[:2], cut[:1], mixed, ws[:1]])
    activations = g.activations(batch, np.stack([np.eye(3)] * 4 + [data["in/transform"]]))
    assert set(activations) == {"input", *data["meta"]["layer_names"]}
    images = golden.nchw(activations[data["meta"]["layer_names"][-1]] * g.module.output_scale)
    golden.assert_close(images[:2], data["out/image"], 1e-4, "image")
    every = 2 if images.shape[-1] >= 128 else 1
    for i, key in enumerate(("image_psi0.5_cutoff8", "image_mix7", "image_transform"), 2):
        golden.assert_close(images[i : i + 1, :, ::every, ::every], data[f"out/{key}"], 1e-4, key)
    for key in [k for k in data if k.startswith("act/")]:
        a = golden.nchw(activations[key[4:]][:1])
        step = a.shape[1] // 4 if a.shape[-1] >= 128 else a.shape[1] // 8
        golden.assert_close(a[:, :: max(1, step)], data[key], 1e-4, key)


@pytest.mark.parametrize("name", NAMES[:1])
def test_golden_running_means(name):
    data = golden.load(name)
    g = stylegan3.from_state_dict(data["meta"]["G_kwargs"], _arrays(data))
    forward = jax.jit(functools.partial(g.module.apply, update_emas=True, mutable=["stats"]))
    images, changed = forward(g.variables, data["in/z"], data["in/c"])
    stats = changed["stats"]
    every = 2 if g.module.img_resolution >= 128 else 1
    golden.assert_close(
        golden.nchw(images[:1, ::every, ::every]), data["ema/image_during"], 1e-4, "image"
    )
    golden.assert_close(stats["mapping"]["w_avg"], data["ema/w_avg_after"], 1e-5, "w_avg")
    keys = [k for k in data if k.endswith("magnitude_ema_after")]
    assert len(keys) == len(data["meta"]["layer_names"])
    for key in keys:
        layer = key.split("/")[1].split(".")[0]
        golden.assert_close(stats["synthesis"][layer]["magnitude_ema"], data[key], 1e-4, key)


# ---- what needs nothing outside the repository ---------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """A tiny conditional generator whose every weight and mean differs from its initial value."""
    module = stylegan3.from_kwargs(SMALL, dtype=jnp.float32)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros([1, 8]), jnp.zeros([1, 3]))
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(0)
    leaves = [np.asarray(x + 0.1 * rng.standard_normal(x.shape), np.float32) for x in leaves]
    variables = jax.tree.unflatten(tree, leaves)
    variables["stats"]["synthesis"]["input"]["transform"] = np.eye(3, dtype=np.float32)
    z = rng.standard_normal([4, 8]).astype(np.float32)
    c = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    loaded = stylegan3.from_state_dict(SMALL, stylegan3.to_state_dict(SMALL, variables))
    return loaded, z, c


def test_state_dict_round_trip_names_and_layouts(small):
    loaded, _, _ = small
    arrays = stylegan3.to_state_dict(SMALL, loaded.variables)
    again = stylegan3.params_from_state_dict(SMALL, arrays)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, again)
    layer = loaded.module.plan.layers[1]
    weight = arrays[f"synthesis.{layer.name}.weight"]
    assert weight.shape == (layer.out_channels, layer.in_channels, 3, 3)
    kernel = loaded.variables["params"]["synthesis"][layer.name]["weight"]
    assert weight[1, 2, 0, 1] == kernel[0, 1, 2, 1]
    assert arrays["mapping.fc0.weight"].shape == (8, 16)
    assert arrays[f"synthesis.{layer.name}.up_filter"].shape == (layer.up_taps,)


def test_state_dict_lists_every_problem(small):
    arrays = stylegan3.to_state_dict(SMALL, small[0].variables)
    layer = small[0].module.plan.layers[1].name
    arrays["mapping.fc0.weight"] = arrays["mapping.fc0.weight"].T[:3]
    del arrays["mapping.w_avg"]
    arrays["synthesis.noise"] = np.zeros(3)
    arrays[f"synthesis.{layer}.up_filter"] = arrays[f"synthesis.{layer}.up_filter"] * 1.01
    with pytest.raises(ValueError) as error:
        stylegan3.params_from_state_dict(SMALL, arrays)
    for text in (
        "4 array(s)",
        "mapping.w_avg: missing",
        "synthesis.noise: not used",
        "mapping.fc0.weight: has shape (3, 8), wanted (8, 16)",
        f"synthesis.{layer}.up_filter: not the filter",
    ):
        assert text in str(error.value)


def test_arguments_that_make_no_generator():
    with pytest.raises(ValueError, match="no argument 'chanel_max'. Did you mean 'channel_max'"):
        stylegan3.from_kwargs(SMALL | {"chanel_max": 3})
    with pytest.raises(ValueError, match="mapping network has no argument 'layers'"):
        stylegan3.from_kwargs(SMALL | {"mapping_kwargs": {"layers": 3}})
    with pytest.raises(ValueError, match="missing: w_dim"):
        stylegan3.from_kwargs({k: v for k, v in SMALL.items() if k != "w_dim"})
    with pytest.raises(ValueError, match="power of two"):
        stylegan3.layer_plan(48)
    with pytest.raises(ValueError, match="num_layers=2 must exceed"):
        stylegan3.layer_plan(32, num_layers=2, num_critical=2)


def test_jit_equals_eager_and_sample_is_synthesis_of_mapping(small):
    g, z, c = small
    images = g.sample(z, c, 0.7, 2)
    assert images.shape == (4, 16, 16, 3) and images.dtype == jnp.float32
    with jax.disable_jit():
        ws = g.module.apply(g.variables, z, c, 0.7, 2, method="mapping")
        eager = g.module.apply(g.variables, ws, method="synthesis")
    golden.assert_close(images, eager, 1e-5)
    assert np.asarray(images).std() > 1e-3


def test_truncation_pulls_the_first_layers_to_the_mean(small):
    g, z, c = small
    ws, w_avg = np.asarray(g.mapping(z, c)), g.variables["stats"]["mapping"]["w_avg"]
    half = np.asarray(g.mapping(z, c, 0.5, 2))
    np.testing.assert_allclose(half[:, :2], (ws[:, :2] + w_avg) / 2, atol=1e-6)
    np.testing.assert_allclose(half[:, 2:], ws[:, 2:], atol=1e-6)
    np.testing.assert_allclose(g.mapping(z, c, 0.0), np.broadcast_to(w_avg, ws.shape), atol=1e-6)


def test_wrong_latents_and_labels(small):
    g, z, c = small
    with pytest.raises(ValueError, match="z_dim=8"):
        g.mapping(z[:, :5], c)
    with pytest.raises(ValueError, match=r"labels c of shape \[N, 3\]"):
        g.mapping(z)
    free = stylegan3.Generator(**(SMALL | {"c_dim": 0}))
    with pytest.raises(ValueError, match="unconditional"):
        jax.eval_shape(free.init, jax.random.key(0), z, c)


def test_recomputing_layers_changes_no_gradient(small):
    g, z, c = small
    params, stats = g.variables["params"], g.variables["stats"]

    def gradient(module):
        def loss(params):
            images, changed = module.apply(
                {"params": params, "stats": stats}, z, c, update_emas=True, mutable=["stats"]
            )
            return jnp.sum(jnp.sin(7 * images)), changed["stats"]

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    grads, changed = gradient(g.module)
    again, changed_again = gradient(g.module.clone(remat=True))
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(again)):
        assert np.abs(a).max() > 0
        golden.assert_close(b, a, 1e-4)
    jax.tree.map(functools.partial(golden.assert_close, tolerance=1e-5), changed_again, changed)


def test_devices_share_the_batch_statistics(small):
    g, z, c = small
    run = functools.partial(g.module.apply, update_emas=True, mutable=["stats"])
    one = jax.jit(run)(g.variables, z, c)
    split = jax.shard_map(
        lambda v, z, c: run(v, z, c, axis="data"),
        mesh=Mesh(np.array(jax.devices()[:2]), ("data",)),
        in_specs=(P(), P("data"), P("data")),
        out_specs=(P("data"), P()),
        check_vma=False,
    )
    two = jax.jit(split)(g.variables, z, c)
    golden.assert_close(two[0], one[0], 1e-5, "images")
    jax.tree.map(functools.partial(golden.assert_close, tolerance=1e-5), two[1], one[1])


def test_low_precision_layers_stay_close(small):
    g, z, c = small
    exact = g.sample(z, c)
    module = stylegan3.from_kwargs(SMALL | {"num_fp16_res": 4})
    assert all(layer.low_precision for layer in module.plan.layers)
    images = jax.jit(module.apply)(g.variables, z, c)
    assert images.dtype == jnp.float32
    error = np.abs(images - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.05  # bfloat16 keeps 8 bits


def test_translation_of_the_features_moves_the_picture():
    """Equivariance, what the architecture is for: a shift by a whole pixel is one by a pixel."""
    kwargs = SMALL | {"img_resolution": 32, "margin_size": 10, "filter_size": 6, "c_dim": 0}
    g = stylegan3.Generator(**kwargs)
    z = jax.random.normal(jax.random.key(1), [1, 8])
    variables = jax.jit(g.init)(jax.random.key(0), z)
    shift = np.eye(3)
    shift[0, 2] = 4 / 32  # the inverse matrix: samples lie 4 pixels to the right

    @jax.jit
    def run(transform):
        ws = g.apply(variables, z, method="mapping")
        return g.apply(variables, ws, transform=transform, method="synthesis")[0]

    still, moved = run(np.eye(3)), run(shift)
    error = np.abs(moved[:, :-4] - still[:, 4:]).max() / np.abs(still).max()
    change = np.abs(moved - still).max() / np.abs(still).max()
    assert error < 0.02 < 0.2 < change


def test_published_number_of_parameters():
    def count(**kwargs):
        module = stylegan3.Generator(512, 0, 512, **kwargs)
        z = jax.ShapeDtypeStruct((1, 512), jnp.float32)
        params = jax.eval_shape(module.init, jax.random.key(0), z)["params"]
        return sum(x.size for x in jax.tree.leaves(params))

    # StyleGAN3-T at 1024 px: 22.3 million (arXiv 2106.12423, figure 5).
    assert round(count(img_resolution=1024) / 1e6, 1) == 22.3
    # 64 px, channel base 8192: counted by hand from the layer plan.
    assert count(img_resolution=64, channel_base=8192) == 25_124_838
