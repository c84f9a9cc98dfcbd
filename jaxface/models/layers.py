"""What the networks with PyTorch's names share: normalisation, and reading and writing their weights.

Each model file keeps its own map from parameter paths here to names in the source's state dict; how
an array is laid out follows from the kind of parameter and is the same for all of them.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxface.errors import UserError
from jaxface.ops import channels
from jaxface.ops.conv import convolution, transposed
from jaxface.ops.standardize import standardize

EPSILON = 1e-5  # added to variances; PyTorch's default, which all these networks keep
NORMS = ("batch", "instance")
normal_init = nn.initializers.normal(0.02)  # of translation networks: 1611.07004, appendix 6.2
INITS = {  # by the names of the authors' options; He et al. 2015 (arXiv 1502.01852), equation 10
    "normal": (normal_init, normal_init),
    "kaiming": (
        nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
        nn.initializers.variance_scaling(2.0, "fan_in", "normal", in_axis=-1, out_axis=-2),
    ),
}  # of a convolution, of a transposed one


def _around_one(key, shape, dtype=jnp.float32):
    return 1 + normal_init(key, shape, dtype)


class BatchNorm(nn.Module):
    """Normalises each channel over the batch in training, by running statistics otherwise.

    [..., C] -> the same shape and dtype; statistics are kept in at least float32. Running statistics
    move by `momentum` of the way and, as in PyTorch and unlike flax's, the variance that they keep is
    the unbiased one: with the 8 values a channel that the middle of a U-Net may have, 14 % apart.

    Args of the call:
      train: use the batch's statistics, and update the running ones where "batch_stats" is mutable.
      axis: pmap axis; statistics are then those of the global batch.
    Raises:
      ValueError: training on a single value a channel, which has no variance.

    Reference: Ioffe and Szegedy 2015 (arXiv 1502.03167), algorithms 1 and 2.
    """

    momentum: float = 0.1
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, axis: str | None = None) -> jax.Array:
        shape = x.shape[-1:]
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        dtype = x.dtype
        x = x.astype(jnp.promote_types(dtype, jnp.float32))
        if train:
            x, mean, var = standardize(x, scale, bias, 0, EPSILON, axis)
            n = x.size // x.shape[-1] * (1 if axis is None else jax.lax.psum(1, axis))
            if n == 1:
                raise ValueError("batch statistics need more than one value a channel")
            if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
                move = lambda old, new: (1 - self.momentum) * old + self.momentum * new
                running_mean.value = move(running_mean.value, mean)
                running_var.value = move(running_var.value, var * (n / (n - 1)))
        else:
            gain = jax.lax.rsqrt(running_var.value + EPSILON) * scale
            x = x - channels.spread(running_mean.value.astype(x.dtype), x.shape)
            x = x * channels.spread(gain, x.shape) + channels.spread(bias, x.shape)
        return x.astype(dtype)


def instance_norm(x: jax.Array) -> jax.Array:
    """Each channel of each image to mean 0 and variance 1. [N, H, W, C] -> same shape and dtype.

    Without learned scale and shift and without running statistics, as the CycleGAN paper's code has
    it. Ulyanov et al. 2016 (arXiv 1607.08022), equation 4.
    """
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return standardize(exact, None, None, 1, EPSILON, None)[0].astype(x.dtype)


def normalize(norm: str, x: jax.Array, train: bool, axis: str | None, name: str) -> jax.Array:
    """`norm` ("batch" or "instance") of a translation network's layer, inside a module's call."""
    if norm == "instance":
        return instance_norm(x)
    return BatchNorm(scale_init=_around_one, name=name)(x, train, axis)


class Dropout(nn.Module):
    """Sets values to 0 with chance `rate` while training and scales the others up by 1 / (1 - rate).

    Unlike flax's, what is dropped depends on the number of the example in the whole run, so that one
    device and eight drop the same. Srivastava et al. 2014 (JMLR 15), section 4.

    Args of the call:
      example: int [N] global example numbers; None for 0 to N - 1.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, example: jax.Array | None = None) -> jax.Array:
        if not train or not self.rate:
            return x
        key = self.make_rng("dropout")
        example = jnp.arange(x.shape[0]) if example is None else example
        draw = lambda e: jax.random.bernoulli(
            jax.random.fold_in(key, e), 1 - self.rate, x.shape[1:]
        )
        return jnp.where(jax.vmap(draw)(example), x / (1 - self.rate), 0)


class Conv(nn.Module):
    """flax's convolution in the forms that are fastest where it runs (`ops/conv.py`, `ops/channels.py`).

    [N, H, W, C] -> [N, H', W', features]
    """

    features: int
    kernel_size: tuple[int, int]
    stride: int = 1
    padding: int | str = "SAME"  # zeros on every side, or as in lax
    use_bias: bool = True
    dtype: Any = None  # None is that of input and parameters
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape[3:]) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        around = ((self.padding,) * 2,) * 2 if isinstance(self.padding, int) else self.padding
        y = convolution(x, kernel, (self.stride,) * 2, around)
        return y if bias is None else y + channels.spread(bias, y.shape)


