"""pix2pix's U-Net generator (Isola et al. 2017, arXiv 1611.07004, section 3.2.1 and appendix 6.1).

Weights are read and written with the names and layouts of the authors' PyTorch code, by which this
file also goes where it differs from the paper: the innermost block has no dropout, the three (or, at
128 px, two) blocks around it may have.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxface.errors import UserError
from jaxface.models import layers

LEVELS = {"unet_128": 7, "unet_256": 8}  # times that the picture is halved


class UNet(nn.Module):
    """[N, H, W, input channels] in [-1, 1] -> [N, H, W, output_nc] in [-1, 1].

    H and W are multiples of 2^levels (128 for `unet_128`, 256 for `unet_256`).
    """

    output_nc: int = 3
    levels: int = 8
    ngf: int = 64  # filters of the outermost level
    norm: str = "batch"  # or "instance"
    use_dropout: bool = False
    dtype: Any = None  # of the convolutions; None is that of input and parameters
    init_type: str = "normal"  # or "kaiming": what is fine reaches the result from the first step

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        axis: str | None = None,
        example: jax.Array | None = None,
    ) -> jax.Array:
        """With `train`, batch normalisation takes the batch's statistics and dropout is on.

        `example`: int [N], numbers by which dropout tells examples apart (`layers.Dropout`).
        """
        side = 2**self.levels
        if x.shape[1] % side or x.shape[2] % side:
            raise ValueError(f"sides of {x.shape[1]} x {x.shape[2]} are not multiples of {side}")
        # A shift in front of batch normalisation would be taken out again; instance normalisation
        # takes it out as well, but there the authors keep it.
        use_bias = self.norm == "instance"

        def normalize(x, name):
            return layers.normalize(self.norm, x, train, axis, name=f"{name}_norm")

        init, init_up = layers.INITS[self.init_type]
        widths = [self.ngf * min(2**level, 8) for level in range(self.levels)]
        skips = []
        for level, width in enumerate(widths):
            name = f"down{level + 1}"
            if level:
                skips.append(x)
                x = nn.leaky_relu(x, 0.2)
            x = layers.Conv(
                width,
                (4, 4),
                2,
                1,
                use_bias=use_bias,
                kernel_init=init,
                dtype=self.dtype,
                name=name,
            )(x)
            if 0 < level < self.levels - 1:
                x = normalize(x, name)
        for level in reversed(range(self.levels)):
            name = f"up{level + 1}"
            width = widths[level - 1] if level else self.output_nc
            up = layers.Double(width, 4, use_bias or level == 0, self.dtype, init_up, name=name)
            x = up(nn.relu(x))
            if level:
                x = normalize(x, name)
                if self.use_dropout and 4 <= level < self.levels - 1:
                    x = layers.Dropout(0.5)(x, train, example)
                x = jnp.concatenate([skips[level - 1], x], -1)
        return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


def from_kwargs(kwargs: Mapping[str, Any]) -> UNet:
    """The module of the authors' options.

    Args:
      kwargs: `netG` (unet_128 or unet_256), `output_nc`, `ngf`, `norm` (batch or instance) and, if
        it is there, `no_dropout`; their other options do not concern the network.

    Raises:
      UserError: an option that is missing or names no U-Net.
    """
    given = layers.options("U-Net", kwargs, ("netG", "output_nc", "ngf", "norm"))
    net = given.pop("netG")
    if net not in LEVELS:
        raise UserError(f"netG={net!r} is no U-Net; known: {', '.join(LEVELS)}")
    layers.check_norm(given["norm"])
    return UNet(levels=LEVELS[net], use_dropout=not kwargs.get("no_dropout", True), **given)


def _names(module: UNet) -> dict[str, str]:
    """Path of each layer -> the authors' name: every level is nested in the one around it."""
    names = {"down1": "model.model.0", "up1": "model.model.3"}
    prefix = "model.model.1.model"
    for level in range(2, module.levels + 1):
        up = (
            3 if level == module.levels else 5
        )  # no normalisation and no further level in the middle
        names |= {
            f"down{level}": f"{prefix}.1",
            f"down{level}_norm": f"{prefix}.2",
            f"up{level}": f"{prefix}.{up}",
            f"up{level}_norm": f"{prefix}.{up + 1}",
        }
        prefix += ".3.model"
    return names


def from_state_dict(kwargs: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> layers.Loaded:
    """U-Net from the authors' options (as in `from_kwargs`, and `input_nc`) and state dict.

    Raises:
      UserError: options that are missing or unknown; every array that is missing, left over or of
        another shape.
    """
    module = from_kwargs(kwargs)
    channels = layers.options("U-Net", kwargs, ("input_nc",))["input_nc"]
    shape = (1, 2**module.levels, 2**module.levels, channels)
    arrays = layers.without_statistics(module.norm, arrays)
    return layers.Loaded(module, layers.read("U-Net", module, shape, _names(module), arrays))


def to_state_dict(kwargs: Mapping[str, Any], variables: Mapping) -> dict[str, np.ndarray]:
    """The inverse of `from_state_dict`: arrays with the authors' names and layouts."""
    return layers.write(variables, _names(from_kwargs(kwargs)))
