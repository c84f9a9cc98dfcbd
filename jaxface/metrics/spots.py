"""Pigment spots in a gray photograph of a face: which pixels are spot, and what share of a region.

UV-photo Net (Kojima et al., Sci Rep 2021) judges by the area of pigment spots in the cheeks and does
not publish how it finds them. The detector here is ours: the largest scale-normalized difference of
Gaussians (Lindeberg, IJCV 1998) of the photograph divided by its own shading, cut at one threshold
that is fixed on training photographs once and for all. Where it exceeds the threshold, a spot is what
is darker than half the depth of its darkest place: the edge of a blurred disk is there, whatever its
contrast, while the response alone reaches farther around a dark spot than around a faint one.

All lengths are shares of the face's width and all contrasts shares of the skin's brightness, so the
same threshold serves any resolution and exposure. Photographs are judged at a face width of at most
WIDTH px; speckle finer than the smallest scale cannot pass, which spares an opening of the mask.
"""

import dataclasses
from collections.abc import Iterable

import cv2
import numpy as np

WIDTH = 1000  # px of face width that larger photographs are reduced to
SHADING = 0.05  # face widths: what is wider than this is shading and divided out
FINEST = 0.002  # face widths: sigma of the smallest spots
SCALES = (1, 1.4, 2, 2.8)  # sigmas of the narrow Gaussians, in FINEST; the wide one is the next
AROUND = 0.02  # face widths: sigma within which the skin around a spot is averaged
REACH = 0.012  # face widths: how far the darkest place of a spot is looked for
AREAS = (1e-5, 2e-3)  # of the face; smaller is noise, larger a mole, a shadow or hair
COMPACT = 0.3  # least area in squares of the longer side; a crease, a hair or a lid's edge has less
FAINTEST = 1e-3  # threshold that rounding to float32 stays below
SAMPLE = 20_000  # px of one photograph that a fit looks at


def response(gray: np.ndarray, face_width: float, valid: np.ndarray | None = None) -> np.ndarray:
    """How much like a dark spot each place is: float32 [H, W], 0 on even skin, at most 0.3 on a spot that
    reflects half as much as the skin around it.

    Args:
      gray: [H, W] in 0..255.
      face_width: px.
      valid: bool [H, W], usable skin; what lies outside bleeds neither into shading nor into spots.
    """
    gray, face_width, valid, shape = _reduced(gray, face_width, valid)
    return _enlarged(_response(_flat(gray, face_width, valid), face_width), shape)


