"""Pictures of any size through a network of one input size: tiles, blended.

UV-photo Net translates overlapping patches of 256 px and puts each back in its place (Kojima et al.
2021). Stride, window and the weighted mean where tiles overlap are ours: a Hann window, as in the
overlap-add of signals. (Patent application US 2024/0177300 describes Gaussian weights for such patches.)
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np


def origins(length: int, tile: int, stride: int, margin: int = 0) -> list[int]:
    """Where tiles begin along an axis of `length` px, so that every px lies in what is used of one.

    Multiples of `stride`. The first is 0, or negative if `margin` px of each end of a tile are not used;
    the last tile may end beyond `length`: there the picture has to be continued.

    Raises:
      ValueError: tiles of that margin leave gaps at that stride.
    """
    if not 0 < stride <= tile - 2 * margin or margin < 0 or length < 1:
        raise ValueError(
            f"tiles of {tile} px, {margin} px of each end unused, leave gaps at a stride of {stride}"
        )
    first = -(-margin // stride) * -stride
    last = max(first, -(-(length - tile + margin) // stride) * stride)
    return list(range(first, last + 1, stride))


def window(tile: int, margin: int = 0) -> np.ndarray:
    """float32 [tile, tile]: the weight of each px of a tile, a Hann window along both axes.

    Zero on `margin` px of each border, positive inside, 1 at the most.
    """
    inside = np.arange(tile - 2 * margin) + 0.5
    profile = np.zeros(tile)
    profile[margin : tile - margin] = np.sin(np.pi * inside / len(inside)) ** 2
    return np.outer(profile, profile).astype(np.float32)


def translate(
    network: Callable[[np.ndarray], np.ndarray],
    image_u8: np.ndarray,
    *,
    tile: int = 256,
    stride: int = 128,
    margin: int = 0,
    batch: int = 4,
    keep: np.ndarray | None = None,
    fill: float = 0.0,
    shift: int = 0,
) -> np.ndarray:
    """The whole picture, by a network that sees `batch` tiles at once.

    Beyond input and output it holds a band of rows as high as a tile, whatever the picture's size. The
    picture is continued by reflection where tiles reach beyond it, by its edge where it is too small
    for that.

    Args:
      network: float32 [batch, tile, tile, C] in [-1, 1] -> float32 [batch, tile, tile, D]; it is
        called with this one shape only, so that it is compiled once.
      image_u8: uint8 [H, W, C].
      tile: side of a tile in px.
      stride: px from one tile to the next; for a network that halves its input n times a multiple of
        2^n, so that it sees the picture in the same phase everywhere.
      margin: px of each border of a tile that are not used: what the network sees beyond a px.
      batch: tiles that the network takes at once.
      keep: bool [H, W]; tiles in which no px is kept are not computed, and px that only such tiles
        cover become `fill`.
      shift: px by which all tiles are moved toward the picture's top left.

    Returns:
      float32 [H, W, D].

    Raises:
      ValueError: no px is kept, sizes that do not fit, or tiles that leave gaps.
    """
    height, width = image_u8.shape[:2]
    if keep is not None and (keep.shape != (height, width) or not keep.any()):
        raise ValueError(f"keep {keep.shape} of a picture of {(height, width)} keeps nothing of it")
    weight = window(tile, margin)[..., None]
    tops = [top - shift for top in origins(height + shift, tile, stride, margin)]
    lefts = [left - shift for left in origins(width + shift, tile, stride, margin)]
    used = slice(margin, tile - margin)

    def places() -> Iterator[tuple[int, int]]:
        for top in tops:
            for left in lefts:
                if keep is None or _inside(keep, top, left, tile)[used, used].any():
                    yield top, left

    out = band = total = None
    above = tops[0]  # the picture's row at which the band begins

    def close(until: int) -> None:
        """Writes the rows that no later tile reaches, and moves the band down to `until`."""
        nonlocal above
        for row in range(max(above, 0), min(until, above + tile, height)):
            known = total[row - above]
            out[row] = np.where(known > 0, band[row - above] / np.maximum(known, 1e-20), fill)
        done = min(until - above, tile)
        for rows in (band, total):
            rows[: tile - done] = rows[done:].copy()
            rows[tile - done :] = 0
        above = until

    for found, results in _computed(network, image_u8, places(), tile, batch):
        for (top, left), result in zip(found, results):
            if out is None:
                channels = result.shape[-1]
                out = np.full((height, width, channels), fill, np.float32)
                band = np.zeros((tile, width, channels), np.float32)
                total = np.zeros((tile, width, 1), np.float32)
            if top > above:
                close(top)
            here = slice(max(left, 0), min(left + tile, width))
            there = slice(here.start - left, here.stop - left)
            band[:, here] += weight[:, there] * result[:, there]
            total[:, here] += weight[:, there]
    close(height)
    return out


def _computed(network, image_u8, places, tile, batch) -> Iterator[tuple[list, np.ndarray]]:
    """Places and the network's results for them, `batch` at a time; the last batch is filled up."""
    waiting: list[tuple[int, int]] = []
    inputs = np.zeros((batch, tile, tile, image_u8.shape[2]), np.float32)
    for place in places:
        inputs[len(waiting)] = _inside(image_u8, *place, tile).astype(np.float32) / 127.5 - 1
        waiting.append(place)
        if len(waiting) == batch:
            yield waiting, np.asarray(network(inputs))
            waiting = []
            inputs = np.zeros_like(inputs)  # the device may still be reading the last ones
    if waiting:
        yield waiting, np.asarray(network(inputs))[: len(waiting)]


