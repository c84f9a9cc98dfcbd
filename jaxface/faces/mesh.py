"""468 points of a face in the photograph, and which of them bound what.

Kartynnik et al., arXiv 1907.06724: the detector's box, turned upright by the eyes and widened by
half, is the mesh's input; in a video the mesh of the last frame takes the box's place. We let it do
so in a single picture too, which halves how much the points move when the picture is turned.
"Left" and "right" are the subject's own, as in MediaPipe.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxface import assets, locks
from jaxface.faces.detect import Detection, batched, compiled
from jaxface.faces.resample import resample
from jaxface.models import facemesh

CROP = 1.5  # side of the mesh's input, in sides of the face's box
WIDER = 2.0  # the same for faces that the first look is not sure of: turned ones, very large ones
SURE = 0.9  # score from which it is
LOOKS = 2  # more passes, each with the crop its predecessor's outline asks for

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
    points, scores = _run(images_u8, [_crop_of_detection(d, CROP) for d in detections])
    unsure = np.flatnonzero(scores < SURE)
    wider = [_crop_of_detection(detections[i], WIDER) for i in unsure]
    again, second = _run([images_u8[i] for i in unsure], wider)
    better = second > scores[unsure]
    points[unsure[better]], scores[unsure[better]] = again[better], second[better]
    for _ in range(LOOKS):
        seen = np.flatnonzero(scores > 0.5)
        crops = [_crop_of_points(points[i]) for i in seen]
        again, second = _run([images_u8[i] for i in seen], crops)
        points[seen[second > 0.5]] = again[second > 0.5]
    return points, scores


def _run(
    images_u8: Sequence[np.ndarray], crops: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Points in px of the pictures and scores of the network's crops, each [2, 3] as `_crop` gives it."""
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


def _crop_of_detection(detection: Detection, sides: float) -> np.ndarray:
    """Crop of `sides` sides of the detector's box, upright by its eyes."""
    right, left = detection.keypoints[:2]
    box = detection.box
    return _crop((box[:2] + box[2:]) / 2, sides * max(box[2:] - box[:2]), left - right)


def _crop_of_points(points: np.ndarray) -> np.ndarray:
    """Crop around the outline of a face [468, >=2] that is known already, upright by its eyes."""
    right, left, _ = centers(points)
    turn = _turn(left - right)
    outline = points[list(OVAL), :2] @ turn  # in coordinates along and across the eyes
    low, high = outline.min(axis=0), outline.max(axis=0)
    return _crop(turn @ ((low + high) / 2), CROP * max(high - low), left - right)


def _crop(center: np.ndarray, side: float, along: np.ndarray) -> np.ndarray:
    """[2, 3]: px of the mesh's input -> px of the picture, for a square with edges `along`."""
    scaled = side / facemesh.SIDE * _turn(along)
    return np.column_stack([scaled, center - scaled @ np.full(2, facemesh.SIDE / 2)])


def _turn(along: np.ndarray) -> np.ndarray:
    """Rotation [2, 2] of the x axis to the direction `along` [2]."""
    x, y = along / max(np.hypot(*along), 1e-9)
    return np.array([[x, -y], [y, x]])


@locks.made_once
def _network() -> Callable[[np.ndarray], Any]:
    """uint8 [BATCH, 192, 192, 3] -> points, logits."""
    net = facemesh.from_state_dict({}, assets.load("face_landmark_f16"))
    return compiled(lambda x: net.apply(x.astype("float32") / 255), facemesh.SIDE)
