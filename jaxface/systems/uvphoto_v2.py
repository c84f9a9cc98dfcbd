"""UV-photo Net v2: pairs of the device and phone photographs without a partner, learned together.

Announced in the report of KAKENHI 20K12058: paired device data train as in pix2pix (Isola et al. 2017,
arXiv 1611.07004), unpaired phone photographs as in CycleGAN (Zhu et al. 2017, arXiv 1703.10593), jointly.
How the two are joined is not published. Here they share the generator G from color to UV, and so does the
inverse F from UV to color:

  pairs (x, y)    BCE of D(x, G(x)) + lambda_l1 (|G(x) - y| + |F(y) - x|)
  phones x'       least squares of D_uv(G(x')) + lambda_cycle |F(G(x') + noise) - x'|
  pairs again     least squares of D_rgb(F(y)) + lambda_cycle |G(F(y)) - y|

weighted with 1, `unpaired` and `unpaired`. D_uv learns from real UV photographs, D_rgb from phone ones.
Phones, and the second and third row with them, take part in every `phones_every`-th step. The noise keeps G
from hiding x' in G(x') for F to find (Chu et al. 2017, arXiv 1712.02950).

A G that learns phones forgets some of the device. `keep_start` gives back what it knew: the weights that
are judged and used lie between those that the run began with and those it came to, after WiSE-FT (Wortsman
et al. 2022, arXiv 2109.01903, equation 1, whose recommended middle is one half).
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import optax

from jaxface import losses, uv
from jaxface.errors import UserError
from jaxface.models.alexnet_d import AlexNetD
from jaxface.models.patchgan import PatchGAN
from jaxface.models.translator import Translator
from jaxface.models.unet import UNet
from jaxface.ops import pool
from jaxface.ops.camera import other_camera
from jaxface.ops.warp import vary
from jaxface.parallel import gather, pmean
from jaxface.schedules import constant_then_linear
from jaxface.system import System, TrainState
from jaxface.updates import count_skips, no_skips, norm, unless, update

GENERATORS = ("generator", "inverse")
DISCRIMINATORS = ("discriminator", "discriminator_uv", "discriminator_rgb")
PAIRED = ("generator", "discriminator", "l1", "detail")  # losses of every step
JOINT = ("l1_inverse", "generator_uv", "generator_rgb", "cycle_phone", "cycle_uv")
JOINT += ("discriminator_uv", "discriminator_rgb")  # of those in which phones take part


@dataclasses.dataclass
class Config(uv.PhotoConfig):
    """One run; most of its fields are `uv.PhotoConfig`'s. CG = CycleGAN's settings, ours = chosen here."""

    inverse_ngf: int = 64  # filters of F, a residual translator (CG)
    inverse_blocks: int = 9  # CG: 9 at 256 px, 6 at 128 px
    lambda_cycle: float = 10.0  # CG
    unpaired: float = 1.0  # weight of all that phones take part in (ours)
    phones_every: int = (
        1  # steps from one with phones to the next; the others know pairs alone (ours)
    )
    noise: float = 0.02  # standard deviation added to G(x') before F, in [-1, 1] (ours)
    camera: float = 0.5  # chance that a device photograph is seen as by another camera (ours)
    keep_start: float = 0.0  # share of what the run began with in the G that is used (ours)
    pool: int = 50  # earlier results kept for the unconditional discriminators (CG)


def networks(config: Config) -> dict:
    """The five modules that a config describes."""
    dtype = jnp.bfloat16 if config.precision == "bfloat16" else None
    return {
        "generator": UNet(
            1, config.levels, config.ngf, config.norm, config.dropout, dtype, config.init_type
        ),
        "inverse": Translator(3, config.inverse_blocks, config.inverse_ngf, dtype=dtype),
        "discriminator": AlexNetD(config.ndf, config.norm, 16 * config.ndf, dtype=dtype),
        "discriminator_uv": PatchGAN(ndf=config.ndf, norm="instance", dtype=dtype),
        "discriminator_rgb": PatchGAN(ndf=config.ndf, norm="instance", dtype=dtype),
    }


def check(config: Config) -> None:
    """Raises UserError for settings that cannot train, before anything is read or computed."""
    uv.check(config)
    if config.phones_every < 1:
        raise UserError(f"config.phones_every={config.phones_every}: use 1 or more.")
    if not 0 <= config.keep_start < 1:
        raise UserError(f"config.keep_start={config.keep_start}: use 0 or more and less than 1.")
    if config.pool < config.batch:
        raise UserError(
            f"config.pool={config.pool} is smaller than config.batch={config.batch}: use {config.batch} "
            "or more."
        )


def build(config: Config, start=None) -> System:
    """The method as pure functions of a state, closed over `config`. Opens data only when asked.

    Args:
      start: what config.init_from names, read: {"params": {"generator", ...}, "model_state": {...}}.
        If it is a v1, it is measured beside the result on the same people.
    """
    check(config)
    if config.keep_start and not start:
        raise UserError(
            f"config.keep_start={config.keep_start} is a share of the network that --init_from names, and "
            "there is none: name a run of uvphoto, or use --config.keep_start=0."
        )
    nets = networks(config)
    half = round(config.constant * config.num_steps)
    rate = constant_then_linear(config.learning_rate, max(half, 1), config.num_steps - half)

    def optimizer(name):
        """Adam of one network, at the rate of the run's step however seldom it moves."""
        every = 1 if name in (GENERATORS[0], DISCRIMINATORS[0]) else config.phones_every
        return optax.flatten(optax.adam(lambda count: rate(count * every), b1=0.5, b2=0.999))

    tx = {name: optimizer(name) for name in nets}

    def init(key):
        color = jnp.zeros([2, config.patch, config.patch, 3])
        gray = color[..., :1]
        shown = {
            "generator": color,
            "inverse": gray,
            "discriminator": jnp.concatenate([color, gray], -1),
            "discriminator_uv": gray,
            "discriminator_rgb": color,
        }
        keys = dict(zip(nets, jax.random.split(key, len(nets))))
        made = {name: nets[name].init(keys[name], shown[name]) for name in nets}
        params = {name: variables["params"] for name, variables in made.items()}
        stats = {name: uv.statistics(variables) for name, variables in made.items()}
        begun = {"params": params["generator"], "model_state": stats["generator"]}
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params=params,
            opt_state={name: tx[name].init(tree) for name, tree in params.items()},
            model_state=stats,
            ema={},
            control={
                "photographs": uv.no_facts(),
                "pool_uv": pool.empty(config.pool, config.patch, 1),
                "pool_rgb": pool.empty(config.pool, config.patch, 3),
                "skipped": no_skips(*nets),
                "newest": {f"loss/{name}": jnp.float32(0) for name in PAIRED + JOINT}
                | {f"gradient/{name}": jnp.float32(0) for name in nets},
            }
            | ({"begun": jax.tree.map(jnp.copy, begun)} if config.keep_start else {}),
        )

    def train_step(state, batch, key, *, axis=None):
        key = jax.random.fold_in(key, state.step)
        key_pair, key_phone, key_camera, key_noise, key_drop, key_uv, key_rgb = jax.random.split(
            key, 7
        )
        example, rows = batch["example"], len(batch["example"])
        # Whether phones take part is told by the batch's structure: two programs are compiled.
        joint = "phone" in batch
        each = lambda key: jax.vmap(lambda e: jax.random.fold_in(key, e))(example)
        pair = uv.scaled(jnp.concatenate([batch["color"], batch["uv"]], -1))
        pair = vary(pair, each(key_pair), config.patch, config.warp)
        device, real = pair[..., :3], pair[..., 3:]
        seen = other_camera(device, each(key_camera), config.camera)
        shown = seen
        if joint:
            phone = vary(uv.scaled(batch["phone"]), each(key_phone), config.patch, config.warp)
            noise = jax.vmap(lambda k: jax.random.normal(k, real.shape[1:], real.dtype))(
                each(key_noise)
            )
            shown = jnp.concatenate([seen, phone])

        calls = itertools.count()  # each pass through a network drops units of its own

        def run(name, params, stats, x):
            """`uv.run` of a network by its name; how its statistics moved goes to `stats`."""
            number = jnp.tile(example, len(x) // rows)
            key = jax.random.fold_in(key_drop, next(calls))
            y, moved = uv.run(nets[name], params[name], stats[name], x, key, number, axis=axis)
            return y, stats | {name: moved}

        def generator_loss(params):
            judges, stats = state.params, state.model_state
            translated, stats = run("generator", params, stats, shown)
            fake = translated[:rows]
            on_pair, _ = run("discriminator", judges, stats, jnp.concatenate([seen, fake], -1))
            terms = {
                "generator": losses.generator_nonsaturating(on_pair).mean(),
                "l1": losses.l1(fake, real).mean(),
                "detail": losses.detail(fake, real, uv.DETAIL).mean(),
            }
            total = terms["generator"] + config.lambda_l1 * terms["l1"]
            total += config.lambda_detail * terms["detail"]
            if not joint:
                return total, (terms, stats, {"fake": fake})
            fake_phone = translated[rows:]
            noisy = fake_phone + config.noise * noise
            back, stats = run("inverse", params, stats, jnp.concatenate([real, noisy]))
            made, back_phone = jnp.split(back, 2)
            again, stats = run("generator", params, stats, made)
            on_uv, _ = run("discriminator_uv", judges, stats, fake_phone)
            on_rgb, _ = run("discriminator_rgb", judges, stats, made)
            terms |= {
                "l1_inverse": losses.l1(made, device).mean(),
                "generator_uv": losses.least_squares_real(on_uv).mean(),
                "generator_rgb": losses.least_squares_real(on_rgb).mean(),
                "cycle_phone": losses.l1(back_phone, phone).mean(),
                "cycle_uv": losses.l1(again, real).mean(),
            }
            unpaired = terms["generator_uv"] + terms["generator_rgb"]
            unpaired += config.lambda_cycle * (terms["cycle_phone"] + terms["cycle_uv"])
            total += config.lambda_l1 * terms["l1_inverse"] + config.unpaired * unpaired
            return total, (terms, stats, {"fake": fake, "fake_phone": fake_phone, "made": made})

        def discriminator_loss(params, stats):
            """All at once: what one is told does not depend on the others."""

            def judge(name, fake, real, of_fake, of_real):
                nonlocal stats
                on_fake, stats = run(name, params, stats, fake)
                on_real, stats = run(name, params, stats, real)
                return (of_fake(on_fake).mean() + of_real(on_real).mean()) / 2

            logistic = (losses.discriminator_logistic_fake, losses.discriminator_logistic_real)
            squares = (losses.least_squares_fake, losses.least_squares_real)
            beside = lambda image: jnp.concatenate([seen, image], -1)
            told = {"discriminator": judge("discriminator", beside(fake), beside(real), *logistic)}
            if joint:
                told |= {
                    "discriminator_uv": judge("discriminator_uv", old_uv, real, *squares),
                    "discriminator_rgb": judge("discriminator_rgb", old_rgb, phone, *squares),
                }
            return sum(told.values()), (told, stats)

        # Generators first, then the discriminators on what was made before (CycleGAN's order).
        moving = GENERATORS if joint else GENERATORS[:1]
        (loss, (terms, stats, made)), grads = jax.value_and_grad(generator_loss, has_aux=True)(
            {name: state.params[name] for name in moving}
        )
        stats = {name: stats[name] for name in nets}
        made = jax.lax.stop_gradient(made)
        fake, pools = made["fake"], {}
        if joint:
            old_uv, pools["pool_uv"] = exchanged(
                state.control["pool_uv"], made["fake_phone"], key_uv, axis
            )
            old_rgb, pools["pool_rgb"] = exchanged(
                state.control["pool_rgb"], made["made"], key_rgb, axis
            )
        judging = DISCRIMINATORS if joint else DISCRIMINATORS[:1]
        (_, (told, stats)), grads_d = jax.value_and_grad(discriminator_loss, has_aux=True)(
            {name: state.params[name] for name in judging}, stats
        )
        loss, terms, told, grads, grads_d = pmean((loss, terms, told, grads, grads_d), axis)

        params, opt_state = dict(state.params), dict(state.opt_state)
        now = {name: jnp.asarray(False) for name in nets}
        for name, gradient in (grads | grads_d).items():
            params[name], opt_state[name], now[name] = update(
                tx[name], told.get(name, loss), gradient, params[name], opt_state[name]
            )
        skipped = count_skips(state.control["skipped"], now)
        numbers = {f"loss/{name}": value for name, value in (terms | told).items()}
        numbers |= {f"gradient/{n}": norm(g) for n, g in (grads | grads_d).items()}
        newest = {name: jnp.asarray(value, jnp.float32) for name, value in numbers.items()}
        newest = state.control["newest"] | newest
        metrics = newest | {f"skipped/{name}": value for name, value in skipped.items()}
        metrics["rate"] = jnp.asarray(rate(state.step), jnp.float32)
        kept = {n: unless(now["generator"], new, state.control[n]) for n, new in pools.items()}
        state = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            model_state={n: unless(now[n], stats[n], state.model_state[n]) for n in nets},
            ema={},
            control=state.control
            | kept
            | {"photographs": uv.facts(batch), "skipped": skipped, "newest": newest},
        )
        return state, metrics

    rivals = {"v1": start} if start and "inverse" not in start["params"] else None
    return uv.Photographs(config).system(
        init,
        train_step,
        nets["generator"].apply,
        phones=config.phones_every,
        start=start,
        rivals=rivals,
        keep=config.keep_start,
    )


def exchanged(held: dict, images, key, axis):
    """`pool.exchange` of the whole batch, the same on every device; each gets its own rows back."""
    everyone = gather(images, axis)
    shown, held = pool.exchange(held, everyone, key)
    if axis is not None:
        first = jax.lax.axis_index(axis) * len(images)
        shown = jax.lax.dynamic_slice_in_dim(shown, first, len(images))
    return shown, held
