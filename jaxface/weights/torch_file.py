"""Files of torch.save (.pth, .pt, .bin), without torch: zip archives, the format before them, pickles."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxface.errors import UserError
from jaxface.weights.archive import Archive
from jaxface.weights.arrays import (
    DTYPES,
    STORAGES,
    Array,
    Storage,
    Tensor,
    as_bytes,
    as_shape,
    named_arrays,
    numpy_globals,
)
from jaxface.weights.unpickle import Budget, Global, Machine, hashable, open_bytes, shown

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before archives
LEGACY_START = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little") + b"."
WRAPPERS = ("state_dict", "model_state_dict", "model", "params_ema", "params", "net", "weights")


def read_torch(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Every array of a file of weights, with the names and layouts it has there.

    Reads archives (torch 1.6 and later), the format before them, and plain pickles of tensors or NumPy
    arrays; nothing of the file runs. bfloat16 is widened to float32, exactly; the other types stay.
    Names inside dictionaries and lists are joined by dots ("optimizer.state.0.exp_avg"). Where the
    weights are one dictionary in another of scalars and states ({"state_dict": ...}, "model", ...),
    only it is returned, under its own names. Tensors that share memory share an array.

    Raises:
      UnsafeFileError: a global or opcode that no weights need, named; sizes that the file does not hold.
      UserError: no such file, or no array in it.
    """
    return _read(open_bytes(path), path)


def read_torch_bytes(data: bytes, what: str = "the file") -> dict[str, np.ndarray]:
    """`read_torch` of a file in memory, called `what` in errors."""
    return _read(memoryview(data), what)


def _read(data: memoryview, path: str | os.PathLike) -> dict[str, np.ndarray]:
    budget = Budget(path, len(data))
    if bytes(data[:4]) == b"PK\3\4":
        value = _read_archive(Archive(data, budget), budget)
    else:
        value = _read_stream(data, budget)
    return _unwrapped(value, budget)


def _unwrapped(value: Any, budget: Budget) -> dict[str, np.ndarray]:
    if type(value) in (Tensor, Array):
        value = {"tensor": value}
    if type(value) is dict and not any(type(part) in (Tensor, Array) for part in value.values()):
        for key in WRAPPERS:
            inner = value.get(key)
            if type(inner) is dict and any(type(p) in (Tensor, Array) for p in inner.values()):
                value = inner
                break
    arrays = named_arrays(value, budget)
    if not arrays:
        raise UserError(f"{shown(budget.path, 300)} holds no array.")
    return arrays


# ---- names --------------------------------------------------------------------------------------


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    return Tensor(storage, offset, shape, strides)


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    if type(dtype) is not Global or dtype.name.removeprefix("torch.") not in DTYPES:
        raise ValueError("a tensor of an unknown dtype")
    return Tensor(storage, offset, shape, strides, np.dtype(DTYPES[dtype.name[6:]]))


def _parameter(tensor: Any, *_: Any) -> Tensor:
    if type(tensor) is not Tensor:
        raise ValueError("a parameter without a tensor")
    return tensor


def tensor_globals(budget: Budget, nested: bool = False) -> dict:
    """The names in pickles of tensors. `nested`: inside the bytes of a storage, where no more nest."""

    def load_from_bytes(data: Any) -> Storage:
        data = as_bytes(data, budget)
        budget.take_bytes(len(data))
        value = read_legacy(data, budget, tensor_globals(budget, nested=True))
        if type(value) is not Storage:
            raise ValueError("bytes that hold no storage")
        return value

    names = numpy_globals(budget) | {
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch", "Size"): as_shape,
        ("torch", "device"): lambda kind, index=0: None,
        ("torch.storage", "UntypedStorage"): None,
    }
    names |= {("torch", name): None for name in (*STORAGES, *DTYPES)}
    if not nested:
        names["torch.storage", "_load_from_bytes"] = load_from_bytes
    return names


