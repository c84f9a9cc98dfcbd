"""StyleGAN2's residual discriminator, which StyleGAN3 keeps.

Karras et al. 2020 (arXiv 1912.04958, section 4.1 and appendix B): residual blocks with [1, 3, 3, 1]
resampling, equalized learning rates, minibatch standard deviation; labels enter by projection
(Miyato and Koyama 2018, arXiv 1802.05637) through a mapping network, as in Karras et al. 2020 (ADA,
arXiv 2006.06676). Parameters keep the names and layouts of a published snapshot ("b32/conv0/weight",
[out, in, height, width]), so that reading and writing one changes no number.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxface.errors import nearest
from jaxface.ops.conv import correlate
from jaxface.ops.filters import bias_act, downsample2d, setup_filter, upfirdn2d

_RESAMPLE = np.array([1, 3, 3, 1]) / 8
_BLOCK_LAYERS = ("fromrgb", "conv0", "conv1", "skip")  # FreezeD counts them in this order


class Conv2d(nn.Module):
    """Convolution with equalized learning rate, optional 2x downsampling, bias and leaky ReLU."""

    features: int
    kernel: int
    down: bool = False
    activate: bool = True  # bias and leaky ReLU
    gain: float = 1.0
    clamp: float | None = None

    @nn.compact
    def __call__(self, x):
        shape = (self.features, x.shape[-1], self.kernel, self.kernel)
        weight = self.param("weight", nn.initializers.normal(1), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[:1]) if self.activate else None
        weight = (weight / math.sqrt(np.prod(shape[1:]))).astype(x.dtype)
        weight = weight.transpose(2, 3, 1, 0)
        if self.kernel == 1:
            x = correlate(downsample2d(x, _RESAMPLE) if self.down else x, weight)
        elif self.down:
            x = correlate(upfirdn2d(x, _RESAMPLE, padding=2), weight, 2)
        else:
            x = correlate(x, weight, 1, self.kernel // 2)
        gain = self.gain * (math.sqrt(2) if self.activate else 1)
        clamp = None if self.clamp is None else self.clamp * self.gain
        return bias_act(x, bias, "lrelu" if self.activate else "linear", gain=gain, clamp=clamp)


class Dense(nn.Module):
    """Fully connected layer with equalized learning rate and its multiplier."""

    features: int
    activation: str = "linear"
    lr_multiplier: float = 1.0

    @nn.compact
    def __call__(self, x):
        shape = (self.features, x.shape[-1])
        weight = self.param("weight", nn.initializers.normal(1 / self.lr_multiplier), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[:1])
        x = x @ (weight * (self.lr_multiplier / math.sqrt(shape[1]))).astype(x.dtype).T
        return bias_act(x, bias * self.lr_multiplier, self.activation)


class LabelMapping(nn.Module):
    """One-hot labels [N, c_dim] -> [N, features]."""

    features: int
    num_layers: int = 8
    embed_features: int | None = None
    layer_features: int | None = None
    activation: str = "lrelu"
    lr_multiplier: float = 0.01

    @nn.compact
    def __call__(self, c):
        x = Dense(self.embed_features or self.features, name="embed")(c)
        x = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-8)
        for i in range(self.num_layers):
            last = i == self.num_layers - 1
            features = self.features if last else self.layer_features or self.features
            x = Dense(features, self.activation, self.lr_multiplier, name=f"fc{i}")(x)
        return x


class Block(nn.Module):
    """Residual block that halves the resolution; the first one reads the image."""

    channels: int
    features: int
    from_image: bool
    clamp: float | None
    dtype: Any

    @nn.compact
    def __call__(self, x):
        x = x.astype(self.dtype)
        if self.from_image:
            x = Conv2d(self.channels, 1, clamp=self.clamp, name="fromrgb")(x)
        gain = math.sqrt(0.5)
        y = Conv2d(self.features, 1, down=True, activate=False, gain=gain, name="skip")(x)
        x = Conv2d(self.channels, 3, clamp=self.clamp, name="conv0")(x)
        x = Conv2d(self.features, 3, down=True, gain=gain, clamp=self.clamp, name="conv1")(x)
        return x + y


def minibatch_stddev(x, group_size: int | None, num_channels: int = 1, axis: str | None = None):
    """Appends the standard deviation over groups of examples, averaged over pixels and channels.

    Example n is in the group of all examples congruent to n modulo N / group_size.

    Args:
      x: [N, H, W, C].
      group_size: examples in a group, at most N; None is all of them.
      num_channels: statistics per group; C is split among them.
      axis: pmap axis; groups are then those of the global batch.
    Returns:
      [N, H, W, C + num_channels].
    Raises:
      ValueError: the batch does not split into groups.

    Reference: Karras et al. 2018 (arXiv 1710.10196), section 3.
    """
    every = x if axis is None else jax.lax.all_gather(x, axis, tiled=True)
    n, height, width, channels = every.shape
    group = n if group_size is None else min(group_size, n)
    if n % group:
        raise ValueError(f"a batch of {n} does not split into groups of {group} (mbstd_group_size)")
    y = every.reshape(group, n // group, height, width, num_channels, channels // num_channels)
    y = jnp.sqrt(jnp.mean((y - y.mean(0)) ** 2, 0) + 1e-8).mean((1, 2, 4))
    y = jnp.tile(y, (group, 1))  # [n, num_channels]
    if axis is not None:
        y = jax.lax.dynamic_slice_in_dim(y, jax.lax.axis_index(axis) * len(x), len(x))
    y = jnp.broadcast_to(y[:, None, None, :], (len(x), height, width, num_channels))
    return jnp.concatenate([x, y.astype(x.dtype)], -1)


class Epilogue(nn.Module):
    """4x4 features -> [N, features]."""

    features: int
    mbstd_group_size: int | None
    mbstd_num_channels: int
    clamp: float | None

    @nn.compact
    def __call__(self, x, axis=None):
        channels = x.shape[-1]
        if self.mbstd_num_channels > 0:
            x = minibatch_stddev(x, self.mbstd_group_size, self.mbstd_num_channels, axis)
        x = Conv2d(channels, 3, clamp=self.clamp, name="conv")(x)
        # Channels first, the order in which snapshots keep the weights.
        x = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
        x = Dense(channels, "lrelu", name="fc")(x)
        return Dense(self.features, name="out")(x)


_OPTIONS = {  # what the *_kwargs may hold: (default, allowed values or None for any)
    "block_kwargs": {
        "activation": ("lrelu", ("lrelu",)),
        "resample_filter": ((1, 3, 3, 1), ((1, 3, 3, 1),)),
        "freeze_layers": (0, None),
        "fp16_channels_last": (False, None),
    },
    "mapping_kwargs": {
        "num_layers": (8, None),
        "embed_features": (None, None),
        "layer_features": (None, None),
        "activation": ("lrelu", None),
        "lr_multiplier": (0.01, None),
    },
    "epilogue_kwargs": {
        "mbstd_group_size": (4, None),
        "mbstd_num_channels": (1, None),
        "activation": ("lrelu", ("lrelu",)),
    },
}


class Discriminator(nn.Module):
    """Images [N, H, W, C] in [-1, 1] -> logits [N, 1], larger for more real.

    Fields are the constructor arguments of a snapshot. `block_kwargs["freeze_layers"]` changes no
    output: pass it to `trainable_mask`.
    """

    c_dim: int  # classes, 0 for none
    img_resolution: int  # px, a power of two of at least 8
    img_channels: int
    architecture: str = "resnet"  # the only one StyleGAN2 and 3 train with
    channel_base: int = 32768  # channels at resolution r: channel_base / r
    channel_max: int = 512
    num_fp16_res: int = 0  # highest resolutions computed in bfloat16
    conv_clamp: float | None = 256  # limit of activations, for low precision
    cmap_dim: int | None = None  # width of the label's projection, None: the channels at 4 px
    block_kwargs: Mapping = dataclasses.field(default_factory=dict)
    mapping_kwargs: Mapping = dataclasses.field(default_factory=dict)
    epilogue_kwargs: Mapping = dataclasses.field(default_factory=dict)

    def _options(self, name: str) -> dict:
        options = {k: default for k, (default, _) in _OPTIONS[name].items()}
        for key, value in getattr(self, name).items():
            if key not in options:
                raise ValueError(f"{name}[{key!r}] is not known.{nearest(key, options)}")
            value = tuple(value) if isinstance(value, list) else value
            allowed = _OPTIONS[name][key][1]
            if allowed is not None and value not in allowed:
                raise ValueError(
                    f"{name}[{key!r}] is {value!r}; only {allowed[0]!r} is implemented"
                )
            options[key] = value
        return options

    @nn.compact
    def __call__(self, images, c=None, axis=None):
        """Scores images.

        Args:
          images: [N, H, W, C] in [-1, 1].
          c: [N, c_dim] one-hot labels, where the network is conditional.
          axis: pmap axis, which the minibatch standard deviation then spans.
        Returns:
          [N, 1] logits, at least float32.
        Raises:
          ValueError: settings or shapes that do not fit.
        """
        if self.architecture != "resnet":
            raise ValueError(f"architecture {self.architecture!r}: only 'resnet' is implemented")
        resolution = self.img_resolution
        if resolution < 8 or resolution & (resolution - 1):
            raise ValueError(f"img_resolution {resolution} is not a power of two of at least 8")
        if images.shape[1:] != (resolution, resolution, self.img_channels):
            raise ValueError(
                f"images of shape {images.shape}; this network takes "
                f"[N, {resolution}, {resolution}, {self.img_channels}]"
            )
        if self.c_dim and (c is None or c.shape != (len(images), self.c_dim)):
            given = "none" if c is None else c.shape
            raise ValueError(
                f"labels c of shape [{len(images)}, {self.c_dim}] needed, {given} given"
            )
        self._options("block_kwargs")
        channels = lambda res: min(self.channel_base // res, self.channel_max)
        exact = jnp.promote_types(images.dtype, jnp.float32)
        low_from = max(2 * resolution >> self.num_fp16_res, 8)
        x = images
        for exponent in range(resolution.bit_length() - 1, 2, -1):
            res = 2**exponent
            x = Block(
                channels(res),
                channels(res // 2),
                from_image=res == resolution,
                clamp=self.conv_clamp,
                dtype=jnp.bfloat16 if res >= low_from else exact,
                name=f"b{res}",
            )(x)
        epilogue = self._options("epilogue_kwargs")
        del epilogue["activation"]
        width = (channels(4) if self.cmap_dim is None else self.cmap_dim) if self.c_dim else 0
        x = Epilogue(width or 1, clamp=self.conv_clamp, name="b4", **epilogue)(
            x.astype(exact), axis
        )
        if width:
            label = LabelMapping(width, name="mapping", **self._options("mapping_kwargs"))
            x = (x * label(c.astype(exact))).sum(-1, keepdims=True) / math.sqrt(width)
        return x


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A discriminator with its weights."""

    module: Discriminator
    variables: dict

    @functools.cached_property
    def _apply(self):
        return jax.jit(self.module.clone(num_fp16_res=0).apply)

    def score(self, images, c=None) -> jax.Array:
        """[N, H, W, C] in [-1, 1] -> logits [N, 1], computed in float32."""
        return self._apply(
            self.variables, jnp.asarray(images), None if c is None else jnp.asarray(c)
        )


