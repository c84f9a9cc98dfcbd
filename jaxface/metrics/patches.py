"""Features of the places of a picture: MobileNetV2 before it pools, for copies and severity."""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from jaxface import cache
from jaxface.metrics import features

SIDE = 128  # px of the network's input


@functools.partial(jax.jit, static_argnames=("module", "blocks"), compiler_options=cache.OPTIMIZED)
def _run(module, variables, images, blocks):
    x = features.canvas(images, SIDE)
    _, state = module.apply(
        variables, x, capture_intermediates=lambda m, _: m.name in blocks, mutable=["intermediates"]
    )
    return [state["intermediates"][name]["__call__"][0] for name in blocks]


def patch_features(images: np.ndarray, blocks: Sequence[str], batch: int = 32) -> list[np.ndarray]:
    """Outputs of some blocks of MobileNetV2 for uint8 [N, H, W, 1 or 3], resized to SIDE px.

    Returns:
      float32 [N, h, w, c] for each of `blocks`: "block3" [32, 32, 24], "block6" [16, 16, 32],
      "block13" [8, 8, 96].

    Raises:
      ValueError: the images are not uint8 or have another shape.
    """
    network, blocks = features.network(), tuple(blocks)
    run = lambda part: _run(network.module, network.variables, part, blocks)
    return features.in_batches(images, batch, run)
