"""Which triangle each pixel sees: a z-buffer without a loop over triangles.

Every front-facing triangle is cut into its pixel rows, every row into the pixels whose centers lie
inside; the nearest of all fragments of a pixel wins.
"""

import numpy as np


def rasterize(
    points: np.ndarray, faces: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the visible triangle and its barycentric weights at every pixel center.

    Args:
      points: float [V, 3]: x to the right and y downward in px, z toward the viewer.
      faces: int [F, 3], counterclockwise as seen from outside.
      size: side of the picture in px.

    Returns:
      (pixel int [N] = row * size + column, ascending; face int [N]; weights float32 [N, 3]) of the N
      pixels that see something.
    """
    corners = points[faces].astype(np.float64)  # [F, 3, 3]
    x, y, z = corners[..., 0], corners[..., 1], corners[..., 2]
    twice_area = (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0]) - (x[:, 1] - x[:, 0]) * (
        y[:, 2] - y[:, 0]
    )
    top = np.maximum(np.ceil(y.min(1) - 0.5), 0).astype(np.int64)
    bottom = np.minimum(np.floor(y.max(1) - 0.5), size - 1).astype(np.int64)
    seen = np.flatnonzero(
        (twice_area > 1e-9) & (bottom >= top) & (x.max(1) > 0) & (x.min(1) < size)
    )
    x, y, z = x[seen], y[seen], z[seen]
    # Weight k of a point (px, py) is a[k] * px + b[k] * py + c[k].
    after, before = [1, 2, 0], [2, 0, 1]
    scale = 1 / twice_area[seen, None]
    a = (y[:, before] - y[:, after]) * scale
    b = (x[:, after] - x[:, before]) * scale
    c = -(a * x[:, after] + b * y[:, after])
    plane = np.stack([(k * z).sum(1) for k in (a, b, c)])  # of depth

    rows = bottom[seen] - top[seen] + 1
    face, offset = _expand(rows)
    row = top[seen][face] + offset
    edge = -(b[face] * (row[:, None] + 0.5) + c[face])  # a * px >= edge inside
    slope = a[face]
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = edge / slope
    left = np.where(slope > 0, bound, np.where((slope == 0) & (edge > 0), np.inf, -np.inf)).max(1)
    right = np.where(slope < 0, bound, np.inf).min(1)
    first = np.ceil(np.clip(left, 0, size) - 0.5).astype(np.int64)
    first = np.maximum(first, 0)
    last = np.floor(np.clip(right, -1, size) - 0.5).astype(np.int64)
    span = np.maximum(np.minimum(last, size - 1) - first + 1, 0)
    piece, offset = _expand(span)
    column = first[piece] + offset
    pixel = row[piece] * size + column
    depth = (
        plane[0, face][piece] * (column + 0.5)
        + (plane[1, face] * (row + 0.5) + plane[2, face])[piece]
    )

    # Depth in the high bits, the fragment's number in the low ones: one maximum finds both.
    low, high = depth.min(initial=0.0), depth.max(initial=1.0)
    level = ((depth - low) * ((2**30 - 1) / max(high - low, 1e-12))).astype(np.int64)
    best = np.full(size * size, -1, np.int64)
    np.maximum.at(best, pixel, (level << 32) | np.arange(len(pixel)))
    pixel = np.flatnonzero(best >= 0)
    fragment = best[pixel] & 0xFFFFFFFF
    face = face[piece[fragment]]
    px, py = (pixel % size + 0.5)[:, None], (pixel // size + 0.5)[:, None]
    weights = (a[face] * px + b[face] * py + c[face]).astype(np.float32)
    return pixel, seen[face], weights


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[3, 0, 2] -> ([0, 0, 0, 2, 2], [0, 1, 2, 0, 1])."""
    owner = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - start[owner]