def _declared(identity: Any) -> tuple[Storage, str]:
    """A storage as a persistent id declares it, and its key."""
    if type(identity) is not tuple or len(identity) < 5 or identity[0] != "storage":
        raise ValueError("a persistent id that is no storage")
    _, kind, key, _, numel = identity[:5]
    name = kind.name.rsplit(".")[-1] if type(kind) is Global else None
    if name not in STORAGES or type(key) is not str:
        raise ValueError("a storage of an unknown type")
    return Storage(DTYPES[STORAGES[name]], as_shape(numel)[0]), hashable(key)


# ---- formats ------------------------------------------------------------------------------------


def _read_archive(archive: Archive, budget: Budget) -> Any:
    roots = [n[: -len("data.pkl")] for n in archive.entries if n.endswith("/data.pkl")]
    if len(roots) != 1 or roots[0].count("/") != 1:
        raise UserError(f"{shown(budget.path, 300)} is an archive, but none of torch.save.")
    root = roots[0]
    if f"{root}constants.pkl" in archive.entries:
        raise UserError(
            f"{shown(budget.path, 300)} is a program (TorchScript): save its state dict instead."
        )
    if f"{root}byteorder" in archive.entries and archive.read(f"{root}byteorder") != b"little":
        raise UserError(f"{shown(budget.path, 300)} was written by a big-endian machine.")
    storages: dict[str, Storage] = {}

    def persistent(identity: Any) -> Storage:
        storage, key = _declared(identity)
        if key not in storages:
            storage.bytes = archive.read(f"{root}data/{key}")
            _check_size(budget, len(storage.bytes), storage)
            storages[key] = storage
        if (storages[key].dtype, storages[key].numel) != (storage.dtype, storage.numel):
            raise ValueError("one storage declared twice, differently")
        return storages[key]

    machine = Machine(archive.read(f"{root}data.pkl"), tensor_globals(budget), budget, persistent)
    return machine.load()


def _check_size(budget: Budget, held: int, storage: Storage) -> None:
    if held != storage.numel * storage.dtype.itemsize:
        raise budget.refuse(
            f"a storage of {held:,} bytes is declared as {storage.numel:,} numbers of "
            f"{storage.dtype.itemsize} bytes"
        )


def _read_stream(data: memoryview, budget: Budget) -> Any:
    names = tensor_globals(budget)
    if bytes(data[: len(LEGACY_START)]) == LEGACY_START:
        return read_legacy(data, budget, names)
    machine = Machine(data, names, budget)
    value = machine.load()
    if type(value) is int:
        raise budget.refuse("damaged: no magic number of torch.save")
    return value


def read_legacy(data: memoryview, budget: Budget, names: Mapping) -> Any:
    """Three pickles of greeting, the object, the keys of its storages, then their numbers."""
    storages: dict[str, Storage] = {}

    def persistent(identity: Any) -> Storage:
        storage, key = _declared(identity)
        storage = storages.setdefault(key, storage)
        if len(identity) > 5 and identity[5] is not None:
            raise ValueError("a part of a storage, as torch wrote before 0.4")
        return storage

    machine = Machine(data, names, budget)
    if machine.load() != MAGIC or machine.load() != PROTOCOL:
        raise budget.refuse("damaged: no magic number of torch.save")
    system = machine.load()
    if type(system) is not dict or system.get("little_endian") is not True:
        raise budget.refuse("it was written by a big-endian machine")
    machine.persistent = persistent
    value = machine.load()
    machine.persistent = None
    keys = machine.load()
    if type(keys) is not list or {k for k in keys if type(k) is str} != set(storages):
        raise budget.refuse("damaged: the list of storages is not that of its tensors")
    for key in keys:
        storage = storages[key]
        numel = int.from_bytes(data[machine.at : machine.at + 8], "little")
        size = storage.numel * storage.dtype.itemsize
        if numel != storage.numel:
            raise budget.refuse(
                f"a storage of {numel:,} numbers is declared as {storage.numel:,} numbers"
            )
        storage.bytes = data[machine.at + 8 : machine.at + 8 + size]
        _check_size(budget, len(storage.bytes), storage)
        machine.at += 8 + size
    return value
