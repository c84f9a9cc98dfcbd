"""Readers of foreign weights that run nothing of the file, our own export, and what is fetched."""

from jaxface.weights.nvidia import Snapshot, read_nvidia_snapshot
from jaxface.weights.torch_file import read_torch
from jaxface.weights.unpickle import UnsafeFileError

__all__ = ["Snapshot", "UnsafeFileError", "read_nvidia_snapshot", "read_torch"]
