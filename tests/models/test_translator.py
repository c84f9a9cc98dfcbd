"""CycleGAN's generator against reference outputs, slow NumPy and its own invariants."""

import dataclasses
import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jaxface.errors import UserError
from jaxface.models import translator

TINY = {"netG": "resnet_6blocks", "ngf": 2, "input_nc": 2, "output_nc": 1}


@functools.cache
def _tiny(norm):
    kwargs = {**TINY, "norm": norm}
    module = translator.from_kwargs(kwargs)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros([1, 32, 32, 2]))
    arrays = reference.arrays_like(translator.to_state_dict(kwargs, variables))
    x = np.random.default_rng(1).uniform(-1, 1, (2, 16, 20, 2)).astype(np.float32)
    return kwargs, arrays, translator.from_state_dict(kwargs, arrays), x


@pytest.mark.parametrize("name", ["ngf16_recipe", "ngf8"])
def test_golden(name):
    data = golden.load(f"cyc_resnet9_instance_{name}")
    arrays = reference.from_recipe(data["meta"])
    assert all(np.array_equal(v, arrays[k[2:]]) for k, v in data.items() if k.startswith("G/"))
    network = translator.from_state_dict(data["meta"], arrays)
    x = golden.nhwc(data["in/x"])
    golden.assert_close(golden.nchw(network.apply(x)), data["out/y_eval"], 1e-4, "eval")
    y = golden.nchw(network.apply(x, train=True))
    golden.assert_close(y[:, :, ::2, ::2], data["out/y_train"], 1e-4, "train")
    written = translator.to_state_dict(data["meta"], network.variables)
    assert written.keys() == arrays.keys()
    assert all(np.array_equal(value, arrays[key]) for key, value in written.items())


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("train", [False, True])
def test_equals_slow_reference(norm, train):
    _, arrays, network, x = _tiny(norm)
    reflect = lambda y, width: np.pad(y, ((0, 0), (0, 0), (width,) * 2, (width,) * 2), "reflect")
    norm = functools.partial(reference.normalize, arrays=arrays, train=train)
    y = reference.conv(reflect(golden.nchw(x).astype(np.float64), 3), arrays, "model.1")
    y = reference.relu(norm(y, name="model.2"))
    for at in (4, 7):
        y = reference.conv(y, arrays, f"model.{at}", 2, 1)
        y = reference.relu(norm(y, name=f"model.{at + 1}"))
    for at in range(10, 16):
        block = f"model.{at}.conv_block"
        z = reference.conv(reflect(y, 1), arrays, f"{block}.1")
        z = reference.relu(norm(z, name=f"{block}.2"))
        z = reference.conv(reflect(z, 1), arrays, f"{block}.5")
        y = y + norm(z, name=f"{block}.6")
    for at in (16, 19):
        y = reference.conv_transpose(y, arrays, f"model.{at}", 2, 1, output_padding=1)
        y = reference.relu(norm(y, name=f"model.{at + 1}"))
    y = np.tanh(reference.conv(reflect(y, 3), arrays, "model.23"))
    golden.assert_close(golden.nchw(network.apply(x, train=train)), y, 1e-4)


def test_jit_equals_eager():
    """XLA on CPU has compiled some networks wrongly."""
    _, _, network, x = _tiny("instance")
    golden.assert_close(network.apply(x), network.module.apply(network.variables, x), 1e-5)


def test_dropout_is_noise_in_training_and_takes_a_place_in_names():
    _, arrays, plain, x = _tiny("batch")
    kwargs = {**TINY, "norm": "batch", "no_dropout": False}
    moved = {}
    for name, array in arrays.items():
        for old, new in (("conv_block.6", "conv_block.7"), ("conv_block.5", "conv_block.6")):
            if old in name:
                name = name.replace(old, new)
                break
        moved[name] = array
    network = translator.from_state_dict(kwargs, moved)
    np.testing.assert_array_equal(network.apply(x), plain.apply(x))
    one, same, other = (network.apply(x, True, jax.random.key(key)) for key in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_low_precision_stays_near_and_gives_float32():
    _, _, network, x = _tiny("batch")
    low = dataclasses.replace(network, module=network.module.clone(dtype=jnp.bfloat16))
    y = low.apply(x)
    assert y.dtype == jnp.float32
    difference = np.abs(y - network.apply(x))
    assert 1e-5 < difference.mean() < 0.02


def test_published_size():
    """11.378 M parameters, as the authors' program prints."""
    options = {"netG": "resnet_9blocks", "ngf": 64, "norm": "instance", "output_nc": 3}
    module = translator.from_kwargs(options)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros([1, 32, 32, 3]))
    assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])), -3) == 11_378_000


def test_wrong_pictures_and_networks_are_refused():
    _, arrays, network, _ = _tiny("batch")
    for shape in ((1, 16, 18, 2), (1, 4, 16, 2)):
        with pytest.raises(ValueError, match="multiples of 4, at least 8"):
            network.apply(np.zeros(shape, np.float32))
    with pytest.raises(UserError, match="unet_128.*resnet_6blocks"):
        translator.from_kwargs({**TINY, "norm": "batch", "netG": "unet_128"})
    with pytest.raises(UserError, match="missing: model.1.bias"):
        translator.from_state_dict({**TINY, "norm": "instance"}, arrays)
