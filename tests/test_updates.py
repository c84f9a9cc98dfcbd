"""Steps that numbers which are not finite do not spoil, and how many there were."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxface.updates import count_skips, no_skips, update

PARAMS = {"a": jnp.array([1.0, 2.0]), "b": {"c": jnp.array(3.0)}}
GRADS = {"a": jnp.array([0.5, -1.0]), "b": {"c": jnp.array(2.0)}}


def run(tx, loss, grads, state=None):
    state = tx.init(PARAMS) if state is None else state
    return jax.jit(lambda *args: update(tx, *args))(jnp.asarray(loss), grads, PARAMS, state)


def test_a_finite_step_is_the_optimizers():
    params, state, skipped = run(optax.sgd(0.1, momentum=0.9), 1.0, GRADS)
    assert not skipped and skipped.shape == () and skipped.dtype == bool
    np.testing.assert_allclose(params["a"], [0.95, 2.1], rtol=1e-6)
    np.testing.assert_allclose(params["b"]["c"], 2.8, rtol=1e-6)
    trace = jax.tree.leaves(state)
    for one, two in zip(trace, jax.tree.leaves(GRADS), strict=True):
        np.testing.assert_allclose(one, two)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["loss", "a", "c"])
def test_a_step_that_is_not_finite_changes_nothing(bad, where):
    tx = optax.adam(0.1)
    _, state, _ = run(tx, 1.0, GRADS)
    grads = {
        "a": GRADS["a"].at[1].set(bad) if where == "a" else GRADS["a"],
        "b": {"c": jnp.asarray(bad if where == "c" else 2.0)},
    }
    params, after, skipped = run(tx, bad if where == "loss" else 1.0, grads, state)
    assert skipped
    same = lambda one, two: np.testing.assert_array_equal(one, two)
    jax.tree.map(same, params, PARAMS)
    jax.tree.map(same, after, state)  # with moments and count: the next step is as if this was none
    again, _, skipped = run(tx, 1.0, GRADS, after)
    assert not skipped and np.abs(again["a"] - PARAMS["a"]).min() > 0.01


def test_counts_of_skips():
    counts = no_skips("G", "D")
    assert counts.keys() == {"G", "D", "in_a_row"}
    seen = []
    for g, d in [(True, False), (True, True), (False, False), (False, True)]:
        counts = jax.jit(count_skips)(counts, {"G": jnp.array(g), "D": jnp.array(d)})
        seen.append([int(counts[name]) for name in ("G", "D", "in_a_row")])
    assert seen == [[1, 0, 1], [2, 1, 2], [2, 1, 0], [2, 2, 1]]
    assert all(value.dtype == jnp.int32 and value.shape == () for value in counts.values())
