"""What a face shows: seven expressions from 112 px, in 0.3 million weights.

Densely connected (Huang et al. 2016, arXiv 1608.06993) blocks of depthwise-separable convolutions, as
`@vladmandic/face-api` 1.7.15 ships them (`face_expression_model`, MIT). It judges acted expressions of
web photographs: good for telling a smile, no measure of what somebody feels.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxface.models.blazeface import Depthwise
from jaxface.models.named import NamedArrays

SIDE = 112  # px
EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
MEAN, DEVIATION = (122.782, 117.001, 104.298), 255.0  # of colors in 0..255
CHANNELS = (32, 64, 128, 256)


class Separable(nn.Module):
    """Depthwise 3x3 and pointwise, the bias after both."""

    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Depthwise(self.stride, name="depthwise")(x)
        return nn.Dense(self.channels, name="pointwise")(x)


class DenseBlock(nn.Module):
    """A halving convolution, then three that each see the sum of all before them."""

    channels: int
    first: bool  # of the network: an ordinary convolution on colors

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.first:
            y = nn.Conv(self.channels, (3, 3), 2, name="conv0")(x)
        else:
            y = Separable(self.channels, 2, name="conv0")(x)
        total = y = nn.relu(y)
        for index in (1, 2, 3):
            total += Separable(self.channels, name=f"conv{index}")(y)
            y = nn.relu(total)
        return y


class Expression(nn.Module):
    """[N, 112, 112, 3] in [-1, 1] -> (features [N, 256], logits [N, 7] in the order EXPRESSIONS)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = ((x + 1) * 127.5 - jnp.asarray(MEAN, x.dtype)) / DEVIATION
        for index, channels in enumerate(CHANNELS):
            x = DenseBlock(channels, index == 0, name=f"dense{index}")(x)
        x = x.mean((1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
        return x, nn.Dense(len(EXPRESSIONS), name="fc")(x)


@functools.partial(jax.jit, static_argnums=0)
def _apply(module, variables, images):
    shape = (len(images), SIDE, SIDE, 3)
    images = jnp.broadcast_to(images, (*images.shape[:-1], 3))
    if images.shape != shape:
        images = jax.image.resize(images, shape, "linear", antialias=True)
    features, logits = module.apply(variables, images)
    return features, nn.softmax(logits)


class Loaded(NamedTuple):
    """The network with its weights; compiled once for a shape."""

    module: Expression
    variables: dict[str, Any]

    def probabilities(self, images: jax.Array) -> jax.Array:
        """Faces [N, H, W, 1 or 3] in [-1, 1], cut tightly -> [N, 7] in the order of EXPRESSIONS.

        "Tightly": a square 1.15 times the height of the face mesh. Other sides are resized to 112 px.
        """
        return _apply(self.module, self.variables, images)[1]

    def features(self, images: jax.Array) -> jax.Array:
        """The same faces -> the 256 numbers that probabilities are made of."""
        return _apply(self.module, self.variables, images)[0]


def from_state_dict(kwargs: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Loaded:
    """The expression network with face-api's weights.

    Args:
      kwargs: empty, there is one such network.
      arrays: `dense1/conv2/depthwise_filter`, `.../pointwise_filter`, `.../bias` and so on,
        `fc/weights` and `fc/bias`, dequantized, in TensorFlow's layouts.

    Raises:
      UserError: names every array that is missing, left over or of another shape.
    """
    module = Expression(**kwargs)
    source = NamedArrays("the expression network", arrays)

    def take(name: str, shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(source.take(name, shape), jnp.float32)

    def separable(path: str, inputs: int, channels: int) -> dict[str, Any]:
        kernel = take(f"{path}/depthwise_filter", (3, 3, inputs, 1))[..., 0]
        return {
            "depthwise": {"kernel": kernel, "bias": jnp.zeros(inputs)},
            "pointwise": {
                "kernel": take(f"{path}/pointwise_filter", (1, 1, inputs, channels))[0, 0],
                "bias": take(f"{path}/bias", (channels,)),
            },
        }

    params: dict[str, Any] = {}
    inputs = 3
    for index, channels in enumerate(CHANNELS):
        name = f"dense{index}"
        if index == 0:
            stem = {
                "kernel": take(f"{name}/conv0/filters", (3, 3, inputs, channels)),
                "bias": take(f"{name}/conv0/bias", (channels,)),
            }
        else:
            stem = separable(f"{name}/conv0", inputs, channels)
        params[name] = {"conv0": stem}
        for conv in ("conv1", "conv2", "conv3"):
            params[name][conv] = separable(f"{name}/{conv}", channels, channels)
        inputs = channels
    params["fc"] = {
        "kernel": take("fc/weights", (inputs, len(EXPRESSIONS))),
        "bias": take("fc/bias", (len(EXPRESSIONS),)),
    }
    source.close()
    return Loaded(module, {"params": params})
