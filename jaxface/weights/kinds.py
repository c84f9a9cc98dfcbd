"""What a file of weights is, by what is in it: names and suffixes are not asked."""

import hashlib
import os

from jaxface.weights.torch_file import LEGACY_START
from jaxface.weights.unpickle import open_bytes

SNAPSHOT = "NVIDIA snapshot"
TORCH = "torch file"
PICKLE = "pickle"
NPZ = "NumPy archive"
SAFETENSORS = "safetensors"
HDF5 = "HDF5 file"
UNKNOWN = "file of an unknown kind"

_HEAD = 1 << 16  # bytes; a snapshot's first network is named before its source text


def kind_of(path: str | os.PathLike) -> str:
    """One of the names above, for a plain file. Opens the file and judges; the readers verify.

    Raises:
      UserError: no such file, or an empty one.
    """
    data = open_bytes(path)
    head = bytes(data[:_HEAD])
    if head.startswith(b"PK\3\4"):
        tail = bytes(data[-_HEAD:])  # the end of its directory, where the names are
        return TORCH if b"data.pkl" in head + tail or b"/data/" in tail else NPZ
    if head.startswith(LEGACY_START):
        return TORCH
    if b"_reconstruct_persistent_obj" in head:
        return SNAPSHOT
    table = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= table <= len(data) - 8:
        return SAFETENSORS
    if head.startswith(b"\x89HDF"):
        return HDF5
    # Protocol 2 and later say so; the older ones are text and end, like all, with STOP.
    if head[:1] == b"\x80" or (head[:1] in b"(cIFNVSX]}l" and bytes(data[-1:]) == b"."):
        return PICKLE
    return UNKNOWN


def sha256(path: str | os.PathLike) -> str:
    """Of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
