"""Readers of foreign weights that run nothing of the file, our own export, and what is fetched."""

from jaxface.weights.fetch import fetched
from jaxface.weights.npz import read_npz
from jaxface.weights.nvidia import Snapshot, read_nvidia_snapshot
from jaxface.weights.safetensors_file import export_safetensors, read_safetensors
from jaxface.weights.torch_file import read_torch
from jaxface.weights.unpickle import UnsafeFileError

__all__ = [
    "Snapshot",
    "UnsafeFileError",
    "export_safetensors",
    "fetched",
    "read_npz",
    "read_nvidia_snapshot",
    "read_safetensors",
    "read_torch",
]