def _inside(image: np.ndarray, top: int, left: int, tile: int) -> np.ndarray:
    """[tile, tile, ...] from (top, left), of a picture continued beyond its edges."""
    rows = _continued(np.arange(top, top + tile), image.shape[0])
    columns = _continued(np.arange(left, left + tile), image.shape[1])
    return image[rows[:, None], columns]


def _continued(index: np.ndarray, length: int) -> np.ndarray:
    """Indices beyond 0..length - 1 reflected once about the end px, and held at the edge after that."""
    index = np.abs(index)
    index = np.where(index > length - 1, 2 * (length - 1) - index, index)
    return np.clip(index, 0, length - 1)


def patch_centers(mask: np.ndarray, patch: int, stride: int, coverage: float) -> np.ndarray:
    """Centers of overlapping patches with enough skin: int32 [K, 2] (row, column).

    A patch of side `patch` about (r, c) is [r - patch // 2, r - patch // 2 + patch) of the rows, and so
    of the columns; all of it lies in the picture. Patches begin at multiples of `stride`, shifted so
    that the grid is centered.

    Args:
      mask: bool [H, W], usable skin.
      coverage: 0..1, the least share of skin; at 0 a single px is enough.
    """
    height, width = mask.shape
    if height < patch or width < patch:
        return np.zeros((0, 2), np.int32)
    sums = cv2.integral(mask.astype(np.uint8), sdepth=cv2.CV_32S)
    tops = np.arange((height - patch) % stride // 2, height - patch + 1, stride)
    lefts = np.arange((width - patch) % stride // 2, width - patch + 1, stride)
    at = lambda y, x: sums[np.ix_(y, x)]
    below, right = tops + patch, lefts + patch
    inside = at(below, right) - at(tops, right) - at(below, lefts) + at(tops, lefts)
    row, column = np.nonzero(inside >= max(coverage * patch**2, 1))
    return np.stack([tops[row], lefts[column]], axis=-1).astype(np.int32) + patch // 2


def seam_error(
    network: Callable[[np.ndarray], np.ndarray],
    image_u8: np.ndarray,
    *,
    tile: int = 256,
    stride: int = 128,
    margin: int = 0,
    batch: int = 4,
    keep: np.ndarray | None = None,
    align: int = 1,
) -> float:
    """How much the result depends on where the tiles lie.

    The root of the mean squared difference, in 8-bit levels, between two translations whose tiles lie
    half a stride apart, within `keep` (or everywhere). `align` is what the shift is rounded to: for a
    network that halves its input n times 2^n, else its phase is measured too. Other arguments as in
    `translate`.

    Raises:
      ValueError: half a stride is less than half of `align`: there is no shift to measure with.
    """
    shift = round(stride / 2 / align) * align
    if not 0 < shift < stride:
        raise ValueError(f"half a stride of {stride} px has no multiple of {align} px near it")
    sizes = dict(tile=tile, stride=stride, margin=margin, batch=batch, keep=keep)
    straight = translate(network, image_u8, **sizes)
    shifted = translate(network, image_u8, **sizes, shift=shift)
    total, count = 0.0, 0
    for row in range(len(straight)):  # by rows: no third picture in memory
        difference = (straight[row] - shifted[row]).astype(np.float64)
        if keep is not None:
            difference = difference[keep[row]]
        total, count = total + np.square(difference).sum(), count + difference.size
    return float(127.5 * np.sqrt(total / count))