def from_kwargs(kwargs: Mapping) -> Discriminator:
    """The module that a snapshot's constructor arguments describe.

    Raises:
      ValueError: an argument that the discriminator does not have, or one it lacks.
    """
    fields = {f.name for f in dataclasses.fields(Discriminator)} - {"parent", "name"}
    for name in kwargs:
        if name not in fields:
            raise ValueError(f"the discriminator has no argument {name!r}.{nearest(name, fields)}")
    missing = {"c_dim", "img_resolution", "img_channels"} - set(kwargs)
    if missing:
        raise ValueError(f"discriminator arguments are missing: {', '.join(sorted(missing))}")
    return Discriminator(**kwargs)


def _expected(kwargs: Mapping) -> tuple[dict, dict[str, np.ndarray]]:
    """{name: shape} of the parameters, and the constant filters that snapshots keep beside them."""
    module = from_kwargs(kwargs)
    image = jnp.zeros([1, module.img_resolution, module.img_resolution, module.img_channels])
    label = jnp.zeros([1, module.c_dim])
    params = jax.eval_shape(module.init, jax.random.key(0), image, label)["params"]
    shapes = {k: v.shape for k, v in traverse_util.flatten_dict(params, sep=".").items()}
    convolutions = {name.rsplit(".", 1)[0] for name, shape in shapes.items() if len(shape) == 4}
    owners = convolutions | {name.split(".")[0] for name in convolutions} - {"b4"}
    return shapes, {f"{owner}.resample_filter": setup_filter([1, 3, 3, 1]) for owner in owners}


