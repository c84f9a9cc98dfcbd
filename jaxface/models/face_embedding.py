"""Who is it: 128 numbers of a face, near for one person and far for two.

The 29-layer residual network that dlib trained with a metric loss (King 2017, blog.dlib.net,
"High Quality Face Recognition with Deep Metric Learning"), as `@vladmandic/face-api` 1.7.15 ships it
(`face_recognition_model`, MIT). A residual network in the sense of He et al. 2015 (arXiv 1512.03385)
whose shortcuts have no weights: halved by averaging, widened with zeros. Channel scales are folded
into the convolutions when weights are read.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxface.models.named import NamedArrays
from jaxface.ops.max_pool import max_pool

SIDE = 150  # px
FEATURES = 128
SAME_PERSON = 0.6  # dlib's threshold: distances below it are taken for one person
MEAN, DEVIATION = (122.782, 117.001, 104.298), 256.0  # of colors in 0..255
BLOCKS = (  # (name, channels, halves the picture)
    ("conv32_1", 32, False), ("conv32_2", 32, False), ("conv32_3", 32, False),
    ("conv64_down", 64, True), ("conv64_1", 64, False), ("conv64_2", 64, False),
    ("conv64_3", 64, False),
    ("conv128_down", 128, True), ("conv128_1", 128, False), ("conv128_2", 128, False),
    ("conv256_down", 256, True), ("conv256_1", 256, False), ("conv256_2", 256, False),
    ("conv256_down_out", 256, True),
)  # fmt: skip


class Block(nn.Module):
    """Two 3x3 convolutions added to the input, which is averaged and widened if they halve it."""

    channels: int
    halve: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        stride, padding = (2, "VALID") if self.halve else (1, "SAME")
        y = nn.relu(nn.Conv(self.channels, (3, 3), stride, padding, name="conv1")(x))
        y = nn.Conv(self.channels, (3, 3), name="conv2")(y)
        if self.halve:
            x = nn.avg_pool(x, (2, 2), (2, 2))
            # Averages of an even side are one more than what the convolution finds room for.
            rows, columns = (a - b for a, b in zip(x.shape[1:3], y.shape[1:3], strict=True))
            y = jnp.pad(y, ((0, 0), (0, rows), (0, columns), (0, 0)))
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.channels - x.shape[-1])))
        return nn.relu(x + y)


class FaceEmbedding(nn.Module):
    """[N, 150, 150, 3] in [-1, 1] -> [N, 128]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = ((x + 1) * 127.5 - jnp.asarray(MEAN, x.dtype)) / DEVIATION
        x = nn.relu(nn.Conv(32, (7, 7), 2, "VALID", name="conv32_down")(x))
        x = max_pool(x, 3, 2)
        for name, channels, halve in BLOCKS:
            x = Block(channels, halve, name=name)(x)
        x = x.mean((1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
        return nn.Dense(FEATURES, use_bias=False, name="fc")(x)


@functools.partial(jax.jit, static_argnums=0)
def _embed(module, variables, images):
    shape = (len(images), SIDE, SIDE, 3)
    images = jnp.broadcast_to(images, (*images.shape[:-1], 3))
    if images.shape != shape:
        images = jax.image.resize(images, shape, "linear", antialias=True)
    return module.apply(variables, images)


class Loaded(NamedTuple):
    """The network with its weights; compiled once for a shape."""

    module: FaceEmbedding
    variables: dict[str, Any]

    def embed(self, images: jax.Array) -> jax.Array:
        """Faces [N, H, W, 1 or 3] in [-1, 1], upright and filling the picture -> [N, 128].

        Other sides are resized to 150 px. Euclidean distances below `SAME_PERSON` speak for one
        person. The threshold is for photographs of adults cropped as dlib does, and errs more often
        on groups its training pictures lack: a measure of likeness, not proof of identity.
        """
        return _embed(self.module, self.variables, images)


def from_state_dict(kwargs: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Loaded:
    """The embedding with face-api's weights.

    Args:
      kwargs: empty, there is one such network.
      arrays: `conv64_1/conv2/conv/filters`, `.../conv/bias`, `.../scale/weights`, `.../scale/biases`
        and so on, and `fc`, dequantized, in TensorFlow's layouts.

    Raises:
      UserError: names every array that is missing, left over or of another shape.
    """
    module = FaceEmbedding(**kwargs)
    blank = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), blank)["params"]
    source = NamedArrays("the face embedding", arrays)

    def layer(path: str, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        shape = wanted["kernel"].shape
        kernel = source.take(f"{path}/conv/filters", shape)
        bias, scale, shift = (
            source.take(f"{path}/{part}", shape[-1:])
            for part in ("conv/bias", "scale/weights", "scale/biases")
        )
        return {
            "kernel": jnp.asarray(kernel * scale, jnp.float32),
            "bias": jnp.asarray(bias * scale + shift, jnp.float32),
        }

    params: dict[str, Any] = {"conv32_down": layer("conv32_down", shapes["conv32_down"])}
    for name, _, _ in BLOCKS:
        inner = shapes[name]
        params[name] = {conv: layer(f"{name}/{conv}", inner[conv]) for conv in ("conv1", "conv2")}
    params["fc"] = {
        "kernel": jnp.asarray(source.take("fc", shapes["fc"]["kernel"].shape), jnp.float32)
    }
    source.close()
    return Loaded(module, {"params": params})
