"""Face embedding against a slow reference with unfolded scales, and on people of the phantom."""

import jax
import numpy as np
import optional_assets
import pytest
from golden import assert_close

from jaxface.errors import UserError
from jaxface.models import face_embedding
from jaxface.phantom import people, render

NAME = "faceapi_face_recognition_model_f16"
BLOCKS = (
    "32_1 32_2 32_3 64_down 64_1 64_2 64_3 128_down 128_1 128_2 256_down 256_1 256_2 256_down_out"
)


@pytest.fixture(scope="module")
def arrays():
    """Random weights under the names of the source."""
    rng, arrays = np.random.default_rng(0), {}

    def layer(path, shape):
        arrays[f"{path}/conv/filters"] = rng.normal(0, (1 / np.prod(shape[:3])) ** 0.5, shape)
        arrays[f"{path}/conv/bias"] = rng.normal(0, 0.1, shape[-1])
        arrays[f"{path}/scale/weights"] = rng.uniform(0.8, 1.2, shape[-1])
        arrays[f"{path}/scale/biases"] = rng.normal(0, 0.1, shape[-1])

    layer("conv32_down", (7, 7, 3, 32))
    inputs = 32
    for block in BLOCKS.split():
        channels = int(block.split("_")[0])
        layer(f"conv{block}/conv1", (3, 3, inputs, channels))
        layer(f"conv{block}/conv2", (3, 3, channels, channels))
        inputs = channels
    arrays["fc"] = rng.normal(size=(256, 128)) / 16
    return {k: v.astype(np.float32) for k, v in arrays.items()}


def reference(arrays, images):
    """By the names of the source, tap by tap, float64; images in [-1, 1]."""
    arrays = {k: v.astype(np.float64) for k, v in arrays.items()}
    x = ((images.astype(np.float64) + 1) * 127.5 - [122.782, 117.001, 104.298]) / 256

    def taps(x, k, stride, combine):
        n = (x.shape[1] - k) // stride + 1
        return combine(
            [
                (i, j, x[:, i : i + stride * n : stride, j : j + stride * n : stride][:, :n, :n])
                for i in range(k)
                for j in range(k)
            ]
        )

    def layer(x, path, stride=1):
        w = arrays[f"{path}/conv/filters"]
        if stride == 1:
            x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        y = taps(x, w.shape[0], stride, lambda parts: sum(part @ w[i, j] for i, j, part in parts))
        y = (y + arrays[f"{path}/conv/bias"]) * arrays[f"{path}/scale/weights"]
        return y + arrays[f"{path}/scale/biases"]

    relu = lambda x: np.maximum(x, 0)
    x = relu(layer(x, "conv32_down", 2))
    x = taps(x, 3, 2, lambda parts: np.max([part for *_, part in parts], axis=0))
    for block in BLOCKS.split():
        down = "down" in block
        y = relu(layer(x, f"conv{block}/conv1", 2 if down else 1))
        y = layer(y, f"conv{block}/conv2")
        if down:
            x = taps(x, 2, 2, lambda parts: np.mean([part for *_, part in parts], axis=0))
        total = np.zeros((*x.shape[:3], y.shape[-1]))
        total[:, : y.shape[1], : y.shape[2]] += y
        total[..., : x.shape[-1]] += x
        x = relu(total)
    return x.mean((1, 2)) @ arrays["fc"]


def test_slow_reference(arrays):
    network = face_embedding.from_state_dict({}, arrays)
    images = np.random.default_rng(1).uniform(-1, 1, (2, 150, 150, 3)).astype(np.float32)
    assert_close(network.embed(images), reference(arrays, images), 1e-4)


def test_other_sides_and_gray(arrays):
    network = face_embedding.from_state_dict({}, arrays)
    images = np.random.default_rng(2).uniform(-1, 1, (2, 75, 75, 1)).astype(np.float32)
    large = jax.image.resize(images, (2, 150, 150, 1), "linear")
    assert_close(network.embed(images), network.embed(np.repeat(large, 3, axis=-1)), 1e-5)


@pytest.mark.parametrize("halve", [False, True])
def test_jit_equals_eager(halve):
    block = face_embedding.Block(8, halve)
    x = jax.random.normal(jax.random.key(0), (2, 10, 11, 6))
    variables = jax.jit(block.init)(jax.random.key(1), x)
    assert_close(jax.jit(block.apply)(variables, x), block.apply(variables, x), 1e-5)


def test_published_size(arrays):
    # 5.61 million with scales, as counted in the package.
    assert round(sum(v.size for v in arrays.values()) / 1e6, 2) == 5.61


def test_other_weights_are_refused_by_name(arrays):
    wrong = dict(arrays)
    wrong["conv64_4/conv1/conv/bias"] = wrong.pop("conv64_3/conv1/conv/bias")
    wrong["fc"] = np.zeros((256, 512), np.float32)
    with pytest.raises(UserError) as error:
        face_embedding.from_state_dict({}, wrong)
    for line in (
        "conv64_3/conv1/conv/bias: missing",
        "conv64_4/conv1/conv/bias: not in this network",
        "fc: has shape (256, 512), wanted (256, 128)",
    ):
        assert line in str(error.value)


def test_trained_weights_know_a_person_again():
    """Two photographs of each of four phantom people: nearer to each other than to anybody else."""
    network = face_embedding.from_state_dict({}, optional_assets.load(NAME))
    subjects = [people.draw_subject(seed) for seed in range(4)]
    photographs = np.stack(
        [
            render.render(subjects[i // 2], people.draw_view(100 + i), 96, supersample=1).image
            for i in range(8)
        ]
    )
    e = np.asarray(network.embed(photographs.astype(np.float32) / 127.5 - 1), np.float64)
    distances = np.linalg.norm(e[:, None] - e[None], axis=-1)
    person = np.arange(8) // 2
    same = distances[(person[:, None] == person) & ~np.eye(8, dtype=bool)]
    other = distances[person[:, None] != person]
    assert same.max() < face_embedding.SAME_PERSON
    assert (same[:, None] < other).mean() > 0.95
