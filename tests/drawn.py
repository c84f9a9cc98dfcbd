"""A face drawn with ellipses that detector and mesh take for one: input with known truth, no files."""

import cv2
import numpy as np

EYES = np.array([[0.415, 0.465], [0.585, 0.465]])  # right, left; in sides of the picture
MOUTH = np.array([0.5, 0.685])
WIDTH = 0.42  # of the face


def face(size: int = 256, skin=(215, 165, 140), background=(205, 210, 215)) -> np.ndarray:
    """uint8 [size, size, 3]."""
    side = 1024
    image = np.full((side, side, 3), background, np.uint8)
    skin = np.array(skin)

    def ellipse(x, y, a, b, color, start=0, end=360, thickness=-1):
        center, axes = (int(x * side), int(y * side)), (int(a * side), int(b * side))
        color = tuple(int(c) for c in color)
        cv2.ellipse(image, center, axes, 0, start, end, color, thickness)

    ellipse(0.5, 0.46, 0.27, 0.36, (60, 45, 40))  # hair
    corners = [(int(x * side), int(y * side)) for x, y in ((0.4, 0.7), (0.6, 1.0))]
    cv2.rectangle(image, *corners, tuple(int(c) for c in 0.87 * skin), -1)  # neck
    ellipse(0.5, 1.05, 0.4, 0.2, (70, 80, 120))  # shoulders
    ellipse(0.5, 0.52, WIDTH / 2, 0.29, skin)
    light = np.zeros((side, side), np.float32)
    cv2.ellipse(
        light, (side // 2, int(0.52 * side)), (int(0.17 * side), side // 4), 0, 0, 360, 1, -1
    )
    light = cv2.GaussianBlur(light, (0, 0), 0.03 * side)[..., None]
    image = np.clip(image * (0.82 + 0.2 * light), 0, 255).astype(np.uint8)
    for x, y in EYES:
        ellipse(x, y - 0.06, 0.05, 0.012, (70, 50, 40), 180, 360, side // 60)
        ellipse(x, y, 0.045, 0.022, 0.82 * skin)
        ellipse(x, y, 0.038, 0.017, (240, 240, 240))
        ellipse(x, y, 0.016, 0.016, (80, 55, 35))
        ellipse(x, y, 0.008, 0.008, (15, 10, 10))
        ellipse(x, y, 0.042, 0.02, (50, 30, 25), 190, 350, side // 120)
    ellipse(0.5, 0.55, 0.012, 0.09, np.minimum(1.07 * skin, 255))  # nose
    ellipse(0.5, 0.595, 0.04, 0.018, 0.75 * skin, 0, 180)
    for x in (0.482, 0.518):
        ellipse(x, 0.602, 0.009, 0.006, 0.4 * skin)
    ellipse(*MOUTH, 0.07, 0.024, (180, 90, 90))
    ellipse(*MOUTH, 0.065, 0.002, (110, 50, 50))
    image = cv2.GaussianBlur(image, (0, 0), 0.004 * side)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def turn(image: np.ndarray, degrees: float, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The picture turned and scaled about its center, and the map [2, 3] of its points."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), degrees, scale)
    turned = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return turned, matrix


def move(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]
