"""Models of single patients: trained in turn or together, judged on days that they have not seen."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clinic import Clinic

from experiments import edema as experiment
from jaxface import patients
from jaxface.errors import UserError
from jaxface.system import Figure, Record
from jaxface.systems import edema

pytestmark = pytest.mark.usefixtures("few_resamples")
CONFIG = dataclasses.replace(
    experiment.tiny, folds=2, side=16, width=2, frames=4, head_steps=2, steps=3, learning_rate=0.01
)


def pretrained(config, seed=3):
    """What --init_from gives: an encoder of this config."""
    blank = jnp.zeros([2, config.side, config.side, 3])
    variables = jax.jit(patients.encoder(config).init)(jax.random.key(seed), blank)
    return {
        "params": {"encoder": variables["params"]},
        "model_state": {"encoder": variables["batch_stats"]},
    }


def run(config, clinic, start=None, steps=None, state=None, compiled=None):
    """(system, state after so many steps, or after all)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patients, "Frames", lambda config: clinic)
        system = edema.build(config, start)
        if state is None:
            state = jax.jit(system.init)(jax.random.key(0))
            state = system.start_from(state) if start else state
        resident, step = system.resident(), compiled or jax.jit(system.train_step)
        first = int(state.step)
        source = system.batches(first, 0, 1)
        for _ in range(first, steps or system.num_steps()):
            batch = next(source)
            batch |= {name: array[batch["index"]] for name, array in resident.items()}
            state, _ = step(state, batch, jax.random.key(1))
    return system, jax.device_get(state)


def clinic_of(config, **change):
    return Clinic(config, **{"days": (3, 4, 2, 3), "strength": 12.0} | change)


@pytest.fixture(scope="module")
def done():
    return run(CONFIG, clinic_of(CONFIG), pretrained(CONFIG))


def test_all_models_answer_for_their_day(done):
    system, state = done
    clinic = clinic_of(CONFIG)
    jobs = patients.plan(clinic.targets, 2, ("all",), CONFIG.seed)
    told = np.isfinite(state.control["answers"]).all((1, 2))
    assert told.all() and len(told) == len(jobs)
    assert int(state.step) == len(jobs) * (2 + 3 + 1)
    results = system.evals["edema"](state, jax.random.key(0))
    wanted = {
        *("video_accuracy", "mae_kg", "video_accuracy_scratch", "mae_kg_scratch"),
        *("video_accuracy_frozen", "mae_kg_frozen", "interval_coverage", "share_answered"),
        *("mae_kg_baseline_training_mean", "video_accuracy_baseline_majority"),
        *("video_accuracy_baseline_color_histogram", "mae_kg_baseline_background"),
        *("mae_kg_baseline_class_mean_uses_label", "mae_kg_gain_scratch"),
    }
    assert wanted <= results.keys() and isinstance(results["ablation"], Figure)
    assert results["mae_kg"].n == len(clinic.targets)
    assert isinstance(results["abstention"], Figure) and isinstance(results["patients"], Record)
    assert any(name.startswith("days_P") for name in results)


def test_the_day_left_out_changes_no_answer_but_by_its_pictures(done):
    """Weights and labels of the day left out reach nothing that its models say."""
    _, state = done
    clinic = clinic_of(CONFIG)
    jobs = patients.plan(clinic.targets, 2, ("all",), CONFIG.seed)
    number = next(i for i, job in enumerate(jobs) if job.test)
    job = jobs[number]
    out = patients.rows_of(clinic.table, job.subject, (job.test,))
    weight, session = clinic.table.weight_kg.copy(), clinic.table.session.copy()
    weight[out] += 5
    session[out] = np.where(session[out] == "pre", "post", "pre")
    clinic.table = clinic.table._replace(weight_kg=weight, session=session)
    _, other = run(CONFIG, clinic, pretrained(CONFIG), steps=(number + 1) * (2 + 3 + 1))
    np.testing.assert_array_equal(
        other.control["answers"][number], state.control["answers"][number]
    )


def test_models_learn_what_their_days_show():
    """A plain sign of fluid is found on days not seen; without any there is nothing to find."""
    config = dataclasses.replace(CONFIG, head_steps=10, steps=30, width=4, learning_rate=0.003)
    accuracy = {}
    for strength in (30.0, 0.0):
        system, state = run(config, clinic_of(config, strength=strength))
        results = system.evals["edema"](state, jax.random.key(0))
        accuracy[strength] = results["video_accuracy"].value
        assert "video_accuracy_scratch" not in results  # nothing to compare with
    assert accuracy[30.0] >= 0.9 and accuracy[0.0] <= 0.75


