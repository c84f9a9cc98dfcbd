"""An AlexNet-like discriminator: one score for a whole patch (UV-photo Net).

Kojima et al. 2021 (10.1038/s41598-020-79995-4) call theirs AlexNet-like and print no layers that we could
read. This is AlexNet's feature stack (Krizhevsky et al. 2012; widths of arXiv 1404.5997) with leaky
ReLUs and a smaller head: a default of ours, not the paper's. A conditional discriminator sees source and
result side by side as channels.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxface.models import layers
from jaxface.ops.max_pool import max_pool

# (width in units of ndf, side of the kernel, stride, padding, 3 px maximum of every second pixel before it)
LAYERS = ((1, 11, 4, 2, False), (3, 5, 1, 2, True), (6, 3, 1, 1, True), (4, 3, 1, 1, False),
          (4, 3, 1, 1, False))  # fmt: skip


class AlexNetD(nn.Module):
    """[N, H, W, channels] in [-1, 1], 63 px a side at least -> scores [N, 1], without sigmoid."""

    ndf: int = 64  # filters of the first layer
    norm: str = "batch"  # or "instance"; the first layer has none
    hidden: int = 1024  # of the head
    dropout: float = 0.5  # of the head, while training
    dtype: Any = None  # of the convolutions; None is that of input and parameters

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        axis: str | None = None,
        example: jax.Array | None = None,
    ) -> jax.Array:
        """With `train`, batch normalisation takes the batch's statistics and dropout is on."""
        for index, (width, side, stride, padding, pool) in enumerate(LAYERS):
            name = f"conv{index + 1}"
            if pool:
                x = max_pool(x, 3, 2)
            x = layers.Conv(
                width * self.ndf,
                (side, side),
                stride,
                padding,
                use_bias=index == 0 or self.norm == "instance",
                kernel_init=layers.normal_init,
                dtype=self.dtype,
                name=name,
            )(x)
            if index:
                x = layers.normalize(self.norm, x, train, axis, name=f"{name}_norm")
            x = nn.leaky_relu(x, 0.2)
        x = max_pool(x, 3, 2).reshape(x.shape[0], -1)
        dense = lambda n, name: nn.Dense(
            n, kernel_init=layers.normal_init, dtype=self.dtype, name=name
        )
        x = nn.leaky_relu(dense(self.hidden, "hidden")(x), 0.2)
        x = layers.Dropout(self.dropout)(x, train, example)
        x = dense(1, "score")(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
