"""LPIPS on VGG16 and AlexNet: a peer's distances, a slow reference, both namings of the weights."""

import importlib.util

import golden
import jax
import numpy as np
import optional_assets
import pytest
from golden import assert_close, nhwc

from jaxface.errors import UserError
from jaxface.models import alexnet, lpips, vgg
from jaxface.ops import resize

NETWORKS = {"vgg16": (vgg, "VGG16_0", 14_714_688), "alexnet": (alexnet, "AlexNet_0", 2_469_696)}
# torchvision's lists of layers: (number of the convolution, stride, padding), pools "2" or "3" before
LISTS = {
    "vgg16": "0 2 | P2 5 7 | P2 10 12 14 | P2 17 19 21 | P2 24 26 28",
    "alexnet": "0 | P3 3 | P3 6 | 8 | 10",
}


@pytest.fixture(scope="module", params=list(NETWORKS))
def made(request):
    """(name, module, random state dict in PyTorch's names and layouts)"""
    module = NETWORKS[request.param][0]
    backbone = {"vgg16": vgg.VGG16, "alexnet": alexnet.AlexNet}[request.param]()
    blank = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(lpips.LPIPS(backbone).init, jax.random.key(0), blank, blank)["params"]
    rng, arrays = np.random.default_rng(0), {}
    numbers = [n for n in LISTS[request.param].split() if n.isdigit()]
    for index, number in enumerate(numbers):
        h, w, i, o = shapes["backbone"][f"conv{index}"]["kernel"].shape
        scale = (2 / (h * w * i)) ** 0.5
        arrays[f"features.{number}.weight"] = scale * rng.standard_normal((o, i, h, w), np.float32)
        arrays[f"features.{number}.bias"] = 0.1 * rng.standard_normal(o, np.float32)
    for index in range(5):
        channels = len(shapes[f"head{index}"])
        arrays[f"lin{index}.model.1.weight"] = rng.random((1, channels, 1, 1), np.float32)
    return request.param, module, arrays


def reference(name, arrays, a, b):
    """LPIPS from the names of the state dict, in PyTorch's layouts, tap by tap, float64."""

    def stages(x):
        x = (
            np.moveaxis(x, -1, 1) - np.array([-0.030, -0.088, -0.188]).reshape(3, 1, 1)
        ) / np.array([0.458, 0.448, 0.450]).reshape(3, 1, 1)
        for group in LISTS[name].split("|"):
            for item in group.split():
                if item[0] == "P":
                    k, n = int(item[1]), (x.shape[-1] - int(item[1])) // 2 + 1
                    taps = [
                        x[:, :, i : i + 2 * n : 2, j : j + 2 * n : 2][:, :, :n, :n]
                        for i in range(k)
                        for j in range(k)
                    ]
                    x = np.max(taps, axis=0)
                    continue
                weight = arrays[f"features.{item}.weight"].astype(np.float64)
                k = weight.shape[-1]
                stride, padding = (4, 2) if k == 11 else (1, k // 2)
                x = np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
                n = (x.shape[-1] - k) // stride + 1
                y = arrays[f"features.{item}.bias"].reshape(-1, 1, 1)
                for i in range(k):
                    for j in range(k):
                        rows = slice(i, i + stride * (n - 1) + 1, stride)
                        columns = slice(j, j + stride * (n - 1) + 1, stride)
                        tap = np.tensordot(weight[:, :, i, j], x[:, :, rows, columns], (1, 1))
                        y = y + np.moveaxis(tap, 0, 1)
                x = np.maximum(y, 0)
            yield x

    total = 0
    for index, (f, g) in enumerate(zip(stages(a), stages(b), strict=True)):
        unit = lambda t: t / (np.sqrt(np.square(t).sum(1, keepdims=True)) + 1e-10)
        weight = arrays[f"lin{index}.model.1.weight"]
        total = total + (np.square(unit(f) - unit(g)) * weight).sum(1).mean((1, 2))
    return total


def images(side=32):
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, (2, 2, side, side, 3)).astype(np.float32)


def test_slow_reference(made):
    name, module, arrays = made
    a, b = images()
    network = module.from_state_dict({}, arrays)
    assert_close(network.distance(a, b), reference(name, arrays, a, b), 1e-5)
    assert_close(network.distance(a, b), network.distance(b, a), 1e-6)
    assert np.asarray(network.distance(a, a)).max() < 1e-12


