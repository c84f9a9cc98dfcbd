"""MobileNetV2 against a slow reference that keeps batch normalisation, with ImageNet's weights."""

import jax
import numpy as np
import pytest
from golden import assert_close

from jaxface import assets
from jaxface.models import mobilenet


@pytest.fixture(scope="module")
def arrays():
    return assets.load("mobilenet_v2_f16")


@pytest.fixture(scope="module")
def network(arrays):
    return mobilenet.from_state_dict({}, arrays)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, 32, 40, 3)).astype(np.float32)


def convolve(x, weight, stride, groups):
    """[N, C, H, W] with PyTorch's [out, in / groups, k, k] and padding k // 2, tap by tap."""
    k = weight.shape[-1]
    n, _, height, width = x.shape
    height, width = -(-height // stride), -(-width // stride)
    x = np.pad(x, ((0, 0), (0, 0), (k // 2,) * 2, (k // 2,) * 2))
    y = 0
    for i in range(k):
        for j in range(k):
            part = x[:, :, i : i + height * stride : stride, j : j + width * stride : stride]
            tap = weight[:, :, i, j]
            y = y + (
                part * tap.reshape(1, -1, 1, 1)
                if groups > 1
                else np.einsum("nchw,oc->nohw", part[:, :, :height, :width], tap)
            )
    return y


def reference(arrays, images):
    """torchvision's MobileNetV2 features in evaluation mode, by the names of its state dict."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = np.moveaxis(((images.astype(np.float64) + 1) / 2 - mean) / std, -1, 1)

    def block(x, conv, norm, stride=1, groups=1, activate=True):
        x = convolve(x, arrays[f"{conv}.weight"].astype(np.float64), stride, groups)
        part = {k: arrays[f"{norm}.{k}"].reshape(1, -1, 1, 1).astype(np.float64) for k in
                ("weight", "bias", "running_mean", "running_var")}  # fmt: skip
        x = (x - part["running_mean"]) / np.sqrt(part["running_var"] + 1e-5)
        x = x * part["weight"] + part["bias"]
        return np.clip(x, 0, 6) if activate else x

    x = block(x, "features.0.0", "features.0.1", stride=2)
    strides = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    for index, stride in enumerate(strides, start=1):
        p, y = f"features.{index}.conv", x
        last = 2
        if index == 1:
            last = 1
        else:
            y = block(y, f"{p}.0.0", f"{p}.0.1")
        at = last - 1
        y = block(y, f"{p}.{at}.0", f"{p}.{at}.1", stride, groups=y.shape[1])
        y = block(y, f"{p}.{last}", f"{p}.{last + 1}", activate=False)
        x = x + y if x.shape == y.shape else y
    return block(x, "features.18.0", "features.18.1").mean((2, 3))


def test_compiled_features_equal_a_slow_reference(arrays, network, images):
    assert_close(network.features(images), reference(arrays, images), 1e-4, "features")


@pytest.mark.parametrize("stride", [1, 2])
def test_jit_equals_eager(stride):
    """One block with its skip: the kind of thing that some versions of XLA have compiled wrongly."""
    block = mobilenet.InvertedResidual(channels=8, stride=stride, expansion=6)
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 8))
    variables = jax.jit(block.init)(jax.random.key(1), x)
    assert_close(jax.jit(block.apply)(variables, x), block.apply(variables, x), 1e-5, "block")


def test_published_size(arrays, network):
    published = 3_504_872  # torchvision's count, with batch normalisation and classifier
    trained = {k: v for k, v in arrays.items() if "running" not in k and not k.endswith("_tracked")}
    assert sum(v.size for v in trained.values()) == published
    scales = sum(v.size for k, v in trained.items() if k.endswith(".1.weight") and v.ndim == 1)
    scales += sum(
        v.size for k, v in trained.items() if k.endswith((".2.weight", ".3.weight")) and v.ndim == 1
    )
    classifier = trained["classifier.1.weight"].size + trained["classifier.1.bias"].size
    ours = sum(leaf.size for leaf in jax.tree.leaves(network.variables))
    assert ours == published - classifier - scales


def test_other_weights_are_refused_by_name(arrays):
    wrong = dict(arrays)
    wrong["features.3.conv.2.bogus"] = wrong.pop("features.18.0.weight")
    wrong["features.0.0.weight"] = np.zeros((32, 3, 5, 5), np.float32)
    with pytest.raises(ValueError) as error:
        mobilenet.from_state_dict({}, wrong)
    for name in (
        "missing: features.18.0.weight",
        "features.3.conv.2.bogus",
        "features.0.0.weight: ",
    ):
        assert name in str(error.value)
