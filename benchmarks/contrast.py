"""What an attraction costs: loss and gradient of WeightSupMoCo beside those of plain MoCo.

    python -m benchmarks.contrast [--batch=256] [--dimension=128] [--queue=4096] [--rounds=100]

Plain MoCo is written as in its paper (arXiv 1911.05722, algorithm 1): the logits of the own key and of
the queue side by side, cross-entropy with class 0. Mean loss and gradient by the queries, compiled; all
take turns, in an order that is drawn anew for every round, and the least time of each is compared, to
which other work on the machine has added least. The bound on the ratio of WeightSupMoCo is 1.3.

One CPU core, shared with other work (100 rounds): WeightSupMoCo 1.12 times plain MoCo by the clock and
1.15 times by processor time (11.6 ms and 10.0 ms); in an earlier run of 60 rounds 1.13 and 1.19 times.
Rank-N-Contrast takes 124 ms of processor time.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxface import contrast

TEMPERATURE, SIGMA, BOUND = 0.07, 1.0, 1.3


def plain_moco(queries, own_keys, facts, queue):
    own = jnp.sum(queries * own_keys, 1, keepdims=True)
    others = jnp.matmul(queries, queue.features.T, precision="highest")
    logits = jnp.concatenate([own, others], 1) / TEMPERATURE
    first = jnp.zeros(len(queries), jnp.int32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, first)


def ours(name):
    def loss(*given):
        options = dict(temperature=TEMPERATURE, sigma=SIGMA, within_patient=False)
        return contrast.OBJECTIVES[name](*given, **options)

    return loss


def problem(batch: int, dimension: int, size: int):
    """Queries, own keys, their facts and a full queue: 39 patients, weights that are never the same."""
    rng = np.random.default_rng(0)
    unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    draw = lambda n: contrast.Facts(
        label=rng.integers(0, 2, n).astype(np.int32),
        weight=rng.normal(size=n).astype(np.float32),
        subject=rng.integers(0, 39, n).astype(np.int32),
        video=rng.integers(0, 392, n).astype(np.int32),
    )
    queries, own_keys, keys = (unit(rng.normal(size=(n, dimension))) for n in (batch, batch, size))
    queue = contrast.enqueue(contrast.empty(size, dimension), keys, draw(size))
    return jax.tree.map(jnp.asarray, (queries, own_keys, draw(batch), queue))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--queue", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=100)
    flags = parser.parse_args()
    given = problem(flags.batch, flags.dimension, flags.queue)
    losses = {"plain MoCo": plain_moco} | {name: ours(name) for name in contrast.OBJECTIVES}
    mean = lambda loss: lambda *given: loss(*given).mean()
    runs = {name: jax.jit(jax.value_and_grad(mean(loss))) for name, loss in losses.items()}
    values = {name: float(run(*given)[0]) for name, run in runs.items()}
    wall, cpu = ({name: [] for name in runs} for _ in range(2))
    rng = np.random.default_rng(1)
    for _ in range(flags.rounds):
        for name in rng.permutation(list(runs)):
            start = time.perf_counter(), time.process_time()
            jax.block_until_ready(runs[name](*given))
            wall[name].append(time.perf_counter() - start[0])
            cpu[name].append(time.process_time() - start[1])
    print(
        f"batch {flags.batch}, dimension {flags.dimension}, queue {flags.queue}, {flags.rounds} rounds "
        f"on {jax.devices()[0].device_kind}"
    )
    ratio = lambda times, name: min(times[name]) / min(times["plain MoCo"])
    for name in runs:
        print(
            f"{name:16} loss {values[name]:.4f}  {1e3 * min(wall[name]):7.2f} ms, "
            f"{ratio(wall, name):5.2f} x plain MoCo  (processor {1e3 * min(cpu[name]):7.2f} ms, "
            f"{ratio(cpu, name):5.2f} x)"
        )
    return int(ratio(wall, "weight_sup_moco") > BOUND)


if __name__ == "__main__":
    raise SystemExit(main())
