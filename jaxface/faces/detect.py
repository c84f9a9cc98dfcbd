"""Finds faces: anchors, decoding and non-maximum suppression around `models.blazeface`.

Bazarevsky et al., arXiv 1907.05047: overlapping boxes are blended by score rather than dropped
(section 3.4 there), which steadies the keypoints.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np

from jaxface import assets, cache, locks
from jaxface.models import blazeface

KEYPOINTS = ("right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear")  # the subject's
BATCH = 2  # pictures at once; from 4 on their activations leave a CPU's cache: twice the time
SAME_FACE = 0.3  # overlap (intersection over union) from which two boxes are one face


class Detection(NamedTuple):
    """One face, in px of the picture it was found in (may reach beyond its edge)."""

    box: np.ndarray  # [4]: left, top, right, bottom
    keypoints: np.ndarray  # [6, 2]: x, y, in the order of KEYPOINTS
    score: float  # 0..1

    @property
    def area(self) -> float:
        return float(np.prod(self.box[2:] - self.box[:2]))


def detect(images_u8: Sequence[np.ndarray], threshold: float = 0.5) -> list[list[Detection]]:
    """Faces in each of `images_u8` (uint8 [H, W, 3], any sizes), the largest first.

    Faces should cover at least a twentieth of the picture's longer side and be upright within about
    40 degrees; none found gives an empty list.
    """
    boxes, scores = batched(
        _network(), (letterbox(image)[0] for image in images_u8), blazeface.SIDE
    )
    found = []
    for image, box, score in zip(images_u8, boxes, scores):
        scale = max(image.shape[:2]) / blazeface.SIDE
        found.append(_suppress(_decode(box) * scale, _sigmoid(score), threshold))
    return found


def batched(
    network: Callable[[np.ndarray], Any], inputs: Any, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Runs `network` on uint8 [side, side, 3] inputs in batches of one compiled size.

    Returns its two outputs for all inputs, as NumPy arrays.
    """
    inputs = list(inputs)
    outputs: tuple[list, list] = ([], [])
    for start in range(0, len(inputs), BATCH):
        taken = inputs[start : start + BATCH]
        batch = np.zeros((BATCH, side, side, 3), np.uint8)
        batch[: len(taken)] = taken
        for all_, one in zip(outputs, network(batch)):
            all_.extend(np.asarray(one)[: len(taken)])
    return np.array(outputs[0]), np.array(outputs[1])


def letterbox(image_u8: np.ndarray, side: int = blazeface.SIDE) -> tuple[np.ndarray, float]:
    """The picture in the top left of a black square, and px of the picture per px of the square."""
    scale = max(image_u8.shape[:2]) / side
    height, width = (max(1, round(n / scale)) for n in image_u8.shape[:2])
    square = np.zeros((side, side, 3), np.uint8)
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    square[:height, :width] = cv2.resize(image_u8, (width, height), interpolation=method)
    return square, scale


def compiled(run: Callable, side: int) -> Callable[[np.ndarray], Any]:
    """A network on the batches of `batched`, compiled here and now."""
    batch = jax.ShapeDtypeStruct((BATCH, side, side, 3), np.uint8)
    return jax.jit(run, compiler_options=cache.OPTIMIZED).lower(batch).compile()


@locks.made_once
def _network() -> Callable[[np.ndarray], Any]:
    """uint8 [BATCH, 256, 256, 3] -> boxes, scores."""
    net = blazeface.from_state_dict({}, assets.load("face_detection_back_f16"))
    return compiled(lambda x: net.apply(x.astype("float32") / 127.5 - 1), blazeface.SIDE)


@functools.cache
def anchors() -> np.ndarray:
    """Centers [896, 2] (x, y) in px of the detector's input."""
    grids = []
    for cells, repeats in ((16, 2), (8, 6)):
        centers = (np.arange(cells) + 0.5) * (blazeface.SIDE / cells)
        y, x = np.meshgrid(centers, centers, indexing="ij")
        grids.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=-1), repeats, axis=0))
    return np.concatenate(grids)


def _decode(boxes: np.ndarray) -> np.ndarray:
    """[896, 16] relative to the anchors -> [896, 8, 2]: top left, bottom right, six keypoints."""
    points = boxes.astype(np.float64).reshape(-1, 8, 2)
    center, half = points[:, 0] + anchors(), points[:, 1] / 2
    keypoints = points[:, 2:] + anchors()[:, None]
    return np.concatenate([(center - half)[:, None], (center + half)[:, None], keypoints], axis=1)


def _suppress(points: np.ndarray, scores: np.ndarray, threshold: float) -> list[Detection]:
    """Blends boxes that overlap the best remaining one by more than SAME_FACE, until none is left."""
    points, scores = points[scores > threshold], scores[scores > threshold]
    found = []
    while len(scores):
        best = np.argmax(scores)
        same = _overlap(points, points[best]) > SAME_FACE
        same[best] = True
        blend = np.average(points[same], axis=0, weights=scores[same])
        found.append(Detection(blend[:2].ravel(), blend[2:], float(scores[best])))
        points, scores = points[~same], scores[~same]
    return sorted(found, key=lambda d: -d.area)


def _overlap(points: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [N, >=2, 2] with one [>=2, 2]."""
    inner = np.minimum(points[:, 1], one[1]) - np.maximum(points[:, 0], one[0])
    inner = np.prod(np.maximum(inner, 0), axis=-1)
    areas = np.prod(points[:, 1] - points[:, 0], axis=-1) + np.prod(one[1] - one[0])
    return inner / np.maximum(areas - inner, 1e-9)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -50, 50)))
