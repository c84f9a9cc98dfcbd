"""Losses by hand and, with networks, against reference losses and gradients."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jaxface import losses
from jaxface.models import discriminator, stylegan3


def test_logistic_losses_by_hand():
    logits = jnp.array([-2.0, 0.0, 3.0])
    sigmoid = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    expected = -np.log(sigmoid)
    np.testing.assert_allclose(losses.generator_nonsaturating(logits), expected, rtol=1e-6)
    np.testing.assert_allclose(losses.discriminator_logistic_real(logits), expected, rtol=1e-6)
    fake = losses.discriminator_logistic_fake(logits)
    np.testing.assert_allclose(fake, -np.log(1 - sigmoid), rtol=1e-6)


def test_losses_stay_finite_where_the_sigmoid_saturates():
    far = jnp.array([-1e4, 1e4])
    np.testing.assert_allclose(losses.generator_nonsaturating(far), [1e4, 0])
    np.testing.assert_allclose(losses.discriminator_logistic_fake(far), [0, 1e4])


def test_r1_is_the_squared_slope_of_each_example():
    slopes = jnp.array([[1.0, 2.0, 2.0], [0.5, 0.0, 0.0]])
    x = jnp.ones([2, 3])
    grad = jax.grad(lambda x: jnp.sum(slopes * x))(x)
    np.testing.assert_allclose(losses.r1_penalty(grad), [9.0, 0.25])
    assert losses.r1_penalty(grad.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.fixture(scope="module", params=["t32", "t64c"])
def networks(request):
    data, source = golden.load(f"sg3_{request.param}_D"), golden.load(f"sg3_{request.param}_G")
    take = lambda arrays, what: {k[2:]: v for k, v in arrays.items() if k.startswith(what)}
    g = stylegan3.from_state_dict(source["meta"]["G_kwargs"], take(source, "G/"))
    d = discriminator.from_state_dict(data["meta"]["D_kwargs"], take(data, "D/"))
    reals = golden.nhwc(data["in/real_u8"]).astype(np.float32) / 127.5 - 1
    return data, g, d, data["in/c"] if d.module.c_dim else None, reals


def _check_gradients(data, phase, grads, to_source):
    """Norm, sum and a fixed projection of every gradient, and small gradients whole."""
    ours = to_source(grads)
    norms = {k.split("/", 2)[2]: v for k, v in data.items() if k.startswith(f"grad/{phase}/")}
    assert norms
    for name, (norm, total, dot) in norms.items():
        flat = np.asarray(ours[name], np.float64).ravel()
        scale = 1e-3 * max(norm, 1e-6)
        assert abs(np.linalg.norm(flat) - norm) <= scale, name
        assert abs(flat.sum() - total) <= scale * np.sqrt(flat.size), name
        projected = flat @ np.cos(0.1 * np.arange(flat.size))
        assert abs(projected - dot) <= scale * np.sqrt(flat.size), name
        whole = data.get(f"gradfull/{phase}/{name}")
        if whole is not None and np.abs(whole).max() > 1e-6:
            golden.assert_close(ours[name], whole, 1e-3, f"{phase} {name}")


def _of_discriminator(grads):
    return {k: np.asarray(v) for k, v in traverse_util.flatten_dict(grads, sep=".").items()}


def test_golden_generator_loss_and_gradients(networks):
    data, g, d, c, _ = networks

    @jax.jit
    def run(params, z, c):
        def loss(params):
            images = g.module.apply({**g.variables, "params": params}, z, c)
            logits = d.module.apply(d.variables, images, c)
            each = losses.generator_nonsaturating(logits)
            return each.mean(), (each, logits)

        return jax.grad(loss, has_aux=True)(params)

    grads, (each, logits) = run(g.variables["params"], data["in/z"], c)
    golden.assert_close(logits, data["out/logits_fake"], 3e-4, "logits_fake")
    golden.assert_close(each, data["loss/Gmain"], 3e-4, "Gmain")
    kwargs = data["meta"]["G_kwargs"]
    to_source = lambda grads: stylegan3.to_state_dict(kwargs, {**g.variables, "params": grads})
    _check_gradients(data, "Gmain", grads, to_source)


def test_golden_discriminator_loss_and_gradients(networks):
    """The generator first moves its running means, which changes its images a little."""
    data, g, d, c, reals = networks

    @jax.jit
    def run(params, z, c, reals):
        fakes, _ = g.module.apply(g.variables, z, c, update_emas=True, mutable=["stats"])

        def loss(params):
            score = lambda images: d.module.apply({"params": params}, images, c)
            fake = losses.discriminator_logistic_fake(score(fakes))
            real = losses.discriminator_logistic_real(score(reals))
            return fake.mean() + real.mean(), (fake, real)

        return jax.grad(loss, has_aux=True)(params)

    grads, (fake, real) = run(d.variables["params"], data["in/z"], c, reals)
    golden.assert_close(fake, data["loss/Dmain_gen"], 3e-4, "Dmain_gen")
    golden.assert_close(real, data["loss/Dmain_real"], 1e-4, "Dmain_real")
    _check_gradients(data, "Dmain", grads, _of_discriminator)


def test_golden_r1_penalty_and_gradients(networks):
    data, _, d, c, reals = networks

    @jax.jit
    def run(params, reals, c):
        def loss(params):
            total = lambda images: d.module.apply({"params": params}, images, c).sum()
            by_image = jax.grad(total)(reals)
            each = losses.r1_penalty(by_image)
            return (each * data["meta"]["r1_gamma"] / 2).mean(), (each, by_image)

        return jax.grad(loss, has_aux=True)(params)

    grads, (each, by_image) = run(d.variables["params"], reals, c)
    golden.assert_close(golden.nchw(by_image)[:1], data["r1/grad"], 1e-4, "r1/grad")
    golden.assert_close(each, data["r1/penalty"], 1e-3, "r1/penalty")
    golden.assert_close(each * data["meta"]["r1_gamma"] / 2, data["loss/Dr1"], 1e-3, "Dr1")
    _check_gradients(data, "Dreg", grads, _of_discriminator)
