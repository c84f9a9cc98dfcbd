"""Networks to start from: a workdir, a checkpoint, a packed .npz, or a base shipped with jaxface.

python -m jaxface.start WORKDIR FILE.npz      packs a run's newest networks, float16
"""

import hashlib
import json
import pathlib
import sys

import flax.traverse_util
import numpy as np

from jaxface import assets
from jaxface.checkpoint import Checkpoints
from jaxface.errors import UserError, nearest

KEPT = ("params/discriminator", "ema/params", "ema/stats")  # what a transfer needs


def read(name: str) -> tuple[dict | None, dict | None]:
    """Returns (tree of numpy arrays, what it is) for --init_from=`name`; (None, None) for "".

    Raises:
      UserError: no such file or base, or one that is damaged or holds no networks.
    """
    if not name:
        return None, None
    shipped = {file.stem for file in assets.FOLDER.glob("*_base_*.npz")}
    path = pathlib.Path(name)
    if name in shipped:
        path = assets.FOLDER / f"{name}.npz"
    elif not path.exists():
        raise UserError(
            f"--init_from={name} is neither a file, a workdir nor a shipped base.{nearest(name, shipped)}"
        )
    if path.is_dir():
        tree, meta = Checkpoints(path, log=lambda _: None).load(path)
        about = {"kind": "checkpoint", "path": name, "run": meta.get("run")}
    elif path.suffix == ".npz":
        tree, meta = unpack(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        about = {"kind": "packed networks", "path": name, "sha256": digest} | meta
    else:
        raise UserError(
            f"--init_from={name}: give a workdir, a checkpoint folder or a packed .npz."
        )
    if not {"ema", "params"} <= tree.keys() or "discriminator" not in tree["params"]:
        raise UserError(f"--init_from={name} holds no generator and discriminator of this project.")
    return tree, about


def pack(workdir: str, file: str) -> int:
    """Writes averaged generator and discriminator of a run as float16. Returns the size in bytes."""
    tree, meta = Checkpoints(pathlib.Path(workdir), log=print).load(pathlib.Path(workdir))
    flat = flax.traverse_util.flatten_dict(tree, sep="/")
    arrays = {
        name: value.astype(np.float16) if value.dtype == np.float32 and value.ndim > 1 else value
        for name, value in flat.items()
        if name.startswith(KEPT)
    }
    about = {"run": meta.get("run"), "step": int(flat["step"]), "config": meta.get("config")}
    np.savez_compressed(file, __meta__=np.array(json.dumps(about)), **arrays)
    return pathlib.Path(file).stat().st_size


def unpack(path: pathlib.Path) -> tuple[dict, dict]:
    """The tree (float16 widened to float32) and description that `pack` wrote."""
    try:
        with np.load(path, allow_pickle=False) as data:
            flat = {name: data[name] for name in data.files}
        meta = json.loads(str(flat.pop("__meta__")))
    except Exception as error:
        raise UserError(f"--init_from={path}: not a file that jaxface packed ({error}).") from None
    flat = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in flat.items()}
    return flax.traverse_util.unflatten_dict(flat, sep="/"), meta


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        print(f"{sys.argv[2]}: {pack(*sys.argv[1:]) / 1e6:.2f} MB")
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