class Double(nn.Module):
    """Transposed convolution to twice the sides. [N, h, w, C] -> [N, 2h, 2w, features]

    PyTorch's ConvTranspose2d of stride 2 and padding 1 with a kernel of 4, or of 3 and then with an
    output padding of 1. Differentiable in reverse mode only.
    """

    features: int
    size: int  # of the kernel
    use_bias: bool = True
    dtype: Any = None
    kernel_init: nn.initializers.Initializer = normal_init

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, self.features, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape[2:3]) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = transposed(x, kernel, stride=2, padding=1, sides=(2 * x.shape[1], 2 * x.shape[2]))
        return y if bias is None else y + channels.spread(bias, y.shape)


@functools.partial(jax.jit, static_argnums=0)
def _infer(module, variables, x):
    return module.apply(variables, x)


@functools.partial(jax.jit, static_argnums=0)
def _train(module, variables, x, key):
    rngs = None if key is None else {"dropout": key}
    return module.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A network with its weights."""

    module: nn.Module
    variables: dict[str, Any]  # "params", and "batch_stats" where it has batch normalisation

    def apply(self, x, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """Output for [N, H, W, C]; compiled once for a shape.

        Args:
          train: use statistics of this batch in place of the running ones, and dropout if there is
            any. (pix2pix also infers so: dropout is the only noise its generator has.)
          key: random key, needed for dropout alone.
        """
        if train:
            return self.apply_and_update(x, key)[0]
        return _infer(self.module, self.variables, jnp.asarray(x))

    def apply_and_update(self, x, key: jax.Array | None = None) -> tuple[jax.Array, "Loaded"]:
        """Output in training mode, and the network with its running statistics moved by the batch."""
        y, moved = _train(self.module, self.variables, jnp.asarray(x), key)
        return y, dataclasses.replace(self, variables={**self.variables, **moved})


def options(what: str, kwargs: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    """The values of `wanted` in the source's options, which may hold much else (its training, say).

    Raises:
      UserError: names the options that are missing.
    """
    missing = [name for name in wanted if name not in kwargs]
    if missing:
        raise UserError(f"options of the {what} are missing: {', '.join(missing)}")
    return {name: kwargs[name] for name in wanted}


def check_norm(norm: str) -> None:
    """Raises UserError where a translation network knows no such normalisation."""
    if norm not in NORMS:
        raise UserError(f"norm={norm!r} is not known; known: {', '.join(NORMS)}")


def without_statistics(norm: str, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """A state dict less what PyTorch before 0.4 kept for instance normalisation and never used."""
    if norm != "instance":
        return arrays
    kept = (f".{_LEAVES['mean']}", f".{_LEAVES['var']}", f".{_COUNT}")
    return {name: array for name, array in arrays.items() if not name.endswith(kept)}


_LEAVES = {  # how a parameter is called in the source
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_COUNT = "num_batches_tracked"  # kept by PyTorch beside running statistics, used by nothing


def _to_source(array: Any) -> Any:
    """Convolutions [h, w, in, out] -> [out, in, h, w], transposed ones alike; dense [in, out] -> .T"""
    return array.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, range(array.ndim)))


def _from_source(array: Any) -> Any:
    return array.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim, range(array.ndim)))


def _names(variables: Mapping, names: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """{path of an array in the variables: its name in the source}."""
    paths = traverse_util.flatten_dict(variables)
    return {path: f"{names['/'.join(path[1:-1])]}.{_LEAVES[path[-1]]}" for path in paths}


def read(
    what: str,
    module: nn.Module,
    shape: tuple[int, ...],
    names: Mapping[str, str],
    arrays: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Variables of a network from the arrays of a PyTorch state dict.

    Args:
      what: the network's name, for messages.
      module: its Linen module.
      shape: of an input that it takes.
      names: {"path/of/layer": prefix of its arrays in the state dict}.
      arrays: the state dict; `num_batches_tracked` may be there or not.

    Raises:
      UserError: lists every name that is missing, left over or of another shape.
    """
    wanted = jax.eval_shape(
        module.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    sources = _names(wanted, names)
    wanted = traverse_util.flatten_dict(wanted)
    shapes = {
        name: jax.eval_shape(_to_source, wanted[path]).shape for path, name in sources.items()
    }
    problems = [f"missing: {name}" for name in shapes if name not in arrays]
    for name, array in arrays.items():
        if name in shapes:
            if np.shape(array) != shapes[name]:
                problems.append(f"{name}: {np.shape(array)} given, {shapes[name]} needed")
        elif name.removesuffix(_COUNT) + "running_mean" not in shapes:
            problems.append(f"not in this network: {name}")
    if problems:
        raise UserError(
            f"{len(problems)} array(s) do not fit the {what} of these options:\n  "
            + "\n  ".join(problems)
        )
    flat = {
        path: jnp.asarray(_from_source(np.asarray(arrays[name])), wanted[path].dtype)
        for path, name in sources.items()
    }
    return traverse_util.unflatten_dict(flat)


def write(variables: Mapping, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The inverse of `read`; `num_batches_tracked`, which PyTorch wants to be there, is 0."""
    flat = traverse_util.flatten_dict(variables)
    sources = _names(variables, names)
    arrays = {name: _to_source(np.asarray(flat[path])) for path, name in sources.items()}
    counts = {
        n.removesuffix("running_mean") + _COUNT for n in arrays if n.endswith(".running_mean")
    }
    return arrays | dict.fromkeys(sorted(counts), np.zeros([], np.int64))
