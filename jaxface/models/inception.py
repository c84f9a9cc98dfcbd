"""The Inception network that defines FID (TensorFlow's of 2015-12-05; Heusel et al. 2017, 1706.08500).

Szegedy et al. 2015 (arXiv 1512.00567) as it was released: 1,008 outputs, no padding counted in average
pooling, and in the last block a maximum where the paper averages. Names are those of
`pt_inception-2015-12-05-6726825d.pth`, which both PyTorch peers load; we may not ship its weights.
Batch normalization is folded into the convolutions when weights are read.

A value is FID only with those weights *and* a resizing and scaling that all agree on. They do not, so
each convention has a name:

  pytorch_fid      half-pixel bilinear to 299 x 299 px, x / 127.5 - 1
  torch_fidelity   TensorFlow 1's bilinear to 299 x 299 px, (x - 128) / 128; also NVIDIA's and FID's first
  clean_fid        Pillow's antialiased bicubic to 299 x 299 px in float, (x - 128) / 128
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxface.models.named import NamedArrays
from jaxface.ops import resize
from jaxface.ops.max_pool import max_pool

SIDE = 299  # px, of the images that the network sees
CLASSES = 1008
PROTOCOLS = ("pytorch_fid", "torch_fidelity", "clean_fid")
OUTPUTS = ("64", "192", "768", "2048")  # blocks, by the channels they end with


class Conv(nn.Module):
    """Convolution, its folded batch normalization and ReLU: [N, H, W, C] -> [N, H', W', channels]."""

    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    valid: bool = False  # no padding; else as much as keeps the size at stride 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        padding = [(0, 0) if self.valid else (k // 2, k // 2) for k in self.kernel]
        # Accelerators multiply in half precision by default; a metric may not depend on the machine.
        x = nn.Conv(
            self.channels,
            self.kernel,
            self.stride,
            padding,
            precision=jax.lax.Precision.HIGHEST,
            name="conv",
        )(x)
        return nn.relu(x)


def _average(x: jax.Array) -> jax.Array:
    """Mean of the pixels of each 3x3 window that lie in the image."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def _chain(x: jax.Array, *convolutions: Conv) -> jax.Array:
    for convolution in convolutions:
        x = convolution(x)
    return x


class InceptionA(nn.Module):
    """35 px blocks: 1x1, 5x5, two 3x3, and an average, side by side."""

    pool: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        branches = [
            Conv(64, name="branch1x1")(x),
            _chain(x, Conv(48, name="branch5x5_1"), Conv(64, (5, 5), name="branch5x5_2")),
            _chain(
                x,
                Conv(64, name="branch3x3dbl_1"),
                Conv(96, (3, 3), name="branch3x3dbl_2"),
                Conv(96, (3, 3), name="branch3x3dbl_3"),
            ),
            Conv(self.pool, name="branch_pool")(_average(x)),
        ]
        return jnp.concatenate(branches, -1)


class InceptionB(nn.Module):
    """35 px -> 17 px."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        branches = [
            Conv(384, (3, 3), 2, True, name="branch3x3")(x),
            _chain(
                x,
                Conv(64, name="branch3x3dbl_1"),
                Conv(96, (3, 3), name="branch3x3dbl_2"),
                Conv(96, (3, 3), 2, True, name="branch3x3dbl_3"),
            ),
            max_pool(x, 3, 2),
        ]
        return jnp.concatenate(branches, -1)


class InceptionC(nn.Module):
    """17 px blocks with 7x7 convolutions in rows and columns."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        row, column, c = (1, 7), (7, 1), self.width
        branches = [
            Conv(192, name="branch1x1")(x),
            _chain(
                x,
                Conv(c, name="branch7x7_1"),
                Conv(c, row, name="branch7x7_2"),
                Conv(192, column, name="branch7x7_3"),
            ),
            _chain(
                x,
                Conv(c, name="branch7x7dbl_1"),
                Conv(c, column, name="branch7x7dbl_2"),
                Conv(c, row, name="branch7x7dbl_3"),
                Conv(c, column, name="branch7x7dbl_4"),
                Conv(192, row, name="branch7x7dbl_5"),
            ),
            Conv(192, name="branch_pool")(_average(x)),
        ]
        return jnp.concatenate(branches, -1)


