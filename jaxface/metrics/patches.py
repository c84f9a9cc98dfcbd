"""Features of the places of a picture: MobileNetV2 before it pools, for copies and severity."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxface import assets
from jaxface.models import mobilenet

SIDE = 128  # px of the network's input


@functools.cache
def _network() -> mobilenet.Loaded:
    return mobilenet.from_state_dict({}, assets.load("mobilenet_v2_f16"))


@functools.partial(jax.jit, static_argnames=("module", "blocks"))
def _run(module, variables, images, blocks):
    shape = (len(images), SIDE, SIDE, images.shape[-1])
    x = jax.image.resize(images.astype(jnp.float32), shape, "bicubic", antialias=True)
    x = jnp.broadcast_to(x, (*shape[:3], 3)) / 127.5 - 1
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
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must be uint8 [N, H, W, 1 or 3], got {images.dtype} {images.shape}"
        )
    network, found = _network(), []
    for first in range(0, len(images), batch):
        part = np.asarray(images[first : first + batch])
        # The last batch is filled up, so that the network is compiled for one shape.
        filled = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.uint8)])
        out = _run(network.module, network.variables, filled, tuple(blocks))
        found.append([np.asarray(one)[: len(part)] for one in out])
    return [np.concatenate(of_block) for of_block in zip(*found)]
