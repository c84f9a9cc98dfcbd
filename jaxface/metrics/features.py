"""Features of images for KID, FD, precision and recall, by a fixed protocol.

FID is defined by Inception's weights, which we may not ship; a number is only comparable to one made
with the same extractor and the same resizing (Parmar et al. 2022, arXiv 2104.11222), so the protocol
has a name, and the name goes with every number.
"""

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxface import assets, cache, parallel
from jaxface.models import mobilenet

SIDE = 128  # px. Of 96, 128 and 160, tried on 32 and 64 px faces against blur, noise, JPEG, shifted
#   halves and collapsed modes: 128 tells them from reals as surely as 160 and clearer than 96
PROTOCOL = f"mobilenetv2@{SIDE}"
EXTRACTOR = (
    f"{PROTOCOL}: uint8 RGB (gray three times) resized to {SIDE}x{SIDE} px (bicubic, antialiased, not "
    "rounded), ImageNet normalisation, 1280 pooled features of MobileNetV2 trained on ImageNet"
)


@functools.cache
def network() -> mobilenet.Loaded:
    return mobilenet.from_state_dict({}, assets.load("mobilenet_v2_f16"))


def canvas(images: jax.Array, side: int) -> jax.Array:
    """uint8 [N, H, W, 1 or 3] -> [N, side, side, 3] in [-1, 1], over- and undershoots kept."""
    n, _, _, channels = images.shape
    x = images.astype(jnp.float32)
    x = jax.image.resize(x, (n, side, side, channels), "bicubic", antialias=True)
    return jnp.broadcast_to(x, (n, side, side, 3)) / 127.5 - 1


@functools.partial(jax.jit, static_argnames=("module", "side"), compiler_options=cache.OPTIMIZED)
def _features(module, variables, images, side):
    return module.apply(variables, canvas(images, side))


def mobilenet_features(images: np.ndarray, batch: int = 32) -> np.ndarray:
    """Pooled MobileNetV2 features by the protocol `PROTOCOL`.

    Args:
      images: uint8 [N, H, W, C], C = 1 or 3.
      batch: images a device call takes; changes the speed, not the numbers.

    Returns:
      float32 [N, 1280].

    Raises:
      ValueError: the images are not uint8 or have another shape.
    """
    loaded = network()
    run = lambda part: (_features(loaded.module, loaded.variables, part, SIDE),)
    found = in_batches(images, batch, run)
    return found[0] if found else np.zeros((0, mobilenet.FEATURES), np.float32)


def in_batches(
    images: np.ndarray, batch: int, run: Callable[[np.ndarray], Sequence[jax.Array]]
) -> list[np.ndarray]:
    """Outputs of `run` for all of uint8 [N, H, W, 1 or 3], `batch` at a time; [] for no images.

    The last batch is filled up, so that a network is compiled for one shape, and its rows are dealt out to
    the devices at hand.

    Raises:
      ValueError: the images are not uint8 or have another shape.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must be uint8 [N, H, W, 1 or 3], got {images.dtype} {images.shape}"
        )
    found = []
    for first in range(0, len(images), batch):
        part = np.asarray(images[first : first + batch])
        filled = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.uint8)])
        found.append([np.asarray(out)[: len(part)] for out in run(parallel.spread(filled))])
    return [np.concatenate(outputs) for outputs in zip(*found)]


def remembered(
    images: np.ndarray,
    protocol: str,
    extract: Callable[[np.ndarray], np.ndarray],
    folder: pathlib.Path | None,
) -> np.ndarray:
    """`extract(images)`, kept in a file for the next time the same pictures are judged.

    Args:
      images: uint8 [N, H, W, C].
      protocol: name of extractor, resizing and scaling: with the pictures' bytes it is the key.
      folder: where the files lie; beside the built data, so that features of people stay where their
        pictures are. None: nothing is kept.
    """
    if folder is None:
        return extract(images)
    content = np.ascontiguousarray(images)
    digest = hashlib.sha256(f"{protocol} {content.shape} {content.dtype} ".encode())
    digest.update(content.data)
    file = folder / f"{digest.hexdigest()[:32]}.npy"
    try:
        found = np.load(file, allow_pickle=False)
        if found.ndim == 2 and len(found) == len(images):
            return found
    except (OSError, ValueError, EOFError):
        pass  # not there, or not whole: made anew
    found = extract(images)
    folder.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    with open(draft, "wb") as out:
        np.save(out, found, allow_pickle=False)
    os.replace(draft, file)
    return found
