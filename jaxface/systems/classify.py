"""What a headshot shows, told by a network that has learned from votes: sex, a smile, a disease one day.

Aoto et al., "Collection of constrained headshots" (Sci Rep 12:3730, 2022): a network trained on ImageNet
(InceptionV3), its maps pooled, then Dense 512, 29, 5 with ReLU and one sigmoid; the early layers keep
their weights but for the normalisation of all of them; binary cross-entropy, Adam; 10 augmented copies
of each photograph. Here the backbone is of choice, and there are three ways to learn:

  head        the backbone is left as it is: features of photographs and copies are made once, and heads
              learn from them in seconds, many at a time
  finetune    head and backbone, whose layers before `freeze` learn their normalisation alone
  scratch     a small residual network from random weights, for comparison

Every model is a job (`headshots.plan`): it learns from some people and answers for others. Jobs are trained
in groups by one compiled step; what each says of the photographs that it is asked about is kept, and
of the last one, which learns from everybody, the network itself.
"""

import dataclasses
import functools
import pathlib

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from jaxface import backbones, headshots
from jaxface.data.images import list_images, read_image
from jaxface.errors import UserError, nearest
from jaxface.faces.prepare import prepare
from jaxface.metrics import gradcam
from jaxface.models import layers
from jaxface.ops.affine import vary_headshots
from jaxface.parallel import gather, pmean
from jaxface.system import Figure, System, TrainState
from jaxface.updates import count_skips, no_skips, unless, update

HEADS = {"published": (512, 29, 5), "linear": ()}  # hidden layers
NORMS = ("bn", "norm")  # in the names of layers that normalise


@dataclasses.dataclass
class Config(headshots.HeadshotRunConfig):
    """One run; what its data and protocols are, `headshots.HeadshotRunConfig` says.

    Published values are marked; the others are ours.
    """

    # Network
    backbone: str = (
        "inception_v3"  # published; mobilenet_v2, efficientnet_lite0, face_resnet, resnet18, ...
    )
    weights: str = ""  # the backbone's, from a file (.pth); "": shipped, fetched or --init_from
    layer: str = ""  # whose maps are the features; "": those pooled at the end (published)
    grid: int = 8  # cells a side that maps of `layer` are averaged over
    width: int = 64  # channels of the first stage of a residual backbone
    head: str = "published"  # Dense 512, 29, 5, 1; or "linear"
    freeze: str = (
        ""  # the first layer that finetune learns wholly (published: Mixed_7a); "": all of them
    )
    scratch_depth: int = 10
    scratch_width: int = 16
    # Training
    head_steps: int = 7600  # of a head: 20 epochs of 10 copies (published)
    steps: int = 7600  # of a whole network
    together: int = 5  # heads trained at once
    batch: int = 64  # published
    head_rate: float = 1e-3  # Adam (published), to 0 by a cosine (ours)
    learning_rate: float = 1e-3
    weight_decay: float = 0.0  # of kernels, decoupled
    class_weights: bool = True  # both labels count alike
    label_smoothing: float = 0.0
    soft_targets: bool = False  # the share of votes instead of the majority's word
    ema: float = 0.0  # of the weights that answer; 0: the last ones
    # Judgement
    sensitivity: float = 0.95  # that the operating point must have on people of validation
    target: float = 0.05  # error that a study of budgets asks the people for

    @property
    def num_steps(self) -> int:
        """Of one group of models. How many groups there are, the data say (`System.num_steps`)."""
        first = headshots.METHODS.get(headshots.words(self.methods)[0])
        return (self.head_steps if first == "head" else self.steps) + 1


class Head(nn.Module):
    """Features [N, F] -> (logit [N]); normalised by running statistics first, as a backbone's layers are."""

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x, train: bool = False, axis: str | None = None):
        x = layers.BatchNorm(momentum=0.05, name="norm")(x, train, axis)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(1)(x)[:, 0]


