"""The numbers in a TFLite model, without TensorFlow: a flatbuffer read by the offsets in it.

Layout of https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/schema/schema.fbs:
Model {.., subgraphs: 2, .., buffers: 4}, SubGraph {tensors: 0, ..}, Tensor {shape: 0, type: 1,
buffer: 2, ..}, Buffer {data: 0}.
"""

import math
import struct

import numpy as np

_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 6: "?", 7: "<i2", 9: "i1"}
_MAX_TENSORS = 100_000


def read_tflite(data: bytes) -> dict[str, np.ndarray]:
    """{number of the tensor in the first subgraph: array} of every tensor that has data.

    Raises:
      ValueError: no TFLite model, or one that is damaged.
    """
    try:
        if data[4:8] != b"TFL3":
            raise ValueError("no TFLite model")
        model = _follow(data, 0)
        buffers = _vector(data, model, 4)
        tensors = _vector(data, _vector(data, model, 2)[0], 0)
        arrays = {}
        for number, tensor in enumerate(tensors):
            buffer = buffers[_scalar(data, tensor, 2, "<I")]
            start, size = _span(data, buffer, 0)
            if not size:
                continue
            shape_start, sides = _span(data, tensor, 0)
            shape = struct.unpack_from(f"<{sides}i", data, shape_start)
            dtype = np.dtype(_DTYPES[_scalar(data, tensor, 1, "<b")])
            if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != size:
                raise ValueError(f"tensor {number} has another size than its shape")
            arrays[str(number)] = np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape)
        return arrays
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError(f"a damaged TFLite model ({error})") from None


def _follow(data: bytes, at: int) -> int:
    """Where the offset at `at` points."""
    return at + struct.unpack_from("<I", data, at)[0]


def _field(data: bytes, table: int, number: int) -> int | None:
    """Place of a field in a table, None where it has its default."""
    entries = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, entries)[0]
    if 4 + 2 * number >= size:
        return None
    offset = struct.unpack_from("<H", data, entries + 4 + 2 * number)[0]
    return table + offset if offset else None


def _scalar(data: bytes, table: int, number: int, layout: str) -> int:
    at = _field(data, table, number)
    return 0 if at is None else struct.unpack_from(layout, data, at)[0]


def _span(data: bytes, table: int, number: int) -> tuple[int, int]:
    """(start, length) of a vector; (0, 0) where there is none."""
    at = _field(data, table, number)
    if at is None:
        return 0, 0
    at = _follow(data, at)
    return at + 4, struct.unpack_from("<I", data, at)[0]


def _vector(data: bytes, table: int, number: int) -> list[int]:
    """Places of the tables in a vector."""
    start, length = _span(data, table, number)
    if length > _MAX_TENSORS:
        raise ValueError(f"a TFLite model of {length:,} parts")
    return [_follow(data, start + 4 * i) for i in range(length)]