def from_state_dict(kwargs: Mapping, arrays: Mapping[str, np.ndarray]) -> Loaded:
    """A discriminator from a snapshot's constructor arguments and named arrays.

    Raises:
      ValueError: arguments or arrays that do not fit; see `params_from_state_dict`.
    """
    return Loaded(from_kwargs(kwargs), params_from_state_dict(kwargs, arrays))


def params_from_state_dict(kwargs: Mapping, arrays: Mapping[str, np.ndarray]) -> dict:
    """Named arrays of a snapshot -> variables {"params"}.

    Args:
      kwargs: the snapshot's constructor arguments.
      arrays: names as `b32.conv0.weight`. The constant resampling filters may be absent; where
        present they must be [1, 3, 3, 1].

    Raises:
      ValueError: lists every name that is missing, left over or of another shape.
    """
    shapes, filters = _expected(kwargs)
    problems = [f"{name}: missing" for name in shapes if name not in arrays]
    for name, array in arrays.items():
        if name in filters:
            made = filters[name]
            if np.shape(array) != made.shape or np.abs(array - made).max() > 1e-5 * made.max():
                problems.append(f"{name}: not the [1, 3, 3, 1] filter of this discriminator")
        elif name not in shapes:
            problems.append(f"{name}: not used")
        elif np.shape(array) != shapes[name]:
            problems.append(f"{name}: has shape {np.shape(array)}, wanted {shapes[name]}")
    if problems:
        raise ValueError(
            f"{len(problems)} array(s) do not fit the discriminator's arguments:\n  "
            + "\n  ".join(problems)
        )
    params = {name: jnp.asarray(arrays[name]) for name in shapes}
    return {"params": traverse_util.unflatten_dict(params, sep=".")}


def to_state_dict(kwargs: Mapping, variables: Mapping) -> dict[str, np.ndarray]:
    """The inverse of `params_from_state_dict`, filters included."""
    params = traverse_util.flatten_dict(variables["params"], sep=".")
    return {name: np.asarray(array) for name, array in params.items()} | _expected(kwargs)[1]


def trainable_mask(params: Mapping, freeze_layers: int = 0) -> dict:
    """FreezeD: True where a parameter trains, in the structure of `params`.

    The first `freeze_layers` layers from the image stay as transferred, counted as fromrgb, conv0,
    conv1, skip of the first block, then conv0, conv1, skip of each further one. What comes after the
    blocks always trains.

    Reference: Mo et al. 2020 (arXiv 2002.10964); counting as in Karras et al. 2020 (2006.06676).
    """
    blocks = sorted((b for b in params if re.fullmatch(r"b\d+", b)), key=lambda b: -int(b[1:]))
    layers = [(b, layer) for b in blocks for layer in _BLOCK_LAYERS if layer in params[b]]
    frozen = set(layers[:freeze_layers])
    return traverse_util.path_aware_map(lambda path, _: tuple(path[:2]) not in frozen, params)