def check(config: Config) -> None:
    """Raises UserError for settings that cannot train, before anything is read or computed."""
    headshots.check(config)
    if config.head not in HEADS:
        raise UserError(f"config.head={config.head!r}: no such head.{nearest(config.head, HEADS)}")
    for name, least in (
        ("head_steps", 1),
        ("steps", 1),
        ("together", 1),
        ("width", 1),
        ("grid", 1),
    ):
        if getattr(config, name) < least:
            raise UserError(f"config.{name}={getattr(config, name)}: use {least} or more.")
    for name in ("sensitivity", "target", "label_smoothing", "ema"):
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"config.{name}={getattr(config, name)}: a share from 0 to below 1.")


def free(config: Config, network: backbones.Backbone, params: dict) -> dict:
    """Which arrays of a model {"body", "head"} learn: true for the layers from `freeze` on, and for what
    normalises the others (published). Where normalisation is folded into convolutions, that is their bias.

    Raises:
      UserError: the network has no such layer.
    """
    order = network.order
    if config.freeze and config.freeze not in order:
        raise UserError(
            f"config.freeze={config.freeze!r} is no layer of {network.name}.{nearest(config.freeze, order)}"
        )
    first = order.index(config.freeze) if config.freeze else 0
    folded = "batch_stats" not in network.variables

    def learns(path: tuple[str, ...]) -> bool:
        if path[0] == "head" or order.index(path[1]) >= first:
            return True
        return path[-1] == "bias" if folded else any(n in part for part in path for n in NORMS)

    flat = flax.traverse_util.flatten_dict(params)
    return flax.traverse_util.unflatten_dict({path: learns(path) for path in flat})