def test_both_namings_are_one_network(made):
    name, module, arrays = made
    _, scope, published = NETWORKS[name]
    convolutions = [k.removesuffix(".weight") for k in arrays if k[0] == "f" and "weight" in k]
    ported = {}
    for index, conv in enumerate(convolutions):
        kernel = np.transpose(arrays[f"{conv}.weight"], (2, 3, 1, 0))
        ported[f"/{scope}/Conv_{index}/kernel"] = kernel
        ported[f"/{scope}/Conv_{index}/bias"] = arrays[f"{conv}.bias"]
    for index in range(5):
        head = np.transpose(arrays[f"lin{index}.model.1.weight"], (2, 3, 1, 0))
        ported[f"/NetLinLayer_{index}/Conv_0/kernel"] = head
    first, second = (module.from_state_dict({}, x).variables for x in (arrays, ported))
    assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), first, second))
    assert sum(x.size for x in jax.tree.leaves(first["params"]["backbone"])) == published


def test_other_weights_are_refused_by_name(made):
    _, module, arrays = made
    wrong = dict(arrays)
    wrong["features.1.bias"] = wrong.pop("features.0.bias")
    wrong["classifier.6.bias"] = np.zeros(1000)  # torchvision's files have it
    wrong["lin2.model.1.weight"] = np.zeros((1, 7, 1, 1), np.float32)
    with pytest.raises(UserError) as error:
        module.from_state_dict({}, wrong)
    for line in (
        "features.0.bias: missing",
        "features.1.bias: not in this network",
        "lin2.model.1.weight: has shape (1, 7, 1, 1), wanted (1, ",
    ):
        assert line in str(error.value)


def test_jit_equals_eager(made):
    _, module, arrays = made
    network = module.from_state_dict({}, arrays)
    a, b = images()[:, :1]
    eager = network.module.apply(network.variables, a, b)
    assert_close(network.distance(a, b), eager, 1e-5)


@pytest.mark.parametrize("made", ["alexnet"], indirect=True)  # the distance is one for both
def test_gradient_at_a_blank_image(made):
    """Where a ReLU leaves a pixel no feature at all, its length 0 must not make the gradient NaN."""
    _, module, arrays = made
    dead = {k: np.full_like(v, -1) if k.endswith("bias") else v for k, v in arrays.items()}
    network = module.from_state_dict({}, dead)
    a = images()[0]
    gradient = jax.jit(jax.grad(lambda x: network.distance(x, a).sum()))(np.zeros_like(a))
    assert np.isfinite(gradient).all()


def test_gray_is_three_equal_channels(made):
    _, module, arrays = made
    network = module.from_state_dict({}, arrays)
    a, b = images()[..., :1]
    three = [np.repeat(x, 3, axis=-1) for x in (a, b)]
    assert_close(network.distance(a, b), network.distance(*three), 1e-6)


@pytest.fixture(scope="module")
def peer():
    data = golden.load("lpips_recipe")
    spec = importlib.util.spec_from_file_location("recipe", golden.path() / "recipe.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    meta = data["meta"]
    arrays = recipe.build(meta["vgg_recipe"], meta["vgg_seed"])
    arrays |= recipe.build(meta["lin_recipe"], meta["lin_seed"])
    return data, vgg.from_state_dict({}, arrays)


def test_peer(peer):
    data, network = peer
    a, b, c, d = (nhwc(data[f"in/{name}"]) / 127.5 - 1 for name in "abcd")
    a, b = (x.astype(np.float32) for x in (a, b))
    assert_close(network.distance(a, b), data["out/a_b"], 1e-5)
    c, d = (resize.area(x.astype(np.float32), (64, 64)) for x in (c, d))
    assert_close(network.distance(c, d), data["out/c_d_resize64"], 1e-5)


def test_features_of_peer(peer):
    data, network = peer
    maps = network.features((nhwc(data["in/a"][:1]) / 127.5 - 1).astype(np.float32))
    for index, stage in enumerate(maps, start=1):
        expected = data[f"act/relu{index}_mean_per_channel"]
        assert_close(stage.mean((1, 2)), expected, 1e-5, f"relu{index}")


@pytest.mark.parametrize("name", list(NETWORKS))
def test_trained_distances_grow_with_damage(name):
    network = NETWORKS[name][0].from_state_dict({}, optional_assets.load(f"lpips_{name}_f16"))
    y, x = np.mgrid[:64, :64] / 64
    scene = np.sin(9 * x[..., None] + 4 * np.sin(7 * y[..., None]) + np.arange(3))
    scene = (0.8 * scene).astype(np.float32)
    noise = np.random.default_rng(3).normal(size=scene.shape).astype(np.float32)
    versions = np.stack([scene, scene + 0.02 * noise, scene + 0.1 * noise, scene + 0.4 * noise])
    distances = np.asarray(network.distance(np.stack([scene] * 4), versions))
    assert distances[0] < 1e-10
    assert (np.diff(distances) > 5e-4).all() and 0.3 < distances[-1] < 0.9
