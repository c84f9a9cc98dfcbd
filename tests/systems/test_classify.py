"""Classifiers of headshots: heads on frozen features, whole networks, and what they are judged by."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from volunteers import Volunteers

from jaxface import backbones, headshots
from jaxface.errors import UserError
from jaxface.systems import classify

CONFIG = classify.Config(
    side=32,
    batch=8,
    folds=3,
    validation=0.3,
    backbone="resnet10",
    width=2,
    layer="layer1_0",
    grid=4,
    head="linear",
    head_steps=6,
    steps=3,
    together=3,
    head_rate=0.05,
    methods="transfer_augmented",
    scratch_width=2,
)


def run(config, photos, steps=None, state=None, compiled=None, start=None):
    """(system, state after so many steps, or after all)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headshots, "Photos", lambda config: photos)
        system = classify.build(config, start)
        state = jax.jit(system.init)(jax.random.key(0)) if state is None else state
        resident, step = system.resident(), compiled or jax.jit(system.train_step)
        first = int(state.step)
        source = system.batches(first, 0, 1)
        for _ in range(first, steps or system.num_steps()):
            batch = next(source)
            images = {"image": resident.get("image"), "features": resident.get("features")}
            name = "features" if "head" in batch else "image"
            batch[name] = images[name][batch["index"]]
            state, _ = step(state, batch, jax.random.key(1))
    return system, jax.device_get(state)


def volunteers(config=CONFIG, **how):
    return Volunteers(config, **{"people": 12, "each": 2} | how)


@pytest.fixture(scope="module")
def done():
    photos = volunteers()
    return photos, *run(CONFIG, photos)


def test_every_job_answers_for_its_photographs(done):
    photos, system, state = done
    assert np.isfinite(state.control["answers"]).all()
    assert len(state.control["answers"]) == len(photos.plan) == 3 + 3 + 12 + 1
    assert int(state.step) == system.num_steps() == -(-len(photos.plan) // 3) * 7


def test_heads_learn_what_people_not_seen_show(done):
    photos, _, state = done
    config = dataclasses.replace(CONFIG, head_steps=40, beside="shuffled")
    found = {}
    for strength in (40.0, 0.0):
        crowd = volunteers(config, people=20, strength=strength)
        _, state = run(config, crowd)
        right = {False: [], True: []}
        for number, job in enumerate(crowd.plan):
            _, validation, test = crowd.split(job)
            logit = state.control["answers"][number][len(validation) :][: len(test)]
            right[job.shuffled] += ((logit > 0) == (crowd.labels(job)[test] == 1)).tolist()
        found[strength] = np.mean(right[False]), np.mean(right[True])
    assert found[40.0][0] >= 0.9 and found[0.0][0] <= 0.75
    assert 0.2 < found[40.0][1] < 0.8


def test_labels_of_those_judged_change_no_answer(done):
    photos, _, state = done
    number = 1
    learn, validation, test = photos.split(photos.plan[number])
    other = volunteers()
    other.table = other.table._replace(label=other.table.label.copy())
    other.__dict__["plan"] = photos.plan
    other.split = photos.split  # the folds as they were: they are dealt by labels
    other.table.label[np.concatenate([validation, test])] ^= 1
    _, changed = run(CONFIG, other, steps=7)
    np.testing.assert_array_equal(
        changed.control["answers"][number], state.control["answers"][number]
    )
    other.table.label[learn] ^= 1
    _, changed = run(CONFIG, other, steps=7)
    assert (
        np.abs(changed.control["answers"][number] - state.control["answers"][number]).max() > 0.01
    )


def test_together_is_as_one_after_the_other(done):
    photos, _, state = done
    config = dataclasses.replace(CONFIG, together=1)
    _, one = run(config, volunteers(config), steps=2 * 7)
    np.testing.assert_allclose(
        one.control["answers"][:2], state.control["answers"][:2], rtol=1e-3, atol=1e-3
    )


def test_a_run_cut_anywhere_ends_the_same(done):
    config = dataclasses.replace(CONFIG, methods="transfer,scratch", beside="", ema=0.9)
    photos = volunteers(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headshots, "Photos", lambda config: photos)
        compiled = jax.jit(classify.build(config).train_step)
    system, whole = run(config, photos, compiled=compiled)
    heads = 7 * 2
    assert system.num_steps() == heads + 3 * 4
    for cut in (3, heads + 2):
        _, part = run(config, photos, steps=cut, compiled=compiled)
        again = run(config, photos, state=part, compiled=compiled)[1]
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(whole)):
            np.testing.assert_array_equal(a, b)


