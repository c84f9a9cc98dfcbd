"""Pre-training of edema: one step as the method says, and what it may not see."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clinic import Clinic
from jax.flatten_util import ravel_pytree

from experiments import edema_pretrain as experiment
from jaxface import contrast, patients, start
from jaxface.errors import UserError
from jaxface.models import resnet
from jaxface.ops.handheld import vary_frames
from jaxface.systems import contrastive

pytestmark = pytest.mark.usefixtures("few_resamples")
CONFIG = dataclasses.replace(experiment.tiny, folds=2, queue=20, momentum=0.9, learning_rate=0.1)


@pytest.fixture(autouse=True)
def clinic(monkeypatch):
    monkeypatch.setattr(patients, "Frames", lambda config: Clinic(config, strength=20.0))


def looked_up(batch, resident):
    """Levels as floats, so that one compiled step also takes those that are no numbers."""
    rows = {name: array[batch["index"]].astype(np.float32) for name, array in resident.items()}
    return batch | rows


@pytest.fixture(scope="module")
def ran():
    """(system, states before and after three steps, the batches seen)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patients, "Frames", lambda config: Clinic(config, strength=20.0))
        system = contrastive.build(CONFIG)
        states = [jax.jit(system.init)(jax.random.key(0))]
        step, source, resident = (
            jax.jit(system.train_step),
            system.batches(0, 0, 1),
            system.resident(),
        )
        seen = []
        for _ in range(3):
            seen.append(looked_up(next(source), resident))
            state, metrics = step(states[-1], seen[-1], jax.random.key(1))
            states.append(jax.device_get(state))
    return system, states, seen, metrics


def test_a_step_is_momentum_contrast_plainly_written(ran):
    _, states, seen, _ = ran
    before, after, batch = states[2], states[3], seen[2]
    E, P = patients.encoder(CONFIG), contrastive.Projector(CONFIG.hidden, CONFIG.features)
    key = jax.random.fold_in(jax.random.key(1), 2)
    both = [jax.random.split(jax.random.fold_in(key, e)) for e in batch["example"]]
    vary = jax.jit(lambda images, keys: vary_frames(images.astype(jnp.float32) / 127.5 - 1, keys))
    views = [vary(batch["image"][:, k], jnp.stack([b[k] for b in both])) for k in (0, 1)]

    def embed(params, stats, x):
        y, moved = E.apply(
            {"params": params["encoder"], "batch_stats": stats["encoder"]},
            resnet.normalize(x),
            train=True,
            mutable=["batch_stats"],
        )
        return P.apply({"params": params["projector"]}, y), moved["batch_stats"]

    keys, slow_stats = jax.jit(embed)(before.ema["params"], before.ema["stats"], views[1])
    queue = before.control["queue"]
    assert int(queue.filled) == 16  # two batches of eight
    label, weight = np.asarray(queue.facts.label)[:16], np.asarray(queue.facts.weight)[:16]
    a = (batch["label"][:, :1] == label) * np.exp(-((batch["weight"][:, :1] - weight) ** 2) / 2)

    def loss_fn(params):
        queries, _ = embed(params, before.model_state, views[0])
        own = jnp.sum(queries * keys, -1, keepdims=True)
        logits = jnp.concatenate([own, queries @ queue.features[:16].T], 1) / CONFIG.temperature
        share = np.concatenate([np.ones([8, 1]), a], 1)
        share /= share.sum(1, keepdims=True)
        return -jnp.mean(jnp.sum(share * jax.nn.log_softmax(logits), 1))

    grads = jax.jit(jax.grad(loss_fn))(before.params)
    rate = CONFIG.learning_rate * 0.5 * (1 + np.cos(np.pi * 2 / CONFIG.num_steps))
    velocity = ravel_pytree(before.params)[1](before.opt_state[1][0].trace)
    for name, tree in before.params.items():
        moved = jax.tree.map(
            lambda w, g, v: w - rate * (g + CONFIG.weight_decay * w + 0.9 * v),
            tree,
            grads[name],
            velocity[name],
        )
        for one, two in zip(jax.tree.leaves(moved), jax.tree.leaves(after.params[name])):
            np.testing.assert_allclose(one, two, rtol=1e-3, atol=2e-5)
    slow = jax.tree.map(lambda s, f: 0.9 * s + 0.1 * f, before.ema["params"], after.params)
    for one, two in zip(jax.tree.leaves(slow), jax.tree.leaves(after.ema["params"])):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    for one, two in zip(jax.tree.leaves(slow_stats), jax.tree.leaves(after.ema["stats"])):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    # 16 keys, 8 more: 20 slots, the first four are written again.
    stored = np.asarray(after.control["queue"].features)
    np.testing.assert_allclose(stored[16:], keys[:4], atol=1e-4)
    np.testing.assert_allclose(stored[:4], keys[4:], atol=1e-4)
    np.testing.assert_array_equal(after.control["queue"].facts.label[:4], batch["label"][4:, 1])


