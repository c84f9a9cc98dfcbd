"""What a program that is being traced should be written for."""

import contextlib
import contextvars

import jax

_FEW_OPS = contextvars.ContextVar("few_ops", default=False)


@contextlib.contextmanager
def in_few_ops(wanted: bool = True):
    """Says that what is traced inside should be of few ops, not of those that are fastest.

    For runs that end before a fast program would have been traced and compiled.
    """
    token = _FEW_OPS.set(wanted)
    try:
        yield
    finally:
        _FEW_OPS.reset(token)


def few_ops() -> bool:
    """Whether they should be few."""
    return _FEW_OPS.get()


def for_cpu(shape) -> bool:
    """Whether what works on arrays of this shape should be written for this machine's CPU.

    Not in a program that is exported, for batches of any size and machines of any kind.
    """
    whole = all(isinstance(size, int) for size in shape)
    return jax.default_backend() == "cpu" and whole and not few_ops()
