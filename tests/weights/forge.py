"""Writes pickles, torch files and snapshots opcode by opcode: good ones without torch, and evil ones."""

import pathlib
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np

STORAGES = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.int32): "IntStorage",
    np.dtype(np.int16): "ShortStorage",
    np.dtype(np.int8): "CharStorage",
    np.dtype(np.uint8): "ByteStorage",
    np.dtype(np.bool_): "BoolStorage",
    np.dtype(np.complex64): "ComplexFloatStorage",
}
MAGIC = 0x1950A86A20F9469CFC6C

# ---- pieces of a pickle: bytes that push one value ----------------------------------------------


def value(plain) -> bytes:
    """A plain Python value."""
    return pickle.dumps(plain, 2)[2:-1]


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def new_name(module: str, attribute: str) -> bytes:
    """The same by STACK_GLOBAL, which lets `attribute` hold dots."""
    return value(module) + value(attribute) + b"\x93"


def row(*pieces: bytes) -> bytes:
    return b"(" + b"".join(pieces) + b"t"


def call(what: bytes, *arguments: bytes) -> bytes:
    return what + row(*arguments) + b"R"


def table(items: dict) -> bytes:
    """{key: piece} -> a dictionary; keys are plain values."""
    return b"}(" + b"".join(value(key) + piece for key, piece in items.items()) + b"u"


def raw(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def whole(piece: bytes) -> bytes:
    return b"\x80\x02" + piece + b"."


# ---- tensors ------------------------------------------------------------------------------------


def storage(kind: str, key: str, numel: int) -> bytes:
    """A storage that lies outside the pickle."""
    return row(value("storage"), name("torch", kind), value(key), value("cpu"), value(numel)) + b"Q"


def tensor(held: bytes, offset: int, shape: tuple, strides: tuple) -> bytes:
    hooks = call(name("collections", "OrderedDict"))
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        *(held, value(offset), value(shape), value(strides), value(False), hooks),
    )


def parameter(piece: bytes) -> bytes:
    hooks = call(name("collections", "OrderedDict"))
    return call(name("torch._utils", "_rebuild_parameter"), piece, value(True), hooks)


def plain_tensor(array: np.ndarray, key: str) -> bytes:
    """A tensor that is the whole of its storage."""
    strides = tuple(s // array.itemsize for s in array.strides)
    return tensor(storage(STORAGES[array.dtype], key, array.size), 0, array.shape, strides)


def write_archive(path: pathlib.Path, piece: bytes, records: dict, extra: dict | None = None):
    """A file of torch 1.6 or later; `records` {key of a storage: bytes}."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", whole(piece))
        file.writestr("archive/byteorder", "little")
        for key, data in records.items():
            file.writestr(f"archive/data/{key}", data)
        file.writestr("archive/version", "3\n")
        for entry, data in (extra or {}).items():
            file.writestr(entry, data)
    return path


def legacy_bytes(piece: bytes, storages: dict) -> bytes:
    """The format before archives; `storages` {key: array}."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}
    greeting = b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, system))
    data = [struct.pack("<q", array.size) + array.tobytes() for array in storages.values()]
    return greeting + whole(piece) + pickle.dumps(list(storages), 2) + b"".join(data)


# ---- snapshots ----------------------------------------------------------------------------------


def embedded_tensor(array: np.ndarray) -> bytes:
    """A tensor whose storage is in the pickle, as a snapshot has it."""
    array = np.array(array, order="C")
    inner = legacy_bytes(storage(STORAGES[array.dtype], "7", array.size), {"7": array})
    held = call(name("torch.storage", "_load_from_bytes"), raw(inner))
    return tensor(held, 0, array.shape, tuple(s // array.itemsize for s in array.strides))


def persistent(class_name: str, state: bytes, source: str = "raise SystemExit") -> bytes:
    meta = {
        "type": value("class"),
        "version": value(6),
        "module_src": value(source),
        "class_name": value(class_name),
        "state": state,
    }
    return call(name("torch_utils.persistence", "_reconstruct_persistent_obj"), table(meta))


def network(class_name: str, kwargs: dict, arrays: dict, source: str = "raise SystemExit") -> bytes:
    """A network of a snapshot from arrays named by dotted paths."""

    def module(arrays: dict, kwargs: dict | None = None) -> bytes:
        own = {k: parameter(embedded_tensor(a)) for k, a in arrays.items() if "." not in k}
        children: dict = {}
        for key, array in arrays.items():
            child, _, rest = key.partition(".")
            if rest:
                children.setdefault(child, {})[rest] = array
        state = {
            "training": value(False),
            "_parameters": table(own),
            "_buffers": table({}),
            "_modules": table({k: module(a) for k, a in children.items()}),
            "_non_persistent_buffers_set": b"\x8f",
        }
        if kwargs is not None:
            easy = name("dnnlib.util", "EasyDict") + b")\x81" + b"("
            easy += b"".join(value(k) + value(v) for k, v in kwargs.items()) + b"u"
            state |= {"_init_args": value(()), "_init_kwargs": easy}
        return persistent(class_name, table(state), source)

    return module(arrays, kwargs)


def snapshot(networks: dict, p: float | None = 0.25, **more: bytes) -> bytes:
    """{"G": piece, ...} -> the bytes of a snapshot."""
    pipe = value(None)
    if p is not None:
        state = {"_buffers": table({"p": embedded_tensor(np.float32([p]).reshape(()))})}
        pipe = persistent("AugmentPipe", table(state))
    beside = {"augment_pipe": pipe, "training_set_kwargs": value({"resolution": 16})}
    return whole(table(networks | beside | more))
