"""Single operations, forward and backward, and the two ceilings of a device.

The comparators insert zeros before a depthwise convolution, and scale weights per sample for a grouped one
(`benchmarks.torch_reference`).
"""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Call, Case, Work, compiled
from jaxface.models.stylegan3 import LayerPlan
from jaxface.ops import augment
from jaxface.ops.filters import (
    design_lowpass_filter,
    filtered_lrelu,
    modulated_conv2d,
    setup_filter,
    upfirdn2d,
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def forward_and_back(function, *args: np.ndarray) -> Work:
    """`function` and the gradient of its result's inner product with numbers, as training needs them."""

    def both(args, direction):
        y, back = jax.vjp(function, *args)
        return y, back(direction)

    args = tuple(map(jnp.asarray, args))
    shape = jax.eval_shape(function, *args).shape
    call, seconds = compiled(jax.jit(both), args, jnp.asarray(normal(*shape, seed=9)))
    return Work((call,), seconds)


def torch_forward_and_back(function, *args: np.ndarray) -> Work:
    """The same by autograd; pictures are given as [N, H, W, C] and moved to [N, C, H, W] before."""
    from benchmarks import torch_reference as reference

    torch = reference.torch
    moved = [np.moveaxis(a, -1, 1) if a.ndim == 4 else a for a in args]
    moved = [torch.tensor(a.copy(), device=reference.DEVICE, requires_grad=True) for a in moved]
    with torch.no_grad():
        direction = torch.randn_like(function(*moved))

    def both():
        torch.autograd.grad(function(*moved), moved, direction)

    return Work((Call(reference.waiting(both)),))


# ---- filters -------------------------------------------------------------------------------------


def upsample_ours(batch, side, channels) -> Work:
    taps, pad = _taps(2), (6, 5, 6, 5)
    return forward_and_back(
        lambda x: upfirdn2d(x, taps, up=2, padding=pad, gain=4), normal(batch, side, side, channels)
    )


def upsample_torch(batch, side, channels) -> Work:
    from benchmarks.torch_reference import upfirdn

    return torch_forward_and_back(
        lambda x: upfirdn(x, _taps(2), 2, padding=(6, 5, 6, 5), gain=4),
        normal(batch, side, side, channels),
    )


def _taps(factor: int) -> np.ndarray:
    return design_lowpass_filter(6 * factor, 0.4, 0.2, factor)


def resample_ours(batch, side, channels) -> Work:
    taps = setup_filter([1, 3, 3, 1])
    return forward_and_back(
        lambda x: upfirdn2d(x, taps, down=2, padding=1), normal(batch, side, side, channels)
    )


def resample_torch(batch, side, channels) -> Work:
    from benchmarks.torch_reference import upfirdn

    taps = setup_filter([1, 3, 3, 1])
    return torch_forward_and_back(
        lambda x: upfirdn(x, taps, down=2, padding=(1, 1, 1, 1)),
        normal(batch, side, side, channels),
    )


def _plan(side: int, up: int) -> LayerPlan:
    """A layer that raises the rate `up` times for its nonlinearity and halves it afterwards."""
    total = (side * up // 2 - 1) * 2 + 1 + (6 * up - 1) + 11 - side * up
    return LayerPlan(
        name="",
        is_torgb=False,
        is_critically_sampled=False,
        low_precision=False,
        in_channels=0,
        out_channels=0,
        in_size=side,
        out_size=side * up // 2,
        in_sampling_rate=1,
        out_sampling_rate=up / 2,
        tmp_sampling_rate=up,
        in_cutoff=0.4,
        out_cutoff=0.2 * up,
        in_half_width=0.1,
        out_half_width=0.05 * up,
        up_factor=up,
        down_factor=2,
        up_taps=6 * up,
        down_taps=12,
        down_radial=False,
        padding=((total + up) // 2, total - (total + up) // 2) * 2,
        conv_kernel=3,
    )


def nonlinearity_ours(batch, side, channels, up) -> Work:
    plan = _plan(side, up)
    function = lambda x, bias: filtered_lrelu(
        x,
        plan.up_filter,
        plan.down_filter,
        bias,
        plan.up_factor,
        plan.down_factor,
        plan.padding,
        clamp=256.0,
    )
    return forward_and_back(function, normal(batch, side, side, channels), normal(channels))


def nonlinearity_torch(batch, side, channels, up) -> Work:
    from benchmarks.torch_reference import filtered_lrelu

    plan = _plan(side, up)
    return torch_forward_and_back(
        lambda x, bias: filtered_lrelu(x, bias, plan),
        normal(batch, side, side, channels),
        normal(channels),
    )


# ---- modulated convolution, augmentation ---------------------------------------------------------


def modulated_ours(batch, side, channels, kernel) -> Work:
    return forward_and_back(
        lambda x, w, s: modulated_conv2d(x, w, s, padding=kernel - 1),
        normal(batch, side, side, channels),
        normal(kernel, kernel, channels, channels),
        normal(batch, channels),
    )


def modulated_torch(batch, side, channels, kernel) -> Work:
    from benchmarks.torch_reference import modulated_conv2d

    weight = np.moveaxis(normal(kernel, kernel, channels, channels), -1, 0)  # [O, k, k, I]
    return torch_forward_and_back(
        lambda x, w, s: modulated_conv2d(x, w, s, padding=kernel - 1),
        normal(batch, side, side, channels),
        weight,
        normal(batch, channels),
    )


def augment_ours(batch, side) -> Work:
    key = jax.random.key(0)
    return forward_and_back(lambda x: augment.augment(x, key, 0.3), normal(batch, side, side, 3))


def augment_torch(batch, side) -> Work:
    from benchmarks.torch_reference import ada, draws

    return torch_forward_and_back(
        lambda x: ada(x, draws(batch, x.device), 0.3), normal(batch, side, side, 3)
    )


# ---- ceilings ------------------------------------------------------------------------------------


def matmul_ours(side) -> Work:
    a, b = (jnp.asarray(normal(side, side, seed=n)) for n in range(2))
    call, seconds = compiled(jax.jit(jnp.matmul), a, b)
    return Work((call._replace(operations=2.0 * side**3),), seconds)


def matmul_torch(side) -> Work:
    from benchmarks import torch_reference as reference

    a, b = (reference.torch.tensor(normal(side, side, seed=n)) for n in range(2))
    a, b = a.to(reference.DEVICE), b.to(reference.DEVICE)
    return Work((Call(reference.waiting(reference.torch.matmul, a, b)),))


def copy_ours(mebibytes) -> Work:
    x = jnp.zeros([mebibytes, 2**18], jnp.float32)
    call, seconds = compiled(jax.jit(lambda x: x + 1), x)
    return Work((call._replace(bytes=2.0 * x.nbytes),), seconds)


def copy_torch(mebibytes) -> Work:
    from benchmarks import torch_reference as reference

    x = reference.torch.zeros([mebibytes, 2**18], device=reference.DEVICE)
    return Work((Call(reference.waiting(lambda: x + 1)),))


LAYER = dict(batch=4, side=84, channels=64)
CASES = {
    "upsample": Case(upsample_ours, upsample_torch, LAYER),
    "downsample": Case(resample_ours, resample_torch, LAYER),
    "filtered_lrelu_up2": Case(nonlinearity_ours, nonlinearity_torch, LAYER | {"up": 2}),
    "filtered_lrelu_up4": Case(nonlinearity_ours, nonlinearity_torch, LAYER | {"up": 4}),
    "modulated_conv_3x3": Case(
        modulated_ours, modulated_torch, dict(batch=4, side=36, channels=512, kernel=3)
    ),
    "modulated_conv_1x1": Case(
        modulated_ours, modulated_torch, dict(batch=4, side=36, channels=512, kernel=1)
    ),
    "augment_bgc": Case(augment_ours, augment_torch, dict(batch=32, side=64), 32),
    "matmul": Case(matmul_ours, matmul_torch, dict(side=2048)),
    "copy": Case(copy_ours, copy_torch, dict(mebibytes=256)),
}
