"""The discriminator against reference outputs, slow NumPy and its own invariants."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.models import discriminator
from jaxface.models.discriminator import Discriminator, minibatch_stddev, trainable_mask

NAMES = ["sg3_t32_D", "sg3_t64c_D"]
KWARGS = {"c_dim": 0, "img_resolution": 16, "img_channels": 2, "channel_base": 64}
KWARGS["channel_max"] = 8


def _load(name):
    data = golden.load(name)
    arrays = {k[2:]: v for k, v in data.items() if k.startswith("D/")}
    kwargs = data["meta"]["D_kwargs"]
    images = golden.nhwc(data["in/real_u8"]).astype(np.float32) / 127.5 - 1
    return data, kwargs, arrays, images


@pytest.fixture(scope="module")
def tiny():
    module = Discriminator(**KWARGS)
    images = jax.random.normal(jax.random.key(0), [8, 16, 16, 2])
    params = jax.jit(module.init)(jax.random.key(1), images)["params"]
    moved = jax.tree.map(lambda p: p + 0.1 * jnp.cos(jnp.arange(p.size)).reshape(p.shape), params)
    return module, moved, images


@pytest.mark.parametrize("name", NAMES)
def test_golden_logits_and_blocks(name):
    data, kwargs, arrays, images = _load(name)
    d = discriminator.from_state_dict(kwargs, arrays)
    for key, n in (("logits_real_batch2", 2), ("logits_real_batch1", 1)):
        logits = d.score(images[:n], data["in/c"][:n])
        golden.assert_close(logits, data[f"out/{key}"], 1e-4, key)

    @jax.jit
    def run(images, c):
        keep = lambda module, _: isinstance(module, discriminator.Block)
        return d.module.apply(d.variables, images, c, capture_intermediates=keep)

    logits, state = run(images, data["in/c"])
    golden.assert_close(logits, data["out/logits_real"], 1e-4, "logits_real")
    for key in (k for k in data if k.startswith("act/")):
        ours = golden.nchw(state["intermediates"][key[4:]]["__call__"][0])[:1]
        ours = ours[:, :: max(1, ours.shape[1] // 8)]
        golden.assert_close(ours, data[key], 1e-4, key)


def test_golden_state_dict_round_trip_is_exact():
    _, kwargs, arrays, _ = _load("sg3_t64c_D")
    back = discriminator.to_state_dict(
        kwargs, discriminator.from_state_dict(kwargs, arrays).variables
    )
    assert back.keys() == arrays.keys()
    for name in arrays:
        np.testing.assert_array_equal(back[name], arrays[name], name)


@pytest.mark.parametrize("case", ["group4_ch1", "groupNone_ch1", "group2_ch3", "group8_ch2"])
def test_golden_minibatch_stddev(case):
    data = golden.load("sg3_ops")
    group, channels = (part.strip("groupch") for part in case.split("_"))
    ours = minibatch_stddev(
        golden.nhwc(data["mbstd/x"]), None if group == "None" else int(group), int(channels)
    )
    golden.assert_close(golden.nchw(ours), data[f"mbstd/{case}"], 1e-5, case)


@pytest.mark.parametrize(("n", "group", "channels"), [(8, 4, 1), (6, 2, 3), (3, 4, 2)])
def test_minibatch_stddev_against_slow_numpy(n, group, channels):
    x = np.random.default_rng(0).normal(size=(n, 3, 2, 6)).astype(np.float32)
    size, width = min(group, n), 6 // channels
    expected = np.zeros([n, 3, 2, channels])
    for i in range(n):
        members = x[i % (n // size) :: n // size]
        for k in range(channels):
            part = members[..., k * width : (k + 1) * width].astype(np.float64)
            expected[i, :, :, k] = np.sqrt(part.var(0) + 1e-8).mean()
    ours = np.asarray(minibatch_stddev(jnp.asarray(x), group, channels))
    np.testing.assert_array_equal(ours[..., :6], x)
    np.testing.assert_allclose(ours[..., 6:], expected, rtol=1e-5)


def test_minibatch_stddev_names_a_batch_that_does_not_split():
    with pytest.raises(ValueError, match="batch of 6 does not split into groups of 4"):
        minibatch_stddev(jnp.zeros([6, 4, 4, 2]), 4)


def test_network_against_slow_numpy(tiny):
    """The whole forward pass, written as loops over zero-padded convolutions in float64."""
    module, params, images = tiny
    p = jax.tree.map(lambda v: np.asarray(v, np.float64), params)

    def conv(x, w, stride=1, pad=0):
        x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
        k = w.shape[2]
        size = (x.shape[2] - k) // stride + 1
        y = np.zeros([len(x), len(w), size, size])
        for i in range(size):
            for j in range(size):
                patch = x[:, :, i * stride : i * stride + k, j * stride : j * stride + k]
                y[:, :, i, j] = np.tensordot(patch, w, ([1, 2, 3], [1, 2, 3]))
        return y

    def blur(x, pad, stride=1):
        f = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
        y = conv(x.reshape(-1, 1, *x.shape[2:]), f[None, None], stride, pad)
        return y.reshape(*x.shape[:2], *y.shape[2:])

    def equalized(layer):
        return layer["weight"] / np.sqrt(np.prod(layer["weight"].shape[1:]))

    def activate(x, layer, gain=1.0):
        x = x + layer["bias"].reshape(1, -1, *[1] * (x.ndim - 2))
        return np.clip(np.where(x > 0, x, 0.2 * x) * 2**0.5 * gain, -256 * gain, 256 * gain)

    x = np.moveaxis(np.asarray(images, np.float64), -1, 1)
    x = activate(conv(x, equalized(p["b16"]["fromrgb"])), p["b16"]["fromrgb"])
    for name in ("b16", "b8"):
        b = p[name]
        y = conv(blur(x, 1, 2), equalized(b["skip"])) * 0.5**0.5
        x = activate(conv(x, equalized(b["conv0"]), pad=1), b["conv0"])
        x = y + activate(conv(blur(x, 2), equalized(b["conv1"]), 2), b["conv1"], 0.5**0.5)
    groups = x.reshape(4, 2, -1)
    spread = np.sqrt(groups.var(0) + 1e-8).mean(-1)
    spread = np.tile(spread, 4)[:, None, None, None] * np.ones([1, 1, 4, 4])
    b = p["b4"]
    x = activate(conv(np.concatenate([x, spread], 1), equalized(b["conv"]), pad=1), b["conv"])
    x = activate(x.reshape(8, -1) @ equalized(b["fc"]).T, b["fc"])
    x = x @ equalized(b["out"]).T + b["out"]["bias"]
    golden.assert_close(jax.jit(module.apply)({"params": params}, images), x, 1e-5, "logits")


def test_pmap_groups_are_those_of_the_global_batch(tiny):
    """Eight devices, one example each: logits and mean gradient equal those of one device."""
    module, params, images = tiny

    def loss(params, images, axis=None):
        logits = module.apply({"params": params}, images, axis=axis)
        return jnp.mean(logits**2), logits

    grad = jax.jit(jax.grad(loss, has_aux=True))
    expected, logits = grad(params, images)

    def on_device(params, images):
        grads, logits = jax.grad(loss, has_aux=True)(params, images, "data")
        return jax.lax.pmean(grads, "data"), logits

    ours, split = jax.pmap(on_device, "data", in_axes=(None, 0))(params, images[:, None])
    golden.assert_close(split[:, 0], logits, 1e-5, "logits")
    jax.tree.map(lambda a, b: golden.assert_close(a[0], b, 1e-4), ours, expected)


def test_bfloat16_blocks_stay_near_float32(tiny):
    module, params, images = tiny
    exact = jax.jit(module.apply)({"params": params}, images)
    low = jax.jit(module.clone(num_fp16_res=1).apply)({"params": params}, images)
    assert low.dtype == jnp.float32 and not np.array_equal(low, exact)
    golden.assert_close(low, exact, 3e-2, "bfloat16")
    loaded = discriminator.Loaded(module.clone(num_fp16_res=4), {"params": params})
    golden.assert_close(loaded.score(images), exact, 1e-6, "score is float32")


def test_activations_are_clamped_after_their_gain():
    layer = discriminator.Conv2d(3, 1, gain=0.5, clamp=4.0)
    x = 100 * jax.random.normal(jax.random.key(0), [2, 4, 4, 2])
    y, _ = jax.jit(layer.init_with_output)(jax.random.key(1), x)
    assert y.min() == -2 and y.max() == 2


def test_labels_matter_and_are_demanded():
    module = Discriminator(**KWARGS | {"c_dim": 3}, mapping_kwargs={"num_layers": 2})
    images = jax.random.normal(jax.random.key(0), [2, 16, 16, 2])
    variables = jax.jit(module.init)(jax.random.key(1), images, jnp.eye(3)[:2])
    apply = jax.jit(module.apply)
    one, other = apply(variables, images, jnp.eye(3)[:2]), apply(variables, images, jnp.eye(3)[1:])
    assert np.abs(one - other).min() > 1e-3
    with pytest.raises(ValueError, match=r"labels c of shape \[2, 3\] needed, none given"):
        jax.eval_shape(module.apply, variables, images)


def test_every_mismatch_is_listed_in_one_error(tiny):
    module, params, _ = tiny
    arrays = discriminator.to_state_dict(KWARGS, {"params": params})
    assert {"b16.resample_filter", "b16.fromrgb.resample_filter", "b4.conv.bias"} <= arrays.keys()
    broken = dict(arrays)
    del broken["b8.skip.weight"]
    broken["b4.out.weight"] = np.zeros([1, 5], np.float32)
    broken["b4.extra"] = np.zeros(1)
    broken["b8.resample_filter"] = np.full([4, 4], 1 / 16)
    with pytest.raises(ValueError) as error:
        discriminator.from_state_dict(KWARGS, broken)
    for part in ("b8.skip.weight: missing", "(1, 5), wanted (1, 8)", "b4.extra: not used"):
        assert part in str(error.value)
    assert "b8.resample_filter: not the" in str(error.value)
    for wrong, message in (
        ({"img_channel": 3}, "Did you mean 'img_channels'"),
        ({"architecture": "orig"}, "only 'resnet'"),
        ({"img_resolution": 24}, "power of two"),
        ({"epilogue_kwargs": {"mbstd_group": 4}}, "Did you mean 'mbstd_group_size'"),
        ({"block_kwargs": {"activation": "relu"}}, "only 'lrelu'"),
    ):
        with pytest.raises(ValueError, match=message):
            discriminator.from_state_dict(KWARGS | wrong, arrays)


def test_freezed_counts_layers_from_the_image(tiny):
    params = tiny[1]

    def frozen(n):
        mask = trainable_mask(params, n)
        assert jax.tree.structure(mask) == jax.tree.structure(params)
        return {
            f"{block}.{layer}"
            for block, layers in mask.items()
            for layer, leaves in layers.items()
            if not any(leaves.values())
        }

    assert frozen(0) == set()
    assert frozen(3) == {"b16.fromrgb", "b16.conv0", "b16.conv1"}
    assert frozen(5) == frozen(3) | {"b16.skip", "b8.conv0"}
    assert "b4.conv" not in frozen(100) and len(frozen(100)) == 7
