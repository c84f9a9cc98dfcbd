"""MediaPipe's face mesh (Kartynnik et al., arXiv 1907.06724): 468 points from a 192 px face crop.

The weights are MediaPipe's (Apache-2.0, see NOTICE). How the crop is cut and the points go back to
the photograph is told in `jaxface.faces.mesh`.
"""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxface.models.blazeface import BlazeBlock, Loaded, PReLU, assign

SIDE = 192  # px of the input
POINTS = 468
BLOCKS = (  # (features, stride)
    *((16, 1), (16, 1)),
    *((32, 2), (32, 1), (32, 1)),
    *((64, 2), (64, 1), (64, 1)),
    *((128, 2), (128, 1), (128, 1)),
    *((128, 2), (128, 1), (128, 1)),
)


class FaceMesh(nn.Module):
    """[N, 192, 192, 3] in [0, 1] -> (points [N, 468, 3] in px of the input, score [N] logit)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = PReLU(name="stem_prelu")(nn.Conv(16, (3, 3), 2, "SAME", name="stem")(x))
        for i, (features, stride) in enumerate(BLOCKS):
            x = BlazeBlock(features, stride, prelu=True, name=f"block{i}")(x)

        points = BlazeBlock(128, 2, prelu=True, name="points_down")(x)
        points = BlazeBlock(128, prelu=True, name="points_block0")(points)
        points = BlazeBlock(128, prelu=True, name="points_block1")(points)
        points = PReLU(name="points_prelu")(nn.Dense(32, name="points_narrow")(points))
        points = BlazeBlock(32, prelu=True, name="points_block2")(points)
        points = nn.Conv(3 * POINTS, (3, 3), padding="VALID", name="points_out")(points)

        score = BlazeBlock(128, 2, prelu=True, name="score_down")(x)
        score = PReLU(name="score_prelu")(nn.Dense(32, name="score_narrow")(score))
        score = BlazeBlock(32, prelu=True, name="score_block")(score)
        score = nn.Conv(1, (3, 3), padding="VALID", name="score_out")(score)
        return points.reshape(-1, POINTS, 3), score.reshape(-1)


# Numbers that the TFLite graph gives the tensors of the two heads, whose layers alternate in it.
_HEADS = {
    ("points_down", "depthwise"): (142, 143),
    ("points_down", "pointwise"): (145, 146),
    ("points_down", "prelu"): (150,),
    ("points_block0", "depthwise"): (152, 153),
    ("points_block0", "pointwise"): (155, 156),
    ("points_block0", "prelu"): (159,),
    ("score_down", "depthwise"): (161, 162),
    ("points_block1", "depthwise"): (164, 165),
    ("score_down", "pointwise"): (167, 168),
    ("points_block1", "pointwise"): (170, 171),
    ("score_down", "prelu"): (176,),
    ("points_block1", "prelu"): (178,),
    ("score_narrow",): (180, 181),
    ("points_narrow",): (183, 184),
    ("score_prelu",): (186,),
    ("points_prelu",): (188,),
    ("score_block", "depthwise"): (190, 191),
    ("points_block2", "depthwise"): (193, 194),
    ("score_block", "pointwise"): (196, 197),
    ("points_block2", "pointwise"): (199, 200),
    ("score_block", "prelu"): (204,),
    ("points_block2", "prelu"): (206,),
    ("score_out",): (208, 209),
    ("points_out",): (211, 212),
}


def from_state_dict(kwargs: dict[str, Any], arrays: dict[str, np.ndarray]) -> Loaded:
    """The mesh with MediaPipe's weights: `arrays` of `face_landmark_f16`, by tensor number.

    `kwargs` is empty. Raises ValueError when the arrays are those of another network.
    """
    module = FaceMesh(**kwargs)
    first = min(min(numbers) for numbers in _HEADS.values())
    numbers = (k for k in sorted(arrays, key=int) if arrays[k].dtype.kind == "f" and int(k) < first)
    trunk = iter([arrays[k] for k in numbers])
    paths = [("stem",), ("stem_prelu",)]
    for i in range(len(BLOCKS)):
        paths += [(f"block{i}", part) for part in ("depthwise", "pointwise", "prelu")]
    layers = {}
    try:
        for path in paths:
            layers[path] = [next(trunk) for _ in range(1 if path[-1].endswith("prelu") else 2)]
        layers |= {path: [arrays[str(k)] for k in numbers] for path, numbers in _HEADS.items()}
    except (StopIteration, KeyError) as error:
        raise ValueError("the arrays are not those of face_landmark_f16") from error
    return Loaded(module, assign(module, layers, SIDE))
