"""How severe is a cleft? Distance of the nose and mouth from what a normal face would have there.

After Hayajneh et al. (PLOS ONE 2023; CleftGAN's severity index): normalise the face, subtract in YCbCr,
erode, keep what exceeds a threshold inside a fixed mask, sum. They normalise by inverting each face
into a generator (`jaxface.metrics.inversion`), which takes minutes; here it takes a hundredth of a
second. The normal face nearest to a picture is found in the linear space of normal faces, by least
squares that trust a pixel the less the worse it fits (Cauchy's weights), so that the cleft is left out
of the fit. Beside it stands a one-class method, the memory of normal patches (PatchCore, Roth et al.,
arXiv 2106.08265) in features of MobileNetV2; a place is hot only if both say so. Nothing is trained on
clefts.

Faces must be in the frame of `jaxface.faces.align`.
"""

from typing import NamedTuple

import cv2
import numpy as np

from jaxface.metrics.intervals import bootstrap, by_subject
from jaxface.metrics.patches import patch_features
from jaxface.system import Figure, Result

SIDE = 64  # px that every face is brought to
SCORER = "severity by nearest normal face and normal patches"  # goes with every number made of it
MASK = (np.s_[30:56], np.s_[16:48])  # nose and mouth: rows, columns of the SIDE frame
COMPONENTS = 160  # of the space of normal faces, at most a quarter of the faces it is made of
NOISE = 4.0  # standard deviation of a trusted pixel about that space, in gray levels
PASSES = 80  # of the fit; 40 of them are not enough without the longer stride
STRIDE = 1.8  # of a pass, in its own length; must stay under 2
EROSION = 3  # px
BLOCK = "block3"  # of MobileNetV2: 32x32 places of 24 features
MOST = 2000  # normal faces used
RARE = 0.999  # of the mask's pixels of normal faces are below the threshold
_YCBCR = np.array(  # ITU-R BT.601, full range
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)
_rows, _columns = np.mgrid[:SIDE, :SIDE]
_FACE = ((_rows - 34) / 30.0) ** 2 + ((_columns - 32) / 22.0) ** 2 < 1  # what the space describes


