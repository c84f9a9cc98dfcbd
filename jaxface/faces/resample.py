"""Samples a picture through an affine map without aliasing."""

import cv2
import numpy as np

_BORDERS = {"reflect": cv2.BORDER_REFLECT_101, "nearest": cv2.BORDER_REPLICATE}


def resample(
    image_u8: np.ndarray, matrix: np.ndarray, size: int, border: str = "reflect"
) -> np.ndarray:
    """uint8 [H, W, C] -> uint8 [size, size, C].

    `matrix` [2, 3] maps (x, y, 1) of the output to px of the picture; both count from the outer corner
    of the first pixel, whose center is (0.5, 0.5). When shrinking, every output pixel is the mean of
    what it covers: the picture is first reduced by area to about two px per output px and then
    sampled twice as densely as the output, whose pixels average 2x2 samples. `border` is what lies
    beyond the picture: "reflect" or "nearest".
    """
    matrix = np.asarray(matrix, np.float64)
    shrink = np.sqrt(abs(np.linalg.det(matrix[:, :2])))  # px of the picture per px of the output
    if shrink > 2:
        height, width = image_u8.shape[:2]
        smaller = [max(1, round(n * 2 / shrink)) for n in (width, height)]
        image_u8 = cv2.resize(image_u8, smaller, interpolation=cv2.INTER_AREA)
        matrix = matrix * [[smaller[0] / width], [smaller[1] / height]]
    dense = 2 if shrink > 1 else 1
    step = matrix[:, :2] / dense
    shift = matrix[:, 2] + step @ [0.5, 0.5] - 0.5  # OpenCV counts from the pixel's center
    method = cv2.INTER_LINEAR if dense > 1 else cv2.INTER_CUBIC
    samples = cv2.warpAffine(
        image_u8,
        np.column_stack([step, shift]),
        (dense * size, dense * size),
        flags=method | cv2.WARP_INVERSE_MAP,
        borderMode=_BORDERS[border],
    )
    if dense > 1:
        samples = cv2.resize(samples, (size, size), interpolation=cv2.INTER_AREA)
    return samples.reshape(size, size, image_u8.shape[2] if image_u8.ndim == 3 else 1)
