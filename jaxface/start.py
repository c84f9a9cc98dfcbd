"""Networks to start from: a workdir, a checkpoint, a packed .npz, an export (.safetensors), a snapshot
of NVIDIA's StyleGAN3 (.pkl), or a base shipped with jaxface. What a file is, its content says.

python -m jaxface.start WORKDIR FILE.npz [--allow_withdrawn]     packs a run's newest networks, float16

A pack is passed on: it says which checkpoint it is of, of how many people, and of nobody in particular.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable

import flax.traverse_util
import jax
import numpy as np

from jaxface import assets, lineage, weights
from jaxface.checkpoint import Checkpoints
from jaxface.errors import UserError, nearest
from jaxface.models import stylegan3
from jaxface.weights import kinds
from jaxface.weights.unpickle import shown
from jaxface.workdir import Workdir

KEPT = (
    "params/discriminator",
    "ema/params",
    "ema/stats",
)  # what a transfer of a style generator needs
KEPT_TRANSLATOR = (
    "params/generator",
    "model_state/generator",
)  # the same, without averaged networks

PLACES = (
    "data_dir",
    "build_dir",
    "manifest",
    "normals_dir",
    "init_from",
    "ledger",
)  # fields that hold paths

# What a snapshot may say of its generator that no config can: it has to be the published value.
FIXED = ("num_critical", "first_cutoff", "first_stopband", "last_stopband_rel", "output_scale")
FIXED += ("filter_size", "lrelu_upsampling")
KINDS = {kinds.NPZ: "packed networks", kinds.SAFETENSORS: "export"}  # as a lineage names them


def read(
    name: str, say: Callable[[str], None] = print, gate: lineage.Gate | None = None
) -> tuple[dict | None, dict | None]:
    """Returns (tree of numpy arrays, what it is) for --init_from=`name`; (None, None) for "".

    What it is has, for networks of ours, "ancestors": the checkpoints they come from (`lineage.ancestry`).

    Args:
      say: called with a line on what was mapped and what was not.
      gate: what is read passes it; by default one that allows nothing.

    Raises:
      UserError: no such file or base, or one that is damaged, unsafe or holds no networks, or owes to a
        person who has withdrawn.
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
    left: list[str] = []
    gate = gate or lineage.Gate()
    if path.is_dir():
        tree, meta = Checkpoints(path, log=lambda _: None, gate=gate).load(path)
        about = {"kind": "checkpoint", "path": name, "run": meta.get("run")}
        step = (meta.get("data") or {}).get("step")
        about["ancestors"] = lineage.ancestry(meta.get("lineage"), gate.digest, step)
    else:
        kind = kinds.kind_of(path)
        about = {"kind": KINDS.get(kind, kind), "path": name, "sha256": kinds.sha256(path)}
        if kind == kinds.SNAPSHOT:
            tree, more, left = _from_snapshot(path)
        elif kind == kinds.NPZ:
            tree, more = unpack(path)
            more = _known(more)
        elif kind == kinds.SAFETENSORS:
            arrays, more = weights.read_safetensors(path)
            tree, more = _nested(arrays), _known(more)
        else:
            raise _unfit(name, path, kind)
        about |= _inherited(more)
        gate(path, about["sha256"], about)
    if not _has_networks(tree):
        raise UserError(
            f"--init_from={name} holds no generator and discriminator of this project, and no encoder."
        )
    mapped, rest = _mapped(tree)
    about["mapped"] = mapped
    left += rest
    if left:
        about["unmapped"] = _listed(left)
    say(_told(about))
    return tree, about


def _known(meta: dict) -> dict:
    """What a file of ours says of itself, and nothing else that it may say."""
    return {
        key: meta[key]
        for key in ("run", "step", "config", "lineage", "checkpoint_sha256")
        if key in meta
    }


def _inherited(meta: dict) -> dict:
    """`_known` with the ancestors in place of the lineage and digest that a pack or an export gives."""
    meta = dict(meta)
    told, digest = meta.pop("lineage", None), meta.pop("checkpoint_sha256", "")
    if not digest:
        return meta
    try:  # an export's description holds texts alone
        told = json.loads(told) if isinstance(told, str) else told
        return meta | {"ancestors": lineage.ancestry(lineage.summary(told or {}), str(digest))}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise UserError("--init_from: what the file says of its lineage cannot be read.") from None


