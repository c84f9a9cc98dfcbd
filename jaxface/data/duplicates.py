"""One photograph under two names: found among aligned faces, also re-encoded, scaled, cropped or mirrored.

As a perceptual hash does, a small gray picture without what changes slowly (light, skin) is compared with all
others first. Faces in one frame are alike, and one person's even more, so that what this leaves is laid on
each other to a fraction of a px and compared in detail: what agrees then is one photograph, and not two of
one person.

At 64 px, the same photograph (JPEG of quality 30, half the size, 6 % cut off, mirrored, brighter, turned by
2 degrees; 95 pairs of synthetic and 96 of rendered faces) agrees by 0.945 or more, all changes at once by
0.91 or more. Two photographs of one rendered person in one room agree by 0.89 at most, the pairs most alike
among 1,531 synthetic faces, which are one face in two pictures, by 0.92.
"""

from collections.abc import Iterator

import cv2
import numpy as np

SIDE, COARSE = 64, 16  # px at which faces are laid on each other, and at which all are compared
FINE = 2.0  # px: standard deviation of the blur that is taken away, at either size
LIKELY = 0.8  # correlation of the coarse pictures from which two are looked at
SAME = 0.935  # correlation in detail from which two are one photograph
_ROWS = 1024  # compared at once
_STEPS, _CHANGE, _SMOOTH = (
    60,
    1e-4,
    5,
)  # of the registration: iterations, least gain, px of its blur


def thumbnail(face_u8: np.ndarray) -> np.ndarray:
    """float32 [64, 64], gray, of an aligned face uint8 [S, S, 3], S >= 64."""
    gray = cv2.cvtColor(face_u8, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def one_photograph(thumbnails: np.ndarray, subjects: list[str]) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, of thumbnails [N, 64, 64] of different subjects that are one photograph.

    They come in ascending order.
    """
    small = [cv2.resize(t, (COARSE, COARSE), interpolation=cv2.INTER_AREA) for t in thumbnails]
    prints = np.stack([_fine(one) for one in small])
    mirrored = prints[:, :, ::-1].reshape(len(prints), -1)
    prints = prints.reshape(len(prints), -1)
    person = np.unique(subjects, return_inverse=True)[1]
    for start in range(0, len(prints), _ROWS):
        some, rest = slice(start, start + _ROWS), slice(start, None)
        near = np.maximum(prints[some] @ prints[rest].T, prints[some] @ mirrored[rest].T)
        likely = np.triu(near >= LIKELY, 1) & (person[some, None] != person[rest])
        for i, j in (np.argwhere(likely) + start).tolist():
            if agreement(thumbnails[i], thumbnails[j]) >= SAME:
                yield i, j


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation -1..1 in detail of two thumbnails, the second also mirrored, laid on each other.

    An affine map is found by the enhanced correlation coefficient (Evangelidis & Psarakis 2008, PAMI 30);
    -1 if none is.
    """
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _STEPS, _CHANGE)
    inside = slice(SIDE // 8, -SIDE // 8)
    best = -1.0
    for turned in (other, np.ascontiguousarray(other[:, ::-1])):
        start = np.eye(2, 3, dtype=np.float32)
        try:
            _, matrix = cv2.findTransformECC(
                one, turned, start, cv2.MOTION_AFFINE, criteria, None, _SMOOTH
            )
        except cv2.error:  # it does not converge: they have nothing in common
            continue
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        laid = cv2.warpAffine(
            turned, matrix, (SIDE, SIDE), flags=how, borderMode=cv2.BORDER_REPLICATE
        )
        pair = [_fine(image, inside) for image in (one, laid)]
        best = max(best, float((pair[0] * pair[1]).sum()))
    return best


def _fine(image: np.ndarray, part: slice = slice(None)) -> np.ndarray:
    """What a blur takes away of a picture's rows and columns `part`, of mean 0 and length 1 (or all 0)."""
    fine = (image - cv2.GaussianBlur(image, (0, 0), FINE))[part, part]
    fine = fine - fine.mean()
    return fine / max(np.linalg.norm(fine), 1e-3)
