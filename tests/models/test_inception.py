"""The FID Inception: peers' outputs at three sizes, protocols that differ, and names refused."""

import importlib.util

import golden
import jax
import numpy as np
import pytest
from golden import assert_close, nchw, nhwc

from jaxface.errors import UserError
from jaxface.models import inception


def shapes():
    module = inception.Inception()
    blank = jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32)
    return jax.eval_shape(module.init, jax.random.key(0), blank)["params"]


@pytest.fixture(scope="module")
def random_arrays():
    """A state dict of small random weights under the names of the source file."""
    rng = np.random.default_rng(0)
    arrays = {"fc.weight": rng.normal(0, 0.02, (1008, 2048)), "fc.bias": rng.normal(size=1008)}

    def visit(path, tree):
        if "conv" not in tree:
            for name, inner in tree.items():
                visit([*path, name], inner)
            return
        h, w, i, o = tree["conv"]["kernel"].shape
        name = ".".join(path)
        arrays[f"{name}.conv.weight"] = rng.normal(0, (2 / (h * w * i)) ** 0.5, (o, i, h, w))
        arrays[f"{name}.bn.weight"] = rng.uniform(0.8, 1.2, o)
        arrays[f"{name}.bn.bias"] = rng.normal(0, 0.1, o)
        arrays[f"{name}.bn.running_mean"] = rng.normal(0, 0.1, o)
        arrays[f"{name}.bn.running_var"] = rng.uniform(0.6, 1.6, o)

    visit([], {k: v for k, v in shapes().items() if k != "fc"})
    return {k: v.astype(np.float32) for k, v in arrays.items()}


@pytest.fixture(scope="module")
def data():
    return golden.load("inception_fid_recipe")


@pytest.fixture(scope="module")
def network(data):
    spec = importlib.util.spec_from_file_location("recipe", golden.path() / "recipe.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return inception.from_state_dict({}, recipe.build(data["meta"]["recipe"], data["meta"]["seed"]))


@pytest.mark.parametrize("image", ["u299", "u64", "u320x400"])
def test_pytorch_fid(data, network, image):
    out = network.outputs(nhwc(data[f"in/{image}"]), "pytorch_fid", batch=1)
    for name in ("64", "192", "768"):
        assert_close(out[name], data[f"pytorch_fid/{image}/{name}_avgpooled"], 1e-4, name)
    assert_close(out["2048"], data[f"pytorch_fid/{image}/2048"], 1e-4)
    if image == "u299":  # nothing to resize
        assert_close(out["2048"], data["pytorch_fid/u299_noresize/2048"], 1e-4)


@pytest.mark.parametrize("image", ["u299", "u64", "u320x400"])
def test_torch_fidelity(data, network, image):
    out = network.outputs(nhwc(data[f"in/{image}"]), "torch_fidelity", batch=1)
    for name in ("64", "192", "768", "2048", "logits_unbiased", "logits"):
        assert_close(out[name], data[f"torch_fidelity/{image}/{name}"], 1e-4, name)


def test_maps(data, network):
    maps = network.maps(nhwc(data["in/u64"][:1]), "pytorch_fid")
    assert_close(nchw(maps["64"])[:, ::8], data["pytorch_fid/u64/block0_map"], 1e-4)


def test_protocols_differ():
    images = np.random.default_rng(1).integers(0, 256, (1, 620, 600, 1)).astype(np.uint8)
    seen = {p: np.asarray(inception.canvas(images, p)) for p in inception.PROTOCOLS}
    for canvas in seen.values():
        assert canvas.shape == (1, 299, 299, 3)
        assert -1 <= canvas.min() < -0.3 and 0.3 < canvas.max() <= 1, canvas
    assert seen["clean_fid"].std() < 0.9 * seen["pytorch_fid"].std()  # antialiased
    assert np.abs(seen["torch_fidelity"] - seen["pytorch_fid"]).max() > 0.1
    white = np.full((1, 299, 299, 3), 255, np.uint8)
    assert inception.canvas(white, "pytorch_fid").max() == 1
    assert inception.canvas(white, "torch_fidelity").max() == 127 / 128


def test_the_last_batch_is_filled_up(random_arrays):
    network = inception.from_state_dict({}, random_arrays)
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    features = network.features(images, batch=2)
    assert features.shape == (3, 2048)
    assert_close(network.features(images[1:], batch=2), features[1:], 1e-5)


def test_batch_normalization_is_folded(random_arrays):
    """The first layer by hand: convolve at one place, normalize, ReLU."""
    network = inception.from_state_dict({}, random_arrays)
    x = np.random.default_rng(2).normal(size=(1, 7, 7, 3)).astype(np.float32)
    layer = inception.Conv(32, (3, 3), 2, True)
    y = layer.apply({"params": network.variables["params"]["Conv2d_1a_3x3"]}, x)
    part = {k: random_arrays[f"Conv2d_1a_3x3.bn.{k}"] for k in
            ("weight", "bias", "running_mean", "running_var")}  # fmt: skip
    weight = random_arrays["Conv2d_1a_3x3.conv.weight"]
    z = np.einsum("hwi,oihw->o", x[0, 2:5, 4:7], weight)
    z = (z - part["running_mean"]) / np.sqrt(part["running_var"] + 1e-3)
    assert_close(y[0, 1, 2], np.maximum(z * part["weight"] + part["bias"], 0), 1e-5)


def test_published_size(random_arrays):
    # torchvision's inception_v3 without its auxiliary head, with 1,008 classes instead of 1,000.
    published = 27_161_264 - 3_326_696 + 8 * 2_049
    assert sum(v.size for k, v in random_arrays.items() if "running" not in k) == published


@pytest.mark.parametrize(
    "block",
    [inception.InceptionA(32), inception.InceptionB(), inception.InceptionE(True)],
    ids=["A", "B", "E"],
)
def test_jit_equals_eager(block):
    x = jax.random.normal(jax.random.key(0), (1, 9, 9, 16))
    variables = jax.jit(block.init)(jax.random.key(1), x)
    assert_close(jax.jit(block.apply)(variables, x), block.apply(variables, x), 1e-5)


def test_average_counts_only_pixels():
    x = np.ones((1, 4, 4, 1), np.float32)
    np.testing.assert_allclose(inception._average(x), x, rtol=1e-6)


def test_other_weights_are_refused_by_name(random_arrays):
    wrong = dict(random_arrays)
    wrong["AuxLogits.fc.weight"] = wrong.pop("Mixed_6e.branch_pool.bn.running_var")
    wrong["fc.bias"] = np.zeros(1000)
    with pytest.raises(UserError) as error:
        inception.from_state_dict({}, wrong)
    for line in (
        "Mixed_6e.branch_pool.bn.running_var: missing",
        "AuxLogits.fc.weight: not in this network",
        "fc.bias: has shape (1000,), wanted (1008,)",
    ):
        assert line in str(error.value)


def test_other_images_and_protocols_are_refused(random_arrays):
    network = inception.from_state_dict({}, random_arrays)
    with pytest.raises(ValueError, match="uint8"):
        network.features(np.zeros((1, 64, 64, 3), np.float32))
    with pytest.raises(ValueError, match="clean_fid"):
        network.features(np.zeros((1, 64, 64, 3), np.uint8), "fid")