def _has_networks(tree: dict) -> bool:
    """Whether there is a style generator with its discriminator, a translator of pictures or an encoder."""
    part = lambda key, inner: tree[key].get(inner) if isinstance(tree.get(key), dict) else None
    averaged = (part("params", "discriminator"), part("ema", "params"), part("ema", "stats"))
    generator, stats = part("params", "generator"), part("model_state", "generator")
    if not all(p is None or isinstance(p, dict) for p in (generator, stats)):
        return False
    if all(isinstance(p, dict) for p in averaged) or isinstance(part("params", "encoder"), dict):
        return True
    return bool(generator) and not tree.get("ema")


def _mapped(tree: dict) -> tuple[dict[str, int], list[str]]:
    """How many arrays each network gets, and the names of those that no network gets."""
    count = lambda part: len(flax.traverse_util.flatten_dict(part))
    kept = tree.get("model_state") if isinstance(tree.get("model_state"), dict) else {}
    mapped, left = {}, []
    for name, part in tree["params"].items():
        if isinstance(part, dict):
            stats = kept.get(name)
            mapped[name] = count(part) + (count(stats) if isinstance(stats, dict) else 0)
        else:
            left.append(f"params/{name}")
    left += [f"model_state/{name}" for name in kept if name not in mapped]
    averaged = tree.get("ema") or {}
    if averaged:
        whose = "generator" if "generator" in tree["params"] else "encoder"
        mapped[f"averaged {whose}"] = count(averaged["params"]) + count(averaged["stats"])
        left += [f"ema/{name}" for name in averaged if name not in ("params", "stats")]
    left += [key for key in tree if key not in ("params", "model_state", "ema")]
    return mapped, left


def _listed(names: list[str], most: int = 12) -> str:
    """Names in a line; constants that are made from a network's arguments are only counted."""
    constants = [name for name in names if name.endswith("(made from the arguments)")]
    others = [name for name in names if name not in constants]
    listed = others[:most] + ([f"{len(others) - most} more"] if len(others) > most else [])
    if constants:
        listed.append(f"{len(constants)} filters, made from the arguments")
    return ", ".join(listed)


def _told(about: dict) -> str:
    mapped = ", ".join(f"{name} {number}" for name, number in about["mapped"].items() if number)
    line = f"Networks of {about['path']} ({about['kind']}): arrays mapped: {mapped}."
    if "unmapped" in about:
        line += f" Not mapped: {about['unmapped']}."
    if about.get("augment_p") is not None:
        line += f" Its augmentation stood at p={about['augment_p']:.3g} (--config.augment_p)."
    if "flags" in about:
        line += f" It fits {about['flags']}."
    return line


def _unfit(name: str, path: pathlib.Path, kind: str) -> UserError:
    """Why a file of another kind is none to start from; a dangerous one is refused as that."""
    what = f"a {kind}"
    if kind in (kinds.TORCH, kinds.PICKLE):
        arrays = weights.read_torch(path)
        what += f" of {len(arrays)} arrays ({shown(next(iter(arrays)), 60)}, ...)"
    return UserError(
        f"--init_from={name} is {what}, not a generator and its discriminator: give a workdir, a "
        "checkpoint folder, a packed .npz, an exported .safetensors or a StyleGAN3 snapshot (.pkl)."
    )


def _from_snapshot(path: pathlib.Path) -> tuple[dict, dict, list[str]]:
    """(tree, what it is, names that went nowhere) of an NVIDIA snapshot."""
    snap = weights.read_nvidia_snapshot(path)
    averaged = snap.generator_ema or snap.generator
    if snap.discriminator is None:
        raise UserError(f"--init_from={path}: this snapshot has no discriminator to go on with.")
    defaults = {field.name: field.default for field in dataclasses.fields(stylegan3.Generator)}
    kwargs = snap.kwargs["G_ema" if snap.generator_ema else "G"]
    for key in FIXED:
        if kwargs.get(key, defaults[key]) != defaults[key]:
            raise UserError(
                f"--init_from={path}: its generator was made with {key}={kwargs[key]}, which no config "
                f"has (all have {defaults[key]:.6g}): it cannot be trained on."
            )
    host = lambda tree: jax.tree.map(np.asarray, tree)
    ema = host(averaged.variables)
    tree = {
        "params": {"discriminator": host(snap.discriminator.variables["params"])},
        "ema": {"params": ema["params"], "stats": ema["stats"]},
    }
    if snap.generator is not None:
        generator = host(snap.generator.variables)
        tree["params"]["generator"] = generator["params"]
        tree["model_state"] = {"generator": generator["stats"]}
    more = {"augment_p": snap.augment_p, "kwargs": snap.kwargs}
    more["flags"] = _flags(kwargs, snap.kwargs["D"])
    return tree, more, list(snap.unmapped)


