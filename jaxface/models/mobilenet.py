"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), the eye of the metrics that need no Inception.

Width 1.0 with torchvision's names and ImageNet weights (see NOTICE). Only the features are wanted,
so batch normalisation is folded into the convolutions when weights are read and the classifier is
left out.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

BLOCKS = (  # table 2 of the paper: (expansion t, channels c, repeats n, stride of the first s)
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, FEATURES = 32, 1280
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colors in [0, 1]


class Depthwise(nn.Module):
    """3x3 convolution of each channel by itself, one pixel of zeros around: [N, H, W, C] -> same C.

    Nine shifted multiply-adds: with XLA's grouped convolution the whole network is 20 times slower on
    CPU (128 px, 2 cores: 9 against 200 images a second).
    """

    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, s = x.shape[-1], self.stride
        kernel = self.param("kernel", nn.initializers.he_normal(), (3, 3, channels))
        y = self.param("bias", nn.initializers.zeros, (channels,))
        rows, columns = ((side - 1) // s * s + 1 for side in x.shape[1:3])
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        for i in range(3):
            for j in range(3):
                y = y + kernel[i, j] * x[:, i : i + rows : s, j : j + columns : s]
        return y


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation; skip where the shape stays."""

    channels: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        if self.expansion != 1:
            y = nn.relu6(nn.Dense(x.shape[-1] * self.expansion, name="expand")(y))
        y = nn.relu6(Depthwise(self.stride, name="depthwise")(y))
        y = nn.Dense(self.channels, name="project")(y)
        return x + y if self.stride == 1 and x.shape[-1] == self.channels else y


class MobileNetV2(nn.Module):
    """[N, H, W, 3] in [-1, 1], H and W at least 32 -> pooled features [N, 1280]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = (x * 0.5 + 0.5 - jnp.asarray(MEAN, x.dtype)) / jnp.asarray(STD, x.dtype)
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = nn.relu6(nn.Conv(STEM, (3, 3), 2, "VALID", name="stem")(x))
        index = 1
        for expansion, channels, repeats, stride in BLOCKS:
            for repeat in range(repeats):
                first = stride if repeat == 0 else 1
                x = InvertedResidual(channels, first, expansion, name=f"block{index}")(x)
                index += 1
        x = nn.relu6(nn.Dense(FEATURES, name="head")(x))
        return x.mean((1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))


class Loaded(NamedTuple):
    """The network with its weights."""

    module: MobileNetV2
    variables: dict[str, Any]

    def features(self, images: jax.Array) -> jax.Array:
        """[N, H, W, 3] in [-1, 1] -> pooled features [N, 1280]; compiled once for a shape."""
        return _apply(self.module, self.variables, images)


_apply = jax.jit(lambda module, variables, x: module.apply(variables, x), static_argnums=0)


def _layers() -> dict[tuple[str, ...], tuple[str, str]]:
    """Path of each layer here -> torchvision's names of its convolution and batch normalisation."""
    layers = {("stem",): ("features.0.0", "features.0.1")}
    index = 1
    for expansion, _, repeats, _ in BLOCKS:
        for _ in range(repeats):
            name, prefix = f"block{index}", f"features.{index}.conv"
            at = 0
            if expansion != 1:
                layers[(name, "expand")] = (f"{prefix}.0.0", f"{prefix}.0.1")
                at = 1
            layers[(name, "depthwise")] = (f"{prefix}.{at}.0", f"{prefix}.{at}.1")
            layers[(name, "project")] = (f"{prefix}.{at + 1}", f"{prefix}.{at + 2}")
            index += 1
    layers[("head",)] = (f"features.{index}.0", f"features.{index}.1")
    return layers


def from_state_dict(kwargs: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Loaded:
    """MobileNetV2 with torchvision's weights.

    Args:
      kwargs: empty, there is one MobileNetV2.
      arrays: torchvision's state dict; `classifier.*` and `num_batches_tracked` are not needed.

    Raises:
      ValueError: names every array that is missing, left over or of another shape.
    """
    module = MobileNetV2(**kwargs)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    left = {k for k in arrays if not k.startswith("classifier.") and not k.endswith("_tracked")}
    params: dict[str, Any] = {}
    wrong = []
    for path, (conv, norm) in _layers().items():
        wanted = shapes
        for key in path:
            wanted = wanted[key]
        names = [f"{conv}.weight"]
        names += [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        missing = [name for name in names if name not in arrays]
        wrong += [f"missing: {name}" for name in missing]
        left -= set(names)
        if missing:
            continue
        weight, scale, shift, mean, variance = (np.asarray(arrays[n], np.float64) for n in names)
        # y = (conv(x) - mean) / sqrt(variance + eps) * scale + shift, as one convolution.
        scale = scale / np.sqrt(variance + 1e-5)
        kernel = np.moveaxis(weight * scale[:, None, None, None], 0, -1)  # [in, h, w, out]
        kernel = kernel[0] if path[-1] == "depthwise" else np.moveaxis(kernel, 0, 2)
        if path[-1] in ("expand", "project", "head"):
            kernel = kernel[0, 0]
        if kernel.shape != wanted["kernel"].shape:
            wrong.append(f"{conv}.weight: {kernel.shape} given, {wanted['kernel'].shape} needed")
            continue
        node = params
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = {
            "kernel": jnp.asarray(kernel, jnp.float32),
            "bias": jnp.asarray(shift - mean * scale, jnp.float32),
        }
    wrong += [f"not in this network: {name}" for name in sorted(left)]
    if wrong:
        raise ValueError("these weights are not MobileNetV2's:\n  " + "\n  ".join(wrong))
    return Loaded(module, {"params": params})