@dataclasses.dataclass(frozen=True)
class Detector:
    """Finds pigment spots; `fit` makes it."""

    threshold: float  # of `response`

    def __call__(
        self, gray: np.ndarray, face_width: float, valid: np.ndarray | None = None
    ) -> np.ndarray:
        """Spots, bool [H, W], within usable skin; arguments as of `response`.

        Spots smaller or larger than AREAS, in shares of the area of `valid`, are left out, and so is what
        is long and narrow.
        """
        gray, face_width, valid, shape = _reduced(gray, face_width, valid)
        flat = _flat(gray, face_width, valid)
        area = np.count_nonzero(valid)
        dark = valid & (_response(flat, face_width) > self.threshold)
        dark |= valid & _sized(
            ~dark, (0, AREAS[1] * area), 0, connectivity=4
        )  # middles of wide spots
        skin = _mean(flat, valid & ~dark, AROUND * face_width)
        depth = np.where(dark, skin - _blurred(flat, FINEST / 2 * face_width), 0)
        reach = 2 * round(REACH * face_width) + 1
        deepest = cv2.dilate(depth, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
        spots = _sized(
            dark & (depth > deepest / 2), np.multiply(AREAS, area), COMPACT, connectivity=8
        )
        return _enlarged(spots.astype(np.float32), shape) > 0.5


def fit(
    grays: Iterable[np.ndarray],
    face_widths: Iterable[float],
    valids: Iterable[np.ndarray | None],
    factor: float = 5.0,
) -> Detector:
    """The detector with the threshold of these photographs, which are read one at a time.

    The threshold is median + `factor` · 1.4826 · MAD of the response on skin without spots, which is
    the skin below the threshold. 1.4826 · MAD is the standard deviation of normal values; the largest
    of four responses has a longer tail than those, so 3 would leave a speck in every 500 px of skin.

    Raises:
      ValueError: no photograph has usable skin.
    """
    samples = []
    for gray, face_width, valid in zip(grays, face_widths, valids):
        gray, face_width, valid, _ = _reduced(gray, face_width, valid)
        values = _response(_flat(gray, face_width, valid), face_width)[valid]
        samples.append(values[:: max(1, len(values) // SAMPLE)])
    skin = np.concatenate(samples or [np.zeros(0)]).astype(np.float64)
    if not len(skin):
        raise ValueError("no usable skin in any photograph")
    while True:
        median = np.median(skin)
        threshold = median + factor * 1.4826 * np.median(np.abs(skin - median))
        if (skin <= threshold).all() or threshold <= FAINTEST:
            return Detector(float(max(threshold, FAINTEST)))
        skin = skin[skin <= threshold]


def spot_ratio(spots: np.ndarray, region: np.ndarray) -> float:
    """Share of a region [H, W] that is spot [H, W], both bool: 0..1, NaN for an empty region."""
    area = np.count_nonzero(region)
    return np.count_nonzero(spots & region) / area if area else float("nan")


def _reduced(gray, face_width, valid):
    """Gray as float32, face width and mask at the scale that is judged, and the shape before."""
    shape = gray.shape
    if valid is None:
        valid = np.ones(shape, bool)
    if gray.ndim != 2 or valid.shape != shape:
        raise ValueError(f"a gray photograph and its mask, got shapes {shape} and {valid.shape}")
    gray = gray.astype(np.float32)
    if face_width > WIDTH:
        size = [max(1, round(side * WIDTH / face_width)) for side in shape[::-1]]
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
        inside = cv2.resize(valid.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        valid, face_width = inside > 0.99, WIDTH  # pixels on the border hold something else as well
    return gray, face_width, valid, shape


def _enlarged(x: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return x if x.shape == shape else cv2.resize(x, shape[::-1])


def _flat(gray: np.ndarray, face_width: float, valid: np.ndarray) -> np.ndarray:
    """The photograph divided by its shading, about 1 on skin and exactly 1 outside `valid`."""
    shading = _mean(gray, valid, SHADING * face_width)
    return np.where(valid, gray / np.maximum(shading, 1e-3), np.float32(1))


def _response(flat: np.ndarray, face_width: float) -> np.ndarray:
    sigmas = [scale * FINEST * face_width for scale in (*SCALES, 4)]
    blurred = [_blurred(flat, sigma) for sigma in sigmas]
    result = np.full_like(flat, -np.inf)
    for i in range(len(SCALES)):
        scale = sigmas[i + 1] / sigmas[i] - 1  # makes it approximate sigma² times the Laplacian
        np.maximum(result, (blurred[i + 1] - blurred[i]) / scale, out=result)
    return result


def _mean(x: np.ndarray, weight: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of x over places of weight one, computed on a grid of sigma / 4."""
    size = [max(1, round(side / max(1, sigma / 4))) for side in x.shape[::-1]]
    sigma *= size[0] / x.shape[1]
    weight = weight.astype(np.float32)
    total, share = (
        cv2.resize(
            _blurred(cv2.resize(part, size, interpolation=cv2.INTER_AREA), sigma), x.shape[::-1]
        )
        for part in (x * weight, weight)
    )
    return total / np.maximum(share, 1e-6)


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(x, (0, 0), max(sigma, 1e-3), borderType=cv2.BORDER_REFLECT_101)


def _sized(
    mask: np.ndarray, areas: tuple[float, float], compact: float, connectivity: int
) -> np.ndarray:
    """The connected parts of a mask whose area in px lies within bounds and that are compact enough."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=connectivity
    )
    area = stats[:, cv2.CC_STAT_AREA]
    side = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(1)
    kept = (areas[0] <= area) & (area <= areas[1]) & (area >= compact * side**2)
    kept[0] = False
    return kept[labels]
