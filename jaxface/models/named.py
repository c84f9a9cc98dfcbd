"""Named arrays of a file, taken one by one; whatever does not fit is told all at once.

For networks whose layers change on the way in: batch normalization and scales that are folded into
convolutions, or names from more than one source.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxface.errors import UserError


class NamedArrays:
    """A state dict to take from, which remembers what was missing, misshapen and left.

    Args:
      what: the network's name, for the message.
      arrays: {name: array}, as in the source.
      unused: which names are known and not needed.
    """

    def __init__(
        self,
        what: str,
        arrays: Mapping[str, np.ndarray],
        unused: Callable[[str], bool] = lambda name: False,
    ):
        self.what, self.arrays = what, arrays
        self.left = {name for name in arrays if not unused(name)}
        self.wrong: list[str] = []

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The array of a name, float64; ones where it does not fit, which `close` will tell."""
        self.left.discard(name)
        if name not in self.arrays:
            self.wrong.append(f"{name}: missing")
        elif np.shape(self.arrays[name]) != shape:
            given = tuple(np.shape(self.arrays[name]))
            self.wrong.append(f"{name}: has shape {given}, wanted {shape}")
        else:
            return np.asarray(self.arrays[name], np.float64)
        return np.ones(shape)

    def folded(self, kernel: np.ndarray, norm: str, epsilon: float) -> dict[str, jax.Array]:
        """A kernel [..., out] and the batch normalization of PyTorch after it, as one layer.

        (conv(x) - mean) / sqrt(variance + epsilon) * scale + shift = conv'(x) + bias
        """
        scale, shift, mean, variance = (
            self.take(f"{norm}.{part}", kernel.shape[-1:])
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / np.sqrt(variance + epsilon)
        return {
            "kernel": jnp.asarray(kernel * scale, jnp.float32),
            "bias": jnp.asarray(shift - mean * scale, jnp.float32),
        }

    def close(self) -> None:
        """Raises UserError that names every array that is missing, misshapen or left over."""
        wrong = self.wrong + [f"{name}: not in this network" for name in sorted(self.left)]
        if wrong:
            raise UserError(f"these weights are not {self.what}'s:\n  " + "\n  ".join(wrong))
