"""Training steps and forward passes of whole networks, ours beside PyTorch's at equal settings.

Ours are the steps that `jaxface.train` runs: a system's `train_step`, compiled by `parallel.compile_step`
with its state donated, pictures of random bytes resident on the device or arriving as batches do. The
comparators are those of `benchmarks.torch_reference`, fed with the same number of pictures of the same size,
which they vary in about the same way.

Where the two differ in what they do: the contrastive step weighs its attraction by labels and weights, which
the plain MoCo beside it does not; two examples are the least that uvphoto takes with batch normalisation.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np

from benchmarks import cyclegan
from benchmarks.harness import Call, Case, Work, compiled, costs
from jaxface import headshots, parallel
from jaxface.ops.warp import window_for
from jaxface.system import RunConfig, System
from jaxface.systems import classify, cleftgan, contrastive, uvphoto

LAZY = 1 / cleftgan.LAZY  # share of the iterations that have R1


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


class Run(NamedTuple):
    """A training run without its data."""

    init: Callable  # these two as a System has them
    train_step: Callable
    config: RunConfig
    batches: list[tuple[dict, float]]  # (batch, share of the steps whose batch has its structure)
    resident: dict  # {name: array} that stays on the device and batches index


def _compiled(lowered: Callable, batches: list[dict]) -> Iterator:
    """Executables in order: on CPU each when it is asked for, as training does; elsewhere all at once.

    A GPU's compiler tries kernels out and waits for other programs: its cores are idle for most of it.
    """
    if jax.default_backend() == "cpu":
        yield from (lowered(batch).compile() for batch in batches)
        return
    programs = [parallel.compile_aside(lowered(batch)) for batch in batches]
    yield from (program() for program in programs)


def training(make: Callable[[RunConfig], Run], config: RunConfig) -> Work:
    """The step of the run that `make` makes of a config, as `jaxface.train` runs it."""
    run = make(config)
    mesh, key = parallel.make_mesh(), jax.random.key(config.seed)
    state = parallel.to_host(parallel.compiled_once(run.init)(key))
    held = [parallel.place_state(state, mesh, config.compile)]
    resident = parallel.place_state(run.resident, mesh, config.compile)
    step_fn = parallel.compile_step(run.train_step, mesh, config.compile)

    def lowered(batch):
        placed = parallel.place_batch(batch, mesh, config.compile)
        return step_fn.lower(held[0], placed, resident, key)

    calls, compile_seconds = [], 0.0
    turns = parallel.Turns()
    programs = _compiled(lowered, [batch for batch, _ in run.batches])
    for batch, share in run.batches:
        began = time.perf_counter()
        program = next(programs)
        compile_seconds += time.perf_counter() - began

        def step(program=program, batch=batch):
            with turns.of(frozenset(batch)):
                placed = parallel.place_batch(batch, mesh, config.compile)
                held[0], metrics = program(held[0], placed, resident, key)
                jax.block_until_ready((held[0], metrics))

        step()
        parallel.release_memory()  # as training does when a program has run once
        calls.append(Call(step, share, *costs(program)))
    return Work(tuple(calls), compile_seconds)


# ---- StyleGAN3 -----------------------------------------------------------------------------------


def _cleftgan(resolution, batch, channel_base, channel_max, latent, num_layers=14, **more):
    return cleftgan.Config(
        resolution=resolution,
        batch=batch,
        z_dim=latent,
        w_dim=latent,
        channel_base=channel_base,
        channel_max=channel_max,
        discriminator_channel_base=channel_base,
        discriminator_channel_max=channel_max,
        num_layers=num_layers,
        augment_pipe="bgc",
        augment_p=0.3,
        **more,
    )


def stylegan3(config: cleftgan.Config) -> Run:
    """Generator, discriminator, every 16th time R1, averaged generator."""
    system = cleftgan.build(config)
    rows = np.arange(config.batch, dtype=np.int32)
    plain = {"index": rows, "example": rows}
    due = plain | {"penalty": np.zeros(config.batch, np.int8)}
    resident = {"image": pixels(16, config.resolution, config.resolution, 3)}
    batches = [(due, LAZY), (plain, 1 - LAZY)]  # the first step of a run has R1
    return Run(system.init, system.train_step, config, batches, resident)


def stylegan3_ours(**sizes) -> Work:
    return training(stylegan3, _cleftgan(**sizes))


def stylegan3_torch(**sizes) -> Work:
    from benchmarks import torch_reference as reference

    config = _cleftgan(**sizes)
    net = reference.StyleGAN3(config, pixels(16, config.resolution, config.resolution, 3))
    plain, due = (reference.waiting(net.step, penalty) for penalty in (False, True))
    return Work((Call(plain, 1 - LAZY), Call(due, LAZY)))


def forward_ours(**sizes) -> Work:
    """Latents to pictures, no gradient."""
    config = _cleftgan(**sizes)
    generator, _ = cleftgan.networks(config)
    z = jax.random.normal(jax.random.key(1), [config.batch, config.z_dim])
    variables = jax.jit(generator.init)(jax.random.key(0), z)
    call, seconds = compiled(jax.jit(generator.apply), variables, z)
    return Work((call,), seconds)


def forward_torch(**sizes) -> Work:
    from benchmarks import torch_reference as reference

    config = _cleftgan(**sizes)
    net = reference.StyleGAN3(config, pixels(1, config.resolution, config.resolution, 3)).G
    z = reference.torch.randn(config.batch, config.z_dim, device=reference.DEVICE)
    return Work((Call(reference.waiting(reference.without_gradient(net), z)),))


# ---- translation ---------------------------------------------------------------------------------


def _uvphoto(**sizes) -> uvphoto.Config:
    """pix2pix's published networks."""
    return uvphoto.Config(discriminator="patchgan", norm="batch", **sizes)


