"""One training step of CleftGAN against what its sources say it does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from steps import compiled, leaves_differ

from experiments import cleftgan as experiment
from jaxface.data import pipeline
from jaxface.errors import UserError
from jaxface.ops import here
from jaxface.systems import cleftgan

TINY = dataclasses.replace(
    experiment.tiny, resolution=16, batch=8, num_layers=3, augment_pipe="", mirror=False
)


def batch_of(config, seed=0, step=0, penalty=True):
    rng = np.random.default_rng(seed)
    shape = (config.batch, config.resolution, config.resolution, config.channels)
    return {
        "image": rng.integers(0, 256, shape).astype(np.uint8),
        "example": np.arange(step * config.batch, (step + 1) * config.batch, dtype=np.int32),
    } | ({"penalty": np.zeros([config.batch], np.int8)} if penalty else {})


# Changes that do not meddle with each other, in one program: compiling a step takes longer than all else.
STRONG = dataclasses.replace(TINY, gamma=100.0, ema_kimg=0.016, ema_rampup=0.0)
AUGMENTED = dataclasses.replace(
    TINY, augment_pipe="bgc", mirror=True, mbstd_group=1, freeze_discriminator=4
)


@pytest.fixture(scope="module")
def tiny():
    return compiled(cleftgan.build(TINY))


@pytest.fixture(scope="module")
def strong():
    return jax.jit(cleftgan.build(STRONG).train_step)


@pytest.fixture(scope="module")
def augmented():
    return compiled(cleftgan.build(AUGMENTED))


def test_same_inputs_same_bits_and_every_part_moves(tiny):
    system, state, step, key = tiny
    batch = batch_of(TINY)
    first, metrics = step(state, batch, key)
    again, _ = step(state, batch, key)
    assert not leaves_differ(first, again)
    moved = " ".join(leaves_differ(state, first))
    for part in ("generator']['synthesis", "generator']['mapping", "discriminator", "w_avg"):
        assert part in moved
    assert first.step == 1 and np.isfinite(metrics["loss/generator"])


def test_a_step_in_few_ops_is_the_same_step(augmented):
    """What quick runs are made of: matrix products as filters, lax's convolutions, plain sums."""
    _, state, step, key = augmented
    batch = batch_of(AUGMENTED)
    state = state.replace(control=state.control | {"augment_p": jnp.float32(0.5)})
    with here.in_few_ops():
        few = jax.jit(cleftgan.build(AUGMENTED).train_step).lower(state, batch, key)
    many = step.lower(state, batch, key)
    assert few.as_text().count("\n") < 0.7 * many.as_text().count("\n")
    (_, a), (_, b) = few.compile()(state, batch, key), step(state, batch, key)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=2e-4, atol=1e-5, err_msg=name)


