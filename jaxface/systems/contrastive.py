"""Weight-aware supervised momentum contrast: what a face shows of fluid, learned from many patients.

Akamatsu et al. (10.1109/JBHI.2022.3227517, arXiv 2212.07582) pre-train on videos of many patients before
transferring to one: features are pulled together the more, the nearer the body weights, if both are from
before or both from after dialysis. That sentence is all that is published of the loss; the formula
(`contrast.OBJECTIVES`, with its neighbors as ablations), the network and every number below are ours or
MoCo's (He et al. 2019, arXiv 1911.05722):

  a frame x of a patient, and another x' of the same label, from another of the patient's videos if possible
  q = P(E(x)), k = P'(E'(x')), both of length 1; E' and P' follow E and P slowly (momentum)
  loss(q; k, queue of earlier keys with their labels and weights)

Normalisation is over the global batch in both networks, which MoCo avoids by shuffling: a batch here
takes patients by equal turns, so that its statistics tell nothing of who belongs to whom.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxface import contrast, patients
from jaxface.errors import UserError
from jaxface.metrics import edema
from jaxface.models import resnet
from jaxface.ops.handheld import vary_frames
from jaxface.parallel import pmean
from jaxface.schedules import cosine
from jaxface.system import Export, Figure, System, TrainState, started
from jaxface.updates import count_skips, no_skips, norm, unless, update

FACTS = [field.name for field in dataclasses.fields(contrast.Facts)]


@dataclasses.dataclass
class Config(patients.FrameRunConfig):
    """One run; what its data are, `patients.FrameRunConfig` says. MC = MoCo's."""

    objective: str = "weight_sup_moco"  # the paper's; its neighbors are in contrast.OBJECTIVES
    sigma: float = 1.0  # of the kernel on weights, in spreads within patients (ours)
    within_patient: bool = False  # whether only frames of the same patient attract (ours)
    temperature: float = 0.07  # MC
    momentum: float = 0.999  # MC
    queue: int = 4096  # keys kept; MC's 65,536 are more than there are frames
    features: int = 128  # of the projector (MC)
    hidden: int = 512  # of the projector
    kframes: float = 1960.0  # thousand frames shown as queries: 50 epochs of 39,200 (ours)
    batch: int = 128
    learning_rate: float = 0.03  # MC, stochastic gradient descent with momentum 0.9
    weight_decay: float = 1e-4  # MC

    @property
    def num_steps(self) -> int:
        return max(1, round(self.kframes * 1000 / self.batch))


class Projector(nn.Module):
    """Features [N, F] -> unit vectors [N, features]: two layers (Chen et al. 2020, arXiv 2003.04297)."""

    hidden: int
    features: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.hidden)(x))
        x = nn.Dense(self.features)(x)
        return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), -1, keepdims=True) + 1e-12)


def check(config: Config) -> None:
    """Raises UserError for settings that cannot train, before anything is read or computed."""
    patients.check(config)
    if config.objective not in contrast.OBJECTIVES:
        raise UserError(
            f"config.objective={config.objective!r}: use one of {', '.join(contrast.OBJECTIVES)}."
        )
    for name in ("sigma", "temperature", "kframes"):
        if getattr(config, name) <= 0:
            raise UserError(f"config.{name}={getattr(config, name)}: use a number over 0.")
    if not 0 <= config.momentum < 1:
        raise UserError(f"config.momentum={config.momentum}: use 0 or more and less than 1.")
    if config.queue < config.batch:
        raise UserError(
            f"config.queue={config.queue} is smaller than config.batch={config.batch}: use "
            f"{config.batch} or more."
        )


