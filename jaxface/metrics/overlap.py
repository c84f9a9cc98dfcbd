"""Do two maps of spots show the same spots: pixel by pixel, spot by spot, and on skin without any.

Maps are bool [H, W]; only what lies inside a region, bool [H, W], counts. Shares of nothing are NaN.
"""

from typing import NamedTuple

import cv2
import numpy as np
import scipy

NEAR = 3 / 750  # face widths between the centroids of spots that are taken for the same


class Matches(NamedTuple):
    """How many spots were matched one to one."""

    matched: int
    found: int
    true: int

    @property
    def precision(self) -> float:
        """Share of the found spots that are true."""
        return self.matched / self.found if self.found else float("nan")

    @property
    def recall(self) -> float:
        """Share of the true spots that were found."""
        return self.matched / self.true if self.true else float("nan")


def dice(found: np.ndarray, truth: np.ndarray, region: np.ndarray) -> float:
    """Twice the common area over the sum of both areas (Dice, Ecology 1945), 0..1."""
    common, total = _areas(found, truth, region)
    return 2 * common / total if total else float("nan")


def iou(found: np.ndarray, truth: np.ndarray, region: np.ndarray) -> float:
    """Common area over the area of either (Jaccard), 0..1."""
    common, total = _areas(found, truth, region)
    return common / (total - common) if total else float("nan")


def match(found: np.ndarray, truth: np.ndarray, region: np.ndarray, face_width: float) -> Matches:
    """Pairs up as many spots as possible whose centroids are at most NEAR apart; `face_width` in px."""
    a, b = (_centroids(spots & region) for spots in (found, truth))
    if not (len(a) and len(b)):
        return Matches(0, len(a), len(b))
    near = scipy.spatial.KDTree(a).query_ball_tree(scipy.spatial.KDTree(b), NEAR * face_width)
    ends = np.cumsum([0, *map(len, near)])
    columns = np.concatenate([np.asarray(row, np.int32) for row in near])
    graph = scipy.sparse.csr_array((np.ones(len(columns)), columns, ends), shape=(len(a), len(b)))
    pairs = scipy.sparse.csgraph.maximum_bipartite_matching(graph, perm_type="column")
    return Matches(int((pairs >= 0).sum()), len(a), len(b))


def hallucination(
    found: np.ndarray, truth: np.ndarray, region: np.ndarray, guard_px: float
) -> float:
    """Share of truly spot-free skin on which spots were found, 0..1.

    Skin is truly spot-free where it is farther than `guard_px` from every true spot of the picture.
    """
    free = region
    if truth.any():
        distance = cv2.distanceTransform(
            (~truth).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
        )
        free = region & (distance > guard_px)
    area = np.count_nonzero(free)
    return np.count_nonzero(found & free) / area if area else float("nan")


def _areas(found: np.ndarray, truth: np.ndarray, region: np.ndarray) -> tuple[int, int]:
    common = np.count_nonzero(found & truth & region)
    return common, np.count_nonzero(found & region) + np.count_nonzero(truth & region)


def _centroids(spots: np.ndarray) -> np.ndarray:
    """[K, 2] (column, row) of connected spots."""
    return cv2.connectedComponentsWithStats(spots.astype(np.uint8), connectivity=8)[3][1:]
