"""BlazeFace, the face detector of MediaPipe (Bazarevsky et al., arXiv 1907.05047), back camera model.

256 px in, 896 anchors out, each with a box and six keypoints. The weights are MediaPipe's
(Apache-2.0, see NOTICE); what to do with anchors is told in `jaxface.faces.detect`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

SIDE = 256  # px of the input
BLOCKS = (  # (features, stride)
    ((24, 1),) * 7
    + ((24, 2),)
    + ((24, 1),) * 7
    + ((48, 2),)
    + ((48, 1),) * 7
    + ((96, 2),)
    + ((96, 1),) * 7
)


class Depthwise(nn.Module):
    """3x3 convolution of each channel by itself, TensorFlow's SAME padding: [N, H, W, C] -> same C.

    It is written as nine shifted multiply-adds because XLA's grouped convolution is 10 to 20 times
    slower on CPU (128x128x24: 12 ms against 0.8 ms an image).
    """

    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, channels))
        y = self.param("bias", nn.initializers.zeros, (channels,))
        size = [-(-side // self.stride) for side in x.shape[1:3]]
        total = [max((n - 1) * self.stride + 3 - side, 0) for n, side in zip(size, x.shape[1:3])]
        x = jnp.pad(x, ((0, 0), *((t // 2, t - t // 2) for t in total), (0, 0)))
        for row in range(3):
            for column in range(3):
                last = [(n - 1) * self.stride + 1 for n in size]
                rows, columns = (slice(o, o + n, self.stride) for o, n in zip((row, column), last))
                y = y + kernel[row, column] * x[:, rows, columns]
        return y


class PReLU(nn.Module):
    """max(x, 0) + slope min(x, 0) with a slope for each channel (Linen's has one for all)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],))
        return jnp.where(x >= 0, x, slope * x)


class BlazeBlock(nn.Module):
    """Depthwise 3x3 and pointwise, added to a skip that is pooled and channel-padded as needed.

    `prelu` is the face mesh's activation; the detector has ReLU.
    """

    features: int
    stride: int = 1
    prelu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = Depthwise(self.stride, name="depthwise")(x)
        y = nn.Dense(self.features, name="pointwise")(y)
        if self.stride == 2:
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.features - x.shape[-1])))
        return PReLU(name="prelu")(x + y) if self.prelu else nn.relu(x + y)


class BlazeFace(nn.Module):
    """[N, 256, 256, 3] in [-1, 1] -> (boxes [N, 896, 16] in px of the input, scores [N, 896] logits).

    A box is (center x, center y, width, height, six keypoints x, y), centers relative to the anchor:
    two anchors for each of 16x16 places, then six for each of 8x8, row by row.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nn.relu(nn.Conv(24, (5, 5), 2, "SAME", name="stem")(x))
        for i, (features, stride) in enumerate(BLOCKS):
            x = BlazeBlock(features, stride, name=f"block{i}")(x)
        y = Depthwise(2, name="down_depthwise")(x)
        y = nn.relu(nn.Dense(96, name="down_pointwise")(y))
        scores = [nn.Dense(2, name="scores16")(x), nn.Dense(6, name="scores8")(y)]
        boxes = [nn.Dense(32, name="boxes16")(x), nn.Dense(96, name="boxes8")(y)]
        n = len(x)
        return (
            jnp.concatenate([b.reshape(n, -1, 16) for b in boxes], axis=1),
            jnp.concatenate([s.reshape(n, -1) for s in scores], axis=1),
        )


class Loaded(NamedTuple):
    """A network with its weights."""

    module: nn.Module
    variables: dict[str, Any]

    def apply(self, x: jax.Array) -> Any:
        """The module's output for `x`."""
        return self.module.apply(self.variables, x)


def _layers() -> list[tuple[str, ...]]:
    """Paths of the layers in the order in which the TFLite graph numbers its weights."""
    paths = [("stem",)]
    for i in range(len(BLOCKS)):
        paths += [(f"block{i}", "depthwise"), (f"block{i}", "pointwise")]
    heads = ("down_depthwise", "down_pointwise", "scores16", "scores8", "boxes16", "boxes8")
    return paths + [(name,) for name in heads]


def assign(
    module: nn.Module, layers: dict[tuple[str, ...], list[np.ndarray]], side: int
) -> dict[str, Any]:
    """Puts TFLite arrays in their places and checks every shape against the module's own.

    `layers` maps a layer's path to its arrays in the order kernel, bias, PReLU slope. TFLite has
    [out, height, width, in] and, depthwise, [1, height, width, channels]. Raises ValueError naming
    what is missing, left over or of another shape.
    """
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    expected = {
        tuple(k.key for k in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes["params"])
    }
    found = {}
    for path, arrays in layers.items():
        for array in arrays:
            if array.ndim == 4:
                axes = (0, 1, 2, 3) if path[-1].endswith("depthwise") else (1, 2, 3, 0)
                array, leaf = array.transpose(axes), "kernel"
            else:
                leaf = "bias" if array.ndim == 1 else "slope"
            if (*path, leaf) in expected:
                found[(*path, leaf)] = _fit(array, expected[(*path, leaf)])
            else:
                found[(*path, leaf)] = array
    wrong = {
        "/".join(path): (expected.get(path), found[path].shape if path in found else None)
        for path in sorted(expected.keys() | found.keys())
        if path not in expected or path not in found or expected[path] != found[path].shape
    }
    if wrong:
        raise ValueError(f"weights do not fit (expected, found): {wrong}")
    params: dict[str, Any] = {}
    for path, array in found.items():
        node = params
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = jnp.asarray(array)
    return {"params": params}


def _fit(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Drops the axes of length one that TFLite keeps, where the sizes agree."""
    return array.reshape(shape) if array.size == int(np.prod(shape)) else array


def from_state_dict(kwargs: dict[str, Any], arrays: dict[str, np.ndarray]) -> Loaded:
    """The detector with MediaPipe's weights: `arrays` of `face_detection_back_f16`, by tensor number.

    `kwargs` is empty. Raises ValueError when the arrays are those of another network.
    """
    module = BlazeFace(**kwargs)
    floats = [arrays[k] for k in sorted(arrays, key=int) if arrays[k].dtype.kind == "f"]
    paths = _layers()
    if len(floats) != 2 * len(paths):
        raise ValueError(f"BlazeFace has {2 * len(paths)} arrays, found {len(floats)}")
    layers = {path: [floats[2 * i], floats[2 * i + 1]] for i, path in enumerate(paths)}
    return Loaded(module, assign(module, layers, SIDE))
