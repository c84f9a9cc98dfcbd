"""What the readers make of a stream's names: records that become NumPy arrays once all is checked."""

import math
import re
from typing import Any

import ml_dtypes
import numpy as np

from jaxface.weights.unpickle import (
    MAX_DEPTH,
    MAX_NAME,
    MAX_OPCODES,
    Budget,
    Buildable,
    Global,
    hashable,
    shown,
)

_MAX_DIMENSIONS = 32
_MAX_SIDE = 1 << 48


def as_bytes(data: Any, budget: Budget) -> memoryview:
    """Raw data of a pickle: bytes, or the latin-1 text that Python 2 and protocol 2 make of them.

    A text is copied, which is charged: one text can be asked for again and again.
    """
    if type(data) is str:
        budget.take_bytes(len(data))
        return memoryview(data.encode("latin-1"))
    if type(data) is not memoryview:
        raise ValueError(f"raw data that is a {type(data).__name__}")
    return data


def as_shape(shape: Any) -> tuple[int, ...]:
    """A tuple of sizes, offsets or strides."""
    if type(shape) is int:
        shape = (shape,)
    if type(shape) not in (tuple, list) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("a shape that is no short tuple")
    if not all(type(side) is int and 0 <= side <= _MAX_SIDE for side in shape):
        raise ValueError("a shape with sides that are no sizes")
    return tuple(shape)


class DType(Buildable):
    """numpy.dtype(text, align, copy): numbers only, no objects, records or texts."""

    __slots__ = ("dtype",)

    def __init__(self, text: Any, align: Any = False, copy: Any = True):
        if type(text) is not str or not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16)", text):
            raise ValueError(f"arrays of dtype {shown(text, 20)}, which are not numbers")
        self.dtype = np.dtype(text)

    def build(self, state: Any) -> None:
        if type(state) is not tuple or not 5 <= len(state) <= 9 or state[1] not in tuple("<>|="):
            raise ValueError("a dtype with an unknown state")
        if any(part is not None for part in state[2:5]):
            raise ValueError("a dtype with fields")
        if state[1] in "<>":
            self.dtype = self.dtype.newbyteorder(state[1])


class Array(Buildable):
    """A NumPy array of a pickle. `view` is None until its state is read."""

    __slots__ = ("budget", "view")

    def __init__(self, budget: Budget, view: np.ndarray | None = None):
        self.budget, self.view = budget, view

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5 or type(state[2]) is not DType:
            raise ValueError("an array with an unknown state")
        _, shape, dtype, fortran, data = state
        data = as_bytes(data, self.budget)
        self.view = _view(data, dtype, as_shape(shape), "F" if fortran else "C")


def _view(data: memoryview, dtype: DType, shape: tuple[int, ...], order: str) -> np.ndarray:
    if type(dtype) is not DType:
        raise ValueError("an array without a dtype")
    needed = math.prod(shape) * dtype.dtype.itemsize
    if needed != len(data):
        raise ValueError(f"an array of {needed:,} bytes in {len(data):,}")
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


def numpy_globals(budget: Budget) -> dict:
    """The names in pickles of containers and NumPy arrays, old and new."""

    def reconstruct(kind: Any, shape: Any, code: Any) -> Array:
        if type(kind) is not Global or kind.name != "numpy.ndarray":
            raise ValueError("an array of a class of its own")
        return Array(budget)

    def frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
        if order not in ("C", "F"):
            raise ValueError("an array in an unknown order")
        return Array(budget, _view(as_bytes(data, budget), dtype, as_shape(shape), order))

    def scalar(dtype: Any, data: Any) -> Any:
        return _view(as_bytes(data, budget), dtype, (), "C").item()

    def ordered(pairs: Any = ()) -> dict:
        if type(pairs) not in (list, tuple):
            raise ValueError("an OrderedDict of no list")
        budget.take_opcodes(len(pairs))
        result: dict = {}
        for pair in pairs:
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise ValueError("an OrderedDict of no pairs")
            result[hashable(pair[0])] = pair[1]
        return result

    def encode(text: Any, encoding: Any = "latin1") -> memoryview:
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise ValueError("bytes in an unknown encoding")
        return as_bytes(text, budget)

    names = {
        ("collections", "OrderedDict"): ordered,
        ("_codecs", "encode"): encode,
        ("__builtin__", "bytes"): lambda: memoryview(b""),  # how old protocols say b""
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): DType,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = reconstruct
        names[f"{core}.multiarray", "scalar"] = scalar
        names[f"{core}.numeric", "_frombuffer"] = frombuffer
    return names