def windows(config) -> np.ndarray:
    """A batch of color and UV side by side, with the room that varying them needs: [N, W, W, 4]."""
    side = window_for(config.patch)
    return pixels(config.batch, side, side, 4)


def translation(config, system: System, phone: bool = False) -> Run:
    """pix2pix (uvphoto), or with CycleGAN's losses beside it (uvphoto_v2, where `phone` takes part)."""
    pair = windows(config)
    batch = {
        "color": pair[..., :3],
        "uv": pair[..., 3:],
        "example": np.arange(config.batch, dtype=np.int32),
        "face_width": np.full(config.batch, 150, np.float32),
        "spot_threshold": np.full(config.batch, 4, np.float32),
    } | ({"phone": pair[..., :3]} if phone else {})
    return Run(system.init, system.train_step, config, [(batch, 1.0)], {})


def pix2pix_ours(**sizes) -> Work:
    return training(lambda c: translation(c, uvphoto.build(c)), _uvphoto(**sizes))


def pix2pix_torch(**sizes) -> Work:
    from benchmarks import torch_reference as reference

    config = _uvphoto(**sizes)
    return Work((Call(reference.waiting(reference.Pix2Pix(config, windows(config)).step)),))


def two_kinds(config: cyclegan.Config) -> Run:
    init, train_step = cyclegan.build(config)
    shape = (config.batch, config.side, config.side, 3)
    batch = {name: pixels(*shape, seed=n) for n, name in enumerate("ab")}
    return Run(init, train_step, config, [(batch, 1.0)], {})


def cyclegan_ours(**sizes) -> Work:
    return training(two_kinds, cyclegan.Config(**sizes))


def cyclegan_torch(**sizes) -> Work:
    from benchmarks import torch_reference as reference

    config = cyclegan.Config(**sizes)
    shape = (config.batch, config.side, config.side, 3)
    net = reference.CycleGAN(config, *(pixels(*shape, seed=n) for n in range(2)))
    return Work((Call(reference.waiting(net.step)),))