def test_together_is_as_one_after_the_other(done):
    _, one = done
    config = dataclasses.replace(CONFIG, together=3)
    _, three = run(config, clinic_of(config), pretrained(config))
    np.testing.assert_allclose(
        three.control["answers"], one.control["answers"], rtol=1e-3, atol=1e-3
    )
    for a, b in zip(
        jax.tree.leaves(three.params["patients"]), jax.tree.leaves(one.params["patients"])
    ):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


def test_a_run_cut_anywhere_ends_the_same(done):
    system, whole = done
    compiled = jax.jit(system.train_step)
    clinic, start = clinic_of(CONFIG), pretrained(CONFIG)
    straight = run(CONFIG, clinic, start, steps=18, compiled=compiled)[1]
    for cut in (2, 9, 11, 12):
        _, part = run(CONFIG, clinic, start, steps=cut, compiled=compiled)
        again = run(CONFIG, clinic, start, steps=18, state=part, compiled=compiled)[1]
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(straight)):
            np.testing.assert_array_equal(a, b)


def test_kept_models_have_seen_all_days_and_differ(done):
    _, state = done
    kernels = state.params["patients"]["encoder"]["conv1"]["kernel"]
    started = state.params["start"]["encoder"]["conv1"]["kernel"]
    clinic = clinic_of(CONFIG)
    assert len(kernels) == len(clinic.targets)
    for one in kernels:
        assert (
            0 < np.abs(one - started[0]).max() < 0.1
        )  # of the pre-trained network, moved a little
    assert len(kernels) < 2 or np.abs(kernels[0] - kernels[1]).max() > 0
    np.testing.assert_array_equal(
        started[0], pretrained(CONFIG)["params"]["encoder"]["conv1"]["kernel"]
    )


def test_heads_move_alone_first():
    clinic = clinic_of(CONFIG)
    _, two = run(CONFIG, clinic, pretrained(CONFIG), steps=2)
    _, three = run(CONFIG, clinic, pretrained(CONFIG), steps=3)
    begun = two.params["start"]["encoder"]["conv1"]["kernel"][0]
    np.testing.assert_array_equal(two.params["now"]["encoder"]["conv1"]["kernel"][0], begun)
    assert np.abs(two.params["now"]["heads"]["Dense_0"]["kernel"]).max() > 0
    assert np.abs(three.params["now"]["encoder"]["conv1"]["kernel"][0] - begun).max() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgets": "1,2"}, "budgets='1,2': add all"),
        ({"budgets": "0,all"}, "numbers of days and the word all"),
        ({"steps": 0}, "steps=0: use 1 or more"),
        ({"together": 0}, "together=0"),
    ],
)
def test_settings_that_cannot_train(change, message):
    with pytest.raises(UserError, match=message):
        edema.build(dataclasses.replace(CONFIG, **change))


def test_starting_from_another_kind_of_network():
    with pytest.raises(UserError, match="no encoder in it: name a run of edema_pretrain"):
        run(CONFIG, clinic_of(CONFIG), {"params": {"generator": {}}}, steps=1)


def test_transferred_heads_begin_as_the_common_rule():
    """Slopes of the rule that holds within the other patients, a constant of the patient's own days."""
    config = dataclasses.replace(CONFIG, head_rate=1e-9)
    clinic, begun = clinic_of(config), pretrained(config)
    variables = {
        "params": begun["params"]["encoder"],
        "batch_stats": begun["model_state"]["encoder"],
    }
    network = jax.jit(
        lambda x: patients.encoder(config).apply(variables, edema.resnet.normalize(x))
    )
    table, rows = clinic.table, clinic.learned_from
    spread = patients.within(table.weight_kg[rows], table.subject[rows], table.video[rows])[1]
    rule = edema.edema_baselines.common_rule(
        patients.embedded(network, clinic.pixels(rows)),
        table.session[rows] == "pre",
        table.weight_kg[rows],
        table.subject[rows],
    ) / [1, spread]
    jobs = patients.plan(clinic.targets, 2, ("all",), config.seed)
    features = patients.embedded(network, clinic.pixels(patients.target_rows(clinic)))
    constants = patients.constants(clinic, jobs, features, rule)
    assert jobs[0].method == 0 and jobs[1].method == 1 and np.abs(constants[0]).min() > 1e-3
    _, state = run(config, clinic, begun, steps=1)
    heads = state.params["now"]["heads"]["Dense_0"]
    np.testing.assert_allclose(heads["kernel"][0], rule, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(heads["bias"][0], constants[0], rtol=1e-4, atol=1e-5)
    _, state = run(config, clinic, begun, steps=config.num_steps + 1)
    scratch = jax.tree.leaves(state.params["now"]["heads"])
    assert max(np.abs(x).max() for x in scratch) < 1e-6