def test_targets_are_never_seen(ran):
    system, _, seen, _ = ran
    frames = Clinic(CONFIG, strength=20.0)
    rows = np.concatenate([batch["index"].ravel() for batch in seen])
    assert frames.is_target.any() and not frames.is_target[rows].any()


def test_numbers_of_a_step(ran):
    _, _, _, metrics = ran
    wanted = {"loss/contrast", "similarity", "gradient/encoder", "rate"}
    assert wanted <= metrics.keys() and all(np.isfinite(v) for v in metrics.values())
    assert -1 <= metrics["similarity"] <= 1 and metrics["skipped/encoder"] == 0


def test_a_step_that_is_not_finite_changes_nothing_but_the_count(ran):
    system, states, seen, _ = ran
    bad = seen[0] | {"image": seen[0]["image"] * np.float32(np.nan)}
    after, metrics = jax.jit(system.train_step)(states[1], bad, jax.random.key(1))
    assert metrics["skipped/encoder"] == 1 and int(after.step) == 2
    for name in ("params", "opt_state", "model_state", "ema"):
        for one, two in zip(
            jax.tree.leaves(getattr(states[1], name)), jax.tree.leaves(getattr(after, name))
        ):
            np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(
        states[1].control["queue"].features, after.control["queue"].features
    )


def test_judged_and_drawn(ran):
    system, states, _, _ = ran
    results = system.evals["probe"](states[-1], jax.random.key(0))
    assert set(results) == {"video_accuracy_frozen", "mae_kg_frozen"}
    assert results["mae_kg_frozen"].n == len(Clinic(CONFIG).targets)
    figure = system.sample(states[-1], jax.random.key(0), 16)
    assert figure.photographs and figure.images.shape[1:] == (CONFIG.side, CONFIG.side, 3)
    assert system.preview().images.dtype == np.uint8


def test_another_run_starts_from_it(ran):
    system, states, _, _ = ran
    tree = {"params": states[-1].params, "model_state": states[-1].model_state}
    again = contrastive.build(CONFIG, tree)
    begun = again.start_from(jax.jit(again.init)(jax.random.key(5)))
    for name in ("encoder", "projector"):
        for place in (begun.params, begun.ema["params"]):
            for one, two in zip(
                jax.tree.leaves(place[name]), jax.tree.leaves(tree["params"][name])
            ):
                np.testing.assert_array_equal(one, two)
    with pytest.raises(UserError, match="no encoder"):
        contrastive.build(CONFIG, {"params": {"generator": {}}}).start_from(begun)
    assert start._has_networks(tree)


@pytest.mark.parametrize("name", contrast.OBJECTIVES)
def test_every_objective_trains(name):
    system = contrastive.build(dataclasses.replace(CONFIG, objective=name, side=16, width=2))
    shapes = jax.eval_shape(system.init, jax.random.key(0))
    batch = looked_up(next(system.batches(0, 0, 1)), system.resident())
    after, metrics = jax.eval_shape(system.train_step, shapes, batch, jax.random.key(0))
    assert jax.tree.structure(after) == jax.tree.structure(shapes)
    assert metrics["loss/contrast"].shape == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "simclr"}, "objective='simclr': use one of weight_sup_moco"),
        ({"sigma": 0.0}, "sigma=0.0: use a number over 0"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"queue": 4}, "queue=4 is smaller than config.batch=8"),
    ],
)
def test_settings_that_cannot_train(change, message):
    with pytest.raises(UserError, match=message):
        contrastive.build(dataclasses.replace(CONFIG, **change))


def test_the_paper_scale_can_be_built(monkeypatch):
    monkeypatch.undo()  # no patients: nothing is read to be built
    shapes = jax.eval_shape(contrastive.build(experiment.paper).init, jax.random.key(0))
    assert shapes.control["queue"].features.shape == (4096, 128)
    assert (
        sum(np.prod(x.shape) for x in jax.tree.leaves(shapes.params["encoder"])) > 11e6
    )  # ResNet-18
