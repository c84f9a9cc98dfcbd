"""Our export and others' safetensors files; NumPy archives."""

import io
import json
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxface.errors import UserError
from jaxface.weights import UnsafeFileError, export_safetensors, read_npz, read_safetensors

RNG = np.random.default_rng(0)
TREE = {
    "params": {
        "a": {"weight": RNG.normal(size=(3, 2)).astype(np.float32), "bias": np.float16([1])}
    },
    "fortran": np.asfortranarray(RNG.normal(size=(4, 3))),
    "scalar": np.array(2.5, np.float32),
    "step": np.array(7, np.int32),
}
ABOUT = {"run": {"experiment": "cleftgan"}, "note": "größe"}


def test_export_and_back(tmp_path):
    path = tmp_path / "deep" / "net.safetensors"
    beside = export_safetensors(path, TREE, ABOUT)
    arrays, about = read_safetensors(path)
    assert about == ABOUT
    assert set(arrays) == {"params/a/weight", "params/a/bias", "fortran", "scalar", "step"}
    for name, wanted in (("params/a/weight", TREE["params"]["a"]["weight"]), *TREE.items()):
        if name != "params":
            assert arrays[name].dtype == wanted.dtype and arrays[name].shape == wanted.shape
            np.testing.assert_array_equal(arrays[name], wanted, name)
    content = json.loads(beside.read_text())
    assert content["about"] == ABOUT and content["file"] == "net.safetensors"
    assert content["arrays"]["params/a/bias"] == {"shape": [1], "dtype": "float16"}
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.json", "net.safetensors"]
    beside.unlink()  # the export says of itself what it is
    assert read_safetensors(path)[1] == ABOUT


def test_an_export_that_is_not_the_described_one_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    export_safetensors(path, TREE, ABOUT)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnsafeFileError, match="not the file that net.json describes"):
        read_safetensors(path)


def test_files_of_other_programs(tmp_path):
    held = np.array([1 / 3, -1e30], ml_dtypes.bfloat16)
    path = tmp_path / "x.bin"
    safetensors.numpy.save_file({"a": held}, path, {"format": "pt"})
    (tmp_path / "x.json").write_text("{}")
    arrays, about = read_safetensors(path)
    assert about == {} and arrays["a"].dtype == np.float32
    np.testing.assert_array_equal(arrays["a"], held.astype(np.float32))


def test_what_cannot_be_exported(tmp_path):
    with pytest.raises(UserError, match="named"):
        export_safetensors(tmp_path / "net.bin", TREE, {})
    with pytest.raises(UserError, match="no array"):
        export_safetensors(tmp_path / "net.safetensors", {}, {})
    with pytest.raises(ValueError):
        export_safetensors(tmp_path / "net.safetensors", TREE, {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def table(content, data=b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"\x05",
        b"\xff" * 8 + b"{}",
        (1 << 40).to_bytes(8, "little") + b"{}",
        table(b'{"a":'),
        table(b"[" * 100_000),
        table(
            {"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}, b"1234"
        ),
        table({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
        table({"__metadata__": {"format": "jaxface 1", "about": "[" * 100_000}}),
        table({"__metadata__": {"format": "jaxface 1", "about": "3"}}),
    ],
    ids=["short", "long", "huge", "cut", "deep", "overflow", "truncated", "deep about", "about"],
)
def test_damaged_tables_are_refused_in_a_line(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(UnsafeFileError) as error:
        read_safetensors(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700


# ---- .npz ---------------------------------------------------------------------------------------


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def test_npz_reads_what_numpy_writes(tmp_path):
    arrays = {
        "a/b": RNG.normal(size=(2, 3)),
        "fortran": np.asfortranarray(RNG.normal(size=(4, 3))),
        "text": np.array("größe"),
        "big": np.arange(3, dtype=">i2"),
        "none": np.zeros((0, 4)),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        read = read_npz(tmp_path / "a.npz")
        assert read.keys() == arrays.keys()
        for name, wanted in arrays.items():
            assert read[name].shape == wanted.shape
            np.testing.assert_array_equal(read[name], wanted, name)


def objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([print], object), allow_pickle=bool(1))
    return file.getvalue()


@pytest.mark.parametrize(
    "data,words",
    [
        (objects(), "objects, which are pickles"),
        (
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"),
            "another size",
        ),
        (
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}", b"12345678"),
            "another",
        ),
        (npy("{'descr': '|V8', 'fortran_order': False, 'shape': (1,)}", b"12345678"), "kind V"),
        (npy("(" * 5000), "no header"),
        (npy("__import__('os').system('true')"), "no header"),
        (npy("{'descr': 'O', 'fortran_order': False, 'shape': (1,)}"), "objects"),
        (pickle.dumps([1]), "no header"),
        (b"", "no header"),
    ],
    ids=lambda x: x[:20] if isinstance(x, str) else "",
)
def test_npz_that_is_no_array_of_numbers(tmp_path, data, words):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("a.npy", data)
    with pytest.raises(UnsafeFileError, match=words):
        read_npz(tmp_path / "a.npz")


def test_npz_bomb(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (99,)}"))
        file.writestr("b.npy", bytes(200 << 20))
    assert (tmp_path / "a.npz").stat().st_size < 1 << 20
    with pytest.raises(UnsafeFileError, match="unpacks to 209,715"):
        read_npz(tmp_path / "a.npz")
