"""What a program that is being traced should be written for."""

import jax

_in_few_ops = False


def write_few_ops() -> None:
    """Programs are written in few ops from here on, not in those that are fastest; call before one is traced.

    For runs that end before a fast program would have been traced and compiled.
    """
    global _in_few_ops
    _in_few_ops = True


def in_few_ops() -> bool:
    """Whether `write_few_ops` was called."""
    return _in_few_ops


def for_cpu(shape) -> bool:
    """Whether what works on arrays of this shape should be written for this machine's CPU.

    Not in a program that is exported, for batches of any size and machines of any kind.
    """
    whole = all(isinstance(size, int) for size in shape)
    return jax.default_backend() == "cpu" and whole and not _in_few_ops
