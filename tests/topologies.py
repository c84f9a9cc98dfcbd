"""Runs the same training steps on one kind of set-up and writes all numbers; used by test_parallel.py.

python tests/topologies.py OUT.npz DEVICES SYSTEM:MODE,...                     (one process)
python tests/topologies.py OUT.npz DEVICES SYSTEM:MODE,... HOST:PORT PROCESS   (one of two)

SYSTEM is one of SYSTEMS below, MODE jit or pmap. All in float64, so that what remains of a difference
is a mistake and not the order of a sum.
"""

import dataclasses
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
out, devices, runs, *joining = sys.argv[1:]
os.environ["JAX_ENABLE_X64"] = "1"
flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"

from jaxface.preemption import Preemption  # noqa: E402

BATCH, STEPS = 8, 2


def conv_net():
    """A step that couples examples as real ones do: normalisation over the whole batch."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jaxface import parallel
    from jaxface.system import TrainState

    class Net(nn.Module):
        axis: str | None

        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, (3, 3), use_bias=False, param_dtype=jnp.float64)(x)
            everyone = parallel.gather(x, self.axis)
            mean, var = everyone.mean((0, 1, 2)), everyone.var((0, 1, 2))
            running = self.variable("stats", "mean", jnp.zeros, mean.shape, jnp.float64)
            running.value = 0.9 * running.value + 0.1 * mean
            x = nn.relu((x - mean) / jnp.sqrt(var + 1e-5))
            return nn.Dense(1, param_dtype=jnp.float64)(x.mean((1, 2)))[:, 0]

    tx = optax.sgd(0.1, momentum=0.9)  # after the first step the momentum is the gradient

    def init(key):
        variables = Net(None).init(key, jnp.zeros([2, 8, 8, 3]))
        params = variables["params"]
        stats = variables["stats"]
        return TrainState(jnp.int32(0), params, tx.init(params), stats, {}, {})

    def train_step(state, batch, key, *, axis=None):
        key = jax.random.fold_in(key, state.step)

        def noisy(example, image):
            return image + jax.random.normal(jax.random.fold_in(key, example), image.shape)

        def loss_fn(params):
            x = jax.vmap(noisy)(batch["example"], batch["image"] / 255)
            variables = {"params": params, "stats": state.model_state}
            y, changed = Net(axis).apply(variables, x, mutable=["stats"])
            return ((y - batch["target"]) ** 2).mean(), changed["stats"]

        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        loss, grads = parallel.pmean((loss, grads), axis)
        updates, opt_state = tx.update(grads, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        state = state.replace(
            step=state.step + 1, params=params, opt_state=opt_state, model_state=stats
        )
        return state, {"loss": loss, "gradient": optax.tree.norm(grads)}

    rng = np.random.default_rng(0)
    resident = {"image": rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)}
    return init, train_step, resident, lambda index: {"target": np.sin(index)}


def cleftgan():
    """The real step: both networks, R1 in each, colors of ADA at half strength."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from experiments import cleftgan as experiment
    from jaxface.systems import cleftgan

    smaller = {"resolution": 16, "num_layers": 3, "margin_size": 2, "augment_pipe": "color"}
    smaller |= {"channel_base": 64, "channel_max": 4, "discriminator_channel_max": 8}
    system = cleftgan.build(dataclasses.replace(experiment.tiny, batch=BATCH, **smaller))

    def init(key):
        """Drawn, not compiled: any state will do, and the real one takes three seconds to compile."""
        shapes = jax.eval_shape(system.init, key)
        draw = lambda x: rng.normal(size=x.shape)
        fill = lambda value, tree: jax.tree.map(
            lambda x: np.full(x.shape, value, np.float64 if x.dtype == jnp.float32 else x.dtype),
            tree,
        )
        params, stats = jax.tree.map(draw, shapes.params), fill(1, shapes.model_state["generator"])
        return shapes.replace(
            step=np.int32(0),
            params=params,
            opt_state=fill(0, shapes.opt_state),
            model_state={"generator": stats},
            ema={"params": params["generator"], "stats": stats},
            control=jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes.control)
            | {"augment_p": np.float32(0.5)},
        )

    rng = np.random.default_rng(0)
    resident = {"image": rng.integers(0, 256, (40, 16, 16, 3)).astype(np.float64)}
    due = lambda index: {"penalty": np.zeros(len(index), np.int8)}
    return init, system.train_step, resident, due


