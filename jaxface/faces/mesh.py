"""468 points of a face in the photograph, and which of them bound what.

Kartynnik et al., arXiv 1907.06724: the detector's box, turned upright by the eyes and widened by
half, is the mesh's input. "Left" and "right" are the subject's own, as in MediaPipe.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxface import assets
from jaxface.faces.detect import Detection, batched
from jaxface.faces.resample import resample
from jaxface.models import facemesh

CROP = 1.5  # side of the mesh's input, in sides of the detector's box
WIDER = 2.0  # the same for a second look at faces that turn or fill the picture
SURE = 0.9  # score from which no second look is taken

# Closed outlines (MediaPipe's face_mesh_connections).
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
RIGHT_BROW = (46, 53, 52, 65, 55, 107, 66, 105, 63, 70)
LEFT_BROW = (276, 283, 282, 295, 285, 336, 296, 334, 293, 300)
LIPS = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
    *(409, 270, 269, 267, 0, 37, 39, 40, 185),
)
MOUTH_CORNERS = (61, 291)


def landmarks(image_u8: np.ndarray, detection: Detection) -> np.ndarray:
    """Points [468, 3] of one face: x, y in px of the picture and z (depth) in the same unit."""
    return landmarks_of([image_u8], [detection])[0][0]


def landmarks_of(
    images_u8: Sequence[np.ndarray], detections: Sequence[Detection]
) -> tuple[np.ndarray, np.ndarray]:
    """One face in each picture: points [N, 468, 3] as `landmarks` and scores [N] in 0..1.

    The score says how sure the network is that its crop shows a face.
    """
    points, scores = _run(images_u8, [_crop(detection, CROP) for detection in detections])
    unsure = np.flatnonzero(scores < SURE)
    again, second = _run(
        [images_u8[i] for i in unsure], [_crop(detections[i], WIDER) for i in unsure]
    )
    better = second > scores[unsure]
    points[unsure[better]], scores[unsure[better]] = again[better], second[better]
    return points, scores


def _run(
    images_u8: Sequence[np.ndarray], crops: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Points in px of the pictures and scores of the network's crops, each [2, 3] as `_crop`."""
    if not crops:
        return np.zeros((0, facemesh.POINTS, 3)), np.zeros(0)
    inputs = [
        resample(image, matrix, facemesh.SIDE, border="nearest")
        for image, matrix in zip(images_u8, crops)
    ]
    points, logits = batched(_network(), inputs, facemesh.SIDE)
    points = points.astype(np.float64)
    for one, matrix in zip(points, crops):
        one[:, :2] = one[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        one[:, 2] *= np.hypot(*matrix[:, 0])
    return points, 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -50, 50)))


def centers(points: np.ndarray) -> np.ndarray:
    """[..., 468, >=2] -> [..., 3, 2]: center of the right eye, of the left eye and of the mouth.

    The mouth's is midway between its corners, which a parted or cleft lip moves little.
    """
    groups = (RIGHT_EYE, LEFT_EYE, MOUTH_CORNERS)
    return np.stack([points[..., list(group), :2].mean(axis=-2) for group in groups], axis=-2)


def _crop(detection: Detection, sides: float) -> np.ndarray:
    """[2, 3]: px of the mesh's input, `sides` sides of the box wide -> px of the picture."""
    right, left = detection.keypoints[:2]
    direction = (left - right) / max(np.hypot(*(left - right)), 1e-9)
    box = detection.box
    scale = sides * max(box[2:] - box[:2]) / facemesh.SIDE
    turn = scale * np.array([[direction[0], -direction[1]], [direction[1], direction[0]]])
    center = (box[:2] + box[2:]) / 2
    return np.column_stack([turn, center - turn @ np.full(2, facemesh.SIDE / 2)])


@functools.cache
def _network() -> Callable[[np.ndarray], Any]:
    """uint8 [N, 192, 192, 3] -> points, logits; compiled once for each batch size."""
    net = facemesh.from_state_dict({}, assets.load("face_landmark_f16"))
    return jax.jit(lambda x: net.apply(x.astype("float32") / 255))
