"""Residual networks of 18, 34 and 50 layers (He et al. 2016, arXiv 1512.03385, table 1), and of 10.

With torchvision's names and layouts, so that its ImageNet weights can be read, and its one departure
from the paper ("v1.5"): in a block of three convolutions the 3x3 one has the stride, not the first.
Ten layers, and other widths than the published 64, are for pictures and machines that are small.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxface.errors import UserError, nearest
from jaxface.models import layers
from jaxface.ops.max_pool import max_pool

BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
}  # of the four stages
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colors in [0, 1]
STAGES = ("maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")


def normalize(images: jax.Array) -> jax.Array:
    """[..., 3] in [-1, 1] -> colors as ImageNet weights expect them: mean 0, deviation 1."""
    mean, std = jnp.asarray(MEAN, images.dtype), jnp.asarray(STD, images.dtype)
    return (images * 0.5 + 0.5 - mean) / std


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 with 4 times the channels; and the way around them."""

    width: int
    stride: int
    bottleneck: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, axis: str | None) -> jax.Array:
        def conv(x, name, norm, features, size, stride):
            x = layers.Conv(
                features,
                (size, size),
                stride,
                size // 2,
                use_bias=False,
                kernel_init=nn.initializers.variance_scaling(2, "fan_out", "normal"),
                dtype=self.dtype,
                name=name,
            )(x)
            return layers.BatchNorm(name=norm)(x, train, axis)

        if self.bottleneck:
            plan = [(self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)]
        else:
            plan = [(self.width, 3, self.stride), (self.width, 3, 1)]
        y = x
        for index, layer in enumerate(plan, start=1):
            y = conv(y, f"conv{index}", f"bn{index}", *layer)
            y = nn.relu(y) if index < len(plan) else y
        if x.shape != y.shape:
            x = conv(x, "downsample", "downsample_norm", y.shape[-1], 1, self.stride)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """[N, H, W, C] as `normalize` gives it -> logits [N, num_classes].

    With `num_classes` None the features before the classifier, [N, 8 width] (32 width for 50 layers).
    What leaves each of `STAGES` is sown into "intermediates".
    """

    depth: int = 50
    num_classes: int | None = 1000
    dtype: Any = None  # of the convolutions; None is that of input and parameters
    width: int = 64  # channels of the first stage

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, axis: str | None = None) -> jax.Array:
        """With `train`, batch normalisation takes the batch's statistics."""
        x = layers.Conv(
            self.width,
            (7, 7),
            2,
            3,
            use_bias=False,
            kernel_init=nn.initializers.variance_scaling(2, "fan_out", "normal"),
            dtype=self.dtype,
            name="conv1",
        )(x)
        x = nn.relu(layers.BatchNorm(name="bn1")(x, train, axis))
        x = max_pool(x, 3, 2, 1)
        self.sow("intermediates", "maxpool", x)
        for stage, repeats in enumerate(BLOCKS[self.depth]):
            for repeat in range(repeats):
                x = Block(
                    width=self.width * 2**stage,
                    stride=2 if stage and not repeat else 1,
                    bottleneck=self.depth >= 50,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{repeat}",
                )(x, train, axis)
            self.sow("intermediates", f"layer{stage + 1}", x)
        x = x.mean((1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
        self.sow("intermediates", "avgpool", x)
        if self.num_classes is None:
            return x
        return nn.Dense(self.num_classes, name="fc")(x)


@functools.partial(jax.jit, static_argnums=0)
def _activations(module, variables, x):
    y, sown = module.apply(variables, x, mutable=["intermediates"])
    return {name: value for name, (value,) in sown["intermediates"].items()} | {"output": y}


class Loaded(layers.Loaded):
    """A residual network with its weights."""

    def activations(self, x) -> dict[str, jax.Array]:
        """What leaves each of `STAGES` ([N, h, w, C]; `avgpool` [N, C]), and "output", in inference."""
        return _activations(self.module, self.variables, jnp.asarray(x))


def from_kwargs(kwargs: Mapping[str, Any]) -> ResNet:
    """The module of `depth` (10, 18, 34 or 50), `num_classes` (None: features; 1000 if left out), `width`.

    Raises:
      UserError: an option that is missing or unknown, or a depth that is not known.
    """
    known = {"depth", "num_classes", "width"}
    for name in kwargs:
        if name not in known:
            raise UserError(f"a residual network has no option {name!r}.{nearest(name, known)}")
    depth = layers.options("residual network", kwargs, ("depth",))["depth"]
    if depth not in BLOCKS:
        raise UserError(f"depth={depth!r} is not known; known: {', '.join(map(str, BLOCKS))}")
    return ResNet(**kwargs)


def _names(module: ResNet) -> dict[str, str]:
    """Path of each layer -> torchvision's name."""
    names = {name: name for name in ("conv1", "bn1", "fc")}
    for stage, repeats in enumerate(BLOCKS[module.depth], start=1):
        for repeat in range(repeats):
            block, prefix = f"layer{stage}_{repeat}", f"layer{stage}.{repeat}"
            for index in (1, 2, 3):
                for part in (f"conv{index}", f"bn{index}"):
                    names[f"{block}/{part}"] = f"{prefix}.{part}"
            names[f"{block}/downsample"] = f"{prefix}.downsample.0"
            names[f"{block}/downsample_norm"] = f"{prefix}.downsample.1"
    return names


def from_state_dict(kwargs: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Loaded:
    """Residual network from torchvision's state dict.

    Args:
      kwargs: as in `from_kwargs`; without `num_classes`, the classifier is the one in the arrays,
        and with None it is left out.

    Raises:
      UserError: options that are missing or unknown; every array that is missing, left over or of
        another shape.
    """
    if "num_classes" not in kwargs and "fc.weight" in arrays:
        kwargs = {**kwargs, "num_classes": len(arrays["fc.weight"])}
    module = from_kwargs(kwargs)
    if module.num_classes is None:
        arrays = {name: array for name, array in arrays.items() if not name.startswith("fc.")}
    names = _names(module)
    return Loaded(module, layers.read("residual network", module, (1, 64, 64, 3), names, arrays))


def to_state_dict(kwargs: Mapping[str, Any], variables: Mapping) -> dict[str, np.ndarray]:
    """The inverse of `from_state_dict`: arrays with torchvision's names and layouts."""
    return layers.write(variables, _names(from_kwargs(kwargs)))
