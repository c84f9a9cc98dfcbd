"""EfficientNet-Lite0 against a slow reference that keeps batch normalization."""

import jax
import numpy as np
import optional_assets
import pytest
from golden import assert_close

from jaxface.errors import UserError
from jaxface.models import efficientnet

# (expansion, kernel, channels, stride) of each of the sixteen blocks
BLOCKS = [(1, 3, 16, 1), (6, 3, 24, 2), (6, 3, 24, 1), (6, 5, 40, 2), (6, 5, 40, 1), (6, 3, 80, 2),
          (6, 3, 80, 1), (6, 3, 80, 1), (6, 5, 112, 1), (6, 5, 112, 1), (6, 5, 112, 1),
          (6, 5, 192, 2), (6, 5, 192, 1), (6, 5, 192, 1), (6, 5, 192, 1), (6, 3, 320, 1)]  # fmt: skip


@pytest.fixture(scope="module")
def arrays():
    """A random state dict under the names of the source."""
    rng, arrays = np.random.default_rng(0), {}

    def layer(conv, norm, shape):
        arrays[f"{conv}.weight"] = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        for part, values in (
            ("weight", rng.uniform(0.8, 1.2, shape[0])),
            ("bias", rng.normal(0.2, 0.1, shape[0])),
            ("running_mean", rng.normal(0, 0.1, shape[0])),
            ("running_var", rng.uniform(0.6, 1.6, shape[0])),
        ):
            arrays[f"{norm}.{part}"] = values

    layer("_conv_stem", "_bn0", (32, 3, 3, 3))
    inputs = 32
    for index, (expansion, side, channels, _) in enumerate(BLOCKS):
        p, wide = f"_blocks.{index}.", inputs * expansion
        if expansion != 1:
            layer(f"{p}_expand_conv", f"{p}_bn0", (wide, inputs, 1, 1))
        layer(f"{p}_depthwise_conv", f"{p}_bn1", (wide, 1, side, side))
        layer(f"{p}_project_conv", f"{p}_bn2", (channels, wide, 1, 1))
        inputs = channels
    layer("_conv_head", "_bn1", (1280, 320, 1, 1))
    arrays["_fc.weight"], arrays["_fc.bias"] = rng.normal(size=(1000, 1280)), rng.normal(size=1000)
    return {k: np.asarray(v, np.float32) for k, v in arrays.items()}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(-1, 1, (2, 48, 40, 3)).astype(np.float32)


def convolve(x, weight, stride):
    """[N, C, H, W] with [out, in / groups, k, k] and padding k // 2, tap by tap."""
    k, grouped = weight.shape[-1], weight.shape[1] == 1
    height, width = ((side - 1) // stride + 1 for side in x.shape[2:])
    x = np.pad(x, ((0, 0), (0, 0), (k // 2,) * 2, (k // 2,) * 2))
    y = 0
    for i in range(k):
        for j in range(k):
            part = x[:, :, i::stride, j::stride][:, :, :height, :width]
            tap = weight[:, :, i, j]
            y = y + (
                part * tap[:, 0, None, None] if grouped else np.einsum("nchw,oc->nohw", part, tap)
            )
    return y


def reference(arrays, images):
    """(features, logits) by the names of the state dict, float64."""
    arrays = {k: v.astype(np.float64) for k, v in arrays.items()}
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = np.moveaxis(((images.astype(np.float64) + 1) / 2 - mean) / std, -1, 1)

    def layer(x, conv, norm, stride=1, activate=True):
        x = convolve(x, arrays[f"{conv}.weight"], stride)
        part = {k: arrays[f"{norm}.{k}"][:, None, None] for k in
                ("weight", "bias", "running_mean", "running_var")}  # fmt: skip
        x = (x - part["running_mean"]) / np.sqrt(part["running_var"] + 1e-3)
        x = x * part["weight"] + part["bias"]
        return np.clip(x, 0, 6) if activate else x

    x = layer(x, "_conv_stem", "_bn0", 2)
    for index, (expansion, _, _, stride) in enumerate(BLOCKS):
        p, y = f"_blocks.{index}.", x
        if expansion != 1:
            y = layer(y, f"{p}_expand_conv", f"{p}_bn0")
        y = layer(y, f"{p}_depthwise_conv", f"{p}_bn1", stride)
        y = layer(y, f"{p}_project_conv", f"{p}_bn2", activate=False)
        x = x + y if x.shape == y.shape else y
    features = layer(x, "_conv_head", "_bn1").mean((2, 3))
    return features, features @ arrays["_fc.weight"].T + arrays["_fc.bias"]


def test_slow_reference(arrays, images):
    network = efficientnet.from_state_dict({}, arrays)
    features, logits = reference(arrays, images)
    assert_close(network.features(images), features, 1e-4, "features")
    assert_close(network.logits(images), logits, 1e-4, "logits")


def test_trained_weights_by_slow_reference(images):
    arrays = optional_assets.load("efficientnet_lite0_f16")
    network = efficientnet.from_state_dict({}, arrays)
    features, logits = reference(arrays, images)
    assert_close(network.features(images), features, 1e-4, "features")
    assert_close(network.logits(images), logits, 1e-4, "logits")


@pytest.mark.parametrize(("stride", "side"), [(1, 3), (2, 3), (1, 5), (2, 5)])
def test_jit_equals_eager(stride, side):
    """One block with its skip: the kind of thing that some versions of XLA have compiled wrongly."""
    block = efficientnet.Block(channels=8, stride=stride, expansion=6, side=side)
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 8))
    variables = jax.jit(block.init)(jax.random.key(1), x)
    assert_close(jax.jit(block.apply)(variables, x), block.apply(variables, x), 1e-5, "block")


def test_published_size(arrays):
    trained = sum(v.size for k, v in arrays.items() if "running" not in k)
    assert trained == 4_652_008  # 4.7 million in the authors' table


def test_other_weights_are_refused_by_name(arrays):
    wrong = dict(arrays)
    wrong["_blocks.3._se_reduce.weight"] = wrong.pop("_blocks.3._bn1.running_var")
    wrong["_conv_stem.weight"] = np.zeros((32, 3, 5, 5), np.float32)
    with pytest.raises(UserError) as error:
        efficientnet.from_state_dict({}, wrong)
    for line in (
        "_blocks.3._bn1.running_var: missing",
        "_blocks.3._se_reduce.weight: not in this network",
        "_conv_stem.weight: has shape (32, 3, 5, 5), wanted (32, 3, 3, 3)",
    ):
        assert line in str(error.value)
