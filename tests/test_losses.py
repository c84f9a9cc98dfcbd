"""Losses by hand and, with networks, against reference losses and gradients."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from jaxface import losses
from jaxface.models import discriminator, patchgan, stylegan3, translator, unet
from jaxface.ops import conv


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


def test_least_squares_and_wasserstein_by_hand():
    scores = jnp.array([[-1.0, 0.0], [1.0, 3.0]])
    np.testing.assert_array_equal(losses.least_squares_real(scores), [[4, 1], [0, 4]])
    np.testing.assert_array_equal(losses.least_squares_fake(scores), [[1, 0], [1, 9]])
    np.testing.assert_array_equal(losses.wasserstein_real(scores), -scores)
    np.testing.assert_array_equal(losses.wasserstein_fake(scores), scores)


def test_gradient_penalty_wants_a_slope_of_one():
    slopes = jnp.array([[3.0, 4.0, 0.0], [0.0, 0.6, 0.8], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(losses.gradient_penalty(slopes), [16, 0, 1], atol=1e-6)
    grad = jax.grad(lambda g: losses.gradient_penalty(g).sum())(slopes)
    # 2 (|g| - 1) g / |g|
    np.testing.assert_allclose(grad, [[4.8, 6.4, 0], [0, 0, 0], [0, 0, 0]], atol=1e-5)


def test_l1_is_the_mean_of_each_example():
    a, b = jnp.zeros([2, 2, 2, 1]), jnp.arange(8.0).reshape(2, 2, 2, 1)
    np.testing.assert_array_equal(losses.l1(a, b), [1.5, 5.5])
    assert losses.l1(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)).dtype == jnp.float32


def test_detail_by_hand():
    a = jnp.zeros([2, 2, 4, 1]).at[0, 1, 2, 0].set(4.0).at[1, 0, 0, 0].set(-2.0)
    # In its block of four px the first differs by 3, -1, -1, -1, of squares 12; the other block by 0.
    np.testing.assert_allclose(losses.detail(a, jnp.zeros_like(a), 2), [12 / 8, 3 / 8])
    np.testing.assert_allclose(losses.detail(jnp.zeros_like(a), a, 2), [12 / 8, 3 / 8])
    grad = jax.grad(lambda a: losses.detail(a, jnp.zeros_like(a), 2).sum())(a)
    np.testing.assert_allclose(grad[0, ..., 0], [[0, 0, -0.25, -0.25], [0, 0, 0.75, -0.25]])
    low = a.astype(jnp.bfloat16)
    assert losses.detail(low, low, 2).dtype == jnp.float32


def test_detail_leaves_out_the_mean_of_every_block_and_channel():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 8, 12, 2)).astype(np.float32)
    expected = np.zeros(3)
    for n in range(3):
        for row in range(0, 8, 4):
            for column in range(0, 12, 4):
                for channel in range(2):
                    here = (n, slice(row, row + 4), slice(column, column + 4), channel)
                    expected[n] += 16 * np.var(a[here] - b[here]) / (8 * 12 * 2)
    np.testing.assert_allclose(losses.detail(a, b, 4), expected, rtol=1e-5)
    shade = np.kron(rng.normal(size=(3, 2, 3, 2)), np.ones([1, 4, 4, 1])).astype(np.float32)
    np.testing.assert_allclose(losses.detail(a + shade, b, 4), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.detail(shade, 0 * shade, 4), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("mode", "real", "fake"),
    [
        ("lsgan", losses.least_squares_real, losses.least_squares_fake),
        ("vanilla", losses.discriminator_logistic_real, losses.discriminator_logistic_fake),
        ("wgangp", losses.wasserstein_real, losses.wasserstein_fake),
    ],
)
def test_golden_losses_of_translation(mode, real, fake):
    data = golden.load("i2i_losses")
    for kind, loss in (("real", real), ("fake", fake)):
        value, grad = jax.value_and_grad(lambda x, f=loss: f(x).mean())(data["in/pred"])
        # The mean of the critic's scores nearly cancels, so the scale is that of what is added.
        scale = np.abs(fake(data["in/pred"])).mean()
        assert abs(value - data[f"{mode}/{kind}"]) <= 1e-6 * scale, f"{mode} {kind}"
        golden.assert_close(grad, data[f"{mode}/{kind}_grad"], 1e-5, f"{mode} {kind} gradient")


def test_golden_l1():
    data = golden.load("i2i_losses")
    value = losses.l1(data["in/a"], data["in/b"]).mean()
    for name, weight in (("l1", 1), ("l1_x100", 100), ("cycle_x10", 10), ("identity_x10x0.5", 5)):
        golden.assert_close(weight * value, data[name], 1e-6, name)


@pytest.fixture(scope="module", params=["t32", "t64c", "t32 by Winograd's form"])
def networks(request):
    """Networks as the sizes of the reference outputs let them be computed, and as large ones are."""
    name, *quick = request.param.split(maxsplit=1)
    if quick:
        patch = pytest.MonkeyPatch()
        for limit in ("LARGE", "FEW", "MOVING"):
            patch.setattr(conv, limit, 0)
        request.addfinalizer(patch.undo)
    data, source = golden.load(f"sg3_{name}_D"), golden.load(f"sg3_{name}_G")
    take = lambda arrays, what: {k[2:]: v for k, v in arrays.items() if k.startswith(what)}
    g = stylegan3.from_state_dict(source["meta"]["G_kwargs"], take(source, "G/"))
    d = discriminator.from_state_dict(data["meta"]["D_kwargs"], take(data, "D/"))
    reals = golden.nhwc(data["in/real_u8"]).astype(np.float32) / 127.5 - 1
    return data, g, d, data["in/c"] if d.module.c_dim else None, reals


def _check_gradients(data, phase, grads, to_source, tolerance=1e-3, floor=1e-6):
    """Norm, sum and a fixed projection of every gradient, and small gradients whole.

    `floor` is a norm that rounding may leave where the gradient is 0.
    """
    ours = to_source(grads)
    norms = {k.split("/", 2)[2]: v for k, v in data.items() if k.startswith(f"grad/{phase}/")}
    assert norms
    for name, (norm, total, dot) in norms.items():
        flat = np.asarray(ours[name], np.float64).ravel()
        if norm < floor:
            assert np.linalg.norm(flat) < floor, name
            continue
        scale = tolerance * norm
        assert abs(np.linalg.norm(flat) - norm) <= scale, name
        assert abs(flat.sum() - total) <= scale * np.sqrt(flat.size), name
        projected = flat @ np.cos(0.1 * np.arange(flat.size))
        assert abs(projected - dot) <= scale * np.sqrt(flat.size), name
        whole = data.get(f"gradfull/{phase}/{name}")
        if whole is not None and np.abs(whole).max() > 1e-6:
            golden.assert_close(ours[name], whole, tolerance, f"{phase} {name}")


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


def _translation_step(name, networks):
    """Reference file, its networks, what optimizes them, and the check of one of them after a step."""
    data = golden.load(name)
    options = data["meta"]["options"]
    loaded, kwargs = {}, {}
    for net, (module, changes) in networks.items():
        arrays = {k[len(net) + 1 :]: v for k, v in data.items() if k.startswith(f"{net}/")}
        kwargs[net] = {**options, **changes}
        loaded[net] = module.from_state_dict(kwargs[net], arrays)
    tx = optax.adam(options["lr"], b1=options["beta1"])

    def step(params, grads):
        return optax.apply_updates(params, tx.update(grads, tx.init(params))[0])

    def check(net, grads, after, tolerance=1e-3):
        to_source = lambda params: networks[net][0].to_state_dict(kwargs[net], {"params": params})
        norms = [v[0] for k, v in data.items() if k.startswith(f"grad/{net}/")]
        _check_gradients(data, net, grads, to_source, tolerance, floor=1e-5 * max(norms))
        for name, array in to_source(after).items():
            # The first step of Adam is the sign of the gradient: meaningless where that is rounding.
            if data[f"grad/{net}/{name}"][0] > 1e-5 * max(norms):
                norm, total, _ = data[f"param_after/{net}/{name}"]
                flat = np.asarray(array, np.float64).ravel()
                assert abs(np.linalg.norm(flat) - norm) <= 1e-5 * norm, name
                assert abs(flat.sum() - total) <= 1e-5 * norm * np.sqrt(flat.size), name

    return data, loaded, step, check


def test_golden_step_of_pix2pix():
    """The discriminator steps first, the generator meets it as it is then."""
    data, nets, step, check = _translation_step(
        "p2p_step_unet128_ngf4", {"G": (unet, {}), "D": (patchgan, {"input_nc": 6})}
    )
    a, b = golden.nhwc(data["in/A"]), golden.nhwc(data["in/B"])
    weight = data["meta"]["options"]["lambda_L1"]

    def run_network(net, params, x):
        variables = {**nets[net].variables, "params": params}
        return nets[net].module.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    def of_discriminator(params, fakes):
        judge = lambda images: run_network("D", params, jnp.concatenate([a, images], -1))
        fake = losses.discriminator_logistic_fake(judge(fakes)).mean()
        real = losses.discriminator_logistic_real(judge(b)).mean()
        return (fake + real) / 2, {"D_fake": fake, "D_real": real}

    def of_generator(params, judge_params):
        fakes = run_network("G", params, a)
        logits = run_network("D", judge_params, jnp.concatenate([a, fakes], -1))
        gan = losses.generator_nonsaturating(logits).mean()
        near = weight * losses.l1(fakes, b).mean()
        return gan + near, {"G_GAN": gan, "G_L1": near, "total_G": gan + near}

    @jax.jit
    def run(g, d):
        fakes = run_network("G", g, a)
        d_grads, d_losses = jax.grad(of_discriminator, has_aux=True)(d, fakes)
        d_after = step(d, d_grads)
        g_grads, g_losses = jax.grad(of_generator, has_aux=True)(g, d_after)
        return (
            fakes,
            d_losses | g_losses,
            {"G": (g_grads, step(g, g_grads)), "D": (d_grads, d_after)},
        )

    fakes, values, moves = run(nets["G"].variables["params"], nets["D"].variables["params"])
    golden.assert_close(golden.nchw(fakes), data["vis/fake_B"], 1e-4, "fake_B")
    for name, value in values.items():
        golden.assert_close(value, data[f"loss/{name}"], 1e-4, name)
    for net, move in moves.items():
        check(net, *move)


def test_golden_step_of_cyclegan():
    """Both generators step together, then each discriminator on the fakes made before."""
    data, nets, step, check = _translation_step(
        "cyc_step_resnet6_ngf4",
        {
            "G_A": (translator, {}),
            "G_B": (translator, {}),
            "D_A": (patchgan, {}),
            "D_B": (patchgan, {}),
        },
    )
    a, b = golden.nhwc(data["in/A"]), golden.nhwc(data["in/B"])
    run_network = lambda net, params, x: nets[net].module.apply({"params": params}, x, train=True)
    options = data["meta"]["options"]
    back_a, back_b, same = (options[f"lambda_{name}"] for name in ("A", "B", "identity"))

    def of_generators(params, judges):
        to_b, to_a = (lambda x, g=g: run_network(g, params[g], x) for g in ("G_A", "G_B"))
        pair = lambda translate, *images: jnp.split(translate(jnp.concatenate(images)), 2)
        images = dict(zip(("fake_B", "idt_A"), pair(to_b, a, b)))  # instances do not couple
        images |= dict(zip(("fake_A", "idt_B"), pair(to_a, b, a)))
        images |= {"rec_A": to_a(images["fake_B"]), "rec_B": to_b(images["fake_A"])}
        gan = lambda net, x: losses.least_squares_real(run_network(net, judges[net], x)).mean()
        values = {
            "G_A": gan("D_A", images["fake_B"]),
            "G_B": gan("D_B", images["fake_A"]),
            "cycle_A": back_a * losses.l1(images["rec_A"], a).mean(),
            "cycle_B": back_b * losses.l1(images["rec_B"], b).mean(),
            "idt_A": back_b * same * losses.l1(images["idt_A"], b).mean(),
            "idt_B": back_a * same * losses.l1(images["idt_B"], a).mean(),
        }
        total = sum(values.values())
        return total, (values | {"total_G": total}, images)

    def of_discriminator(params, net, real, fake):
        fake = losses.least_squares_fake(run_network(net, params, fake)).mean()
        return (fake + losses.least_squares_real(run_network(net, params, real)).mean()) / 2

    @jax.jit
    def run(g, d):
        grads, (values, images) = jax.grad(of_generators, has_aux=True)(g, d)
        for net, real, fake in (("D_A", b, images["fake_B"]), ("D_B", a, images["fake_A"])):
            values[net], grads[net] = jax.value_and_grad(of_discriminator)(d[net], net, real, fake)
        return images, values, grads, {net: step(p, grads[net]) for net, p in (g | d).items()}

    # In float64: which rounding a machine's float32 has would decide about the last tenth of the bound.
    with jax.enable_x64(True):
        wide = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)
        a, b = wide(a), wide(b)
        params = {net: wide(loaded.variables["params"]) for net, loaded in nets.items()}
        images, values, grads, after = jax.device_get(
            run(
                {net: params[net] for net in ("G_A", "G_B")},
                {net: params[net] for net in ("D_A", "D_B")},
            )
        )
    for name, image in images.items():
        golden.assert_close(golden.nchw(image), data[f"vis/{name}"], 1e-4, name)
    for name, value in values.items():
        golden.assert_close(value, data[f"loss/{name}"], 1e-4, name)
    for net in nets:
        # The gradient of L1 is a sign, which rounding flips here and there: in float32 and float64
        # these gradients differ by up to 8e-4 of their norm (G_A), and the reference is in float32. One
        # tensor, G_B/model.1.weight, is 1.04e-3 from it in both of ours, and another, D_B/model.0.bias,
        # 1.11e-3 in both: there the terms of real and of generated pictures nearly cancel.
        beyond = {"G_B": 1.1e-3, "D_B": 1.15e-3}
        check(net, grads[net], after[net], tolerance=beyond.get(net, 1e-3))
