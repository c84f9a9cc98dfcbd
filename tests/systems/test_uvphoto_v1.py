"""One training step of UV-photo Net against what its sources say it does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from steps import compiled, leaf_names, leaves_differ, photographs

from experiments import uvphoto as experiment
from jaxface import losses
from jaxface.errors import UserError
from jaxface.ops.warp import vary
from jaxface.systems import uvphoto

# Halved six times: the one block that then has dropout is there.
TINY = dataclasses.replace(experiment.tiny, batch=4, levels=6, ngf=2, dropout=True)


@pytest.fixture(scope="module")
def tiny():
    return compiled(uvphoto.build(TINY))


def test_same_inputs_same_bits_and_every_part_moves(tiny):
    system, state, step, key = tiny
    batch = photographs(TINY)
    first, metrics = step(state, batch, key)
    again, _ = step(state, batch, key)
    assert not leaves_differ(first, again)
    parts = lambda s: (s.params, s.model_state, s.opt_state)
    moved = leaves_differ(parts(state), parts(first))
    assert [name for name in leaf_names(parts(state)) if name not in moved] == []
    assert first.step == 1 and int(metrics["skipped/in_a_row"]) == 0
    facts = first.control["photographs"]
    assert (facts["face_width"], facts["spot_threshold"]) == (150, 4)


def test_randomness_belongs_to_the_example_not_to_its_place(tiny):
    """The same examples in another order give the same losses: warps and dropout follow."""
    system, state, step, key = tiny
    batch = photographs(TINY)
    turned = {name: value[::-1].copy() for name, value in batch.items()}
    moved = batch | {"example": batch["example"] + TINY.batch}
    a, b, c = (step(state, x, key)[1] for x in (batch, turned, moved))
    for name in ("loss/generator", "loss/discriminator", "loss/l1", "loss/detail"):
        assert abs(a[name] - b[name]) <= 1e-5 * abs(a[name]) + 1e-6
    assert abs(a["loss/l1"] - c["loss/l1"]) > 1e-4  # other numbers, other draws


def plainly(config, state, batch, key):
    """The step as pix2pix is written: D on what G made, then G, through a pass of its own, on new D.

    -> (params, gradients {network: ..}, loss terms).
    """
    G, D = uvphoto.networks(config)
    key_vary, key_g, key_d = jax.random.split(jax.random.fold_in(key, state.step), 3)
    example = batch["example"]
    keys = jnp.stack([jax.random.fold_in(key_vary, e) for e in example])
    color = vary(batch["color"] / jnp.float32(127.5) - 1, keys, config.patch, config.warp)
    real = vary(batch["uv"] / jnp.float32(127.5) - 1, keys, config.patch, config.warp)
    tx = optax.adam(config.learning_rate, b1=0.5, b2=0.999)

    def forward(module, name, params, x, key):
        variables = {"params": params, "batch_stats": state.model_state[name]}
        drops = hasattr(module, "use_dropout") or hasattr(module, "dropout")
        more = {"rngs": {"dropout": key}, "example": example} if drops else {}
        return module.apply(variables, x, train=True, mutable=["batch_stats"], **more)[0]

    def translate(params):
        return forward(G, "generator", params, color, key_g)

    def judge(params, image):
        beside = jnp.concatenate([color, image], -1)
        return forward(D, "discriminator", params, beside, key_d)

    def bce(logits, label):
        chance = jax.nn.sigmoid(logits if label else -logits)
        return -jnp.log(chance).mean()

    def loss_d(params, fake):
        return 0.5 * bce(judge(params, fake), 0) + 0.5 * bce(judge(params, real), 1)

    def loss_g(params, judging):
        fake = translate(params)
        terms = {
            "generator": bce(judge(judging, fake), 1),
            "l1": jnp.abs(fake - real).mean(),
            "detail": losses.detail(fake, real, 16).mean(),
        }
        weights = {"generator": 1.0, "l1": config.lambda_l1, "detail": config.lambda_detail}
        return sum(weights[name] * terms[name] for name in terms), terms

    old_g, old_d = state.params["generator"], state.params["discriminator"]
    told, to_d = jax.value_and_grad(loss_d)(old_d, translate(old_g))
    moves, _ = tx.update(to_d, tx.init(old_d))
    new_d = optax.apply_updates(old_d, moves)
    (_, terms), to_g = jax.value_and_grad(loss_g, has_aux=True)(old_g, new_d)
    terms["by the old"] = loss_g(old_g, old_d)[1]["generator"]
    moves, _ = tx.update(to_g, tx.init(old_g))
    new_g = optax.apply_updates(old_g, moves)
    params = {"generator": new_g, "discriminator": new_d}
    grads = {"generator": to_g, "discriminator": to_d}
    return params, grads, terms | {"discriminator": told}


@pytest.mark.parametrize(
    "changes",
    [
        {"lambda_detail": 0.0, "lambda_l1": 1.0},  # D's opinion is a large part of G's gradient
        {
            "discriminator": "patchgan",
            "norm": "instance",
            "lambda_detail": 100.0,
            "levels": 3,
            "dropout": False,  # the other has it
        },
    ],
)
def test_a_step_is_pix2pix_plainly_written(tiny, changes):
    config = dataclasses.replace(TINY, **changes)
    system = uvphoto.build(config)
    batch, key = photographs(config), tiny[3]
    state = tiny[1] if "norm" not in changes else jax.jit(system.init)(key)
    new, metrics = jax.device_get(jax.jit(system.train_step)(state, batch, key))
    plain = jax.jit(lambda state, batch, key: plainly(config, state, batch, key))
    params, grads, terms = jax.device_get(plain(state, batch, key))
    # D's step is large enough that the generator's loss tells which D judged.
    assert abs(terms.pop("by the old") / terms["generator"] - 1) > 1e-3
    for name, value in terms.items():
        np.testing.assert_allclose(metrics[f"loss/{name}"], value, rtol=2e-5, err_msg=name)
    for name, tree in grads.items():
        norm = np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(tree)))
        np.testing.assert_allclose(metrics[f"gradient/{name}"], norm, rtol=1e-4)
        moments = new.opt_state[name][0].mu  # (1 - b1) times the gradient after the first step
        assert np.abs(moments / 0.5 - ravel_pytree(tree)[0]).max() < 1e-4 * norm, name
        # Adam's first step is the gradient's sign: what is rounding alone may fall on either side.
        apart = [
            (np.abs(x - y) / config.learning_rate).ravel()
            for x, y, old in zip(*map(jax.tree.leaves, (new.params[name], params[name], tree)))
            if np.abs(old).max() > 1e-5 * norm
        ]
        assert np.mean(np.concatenate(apart) > 0.05) < 0.01, name


def test_a_poisoned_batch_changes_nothing_but_the_count(tiny):
    """Numbers that are not finite skip both updates, are counted and leave no trace in the weights."""
    system, state, step, key = tiny
    good, before = step(state, photographs(TINY), key)
    batch = photographs(TINY, seed=1, step=1)
    batch["color"][1] = np.nan
    bad, metrics = step(good, batch, key)
    assert int(before["skipped/in_a_row"]) == 0
    assert not leaves_differ(good.params, bad.params)
    assert not leaves_differ(good.opt_state, bad.opt_state)
    assert not leaves_differ(good.model_state, bad.model_state)
    for name in ("generator", "discriminator", "in_a_row"):
        assert int(metrics[f"skipped/{name}"]) == 1
    assert bad.step == 2


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"compile": "fast"}, "config.compile='fast'.*'jit', 'pmap'"),
        ({"precision": "float16"}, "config.precision='float16'.*'bfloat16'"),
        ({"accumulate": 2}, "config.accumulate=2: use one of 1"),
        ({"patch": 72, "levels": 3}, "config.patch=72.*multiple of 16"),
        ({"patch": 48, "levels": 3}, "config.patch=48.*64 px or more"),
        ({"coverage": 0.0}, "config.coverage=0.0"),
        ({"coverage": 1.1}, "config.coverage=1.1"),
        ({"tile_stride": 0}, "config.tile_stride=0 leaves gaps"),
        ({"tile_stride": 50}, "config.tile_stride=50 leaves gaps.*at most 48"),
        ({"discriminator": "vgg"}, "config.discriminator='vgg'.*'alexnet', 'patchgan'"),
        ({"norm": "layer"}, "config.norm='layer'.*'batch', 'instance'"),
        ({"init_type": "xavier"}, "config.init_type='xavier'.*'normal', 'kaiming'"),
        ({"levels": 7}, "config.patch=64 cannot be halved config.levels=7 times.*multiple of 128"),
        ({"batch": 1}, "config.batch=1.*config.norm=instance"),
    ],
)
def test_bad_settings_are_refused_by_name(changes, words):
    with pytest.raises(UserError, match=words):
        uvphoto.build(dataclasses.replace(TINY, **changes))


def test_good_settings_at_the_limits_are_not():
    for changes in ({"tile_stride": 48}, {"coverage": 1.0}, {"batch": 1, "norm": "instance"}):
        uvphoto.check(dataclasses.replace(TINY, **changes))


def test_a_start_that_does_not_fit_lists_every_name(tiny):
    _, state, _, key = tiny
    tree = {"params": state.params, "model_state": state.model_state}
    tree = jax.tree.map(np.asarray, tree)
    other = state.replace(params=jax.tree.map(lambda x: x + 1, state.params))
    begun = uvphoto.build(TINY, tree).start_from(other)
    assert not leaves_differ((state.params, state.model_state), (begun.params, begun.model_state))
    wider = uvphoto.build(dataclasses.replace(TINY, ngf=4), tree)
    with pytest.raises(UserError) as error:
        wider.start_from(jax.eval_shape(wider.init, key))
    assert "down1/kernel: (4, 4, 3, 2) in the file, (4, 4, 3, 4) in this" in str(error.value)
    assert uvphoto.build(TINY).start_from is None
