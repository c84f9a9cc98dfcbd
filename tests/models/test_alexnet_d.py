"""The AlexNet-like discriminator: sizes, what it sees, and dropout that no split of a batch changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.models.alexnet_d import AlexNetD

SIDE = 63


def shapes(net, side, channels=4):
    return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros([2, side, side, channels]))


@functools.cache
def tiny(norm="instance"):
    net = AlexNetD(ndf=2, norm=norm, hidden=64)
    x = jax.random.normal(jax.random.key(1), [4, SIDE, SIDE, 2])
    variables = jax.jit(net.init)(jax.random.key(0), x)
    # Kernels of deviation 0.02 leave so little of a pixel that float32 loses it.
    params = jax.tree.map(lambda p: p * 8 if p.ndim > 1 else p, variables["params"])
    run = jax.jit(
        lambda x, key, example, train: net.apply(
            variables | {"params": params},
            x,
            train,
            example=example,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )[0],
        static_argnames="train",
    )
    return run, x


@pytest.mark.parametrize("side, last", [(256, 7), (128, 3), (63, 1)])
def test_one_score_a_patch(side, last):
    net = AlexNetD(ndf=8)
    variables = shapes(net, side, 2)
    assert variables["params"]["hidden"]["kernel"].shape == (last * last * 4 * 8, 1024)
    x = jnp.zeros([2, side, side, 2])
    assert jax.eval_shape(net.apply, variables, x).shape == (2, 1)


def test_sizes_are_those_of_alexnet():
    """Kernels of the published feature stack: 2 468 544 with three channels (arXiv 1404.5997)."""
    count = lambda tree: sum(np.prod(x.shape, dtype=int) for x in jax.tree.leaves(tree))
    params = shapes(AlexNetD(), 256, 3)["params"]
    kernels = {
        k: v["kernel"] for k, v in params.items() if k.startswith("conv") and "norm" not in k
    }
    assert count(kernels) == 2_468_544 and kernels["conv1"].shape == (11, 11, 3, 64)
    norms = 2 * (192 + 384 + 256 + 256)
    head = 7 * 7 * 256 * 1024 + 1024 + 1024 + 1
    assert count(params) == 2_468_544 + 64 + norms + head


def test_instances_have_no_statistics():
    variables = shapes(AlexNetD(norm="instance", ndf=4), SIDE)
    assert set(variables) == {"params"} and "bias" in variables["params"]["conv3"]
    variables = shapes(AlexNetD(norm="batch", ndf=4), SIDE)
    assert set(variables["batch_stats"]) == {f"conv{n}_norm" for n in range(2, 6)}
    assert "bias" not in variables["params"]["conv3"]


def test_a_score_sees_all_of_its_patch_and_no_other():
    run, x = tiny()
    score = lambda x: np.asarray(run(x, jax.random.key(0), None, False))[:, 0]
    before = score(x)
    assert len(set(before)) == 4
    for corner in ((slice(0, 6), slice(0, 6)), (slice(-6, None), slice(-6, None))):
        for channel in (0, 1):
            after = score(x.at[(1, *corner, channel)].set(9.0))
            assert abs(after[1] - before[1]) > 1e-3 * np.abs(before).max()
            np.testing.assert_allclose(after[[0, 2, 3]], before[[0, 2, 3]], rtol=1e-4)


def test_dropout_goes_by_the_number_of_the_example():
    run, x = tiny()
    key = jax.random.key(5)
    whole = run(x, key, jnp.arange(10, 14), True)
    parts = [run(x[i : i + 2], key, jnp.arange(10 + i, 12 + i), True) for i in (0, 2)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4)
    same = jnp.repeat(x[:1], 4, 0)
    scores = np.asarray(run(same, key, jnp.arange(4), True))[:, 0]
    assert len(set(scores)) == 4  # each drops its own
    np.testing.assert_allclose(run(same, key, None, True)[:, 0], scores, rtol=1e-4)
    assert not np.allclose(run(same, jax.random.key(6), None, True)[:, 0], scores)
    still = run(same, key, jnp.arange(4), False)
    np.testing.assert_allclose(still, np.broadcast_to(still[:1], (4, 1)), rtol=1e-5)


def test_batch_statistics_are_taken_while_training_only():
    run, x = tiny("batch")
    key, example = jax.random.key(5), jnp.arange(4)
    alone = [run(x[i : i + 1], key, example[i : i + 1], False) for i in range(4)]
    np.testing.assert_allclose(np.concatenate(alone), run(x, key, example, False), rtol=1e-4)
    half, whole = run(x[:2], key, example[:2], True), run(x, key, example, True)
    assert not np.allclose(half, whole[:2], rtol=1e-2)


def test_jit_equals_eager_and_low_precision_scores_in_float32():
    net = AlexNetD(ndf=2, norm="batch", hidden=8)
    x = jax.random.normal(jax.random.key(1), [2, SIDE, SIDE, 2])
    variables = jax.jit(net.init)(jax.random.key(0), x)
    eager = net.apply(variables, x)
    np.testing.assert_allclose(jax.jit(net.apply)(variables, x), eager, rtol=1e-4, atol=1e-7)
    low = AlexNetD(ndf=2, norm="batch", hidden=8, dtype=jnp.bfloat16)
    scores = jax.jit(low.apply)(variables, x)
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, eager, atol=0.05 * np.abs(eager).max() + 1e-6)
