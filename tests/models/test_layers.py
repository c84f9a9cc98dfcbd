"""Normalisation, and what is said of weights that do not fit."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jaxface.errors import UserError
from jaxface.models import layers, patchgan

KWARGS = {"netD": "pixel", "ndf": 2, "norm": "batch", "input_nc": 3}


@pytest.fixture(scope="module")
def arrays():
    module = patchgan.from_kwargs(KWARGS)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros([1, 4, 4, 3]))
    return reference.arrays_like(patchgan.to_state_dict(KWARGS, variables))


def test_batch_norm_by_hand():
    """Two values a channel: mean, biased variance for the output, unbiased for the running one."""
    norm = layers.BatchNorm()
    x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
    variables = norm.init(jax.random.key(0), x, train=False)
    np.testing.assert_allclose(norm.apply(variables, x, train=False), x, rtol=1e-5)
    y, moved = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, [[-1, -1], [1, 1]], rtol=1e-5)
    np.testing.assert_allclose(moved["batch_stats"]["mean"], [0.2, 2], rtol=1e-6)
    np.testing.assert_allclose(moved["batch_stats"]["var"], [0.9 + 0.2, 0.9 + 20], rtol=1e-6)
    with pytest.raises(ValueError, match="more than one value"):
        norm.apply(variables, x[:1], train=True, mutable=["batch_stats"])


def test_batch_norm_of_eight_devices_is_that_of_one():
    """Output, running statistics and gradients."""
    norm = layers.BatchNorm()
    x = jax.random.normal(jax.random.key(0), [16, 3, 3, 2]) + jnp.arange(16.0).reshape(-1, 1, 1, 1)
    weight = jnp.cos(jnp.arange(x.size)).reshape(x.shape)
    variables = norm.init(jax.random.key(1), x, train=False)

    def run(x, weight, axis):
        y, moved = norm.apply(variables, x, True, axis, mutable=["batch_stats"])
        return (y * weight).sum(), (y, moved)

    grad, (y, moved) = jax.jit(jax.grad(lambda x: run(x, weight, None), has_aux=True))(x)
    split = lambda a: a.reshape(8, 2, *a.shape[1:])

    def on_each(x, weight):
        return jax.grad(lambda x: run(x, weight, "batch"), has_aux=True)(x)

    grads, (ys, moves) = jax.pmap(on_each, "batch")(split(x), split(weight))
    golden.assert_close(ys.reshape(y.shape), y, 1e-6, "output")
    golden.assert_close(grads.reshape(grad.shape), grad, 1e-5, "gradient")
    for name, value in moved["batch_stats"].items():
        for device in range(8):
            golden.assert_close(moves["batch_stats"][name][device], value, 1e-6, name)


def test_statistics_of_low_precision_are_kept_in_float32():
    x = (jax.random.normal(jax.random.key(0), [2, 64, 64, 1]) + 50).astype(jnp.bfloat16)
    for y in (
        layers.instance_norm(x),
        layers.BatchNorm().init_with_output(jax.random.key(1), x, train=True)[0],
    ):
        assert y.dtype == jnp.bfloat16
        y = y.astype(jnp.float32)
        assert abs(y.mean()) < 1e-2 and abs(y.std() - 1) < 1e-2


def test_instance_norm_equals_reference():
    x = np.random.default_rng(0).normal(3, 2, (2, 5, 4, 3)).astype(np.float32)
    expected = reference.normalize(golden.nchw(x).astype(np.float64), {}, "")
    golden.assert_close(golden.nchw(layers.instance_norm(x)), expected, 1e-5)


@pytest.mark.parametrize("size", [3, 4])
def test_double_equals_reference(size):
    """PyTorch's transposed convolution; its gradients, once and twice, as JAX itself takes them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 4, 3)).astype(np.float32)
    arrays = {"up.weight": rng.normal(size=(3, 2, size, size)), "up.bias": np.array([1.0, -2.0])}
    kernel = jnp.asarray(arrays["up.weight"].transpose(2, 3, 1, 0), jnp.float32)
    params = {"kernel": kernel, "bias": jnp.asarray(arrays["up.bias"], jnp.float32)}
    double = layers.Double(2, size)
    expected = reference.conv_transpose(golden.nchw(x), arrays, "up", 2, 1, 4 - size)
    golden.assert_close(golden.nchw(double.apply({"params": params}, x)), expected, 1e-5)

    def native(x, kernel):
        widened = [(size - 2, 2)] * 2
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_transpose(
            x, kernel, (2, 2), widened, None, names, transpose_kernel=True
        )

    def penalty(up, x, kernel):
        slope = jax.grad(lambda x: (jnp.tanh(up(x, kernel))).sum())(x)
        return (slope**2).sum()

    bare = lambda x, kernel: layers.Double(2, size, False).apply({"params": {"kernel": kernel}}, x)
    for f in (lambda up, x, kernel: (up(x, kernel) ** 2).sum(), penalty):
        take = lambda up, f=f: jax.jit(jax.grad(lambda *args: f(up, *args), (0, 1)))(x, kernel)
        ours, theirs = take(bare), take(native)
        golden.assert_close(ours[0], theirs[0], 1e-5, "gradient of x")
        golden.assert_close(ours[1], theirs[1], 1e-5, "gradient of the kernel")


