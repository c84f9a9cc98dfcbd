"""Frames that tell generated pictures from photographs in a figure."""

from collections.abc import Sequence

import numpy as np

GENERATED, COPIED = (230, 110, 30), (220, 0, 0)  # orange, red


def framed(images: np.ndarray, color: Sequence[int], gray: int) -> np.ndarray:
    """uint8 [..., H, W, C] with a frame one 32nd of a side wide, in `color` (of one channel: `gray`)."""
    width = max(1, min(images.shape[-3:-1]) // 32)
    result = images.copy()
    value = np.array(color if images.shape[-1] == 3 else [gray], np.uint8)
    for edge in (
        np.s_[..., :width, :, :],
        np.s_[..., -width:, :, :],
        np.s_[..., :width, :],
        np.s_[..., -width:, :],
    ):
        result[edge] = value
    return result
