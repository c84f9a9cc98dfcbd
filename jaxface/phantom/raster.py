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
    x, y, z = (points[:, axis].astype(np.float64)[faces.T] for axis in range(3))  # [3, F] each
    twice_area = (x[2] - x[0]) * (y[1] - y[0]) - (x[1] - x[0]) * (y[2] - y[0])
    top = np.maximum(np.ceil(_least(y) - 0.5), 0).astype(np.int64)
    bottom = np.minimum(np.floor(_most(y) - 0.5), size - 1).astype(np.int64)
    inside = (_most(x) > 0) & (_least(x) < size)
    seen = np.flatnonzero((twice_area > 1e-9) & (bottom >= top) & inside)
    x, y, z = x[:, seen], y[:, seen], z[:, seen]
    # Weight k of a point (px, py) is a[k] * px + b[k] * py + c[k].
    after, before = [1, 2, 0], [2, 0, 1]
    scale = 1 / twice_area[seen]
    a = (y[before] - y[after]) * scale
    b = (x[after] - x[before]) * scale
    c = -(a * x[after] + b * y[after])
    plane = [(k * z).sum(0) for k in (a, b, c)]  # of depth

    rows = bottom[seen] - top[seen] + 1
    face, offset = _expand(rows)
    row = top[seen][face] + offset
    left, right = np.full(len(row), 0.0), np.full(len(row), float(size))
    for k in range(3):
        edge = -(b[k][face] * (row + 0.5) + c[k][face])  # a * px >= edge inside
        slope = a[k][face]
        with np.errstate(divide="ignore", invalid="ignore"):
            bound = edge / slope
        left = np.maximum(left, np.where(slope > 0, bound, 0))
        right = np.minimum(right, np.where(slope < 0, bound, size))
        right[(slope == 0) & (edge > 0)] = -1.0
    first = np.ceil(np.minimum(left, size) - 0.5).astype(np.int64)
    last = np.floor(np.maximum(right, -1.0) - 0.5).astype(np.int64)
    span = np.maximum(np.minimum(last, size - 1) - first + 1, 0)
    piece, offset = _expand(span)
    column = first[piece] + offset
    pixel = (row * size)[piece] + column
    start = plane[1][face] * (row + 0.5) + plane[2][face]
    depth = plane[0][face][piece] * (column + 0.5) + start[piece]

    # Depth in the high bits, the fragment's number in the low ones: one maximum finds both. The bits
    # of a float, with those of negative ones turned round, are in the order of its value.
    bits = depth.astype(np.float32).view(np.int32)
    level = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    nothing = np.iinfo(np.int64).min
    best = np.full(size * size, nothing)
    np.maximum.at(best, pixel, (level << 32) | np.arange(len(pixel)))
    pixel = np.flatnonzero(best != nothing)
    fragment = best[pixel] & 0xFFFFFFFF
    face = face[piece[fragment]]
    px, py = pixel % size + 0.5, pixel // size + 0.5
    weights = [a[k][face] * px + b[k][face] * py + c[k][face] for k in range(3)]
    return pixel, seen[face], np.stack(weights, 1).astype(np.float32)


def _least(corner: np.ndarray) -> np.ndarray:
    """[3, F] -> [F]; reducing an axis of three in one call is many times slower."""
    return np.minimum(np.minimum(corner[0], corner[1]), corner[2])


def _most(corner: np.ndarray) -> np.ndarray:
    return np.maximum(np.maximum(corner[0], corner[1]), corner[2])


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[3, 0, 2] -> ([0, 0, 0, 2, 2], [0, 1, 2, 0, 1])."""
    owner = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - start[owner]
