"""Residual networks against reference outputs and gradients, slow NumPy and their own invariants."""

import dataclasses
import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

from jaxface.errors import UserError
from jaxface.models import layers, resnet


@functools.cache
def _random(depth):
    """Network of 3 classes with random weights, its state dict, and small pictures."""
    kwargs = {"depth": depth, "num_classes": 3}
    module = resnet.from_kwargs(kwargs)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros([1, 32, 32, 3]))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    arrays = reference.arrays_like(resnet.to_state_dict(kwargs, zeros))
    x = np.random.default_rng(1).normal(0, 1, (2, 32, 34, 3)).astype(np.float32)
    return arrays, resnet.from_state_dict(kwargs, arrays), x


def _exact(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


@pytest.mark.parametrize("depth", [18, 50])
def test_golden_inference(depth):
    data = golden.load(f"resnet{depth}_recipe")
    network = resnet.from_state_dict({"depth": depth}, reference.from_recipe(data["meta"]))
    seen = network.activations(golden.nhwc(data["in/x"]))
    golden.assert_close(seen["output"], data["out/logits_eval"], 1e-4, "logits")
    for name in resnet.STAGES:
        ours = seen[name][:1].reshape(1, -1, seen[name].shape[-1])
        golden.assert_close(
            golden.nchw(ours), data[f"act/{name}"].reshape(1, ours.shape[-1], -1), 1e-4, name
        )
    images = golden.nhwc(data["in/u8"]).astype(np.float32) / 127.5 - 1
    golden.assert_close(resnet.normalize(images), golden.nhwc(data["in/x"]), 1e-5, "normalize")


@pytest.mark.parametrize(("depth", "pixels"), [(18, 1e-4), (50, 5e-3)])
def test_golden_training(depth, pixels):
    """Loss and gradients with the batch's statistics, and the running ones that it leaves.

    With 50 layers one ReLU (layer3.4, at 2.5e-6) falls on the other side in our float32, which alone
    moves the gradient of single pixels by 2e-3; in float64 it is the reference's to 1e-5.
    """
    data = golden.load(f"resnet{depth}_recipe")
    network = resnet.from_state_dict({"depth": depth}, reference.from_recipe(data["meta"]))
    kwargs = {"depth": depth, "num_classes": data["meta"]["num_classes"]}

    @jax.jit
    def run(variables, x):
        def loss(params, x):
            logits, moved = network.module.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            each = optax.softmax_cross_entropy_with_integer_labels(logits, data["in/labels"])
            return each.mean(), (logits, moved)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(variables["params"], x)

    (value, (logits, moved)), (grads, grad_x) = run(network.variables, golden.nhwc(data["in/x"]))
    golden.assert_close(logits, data["out/logits_train"], 1e-4, "logits")
    golden.assert_close(value, data["out/ce_loss_train"], 1e-4, "loss")
    golden.assert_close(golden.nchw(grad_x), data["out/grad_x_train"], pixels, "gradient of x")
    after = resnet.to_state_dict(kwargs, {**network.variables, **moved})
    grads = resnet.to_state_dict(kwargs, {"params": grads})
    for key, expected in data.items():
        kind, _, name = key.partition("/")
        if kind == "after_train":
            golden.assert_close(after[name], expected, 1e-4, key)
        elif kind == "grad":
            flat = np.asarray(grads[name], np.float64).ravel()
            norm, total, dot = expected
            assert abs(np.linalg.norm(flat) - norm) <= 1e-3 * norm, name
            assert abs(flat.sum() - total) <= 1e-3 * norm * np.sqrt(flat.size), name
            projected = flat @ np.cos(0.1 * np.arange(flat.size))
            assert abs(projected - dot) <= 1e-3 * norm * np.sqrt(flat.size), name


@pytest.mark.parametrize(("depth", "train"), [(10, True), (18, False), (50, True)])
def test_equals_slow_reference(depth, train):
    arrays, network, x = _random(depth)

    def conv(y, name, norm, stride=1):
        padding = arrays[f"{name}.weight"].shape[-1] // 2
        y = reference.conv(y, arrays, name, stride, padding)
        return reference.normalize(y, arrays, norm, train)

    y = reference.relu(conv(golden.nchw(x).astype(np.float64), "conv1", "bn1", 2))
    y = np.pad(y, ((0, 0), (0, 0), (1, 1), (1, 1)))  # after relu zeros are as good as -inf
    y = np.lib.stride_tricks.sliding_window_view(y, (3, 3), (2, 3))[:, :, ::2, ::2].max((-1, -2))
    for stage in range(1, 5):
        repeat = 0
        while (block := f"layer{stage}.{repeat}") + ".conv1.weight" in arrays:
            stride = 2 if stage > 1 and repeat == 0 else 1
            z = conv(y, f"{block}.conv1", f"{block}.bn1", 1 if depth == 50 else stride)
            z = conv(
                reference.relu(z), f"{block}.conv2", f"{block}.bn2", stride if depth == 50 else 1
            )
            if depth == 50:
                z = conv(reference.relu(z), f"{block}.conv3", f"{block}.bn3")
            if f"{block}.downsample.0.weight" in arrays:
                y = conv(y, f"{block}.downsample.0", f"{block}.downsample.1", stride)
            y = reference.relu(y + z)
            repeat += 1
    logits = y.mean((2, 3)) @ arrays["fc.weight"].T + arrays["fc.bias"]
    if not train:
        golden.assert_close(network.apply(x), logits, 1e-4)
        return
    # Statistics of as few as 4 values, in the last blocks, amplify what float32 rounds.
    with jax.enable_x64(True):
        exact = dataclasses.replace(network, variables=_exact(network.variables))
        golden.assert_close(exact.apply(_exact(x), train=True), logits, 1e-6)


def test_jit_equals_eager():
    """XLA on CPU has compiled some networks wrongly."""
    _, network, x = _random(18)
    golden.assert_close(network.apply(x), network.module.apply(network.variables, x), 1e-5)


def test_weights_come_back_as_they_were():
    arrays, network, _ = _random(50)
    written = resnet.to_state_dict({"depth": 50, "num_classes": 3}, network.variables)
    assert written.keys() == arrays.keys()
    for key, value in written.items():
        assert key.endswith("_tracked") or np.array_equal(value, arrays[key]), key


def test_features_are_what_the_classifier_reads():
    arrays, network, x = _random(18)
    encoder = resnet.from_state_dict({"depth": 18, "num_classes": None}, arrays)
    features = encoder.apply(x)
    assert features.shape == (2, 512)
    golden.assert_close(
        network.apply(x), features @ arrays["fc.weight"].T + arrays["fc.bias"], 1e-5
    )
    headless = {name: array for name, array in arrays.items() if not name.startswith("fc.")}
    with pytest.raises(UserError, match="missing: fc.weight"):
        resnet.from_state_dict({"depth": 18}, headless)


@pytest.mark.parametrize(("depth", "count"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_published_size(depth, count):
    """torchvision's numbers of parameters."""
    module = resnet.from_kwargs({"depth": depth})
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros([1, 64, 64, 3]))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count


def test_unknown_options_are_named():
    with pytest.raises(UserError, match="depth=101"):
        resnet.from_kwargs({"depth": 101})
    with pytest.raises(UserError, match="Did you mean 'depth'"):
        resnet.from_kwargs({"deph": 18})
    with pytest.raises(UserError, match="missing: depth"):
        resnet.from_kwargs({})


def test_one_device_and_eight_agree():
    """A block in training mode, its statistics those of the global batch under pmap."""
    block = resnet.Block(width=4, stride=2, bottleneck=False, dtype=None)
    x = jax.random.normal(jax.random.key(0), [8, 6, 6, 3])
    variables = block.init(jax.random.key(1), x, False, None)
    run = lambda x, axis: block.apply(variables, x, True, axis, mutable=["batch_stats"])
    y, moved = jax.jit(lambda x: run(x, None))(x)
    ys, moves = jax.pmap(lambda x: run(x, "batch"), "batch")(x[:, None])
    golden.assert_close(ys[:, 0], y, 1e-6)
    jax.tree.map(lambda one, each: golden.assert_close(each[3], one, 1e-6), moved, moves)
    assert isinstance(_random(18)[1], layers.Loaded)
