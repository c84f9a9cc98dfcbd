"""Edema of one patient from a few days: a small model for each, transferred from many patients.

Akamatsu et al. (10.1109/JBHI.2022.3227517, arXiv 2212.07582): after pre-training on many patients, the
network is transferred to one target patient with little data, to tell faces before dialysis (edema) from
those after it, and to predict the body weight in kg. That changes are small and each patient's own is why
there is a model for each. Layers, losses and schedules of the paper are not known; these are ours:

  heads on the encoder's features: a logit of "edema present", and kg about the mean of the days learned
  they begin as the linear rule that holds within the patients of pre-training, about the patient's middle
  first the heads alone on frozen features, then the whole network; cross-entropy + |kg - kg'| / s

Models are judged on days they have not seen: each day of each target patient is left out in turn, and
with it learned from 1, 2, 3 or all other days, once from the pre-trained network and once from scratch.
All these models are trained one after the other, or `together` at a time, by one compiled step; of each,
what it says of the day left out is kept, and of the last one a patient, which has seen all days, the
network itself.
"""

import dataclasses
import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxface import patients
from jaxface.data import video
from jaxface.errors import UserError, nearest
from jaxface.metrics import edema_baselines
from jaxface.models import resnet
from jaxface.ops.handheld import vary_frames
from jaxface.parallel import gather, pmean
from jaxface.system import System, TrainState, started
from jaxface.updates import count_skips, no_skips, unless, update

LOSSES = ("class", "weight")


@dataclasses.dataclass
class Config(patients.FrameRunConfig):
    """One run; what its data are, `patients.FrameRunConfig` says. All of it is ours."""

    budgets: str = "1,2,3,all"  # how many days a model learns from, besides the one left out
    head_steps: int = 100  # of the heads alone
    steps: int = 500  # of the whole network: 20 epochs of a patient with 5 days
    together: int = 1  # models trained at once; more pays where the device is wide
    batch: int = 32
    head_rate: float = 1e-2  # Adam
    learning_rate: float = 1e-4  # Adam, to 0 by a cosine
    lambda_weight: float = 1.0  # of |kg - kg'| / s beside the cross-entropy
    patient: str = ""  # whose model reads the videos of --mode=sample --input

    @property
    def num_steps(self) -> int:
        """Of one group of models: heads, whole network, and the step that answers.

        How many groups there are, the data say (`System.num_steps`).
        """
        return self.head_steps + self.steps + 1


class Heads(nn.Module):
    """Features [N, F] -> (logit of "edema present" [N], weight in spreads about the mean [N])."""

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(2, kernel_init=nn.initializers.zeros)(x.astype(jnp.float32))
        return y[:, 0], y[:, 1]


def check(config: Config) -> None:
    """Raises UserError for settings that cannot train, before anything is read or computed."""
    patients.check(config)
    for name, least in (("head_steps", 0), ("steps", 1), ("together", 1)):
        if getattr(config, name) < least:
            raise UserError(f"config.{name}={getattr(config, name)}: use {least} or more.")
    for budget in _budgets(config):
        if budget != "all" and not (budget.isdigit() and int(budget) > 0):
            raise UserError(
                f"config.budgets={config.budgets!r}: numbers of days and the word all, joined by commas."
            )
    if "all" not in _budgets(config):
        raise UserError(f"config.budgets={config.budgets!r}: add all, which the headline is of.")


def _budgets(config: Config) -> tuple[str, ...]:
    return tuple(part.strip() for part in config.budgets.split(","))


