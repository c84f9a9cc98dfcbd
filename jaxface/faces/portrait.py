"""One photograph of one face, made ready for what looks at skin: where it is, how much of it there is.

UV-photo Net takes facial skin from a segmentation network (BiSeNet) whose weights are not free to
ship. Here the mesh says where skin should be and color says where it is not: hair, beard, glasses
and hands lie over the mesh. How color says so is ours: each place is held against the middle of
both cheeks, in units of how much skin varies, with the light taken out; spots, redness and shading
stay, and a cover that looks like skin (another's hand, a wig's parting) is not seen.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from jaxface.faces import mesh
from jaxface.faces.detect import Detection, detect
from jaxface.faces.mesh import landmarks_of
from jaxface.faces.prepare import CHUNK, MIN_SCORE, NoFaceError
from jaxface.faces.regions import skin_mask

SIDES = (234, 454)  # mesh points at the subject's right and left ear, between which a face is wide
WORK = 200.0  # px of the face's width at which color is looked at: finer than any cover
SMOOTH = 0.02  # face widths: what is smaller, as spots are, does not decide
CHEEKS = (205, 425)  # mesh points in the middle of the subject's right and left cheek
CHEEK = 0.09  # radius there, in face widths
HUE = (0.06, 0.25)  # what skin's hue varies by at least, and as a share of its strength
LIGHT = 0.25  # what the logarithm of its light does
GLOSS = (
    0.2  # share of its strength that gloss may lose; white cloth, which loses all of it, is none
)
LIMIT = 3.0  # spreads from the cheeks beyond which something does not look like skin
CLEAN = 0.025  # face widths: what is thinner, such as a strand of hair or a nostril, is closed over

COVERED = 0.12  # share of the skin from which a cover is told
TURNED = 25.0  # degrees of yaw from which one cheek is hardly seen
SMALL = 400  # px of face width: a freckle of 1.5 mm is 4 px there
BLURRED = 0.006  # face widths: standard deviation of the edges from which such a freckle fades
DEPTH = 1.3  # the mesh's faces are this much flatter than phantoms turned by a known angle
SHARP = 500.0  # px of the face's width at which edges are measured


class Portrait(NamedTuple):
    """A face in its photograph of H x W px. Left and right are the subject's own."""

    landmarks: np.ndarray  # [468, 3]: x, y in px and z (depth) in the same unit
    mask: np.ndarray  # bool [H, W]: skin that can be used
    face_width: float  # px from ear to ear
    covered: float  # 0..1: share of the skin by the mesh that does not look like skin
    ita: float  # degrees: individual typology angle of the skin at the cheeks' height
    warnings: tuple[str, ...]  # what a person should know about this photograph


def portrait(image_u8: np.ndarray, mask: np.ndarray | None = None) -> Portrait:
    """Finds the largest face of a photograph and its usable skin.

    Args:
      image_u8: uint8 [H, W, 3], sRGB, upright.
      mask: a user's own bool [H, W] of usable skin. It takes the place of the mesh's skin and is
        taken at its word: what in it does not look like skin is counted in `covered` and stays.

    Raises:
      NoFaceError: no face was found.
      ValueError: a mask of another shape than the photograph.
    """
    if mask is not None and mask.shape != image_u8.shape[:2]:
        raise ValueError(f"mask {mask.shape} of a photograph of {image_u8.shape[:2]}")
    found = _find([image_u8])[0]
    if found is None:
        raise NoFaceError(
            "no face found: the photograph should show one face from the front, upright, of at least "
            "a twentieth of its longer side"
        )
    return _look(image_u8, *found, mask)


def portraits(images_u8: Sequence[np.ndarray]) -> list[Portrait | None]:
    """`portrait` of many photographs (uint8 [H, W, 3], any sizes); None where no face was found."""
    return [
        found and _look(image, *found, None)
        for start in range(0, len(images_u8), CHUNK)
        for image, found in zip(
            images_u8[start : start + CHUNK], _find(images_u8[start : start + CHUNK])
        )
    ]


def _find(images_u8: Sequence[np.ndarray]) -> list[tuple[np.ndarray, list[Detection]] | None]:
    """Landmarks of the largest face of each picture and all that was detected there."""
    seen = detect(images_u8)
    at = [i for i, faces in enumerate(seen) if faces]
    points, scores = landmarks_of([images_u8[i] for i in at], [seen[i][0] for i in at])
    found: list[tuple[np.ndarray, list[Detection]] | None] = [None] * len(images_u8)
    for i, one, score in zip(at, points, scores):
        if score >= MIN_SCORE:
            found[i] = one, seen[i]
    return found


