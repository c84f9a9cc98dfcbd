"""A trained system as files for other programs, in a folder that says what each of them is.

networks.safetensors, networks.json   all arrays; `--init_from` reads them back
<function>.stablehlo                  `jax.export`: any batch size, CPU, CUDA and TPU
<function>.onnx                       batches of one size, where jax2onnx is installed
about.json                            arguments, sizes, sha256 of every file, the checkpoint
"""

import hashlib
import importlib.util
import json
import os
import pathlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jaxface.system import Export
from jaxface.weights import export_safetensors

PLATFORMS = ("cpu", "cuda", "tpu")
ONNX_BATCH = 1
# jax2onnx pins an Orbax older than ours, which it needs for nothing that we call.
ONNX_HOW = (
    "pip install --no-deps jax2onnx==0.17.1 dm-pix einops equinox jaxtyping wadler-lindig orbax-export "
    "chex toolz && pip install onnx onnxruntime onnx-ir"
)


def write(folder: pathlib.Path, what: Export, about: Mapping[str, str], say: Callable) -> None:
    """Writes the files of `what` into `folder`; the old ones or the new ones, never half of one.

    Args:
      about: plain texts that go into every description: checkpoint, data, seed.
      say: called with a line for each file, and for what could not be written and why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {"networks.safetensors": {"what": "arrays, read by --init_from"}}
    export_safetensors(folder / "networks.safetensors", what.variables, about)
    say(f"Arrays: {folder / 'networks.safetensors'}")
    for name, (function, arguments) in what.functions.items():
        takes = {argument: ["batch", *shape] for argument, shape in arguments.items()}
        put(folder / f"{name}.stablehlo", stablehlo(function, arguments))
        files[f"{name}.stablehlo"] = {"what": f"jax.export for {', '.join(PLATFORMS)}"} | {
            "arguments": takes
        }
        say(f"StableHLO: {folder / f'{name}.stablehlo'} (any batch; {', '.join(PLATFORMS)})")
        if importlib.util.find_spec("jax2onnx") is None:
            say(f"ONNX: not written, jax2onnx is not installed. To have it: {ONNX_HOW}")
            continue
        put(folder / f"{name}.onnx", onnx(function, arguments))
        takes = {argument: [ONNX_BATCH, *shape] for argument, shape in arguments.items()}
        files[f"{name}.onnx"] = {"what": "ONNX", "arguments": takes}
        say(
            f"ONNX: {folder / f'{name}.onnx'} (batches of {ONNX_BATCH}: its converter takes no open size "
            "for this graph)"
        )
    for file, entry in files.items():
        entry["sha256"] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    text = json.dumps({"about": dict(about), "files": files}, indent=1, sort_keys=True)
    put(folder / "about.json", text.encode())


def stablehlo(function: Callable, arguments: Mapping[str, tuple]) -> bytes:
    """A function of float32 arrays [batch, *shape] in JAX's portable form, batch left open.

    `jax.export.deserialize(bytes).call(*arrays)` runs it, without this project.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    specs = [jax.ShapeDtypeStruct((batch, *shape), jnp.float32) for shape in arguments.values()]
    return bytes(jax.export.export(jax.jit(function), platforms=PLATFORMS)(*specs).serialize())


def onnx(function: Callable, arguments: Mapping[str, tuple]) -> bytes:
    """The same as an ONNX graph for batches of ONNX_BATCH."""
    import jax2onnx

    shapes = [(ONNX_BATCH, *shape) for shape in arguments.values()]
    return jax2onnx.to_onnx(function, shapes).SerializeToString()


def put(path: pathlib.Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".tmp")
    draft.write_bytes(content)
    os.replace(draft, path)
