"""Skin and head in the picture, as masks drawn from the mesh.

UV-photo Net and CleftGAN parse the face with a segmentation network (BiSeNet) whose weights are not
free to ship; polygons of the mesh stand in for it. They do not see hair, hands or glasses over the
skin, and fail on profiles.
"""

import cv2
import numpy as np

from jaxface.faces import mesh

# Mesh points around a cheek: along the outline, over the mouth's corner, up beside the nose, under the lid.
RIGHT_CHEEK = (116, 123, 147, 213, 192, 216, 206, 203, 142, 126, 120, 119, 118, 117)
LEFT_CHEEK = (345, 352, 376, 433, 416, 436, 426, 423, 371, 355, 349, 348, 347, 346)
CHEEK_MARGIN = 0.02  # face widths taken off a cheek all around
_SHIFT = 4  # fractional bits of OpenCV's polygon corners


def skin_mask(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [height, width]: inside the face's outline, without eyes, brows and lips.

    `landmarks` [468, >=2] in px of a picture of that size.
    """
    mask = np.zeros((height, width), np.uint8)
    _fill(mask, landmarks[list(mesh.OVAL)], 1)
    for hole in (mesh.RIGHT_EYE, mesh.LEFT_EYE, mesh.RIGHT_BROW, mesh.LEFT_BROW, mesh.LIPS):
        _fill(mask, landmarks[list(hole)], 0)
    return mask.astype(bool)


def cheeks(landmarks: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The subject's own right and left cheek, bool [height, width] each.

    Below the lower lid, lateral to the nose, above the mouth's corner and inside the jaw, less a margin
    of 2 % of the face's width. How UV-photo Net (Kojima et al., Sci Rep 2021) delimits cheeks is not
    published: these outlines are ours. A cheek may be empty (turned away, outside the picture); hair and
    beard are not seen here, so intersect it with a mask of visible skin.

    Args:
      landmarks: [468, >=2] in px of a picture of that size.
    """
    margin = CHEEK_MARGIN * face_width(landmarks)
    masks = []
    for outline in (RIGHT_CHEEK, LEFT_CHEEK):
        mask = np.zeros((height, width), np.uint8)
        _fill(mask, landmarks[list(outline)], 1)
        masks.append(cv2.distanceTransform(mask, cv2.DIST_L2, 5) > margin)
    return masks[0], masks[1]


def face_width(landmarks: np.ndarray) -> float:
    """Distance of the outermost points before the ears, in px of the picture."""
    return float(np.hypot(*(landmarks[234, :2] - landmarks[454, :2])))


def head_mask(landmarks: np.ndarray, height: int, width: int, feather: float = 0.12) -> np.ndarray:
    """float32 [height, width] in 0..1: the face's outline with a margin for hair, ears and neck.

    The outline is widened by a quarter, to the top by 0.55 of the face's height (where hair is) and
    to the bottom by 0.25 (neck); the edge falls from one to zero over `feather` face widths.
    """
    oval = landmarks[list(mesh.OVAL), :2]
    right, left, mouth = mesh.centers(landmarks)
    down = mouth - (right + left) / 2
    down = down / max(np.hypot(*down), 1e-9)
    across = np.array([-down[1], down[0]])
    center = oval.mean(axis=0)
    x, y = (oval - center) @ across, (oval - center) @ down
    tall, wide = np.ptp(y), np.ptp(x)
    stretch = np.where(y < 0, 1 + 0.55 * tall / max(-y.min(), 1e-9), 1 + 0.25 * tall / y.max())
    outline = center + np.outer(1.25 * x, across) + np.outer(y * stretch, down)
    hull = cv2.convexHull(outline.astype(np.float32))[:, 0]
    mask = np.zeros((height, width), np.float32)
    _fill(mask, hull, 1)
    return cv2.GaussianBlur(mask, (0, 0), max(feather * wide / 2, 0.3))


def _fill(mask: np.ndarray, outline: np.ndarray, value: float) -> None:
    corners = np.rint((outline[:, :2] - 0.5) * 2**_SHIFT).astype(np.int32)
    cv2.fillPoly(mask, [corners], value, shift=_SHIFT)