class InceptionD(nn.Module):
    """17 px -> 8 px."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        branches = [
            _chain(
                x, Conv(192, name="branch3x3_1"), Conv(320, (3, 3), 2, True, name="branch3x3_2")
            ),
            _chain(
                x,
                Conv(192, name="branch7x7x3_1"),
                Conv(192, (1, 7), name="branch7x7x3_2"),
                Conv(192, (7, 1), name="branch7x7x3_3"),
                Conv(192, (3, 3), 2, True, name="branch7x7x3_4"),
            ),
            max_pool(x, 3, 2),
        ]
        return jnp.concatenate(branches, -1)


class InceptionE(nn.Module):
    """8 px blocks that end in a row and a column side by side."""

    maximum: bool  # instead of an average

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        row, column = (1, 3), (3, 1)
        y = Conv(384, name="branch3x3_1")(x)
        z = _chain(x, Conv(448, name="branch3x3dbl_1"), Conv(384, (3, 3), name="branch3x3dbl_2"))
        pooled = max_pool(x, 3, 1, 1) if self.maximum else _average(x)
        branches = [
            Conv(320, name="branch1x1")(x),
            Conv(384, row, name="branch3x3_2a")(y),
            Conv(384, column, name="branch3x3_2b")(y),
            Conv(384, row, name="branch3x3dbl_3a")(z),
            Conv(384, column, name="branch3x3dbl_3b")(z),
            Conv(192, name="branch_pool")(pooled),
        ]
        return jnp.concatenate(branches, -1)


class Inception(nn.Module):
    """[N, 299, 299, 3] in [-1, 1] -> maps {"64", "192", "768", "2048"} and "logits_unbiased", "logits".

    A map is [N, H, W, channels] with sides of 73, 35, 17 and 8 px; logits are [N, 1008].
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out = {}
        x = Conv(32, (3, 3), 2, True, name="Conv2d_1a_3x3")(x)
        x = Conv(32, (3, 3), 1, True, name="Conv2d_2a_3x3")(x)
        x = Conv(64, (3, 3), name="Conv2d_2b_3x3")(x)
        out["64"] = x = max_pool(x, 3, 2)
        x = Conv(80, name="Conv2d_3b_1x1")(x)
        x = Conv(192, (3, 3), 1, True, name="Conv2d_4a_3x3")(x)
        out["192"] = x = max_pool(x, 3, 2)
        for name, pool in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = InceptionA(pool, name=name)(x)
        x = InceptionB(name="Mixed_6a")(x)
        for name, width in zip(
            ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), (128, 160, 160, 192)
        ):
            x = InceptionC(width, name=name)(x)
        out["768"] = x
        x = InceptionD(name="Mixed_7a")(x)
        x = InceptionE(False, name="Mixed_7b")(x)
        out["2048"] = x = InceptionE(True, name="Mixed_7c")(x)
        head = nn.Dense(CLASSES, precision=jax.lax.Precision.HIGHEST, name="fc")
        out["logits"] = head(x.mean((1, 2)))
        out["logits_unbiased"] = out["logits"] - head.variables["params"]["bias"]
        return out


@functools.partial(jax.jit, static_argnums=0)
def _maps(module, variables, x):
    return module.apply(variables, x)


@functools.partial(jax.jit, static_argnums=0)
def _pooled(module, variables, x):
    out = module.apply(variables, x)
    return {k: v.mean((1, 2)) if v.ndim == 4 else v for k, v in out.items()}