class Scorer(NamedTuple):
    """A severity score made of normal faces; `fit` makes it."""

    mean: np.ndarray  # [D] YCbCr of the face's pixels
    axes: np.ndarray  # [K, D] orthonormal
    variance: np.ndarray  # [K] along the axes
    memory: np.ndarray  # float32 [rows, columns, N, C] features of normal patches, place by place
    feature_mean: np.ndarray  # [C]
    feature_std: np.ndarray  # [C]
    units: tuple[
        float, float
    ]  # heat of pixels and of patches that one in a hundred normal ones exceeds
    threshold: float  # heat below is taken for nothing

    def normalized(self, images: np.ndarray) -> np.ndarray:
        """Nearest normal faces: uint8 [N, S, S, C] -> uint8 [N, SIDE, SIDE, 3], outside as it was."""
        small = canvas(images)
        result = to_ycbcr(small)
        result[:, _FACE] = self._nearest(result).reshape(len(small), -1, 3)
        rgb = result @ np.linalg.inv(_YCBCR).T
        return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)

    def heat(self, images: np.ndarray) -> np.ndarray:
        """Where a face is unlike any normal one: uint8 [N, S, S, C] -> float64 [N, SIDE, SIDE].

        The geometric mean of the two kinds of heat, each in its unit; zero outside MASK.
        """
        small = canvas(images)
        parts = zip((self._pixel_heat(small), self._patch_heat(small)), self.units)
        pixels, patches = (heat[:, *MASK] / unit for heat, unit in parts)
        result = np.zeros((len(small), SIDE, SIDE))
        result[:, *MASK] = np.sqrt(pixels * patches)
        return result

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Severity of faces uint8 [N, S, S, C] -> float64 [N], 0 for a face with no hot place.

        sqrt(100 / SIDE² · sum of the heat from the threshold up): grows about as fast as the cleft.
        """
        return score(self.heat(images), self.threshold)

    def calibrated(self, images: np.ndarray, ratings: np.ndarray) -> "Scorer":
        """The same with the threshold that correlates best with ratings [N] of other people's faces.

        Raises:
          ValueError: less than three faces, or all ratings equal.
        """
        _check_ratings(images, ratings)
        return self._replace(threshold=best_threshold(self.heat(images), ratings, self.threshold))

    def figure(self, images: np.ndarray, caption: str = "", photographs: bool = True) -> Figure:
        """Each face, the normal face nearest to it, and its heat in the face (red)."""
        caption = caption or (
            "Severity: each face, the normal face nearest to it, and where the two differ more than "
            "normal faces do (red)."
        )
        return pictures(
            canvas(images),
            self.normalized(images),
            self.heat(images),
            self.threshold,
            caption,
            photographs,
        )

    def _nearest(self, ycbcr: np.ndarray) -> np.ndarray:
        """[N, SIDE, SIDE, 3] -> [N, D] the point of the space of normal faces that fits most pixels.

        Huber's modified residuals: each pass projects the face with its misfit scaled by the trust in
        each pixel, which ends where reweighted least squares do, without an inverse for each face.
        """
        offset = (ycbcr[:, _FACE].reshape(len(ycbcr), -1) - self.mean).astype(np.float32)
        axes = self.axes.astype(np.float32)
        shrink = (self.variance / (self.variance + NOISE**2)).astype(np.float32)
        fitted = np.zeros_like(offset)
        for _ in range(PASSES):
            misfit = (offset - fitted).reshape(len(offset), -1, 3)
            size = np.abs(misfit).sum(-1, keepdims=True)
            scale = 2 * np.median(size, axis=1, keepdims=True) + 1e-6
            trusted = (misfit / (1 + np.square(size / scale))).reshape(offset.shape)
            fitted = fitted + STRIDE * (((fitted + trusted) @ axes.T * shrink) @ axes - fitted)
        return self.mean + fitted

    def _pixel_heat(self, small: np.ndarray) -> np.ndarray:
        ycbcr = to_ycbcr(small)
        difference = ycbcr[:, _FACE] - self._nearest(ycbcr).reshape(len(small), -1, 3)
        heat = np.zeros(small.shape[:3], np.float32)
        heat[:, _FACE] = np.square(difference).sum(-1)
        return eroded(heat)

    def _patch_heat(self, small: np.ndarray) -> np.ndarray:
        (x,) = patch_features(small, (BLOCK,))
        heat = np.zeros(x.shape[:3], np.float32)
        places = _places(x.shape[1])
        x = (x[:, *places] - self.feature_mean) / self.feature_std
        known = np.zeros(x.shape[:3], np.float32)
        for i, j in np.ndindex(*self.memory.shape[:2]):
            memory, asked = self.memory[i, j], x[:, i, j]
            squared = np.square(asked).sum(1)[:, None] + np.square(memory).sum(1)
            known[:, i, j] = np.maximum((squared - 2 * asked @ memory.T).min(1), 0)
        heat[:, *places] = known
        return np.stack(
            [cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) for one in heat]
        )


def fit(normals: np.ndarray, subjects: np.ndarray | None = None, seed: int = 0) -> Scorer:
    """Learns what faces look like from faces without a cleft.

    Four fifths of the people make the space and the memory; the others fix units and threshold.

    Args:
      normals: uint8 [N, S, S, C] in the canonical frame, of at least 40 people; hundreds are better.
      subjects: person [N] of each; None: each its own.
      seed: of the choice of people.

    Raises:
      ValueError: less than 40 people.
    """
    people = np.arange(len(normals)) if subjects is None else np.asarray(subjects)
    names, person = np.unique(people, return_inverse=True)
    if len(names) < 40:
        raise ValueError(f"a severity score needs 40 people without a cleft, got {len(names)}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(names))
    kept = np.flatnonzero(order[person] >= len(names) // 5)
    judged = np.flatnonzero(order[person] < len(names) // 5)
    kept, judged = (
        rng.permutation(some)[:most] for some, most in ((kept, MOST), (judged, MOST // 5))
    )

    small = canvas(normals[np.sort(kept)])
    faces = to_ycbcr(small)[:, _FACE].reshape(len(small), -1)
    mean = faces.mean(0)
    # The principal axes by way of the faces' products, of which there are fewer than pixels.
    squares, mixes = np.linalg.eigh((faces - mean) @ (faces - mean).T)
    largest = np.argsort(-squares)[: min(COMPONENTS, len(small) // 4)]
    squares = np.maximum(squares[largest], 1e-6 * squares.max() + 1e-9)
    axes = (mixes[:, largest] / np.sqrt(squares)).T @ (faces - mean)

    (x,) = patch_features(small, (BLOCK,))
    x = x[:, *_places(x.shape[1])]
    feature_mean, feature_std = x.mean((0, 1, 2)), x.std((0, 1, 2)) + 1e-6
    memory = np.moveaxis((x - feature_mean) / feature_std, 0, 2)
    scorer = Scorer(
        mean, axes, squares / len(small), np.ascontiguousarray(memory, np.float32),
        feature_mean, feature_std, (1.0, 1.0), 0.0,
    )  # fmt: skip
    others = canvas(normals[np.sort(judged)])
    parts = scorer._pixel_heat(others), scorer._patch_heat(others)
    units = tuple(max(float(np.quantile(part[:, *MASK], 0.99)), 1e-9) for part in parts)
    scorer = scorer._replace(units=units)
    return scorer._replace(threshold=rare(scorer.heat(others)))


def agreement(
    scores: np.ndarray, ratings: np.ndarray, subjects: np.ndarray, scorer: str = SCORER
) -> Result:
    """Pearson correlation of scores [N] with ratings or the truth [N], bootstrapped over people.

    Raises:
      ValueError: all scores or all ratings are equal.
    """
    pairs = np.stack([np.asarray(scores, np.float64), np.asarray(ratings, np.float64)], axis=1)
    if (np.ptp(pairs, axis=0) == 0).any():
        raise ValueError("a correlation needs scores and ratings that differ")
    with np.errstate(invalid="ignore"):  # a resample of equal ones
        found = bootstrap(by_subject(pairs, subjects), lambda rows: np.corrcoef(rows.T)[0, 1])
    clefts = pairs[:, 1] > pairs[:, 1].min()
    protocol = (
        f"Pearson r of {scorer} with the truth over {len(pairs)} faces, {int(clefts.sum())} of them above "
        "the least; 95 % bootstrap over people"
    )
    return Result(*found, protocol=protocol)


def asymmetry(images: np.ndarray) -> np.ndarray:
    """Mean difference of brightness between the two sides of nose and mouth, in gray levels.

    uint8 [N, S, S, C] -> float64 [N]. Needs nothing learned and can be checked by eye, but takes
    light from one side and a turned head for a cleft: a baseline.
    """
    y = to_ycbcr(canvas(images))[..., 0]
    return np.abs(y - y[:, :, ::-1])[:, *MASK].mean((1, 2))


def plain_difference(images: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Mean YCbCr difference of nose and mouth from the mean of normal faces: what a score must beat.

    uint8 [N, S, S, C], [M, S, S, C] -> float64 [N], sum over the three channels in gray levels.
    """
    mean = to_ycbcr(canvas(normals)).mean(0)
    return np.abs(to_ycbcr(canvas(images)) - mean)[:, *MASK].sum(-1).mean((1, 2))


