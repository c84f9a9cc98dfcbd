"""Where in a photograph a classifier finds its answer (Grad-CAM), and whether the map shows what was learned.

Grad-CAM: Selvaraju et al. 2017, arXiv 1610.02391. The maps of the last convolution are weighed by how much
the score rises with the mean of each, and summed. A heat map always looks like something; Adebayo et al.
2018 (arXiv 1810.03292) ask whether it still looks so when the weights are random. If it does, the
map shows the photograph, not the network.

For a network that pools its last maps, such as `models.resnet` with its sown stage "layer4":

    maps = loaded.activations(x)["layer4"]  # [N, h, w, C]
    heat = grad_cam(lambda maps: (maps.mean((1, 2)) @ kernel + bias)[:, 0], maps)
"""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import jax
import numpy as np
import scipy
import skimage

from jaxface.metrics.intervals import bootstrap, by_subject
from jaxface.system import Result

OPACITY = 0.65  # of the hottest color over the photograph
WINDOW = 7  # cells a side that SSIM compares; a smaller map is enlarged to it
LIKE = 0.5  # rank correlation with random weights from which a map shows little that was learned (ours)
NAMES = ("gradcam_rank", "gradcam_rank_signed", "gradcam_ssim")


def grad_cam(head: Callable, maps: jax.Array) -> np.ndarray:
    """Heat maps float32 [N, h, w] in [0, 1], each scaled to its own maximum; 0 where nothing speaks for it.

    ReLU(sum_k a_k A_k) with a_k the mean over i, j of d score / d A_kij (equations 1 and 2).

    Args:
      head: maps [N, h, w, C] -> scores [N] of the answer to be explained, before any sigmoid or softmax, each
        of its own maps alone; minus a binary logit explains the answer 0.
      maps: what the last convolution gives, [N, h, w, C].
    """
    maps = jax.numpy.asarray(maps)
    if maps.ndim != 4:
        raise ValueError(f"maps must be [N, h, w, C], got {maps.shape}")
    weights = jax.grad(lambda maps: head(maps).sum())(maps).mean((1, 2), keepdims=True)
    heat = np.maximum(np.asarray((weights * maps).sum(-1), np.float64), 0)
    most = heat.max((1, 2), keepdims=True)
    return np.divide(heat, most, out=np.zeros_like(heat), where=most > 0).astype(np.float32)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A heat map [h, w] in [0, 1] over its photograph, uint8 [H, W, 1 or 3] -> uint8 [H, W, 3].

    What is cold stays as it was; the photograph is gray, so that every color is heat.
    """
    height, width, channels = image.shape
    gray = image[..., 0] if channels == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    heat = cv2.resize(np.asarray(heat, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    hot = cv2.applyColorMap(np.rint(255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    opacity = OPACITY * heat[..., None]
    return np.rint((1 - opacity) * gray[..., None] + opacity * hot).astype(np.uint8)


def shuffled(variables: Any, key: jax.Array) -> Any:
    """The variables with the values of every array in random order.

    What the network has learned is lost, the distribution of each layer's weights is not, and no module is
    needed; the paper draws new weights from the initializer instead, which is as good an argument here.
    """
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(key, len(leaves))
    mixed = [jax.random.permutation(k, x.ravel()).reshape(x.shape) for k, x in zip(keys, leaves)]
    return jax.tree.unflatten(tree, mixed)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's correlation of heat maps [N, h, w] with others, [N]; 0 where a map is constant."""
    one, other = (scipy.stats.rankdata(x.reshape(len(x), -1), axis=1) for x in (one, other))
    one, other = (x - x.mean(1, keepdims=True) for x in (one, other))
    scale = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return np.divide((one * other).sum(1), scale, out=np.zeros(len(one)), where=scale > 0)


def ssim(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Structural similarity of heat maps [N, h, w] in [0, 1] with others, [N]."""
    height, width = (max(n, WINDOW) for n in one.shape[1:])

    def large(x):
        return cv2.resize(np.asarray(x, np.float32), (width, height)).astype(np.float64)

    return np.array(
        [
            skimage.metrics.structural_similarity(
                large(x), large(y), data_range=1.0, win_size=WINDOW
            )
            for x, y in zip(one, other, strict=True)
        ]
    )


def depends_on_weights(
    explain: Callable[[Any], np.ndarray],
    variables: Any,
    randomised: Sequence[Any],
    subjects: Sequence[str],
) -> dict[str, Result]:
    """How alike heat maps are with the weights learned and with random ones (Adebayo et al., section 3.1).

    Args:
      explain: variables -> heat maps [N, h, w] of the same photographs; the maps of the last convolution must
        come from these variables too, not only the head.
      variables: those learned.
      randomised: the same with random weights, one or more times: `shuffled`, or the module's init.
      subjects: person [N] of each photograph.

    Returns:
      {"gradcam_rank": mean over the random draws of the absolute value of the mean rank correlation over
      photographs: 0 where the maps have nothing to do with each other, 1 where a draw shows the same, or
      the opposite, as a random head will in half of the draws; see `verdict`.
      "gradcam_rank_signed": the mean of all rank correlations, as in the paper.
      "gradcam_ssim": mean structural similarity}, each with its interval over people. A photograph without
      a map is left out; where random weights give none, nothing is alike, and it counts as 0.
    """
    heat = explain(variables)
    seen = heat.any((1, 2))
    protocol = f"heat maps with {len(randomised)} draws of random weights, {seen.sum()} photographs"
    if not seen.all():
        protocol += f", {(~seen).sum()} without a map left out"
    if not seen.any():
        return dict.fromkeys(NAMES, Result(float("nan"), n=0, protocol=protocol))
    others = [explain(drawn)[seen] for drawn in randomised]
    if empty := sum(int((~other.any((1, 2))).sum()) for other in others):
        protocol += f", {empty} maps of random weights empty"
    people = np.asarray(subjects)[seen]

    def result(alike: Callable, statistic: Callable) -> Result:
        rows = np.stack([alike(heat[seen], other) for other in others], 1)  # [N, draws]
        return Result(*bootstrap(by_subject(rows, people), statistic), protocol=protocol)

    return {
        "gradcam_rank": result(rank_correlation, lambda rows: np.abs(rows.mean(0)).mean()),
        "gradcam_rank_signed": result(rank_correlation, np.mean),
        "gradcam_ssim": result(ssim, np.mean),
    }


def verdict(rank: Result) -> str:
    """Whether maps depend on what was learned, in one sentence; `rank` is "gradcam_rank"."""
    if not np.isfinite(rank.value):
        return "No photograph has a heat map: nothing can be said of what the answer rests on."
    told = f"rank correlation with maps of random weights {rank.value:.2f}"
    if rank.low is not None:
        told += f" [{rank.low:.2f}, {rank.high:.2f}]"
    if (rank.value if rank.high is None else rank.high) < LIKE:
        return f"The heat maps depend on what the network has learned ({told})."
    if rank.value < LIKE:
        return f"Whether the heat maps depend on what was learned is not certain ({told})."
    return (
        f"The heat maps look much the same with random weights ({told}): they show the photograph more than "
        "what was learned, and explain nothing."
    )
