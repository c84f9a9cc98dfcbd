"""NumPy's .npz archives: arrays of numbers and texts, sizes checked before anything is unpacked."""

import io
import math
import os

import numpy as np

from jaxface.errors import UserError
from jaxface.weights.archive import Archive
from jaxface.weights.arrays import empty
from jaxface.weights.unpickle import Budget, open_bytes, shown

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_MAX_HEADER = 10_000  # bytes; NumPy's own limit


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """{name: array} of an archive that `numpy.savez` or `savez_compressed` wrote.

    Raises:
      UnsafeFileError: arrays of objects (they are pickles), archives far larger unpacked than packed,
        damage.
      UserError: no such file, or no archive of arrays.
    """
    data = open_bytes(path)
    budget = Budget(path, len(data))
    if bytes(data[:4]) != b"PK\3\4":
        raise UserError(f"{shown(path, 300)} is no .npz archive.")
    archive = Archive(data, budget, names_are_paths=False)
    if not all(name.endswith(".npy") for name in archive.entries):
        raise UserError(f"{shown(path, 300)} is an archive, but not one of NumPy arrays.")
    return {
        name.removesuffix(".npy"): _array(shown(name), archive.read(name), budget)
        for name in archive.entries
    }


def _array(name: str, data: memoryview, budget: Budget) -> np.ndarray:
    head = io.BytesIO(data[: _MAX_HEADER + 16])
    try:
        version = np.lib.format.read_magic(head)
        shape, fortran, dtype = _HEADERS[version](head, max_header_size=_MAX_HEADER)
    except Exception:  # NumPy parses it as Python's literals, whose errors are of many kinds
        raise budget.refuse(f"{name} has no header of an array") from None
    if dtype.kind not in "biufcU":
        what = "objects, which are pickles" if dtype.hasobject else f"kind {dtype.kind}"
        raise budget.refuse(f"{name} is an array of {what}")
    if math.prod(shape) * dtype.itemsize != len(data) - head.tell() or min(shape, default=0) < 0:
        raise budget.refuse(f"{name} declares another size than it has")
    if not math.prod(shape) * dtype.itemsize:
        return empty(shape, dtype, budget)
    flat = np.frombuffer(data, dtype, offset=head.tell())
    view = flat.reshape(shape, order="F" if fortran else "C")
    return np.array(view, dtype.newbyteorder("="), order="C")
