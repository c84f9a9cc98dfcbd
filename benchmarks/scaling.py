"""What a training step costs as devices grow, counted on the program and not measured: docs/scaling.md.

    python -m benchmarks.scaling [--devices=8]

Traces the step of each system at its published scale as each of so many devices runs it (`--config.compile=
pmap`), computes nothing, and adds up what the devices exchange: means over devices (gradients, statistics
of normalisation, losses) and rows gathered from all of them. Under jit the compiler places the same sums.
"""

import argparse
import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from benchmarks import steps
from experiments import cleftgan, edema_pretrain, headshots_sex, uvphoto, uvphoto_v2
from jaxface import backbones, parallel
from jaxface.models import inception


class Cost(NamedTuple):
    """Of one step. Bytes are those of one device."""

    parameters: dict[str, int]  # {network: numbers that a gradient is taken of}
    state_bytes: int  # parameters, optimizer, averages, statistics
    reduced_bytes: int  # that enter means over devices
    gathered_bytes: int  # that it gives for all to have


def headshots(config) -> steps.Run:
    """The published classifier; its weights are the user's, here they are zeros."""
    module = inception.Inception()
    blank = np.zeros([1, inception.SIDE, inception.SIDE, 3], np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), blank)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    _, _, side, pick, last = backbones.BACKBONES["inception_v3"]
    network = backbones.Backbone("inception_v3", module, variables, side, pick, last)
    with mock.patch.object(backbones, "load", lambda config, start: network):
        # One fold in place of 277: they are trained one after the other.
        return steps.classifier(dataclasses.replace(config, protocol="person_folds"))


def runs() -> dict[str, tuple[steps.Run, dict]]:
    """{name: (run at the published scale, one of its batches)}."""

    def translation(experiment, **phone):
        return steps.translation(experiment.paper, experiment.build(experiment.paper), **phone)

    gan = steps.stylegan3(cleftgan.paper)
    (plain, _), (due, _) = gan.batches
    found = {
        "uvphoto": translation(uvphoto),
        "uvphoto_v2": translation(uvphoto_v2, phone=True),
        "edema_pretrain": steps.contrast(edema_pretrain.paper),
        "headshots_sex": headshots(headshots_sex.paper),
    }
    found = {name: (run, run.batches[0][0]) for name, run in found.items()}
    return {"cleftgan": (gan, plain), "cleftgan, with R1": (gan, due)} | found


def inner(value) -> Iterator[core.Jaxpr]:
    """The programs inside an equation's parameters."""
    if isinstance(value, core.ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, core.Jaxpr):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from inner(part)


def exchanged(jaxpr: core.Jaxpr) -> dict[str, int]:
    """{"psum", "all_gather"}: bytes of one device that enter them."""
    total = {"psum": 0, "all_gather": 0}
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        for kind in total:
            if name.startswith(kind):
                total[kind] += sum(
                    math.prod(var.aval.shape) * var.aval.dtype.itemsize
                    for var in equation.invars
                    if hasattr(var.aval, "shape")
                )
        parts = [exchanged(part) for value in equation.params.values() for part in inner(value)]
        times = equation.params.get("length", 1) if name == "scan" else 1
        for kind in total:
            counts = [part[kind] for part in parts]
            total[kind] += max(counts, default=0) if name == "cond" else times * sum(counts)
    return total


def cost(run: steps.Run, batch: dict, devices: int) -> Cost:
    """Counts a step of which each device has its share of the batch."""
    key = jax.random.key(0)
    state = jax.eval_shape(run.init, key)
    look_up = lambda batch: (
        batch | {n: jnp.take(x, batch["index"], 0) for n, x in run.resident.items()}
    )
    batch = jax.eval_shape(look_up, batch)
    share = lambda x: jax.ShapeDtypeStruct((x.shape[0] // devices, *x.shape[1:]), x.dtype)
    batch = jax.tree.map(share, batch)

    def step(state, batch, key):
        return run.train_step(state, batch, key, axis=parallel.DATA)

    program = jax.make_jaxpr(step, axis_env=[(parallel.DATA, devices)])(state, batch, key)
    total = exchanged(program.jaxpr)
    return Cost(parameters(state), size(state), total["psum"], total["all_gather"])


def size(tree) -> int:
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def parameters(state) -> dict[str, int]:
    """{network: how many}; of a study's models, those of one."""
    params = state.params
    if "now" in params:
        params = next(iter(params["now"].values()))
    return {
        name: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
        for name, tree in params.items()
    }


def convolutions(config) -> dict[str, float]:
    """Operations of one picture's way through StyleGAN3's convolutions: {"generator", "discriminator"}.

    Twice the multiplications of a direct convolution; filters, styles and dense layers come on top.
    """
    G, D = steps.cleftgan.networks(config)
    generator = sum(
        2 * l.in_channels * l.out_channels * l.conv_kernel**2 * (l.in_size + l.conv_kernel - 1) ** 2
        for l in G.plan.layers
    )
    channels = lambda side: min(D.channel_base // side, D.channel_max)
    side, discriminator = D.img_resolution, 2 * 3 * channels(D.img_resolution) * D.img_resolution**2
    while side > 4:
        here, next_ = channels(side), channels(side // 2)
        discriminator += 2 * side**2 * 9 * here**2  # conv0
        discriminator += 2 * (side // 2) ** 2 * (9 + 1) * here * next_  # conv1, skip
        side //= 2
    discriminator += 2 * 16 * 9 * (channels(4) + 1) * channels(4)
    return {"generator": generator, "discriminator": discriminator}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=8)
    flags = parser.parse_args()
    for name, (run, batch) in runs().items():
        found = cost(run, batch, flags.devices)
        print(f"{name}: batch {run.config.batch}, {found}", flush=True)
    for variant in "tr":
        for resolution in (64, 128, 256, 512, 1024):
            config = dataclasses.replace(cleftgan.paper, variant=variant, resolution=resolution)
            both = {k: f"{v / 1e9:.1f} GFLOP" for k, v in convolutions(config).items()}
            print(f"StyleGAN3-{variant}, {resolution} px, a picture forward: {both}")


if __name__ == "__main__":
    main()