def build(config: Config, start=None) -> System:
    """The method as pure functions of a state, closed over `config`. Opens data only when asked.

    Args:
      start: what config.init_from names, read: {"params": {"encoder", ...}, "model_state": {...}}.
    """
    check(config)
    frames = patients.Frames(config)
    E, P = patients.encoder(config), Projector(config.hidden, config.features)
    rate = cosine(config.learning_rate, config.num_steps)
    decay = optax.add_decayed_weights(config.weight_decay)
    tx = optax.flatten(optax.chain(decay, optax.sgd(rate, momentum=0.9)))
    objective = contrast.OBJECTIVES[config.objective]

    def init(key):
        key_e, key_p = jax.random.split(key)
        e = E.init(key_e, jnp.zeros([2, config.side, config.side, 3]))
        p = P.init(key_p, jnp.zeros([2, patients.features(config)]))
        params = {"encoder": e["params"], "projector": p["params"]}
        stats = {"encoder": e["batch_stats"]}
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params=params,
            opt_state=tx.init(params),
            model_state=stats,
            ema={"params": jax.tree.map(jnp.copy, params), "stats": jax.tree.map(jnp.copy, stats)},
            control={
                "queue": contrast.empty(config.queue, config.features),
                "skipped": no_skips("encoder"),
            },
        )

    @functools.partial(jax.jit, static_argnames="axis")  # traced once for both encoders
    def embed(params, stats, images, axis):
        """Unit vectors in training mode, and how the encoder's statistics moved."""
        y, moved = E.apply(
            {"params": params["encoder"], "batch_stats": stats["encoder"]},
            resnet.normalize(images),
            train=True,
            axis=axis,
            mutable=["batch_stats"],
        )
        vectors = P.apply({"params": params["projector"]}, y.astype(jnp.float32))
        return vectors, {"encoder": moved["batch_stats"]}

    def train_step(state, batch, key, *, axis=None):
        key = jax.random.fold_in(key, state.step)
        each = jax.vmap(lambda e: jax.random.fold_in(key, e))(batch["example"])
        key_query, key_key = jax.vmap(jax.random.split, out_axes=1)(each)
        pair = (
            batch["image"].astype(jnp.promote_types(batch["image"].dtype, jnp.float32)) / 127.5 - 1
        )
        facts = [contrast.Facts(*(batch[name][:, k] for name in FACTS)) for k in (0, 1)]
        keys, slow_stats = embed(
            state.ema["params"], state.ema["stats"], vary_frames(pair[:, 1], key_key), axis=axis
        )

        def loss_fn(params):
            queries, stats = embed(
                params, state.model_state, vary_frames(pair[:, 0], key_query), axis=axis
            )
            loss = objective(
                queries,
                keys,
                facts[0],
                state.control["queue"],
                temperature=config.temperature,
                sigma=config.sigma,
                within_patient=config.within_patient,
            )
            return loss.mean(), (stats, jnp.sum(queries * keys, -1).mean())

        (loss, (stats, near)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        loss, near, grads = pmean((loss, near, grads), axis)
        params, opt_state, skipped = update(tx, loss, grads, state.params, state.opt_state)
        slow = {
            "params": contrast.momentum(state.ema["params"], params, config.momentum),
            "stats": slow_stats,
        }
        queue = contrast.enqueue(state.control["queue"], keys, facts[1], axis)
        counts = count_skips(state.control["skipped"], {"encoder": skipped})
        metrics = {
            "loss/contrast": loss,
            "similarity": near,
            "gradient/encoder": norm(grads),
            "rate": jnp.asarray(rate(state.step), jnp.float32),
        } | {f"skipped/{name}": value for name, value in counts.items()}
        old = (state.model_state, state.ema, state.control["queue"])
        stats, slow, queue = unless(skipped, (stats, slow, queue), old)
        state = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            model_state=stats,
            ema=slow,
            control={"queue": queue, "skipped": counts},
        )
        return state, metrics

    infer = jax.jit(
        lambda variables, x: E.apply(variables, resnet.normalize(x)).astype(jnp.float32)
    )

    def features(state, rows: np.ndarray) -> np.ndarray:
        """The encoder's features [n, F] of some frames."""
        variables = {
            "params": state.params["encoder"],
            "batch_stats": state.model_state["encoder"],
        }
        return patients.embedded(functools.partial(infer, variables), frames.pixels(rows))

    def judge(state, key):
        """How well a linear model on frozen features reads days that it was not fitted on."""
        rows = patients.target_rows(frames)
        found = edema.scores(patients.on_features(frames, features(state, rows)), "_frozen")
        return {f"{name}_frozen": found[f"{name}_frozen"] for name in patients.HEADLINE}

    def sample(state, key, number, label=""):
        """Frames, and those of other videos whose features are nearest."""
        rows = np.flatnonzero(frames.is_target)
        _, first = np.unique(frames.table.video[rows], return_index=True)
        rows = rows[first]
        shown = patients.neighbors(
            features(state, rows), frames.table.video[rows], max(1, number // 8)
        )
        words = "One frame of a held-out video in each row, then the nearest of other videos."
        return Figure(frames.pixels(rows[shown.ravel()]), shown.shape[1], words, photographs=True)

    def export(state):
        variables = {"params": state.params, "model_state": state.model_state}
        takes = {"image": (config.side, config.side, 3)}
        network = {
            "params": state.params["encoder"],
            "batch_stats": state.model_state["encoder"],
        }
        return Export(variables, {"encoder": (functools.partial(infer, network), takes)})

    @functools.cache
    def consumed():
        return patients.pairs_consumed(frames)

    def preview():
        who = len(np.unique(frames.table.subject[frames.learned_from]))
        words = f"Frames to learn from ({config.data}, {who} patients): before and after dialysis by turns."
        return frames.preview(frames.learned_from, words)

    def start_from(state):
        if "encoder" not in start.get("params", {}):
            raise UserError("--init_from: there is no encoder in it.")
        params, stats = started(state.params, state.model_state, start)
        return state.replace(
            params=params, model_state=stats, ema={"params": params, "stats": stats}
        )

    return System(
        init=init,
        train_step=train_step,
        batches=functools.partial(patients.pair_batches, frames),
        evals={"probe": judge},
        monitors={"probe": judge},
        sample=sample,
        export=export,
        resident=frames.resident,
        preview=preview,
        start_from=start_from if start else None,
        consumed=lambda step: consumed()(step),
    )