def canvas(images: np.ndarray, protocol: str) -> jax.Array:
    """uint8 [N, H, W, 1 or 3] -> what the network sees by a protocol, [N, 299, 299, 3].

    Raises ValueError for another protocol or other images.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol {protocol!r}; there are {', '.join(PROTOCOLS)}")
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must be uint8 [N, H, W, 1 or 3], got {images.dtype} {images.shape}"
        )
    images = np.broadcast_to(images, (*images.shape[:3], 3))
    if protocol == "pytorch_fid":
        return resize.half_pixel_bilinear(images, (SIDE, SIDE)) / 127.5 - 1
    if protocol == "torch_fidelity":
        return (resize.tf1_bilinear(images, (SIDE, SIDE)) - 128) / 128
    return (jnp.asarray(resize.pil(images, (SIDE, SIDE), "bicubic")) - 128) / 128


class Loaded(NamedTuple):
    """The network with its weights."""

    module: Inception
    variables: dict[str, Any]

    def features(
        self, images: np.ndarray, protocol: str = "pytorch_fid", batch: int = 16
    ) -> np.ndarray:
        """The 2,048 pooled features that FID and KID compare.

        Args:
          images: uint8 [N, H, W, 1 or 3].
          protocol: "pytorch_fid", "torch_fidelity" or "clean_fid"; see the top of this file.
          batch: images a device call takes at most; changes the speed, not the numbers.

        Returns:
          float32 [N, 2048].

        Raises:
          ValueError: another protocol or other images.
        """
        return self.outputs(images, protocol, batch)["2048"]

    def outputs(
        self, images: np.ndarray, protocol: str = "pytorch_fid", batch: int = 16
    ) -> dict[str, np.ndarray]:
        """Everything that peers read, pooled: "64", "192", "768", "2048", "logits_unbiased", "logits".

        The arguments are those of `features`. -> {name: float32 [N, channels]}
        """
        # Parts of equal size, the last filled up: the network is compiled for one shape.
        size = max(1, min(batch, len(images)))
        parts = []
        for first in range(0, max(len(images), 1), size):
            part = canvas(images[first : first + size], protocol)
            filled = jnp.pad(part, ((0, size - len(part)), (0, 0), (0, 0), (0, 0)))
            out = _pooled(self.module, self.variables, filled)
            parts.append({name: np.asarray(value)[: len(part)] for name, value in out.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def maps(self, images: np.ndarray, protocol: str = "pytorch_fid") -> dict[str, jax.Array]:
        """What `outputs` pools: {"64": [N, 73, 73, 64], "192", "768", "2048"}, images in one batch."""
        out = _maps(self.module, self.variables, canvas(images, protocol))
        return {name: out[name] for name in OUTPUTS}


def from_state_dict(kwargs: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Loaded:
    """The FID Inception with weights named as in `pt_inception-2015-12-05-6726825d.pth`.

    Args:
      kwargs: empty, there is one such network.
      arrays: the state dict; `num_batches_tracked` is not needed.

    Raises:
      UserError: names every array that is missing, left over or of another shape.
    """
    module = Inception(**kwargs)
    blank = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), blank)["params"]
    source = NamedArrays(
        "the FID Inception", arrays, lambda name: name.endswith("num_batches_tracked")
    )

    def layer(path: str, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        height, width, inputs, channels = wanted["kernel"].shape
        weight = source.take(f"{path}.conv.weight", (channels, inputs, height, width))
        return source.folded(np.transpose(weight, (2, 3, 1, 0)), f"{path}.bn", epsilon=1e-3)

    def block(path: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        if "conv" in wanted:
            return {"conv": layer(path, wanted["conv"])}
        return {name: block(f"{path}.{name}", inner) for name, inner in wanted.items()}

    params = {name: block(name, inner) for name, inner in shapes.items() if name != "fc"}
    params["fc"] = {
        "kernel": jnp.asarray(source.take("fc.weight", (CLASSES, 2048)).T, jnp.float32),
        "bias": jnp.asarray(source.take("fc.bias", (CLASSES,)), jnp.float32),
    }
    source.close()
    return Loaded(module, {"params": params})
