"""PatchGAN discriminators (Isola et al. 2017, arXiv 1611.07004, section 3.2.2 and appendix 6.1).

One score for each overlapping patch (70 x 70 pixels for `basic`, a single pixel for `pixel`), with
the names and layouts of the authors' PyTorch code. A conditional discriminator sees source and
result side by side as channels.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxface.errors import UserError
from jaxface.models import layers

KINDS = ("basic", "n_layers", "pixel")


class PatchGAN(nn.Module):
    """[N, H, W, channels] in [-1, 1] -> scores [N, h, w, 1], one a patch, without sigmoid.

    `num_layers` convolutions halve the picture and two more see its neighbourhood; with 0 of them
    each pixel is judged alone and h, w = H, W.
    """

    num_layers: int = 3
    ndf: int = 64  # filters of the first layer
    norm: str = "batch"  # or "instance"
    dtype: Any = None  # of the convolutions; None is that of input and parameters

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        axis: str | None = None,
        example: jax.Array | None = None,
    ) -> jax.Array:
        """With `train`, batch normalisation takes the batch's statistics.

        `example` is taken as every translation network takes it, and means nothing without dropout.
        """
        use_bias = self.norm == "instance"  # batch normalisation would take it out again

        def conv(x, name, features, stride, use_bias):
            size, padding = ((4, 4), 1) if self.num_layers else ((1, 1), 0)
            return layers.Conv(
                features,
                size,
                stride,
                padding,
                use_bias=use_bias,
                kernel_init=layers.normal_init,
                dtype=self.dtype,
                name=name,
            )(x)

        # Strides of all layers but the last; a picture judged by pixels is never made smaller.
        strides = [2] * self.num_layers + [1] if self.num_layers else [1, 1]
        for index, stride in enumerate(strides):
            name, width = f"conv{index + 1}", self.ndf * min(2**index, 8)
            x = conv(x, name, width, stride, use_bias or index == 0)
            if index:
                x = layers.normalize(self.norm, x, train, axis, name=f"{name}_norm")
            x = nn.leaky_relu(x, 0.2)
        last_bias = use_bias or self.num_layers > 0
        x = conv(x, f"conv{len(strides) + 1}", 1, 1, last_bias)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def from_kwargs(kwargs: Mapping[str, Any]) -> PatchGAN:
    """The module of the authors' options.

    Args:
      kwargs: `netD` (basic, n_layers or pixel), `ndf`, `norm` (batch or instance) and for n_layers
        `n_layers_D`; their other options do not concern the network.

    Raises:
      UserError: an option that is missing or names no PatchGAN.
    """
    given = layers.options("PatchGAN", kwargs, ("netD", "ndf", "norm"))
    net = given.pop("netD")
    if net not in KINDS:
        raise UserError(f"netD={net!r} is no PatchGAN; known: {', '.join(KINDS)}")
    layers.check_norm(given["norm"])
    num_layers = {"basic": 3, "pixel": 0}.get(net)
    if num_layers is None:
        num_layers = layers.options("PatchGAN", kwargs, ("n_layers_D",))["n_layers_D"]
        if num_layers < 1:
            raise UserError(f"n_layers_D={num_layers}: a PatchGAN has at least one; see netD=pixel")
    return PatchGAN(num_layers=num_layers, **given)


def _names(module: PatchGAN) -> dict[str, str]:
    """Path of each layer -> the authors' name, a place in one list: conv, (norm,) activation, ..."""
    prefix = "model" if module.num_layers else "net"
    names = {"conv1": f"{prefix}.0"}
    for index in range(2, max(module.num_layers, 1) + 3):
        at = 3 * index - 4
        names |= {f"conv{index}": f"{prefix}.{at}", f"conv{index}_norm": f"{prefix}.{at + 1}"}
    return names


def from_state_dict(kwargs: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> layers.Loaded:
    """PatchGAN from the authors' options (as in `from_kwargs`, and `input_nc`) and state dict.

    `input_nc` is the number of channels that the discriminator sees: 6 for two color pictures.

    Raises:
      UserError: options that are missing or unknown; every array that is missing, left over or of
        another shape.
    """
    module = from_kwargs(kwargs)
    channels = layers.options("PatchGAN", kwargs, ("input_nc",))["input_nc"]
    side = 8 * 2**module.num_layers
    shape = (1, side, side, channels)
    arrays = layers.without_statistics(module.norm, arrays)
    return layers.Loaded(module, layers.read("PatchGAN", module, shape, _names(module), arrays))


def to_state_dict(kwargs: Mapping[str, Any], variables: Mapping) -> dict[str, np.ndarray]:
    """The inverse of `from_state_dict`: arrays with the authors' names and layouts."""
    return layers.write(variables, _names(from_kwargs(kwargs)))