# ---- classifiers and contrast --------------------------------------------------------------------


class _Volunteers(headshots.Photos):
    """Twelve people without photographs: what a plan of models is made from."""

    fit_in_memory = True

    def __init__(self, config):
        super().__init__(config)
        number = np.arange(24)
        nothing = np.full(len(number), -1)
        self.table = headshots.Table(
            id=number.astype(str),
            subject=np.char.add("V", (number // 2).astype(str)),
            photo=number % 2,
            label=number // 2 % 2,
            against=nothing,
            favor=nothing,
            truth=nothing,
            ita=np.zeros(len(number)),
            record=number,
        )


def _classify(depth, **sizes) -> classify.Config:
    return classify.Config(
        methods="scratch", scratch_depth=depth, scratch_width=64, head="linear", **sizes
    )


def classifier(config: classify.Config) -> Run:
    with mock.patch.object(headshots, "Photos", _Volunteers):  # whom a step never sees
        system = classify.build(config)
    batch = next(system.batches(1))
    resident = {"image": pixels(24, config.side, config.side, config.channels)}
    return Run(system.init, system.train_step, config, [(batch, 1.0)], resident)


def classify_ours(**sizes) -> Work:
    return training(classifier, _classify(**sizes))


def classify_torch(**sizes) -> Work:
    from benchmarks import torch_reference as reference

    config = _classify(**sizes)
    target = (np.arange(24) % 2).astype(np.float32)
    net = reference.Classifier(config, pixels(24, config.side, config.side, 3), target)
    return Work((Call(reference.waiting(net.step)),))


def contrast(config: contrastive.Config) -> Run:
    system = contrastive.build(config)
    rows = np.arange(2 * config.batch, dtype=np.int32).reshape(2, -1).T
    batch = {"index": rows, "example": np.arange(config.batch, dtype=np.int32)}
    batch |= {"label": rows % 2, "subject": rows % 5, "video": rows % 10}
    batch |= {"weight": rows.astype(np.float32) / config.batch}
    resident = {"image": pixels(2 * config.batch, config.side, config.side, 3)}
    return Run(system.init, system.train_step, config, [(batch, 1.0)], resident)


def contrast_ours(**sizes) -> Work:
    return training(contrast, contrastive.Config(**sizes))


def contrast_torch(**sizes) -> Work:
    from benchmarks import torch_reference as reference

    config = contrastive.Config(**sizes)
    net = reference.MoCo(config, pixels(2 * config.batch, config.side, config.side, 3))
    return Work((Call(reference.waiting(net.step)),))


SMALL = dict(resolution=64, batch=4, channel_base=2048, channel_max=64, latent=64)
REAL = dict(batch=4, channel_base=16384, channel_max=512, latent=512)
CASES = {
    "stylegan3_t_iteration_64_small": Case(stylegan3_ours, stylegan3_torch, SMALL, 4),
    "stylegan3_t_iteration_64": Case(
        stylegan3_ours, stylegan3_torch, REAL | {"resolution": 64}, 4, heavy=True
    ),
    "stylegan3_t_forward_64": Case(forward_ours, forward_torch, REAL | {"resolution": 64}, 4),
    "stylegan3_t_forward_256": Case(forward_ours, forward_torch, REAL | {"resolution": 256}, 4),
    "unet256_step": Case(pix2pix_ours, pix2pix_torch, dict(batch=2), 2),
    "cyclegan_step_128": Case(cyclegan_ours, cyclegan_torch, dict(batch=1, side=128), 1),
    "resnet50_step": Case(classify_ours, classify_torch, dict(depth=50, batch=8, side=224), 8),
    "resnet18_step": Case(classify_ours, classify_torch, dict(depth=18, batch=8, side=224), 8),
    "contrastive_step": Case(contrast_ours, contrast_torch, dict(batch=16, side=112), 16),
}
