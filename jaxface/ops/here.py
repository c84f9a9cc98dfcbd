"""Where a program that is being traced will run."""

import jax


def on_cpu(shape) -> bool:
    """Whether arrays of this shape belong to a program for this machine's CPU.

    Not those of a program that is exported, for batches of any size and machines of any kind.
    """
    return jax.default_backend() == "cpu" and all(isinstance(size, int) for size in shape)
