"""CleftGAN: StyleGAN3 transferred with adaptive augmentation from normal faces to cleft-lip faces.

Hayajneh et al., arXiv 2310.07969, on the alias-free generator of Karras et al. 2021 (arXiv
2106.12423), trained as in Karras et al. 2020 (StyleGAN2, arXiv 1912.04958: non-saturating loss, lazy
R1, EMA of the generator) with adaptive discriminator augmentation (ADA, arXiv 2006.06676). The paper
publishes neither gamma, batch, schedule nor augmentation settings: the fields below say where each
default comes from, and none of them is the paper's value unless it says so.
"""

import dataclasses
import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxface import losses, tours
from jaxface.data import pipeline
from jaxface.data.consent import in_folder
from jaxface.errors import UserError
from jaxface.metrics import copies, generator, judge, severity
from jaxface.metrics.dish import reported
from jaxface.models.discriminator import Discriminator, trainable_mask
from jaxface.models.stylegan3 import Generator
from jaxface.ops.augment import augment, blur
from jaxface.parallel import pmean
from jaxface.system import Export, Figure, Record, RunConfig, System, TrainState, fit
from jaxface.updates import count_skips, no_skips, norm, update

LAZY = 16  # discriminator steps between R1 penalties (StyleGAN2, appendix B)
SIDES = ("left", "right", "none")  # classes of config.condition_on
EVAL_BATCH = 32  # images a generator call makes outside training


@dataclasses.dataclass
class Config(RunConfig):
    """One run. Sources: SG3 = StyleGAN3's published settings, ADA = its paper, ours = chosen here."""

    # Data
    data: str = "phantom_cleft"  # a data set, or several joined by +
    split: str = "train"  # "train+heldout" is the paper's protocol: all 514 train
    resolution: int = 64  # px, a power of two (paper: 1024)
    channels: int = 3  # 3 color, 1 gray
    condition_on: str = ""  # "side": one class each for left, right, none; "": unconditional
    mirror: bool = True  # flip half of the reals; makes left and right clefts equally frequent
    num_subjects: int = 0  # people of a phantom, 0: its own default
    manifest: str = ""  # of a user's folder; "": manifest.csv in it
    purpose: str = "research"  # what the subjects in the manifest must have consented to
    ledger: str = ""  # folder of a consent ledger, which then decides; "": `consent` in data_dir
    max_bad_fraction: float = 0.001  # unreadable images of a user's folder that are left out
    align: bool = True  # detect, align, adjust color and blur the background of a user's images
    # Networks (SG3 unless said)
    variant: str = "t"  # "t" translation-equivariant (the paper's best), "r" rotation-equivariant
    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 2
    channel_base: int = 32768  # doubled by "r"
    channel_max: int = 512  # doubled by "r"
    num_layers: int = 14
    margin_size: int = 10
    discriminator_channel_base: int = 32768
    discriminator_channel_max: int = 512
    mbstd_group: int = 4
    precision: str = "float32"  # "bfloat16": the four highest resolutions of both networks
    remat: bool = False  # recompute the generator's convolutions too in the backward pass
    # Optimisation
    kimg: float = 460.0  # thousand reals shown; 460 names the paper's released snapshot
    generator_lr: float = 0.0025  # SG3
    discriminator_lr: float = 0.002  # SG3
    gamma: float = 6.6  # R1 weight, SG3's MetFaces transfer at 1024 px
    ema_kimg: float = 0.0  # half-life of the averaged generator, 0: batch * 10 / 32 (SG3)
    ema_rampup: float = 0.05  # share of the images so far; SG3 switches it off for transfer
    blur_kimg: float = 0.0  # fade of the blur on D's input, "r" only; 0: batch * 200 / 32 (SG3)
    freeze_discriminator: int = 0  # FreezeD: layers from the input that stay as transferred
    # Augmentation
    augment_pipe: str = "bgc"  # ADA's; "" for none
    augment_target: float = 0.6  # ADA
    augment_kimg: float = 0.0  # for p to go from 0 to 1; 0: 500, or 100 for transfer (SG3)
    augment_p: float = 0.0  # where p starts
    # Judgement
    normals: str = (
        ""  # data set of people without a cleft that severity is measured from; "": no DISH
    )
    normals_dir: str = ""  # its folder, if it reads one
    normals_people: int = 600  # of it, if it is a phantom
    inception: str = ""  # FID's weights, pt_inception-2015-12-05-6726825d.pth; "": no FID
    eval_images: int = 1000  # generated images that KID and FD compare with the training set
    truncation: float = 1.0  # psi of grids and --mode=sample (the paper's demo: 0.99)
    truncation_cutoff: int = 0  # layers from the first that psi acts on, 0: all

    @property
    def num_steps(self) -> int:
        return max(1, round(self.kimg * 1000 / self.batch))