# ---- tensors ----------------------------------------------------------------------------------

DTYPES = {  # names as torch.float32, and the storages that hold them
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
    "complex64": np.complex64,
    "complex128": np.complex128,
}
STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}


def empty(shape: tuple[int, ...], dtype: np.dtype, budget: Budget) -> np.ndarray:
    """An array without numbers, of sides that NumPy can have."""
    if len(shape) > _MAX_DIMENSIONS or math.prod(max(side, 1) for side in shape) > _MAX_SIDE:
        raise budget.refuse("an empty array of sides beyond all measure")
    return np.zeros(shape, dtype)


class Storage:
    """`numel` numbers of one type, whose bytes are set when the reader has found them."""

    __slots__ = ("bytes", "dtype", "numel")

    def __init__(self, dtype: np.dtype, numel: int):
        self.dtype, self.numel, self.bytes = np.dtype(dtype), numel, None


class Tensor:
    """A strided view of a storage, not made before its storage is there."""

    __slots__ = ("dtype", "offset", "shape", "storage", "strides")

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any, dtype: Any = None):
        if type(storage) is not Storage or type(offset) is not int:
            raise ValueError("a tensor without a storage")
        self.storage, self.offset = storage, as_shape(offset)[0]
        self.shape, self.strides = as_shape(shape), as_shape(strides)
        self.dtype = storage.dtype if dtype is None else dtype
        if len(self.shape) != len(self.strides):
            raise ValueError("a tensor with as many strides as no shape has")

    def view(self, budget: Budget) -> np.ndarray:
        if self.storage.bytes is None:
            raise budget.refuse("truncated: the numbers of a tensor are missing")
        held = len(self.storage.bytes) // self.dtype.itemsize
        needed = math.prod(self.shape)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides)) + 1
        if needed and (last > held or needed > held):
            raise budget.refuse(
                f"a tensor of {max(last, needed):,} numbers in a storage of {held:,}"
            )
        if not needed:
            return empty(self.shape, self.dtype, budget)
        flat = np.frombuffer(self.storage.bytes, self.dtype, held)[self.offset :]
        strides = [stride * self.dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False)


class Collector:
    """Turns records into arrays of their own, C order and native bytes, bfloat16 as float32.

    What two names share is made once, and every array is charged to the budget before it is made.
    """

    def __init__(self, budget: Budget):
        self.budget = budget
        self._made: dict[str, np.ndarray] = {}

    def __call__(self, record: Tensor | Array) -> np.ndarray:
        if type(record) is Tensor:
            # As text, whose hash is salted: the numbers are the file's.
            where = (id(record.storage), record.offset, record.shape, record.strides, record.dtype)
            key = repr(where)
        else:
            key = str(id(record))
        if key not in self._made:
            view = record.view(self.budget) if type(record) is Tensor else record.view
            if view is None:
                raise self.budget.refuse("an array without numbers")
            wide = np.float32 if view.dtype == ml_dtypes.bfloat16 else view.dtype.type
            self.budget.take_bytes(view.size * np.dtype(wide).itemsize)
            self._made[key] = np.array(view, wide, order="C")
        return self._made[key]


def named_arrays(value: Any, budget: Budget) -> dict[str, np.ndarray]:
    """{names joined by dots: array} of every tensor and array in dictionaries and lists.

    Raises:
      UnsafeFileError: nested too deeply, endless, or names beyond all measure.
    """
    collect = Collector(budget)
    arrays: dict[str, np.ndarray] = {}
    visits = 0

    def visit(name: str, value: Any, depth: int) -> None:
        nonlocal visits
        visits += 1
        if depth > MAX_DEPTH or visits > MAX_OPCODES:
            raise budget.refuse("nested without end")
        if type(value) in (Tensor, Array):
            if len(name) > MAX_NAME:
                raise budget.refuse(f"an array whose name has {len(name):,} characters")
            if name in arrays:
                raise budget.refuse(f"two arrays are named {shown(name)}")
            arrays[name] = collect(value)
        elif type(value) in (dict, list, tuple):
            items = value.items() if type(value) is dict else enumerate(value)
            for key, part in items:
                key = key if type(key) is str else str(key)
                if len(name) + len(key) > MAX_NAME:
                    raise budget.refuse("a name beyond all measure")
                visit(f"{name}.{key}" if name else key, part, depth + 1)

    visit("", value, 0)
    return arrays
