"""PatchGAN discriminators against reference outputs, slow NumPy and their own invariants."""

import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jaxface.errors import UserError
from jaxface.models import patchgan

TINY = [
    {"netD": "basic", "ndf": 2, "norm": "instance", "input_nc": 2},
    {"netD": "n_layers", "n_layers_D": 2, "ndf": 2, "norm": "batch", "input_nc": 2},
    {"netD": "pixel", "ndf": 2, "norm": "batch", "input_nc": 2},
]
NETS = [kwargs["netD"] for kwargs in TINY]


@functools.cache
def _tiny(net):
    kwargs = TINY[NETS.index(net)]
    module = patchgan.from_kwargs(kwargs)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros([1, 64, 64, 2]))
    arrays = reference.arrays_like(patchgan.to_state_dict(kwargs, variables))
    x = np.random.default_rng(1).uniform(-1, 1, (2, 64, 40, 2)).astype(np.float32)
    return kwargs, arrays, patchgan.from_state_dict(kwargs, arrays), x


@pytest.mark.parametrize("name", ["basic_batch_ndf16", "nlayers2_ndf8", "pixel_batch_ndf16"])
def test_golden(name):
    data = golden.load(f"p2p_patchgan_{name}")
    arrays = {k[2:]: v for k, v in data.items() if k.startswith("D/")}
    network = patchgan.from_state_dict(data["meta"], arrays)
    x = golden.nhwc(data["in/x"])
    golden.assert_close(golden.nchw(network.apply(x)), data["out/y_eval"], 1e-4, "eval")
    golden.assert_close(
        golden.nchw(network.apply(x, train=True)), data["out/y_train"], 1e-4, "train"
    )
    written = patchgan.to_state_dict(data["meta"], network.variables)
    assert written.keys() == arrays.keys()
    for key, value in written.items():
        assert key.endswith("_tracked") or np.array_equal(value, arrays[key]), key


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("train", [False, True])
def test_equals_slow_reference(net, train):
    _, arrays, network, x = _tiny(net)
    y = golden.nchw(x).astype(np.float64)
    if net == "pixel":
        plan = [("net.0", 1, 0, None), ("net.2", 1, 0, "net.3"), ("net.5", 1, 0, None)]
    else:
        strides = {"basic": (2, 2, 2, 1, 1), "n_layers": (2, 2, 1, 1)}[net]
        plan = [("model.0", 2, 1, None)]
        for index, stride in enumerate(strides[1:], start=1):
            norm = f"model.{3 * index}" if index < len(strides) - 1 else None
            plan.append((f"model.{3 * index - 1}", stride, 1, norm))
    for index, (conv, stride, padding, norm) in enumerate(plan):
        y = reference.conv(y, arrays, conv, stride, padding)
        y = y if norm is None else reference.normalize(y, arrays, norm, train)
        y = y if index == len(plan) - 1 else reference.leaky(y)
    golden.assert_close(golden.nchw(network.apply(x, train=train)), y, 1e-4)


def test_jit_equals_eager():
    """XLA on CPU has compiled some networks wrongly."""
    _, _, network, x = _tiny("basic")
    golden.assert_close(network.apply(x), network.module.apply(network.variables, x), 1e-5)


def test_a_score_sees_seventy_pixels():
    """The patch of the paper: gradients of one score reach 70 x 70 pixels and no further."""
    module = patchgan.from_kwargs({"netD": "basic", "ndf": 1, "norm": "batch"})
    x = jax.random.normal(jax.random.key(0), [1, 128, 128, 1])
    variables = jax.jit(module.init)(jax.random.key(1), x)
    grad = jax.jit(jax.grad(lambda x: module.apply(variables, x)[0, 7, 7, 0]))(x)
    seen = np.argwhere(np.asarray(grad[0, :, :, 0]))
    assert (seen.max(0) - seen.min(0) + 1).tolist() == [70, 70]


def test_published_size():
    """2.769 M parameters for 6 channels, as the authors' program prints."""
    module = patchgan.from_kwargs({"netD": "basic", "ndf": 64, "norm": "batch"})
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros([1, 64, 64, 6]))
    assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])), -3) == 2_769_000


def test_a_network_without_layers_is_refused():
    with pytest.raises(UserError, match="n_layers_D=0"):
        patchgan.from_kwargs({**TINY[1], "n_layers_D": 0})