def test_every_array_that_does_not_fit_is_named(arrays):
    wrong = dict(arrays)
    wrong["net.9.bogus"] = wrong.pop("net.2.weight")
    wrong["net.0.weight"] = np.zeros((2, 4, 1, 1), np.float32)
    wrong["net.0.num_batches_tracked"] = np.asarray(0)
    with pytest.raises(UserError) as error:
        patchgan.from_state_dict(KWARGS, wrong)
    for line in (
        "4 array(s)",
        "missing: net.2.weight",
        "not in this network: net.9.bogus",
        "not in this network: net.0.num_batches_tracked",
        "net.0.weight: (2, 4, 1, 1) given, (2, 3, 1, 1) needed",
    ):
        assert line in str(error.value)


def test_counts_are_not_needed_and_old_statistics_of_instances_are_passed_over(arrays):
    counted = {k: v for k, v in arrays.items() if not k.endswith("num_batches_tracked")}
    assert len(counted) < len(arrays)
    assert patchgan.from_state_dict(KWARGS, counted).variables["batch_stats"]
    kwargs = {**KWARGS, "norm": "instance"}
    plain = {k: arrays.get(k, np.zeros(n, np.float32)) for k, n in
             (("net.0.weight", 2), ("net.0.bias", 2), ("net.2.weight", 4), ("net.2.bias", 4),
              ("net.5.weight", 1), ("net.5.bias", 1))}  # fmt: skip
    old = plain | {"net.3.running_mean": np.zeros(4), "net.3.running_var": np.ones(4)}
    assert "batch_stats" not in patchgan.from_state_dict(kwargs, old).variables


@pytest.mark.parametrize("name", ["norm", "netD", "ndf"])
def test_missing_and_unknown_options_are_named(name):
    with pytest.raises(UserError, match=name):
        patchgan.from_kwargs({k: v for k, v in KWARGS.items() if k != name})
    if name != "ndf":
        with pytest.raises(UserError, match=f"{name}='other'.*known: "):
            patchgan.from_kwargs({**KWARGS, name: "other"})


def test_dropout_rate_and_scale():
    drop = layers.Dropout(0.3)
    x = jnp.ones([8, 50, 50])
    y = np.asarray(drop.apply({}, x, True, rngs={"dropout": jax.random.key(0)}))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    np.testing.assert_allclose((y == 0).mean((1, 2)), 0.3, atol=0.04)  # 4 standard deviations
    assert abs((y == 0).mean() - 0.3) < 0.013
    for one, two in zip(y, y[1:]):  # each example its own
        assert abs(((one == 0) == (two == 0)).mean() - (0.49 + 0.09)) < 0.05


def test_dropout_goes_by_the_number_of_the_example():
    drop = layers.Dropout(0.5)
    x = jax.random.normal(jax.random.key(1), [8, 30])
    run = lambda x, example: drop.apply({}, x, True, example, rngs={"dropout": jax.random.key(0)})
    whole = run(x, None)
    np.testing.assert_array_equal(run(x, jnp.arange(8)), whole)
    for rows in ([0, 1, 2, 3], [4, 5, 6, 7], [6, 1, 5, 2]):
        rows = np.array(rows)
        np.testing.assert_array_equal(run(x[rows], rows), whole[rows])
    assert np.any(run(x, jnp.arange(8, 16)) != whole)


def test_dropout_is_off_in_use_and_at_rate_0():
    x = jax.random.normal(jax.random.key(1), [2, 5])
    np.testing.assert_array_equal(layers.Dropout(0.9).apply({}, x, False), x)
    np.testing.assert_array_equal(layers.Dropout(0.0).apply({}, x, True), x)
