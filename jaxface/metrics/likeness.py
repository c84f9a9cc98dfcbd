"""How alike two gray photographs are inside the skin: MAE, PSNR, SSIM and LPIPS."""

from typing import NamedTuple

import numpy as np
import skimage

from jaxface.metrics import perceptual

TILE, BATCH = 256, 4  # px a side and number of the tiles that LPIPS sees at once


class Likeness(NamedTuple):
    """Of one photograph; NaN where no skin is."""

    mae: float  # mean absolute difference in gray levels, 0..255
    psnr: float  # dB against the full range of 255; infinite for equal photographs
    ssim: float  # -1..1
    lpips: float  # 0 for equal photographs


def likeness(made: np.ndarray, real: np.ndarray, mask: np.ndarray) -> Likeness:
    """Compares uint8 [H, W] with uint8 [H, W] where `mask` bool [H, W] is true.

    Outside the mask both are set equal, so that windows across its edge see no other difference.

    Raises:
      ValueError: shapes differ.
    """
    if not made.shape == real.shape == mask.shape:
        raise ValueError(f"shapes differ: {made.shape}, {real.shape}, {mask.shape}")
    if not mask.any():
        return Likeness(*[float("nan")] * 4)
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    made, real, mask = np.where(mask, made, real)[box], real[box], mask[box]
    difference = made[mask].astype(np.float64) - real[mask]
    with np.errstate(divide="ignore"):
        psnr = 10 * np.log10(255**2 / np.square(difference).mean())
    return Likeness(
        float(np.abs(difference).mean()),
        float(psnr),
        _ssim(made, real, mask),
        _lpips(made, real, mask),
    )


def _ssim(made: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Wang et al. 2004: Gaussian window of sigma 1.5; the map's mean over the mask."""
    small = np.maximum(11 - np.array(mask.shape), 0)  # a window's side
    made, real, mask = (np.pad(x, [(0, n) for n in small]) for x in (made, real, mask))
    _, local = skimage.metrics.structural_similarity(
        made, real, data_range=255, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    return float(local[mask].mean())


def _lpips(made: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """LPIPS (AlexNet) of tiles, which bounds memory and compiles once: mean over the mask's area."""
    network = perceptual.networks()["lpips_alexnet"]
    margins = [(0, -side % TILE) for side in mask.shape]
    tiles = [_tiles(np.pad(x, margins)) for x in (made, real, mask)]
    a, b = (x[tiles[2].any((1, 2))] for x in tiles[:2])
    a, b = (np.pad(x, [(0, -len(x) % BATCH), (0, 0), (0, 0)]) for x in (a, b))
    total = 0.0
    for start in range(0, len(a), BATCH):
        pair = (x[start : start + BATCH, ..., None].astype(np.float32) for x in (a, b))
        total += float(network.distance(*(x / 127.5 - 1 for x in pair)).sum())
    return total * TILE**2 / np.count_nonzero(mask)


def _tiles(x: np.ndarray) -> np.ndarray:
    rows, columns = (side // TILE for side in x.shape)
    return x.reshape(rows, TILE, columns, TILE).swapaxes(1, 2).reshape(-1, TILE, TILE)