def build(config: Config, start=None) -> System:
    """The method as pure functions of a state, closed over `config`. Opens data only when asked.

    Args:
      start: what config.init_from names, read: {"params": {"encoder", ...}, "model_state": {...}}.
        Without it every model starts from random weights and there is nothing to compare.
    """
    check(config)
    frames = patients.Frames(config)
    E, H = patients.encoder(config), Heads()
    methods = ("transfer", "scratch") if start else ("scratch",)
    count = config.together
    decay = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    tx = {"heads": optax.adam(config.head_rate), "whole": optax.adam(decay)}

    @functools.cache
    def jobs() -> list[patients.Job]:
        return patients.plan(frames.targets, len(methods), _budgets(config), config.seed)

    @functools.cache
    def consumed():
        """Who is in the heads' common rule, and whoever the models learn from."""
        ruled = {one for row in frames.learned_from for one in frames.who(row)} if start else set()
        drawn = patients.jobs_consumed(frames, jobs(), config)
        return lambda step: drawn(step) | ruled

    def groups() -> int:
        return -(-len(jobs()) // count)

    @functools.cache
    def spread() -> float:
        """kg that weights are measured in: of the patients of pre-training, whom all may know."""
        table, rows = frames.table, frames.learned_from
        return patients.within(table.weight_kg[rows], table.subject[rows], table.video[rows])[1]

    def pretrained():
        """The encoder that models start from, as a function of frames."""
        variables = {
            "params": start["params"]["encoder"],
            "batch_stats": start["model_state"]["encoder"],
        }
        return functools.partial(infer, variables)

    @functools.cache
    def target_features() -> np.ndarray:
        """[n, F] of `patients.target_rows`: models begin and are judged beside what these tell."""
        return patients.embedded(pretrained(), frames.pixels(patients.target_rows(frames)))

    @functools.cache
    def rule() -> np.ndarray:
        """[F, 2]: logit, and weight in spreads, of the features of the patients of pre-training."""
        table, rows = frames.table, frames.learned_from
        slopes = edema_baselines.common_rule(
            patients.embedded(pretrained(), frames.pixels(rows)),
            table.session[rows] == "pre",
            table.weight_kg[rows],
            table.subject[rows],
        )
        return slopes / [1, spread()]

    @functools.cache
    def constants() -> np.ndarray | None:
        return patients.constants(frames, jobs(), target_features(), rule()) if start else None

    def init(key):
        key_e, key_h = jax.random.split(key)
        e = E.init(key_e, jnp.zeros([2, config.side, config.side, 3]))
        h = H.init(key_h, jnp.zeros([2, patients.features(config)]))
        one = {"encoder": e["params"], "heads": h["params"]}
        times = lambda n, tree: jax.tree.map(lambda x: jnp.repeat(x[None], n, 0), tree)
        nets = {"params": one, "stats": e["batch_stats"]}
        opt = {"heads": tx["heads"].init(one["heads"]), "whole": tx["whole"].init(one)}
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params={
                "start": times(len(methods), one),
                "now": times(count, one),
                "patients": times(len(frames.targets), one),
            },
            opt_state=times(count, opt),
            model_state={
                "start": times(len(methods), nets["stats"]),
                "now": times(count, nets["stats"]),
                "patients": times(len(frames.targets), nets["stats"]),
            },
            ema={},
            control={
                "answers": jnp.full([len(jobs()), patients.answers(config), 2], jnp.nan),
                "skipped": no_skips("model"),
                "newest": {f"loss/{name}": jnp.float32(0) for name in LOSSES},
            },
        )

    def each(function, *trees):
        """A function of one model for all of a group: `vmap`, or the model itself where it is alone.

        Convolutions with a kernel an example are grouped ones, which CPUs are slow at.
        """
        if count > 1:
            return jax.vmap(function)(*trees)
        one = function(*jax.tree.map(lambda x: x[0], trees))
        return jax.tree.map(lambda x: x[None], one)

    def look(params, stats, images, train, axis):
        """(logit, weight) of frames, and the encoder's statistics."""
        y = E.apply(
            {"params": params["encoder"], "batch_stats": stats},
            resnet.normalize(images),
            train=train,
            axis=axis,
            mutable=["batch_stats"] if train else [],
        )
        y, moved = y
        return H.apply({"params": params["heads"]}, y), moved.get("batch_stats", stats)

    def learn(stage, axis, params, stats, opt, images, label, target):
        """One step of one model. Arrays [b, ...]; returns its new params, statistics, ..."""

        def loss_fn(moving):
            (logit, weight), new = look(params | moving, stats, images, stage == "whole", axis)
            terms = {
                "class": optax.sigmoid_binary_cross_entropy(logit, label).mean(),
                "weight": jnp.abs(weight - target).mean(),
            }
            return terms["class"] + config.lambda_weight * terms["weight"], (terms, new)

        names = ("heads",) if stage == "heads" else ("encoder", "heads")
        moving = {name: params[name] for name in names}
        (loss, (terms, new)), grads = jax.value_and_grad(loss_fn, has_aux=True)(moving)
        loss, terms, grads = pmean((loss, terms, grads), axis)
        if stage == "heads":
            heads, opt_new, skipped = update(
                tx[stage], loss, grads["heads"], params["heads"], opt[stage]
            )
            moved = {"heads": heads}
        else:
            moved, opt_new, skipped = update(tx[stage], loss, grads, params, opt[stage])
        stats = unless(skipped, new, stats)
        return params | moved, stats, opt | {stage: opt_new}, terms, skipped

    def train_step(state, batch, key, *, axis=None):
        images = batch["image"].astype(jnp.promote_types(batch["image"].dtype, jnp.float32))
        images = jnp.moveaxis(images / 127.5 - 1, 1, 0)  # [count, b, S, S, 3]
        place = {name: batch[name][0] for name in ("job", "method", "keep")}  # [count]
        now = (state.params["now"], state.model_state["now"], state.opt_state)
        if "label" not in batch:
            return answer(state, now, place, images, axis), dict(state.control["newest"])

        # A model begins as the network of its method, with an optimizer that knows nothing.
        begin = batch["begin"][0, 0]
        fresh = jax.tree.map(
            lambda x: x[place["method"]], (state.params["start"], state.model_state["start"])
        ) + (jax.tree.map(jnp.zeros_like, state.opt_state),)
        fresh[0]["heads"]["Dense_0"]["bias"] = batch["constant"][0]
        now = unless(begin, now, fresh)

        # The same draws for every method, so that they differ in nothing but what they start from.
        each_key = jax.vmap(jax.vmap(lambda draw: jax.random.fold_in(key, draw)))
        seen = jax.vmap(vary_frames)(images, each_key(batch["draw"].T))
        stage = "whole" if "whole" in batch else "heads"
        params, stats, opt, terms, skipped = each(
            functools.partial(learn, stage, axis), *now, seen, batch["label"].T, batch["target"].T
        )
        counts = count_skips(state.control["skipped"], {"model": skipped.any()})
        newest = {f"loss/{name}": value.mean() for name, value in terms.items()}
        metrics = newest | {f"skipped/{name}": value for name, value in counts.items()}
        state = state.replace(
            step=state.step + 1,
            params=state.params | {"now": params},
            opt_state=opt,
            model_state=state.model_state | {"now": stats},
            control=state.control | {"skipped": counts, "newest": newest},
        )
        return state, metrics

    def answer(state, now, place, images, axis):
        """What the finished models say of the day left out; those to be kept are kept."""
        params, stats, _ = now

        def one(params, stats, images):
            (logit, weight), _ = look(params, stats, images, False, None)
            return jnp.stack([logit, weight], -1)

        told = each(one, params, stats, images)  # [count, b, 2]
        told = jnp.moveaxis(gather(jnp.moveaxis(told, 1, 0), axis), 1, 0)

        # keep = -1: nothing of this model but its answers; out of bounds is dropped.
        def kept(old, new):
            spot = jnp.where(place["keep"] < 0, old.shape[0], place["keep"])
            return old.at[spot].set(new, mode="drop")

        control = state.control
        return state.replace(
            step=state.step + 1,
            params=state.params
            | {"patients": jax.tree.map(kept, state.params["patients"], params)},
            model_state=state.model_state
            | {"patients": jax.tree.map(kept, state.model_state["patients"], stats)},
            control=control | {"answers": control["answers"].at[place["job"]].set(told)},
        )

    def batches(first, process_index=0, process_count=1):
        return patients.JobBatches(
            frames, jobs(), config, spread(), first, process_index, process_count, constants()
        )

    infer = jax.jit(
        lambda variables, x: E.apply(variables, resnet.normalize(x)).astype(jnp.float32)
    )

    def first(state, part, number=0):
        """{"params", "batch_stats"} of the encoder of a stack of models."""
        at = lambda tree: jax.tree.map(lambda x: x[number], tree)
        stats = at(state.model_state[part])
        return {"params": at(state.params[part])["encoder"], "batch_stats": stats}

    def judge(state, key):
        given = np.asarray(state.control["answers"])
        by_method = {}
        for number, method in enumerate(methods):
            for budget in _budgets(config):
                found = patients.told(frames.table, jobs(), given, spread(), number, budget)
                if found is not None:
                    by_method.setdefault(method, {})[budget] = found
        return patients.judge(frames, by_method, target_features() if start else None)

    def sample(state, key, number, label=""):
        """Frames of days left out, before and after dialysis, of the patients to be judged."""
        rows = patients.target_rows(frames)
        words = f"Patients to be judged ({config.data}): before and after dialysis by turns."
        return frames.preview(rows, words, videos=max(12, number // 4))

    @jax.jit
    def ask(variables, heads, x):
        """(features, logit, weight in spreads) of frames."""
        y = E.apply(variables, resnet.normalize(x)).astype(jnp.float32)
        return (y, *H.apply({"params": heads}, y))

    def readings(state, path):
        """A video, or each in a folder, by the model of config.patient."""
        names = list(frames.targets)
        if config.patient not in names:
            raise UserError(
                f"config.patient={config.patient!r}: name the patient whose model is to read."
                f"{nearest(config.patient, names)}"
            )
        number = names.index(config.patient)
        heads = jax.tree.map(lambda x: x[number], state.params["patients"])["heads"]
        network = functools.partial(ask, first(state, "patients", number), heads)
        given = np.asarray(state.control["answers"])
        known = patients.told(frames.table, jobs(), given, spread(), 0, "all")
        if known is None or int(state.step) < groups() * config.num_steps:
            raise UserError(
                "the models of this run are not finished: let it train to its end first."
            )
        path = pathlib.Path(path)
        folder = path if path.is_dir() else path.parent
        for name in video.list_videos(path) if path.is_dir() else [path.name]:
            try:
                chosen = video.select(folder / name, config.frames, config.side)
                yield (
                    name,
                    patients.read_video(frames, config.patient, chosen, network, known, spread()),
                )
            except UserError as error:
                yield name, error

    def start_from(state):
        if "encoder" not in start.get("params", {}):
            raise UserError("--init_from: there is no encoder in it: name a run of edema_pretrain.")
        at = lambda tree: jax.tree.map(lambda x: x[0], tree)
        own = {"encoder": at(state.params["start"])["encoder"]}
        nets, kept = started(own, {"encoder": at(state.model_state["start"])}, start)
        put = lambda old, new: np.concatenate([np.asarray(new)[None], np.asarray(old)[1:]])
        heads = {"Dense_0": {"kernel": rule().astype(np.float32), "bias": np.zeros(2, np.float32)}}
        params = jax.tree.map(put, state.params["start"], nets | {"heads": heads})
        return state.replace(
            params=state.params | {"start": params},
            model_state=state.model_state
            | {"start": jax.tree.map(put, state.model_state["start"], kept["encoder"])},
        )

    return System(
        init=init,
        train_step=train_step,
        batches=batches,
        evals={"edema": judge},
        sample=sample,
        readings=readings,
        reads="video",
        resident=frames.resident,
        preview=lambda: sample(None, None, 64),
        start_from=start_from if start else None,
        num_steps=lambda: groups() * config.num_steps,
        consumed=lambda step: consumed()(step),
    )