def drawn(system, rng, spread: float):
    """init() of a state of float64 that is drawn, not compiled: any state will do for a comparison."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    def init(key):
        shapes = jax.eval_shape(system.init, key)
        wide = lambda x: np.float64 if x.dtype == jnp.float32 else x.dtype
        fill = lambda value, tree: jax.tree.map(lambda x: np.full(x.shape, value, wide(x)), tree)
        return shapes.replace(
            step=np.int32(0),
            params=jax.tree.map(lambda x: rng.normal(0, spread, x.shape), shapes.params),
            opt_state=fill(0, shapes.opt_state),
            model_state=fill(1, shapes.model_state),
            control=jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes.control),
        )

    return init


# A patch of 64 px that is halved six times: the one block that then has dropout is there.
PATCHES = dict(batch=BATCH, patch=64, levels=6, ngf=2, ndf=2, dropout=True, warp=0.5)
FACTS = {"face_width": 150.0, "spot_threshold": 4.0}


def windows(rng, **channels) -> dict:
    """40 windows of random 8-bit levels for each name."""
    import numpy as np

    from jaxface.ops.warp import window_for

    side = window_for(PATCHES["patch"])
    draw = lambda count: rng.integers(0, 256, (40, side, side, count)).astype(np.float64)
    return {name: draw(count) for name, count in channels.items()}


def facts(index) -> dict:
    """What a batch of photographs says in each of its rows."""
    import numpy as np

    return {name: np.full(len(index), value) for name, value in FACTS.items()}


def uvphoto():
    """The real step: batch statistics and dropout in both networks, patches turned and scaled."""
    import numpy as np

    from experiments import uvphoto as experiment
    from jaxface.systems import uvphoto

    system = uvphoto.build(dataclasses.replace(experiment.tiny, **PATCHES))
    rng = np.random.default_rng(0)
    resident = windows(rng, color=3, uv=1)
    return drawn(system, rng, 0.2), system.train_step, resident, facts


def uvphoto_v2():
    """The real step: five networks, other cameras, and pools that fill and then exchange."""
    import numpy as np

    from experiments import uvphoto_v2 as experiment
    from jaxface.systems import uvphoto_v2

    smaller = {"inverse_ngf": 2, "inverse_blocks": 1, "pool": BATCH}
    smaller |= {"levels": 3, "dropout": False}  # uvphoto's G has them
    system = uvphoto_v2.build(dataclasses.replace(experiment.tiny, **PATCHES | smaller))
    rng = np.random.default_rng(0)
    resident = windows(rng, color=3, uv=1, phone=3)
    return drawn(system, rng, 0.2), system.train_step, resident, facts


def contrastive():
    """The real step: momentum encoder, statistics over the batch, a queue that wraps around."""
    import numpy as np

    from experiments import edema_pretrain as experiment
    from jaxface.systems import contrastive

    smaller = {"side": 16, "width": 2, "batch": BATCH, "queue": BATCH + 4}
    system = contrastive.build(dataclasses.replace(experiment.tiny, **smaller))
    rng = np.random.default_rng(0)
    resident = {"image": rng.integers(0, 256, (40, 16, 16, 3)).astype(np.float64)}
    weight = rng.normal(size=40)

    def init(key):
        state = drawn(system, rng, 0.2)(key)
        return state.replace(ema={"params": state.params, "stats": state.model_state})

    def fields(index):
        pair = np.stack([index, (index + 5) % 40], 1).astype(np.int32)
        whole = {"subject": pair % 7, "video": pair, "label": pair % 2}
        return {"index": pair, "weight": weight[pair]} | whole

    return init, system.train_step, resident, fields


def classify():
    """The real step of a whole network: statistics over the batch, class weights, slow weights."""
    import numpy as np

    from jaxface import headshots
    from jaxface.systems import classify

    config = classify.Config(
        side=16, batch=BATCH, methods="scratch", beside="", folds=2, validation=0, scratch_width=2,
        head="linear", ema=0.9, steps=4,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    headshots.Photos.table = headshots.Table(
        *[np.repeat(np.arange(8), 5).astype(str)] * 2,
        np.tile(np.arange(5), 8),
        np.repeat(np.arange(8) % 2, 5),
        *[np.zeros(40, int)] * 5,
    )
    system = classify.build(config)
    resident = {"image": rng.integers(0, 256, (40, 16, 16, 3)).astype(np.float64)}
    plain = drawn(system, rng, 0.2)

    def init(key):
        state = plain(key)
        return state.replace(ema=state.params["now"])

    def fields(index):
        one = np.ones([len(index), 1])
        draw = (index[:, None] * 7919).astype(np.uint32)
        whole = {name: one.astype(np.int32) for name in ("job", "local", "seed")}
        return {"index": index[:, None], "target": index[:, None] % 2 * 1.0, "weight": 0.5 + one / 3,
                "draw": draw, "keep": one < 0, "scratch": np.zeros(len(index), np.int8)} | whole  # fmt: skip

    return init, system.train_step, resident, fields


SYSTEMS = {
    "conv_net": conv_net,
    "classify": classify,
    "contrastive": contrastive,
    "cleftgan": cleftgan,
    "uvphoto": uvphoto,
    "uvphoto_v2": uvphoto_v2,
}


def main(preemption) -> None:
    import jax
    import numpy as np

    from jaxface import cache, parallel
    from jaxface.checkpoint import Checkpoints

    cache.collect_seldom()
    if joining:
        parallel.initialize(joining[0], int(joining[1]), 2)
    process, processes = jax.process_index(), jax.process_count()
    assert (
        jax.local_device_count() == int(devices) and jax.device_count() == int(devices) * processes
    )
    mesh = parallel.make_mesh()
    parallel.check_batch(BATCH)

    numbers = {}
    for run in runs.split(","):
        name, mode = run.split(":")
        init, train_step, resident, fields = SYSTEMS[name]()
        key = jax.random.key(1)
        state = init(jax.random.key(0))
        state = parallel.place_state(parallel.to_host(state), mesh, mode)
        placed = parallel.place_state(resident, mesh, mode)
        step_fn = parallel.compile_step(train_step, mesh, mode)

        def batch_at(step, fields=fields, mode=mode):
            own = slice(process * BATCH // processes, (process + 1) * BATCH // processes)
            example = np.arange(step * BATCH, (step + 1) * BATCH, dtype=np.int32)
            index = (example * 7 % 40).astype(np.int32)
            rows = {"example": example, "index": index} | fields(index)
            rows = {field: array[own] for field, array in rows.items()}
            return parallel.place_batch(rows, mesh, mode)

        for step in range(STEPS):
            state, metrics = step_fn(state, batch_at(step), placed, key)
            jax.block_until_ready((state, metrics))
            host = parallel.to_host({"state": state, "metrics": metrics})
            for path, leaf in jax.tree_util.tree_leaves_with_path(host):
                where = jax.tree_util.keystr(path, simple=True, separator="/")
                numbers[f"{run}/{step + 1}/{where}"] = leaf

        if joining and run == "conv_net:jit":
            # SIGTERM to one process: both stop after the same step and one checkpoint has it.
            checkpoints = Checkpoints(pathlib.Path(out).parent / "checkpoints")
            step = STEPS
            while not preemption.agreed(step):
                with preemption.phase("step"):
                    state, metrics = step_fn(state, batch_at(step), placed, key)
                    jax.block_until_ready((state, metrics))
                step += 1
                if step == STEPS + 4 and process == 1:
                    os.kill(os.getpid(), 15)
                assert step < 5000, "no process heard of the signal"
            checkpoints.save(step, state, {"step": step}, wait=True)
            assert checkpoints.failure is None, checkpoints.failure
            parallel_wait("saved")
            restored, meta, at = checkpoints.restore(parallel.to_host(state))
            same = jax.tree.map(np.array_equal, restored, parallel.to_host(state))
            assert all(jax.tree.leaves(same)) and meta == {"step": step} and at == step
            numbers["stopped"] = np.array(step)
    np.savez(out, **numbers)


def parallel_wait(name: str) -> None:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


if __name__ == "__main__":
    with Preemption() as preemption:
        main(preemption)
