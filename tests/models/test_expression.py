"""Expression against a slow reference, and on smiles of the phantom."""

import dataclasses

import jax
import numpy as np
import optional_assets
import pytest
from golden import assert_close

from jaxface.errors import UserError
from jaxface.models import expression
from jaxface.phantom import people, render

NAME = "faceapi_face_expression_model_f16"


@pytest.fixture(scope="module")
def arrays():
    """Random weights under the names of the source."""
    rng, arrays = np.random.default_rng(0), {}
    inputs = 3
    for block, channels in enumerate((32, 64, 128, 256)):
        for conv in range(4):
            path = f"dense{block}/conv{conv}"
            wide = inputs if conv == 0 else channels
            scale = (2 / wide) ** 0.5
            if block == conv == 0:
                arrays[f"{path}/filters"] = rng.normal(0, 0.3, (3, 3, 3, 32))
            else:
                arrays[f"{path}/depthwise_filter"] = rng.normal(0, 0.3, (3, 3, wide, 1))
                arrays[f"{path}/pointwise_filter"] = rng.normal(0, scale, (1, 1, wide, channels))
            arrays[f"{path}/bias"] = rng.normal(0, 0.1, channels)
        inputs = channels
    arrays["fc/weights"], arrays["fc/bias"] = rng.normal(0, 0.01, (256, 7)), rng.normal(size=7)
    return {k: v.astype(np.float32) for k, v in arrays.items()}


def reference(arrays, images):
    """(features, probabilities) by the names of the source, tap by tap, float64."""
    arrays = {k: v.astype(np.float64) for k, v in arrays.items()}
    x = ((images.astype(np.float64) + 1) * 127.5 - [122.782, 117.001, 104.298]) / 255

    def layer(x, path, stride):
        n = -(-x.shape[1] // stride)
        total = (n - 1) * stride + 3 - x.shape[1]  # TensorFlow's SAME: the odd pixel is at the end
        pad = (total // 2, total - total // 2)
        x, y = np.pad(x, ((0, 0), pad, pad, (0, 0))), 0
        for i in range(3):
            for j in range(3):
                part = x[:, i::stride, j::stride][:, :n, :n]
                if f"{path}/filters" in arrays:
                    y = y + part @ arrays[f"{path}/filters"][i, j]
                else:
                    y = y + part * arrays[f"{path}/depthwise_filter"][i, j, :, 0]
        if f"{path}/filters" not in arrays:
            y = y @ arrays[f"{path}/pointwise_filter"][0, 0]
        return y + arrays[f"{path}/bias"]

    relu = lambda x: np.maximum(x, 0)
    for block in range(4):
        name = f"dense{block}"
        out1 = relu(layer(x, f"{name}/conv0", 2))
        out2 = layer(out1, f"{name}/conv1", 1)
        out3 = layer(relu(out1 + out2), f"{name}/conv2", 1)
        out4 = layer(relu(out1 + out2 + out3), f"{name}/conv3", 1)
        x = relu(out1 + out2 + out3 + out4)
    features = x.mean((1, 2))
    logits = features @ arrays["fc/weights"] + arrays["fc/bias"]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return features, odds / odds.sum(1, keepdims=True)


def test_slow_reference(arrays):
    network = expression.from_state_dict({}, arrays)
    images = np.random.default_rng(1).uniform(-1, 1, (2, 112, 112, 3)).astype(np.float32)
    features, probabilities = reference(arrays, images)
    assert_close(network.features(images), features, 1e-4, "features")
    assert_close(network.probabilities(images), probabilities, 1e-4, "probabilities")


def test_other_sides_and_gray(arrays):
    network = expression.from_state_dict({}, arrays)
    images = np.random.default_rng(2).uniform(-1, 1, (2, 56, 56, 1)).astype(np.float32)
    large = jax.image.resize(images, (2, 112, 112, 1), "linear")
    assert_close(network.features(images), network.features(np.repeat(large, 3, axis=-1)), 1e-5)


@pytest.mark.parametrize("first", [False, True])
def test_jit_equals_eager(first):
    """Depthwise, pointwise, sum and ReLU: the kind that some versions of XLA compile wrongly."""
    block = expression.DenseBlock(8, first)
    x = jax.random.normal(jax.random.key(0), (2, 11, 8, 4))
    variables = jax.jit(block.init)(jax.random.key(1), x)
    assert_close(jax.jit(block.apply)(variables, x), block.apply(variables, x), 1e-5)


def test_other_weights_are_refused_by_name(arrays):
    wrong = dict(arrays)
    wrong["fc/age/bias"] = wrong.pop("fc/bias")
    wrong["dense3/conv1/bias"] = np.zeros(255, np.float32)
    with pytest.raises(UserError) as error:
        expression.from_state_dict({}, wrong)
    for line in (
        "fc/bias: missing",
        "fc/age/bias: not in this network",
        "dense3/conv1/bias: has shape (255,), wanted (256,)",
    ):
        assert line in str(error.value)


def test_trained_weights_tell_a_smile():
    network = expression.from_state_dict({}, optional_assets.load(NAME))
    subjects = [people.draw_subject(seed) for seed in range(3)]
    faces = np.stack(
        [
            render.render(
                dataclasses.replace(subject, smile=smile), people.View(), 112, supersample=1
            ).image
            for subject in subjects
            for smile in (0.0, 1.0)
        ]
    )
    probabilities = np.asarray(network.probabilities(faces.astype(np.float32) / 127.5 - 1))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    happy = probabilities[:, expression.EXPRESSIONS.index("happy")].reshape(3, 2)
    assert (happy[:, 0] < 0.4).all() and (happy[:, 1] > 0.8).all()
