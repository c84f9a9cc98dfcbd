"""CycleGAN's residual generator (Zhu et al. 2017, arXiv 1703.10593, appendix 7.2).

After Johnson et al. 2016 (arXiv 1603.08155): two halvings, 6 or 9 residual blocks, two doublings,
borders by reflection. Names and layouts of weights are those of the authors' PyTorch code.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxface.errors import UserError
from jaxface.models import layers

BLOCKS = {"resnet_6blocks": 6, "resnet_9blocks": 9}


def _reflect(x: jax.Array, width: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0)), "reflect")


class Translator(nn.Module):
    """[N, H, W, input channels] in [-1, 1] -> [N, H, W, output_nc] in [-1, 1].

    H and W are multiples of 4 and at least 8.
    """

    output_nc: int = 3
    num_blocks: int = 9
    ngf: int = 64  # filters at full resolution
    norm: str = "instance"  # or "batch"
    use_dropout: bool = False
    dtype: Any = None  # of the convolutions; None is that of input and parameters

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
        if x.shape[1] % 4 or x.shape[2] % 4 or min(x.shape[1:3]) < 8:
            raise ValueError(f"{x.shape[1]} x {x.shape[2]} pixels: not multiples of 4, at least 8")
        use_bias = self.norm == "instance"  # batch normalisation would take it out again
        conv = functools.partial(layers.Conv, kernel_init=layers.normal_init, dtype=self.dtype)

        def normalize(x, name):
            return layers.normalize(self.norm, x, train, axis, name=f"{name}_norm")

        x = conv(self.ngf, (7, 7), 1, "VALID", use_bias=use_bias, name="first")(_reflect(x, 3))
        x = nn.relu(normalize(x, "first"))
        for name, width in (("down1", 2 * self.ngf), ("down2", 4 * self.ngf)):
            x = conv(width, (3, 3), 2, 1, use_bias=use_bias, name=name)(x)
            x = nn.relu(normalize(x, name))
        for block in range(1, self.num_blocks + 1):
            y = x
            for name in (f"block{block}_conv1", f"block{block}_conv2"):
                y = conv(x.shape[-1], (3, 3), 1, "VALID", use_bias=use_bias, name=name)(
                    _reflect(y, 1)
                )
                y = normalize(y, name)
                if name.endswith("1"):
                    y = nn.relu(y)
                    if self.use_dropout:
                        y = layers.Dropout(0.5)(y, train, example)
            x = x + y
        for name, width in (("up1", 2 * self.ngf), ("up2", self.ngf)):
            x = layers.Double(width, 3, use_bias, self.dtype, name=name)(x)
            x = nn.relu(normalize(x, name))
        x = conv(self.output_nc, (7, 7), 1, "VALID", name="last")(_reflect(x, 3))
        return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


def from_kwargs(kwargs: Mapping[str, Any]) -> Translator:
    """The module of the authors' options.

    Args:
      kwargs: `netG` (resnet_6blocks or resnet_9blocks), `output_nc`, `ngf`, `norm` (batch or
        instance) and, if it is there, `no_dropout`; their other options do not concern the network.

    Raises:
      UserError: an option that is missing or names no residual generator.
    """
    given = layers.options("translator", kwargs, ("netG", "output_nc", "ngf", "norm"))
    net = given.pop("netG")
    if net not in BLOCKS:
        raise UserError(f"netG={net!r} is no residual generator; known: {', '.join(BLOCKS)}")
    layers.check_norm(given["norm"])
    dropout = not kwargs.get("no_dropout", True)
    return Translator(num_blocks=BLOCKS[net], use_dropout=dropout, **given)


def _names(module: Translator) -> dict[str, str]:
    """Path of each layer -> the authors' name, a place in one list with the blocks in its middle."""
    after = 10 + module.num_blocks
    names = {"first": 1, "down1": 4, "down2": 7, "up1": after, "up2": after + 3, "last": after + 7}
    names = {layer: f"model.{at}" for layer, at in names.items()}
    names |= {f"{layer}_norm": f"model.{at + 1}" for layer, at in
              (("first", 1), ("down1", 4), ("down2", 7), ("up1", after), ("up2", after + 3))}  # fmt: skip
    second = 6 if module.use_dropout else 5  # dropout takes a place
    for block in range(1, module.num_blocks + 1):
        prefix = f"model.{9 + block}.conv_block"
        for name, at in (("conv1", 1), ("conv2", second)):
            names[f"block{block}_{name}"] = f"{prefix}.{at}"
            names[f"block{block}_{name}_norm"] = f"{prefix}.{at + 1}"
    return names


def from_state_dict(kwargs: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> layers.Loaded:
    """Translator from the authors' options (as in `from_kwargs`, and `input_nc`) and state dict.

    Raises:
      UserError: options that are missing or unknown; every array that is missing, left over or of
        another shape.
    """
    module = from_kwargs(kwargs)
    channels = layers.options("translator", kwargs, ("input_nc",))["input_nc"]
    shape = (1, 32, 32, channels)
    arrays = layers.without_statistics(module.norm, arrays)
    return layers.Loaded(module, layers.read("translator", module, shape, _names(module), arrays))


def to_state_dict(kwargs: Mapping[str, Any], variables: Mapping) -> dict[str, np.ndarray]:
    """The inverse of `from_state_dict`: arrays with the authors' names and layouts."""
    return layers.write(variables, _names(from_kwargs(kwargs)))
