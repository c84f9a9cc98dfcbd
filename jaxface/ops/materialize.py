"""An array that is computed once: what XLA on CPU would otherwise compute anew in each op that reads it.

XLA fuses cheap ops into all that use them. Where a user reads in another order, as the transposition in front
of a convolution does, or reads each number many times, as a filter does, that costs more than it saves: in a
step of StyleGAN3 the transposition before a kernel gradient of 84 px and 64 channels takes 11.7 ms with the
filter that made the image inside it, 2 ms from an image that is there (jaxlib 0.10.2, 2 CPU cores).
`jax.lax.optimization_barrier` does not help, since XLA on CPU takes barriers out before it fuses. A
`reduce_window` is never fused with what made its operand: the largest of a number and nothing is that number.
"""

import jax
import jax.numpy as jnp

from jaxface.ops.here import for_cpu

_LARGE = 2**16  # numbers; fewer stay in cache, and one op more takes longer to start


def materialize(x: jax.Array) -> jax.Array:
    """The same numbers, bit for bit, as is its gradient; on accelerators nothing at all.

    Any shape, floating or integer. The cotangent is not materialized.
    """
    return _materialize(x) if for_cpu(x.shape) and x.size >= _LARGE else x


@jax.custom_vjp
def _materialize(x):
    rows = x.reshape(-1, 1, x.shape[-1])
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    lowest = jnp.array(-jnp.inf if floating else jnp.iinfo(x.dtype).min, x.dtype)
    # A window of two rows, of which the second is outside: XLA takes windows of one away.
    same = jax.lax.reduce_window(
        rows, lowest, jax.lax.max, (1, 2, 1), (1, 1, 1), ((0, 0), (0, 1), (0, 0))
    )
    return same.reshape(x.shape)


_materialize.defvjp(lambda x: (_materialize(x), None), lambda _, g: (g,))