def build(config: Config, start=None) -> System:
    """The method as pure functions of a state, closed over `config`. Opens data only when asked.

    Args:
      start: what config.init_from names, read: {"params": {"encoder", ...}, "model_state": {...}}. A
        residual backbone takes its weights from there.
    """
    check(config)
    photos, H = headshots.Photos(config), Head(HEADS[config.head])
    kinds = tuple(dict.fromkeys(headshots.METHODS[m] for m in headshots.words(config.methods)))
    nets = {}
    if {"head", "finetune"} & set(kinds):
        nets["head"] = nets["finetune"] = backbones.load(config, start)
    if "scratch" in kinds:
        size = (config.scratch_depth, config.scratch_width)
        nets["scratch"] = backbones.residual(*size, jax.random.key(config.seed), "scratch")
    count = {"head": config.together, "finetune": 1, "scratch": 1}
    steps = {"head": config.head_steps, "finetune": config.steps, "scratch": config.steps}

    def width(kind: str) -> int:
        side = nets[kind].side or config.side
        blank = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        return jax.eval_shape(lambda x: nets[kind](nets[kind].variables, x)[0], blank).shape[-1]

    widths = {kind: width(kind) for kind in kinds}
    is_kernel = lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)

    def adam(rate: float, kind: str) -> optax.GradientTransformation:
        decay = optax.cosine_decay_schedule(rate, steps[kind])
        return optax.adamw(decay, weight_decay=config.weight_decay, mask=is_kernel)

    which = lambda params: jax.tree.map(
        lambda learns: "free" if learns else "still", free(config, nets["finetune"], params)
    )
    tx = {
        "head": adam(config.head_rate, "head"),
        "scratch": adam(config.learning_rate, "scratch"),
        "finetune": optax.multi_transform(
            {"free": adam(config.learning_rate, "finetune"), "still": optax.set_to_zero()}, which
        ),
    }

    @functools.cache
    def groups() -> list[headshots.Group]:
        return headshots.groups_of(photos.plan, steps, count)

    def fresh(kind: str, begun: dict, key: jax.Array):
        """(params, statistics) of a model that has learned nothing, `begun` of its backbone."""
        key_body, key_head = jax.random.split(key)
        head = H.init(key_head, jnp.zeros([1, widths[kind]]))
        if kind == "scratch":
            begun = nets[kind].module.init(key_body, jnp.zeros([1, 64, 64, 3]))
        body = {"body": begun} if kind != "head" else {}
        params = {name: part["params"] for name, part in body.items()} | {"head": head["params"]}
        stats = {name: part.get("batch_stats", {}) for name, part in body.items()}
        return params, stats | {"head": head["batch_stats"]}

    def init(key):
        times = lambda n, tree: jax.tree.map(lambda x: jnp.repeat(x[None], n, 0), tree)
        begun = nets["finetune"].variables if "finetune" in kinds else {}
        new = {kind: fresh(kind, begun, key) for kind in kinds}
        now = {kind: times(count[kind], new[kind][0]) for kind in kinds}
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params={"start": begun, "now": now, "kept": new[kinds[0]][0]},
            opt_state={kind: times(count[kind], tx[kind].init(new[kind][0])) for kind in kinds},
            model_state={
                "now": {kind: times(count[kind], new[kind][1]) for kind in kinds},
                "kept": new[kinds[0]][1],
            },
            ema=jax.tree.map(jnp.copy, now) if config.ema else {},
            control={
                "answers": jnp.full([len(photos.plan), headshots.answers(photos)], jnp.nan),
                "skipped": no_skips("model"),
                "newest": {"loss/class": jnp.float32(0)},
            },
        )

    def each(kind, function, *trees):
        """A function of one model for all of a group: `vmap`, or the model itself where it is alone.

        Convolutions with a kernel an example are grouped ones, which CPUs are slow at.
        """
        if count[kind] > 1:
            return jax.vmap(function)(*trees)
        one = function(*jax.tree.map(lambda x: x[0], trees))
        return jax.tree.map(lambda x: x[None], one)

    def look(kind, params, stats, x, train=False, axis=None):
        """(logits [b], statistics) of features [b, F] or, of a whole network, images [b, S, S, C]."""
        moved = {}
        if kind != "head":
            variables = {"params": params["body"]}
            variables |= {"batch_stats": stats["body"]} if stats["body"] else {}
            x, moved["body"] = nets[kind](variables, x, train, axis)
        logit, kept = H.apply(
            {"params": params["head"], "batch_stats": stats["head"]},
            x,
            train,
            axis,
            mutable=["batch_stats"] if train else [],
        )
        return logit, stats | moved | {"head": kept.get("batch_stats", stats["head"])}

    def learn(kind, axis, params, stats, opt, x, target, weight):
        """One step of one model. Arrays [b, ...]; returns its new params, statistics, ..."""

        def loss_fn(params):
            if kind == "finetune":
                # What stays as it is needs no gradient.
                stop = lambda x, learns: x if learns else jax.lax.stop_gradient(x)
                params = jax.tree.map(stop, params, free(config, nets[kind], params))
            logit, new = look(kind, params, stats, x, True, axis)
            return (weight * optax.sigmoid_binary_cross_entropy(logit, target)).mean(), new

        (loss, new), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        loss, grads = pmean((loss, grads), axis)
        params, opt, skipped = update(tx[kind], loss, grads, params, opt)
        return params, unless(skipped, new, stats), opt, loss, skipped

    def seen(batch, kind):
        """What models of a kind look at, [G, b, ...]."""
        if kind == "head":
            x = batch["features"]
            return jnp.moveaxis(x.astype(jnp.promote_types(x.dtype, jnp.float32)), 1, 0)
        image = batch["image"]
        image = image.astype(jnp.promote_types(image.dtype, jnp.float32)) / 127.5 - 1
        return jnp.moveaxis(image, 1, 0)

    def train_step(state, batch, key, *, axis=None):
        kind = next(kind for kind in kinds if kind in batch)
        x = seen(batch, kind)
        if "target" not in batch:
            return answer(state, batch, kind, x, axis), dict(state.control["newest"])
        now = (state.params["now"][kind], state.model_state["now"][kind], state.opt_state[kind])
        local = batch["local"][0, 0]

        def begin():
            keys = jax.vmap(lambda seed: jax.random.fold_in(key, seed))(batch["seed"][0])
            new = each(kind, lambda key: fresh(kind, state.params["start"], key), keys)
            new = jax.tree.map(lambda x, old: x.astype(old.dtype), new, now[:2])
            return (*new, jax.tree.map(jnp.zeros_like, now[2]))

        now = jax.lax.cond(local == 0, begin, lambda: now)
        if kind != "head":
            # Of a photograph's number in the batch alone, so that what is compared has seen the same.
            draw = jax.vmap(jax.vmap(lambda n: jax.random.fold_in(jax.random.key(config.seed), n)))
            x = jax.vmap(vary_headshots)(x, draw(batch["draw"].T))
        params, stats, opt, loss, skipped = each(
            kind,
            functools.partial(learn, kind, axis),
            *now,
            x,
            batch["target"].T,
            batch["weight"].T,
        )
        ema = dict(state.ema)
        if config.ema:
            share = jnp.where(local == 0, 0.0, jnp.minimum(config.ema, (1 + local) / (10 + local)))
            mix = lambda slow, new: (share * slow + (1 - share) * new).astype(new.dtype)
            ema[kind] = jax.tree.map(mix, ema[kind], params)
        counts = count_skips(state.control["skipped"], {"model": skipped.any()})
        newest = {"loss/class": loss.mean().astype(jnp.float32)}
        put = lambda tree, new: tree | {"now": tree["now"] | {kind: new}}
        state = state.replace(
            step=state.step + 1,
            params=put(state.params, params),
            opt_state=state.opt_state | {kind: opt},
            model_state=put(state.model_state, stats),
            ema=ema,
            control=state.control | {"skipped": counts, "newest": newest},
        )
        return state, newest | {f"skipped/{name}": value for name, value in counts.items()}

    def answer(state, batch, kind, x, axis):
        """What the finished models say of those they are asked about; the one to be used is kept."""
        params = (state.ema if config.ema else state.params["now"])[kind]
        stats = state.model_state["now"][kind]
        told = each(
            kind, lambda params, stats, x: look(kind, params, stats, x)[0], params, stats, x
        )
        told = jnp.moveaxis(gather(jnp.moveaxis(told, 1, 0), axis), 1, 0)  # [G, answers]
        answers = state.control["answers"].at[batch["job"][0]].set(told.astype(jnp.float32))
        state = state.replace(step=state.step + 1, control=state.control | {"answers": answers})
        if kind != kinds[0]:
            return state
        keep = batch["keep"][0]
        kept = lambda old, new: jnp.where(keep.any(), new[jnp.argmax(keep)], old)
        return state.replace(
            params=state.params | {"kept": jax.tree.map(kept, state.params["kept"], params)},
            model_state=state.model_state
            | {"kept": jax.tree.map(kept, state.model_state["kept"], stats)},
        )

    @functools.cache
    def resident():
        for job in photos.plan:  # what cannot be split is told before features are made
            photos.split(job)
        found = {}
        if "head" in kinds:
            augmented = "transfer_augmented" in headshots.words(config.methods)
            copies = config.copies if augmented else 0
            found["features"] = headshots.features_of(photos, nets["head"], copies)
        if set(kinds) - {"head"} and photos.fit_in_memory:
            found["image"] = photos.images
        return found

    def batches(first, process_index=0, process_count=1):
        return headshots.JobBatches(photos, groups(), first, process_index, process_count)

    @functools.cache
    def kept() -> int | None:
        """Number of the job whose model is to be used; None in a study of budgets."""
        return next((n for n, job in enumerate(photos.plan) if job.fold < 0), None)

    def is_kept(state) -> bool:
        """Whether the model that is to be used has been trained."""
        return kept() is not None and bool(np.isfinite(state.control["answers"][kept()]).all())

    def variables(state) -> dict:
        """Of the model that is to be used: {"body": the backbone's, "head": the head's}."""
        params, stats = state.params["kept"], state.model_state["kept"]
        body = nets[kinds[0]].variables
        if "body" in params:
            body = {"params": params["body"]}
            body |= {"batch_stats": stats["body"]} if stats["body"] else {}
        return {"body": body, "head": {"params": params["head"], "batch_stats": stats["head"]}}

    @jax.jit
    def ask(variables, images):
        """(features [N, F], logits [N]) of images [N, S, S, C] in [-1, 1]."""
        features, _ = nets[kinds[0]](variables["body"], images)
        return features, H.apply(variables["head"], features)

    def heat(variables, images, sign):
        """Grad-CAM [N, h, w] of images [N, S, S, C] in [-1, 1]; sign [N]: -1 explains the answer 0."""
        network, seen = nets[kinds[0]], []
        network.watched(variables["body"], images, lambda maps: seen.append(maps) or maps)

        def score(maps):
            y, _ = network.watched(variables["body"], images, lambda _: maps)
            return sign * H.apply(variables["head"], y)

        return gradcam.grad_cam(score, seen[0])

    def explained(state, key) -> dict:
        """Where the answers come from, in photographs of validation, and whether weights matter for it."""
        rows = photos.split(photos.plan[kept()]).validation
        if not len(rows):
            return {}
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, 12).astype(int))]
        pixels, learned = photos.pixels(rows), variables(state)
        images = jnp.asarray(pixels, jnp.float32) / 127.5 - 1
        sign = np.where(np.asarray(ask(learned, images)[1]) >= 0, 1, -1)
        explain = functools.partial(heat, images=images, sign=sign)
        random = [gradcam.shuffled(learned, jax.random.fold_in(key, n)) for n in range(3)]
        results = gradcam.depends_on_weights(explain, learned, random, photos.table.subject[rows])
        shown = [
            picture
            for image, one in zip(pixels, explain(learned))
            for picture in (
                np.broadcast_to(image, (*image.shape[:2], 3)),
                gradcam.overlay(image, one),
            )
        ]
        caption = (
            f"What the answers rest on (Grad-CAM), {config.task}: photographs of validation beside what "
            f"spoke for the answer given. {gradcam.verdict(results['gradcam_rank'])}"
        )
        results["gradcam"] = Figure(np.stack(shown), 6, caption, photographs=True)
        return results

    def judge(state, key):
        results = headshots.judge(photos, np.asarray(state.control["answers"]))
        return results | (explained(state, key) if is_kept(state) else {})

    def sample(state, key, number, label=""):
        return photos.preview(number)

    def readings(state, path):
        """A photograph, or each in a folder, by the model that has learned from everybody."""
        if not is_kept(state):
            raise UserError(
                "this run has no model that is finished and learned from everybody: let it train to its end "
                "(a study of budgets keeps none)."
            )
        found = photos.split(photos.plan[kept()])
        logit = state.control["answers"][kept()][: len(found.validation)]
        label = photos.table.label[found.validation]
        network = functools.partial(ask, variables(state))
        features = []
        for first in range(0, len(found.learn), headshots.CHUNK):
            rows = np.resize(found.learn[first : first + headshots.CHUNK], headshots.CHUNK)
            features.append(network(photos.pixels(rows).astype(np.float32) / 127.5 - 1)[0])
        known = headshots.Known(
            np.concatenate(features)[: len(found.learn)],
            photos.table.subject[found.learn],
            *headshots.calibrated(label, logit.astype(np.float64), config.sensitivity),
        )
        path = pathlib.Path(path)
        folder = path if path.is_dir() else path.parent
        for name in list_images(path) if path.is_dir() else [path.name]:
            try:
                image = prepare(read_image(folder / name), config.side).image
            except UserError as error:
                yield name, error
                continue
            seen = (
                image if config.channels == 3 else np.asarray(Image.fromarray(image).convert("L"))
            )
            x = seen.reshape(1, config.side, config.side, -1).astype(np.float32) / 127.5 - 1
            features, logit = (np.asarray(y)[0] for y in network(x))
            yield (
                name,
                headshots.read_photograph(config.task, image, features, float(logit), known),
            )

    @functools.cache
    def consumed():
        return headshots.consumed(photos, groups())

    return System(
        init=init,
        train_step=train_step,
        batches=batches,
        evals={"headshots": judge},
        sample=sample,
        readings=readings,
        resident=resident,
        preview=photos.preview,
        num_steps=lambda: groups()[-1].first + groups()[-1].steps,
        consumed=lambda step: consumed()(step),
    )