def test_ema_halves_the_distance_in_its_half_life(tiny, strong):
    """StyleGAN2's EMA: after n images of weight 0.5^(n / half-life) the old average is left."""
    state = tiny[1]
    shifted = jax.tree.map(lambda x: x + 1, state.ema["params"])
    state = state.replace(ema=state.ema | {"params": shifted})
    new, _ = jax.device_get(strong(state, batch_of(STRONG), tiny[3]))
    weight = 0.5 ** (STRONG.batch / 16)
    for slow, old, g in zip(
        *map(jax.tree.leaves, (new.ema["params"], shifted, new.params["generator"]))
    ):
        np.testing.assert_allclose(slow, weight * old + (1 - weight) * g, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sign,expected", [(3.0, 0.5 + 8 * 4 / 500e3), (-3.0, 0.5 - 8 * 4 / 500e3)])
def test_augmentation_strength_follows_the_sign_of_the_discriminator(augmented, sign, expected):
    """ADA: p moves by batch * 4 / (500 kimg) towards target every 4th step (its equation 1)."""
    _, state, step, key = augmented
    control = {"augment_p": jnp.float32(0.5), "sign_mean": jnp.float32(sign)}
    state = state.replace(step=jnp.int32(3), control=state.control | control)
    new, _ = step(state, batch_of(AUGMENTED), key)
    assert abs(float(new.control["augment_p"]) - expected) < 1e-7
    assert float(new.control["sign_mean"]) == 0


def test_r1_acts_every_16th_step_only(tiny, strong):
    """The batches that carry the penalty are the 1st, 17th, ..; without it gamma means nothing."""
    system, state, step, key = tiny
    program = lambda config: (
        jax.jit(cleftgan.build(config).train_step)
        .lower(state, batch_of(TINY, penalty=False), key)
        .as_text()
    )
    assert program(TINY) == program(dataclasses.replace(TINY, gamma=100.0))
    after = lambda f: f(state, batch_of(TINY), key)[0].params["discriminator"]
    assert leaves_differ(after(step), after(strong))

    class Ten:
        def __len__(self):
            return 10

    batches = pipeline.Batches(Ten(), 8, seed=0, start=15, marks={"penalty": cleftgan.LAZY})
    assert ["penalty" in next(batches) for _ in range(18)] == [False, True] + [False] * 15 + [True]


def test_frozen_layers_of_the_discriminator_stay(augmented):
    _, old, step, key = augmented
    new, _ = step(old, batch_of(AUGMENTED), key)
    moved = leaves_differ(old.params["discriminator"], new.params["discriminator"])
    assert moved and not [name for name in moved if "b16" in name]


def test_a_poisoned_batch_changes_nothing_but_the_count(tiny):
    """A loss that is not finite skips the update, counts it and leaves no trace in the weights."""
    system, state, step, key = tiny
    poison = jax.tree.map(lambda x: x, state.params["discriminator"])
    poison["b4"]["out"]["weight"] = jnp.full_like(poison["b4"]["out"]["weight"], jnp.nan)
    bad = state.replace(params=state.params | {"discriminator": poison})
    new, metrics = step(bad, batch_of(TINY), key)
    assert not leaves_differ(bad.params["generator"], new.params["generator"])
    assert not leaves_differ(bad.opt_state["generator"], new.opt_state["generator"])
    for name in ("generator", "discriminator", "r1", "in_a_row"):
        assert int(metrics[f"skipped/{name}"]) == 1
    good = step(state.replace(control=new.control), batch_of(TINY), key)[1]
    assert int(good["skipped/in_a_row"]) == 0 and int(good["skipped/generator"]) == 1


def test_accumulation_gives_the_gradient_of_the_whole_batch(augmented):
    """With one group for each micro-batch the discriminator sees the same groups either way."""
    _, state, step, key = augmented
    parts = jax.jit(cleftgan.build(dataclasses.replace(AUGMENTED, accumulate=2)).train_step)
    metrics = [
        step(state, batch_of(AUGMENTED), key)[1],
        parts(state, batch_of(AUGMENTED, penalty=False), key)[1],
    ]
    # The running magnitude moves once a micro-batch, and styles are normalised over the micro-batch:
    # equal up to that coupling.
    for name in ("loss/generator", "gradient/generator"):
        assert abs(metrics[0][name] - metrics[1][name]) < 2e-2 * abs(metrics[0][name]) + 1e-6


def test_randomness_belongs_to_the_example_not_to_its_place(augmented):
    """The same examples in another order give the same losses: z, flips and augmentation follow."""
    _, state, step, key = augmented
    state = state.replace(control=state.control | {"augment_p": jnp.float32(0.8)})
    batch = batch_of(AUGMENTED)
    turned = {name: value[::-1].copy() for name, value in batch.items()}
    a, b = (step(state, x, key)[1] for x in (batch, turned))
    for name in ("loss/generator", "loss/discriminator", "loss/r1"):
        assert abs(a[name] - b[name]) <= 1e-5 * abs(a[name]) + 1e-6


def test_bfloat16_conditional_and_rotation_variants_train(tiny):
    for changes in (
        {"precision": "bfloat16", "condition_on": "side"},
        {"variant": "r", "channels": 1},
    ):
        config = dataclasses.replace(TINY, **changes)
        system = cleftgan.build(config)
        batch = batch_of(config)
        if config.condition_on:
            batch["label"] = np.eye(3, dtype=np.float32)[np.arange(config.batch) % 3]
        state = jax.jit(system.init)(tiny[3])
        new, metrics = jax.jit(system.train_step)(state, batch, tiny[3])
        assert np.isfinite(metrics["loss/discriminator"]), changes
        assert int(metrics["skipped/in_a_row"]) == 0, changes
        assert leaves_differ(state.params["generator"], new.params["generator"])


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"resolution": 48}, "power of two"),
        ({"variant": "x"}, "config.variant"),
        ({"batch": 10}, "mbstd_group"),
        ({"precision": "float16"}, "bfloat16"),
    ],
)
def test_bad_settings_are_refused_by_name(changes, words):
    with pytest.raises(UserError, match=words):
        cleftgan.build(dataclasses.replace(TINY, **changes))


def test_base_that_does_not_fit_lists_every_name(tiny):
    system, state, _, _ = tiny
    tree = {
        "ema": jax.tree.map(np.asarray, state.ema),
        "params": jax.tree.map(np.asarray, state.params),
    }
    same = cleftgan.build(TINY, tree).start_from(state)
    assert not leaves_differ(state.params, same.params)
    larger = cleftgan.build(dataclasses.replace(TINY, resolution=32, num_layers=5), tree)
    with pytest.raises(UserError) as error:
        larger.start_from(jax.jit(larger.init)(jax.random.key(0)))
    assert "missing" in str(error.value) and "synthesis" in str(error.value)
