"""One optimizer step that a number which is not finite cannot spoil."""

import jax
import jax.numpy as jnp
import optax

from jaxface.ops import channels

# What is done to every leaf is under jit, which traces it once for all leaves of a shape.


@jax.jit
def _squared(x):
    return channels.total(jnp.square(x)).sum()


@jax.jit
def _moved(x, change, finite):
    return jnp.where(finite, optax.apply_updates(x, change), x)


@jax.jit
def _unless(skipped, new, old):
    return jnp.where(skipped, old, new)


def norm(tree) -> jax.Array:
    """Euclidean norm of all numbers of a tree."""
    return jnp.sqrt(sum(_squared(x) for x in jax.tree.leaves(tree)))


def update(tx: optax.GradientTransformation, loss, grads, params, opt_state):
    """One step of an optimizer, or none where the loss or a gradient is not finite.

    Returns:
      (params, opt_state, whether the step was skipped: bool scalar).
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(norm(grads))
    updates, new_opt_state = tx.update(grads, opt_state, params)
    params = jax.tree.map(lambda x, change: _moved(x, change, finite), params, updates)
    return params, unless(~finite, new_opt_state, opt_state), ~finite


def no_skips(*networks: str) -> dict[str, jax.Array]:
    """Counters of skipped updates, one a network, and of steps in a row that skipped one."""
    return {name: jnp.zeros([], jnp.int32) for name in (*networks, "in_a_row")}


def count_skips(counts: dict, now: dict) -> dict:
    """Adds what was skipped in this step, {network: bool}, to the counters of `no_skips`."""
    counts = counts | {name: counts[name] + skipped for name, skipped in now.items()}
    some = jnp.stack(list(now.values())).any()
    return counts | {"in_a_row": jnp.where(some, counts["in_a_row"] + 1, 0)}


def unless(skipped, new, old):
    """`new` trees, or `old` ones where an update was skipped: what a bad batch made is not kept."""
    return jax.tree.map(lambda n, o: _unless(skipped, n, o), new, old)
