"""The outline of the lower jaw in 75 numbers, as the study of headshots learns from without a network.

Aoto et al., Sci Rep 12:3730, 2022, and the data published with it: rows 267 to 269 of a gray headshot of
359 px, in which the chin's height is about the same for everybody.
"""

import numpy as np

SIDE, MARGIN = 359, 30  # px of a published photograph, and what its crop leaves off on each side
ROWS = slice(267, 270)
PAIRS, CENTER = slice(30, 178), slice(178, 181)  # columns: two a number, and those of the last one
FEATURES = 75


def mandible_vectors(images_u8: np.ndarray) -> np.ndarray:
    """float64 [N, 75] in 0..1 of gray headshots uint8 [N, 359, 359] or their crops [N, 299, 299].

    Number k < 74 is the mean of the columns j, j + 1, 357 - j and 358 - j of the three rows, where
    j = 30 + 2 k: both sides of the face at once, from the outside to the mouth. The last one is the mean of
    the columns 178 to 180. The crop holds all of it, and gives the same numbers.

    Raises:
      ValueError: the images are of another type or shape.
    """
    side = images_u8.shape[-1]
    if images_u8.dtype != np.uint8 or images_u8.ndim != 3 or images_u8.shape[1] != side:
        raise ValueError(f"{images_u8.dtype} {images_u8.shape} is not uint8 [N, S, S]")
    if side not in (SIDE, SIDE - 2 * MARGIN):
        raise ValueError(f"headshots of {side} px: use {SIDE}, or {SIDE - 2 * MARGIN} (cropped)")
    cut = (SIDE - side) // 2
    at = lambda part: slice(part.start - cut, part.stop - cut)
    level = images_u8[:, at(ROWS)].sum(axis=1, dtype=np.float64)
    both = (level + level[:, ::-1])[:, at(PAIRS)].reshape(len(level), FEATURES - 1, 2)
    return (
        np.concatenate([both.sum(2) / 12, level[:, at(CENTER)].sum(1, keepdims=True) / 9], axis=1)
        / 255
    )
