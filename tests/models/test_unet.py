"""The U-Net against reference outputs, slow NumPy and its own invariants."""

import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jaxface.errors import UserError
from jaxface.models import unet

TINY = {"netG": "unet_128", "ngf": 2, "input_nc": 2, "output_nc": 1}


@functools.cache
def _tiny(norm):
    kwargs = {**TINY, "norm": norm}
    module = unet.from_kwargs(kwargs)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros([1, 128, 128, 2]))
    arrays = reference.arrays_like(unet.to_state_dict(kwargs, variables))
    x = np.random.default_rng(1).uniform(-1, 1, (2, 128, 128, 2)).astype(np.float32)
    return kwargs, arrays, unet.from_state_dict(kwargs, arrays), x


@pytest.mark.parametrize("name", ["p2p_unet256_batch_ngf16_recipe", "p2p_unet256_instance_ngf4"])
def test_golden(name):
    """Inference, training mode, the running statistics that it leaves, and the names written."""
    data = golden.load(name)
    kwargs = data["meta"]
    arrays = reference.from_recipe(kwargs)
    assert all(np.array_equal(v, arrays[k[2:]]) for k, v in data.items() if k.startswith("G/"))
    network = unet.from_state_dict(kwargs, arrays)
    x = golden.nhwc(data["in/x"])
    golden.assert_close(golden.nchw(network.apply(x))[:, :, ::2, ::2], data["out/y_eval"], 1e-4)
    y, moved = network.apply_and_update(x)
    golden.assert_close(golden.nchw(y)[:, :, ::2, ::2], data["out/y_train"], 1e-4, "train")
    after = unet.to_state_dict(kwargs, moved.variables)
    for key, value in data.items():
        if key.startswith("after_train/"):
            golden.assert_close(after[key.removeprefix("after_train/")], value, 1e-5, key)
    written = unet.to_state_dict(kwargs, network.variables)
    assert written.keys() == arrays.keys()
    for key, value in written.items():
        assert key.endswith("_tracked") or np.array_equal(value, arrays[key]), key


def _level(x, arrays, prefix, train):
    """The authors' recursion: down, everything further in, up; with the input beside it."""
    norm = functools.partial(reference.normalize, arrays=arrays, train=train)
    y = reference.conv(reference.leaky(x), arrays, f"{prefix}.1", 2, 1)
    if f"{prefix}.5.weight" in arrays:
        y = _level(norm(y, name=f"{prefix}.2"), arrays, f"{prefix}.3.model", train)
        up = 5
    else:
        up = 3
    y = reference.conv_transpose(reference.relu(y), arrays, f"{prefix}.{up}", 2, 1)
    return np.concatenate([x, norm(y, name=f"{prefix}.{up + 1}")], 1)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("train", [False, True])
def test_equals_slow_reference(norm, train):
    _, arrays, network, x = _tiny(norm)
    y = reference.conv(golden.nchw(x).astype(np.float64), arrays, "model.model.0", 2, 1)
    y = _level(y, arrays, "model.model.1.model", train)
    y = reference.conv_transpose(reference.relu(y), arrays, "model.model.3", 2, 1)
    golden.assert_close(golden.nchw(network.apply(x, train=train)), np.tanh(y), 1e-4)


def test_jit_equals_eager():
    """XLA on CPU has compiled some networks wrongly."""
    _, _, network, x = _tiny("batch")
    eager = network.module.apply(network.variables, x)
    golden.assert_close(network.apply(x), eager, 1e-5)


def test_dropout_is_noise_in_training_only():
    _, arrays, plain, x = _tiny("batch")
    network = unet.from_state_dict({**TINY, "norm": "batch", "no_dropout": False}, arrays)
    np.testing.assert_array_equal(network.apply(x), plain.apply(x))
    one, same, other = (network.apply(x, True, jax.random.key(key)) for key in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    with pytest.raises(Exception, match="dropout"):
        network.apply(x, train=True)


def test_published_size():
    """54.414 M parameters, as the authors' program prints."""
    module = unet.from_kwargs({"netG": "unet_256", "ngf": 64, "norm": "batch", "output_nc": 3})
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros([1, 256, 256, 3]))
    assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])), -3) == 54_414_000


def test_wrong_pictures_and_networks_are_refused():
    _, arrays, network, _ = _tiny("batch")
    with pytest.raises(ValueError, match="multiples of 128"):
        network.apply(np.zeros((1, 128, 192, 2), np.float32))
    with pytest.raises(UserError, match="unet_512.*unet_128"):
        unet.from_kwargs({**TINY, "norm": "batch", "netG": "unet_512"})
    with pytest.raises(UserError, match="missing: model.model.0.bias"):
        unet.from_state_dict({**TINY, "norm": "instance"}, arrays)