def _look(image_u8, landmarks, faces, mask) -> Portrait:
    height, width = image_u8.shape[:2]
    wide = float(np.hypot(*(landmarks[SIDES[1], :2] - landmarks[SIDES[0], :2])))
    meant = skin_mask(landmarks, height, width) if mask is None else mask.astype(bool)

    # Color is looked at in a small copy of the face: the rest of a photograph has no part in it.
    scale = min(1.0, WORK / max(wide, 1.0))
    left, top, right, bottom = _box(landmarks, meant, 0.1 * wide)
    crop = (slice(top, bottom), slice(left, right))
    size = tuple(max(1, round(n * scale)) for n in (right - left, bottom - top))
    small = cv2.resize(image_u8[crop], size, interpolation=cv2.INTER_AREA)
    region = cv2.resize(meant[crop].astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
    points = (landmarks[:, :2] - [left, top]) * scale
    other = foreign(small, region, points)

    share = other.sum() / max(region.sum(), 1)
    usable = meant
    if mask is None and other.any():
        usable = meant.copy()
        large = cv2.resize(
            other.astype(np.float32),
            (right - left, bottom - top),
            interpolation=cv2.INTER_LINEAR,
        )
        usable[crop] &= large <= 0.5
    warnings = [
        *_of_faces(faces, landmarks),
        *_of_cover(other, region, points, share),
        *_of_pose(landmarks),
        *_of_detail(image_u8[crop], landmarks[:, :2] - [left, top], wide),
    ]
    ita = _ita(small, region & ~other, points)
    return Portrait(landmarks, usable, wide, float(share), ita, tuple(warnings))


def _box(landmarks, mask, margin) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of face and mask with a margin, inside the picture."""
    height, width = mask.shape
    corners = [landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows):
        corners += [np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]])]
    low, high = np.min(corners, axis=0) - margin, np.max(corners, axis=0) + margin
    left, top = np.clip(low, 0, [width - 1, height - 1]).astype(int)
    right, bottom = np.clip(np.ceil(high), [left + 1, top + 1], [width, height]).astype(int)
    return left, top, right, bottom


def foreign(image_u8: np.ndarray, region: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Where, inside `region`, the picture does not look like the skin of the cheeks.

    Light multiplies what skin reflects, and by its cube root CIELAB's a*, b* and L* + 16: a* and b*
    over L* + 16 keep the hue and lose the light, whose part is the logarithm of L* + 16. Both are held
    against their medians over the middle of both cheeks, in robust units (1.4826 MAD, at least HUE and
    LIGHT). All of it allows for what the same skin does under one lamp: see GLOSS.

    Args:
      image_u8: uint8 [H, W, 3], sRGB; the face should be WORK px wide or less.
      region: bool [H, W], where skin should be.
      landmarks: [468, >=2] in px of this picture.

    Returns:
      bool [H, W].
    """
    wide = np.hypot(*(landmarks[SIDES[1], :2] - landmarks[SIDES[0], :2]))
    lab = cv2.cvtColor(image_u8.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    light = lab[..., 0] + 16
    looks = np.dstack([lab[..., 1] / light, lab[..., 2] / light, np.log(light)])
    # Only the region enters the smoothing, so that eyes and background do not bleed into it.
    weight = region.astype(np.float32)
    looks = cv2.GaussianBlur(looks * weight[..., None], (0, 0), max(SMOOTH * wide, 0.3))
    weight = cv2.GaussianBlur(weight, (0, 0), max(SMOOTH * wide, 0.3))
    looks = looks / np.maximum(weight, 1e-6)[..., None]

    y, x = np.mgrid[: region.shape[0], : region.shape[1]] + 0.5
    near = [np.hypot(x - landmarks[p, 0], y - landmarks[p, 1]) < CHEEK * wide for p in CHEEKS]
    cheeks = looks[region & (near[0] | near[1])]
    if not len(cheeks):
        return np.zeros_like(region)
    center = np.median(cheeks, axis=0)
    spread = 1.4826 * np.median(np.abs(cheeks - center), axis=0)
    hue, light = looks[..., :2], looks[..., 2] - center[2]
    strength = np.hypot(*center[:2])
    toward = center[:2] / max(strength, 1e-6)
    # Gloss is brighter and paler, deep shade darker and stronger: neither is a cover.
    paler = strength * (1 - np.clip(light, 0, GLOSS))
    stronger = strength * np.exp(np.maximum(-light, 0))
    nearest = np.clip(hue @ toward, paler, stronger)
    off = np.hypot(*np.moveaxis(hue - nearest[..., None] * toward, -1, 0))
    off /= max(spread[:2].max(), HUE[0], HUE[1] * strength)
    distance = np.hypot(off, light / max(spread[2], LIGHT))
    other = (distance > LIMIT) & region
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * max(1, round(CLEAN * wide)) + 1,) * 2)
    other = cv2.morphologyEx(other.astype(np.uint8), cv2.MORPH_OPEN, disk)
    other = cv2.morphologyEx(other, cv2.MORPH_CLOSE, disk)
    return other.astype(bool) & region


