"""Memory and time of a large photograph through a U-Net, tile by tile: `jaxface.ops.tiles.translate`.

Tiles of 256 px every 128 px through UNet (256, ngf 16, instance normalisation); the comparator is the same
loop around a network of PyTorch. On one CPU core 4,000 x 3,000 px took 48.5 s, the peak was 0.52 GiB before
(JAX and the compiled network) and 0.58 GiB after, 0.08 GiB of it picture and result (commit b4faf68).
"""

import jax
import numpy as np

from benchmarks.harness import Case, Work, compiled, eager
from jaxface.models.unet import UNet
from jaxface.ops import tiles

TILE, STRIDE, BATCH = 256, 128, 4


def photograph(height: int, width: int) -> np.ndarray:
    """One patch of noise again and again: drawing more would take longer than some networks do."""
    patch = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    return np.tile(patch, (-(-height // 100), -(-width // 100), 1))[:height, :width].copy()


def translated(network, height: int, width: int):
    image = photograph(height, width)
    return lambda: tiles.translate(network, image, tile=TILE, stride=STRIDE, batch=BATCH)


def translate_ours(height, width, ngf) -> Work:
    net = UNet(output_nc=1, levels=8, ngf=ngf, norm="instance")
    blank = np.zeros((BATCH, TILE, TILE, 3), np.float32)
    variables = jax.jit(net.init)(jax.random.key(0), blank)
    network = jax.jit(lambda x: net.apply(variables, x))
    _, seconds = compiled(network, blank)
    return eager(translated(network, height, width))._replace(compile_seconds=seconds)


def translate_torch(height, width, ngf) -> Work:
    from benchmarks import torch_reference as reference

    net = reference.UNet(3, 1, 8, ngf, "instance").to(reference.DEVICE)
    net = reference.without_gradient(net)

    def network(x):
        x = reference.torch.tensor(np.moveaxis(x, -1, 1).copy(), device=reference.DEVICE)
        return np.moveaxis(net(x).cpu().numpy(), 1, -1)

    return eager(translated(network, height, width))


CASES = {"unet_tiles": Case(translate_ours, translate_torch, dict(height=1500, width=2000, ngf=16))}
