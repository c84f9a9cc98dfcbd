"""Whether a UV photograph lies on its color photograph, px on px.

Translation is trained px by px, so a pair that is not registered teaches blur. The device takes both at
once, yet people move between two flashes. What both photographs show (eyes, brows, nostrils, the mouth)
is matched inside the face by correlation of high-pass-filtered gray versions, once for the whole face
and once for each half: a UV photograph that is rotated or scaled moves its halves apart while the whole
may seem to lie right.

The spectrum is not whitened (phase correlation in the strict sense): on rendered pairs that was up to 0.4 px
off where a shift was no whole number of px, and jumped where a pair was turned by a degree; the plain
correlation stays within 0.2 px and falls off smoothly.
"""

from typing import NamedTuple

import cv2
import numpy as np
import skimage

WORK = 512  # px of face width at which photographs are compared; finer ones are averaged
UPSAMPLE = 20  # steps a px
FINE, COARSE = 1.0, 0.05  # what is filtered away: finer than px, coarser than face widths
EDGE = 0.06  # face widths inside the mesh's outline where the comparison begins
MATCH = 0.15  # correlation below which the photographs have nothing in common
LIMIT = 2.0, 0.002  # px a pair may lie off, and face widths if that is more: the smallest spots


class Fit(NamedTuple):
    """How a UV photograph lies on its color photograph."""

    shift: tuple[
        float, float
    ]  # (rows, columns) by which its content lies further down and right, px
    misfit: float  # px: the largest shift of the whole face or of its right or left half
    match: float  # 0..1: correlation at that shift, of the whole face


def limit(face_width: float) -> float:
    """px that a pair may lie off (ours): two, or the size of the smallest spots in a large face."""
    return max(LIMIT[0], LIMIT[1] * face_width)


def register(color: np.ndarray, uv: np.ndarray, landmarks: np.ndarray) -> Fit:
    """Compares a pair.

    Args:
      color: uint8 [H, W, 3].
      uv: uint8 [H, W].
      landmarks: [468, >=2], points of the face mesh in px.
    """
    points = landmarks[:, :2].astype(np.float32)
    wide = float(np.hypot(*(points[454] - points[234])))
    scale = min(1.0, WORK / wide)
    gray = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
    if scale < 1:
        size = tuple(max(1, round(n * scale)) for n in gray.shape[::-1])
        gray, uv = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (gray, uv))
        points, wide = points * scale, wide * scale
    one, other = _details(gray, wide), _details(uv, wide)
    face = _inside(points, gray.shape, wide)
    shift, match = _shift(one * face, other * face)
    shifts = [shift]
    for half in _halves(points, gray.shape, wide):
        moved, matches = _shift(one * face * half, other * face * half)
        if matches >= MATCH:  # a half under hair tells nothing
            shifts.append(moved)
    misfit = max(float(np.hypot(*s)) for s in shifts)
    rows, columns = (float(x) / scale for x in shift)
    return Fit((rows, columns), misfit / scale, match)


def moved_back(uv: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """A UV photograph (uint8 [H, W]) without its shift; what is missing at the edge is reflected."""
    matrix = np.float32([[1, 0, shift[1]], [0, 1, shift[0]]])
    return cv2.warpAffine(
        uv,
        matrix,
        uv.shape[::-1],
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def _shift(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, float]:
    """Rows and columns by which `other` lies further, and the correlation there."""
    if not (one.any() and other.any()):
        return np.zeros(2), 0.0
    back, error, _ = skimage.registration.phase_cross_correlation(
        one, other, upsample_factor=UPSAMPLE, normalization=None
    )
    return -np.asarray(back), float(np.sqrt(max(0.0, 1 - float(error) ** 2)))


def _details(gray: np.ndarray, wide: float) -> np.ndarray:
    fine = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), FINE)
    return fine - cv2.GaussianBlur(fine, (0, 0), COARSE * wide)


def _inside(points: np.ndarray, shape: tuple[int, int], wide: float) -> np.ndarray:
    """1 inside the face and 0 at its outline, which hair and background differ at."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(mask, np.rint(cv2.convexHull(points)).astype(np.int32), 1)
    distance = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.clip(distance / (EDGE * wide) - 1, 0, 1)


def _halves(points: np.ndarray, shape: tuple[int, int], wide: float) -> list[np.ndarray]:
    """Weights [H, W] of the two sides of the face, from forehead to chin."""
    top, bottom = points[10], points[152]
    down = (bottom - top) / max(float(np.hypot(*(bottom - top))), 1e-6)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) + 0.5
    across = (x - top[0]) * down[1] - (y - top[1]) * down[0]
    right = 1 / (1 + np.exp(across / (0.03 * wide)))
    return [right, 1 - right]
