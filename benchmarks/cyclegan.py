"""A plain CycleGAN step (Zhu et al. 2017, arXiv 1703.10593) of our networks, losses and image pool.

No system of ours is plain CycleGAN: uvphoto_v2 takes what it needs of it into a step of its own. This is for
timing beside PyTorch at equal settings.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from jaxface import losses, uv
from jaxface.models.patchgan import PatchGAN
from jaxface.models.translator import Translator
from jaxface.ops import pool
from jaxface.parallel import pmean
from jaxface.system import RunConfig, TrainState
from jaxface.updates import update


@dataclasses.dataclass
class Config(RunConfig):
    """The published settings."""

    batch: int = 1
    side: int = 128  # px
    ngf: int = 64
    ndf: int = 64
    blocks: int = 9
    lambda_cycle: float = 10.0
    identity: float = 0.5  # of lambda_cycle, on pictures that are of the target's kind already
    learning_rate: float = 2e-4
    pool: int = 50


def build(config: Config):
    """(init, train_step) as a System has them."""
    G = Translator(3, config.blocks, config.ngf)
    D = PatchGAN(ndf=config.ndf, norm="instance")
    tx = optax.adam(config.learning_rate, b1=0.5, b2=0.999)

    def init(key):
        image = jnp.zeros([1, config.side, config.side, 3])
        both = lambda net, keys: {n: net.init(k, image)["params"] for n, k in zip("ab", keys)}
        key_g, key_d = jax.random.split(key)
        params = {
            "generator": both(G, jax.random.split(key_g)),
            "discriminator": both(D, jax.random.split(key_d)),
        }
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params=params,
            opt_state={name: tx.init(tree) for name, tree in params.items()},
            model_state={},
            ema={},
            control={name: pool.empty(config.pool, config.side, 3) for name in "ab"},
        )

    def train_step(state, batch, key, *, axis=None):
        key_a, key_b = jax.random.split(jax.random.fold_in(key, state.step))
        real = {name: uv.scaled(batch[name]) for name in "ab"}
        params, opt_state = state.params, state.opt_state
        judge = lambda params, name, image: D.apply({"params": params[name]}, image, train=True)

        def generator_loss(generators):
            run = lambda name, x: G.apply({"params": generators[name]}, x, train=True)
            total, made = 0, {}
            for name, other in ("ab", "ba"):  # G["a"] makes a picture of kind b of one of kind a
                made[other] = run(name, real[name])
                back, same = run(other, made[other]), run(name, real[other])
                judged = judge(params["discriminator"], other, made[other])
                total += losses.least_squares_real(judged).mean()
                total += config.lambda_cycle * losses.l1(back, real[name]).mean()
                total += config.lambda_cycle * config.identity * losses.l1(same, real[other]).mean()
            return total, made

        (loss_g, made), grads = jax.value_and_grad(generator_loss, has_aux=True)(
            params["generator"]
        )
        loss_g, grads = pmean((loss_g, grads), axis)
        generator, opt_g, _ = update(tx, loss_g, grads, params["generator"], opt_state["generator"])

        shown, control = {}, {}
        for name, key in (("a", key_a), ("b", key_b)):
            shown[name], control[name] = pool.exchange(
                state.control[name], jax.lax.stop_gradient(made[name]), key
            )

        def discriminator_loss(discriminators):
            on = lambda images, told: sum(
                told(judge(discriminators, name, images[name])).mean() for name in "ab"
            )
            return (on(real, losses.least_squares_real) + on(shown, losses.least_squares_fake)) / 2

        loss_d, grads = jax.value_and_grad(discriminator_loss)(params["discriminator"])
        loss_d, grads = pmean((loss_d, grads), axis)
        discriminator, opt_d, _ = update(
            tx, loss_d, grads, params["discriminator"], opt_state["discriminator"]
        )
        state = state.replace(
            step=state.step + 1,
            params={"generator": generator, "discriminator": discriminator},
            opt_state={"generator": opt_g, "discriminator": opt_d},
            control=control,
        )
        return state, {"loss/generator": loss_g, "loss/discriminator": loss_d}

    return init, train_step
