"""Grids of pictures as PNG and GIF files that say what they are."""

import json
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jaxface.system import Film

SIDE = 96  # px that a small picture is enlarged to at least, so that a person sees something
GAP = 2  # px between pictures


def make_grid(images: np.ndarray, columns: int, side: int = SIDE) -> np.ndarray:
    """Pictures side by side on white, row by row.

    Args:
      images: uint8 [N, H, W, 1 or 3].
      columns: pictures in a row.
      side: pictures smaller than this are enlarged by a whole number, pixels repeated; 0 leaves them.

    Returns:
      uint8 [height, width, 3].

    Raises:
      ValueError: no pictures, or another type or shape.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"a grid takes uint8 [N, H, W, 1 or 3], got {images.dtype} {images.shape}")
    if not len(images) or columns < 1:
        raise ValueError(f"a grid of {len(images)} pictures in {columns} columns is empty")
    factor = max(1, -(-side // min(images.shape[1:3])))
    images = np.broadcast_to(images, (*images.shape[:3], 3))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    n, height, width, _ = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    gap = GAP if n > 1 else 0
    grid = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8
    )
    for index, image in enumerate(images):
        y, x = divmod(index, columns)
        y, x = y * (height + gap), x * (width + gap)
        grid[y : y + height, x : x + width] = image
    return grid


def save_grid(
    images: np.ndarray,
    path: str | pathlib.Path,
    columns: int,
    about: Mapping[str, str],
    side: int = SIDE,
) -> None:
    """Saves `make_grid` of the pictures as a PNG whose text chunks say what it shows.

    `about` is such as {"synthetic": ..., "seed": ..., "checkpoint": ...}: it travels with the file, so
    that a generated face stays recognisable as one. A file is the old one or the new one, never half.
    """
    info = PngInfo()
    for key, value in about.items():
        info.add_itxt(key, str(value))
    path = pathlib.Path(path)
    draft = path.with_name(path.name + ".tmp")
    Image.fromarray(make_grid(images, columns, side)).save(draft, format="PNG", pnginfo=info)
    draft.replace(path)


def save_film(film: Film, path: str | pathlib.Path, about: Mapping[str, str]) -> None:
    """Saves a film as an endless GIF whose comment is `about` as JSON; never half a file."""
    frames = [Image.fromarray(make_grid(frame, film.columns)) for frame in film.frames]
    path = pathlib.Path(path)
    draft = path.with_name(path.name + ".tmp")
    frames[0].save(
        draft,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=round(1000 / film.fps / 10) * 10,  # GIF counts hundredths of a second
        loop=0,
        comment=json.dumps(dict(about)).encode(),
    )
    draft.replace(path)