def _heights(shape: tuple[int, int], landmarks: np.ndarray) -> np.ndarray:
    """[H, W]: place along the face, 0 at the eyes, 1 at the mouth."""
    right, left, mouth = mesh.centers(landmarks)
    origin = (right + left) / 2
    down = (mouth - origin) / max(np.square(mouth - origin).sum(), 1e-9)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return (x - origin[0]) * down[0] + (y - origin[1]) * down[1]


def _ita(image_u8: np.ndarray, skin: np.ndarray, landmarks: np.ndarray) -> float:
    """Chardon et al. 1991: atan2(L* - 50, b*) in degrees, the median at the cheeks' height."""
    height = _heights(skin.shape, landmarks)
    at = skin & (height > 0.2) & (height < 1)
    at = at if at.any() else skin
    if not at.any():
        return float("nan")
    lab = cv2.cvtColor(image_u8.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[at]
    return float(np.median(np.rad2deg(np.arctan2(lab[:, 0] - 50, lab[:, 2]))))


def _of_faces(faces: Sequence[Detection], landmarks: np.ndarray) -> list[str]:
    """Other faces than this one; a second box on the same face is none."""
    low, high = landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)
    middles = [(face.box[:2] + face.box[2:]) / 2 for face in faces[1:]]
    others = sum(not ((low < middle) & (middle < high)).all() for middle in middles)
    return [f"{1 + others} faces found: the largest is taken"] if others else []


def _of_cover(
    other: np.ndarray, region: np.ndarray, landmarks: np.ndarray, share: float
) -> list[str]:
    """What may lie over the skin, by where most of it does."""
    if share <= COVERED:
        return []
    height = _heights(region.shape, landmarks)
    parts = {
        "hair at the top": height < -0.3,
        "glasses or hair around the eyes": (height >= -0.3) & (height < 0.45),
        "a beard, a mask or a hand on the lower face": height >= 0.45,
    }
    amounts = {what: (other & part).sum() / max(region.sum(), 1) for what, part in parts.items()}
    likely = [what for what, amount in amounts.items() if amount >= 0.5 * max(amounts.values())]
    return [f"{share:.0%} of the face's skin does not look like skin: likely {'; '.join(likely)}"]


def yaw(landmarks: np.ndarray) -> float:
    """Degrees by which the head is turned, from the depths that the mesh [468, 3] gives its sides.

    Positive where the subject turns to the own left, so that the left cheek is hidden. On phantoms
    turned by 25 degrees it says 16 to 33.
    """
    across = landmarks[SIDES[1]] - landmarks[SIDES[0]]
    return float(np.rad2deg(np.arctan2(DEPTH * across[2], np.hypot(*across[:2]))))


def _of_pose(landmarks: np.ndarray) -> list[str]:
    turned = yaw(landmarks)
    if abs(turned) <= TURNED:
        return []
    side = "left" if turned > 0 else "right"
    return [
        f"the head is turned by about {abs(turned):.0f} degrees: the {side} cheek is hardly seen"
    ]


def edge_width(image_u8: np.ndarray, landmarks: np.ndarray) -> float:
    """Standard deviation in px of the steepest edges of a face (eyes and lips), as if of Gaussian blur.

    An edge blurred by s has a slope as 1 / s; blurred by another r on purpose, 1 / sqrt(s^2 + r^2):
    the ratio of the slopes gives s. Noise that blurs away counts as sharpness.
    """
    gray = cv2.cvtColor(image_u8, cv2.COLOR_RGB2GRAY).astype(np.float32)
    face = np.zeros(gray.shape, np.uint8)
    hull = cv2.convexHull(landmarks[:, :2].astype(np.float32))
    cv2.fillConvexPoly(face, hull.astype(np.int32), 1)
    if not face.any():
        return 0.0

    def slope(gray: np.ndarray) -> float:
        steep = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
        steep = np.sort(steep[face > 0])
        return float(steep[int(0.95 * len(steep)) :].mean())

    more = 1.5
    ratio = slope(cv2.GaussianBlur(gray, (0, 0), more)) / max(slope(gray), 1e-6)
    return more * ratio / np.sqrt(max(1 - ratio**2, 1e-6))


def _of_detail(image_u8: np.ndarray, landmarks: np.ndarray, wide: float) -> list[str]:
    """Of a crop around the face, at the photograph's size."""
    if wide < SMALL:
        return [f"the face is only {wide:.0f} px wide: small spots cannot be seen"]
    scale = min(1.0, SHARP / wide)
    size = tuple(max(1, round(n * scale)) for n in image_u8.shape[1::-1])
    small = cv2.resize(image_u8, size, interpolation=cv2.INTER_AREA)
    width = edge_width(small, landmarks * scale) / scale
    if width <= BLURRED * wide:
        return []
    return [f"the photograph is blurred, by about {width:.0f} px: small spots cannot be seen"]