def _places(grid: int) -> tuple[slice, slice]:
    """The mask on a coarser grid."""
    step = SIDE // grid
    return tuple(slice(part.start // step, -(-part.stop // step)) for part in MASK)


# ---- shared with the score by inversion ----------------------------------------------------------


def score(heat: np.ndarray, threshold: float) -> np.ndarray:
    """sqrt(100 / SIDE² · sum of the heat [N, SIDE, SIDE] from the threshold up) -> float64 [N]."""
    kept = np.where(heat >= threshold, heat, 0).sum((1, 2))
    return np.sqrt(100 * kept / SIDE**2)


def rare(heat: np.ndarray) -> float:
    """Threshold that RARE of the mask's pixels of normal faces are below: heat [N, SIDE, SIDE]."""
    return max(float(np.quantile(heat[:, *MASK], RARE)), 1e-9)


def best_threshold(heat: np.ndarray, ratings: np.ndarray, around: float) -> float:
    """Of 17 thresholds from a quarter to four times `around`, the one whose scores follow ratings [N].

    Raises:
      ValueError: less than three faces, or all ratings equal.
    """
    ratings = _check_ratings(heat, ratings)
    tried = around * np.geomspace(0.25, 4, 17)
    by_threshold = [score(heat, t) for t in tried]
    fits = [np.corrcoef(s, ratings)[0, 1] if np.ptp(s) else -1.0 for s in by_threshold]
    return float(tried[np.argmax(fits)])


def eroded(heat: np.ndarray) -> np.ndarray:
    """Least of each EROSION x EROSION neighborhood, [N, H, W]: what is thinner is gone."""
    return np.stack([cv2.erode(one, np.ones((EROSION, EROSION))) for one in heat])


def pictures(
    faces: np.ndarray,
    normalized: np.ndarray,
    heat: np.ndarray,
    threshold: float,
    caption: str,
    photographs: bool,
) -> Figure:
    """Rows of four faces: uint8 [N, SIDE, SIDE, 3], what they were compared with, and their heat."""
    kept = np.where(heat >= threshold, heat, 0)
    share = np.clip(kept / (4 * threshold), 0, 1)[..., None]
    gray = faces.mean(-1, keepdims=True)
    maps = (1 - share) * (0.6 * gray + 60) + share * np.array([225.0, 20.0, 20.0])
    rows = np.stack([faces, normalized, np.rint(maps).astype(np.uint8)], axis=1)
    return Figure(rows.reshape(-1, SIDE, SIDE, 3), 12, caption, photographs=photographs)


def canvas(images: np.ndarray) -> np.ndarray:
    """uint8 [N, S, S, 1 or 3] -> uint8 [N, SIDE, SIDE, 3].

    Raises:
      ValueError: another dtype or shape.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must be uint8 [N, S, S, 1 or 3], got {images.dtype} {images.shape}"
        )
    method = cv2.INTER_AREA if images.shape[1] > SIDE else cv2.INTER_CUBIC
    if images.shape[1:3] != (SIDE, SIDE):
        images = np.stack([cv2.resize(one, (SIDE, SIDE), interpolation=method) for one in images])
    return np.broadcast_to(
        images.reshape(len(images), SIDE, SIDE, -1), (len(images), SIDE, SIDE, 3)
    )


def to_ycbcr(small: np.ndarray) -> np.ndarray:
    """RGB [..., 3] in 0..255 -> float64 [..., 3], Y in 0..255 and Cb, Cr in -128..128."""
    return small.astype(np.float64) @ _YCBCR.T


def _check_ratings(faces: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    ratings = np.asarray(ratings, np.float64)
    if len(ratings) < 3 or len(faces) != len(ratings) or np.ptp(ratings) == 0:
        raise ValueError("calibration needs a rating for each of at least 3 faces, not all equal")
    return ratings
