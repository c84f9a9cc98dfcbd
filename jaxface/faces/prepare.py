"""Photographs to training pictures, as CleftGAN prepares its 514 (Hayajneh et al., arXiv 2310.07969).

The paper's steps, by its abstract: adjust rotation, scale and color, blur the background. How, it
does not say; every recipe here is ours: rotation and scale in `align`, color by skin statistics and
a Gaussian blur outside the head, below. A picture is never mirrored to bring a cleft to one side:
the side is recorded instead.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from jaxface.errors import UserError
from jaxface.faces.align import align_by, frame_of, to_frame
from jaxface.faces.detect import detect
from jaxface.faces.mesh import landmarks_of
from jaxface.faces.regions import head_mask, skin_mask

VERSION = 1  # counts up when the same photograph would come out differently
MIN_SCORE = 0.5  # of the mesh: below, what the detector found is not taken for a face
CHUNK = 16  # pictures in memory at their full size

# Skin of a well exposed portrait: hue and contrast are means over 1,531 synthetic faces of all ages
# and origins, brightness is lifted from their 103 to 120.
SKIN_MEAN = (150.0, 113.0, 95.0)
SKIN_STD = (48.0, 42.0, 38.0)
GAINS = (0.5, 2.0)  # a channel's brightness is not changed beyond these
CONTRAST = (0.8, 1.2)  # nor the contrast: flat light is no fault of the camera
BLUR = 0.02  # standard deviation in sides of the picture (20 px at 1024)


class Prepared(NamedTuple):
    """A face in the canonical frame."""

    image: np.ndarray  # uint8 [size, size, 3]
    landmarks: np.ndarray  # [468, 3] in px of `image`
    score: float  # 0..1, of the face mesh


class NoFaceError(UserError):
    """No face was found in a picture that must have one."""


def prepare(image_u8: np.ndarray, size: int) -> Prepared:
    """Detects, aligns, adjusts color and blurs the background: uint8 [H, W, 3] -> Prepared.

    Of several faces the largest is taken. Raises NoFaceError.
    """
    prepared = prepare_all([image_u8], size)[0]
    if prepared is None:
        raise NoFaceError(
            "no face found: the photograph should show one face from the front, upright, of at least "
            "a twentieth of its longer side"
        )
    return prepared


def prepare_all(images_u8: Sequence[np.ndarray], size: int) -> list[Prepared | None]:
    """`prepare` for many pictures, in batches; None where no face was found."""
    return [
        prepared
        for start in range(0, len(images_u8), CHUNK)
        for prepared in _prepare_chunk(images_u8[start : start + CHUNK], size)
    ]


def _prepare_chunk(images_u8: Sequence[np.ndarray], size: int) -> list[Prepared | None]:
    results: list[Prepared | None] = [None] * len(images_u8)
    faces = [(i, found[0]) for i, found in enumerate(detect(images_u8)) if found]
    points, scores = landmarks_of([images_u8[i] for i, _ in faces], [face for _, face in faces])
    for (i, _), one, score in zip(faces, points, scores):
        if score < MIN_SCORE:
            continue
        matrix = frame_of(one, size)
        landmarks = to_frame(one, matrix)
        image = align_by(images_u8[i], matrix, size)
        image = adjust_color(image, skin_mask(landmarks, size, size))
        image = blur_background(image, landmarks)
        results[i] = Prepared(image, landmarks, float(score))
    return results


def adjust_color(
    image_u8: np.ndarray,
    mask: np.ndarray,
    mean: Sequence[float] = SKIN_MEAN,
    std: Sequence[float] = SKIN_STD,
    strength: float = 0.5,
) -> np.ndarray:
    """Moves the picture's colors so that its skin comes nearer to a reference.

    uint8 [H, W, 3] -> same. A gain for each channel (white balance and exposure) brings the mean over
    `mask` (bool [H, W]) the share `strength` of the way to `mean` (0..255), as a ratio; then one
    contrast for all channels, about that mean, does the same for the standard deviations' mean. Half
    the way by default: what the camera adds shrinks by half, and people keep most of the difference
    in the color of their skin. (Grey-world would take that color for the light's.) A picture without
    color stays without.
    """
    skin = image_u8[mask].astype(np.float64)
    if not len(skin):
        return image_u8
    mean = np.asarray(mean, np.float64)
    if np.ptp(skin, axis=1).max() < 3:
        mean = np.full(3, mean.mean())
    gain = np.clip((mean / np.maximum(skin.mean(axis=0), 1)) ** strength, *GAINS)
    center = gain * skin.mean(axis=0)
    spread = np.mean(gain * skin.std(axis=0))
    contrast = np.clip((np.mean(std) / max(spread, 1)) ** strength, *CONTRAST)
    moved = contrast * (gain * image_u8 - center) + center
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def blur_background(image_u8: np.ndarray, landmarks: np.ndarray, sigma: float = BLUR) -> np.ndarray:
    """Gaussian blur outside the head, with a feathered edge.

    uint8 [H, W, 3] and points [468, >=2] in its px -> same. `sigma` in sides of the picture. Only
    background enters the blur, so that the head casts no halo.
    """
    height, width = image_u8.shape[:2]
    head = head_mask(landmarks, height, width)[..., None]
    outside = 1 - head
    spread = max(sigma * max(height, width), 1e-3)
    color = cv2.GaussianBlur(image_u8 * outside, (0, 0), spread)
    weight = cv2.GaussianBlur(outside, (0, 0), spread)[..., None]
    background = np.where(weight > 1e-3, color / np.maximum(weight, 1e-3), image_u8)
    return np.clip(np.rint(head * image_u8 + outside * background), 0, 255).astype(np.uint8)
