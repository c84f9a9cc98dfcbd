"""Rotation and scale: brings eyes and mouth of every face to the same place.

CleftGAN (arXiv 2310.07969) adjusts rotation and scale; it does not say how. Ours is a least-squares
similarity on eyes and mouth, in the manner of FFHQ (Karras et al., arXiv 1812.04948, appendix A),
with a frame of our own.
"""

import cv2
import numpy as np

from jaxface.faces.mesh import centers
from jaxface.faces.resample import resample

# Right eye, left eye and mouth in an output of side 1; the subject's right eye is on the left.
FRAME = np.array([[0.33, 0.40], [0.67, 0.40], [0.50, 0.735]])
# The same for a loose crop, in which cheeks, jaw and the outline of the lids keep a margin (edema, Akamatsu
# et al., JBHI 2022, in the spec's section 3.3: the face's box times 1.2): the square about (0.50, 0.54)
# whose side is 1.12 of FRAME's, which is 1.2 times the tallest outline of 102 rendered heads turned by
# up to 25 degrees. The scale comes from eyes and mouth alone: swollen cheeks stay as wide as they are.
LOOSE = 0.5 + (FRAME - [0.50, 0.54]) / 1.12
FADE = 0.25  # in sides of the output: as far beyond the picture's edge the fill is one color


def align(
    image_u8: np.ndarray, landmarks: np.ndarray, size: int, frame: np.ndarray = FRAME
) -> np.ndarray:
    """uint8 [H, W, 3] and points [468, >=2] -> uint8 [size, size, 3] in the canonical frame, or LOOSE.

    What lies beyond the picture's edge is its mirror image, blurred the more the farther out.
    """
    return align_by(image_u8, frame_of(landmarks, size, frame), size)


def frame_of(landmarks: np.ndarray, size: int, frame: np.ndarray = FRAME) -> np.ndarray:
    """[2, 3]: px of the aligned output -> px of the picture, from points [468, >=2].

    The similarity z -> a z + b (complex) that moves the three centers nearest to `frame`, by least
    squares in the output, inverted.
    """
    p = centers(landmarks) @ [1, 1j]
    q = (frame * size) @ [1, 1j]
    a = np.vdot(p - p.mean(), q - q.mean()) / max(np.vdot(p - p.mean(), p - p.mean()).real, 1e-9)
    inverse = 1 / a
    b = p.mean() - inverse * q.mean()
    return np.array([[inverse.real, -inverse.imag, b.real], [inverse.imag, inverse.real, b.imag]])


def to_frame(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points [N, 3] of the picture -> of the aligned output; `matrix` as `frame_of` gives it."""
    inverse = np.linalg.inv(matrix[:, :2])
    moved = np.array(points, np.float64)
    moved[:, :2] = (moved[:, :2] - matrix[:, 2]) @ inverse.T
    moved[:, 2] *= np.hypot(*inverse[:, 0])
    return moved


def align_by(image_u8: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """`align` with the frame already found."""
    aligned = resample(image_u8, matrix, size)
    beyond = _beyond(image_u8.shape[:2], matrix, size)
    if not beyond.any():
        return aligned
    blurred = cv2.GaussianBlur(aligned, (0, 0), 0.03 * size, borderType=cv2.BORDER_REFLECT_101)
    inside = aligned[beyond == 0]
    color = np.median(inside if len(inside) else aligned.reshape(-1, 3), axis=0)
    far = np.clip(beyond / FADE, 0, 1)[..., None]
    near = np.clip(beyond / (0.2 * FADE), 0, 1)[..., None]
    filled = aligned * (1 - near) + near * blurred
    filled = filled * (1 - far) + far * color
    return np.clip(np.rint(filled), 0, 255).astype(np.uint8)


def _beyond(shape: tuple[int, int], matrix: np.ndarray, size: int) -> np.ndarray:
    """[size, size]: how far each output pixel lies beyond the picture's edge, in sides of the output."""
    grid = np.arange(size) + 0.5
    x, y = np.meshgrid(grid, grid)
    distance = 0.0
    for axis, length in enumerate((shape[1], shape[0])):
        at = matrix[axis, 0] * x + matrix[axis, 1] * y + matrix[axis, 2]
        distance = np.maximum(distance, np.maximum(-at, at - length))
    scale = np.hypot(*matrix[:, 0]) * size
    return np.maximum(distance, 0) / max(scale, 1e-9)
