"""What the tests of several systems' training steps share."""

import jax
import numpy as np

from jaxface.ops.warp import window_for


def compiled(system):
    """(system, a first state in NumPy, its training step, the run's key)

    What a test does to leaves of the state is then not compiled, shape by shape.
    """
    key = jax.random.key(0)
    state = jax.device_get(jax.jit(system.init)(key))
    return system, state, jax.jit(system.train_step), key


def leaves_differ(a, b) -> list[str]:
    """Names of the leaves that are not equal, bit for bit."""
    return [
        jax.tree_util.keystr(path)
        for (path, x), y in zip(
            jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
        )
        if not np.array_equal(np.asarray(x), np.asarray(y))
    ]


def leaf_names(tree) -> list[str]:
    """Of all leaves, as `leaves_differ` names them."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def photographs(config, seed: int = 0, step: int = 0, **more: int) -> dict[str, np.ndarray]:
    """A batch of random pairs; `more` has channels of further windows by name."""
    rng = np.random.default_rng(seed)
    side = window_for(config.patch)
    draw = lambda channels: rng.integers(0, 256, (config.batch, side, side, channels))
    return {
        "color": draw(3).astype(np.float32),  # levels; a float can also be no number
        "uv": draw(1).astype(np.uint8),
        **{name: draw(channels).astype(np.uint8) for name, channels in more.items()},
        "example": np.arange(step * config.batch, (step + 1) * config.batch, dtype=np.int32),
        "face_width": np.full(config.batch, 150, np.float32),
        "spot_threshold": np.full(config.batch, 4, np.float32),
    }