def test_finetune_moves_what_is_free_and_nothing_else():
    config = dataclasses.replace(
        CONFIG, methods="finetune", beside="", layer="", freeze="layer4_0", soft_targets=True
    )
    photos = volunteers(config)
    _, state = run(config, photos, steps=3)
    start = state.params["start"]["params"]
    now = jax.tree.map(lambda x: x[0], state.params["now"]["finetune"])["body"]
    network = backbones.residual(10, 2, jax.random.key(0))
    flags = classify.free(config, network, {"body": now})["body"]
    moved = jax.tree.map(lambda a, b: bool(np.abs(a - b).max() > 0), start, now)
    assert moved == flags
    stats = jax.tree.map(lambda x: x[0], state.model_state["now"]["finetune"])["body"]
    begun = state.params["start"]["batch_stats"]
    assert np.abs(stats["bn1"]["mean"] - begun["bn1"]["mean"]).max() > 0


def test_the_model_that_is_kept_has_learned_from_everybody(done):
    photos, _, state = done
    last = len(photos.plan) - 1
    learn, validation, test = photos.split(photos.plan[last])
    assert photos.plan[last].fold == -1 and not len(test)
    assert len(learn) + len(validation) == len(photos.table.id)
    column = last % CONFIG.together
    for kept, now in zip(
        jax.tree.leaves(state.params["kept"]), jax.tree.leaves(state.params["now"]["head"])
    ):
        np.testing.assert_array_equal(kept, now[column])


def test_a_head_without_one_person_is_the_head_of_those_left():
    """Withdrawn, or never there: the same bits, for features depend on nobody else."""
    config = dataclasses.replace(CONFIG, beside="", methods="transfer", together=1)

    def retrained(photos):
        keep = photos.table.subject != "V05"
        photos.table = headshots.Table(*(column[keep] for column in photos.table))
        photos.images = photos.images[keep]
        return run(config, photos)[1]

    never = volunteers(config)
    other = volunteers(config)
    other.images[other.table.subject == "V05"] = 0
    for a, b in zip(jax.tree.leaves(retrained(never)), jax.tree.leaves(retrained(other))):
        np.testing.assert_array_equal(a, b)


def test_maps_of_a_layer_keep_their_places():
    """Features of a layer are its maps, cell by cell."""
    network = backbones.load(dataclasses.replace(CONFIG, layer="layer2_0", grid=2), None)
    images = jax.random.uniform(jax.random.key(0), [2, 32, 32, 3], minval=-1)
    found, _ = network(network.variables, images)
    seen = []
    network.watched(network.variables, images, lambda maps: seen.append(maps) or maps)
    assert seen[0].shape == (2, 4, 4, 4)
    for row in range(2):
        for column in range(2):
            cell = np.asarray(seen[0])[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            at = (2 * row + column) * 4
            np.testing.assert_allclose(found[:, at : at + 4], cell.mean((1, 2)), rtol=1e-5)
    with pytest.raises(
        UserError, match="grid=3 does not divide the 4 x 4 maps of layer 'layer2_0'"
    ):
        classify.build(dataclasses.replace(CONFIG, layer="layer2_0", grid=3))
    with pytest.raises(UserError, match="layer='layer9' is no layer of resnet10. Did you mean"):
        classify.build(dataclasses.replace(CONFIG, layer="layer9"))


def test_resnet_of_another_run_is_taken():
    network = backbones.residual(10, 2, jax.random.key(9))
    start = {
        "params": {"encoder": network.variables["params"]},
        "model_state": {"encoder": network.variables["batch_stats"]},
    }
    taken = backbones.load(dataclasses.replace(CONFIG, layer=""), start)
    images = jnp.linspace(-1, 1, 2 * 32 * 32 * 3).reshape(2, 32, 32, 3)
    np.testing.assert_array_equal(
        taken(taken.variables, images)[0], network(network.variables, images)[0]
    )
    with pytest.raises(UserError, match="'expression' is none: use --config.backbone=resnet18"):
        backbones.load(dataclasses.replace(CONFIG, backbone="expression"), start)
