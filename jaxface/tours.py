"""What a style generator can show beside single faces: mixed styles, walks, moves of the picture.

The functions here only choose styles and transforms; a `Painter` holds the generator.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxface.system import Figure, Film

STEPS = 24  # frames from one face of a walk to the next
TURN = 48  # frames of one round of a move
SHIFT = 0.15  # sides of the picture that a translation goes out
ANGLE = 30.0  # degrees that a rotation swings out
FPS = 24


class Painter(NamedTuple):
    """A generator with its weights, truncation and labels settled."""

    styles: Callable  # (number) -> float32 [number, num_ws, w_dim], face i is always the same
    paint: Callable  # (styles [N, num_ws, w_dim], transforms [N, 3, 3]) -> uint8 [N, H, W, C]


def mixing(painter: Painter, number: int | None = None) -> Figure:
    """Style mixing (arXiv 1812.04948, section 3.1): coarse layers of one face, fine of another.

    The first row and the first column show `number` (6) faces each as they are. Every other cell has
    the first half of its layers, shape and pose, from its row and the rest, color and texture, from
    its column.
    """
    number = number or 6
    styles = painter.styles(2 * number)
    rows, columns = styles[:number], styles[number:]
    coarse = np.arange(styles.shape[1])[:, None] < styles.shape[1] // 2
    mixed = np.where(coarse, rows[:, None], columns[None])
    pictures = _paint(painter, np.concatenate([styles, mixed.reshape(-1, *styles.shape[1:])]))
    sources, cells = pictures[: 2 * number], pictures[2 * number :]
    corner = np.full_like(sources[:1], 255)
    grid = [np.concatenate([corner, sources[number:]])]
    for row in range(number):
        line = cells[row * number : (row + 1) * number]
        grid.append(np.concatenate([sources[row : row + 1], line]))
    caption = (
        "Style mixing: shape and pose come from the face at the left, color and texture from the "
        "face at the top."
    )
    return Figure(np.concatenate(grid), number + 1, caption)


def interpolation(painter: Painter, number: int | None = None) -> Film:
    """A closed walk through `number` (8) faces, straight lines in w from one to the next."""
    number = number or 8
    styles = painter.styles(number)
    share = (np.arange(STEPS) / STEPS)[:, None, None]
    ease = share * share * (3 - 2 * share)  # slow at each face, so that it can be seen
    walk = [a + (b - a) * ease for a, b in zip(styles, np.roll(styles, -1, 0))]
    frames = _paint(painter, np.concatenate(walk).astype(np.float32))
    return Film(frames[:, None], 1, f"A walk in w through {number} faces.", FPS)


def translation(painter: Painter, number: int | None = None) -> Film:
    """`number` (4) faces on a circle of radius SHIFT, moved by the generator's Fourier input.

    An alias-free generator moves the details with the face (arXiv 2106.12423, figure 1).
    """
    angles = 2 * np.pi * np.arange(TURN) / TURN
    transforms = [
        _inverse(x=SHIFT * math.sin(angle), y=SHIFT * (1 - math.cos(angle))) for angle in angles
    ]
    caption = f"Translated by up to {2 * SHIFT:.0%} of the side, by the generator's Fourier input."
    return _moved(painter, number or 4, transforms, caption)


def rotation(painter: Painter, number: int | None = None) -> Film:
    """`number` (4) faces that swing by +-ANGLE, turned by the generator's Fourier input.

    Only the rotation-equivariant variant "r" turns its details with the face (arXiv 2106.12423).
    """
    swing = np.sin(2 * np.pi * np.arange(TURN) / TURN) * ANGLE
    transforms = [_inverse(degrees=float(angle)) for angle in swing]
    caption = f"Rotated by up to {ANGLE:.0f} degrees, by the generator's Fourier input."
    return _moved(painter, number or 4, transforms, caption)


SHOWS = {f.__name__: f for f in (mixing, interpolation, translation, rotation)}


def _moved(painter, number, transforms, caption) -> Film:
    styles = painter.styles(number)
    every = np.repeat(np.stack(transforms), number, axis=0)
    frames = painter.paint(np.tile(styles, (len(transforms), 1, 1)), every)
    frames = frames.reshape(len(transforms), number, *frames.shape[1:])
    return Film(frames, math.ceil(math.sqrt(number)), caption, FPS)


def _paint(painter, styles):
    return painter.paint(styles, np.broadcast_to(np.eye(3, dtype=np.float32), (len(styles), 3, 3)))


def _inverse(x: float = 0.0, y: float = 0.0, degrees: float = 0.0) -> np.ndarray:
    """The inverse of "turn about the center, then move by x to the right and y down" [3, 3]."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    forward = np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1]])
    return np.linalg.inv(forward).astype(np.float32)