def networks(config: Config) -> tuple[Generator, Discriminator]:
    """The two modules that a config describes."""
    double = 2 if config.variant == "r" else 1
    low_precision = 4 if config.precision == "bfloat16" else 0
    classes = len(SIDES) if config.condition_on else 0
    generator = Generator(
        z_dim=config.z_dim,
        c_dim=classes,
        w_dim=config.w_dim,
        img_resolution=config.resolution,
        img_channels=config.channels,
        mapping_kwargs={"num_layers": config.mapping_layers},
        channel_base=config.channel_base * double,
        channel_max=config.channel_max * double,
        num_layers=config.num_layers,
        margin_size=config.margin_size,
        conv_kernel=1 if config.variant == "r" else 3,
        use_radial_filters=config.variant == "r",
        num_fp16_res=low_precision,
        remat=config.remat,
    )
    discriminator = Discriminator(
        c_dim=classes,
        img_resolution=config.resolution,
        img_channels=config.channels,
        channel_base=config.discriminator_channel_base,
        channel_max=config.discriminator_channel_max,
        epilogue_kwargs={"mbstd_group_size": config.mbstd_group},
        num_fp16_res=low_precision,
    )
    return generator, discriminator


def check(config: Config) -> None:
    """Raises UserError for settings that cannot train, before anything is read or computed."""
    if config.resolution < 16 or config.resolution & (config.resolution - 1):
        raise UserError(
            f"config.resolution={config.resolution} is not a power of two of at least 16: "
            "use 32, 64, 128, 256, 512 or 1024."
        )
    choices = {
        "variant": ("t", "r"),
        "precision": ("float32", "bfloat16"),
        "channels": (1, 3),
        "condition_on": ("", "side"),
        "compile": ("jit", "pmap"),
    }
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise UserError(
                f"config.{name}={getattr(config, name)!r}: use one of {', '.join(map(repr, allowed))}."
            )
    group = min(config.mbstd_group, config.batch // config.accumulate)
    if group and (config.batch // config.accumulate) % group:
        raise UserError(
            f"config.batch={config.batch} in {config.accumulate} part(s) does not split into "
            f"groups of config.mbstd_group={config.mbstd_group}: use a multiple of "
            f"{config.mbstd_group * config.accumulate}."
        )


def build(config: Config, start=None) -> System:
    """The method as pure functions of a state, closed over `config`. Opens data only when asked.

    Args:
      start: what config.init_from names, read: {"params": {"generator", "discriminator"},
        "model_state": {"generator"}, "ema": {"params", "stats"}} of numpy arrays, or None.
    """
    check(config)
    G, D = networks(config)
    transfer = start is not None
    if transfer and not start.get("ema"):
        raise UserError(
            "--init_from: these networks translate pictures; give those of a style generator."
        )
    ema_images = 1000 * (config.ema_kimg or config.batch * 10 / 32)
    augment_images = 1000 * (config.augment_kimg or (100 if transfer else 500))
    blur_images = 1000 * (config.blur_kimg or config.batch * 200 / 32)
    blur_sigma = 10.0 if config.variant == "r" and not transfer else 0.0
    # One vector for all weights: less to trace and to compile than a leaf at a time.
    adam = lambda lr, b2: optax.flatten(optax.adam(lr, b1=0.0, b2=b2, eps=1e-8))
    generator_tx = adam(config.generator_lr, 0.99)
    # R1 every 16th step is a 17th update: rates shrink so that 17 lazy ones equal 16 full ones.
    ratio = LAZY / (LAZY + 1)
    discriminator_tx = optax.partition(
        {
            True: adam(config.discriminator_lr * ratio, 0.99**ratio),
            False: optax.set_to_zero(),
        },
        lambda params: trainable_mask(params, config.freeze_discriminator),
    )

    @functools.cache
    def faces() -> pipeline.Faces:
        return pipeline.open_faces(config)

    def classes(side: np.ndarray) -> np.ndarray:
        """[N] side names -> one-hot float32 [N, 3]; a side not known counts as none."""
        return np.stack(
            [np.eye(3, dtype=np.float32)[SIDES.index(s) if s in SIDES else 2] for s in side]
        )

    # ---- one training step ------------------------------------------------------------------

    def init(key):
        # Under jit: eager initialisation would compile every layer's little operations one by one.
        key_g, key_d = jax.random.split(key)
        images = jnp.zeros([1, config.resolution, config.resolution, config.channels])
        label = jnp.zeros([1, len(SIDES)]) if config.condition_on else None
        variables = G.init(key_g, jnp.zeros([1, config.z_dim]), label)
        d_params = D.init(key_d, images, label)["params"]
        params = {"generator": variables["params"], "discriminator": d_params}
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params=params,
            opt_state={
                "generator": generator_tx.init(params["generator"]),
                "discriminator": discriminator_tx.init(d_params),
            },
            model_state={"generator": variables["stats"]},
            # Copies: the step donates its state, and one buffer must not be donated twice.
            ema=jax.tree.map(
                jnp.copy, {"params": params["generator"], "stats": variables["stats"]}
            ),
            control={
                "augment_p": jnp.asarray(config.augment_p, jnp.float32),
                "sign_mean": jnp.zeros([], jnp.float32),  # of D on reals since p last moved
                "r1": jnp.zeros([], jnp.float32),  # the newest penalty, for the log
                "skipped": no_skips("generator", "discriminator", "r1"),
            },
        )

    # Within jit so that each is traced once, not at every one of its uses in the step.
    @functools.partial(jax.jit, static_argnames="axis")
    def fake(variables, z, label, axis):
        return G.apply(variables, z, label, axis=axis)

    @functools.partial(jax.jit, static_argnames="axis")
    def fake_and_measure(variables, z, label, axis):
        """Also the running means that move."""
        images, changed = G.apply(
            variables, z, label, update_emas=True, axis=axis, mutable=["stats"]
        )
        return images, changed["stats"]

    @functools.partial(jax.jit, static_argnames="axis")
    def score(d_params, images, rows, keys, p, sigma, axis):
        """What D says of images as it is shown them: blurred ("r"), then augmented. -> [n, 1]"""
        if blur_sigma:
            images = blur(images, sigma, blur_sigma)
        if config.augment_pipe:
            images = augment(images, keys, p, config.augment_pipe, index=rows["example"])
        return D.apply({"params": d_params}, images, rows.get("label"), axis=axis)

    def latent(key, rows):
        """A z of its own for every example, whatever device it is on. -> [n, z_dim]"""
        draw = lambda example: jax.random.normal(jax.random.fold_in(key, example), [config.z_dim])
        return jax.vmap(draw)(rows["example"])

    def gradients(loss_fn, params, stats, rows, axis):
        """Mean gradient over the batch, in micro-batches if the config says so.

        `loss_fn(params, stats, rows) -> (loss, (stats, metrics))`; rows are dealt out by turns, so
        that each device has its share of every micro-batch.
        """
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        parts = config.accumulate
        if parts == 1:
            (loss, (stats, metrics)), grads = grad_fn(params, stats, rows)
        else:
            deal = lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

            def one(stats, rows):
                (loss, (stats, metrics)), grads = grad_fn(params, stats, rows)
                return stats, (loss, metrics, grads)

            stats, outs = jax.lax.scan(one, stats, jax.tree.map(deal, rows))
            loss, metrics, grads = jax.tree.map(lambda x: x.mean(0), outs)
        loss, metrics, grads = pmean((loss, metrics, grads), axis)
        return loss, stats, metrics, grads

    def train_step(state, batch, key, *, axis=None):
        step, control = state.step, state.control
        key = jax.random.fold_in(key, step)
        key_z_g, key_z_d, key_aug_g, key_aug_f, key_aug_r, key_aug_r1, key_flip = jax.random.split(
            key, 7
        )
        p = control["augment_p"]
        shown = step.astype(jnp.float32) * config.batch
        sigma = jnp.maximum(1 - shown / blur_images, 0) * blur_sigma
        rows = {"example": batch["example"]} | {k: batch[k] for k in ("label",) if k in batch}
        exact = jnp.promote_types(batch["image"].dtype, jnp.float32)
        reals = batch["image"].astype(exact) / 127.5 - 1
        if config.mirror:
            flip = jax.vmap(lambda e: jax.random.bernoulli(jax.random.fold_in(key_flip, e)))(
                rows["example"]
            )
            reals = jnp.where(flip[:, None, None, None], reals[:, :, ::-1], reals)
        real_rows = {"rows": rows, "image": reals}

        # Generator: make D call fakes real.
        g_params, d_params = state.params["generator"], state.params["discriminator"]
        stats = state.model_state["generator"]

        def generator_loss(g_params, stats, rows):
            variables = {"params": g_params, "stats": stats}
            fakes = fake(variables, latent(key_z_g, rows), rows.get("label"), axis=axis)
            logits = score(d_params, fakes, rows, key_aug_g, p, sigma, axis=axis)
            return losses.generator_nonsaturating(logits).mean(), (stats, {})

        loss_g, _, _, grads_g = gradients(generator_loss, g_params, stats, rows, axis)
        g_params, opt_g, skipped_g = update(
            generator_tx, loss_g, grads_g, g_params, state.opt_state["generator"]
        )

        # Discriminator: tell reals from the new generator's fakes. Here the running means move.
        def discriminator_loss(d_params, stats, real_rows):
            rows = real_rows["rows"]
            variables = {"params": g_params, "stats": stats}
            z, label = latent(key_z_d, rows), rows.get("label")
            fakes, stats = fake_and_measure(variables, z, label, axis=axis)
            on_fakes = score(d_params, fakes, rows, key_aug_f, p, sigma, axis=axis)
            on_reals = score(d_params, real_rows["image"], rows, key_aug_r, p, sigma, axis=axis)
            loss = losses.discriminator_logistic_fake(
                on_fakes
            ) + losses.discriminator_logistic_real(on_reals)
            metrics = {
                "logits/fake": on_fakes.mean(),
                "logits/real": on_reals.mean(),
                "ada/sign": jnp.sign(on_reals).mean(),
            }
            return loss.mean(), (stats, metrics)

        loss_d, new_stats, metrics, grads_d = gradients(
            discriminator_loss, d_params, stats, real_rows, axis
        )
        d_params, opt_d, skipped_d = update(
            discriminator_tx, loss_d, grads_d, d_params, state.opt_state["discriminator"]
        )
        finite = jax.tree.reduce(
            jnp.logical_and, jax.tree.map(lambda x: jnp.isfinite(x).all(), new_stats), ~skipped_d
        )
        stats = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new_stats, stats)

        # R1 on reals, every 16th step and 16 times as strong.
        def penalty(d_params, stats, real_rows):
            def total(images):
                rows = real_rows["rows"]
                return score(d_params, images, rows, key_aug_r1, p, sigma, axis=axis).sum()

            squared = losses.r1_penalty(jax.grad(total)(real_rows["image"]))
            metrics = {"loss/r1": squared.mean()}
            return LAZY * (config.gamma / 2) * squared.mean(), (stats, metrics)

        # Whether it is due is told by the batch's structure, not its values: two programs are compiled.
        # One with lax.cond would run the penalty's convolutions 25 times slower on CPU.
        skipped_r1, r1 = jnp.asarray(False), control["r1"]
        if "penalty" in batch:
            loss, _, penalties, grads = gradients(penalty, d_params, {}, real_rows, axis)
            d_params, opt_d, skipped_r1 = update(discriminator_tx, loss, grads, d_params, opt_d)
            r1 = penalties["loss/r1"].astype(jnp.float32)

        # Averaged generator.
        half_life = ema_images
        if config.ema_rampup and not transfer:
            half_life = jnp.minimum(half_life, shown * config.ema_rampup)
        beta = 0.5 ** (config.batch / jnp.maximum(half_life, 1e-8))
        ema_params = jax.tree.map(
            lambda slow, new: new + (slow - new) * beta.astype(new.dtype),
            state.ema["params"],
            g_params,
        )

        # ADA: every 4 steps p moves towards the target share of reals that D is sure of.
        interval = 4
        sign_mean = control["sign_mean"] + metrics["ada/sign"].astype(jnp.float32) / interval
        due = step % interval == interval - 1
        move = (
            jnp.sign(sign_mean - config.augment_target) * config.batch * interval / augment_images
        )
        if config.augment_pipe:
            p = jnp.where(due & jnp.isfinite(sign_mean), jnp.clip(p + move, 0, 1), p)
        sign_mean = jnp.where(due | ~jnp.isfinite(sign_mean), 0, sign_mean)

        now = {"generator": skipped_g, "discriminator": skipped_d, "r1": skipped_r1}
        skipped = count_skips(control["skipped"], now)
        metrics = metrics | {
            "loss/generator": loss_g,
            "loss/discriminator": loss_d,
            "loss/r1": r1,
            "ada/p": p,
            "gradient/generator": norm(grads_g),
            "gradient/discriminator": norm(grads_d),
        }
        metrics |= {f"skipped/{k}": v for k, v in skipped.items()}
        state = TrainState(
            step=step + 1,
            params={"generator": g_params, "discriminator": d_params},
            opt_state={"generator": opt_g, "discriminator": opt_d},
            model_state={"generator": stats},
            ema={"params": ema_params, "stats": stats},
            control={"augment_p": p, "sign_mean": sign_mean, "r1": r1, "skipped": skipped},
        )
        return state, metrics

    # ---- data, pictures, judgement ----------------------------------------------------------

    def fields():
        """What stands beside each photograph, by record."""
        if not config.condition_on:
            return {}
        return {"label": classes(faces().labels["side"])}

    def batches(start, process_index=0, process_count=1):
        stream = not faces().fits_in_memory
        return pipeline.Batches(
            faces(),
            config.batch,
            config.seed,
            start,
            process_index,
            process_count,
            stream=stream,
            fields=fields() if stream else {},
            marks={"penalty": LAZY},
        )

    @functools.cache
    def consumed():
        """Photographs that were drawn; normal faces and people held out are measured and steer nothing."""
        drawn = pipeline.Batches(faces(), config.batch, config.seed).drawn
        return pipeline.Drawn(drawn, faces().who, len(faces()))

    kept = pathlib.Path(config.build_dir) / "features" if config.build_dir else None
    without_cleft = dataclasses.replace(
        config,
        data=config.normals,
        data_dir=config.normals_dir,
        manifest="",
        # What lies among the photographs of people with a cleft says nothing of other people.
        ledger=""
        if os.path.abspath(config.ledger) == in_folder(config.data_dir)
        else config.ledger,
        num_subjects=config.normals_people,
        split="train",
    )

    @functools.cache
    def normals() -> pipeline.Faces:
        return pipeline.open_faces(without_cleft)

    def comparable():
        """Whether there are normal faces of the same kind as the data."""
        kinds = (config.data, config.normals)
        return bool(config.normals) and len({pipeline.is_rendered(kind) for kind in kinds}) == 1

    def resident():
        if comparable():
            normals()  # what is wrong with it must not come out after hours of training
        if config.inception:
            judge.check_inception(config.inception)
        return {"image": faces().images} | fields() if faces().fits_in_memory else {}

    @functools.partial(jax.jit, static_argnames=("truncation", "cutoff"))
    def styles(variables, key, examples, label, truncation, cutoff):
        z = latent(key, {"example": examples})
        return G.apply(variables, z, label, truncation, cutoff or None, method="mapping")

    @jax.jit
    def synthesis(variables, ws, transforms=None):
        return G.apply(variables, ws, transform=transforms, method="synthesis")

    def paint(variables, ws, transforms=None):
        images = np.asarray(synthesis(variables, ws, transforms))
        return np.clip(np.rint(images * 127.5 + 127.5), 0, 255).astype(np.uint8)

    def styles_of(ema, key, number, truncation=1.0, cutoff=0, side=""):
        """Yields the styles of faces 0 to number - 1, EVAL_BATCH at a time: one compiled shape."""
        if side and side not in (SIDES if config.condition_on else ()):
            raise UserError(
                f"--label={side}: this generator was trained with "
                + (f"the labels {', '.join(SIDES)}." if config.condition_on else "no labels.")
            )
        for first in range(0, number, EVAL_BATCH):
            examples, label = np.arange(first, first + EVAL_BATCH), None
            if config.condition_on:
                one = np.full_like(examples, SIDES.index(side)) if side else examples % len(SIDES)
                label = np.eye(len(SIDES), dtype=np.float32)[one]
            yield styles(ema, key, examples, label, truncation, cutoff)

    def generate(ema, key, number, **settings):
        """Images of an averaged generator. -> uint8 [number, H, W, C]"""
        parts = [paint(ema, ws) for ws in styles_of(ema, key, number, **settings)]
        return np.concatenate(parts)[:number]

    shown = {"truncation": config.truncation, "cutoff": config.truncation_cutoff}

    def sample(state, key, number, label=""):
        return generate(state.ema, key, number, side=label, **shown)

    def painter(state, key, label):
        def all_styles(number):
            parts = styles_of(state.ema, key, number, side=label, **shown)
            return np.concatenate([np.asarray(ws) for ws in parts])[:number]

        def all_painted(ws, transforms):
            spare = -len(ws) % EVAL_BATCH
            fill = lambda x: np.concatenate([x, np.repeat(x[:1], spare, 0)])
            parts = zip(*(fill(x).reshape(-1, EVAL_BATCH, *x.shape[1:]) for x in (ws, transforms)))
            return np.concatenate([np.asarray(paint(state.ema, *part)) for part in parts])[
                : len(ws)
            ]

        return tours.Painter(all_styles, all_painted)

    def show(tour):
        return lambda state, key, number, label: tour(painter(state, key, label), number)

    @functools.cache
    def base_ema():
        shapes = jax.eval_shape(init, jax.random.key(config.seed))
        return fit(shapes.ema, start["ema"], "the averaged generator")

    def quality(state, key):
        """The same pictures of the averaged generator judged in every way; KID of its base beside."""
        fakes = generate(state.ema, key, config.eval_images)
        base = generate(base_ema(), key, config.eval_images) if transfer else None
        return distances(fakes, base) | audit(fakes) | dish_of(fakes)

    def distances(fakes, base=None):
        """Of any generated pictures from the training photographs."""
        subjects = faces().labels["subject"]
        results = judge.against(faces().images, subjects, fakes, base, kept)
        if config.inception:
            results |= judge.fid(faces().images, subjects, fakes, config.inception, kept)
        return results

    def judge_folder(folder):
        """Distances and DISH of a folder of pictures, whoever made them."""
        fakes = pipeline.read_pictures(folder, config.resolution, config.channels)
        return distances(fakes) | dish_of(fakes)

    def neighbours(state, key):
        """Each of 16 samples beside the two training photographs nearest to it."""
        return judge.neighbours(faces().images, generate(state.ema, key, 16), kept)

    def audit(fakes):
        """Whether samples repeat training photographs, and how well that would have been seen."""
        people, held_out = faces(), pipeline.held_out(config)
        if len(np.unique(people.labels["subject"])) < copies.MIN_PEOPLE:
            return {"review": Record(copies.write_unaudited)}
        found = copies.audit(
            fakes,
            people.images,
            people.labels["subject"],
            held_out and held_out.images,
            held_out and held_out.labels["subject"],
        )
        review = Record(lambda workdir, of: copies.write_review(workdir, found, of))
        return found.results() | {"copies": found.figure, "review": review}

    def dish_of(fakes):
        """Is the mix of severities that of the photographs? And does the score see the truth?"""
        if not comparable():
            return {}
        normal, people = normals(), faces()
        subjects, truth = people.labels["subject"], people.labels["severity"]
        scorer = severity.fit(normal.images, normal.labels["subject"])
        scores = scorer(people.images)
        if not scores.any():
            return {}  # nobody in the data has anything that a normal face has not
        results = reported(scores, scorer(fakes), subjects, severity.SCORER)
        others = pipeline.held_out(without_cleft)
        if np.isfinite(truth).all() and others:
            results["severity_r"] = severity.agreement(
                np.concatenate([scores, scorer(others.images)]),
                np.concatenate([truth, np.zeros(len(others))]),
                np.concatenate([subjects, others.labels["subject"]]),
            )
        return results | {"severity": scorer.figure(fakes[:16], photographs=False)}

    def motion(state, key):
        """Path length and equivariance of the averaged generator, at psi = 1."""
        mapped = jax.jit(lambda z, c: G.apply(state.ema, z, c, method="mapping"))
        painted = functools.partial(synthesis, state.ema)
        labels = np.eye(len(SIDES), dtype=np.float32)[np.arange(config.eval_images) % len(SIDES)]
        settings = {
            "samples": config.eval_images,
            "labels": labels if config.condition_on else None,
        }
        return generator.smoothness(
            mapped, painted, config.z_dim, batch=EVAL_BATCH // 2, **settings
        ) | generator.moving(
            mapped, painted, config.z_dim, batch=EVAL_BATCH, side=config.resolution, **settings
        )

    def export(state):
        """Both networks, and the averaged generator as a function of z (and of a one-hot label)."""
        takes = {"z": (config.z_dim,)} | ({"label": (len(SIDES),)} if config.condition_on else {})
        variables = {"params": state.params, "ema": state.ema, "model_state": state.model_state}
        return Export(variables, {"generator": (functools.partial(G.apply, state.ema), takes)})

    def progress(state, key):
        """KID alone, cheap enough to follow while training."""
        fakes = generate(state.ema, key, min(256, config.eval_images))
        return {"kid_mobilenetv2_training": judge.kid_value(faces().images, fakes, kept)}

    def preview():
        shown = np.linspace(0, len(faces()) - 1, min(len(faces()), 64)).astype(int)
        images = np.stack([faces().image(i) for i in shown])
        caption = f"Training photographs ({config.data}, {len(faces())} people)."
        return Figure(images, 8, caption, photographs=True)

    def start_from(state):
        """`state` with the networks of `start`; UserError lists every name and shape that differs."""
        ema = fit(state.ema, start["ema"], "the averaged generator")
        params, stats = start.get("params", {}), start.get("model_state", {})
        return state.replace(
            params={
                "generator": fit(
                    state.params["generator"],
                    params.get("generator", ema["params"]),
                    "the generator",
                ),
                "discriminator": fit(
                    state.params["discriminator"], params["discriminator"], "the discriminator"
                ),
            },
            model_state={
                "generator": fit(
                    state.model_state["generator"],
                    stats.get("generator", ema["stats"]),
                    "its means",
                )
            },
            ema=ema,
        )

    return System(
        init=init,
        train_step=train_step,
        batches=batches,
        evals={
            "quality": quality,
            "neighbours": neighbours,
            "motion": motion,
        },
        monitors={"kid": progress},
        sample=sample,
        judge_folder=judge_folder,
        release=copies.require_reviewed,
        export=export,
        shows={name: show(tour) for name, tour in tours.SHOWS.items()},
        resident=resident,
        preview=preview,
        start_from=start_from if transfer else None,
        consumed=lambda step: consumed()(step),
    )
