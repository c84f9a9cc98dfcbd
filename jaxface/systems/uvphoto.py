"""UV-photo Net: a color photograph of a face to the UV photograph that shows its pigment spots.

Kojima et al. 2021 (Sci Rep, 10.1038/s41598-020-79995-4): a U-Net translates overlapping 256 px patches
of facial skin, trained as pix2pix (Isola et al. 2017, arXiv 1611.07004) against an AlexNet-like
discriminator on pairs that one device took at the same moment; the patches are put back together at full
size. Layers, weights and schedule of the paper could not be read: the fields below say where each default
comes from, and none is the paper's value unless it says so.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from jaxface import losses, uv
from jaxface.models.alexnet_d import AlexNetD
from jaxface.models.patchgan import PatchGAN
from jaxface.models.unet import UNet
from jaxface.ops.warp import vary
from jaxface.parallel import pmean
from jaxface.schedules import constant_then_linear
from jaxface.system import System, TrainState
from jaxface.updates import count_skips, no_skips, norm, unless, update


@dataclasses.dataclass
class Config(uv.PhotoConfig):
    """One run; most of its fields are `uv.PhotoConfig`'s."""

    discriminator: str = "alexnet"  # the paper's kind; "patchgan" is pix2pix's 70 x 70


def networks(config: Config) -> tuple[UNet, AlexNetD | PatchGAN]:
    """The two modules that a config describes."""
    dtype = jnp.bfloat16 if config.precision == "bfloat16" else None
    generator = UNet(
        1, config.levels, config.ngf, config.norm, config.dropout, dtype, config.init_type
    )
    if config.discriminator == "alexnet":
        return generator, AlexNetD(config.ndf, config.norm, 16 * config.ndf, dtype=dtype)
    return generator, PatchGAN(ndf=config.ndf, norm=config.norm, dtype=dtype)


def check(config: Config) -> None:
    """Raises UserError for settings that cannot train, before anything is read or computed."""
    uv.check(config)
    uv.check_choice(config, "discriminator", ("alexnet", "patchgan"))


def build(config: Config, start=None) -> System:
    """The method as pure functions of a state, closed over `config`. Opens data only when asked.

    Args:
      start: what config.init_from names, read: {"params": {"generator", ...}, "model_state": {...}}.
    """
    check(config)
    G, D = networks(config)
    half = round(config.constant * config.num_steps)
    rate = constant_then_linear(config.learning_rate, max(half, 1), config.num_steps - half)
    tx = optax.flatten(optax.adam(rate, b1=0.5, b2=0.999))

    def init(key):
        key_g, key_d = jax.random.split(key)
        patch = jnp.zeros([2, config.patch, config.patch, 3])
        g = G.init(key_g, patch)
        d = D.init(key_d, jnp.concatenate([patch, patch[..., :1]], -1))
        params = {"generator": g["params"], "discriminator": d["params"]}
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params=params,
            opt_state=jax.tree.map(tx.init, params, is_leaf=lambda x: x is not params),
            model_state={"generator": uv.statistics(g), "discriminator": uv.statistics(d)},
            ema={},
            control={
                "photographs": uv.no_facts(),
                "skipped": no_skips("generator", "discriminator"),
            },
        )

    def train_step(state, batch, key, *, axis=None):
        key = jax.random.fold_in(key, state.step)
        key_vary, key_g, key_d = jax.random.split(key, 3)
        example = batch["example"]
        each = lambda key: jax.vmap(lambda e: jax.random.fold_in(key, e))(example)
        pair = jnp.concatenate([batch["color"], batch["uv"]], -1)
        pair = vary(uv.scaled(pair), each(key_vary), config.patch, config.warp)
        color, real = pair[..., :3], pair[..., 3:]
        g_params, d_params = state.params["generator"], state.params["discriminator"]
        g_stats, d_stats = state.model_state["generator"], state.model_state["discriminator"]

        def translate(params):
            return uv.run(G, params, g_stats, color, key_g, example, axis=axis)

        def judge(params, stats, image):
            """Logits of a color patch beside a UV patch, and D's statistics moved by them."""
            return uv.run(
                D, params, stats, jnp.concatenate([color, image], -1), key_d, example, axis=axis
            )

        # One pass through G serves both: D learns from its result, then G from D's new opinion of it.
        fake, back, g_stats = jax.vjp(translate, g_params, has_aux=True)

        def discriminator_loss(params):
            on_fake, stats = judge(params, d_stats, jax.lax.stop_gradient(fake))
            on_real, stats = judge(params, stats, real)
            loss = (
                losses.discriminator_logistic_fake(on_fake).mean()
                + losses.discriminator_logistic_real(on_real).mean()
            ) / 2
            return loss, stats

        (loss_d, d_stats), grads_d = jax.value_and_grad(discriminator_loss, has_aux=True)(d_params)
        loss_d, grads_d = pmean((loss_d, grads_d), axis)
        d_params, opt_d, skipped_d = update(
            tx, loss_d, grads_d, d_params, state.opt_state["discriminator"]
        )

        def generator_loss(fake):
            on_fake, _ = judge(d_params, d_stats, fake)
            gan = losses.generator_nonsaturating(on_fake).mean()
            distance = losses.l1(fake, real).mean()
            fine = losses.detail(fake, real, uv.DETAIL).mean()
            total = gan + config.lambda_l1 * distance + config.lambda_detail * fine
            return total, (gan, distance, fine)

        (loss_g, parts), to_fake = jax.value_and_grad(generator_loss, has_aux=True)(fake)
        (grads_g,) = back(to_fake)
        loss_g, (gan, distance, fine), grads_g = pmean((loss_g, parts, grads_g), axis)
        g_params, opt_g, skipped_g = update(
            tx, loss_g, grads_g, g_params, state.opt_state["generator"]
        )

        now = {"generator": skipped_g, "discriminator": skipped_d}
        skipped = count_skips(state.control["skipped"], now)
        metrics = {
            "loss/generator": gan,
            "loss/discriminator": loss_d,
            "loss/l1": distance,
            "loss/detail": fine,
            "gradient/generator": norm(grads_g),
            "gradient/discriminator": norm(grads_d),
            "rate": jnp.asarray(rate(state.step), jnp.float32),
        } | {f"skipped/{k}": v for k, v in skipped.items()}
        state = TrainState(
            step=state.step + 1,
            params={"generator": g_params, "discriminator": d_params},
            opt_state={"generator": opt_g, "discriminator": opt_d},
            model_state={
                name: unless(now[name], stats, state.model_state[name])
                for name, stats in (("generator", g_stats), ("discriminator", d_stats))
            },
            ema={},
            control={"photographs": uv.facts(batch), "skipped": skipped},
        )
        return state, metrics

    return uv.Photographs(config).system(init, train_step, G.apply, start=start)