def _flags(generator: dict, discriminator: dict) -> str:
    """The command line that makes networks of a snapshot's size."""
    radial = bool(generator.get("use_radial_filters"))
    default = {"channel_base": 32768, "channel_max": 512}
    double = 2 if radial else 1
    values = {
        "resolution": generator["img_resolution"],
        "channels": generator["img_channels"],
        "variant": "r" if radial else "t",
        "z_dim": generator["z_dim"],
        "w_dim": generator["w_dim"],
        "mapping_layers": generator.get("mapping_kwargs", {}).get("num_layers", 2),
        "num_layers": generator.get("num_layers", 14),
        "margin_size": generator.get("margin_size", 10),
    }
    for key, value in default.items():
        values[key] = int(generator.get(key, value)) // double
        values[f"discriminator_{key}"] = discriminator.get(key, value)
    return " ".join(f"--config.{key}={value}" for key, value in values.items())


def _nested(flat: dict[str, np.ndarray]) -> dict:
    """Arrays named by paths as a tree; {} where a name is also the path to others, or no text."""
    if not all(name.isprintable() for name in flat):
        return {}
    try:
        return flax.traverse_util.unflatten_dict(flat, sep="/")
    except (TypeError, AttributeError):
        return {}


def pack(workdir: str, file: str, allow_withdrawn: bool = False) -> int:
    """Writes the networks of a run that another can start from, as float16. Returns the size in bytes.

    Raises UserError for a run that owes to a person who has withdrawn, unless that is allowed.
    """
    path, gate = pathlib.Path(workdir), lineage.Gate(allow=allow_withdrawn, say=print)
    tree, meta = Checkpoints(path, log=print, gate=gate).load(path)
    if path.name.isdigit() and not (path / "checkpoints").is_dir():
        path = path.parent
    path = path.parent if path.name == "checkpoints" else path
    lineage.keep_list(path, gate.lineage, gate.digest)
    if gate.allowed:
        Workdir(path, gate=gate).note_lineage()
    flat = flax.traverse_util.flatten_dict(tree, sep="/")
    arrays = {
        name: value.astype(np.float16) if value.dtype == np.float32 and value.ndim > 1 else value
        for name, value in flat.items()
        if name.startswith(KEPT if "ema" in tree and tree["ema"] else KEPT_TRANSLATOR)
    }
    # A pack is passed on: where things lay on the machine that made it is nobody's business.
    run, config = meta.get("run") or {}, meta.get("config") or {}
    about = {
        "run": {name: run[name] for name in ("experiment", "scale", "title") if name in run},
        "step": int(flat["step"]),
        "config": {name: value for name, value in config.items() if name not in PLACES},
        "checkpoint_sha256": gate.digest,
        "lineage": lineage.summary(gate.lineage or {}),
    }
    np.savez_compressed(file, __meta__=np.array(json.dumps(about)), **arrays)
    return pathlib.Path(file).stat().st_size


def unpack(path: pathlib.Path) -> tuple[dict, dict]:
    """The tree (float16 widened to float32) and description that `pack` wrote."""
    flat = weights.read_npz(path)
    try:
        meta = json.loads(str(flat.pop("__meta__")))
        if type(meta) is not dict:
            raise ValueError("its description is no dictionary")
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f"--init_from={path}: not a file that jaxface packed ({error}).") from None
    flat = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in flat.items()}
    return _nested(flat), meta


if __name__ == "__main__":
    names = [word for word in sys.argv[1:] if word != "--allow_withdrawn"]
    if len(names) != 2 or names[0].startswith("-"):
        sys.exit(__doc__)
    try:
        print(f"{names[1]}: {pack(*names, '--allow_withdrawn' in sys.argv) / 1e6:.2f} MB")
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
