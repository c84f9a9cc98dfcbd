"""Network snapshots of NVIDIA's StyleGAN3 (.pkl), read without their code.

A snapshot is a pickle of {"G", "D", "G_ema", "augment_pipe", "training_set_kwargs"}. Each network, and
each module in it, is the source text of its class beside its attributes; the published loader runs
that text. Here only the attributes are read: tensors in `_parameters` and `_buffers`, modules in
`_modules`, and the constructor's arguments in `_init_kwargs`. The text is not looked at.
"""

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxface.errors import UserError
from jaxface.models import discriminator, stylegan3
from jaxface.weights.arrays import Collector, Tensor
from jaxface.weights.torch_file import tensor_globals
from jaxface.weights.unpickle import (
    MAX_DEPTH,
    MAX_NAME,
    MAX_OPCODES,
    Budget,
    Machine,
    open_bytes,
    shown,
)


class Snapshot(NamedTuple):
    """The networks of a snapshot; None for one that it lacks.

    Attributes:
      generator, generator_ema: `stylegan3.LoadedGenerator`; `generator_ema` is the averaged one.
      discriminator: `discriminator.Loaded`.
      augment_p: strength of the adaptive augmentation when the snapshot was taken, None without one.
      training_set: what it says of its training set (plain values).
      kwargs: {"G", "D", "G_ema"}: constructor arguments.
      mapped: {"G", "D", "G_ema"}: how many arrays of each went into a network.
      unmapped: names of arrays and parts that went nowhere, as "augment_pipe.p".
    """

    generator: Any
    generator_ema: Any
    discriminator: Any
    augment_p: float | None
    training_set: dict
    kwargs: dict[str, dict]
    mapped: dict[str, int]
    unmapped: tuple[str, ...]


class _Module:
    """An object whose source the file would have us run."""

    __slots__ = ("kind", "state")

    def __init__(self, meta: Any):
        if type(meta) is not dict or meta.get("type") != "class":
            raise ValueError("a persistent object that is no class")
        self.kind, self.state = meta.get("class_name"), meta.get("state")
        if type(self.kind) is not str or type(self.state) is not dict:
            raise ValueError("a persistent object without class name or state")


def _easy_dict() -> dict:
    """dnnlib.util.EasyDict(), which is then filled; it takes no argument, which it would copy."""
    return {}


def read_nvidia_snapshot(path: str | os.PathLike) -> Snapshot:
    """Generators and discriminator of a StyleGAN3 snapshot, -t or -r, conditional or not.

    Needs neither torch nor the published code, and runs nothing of the file. The discriminator is the
    StyleGAN2 one ("resnet") that StyleGAN3 trains with.

    Raises:
      UnsafeFileError: a global or opcode that no snapshot needs, named; sizes that the file does not
        hold; networks whose arrays are not those of their own constructor arguments.
      UserError: no such file, or a file of another kind.
    """
    data = open_bytes(path)
    if bytes(data[:4]) == b"PK\3\4":
        raise UserError(
            f"{shown(path, 300)} is an archive of torch.save, not a snapshot: use read_torch."
        )
    budget = Budget(path, len(data))
    names = tensor_globals(budget) | {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Module,
        ("dnnlib.util", "EasyDict"): _easy_dict,
    }
    value = Machine(data, names, budget).load()
    networks = {
        name: value[name]
        for name in ("G", "D", "G_ema")
        if type(value) is dict and type(value.get(name)) is _Module
    }
    if not networks.keys() & {"G", "G_ema"}:
        raise budget.refuse("it holds no generator under G or G_ema, as a snapshot does")
    collect = Collector(budget)
    kwargs, arrays = {}, {}
    for name, module in networks.items():
        kwargs[name] = _arguments(name, module, budget)
        arrays[name] = _module_arrays(name, module, collect)
    augment = value.get("augment_pipe")
    beside = {}
    training_set = value.get("training_set_kwargs")
    if type(augment) is _Module:
        beside = _module_arrays("augment_pipe", augment, collect)
    p = _probability(beside.pop("p", None), budget)
    unmapped = [f"augment_pipe.{name}" for name in beside]
    unmapped += [
        shown(name)
        for name, part in value.items()
        if name not in (*networks, "augment_pipe", "training_set_kwargs") and part is not None
    ]
    loaded, mapped = {}, {}
    for name in networks:
        loaded[name] = _load(name, kwargs[name], arrays[name], budget)
        constants = [n for n in arrays[name] if n.endswith("_filter")]
        mapped[name] = len(arrays[name]) - len(constants)
        unmapped += [f"{name}.{n} (made from the arguments)" for n in constants]
    return Snapshot(
        generator=loaded.get("G"),
        generator_ema=loaded.get("G_ema"),
        discriminator=loaded.get("D"),
        augment_p=p,
        training_set=_plain(training_set if type(training_set) is dict else {}, budget),
        kwargs=kwargs,
        mapped=mapped,
        unmapped=tuple(unmapped),
    )


def _probability(p: np.ndarray | None, budget: Budget) -> float | None:
    if p is None:
        return None
    if p.size != 1 or p.dtype.kind != "f" or not 0 <= float(p.reshape(())) <= 1:
        raise budget.refuse("its augmentation strength p is no probability")
    return float(p.reshape(()))


def _load(name: str, kwargs: dict, arrays: dict, budget: Budget) -> Any:
    """The network of `kwargs` with `arrays`; in one line why not, else."""
    wrong = [key for key, array in arrays.items() if array.dtype.kind != "f"]
    if wrong:
        raise budget.refuse(f"{name}.{shown(wrong[0])} holds no floating-point numbers")
    arrays = {key: array.astype(np.float32, copy=False) for key, array in arrays.items()}
    try:
        if name == "D":
            return discriminator.from_state_dict(kwargs, arrays)
        if "synthesis.b4.const" in arrays:
            raise UserError("this is a generator of StyleGAN2; only StyleGAN3's are read")
        for layer in stylegan3.from_kwargs(kwargs).plan.layers:
            # Before the model is traced and its filters are designed, which take as long as they are.
            if f"synthesis.{layer.name}.weight" not in arrays:
                raise UserError(f"its arguments make a layer {layer.name}, its arrays have none")
            if max(layer.up_taps, layer.down_taps) > _MAX_TAPS:
                raise UserError(f"filters of {max(layer.up_taps, layer.down_taps):,} taps")
        return stylegan3.from_state_dict(kwargs, arrays)
    except Exception as error:  # the file chose the arguments: whatever they run into is its fault
        lines = [line.strip() for line in str(error).splitlines()]
        more = f" and {len(lines) - 6} more" if len(lines) > 6 else ""
        why = "; ".join(lines[:6]).replace(":; ", ": ").rstrip(".") or type(error).__name__
        raise budget.refuse(f"{name} does not fit: {shown(why, 600)}{more}") from None


# ---- modules ------------------------------------------------------------------------------------


def _module_arrays(what: str, module: _Module, collect: Collector) -> dict[str, np.ndarray]:
    """{"synthesis.input.weight": array} of a module and those in it."""
    budget = collect.budget
    arrays: dict[str, np.ndarray] = {}
    visits = 0

    def visit(prefix: str, module: Any, depth: int) -> None:
        nonlocal visits
        visits += 1
        if depth > MAX_DEPTH or visits > MAX_OPCODES:
            raise budget.refuse("nested without end")
        if type(module) is not _Module:
            raise budget.refuse(f"{what}.{shown(prefix)} is no module")
        for kind in ("_parameters", "_buffers", "_modules"):
            members = module.state.get(kind, {})
            if type(members) is not dict:
                raise budget.refuse(f"{what}.{shown(prefix)}: {kind} is no dictionary")
            for key, part in members.items():
                visits += 1
                name = f"{prefix}{key}"
                if type(key) is not str or len(name) > MAX_NAME or visits > MAX_OPCODES:
                    raise budget.refuse(f"{what} has a name beyond all measure")
                if kind == "_modules":
                    visit(f"{name}.", part, depth + 1)
                elif type(part) is Tensor and name not in arrays:
                    arrays[name] = collect(part)
                elif part is not None:
                    raise budget.refuse(f"{what}.{shown(name)} is no tensor, or there twice")

    visit("", module, 0)
    return arrays


# ---- constructor arguments ----------------------------------------------------------------------

# What a network may ask for. The models allocate and loop by these numbers, so that they must be sane
# before a model sees them; the file's own arrays then have to fit to the last number.
_LIMITS: Mapping[str, tuple[float, float]] = {
    "z_dim": (1, 8192),
    "c_dim": (0, 65536),
    "w_dim": (1, 8192),
    "img_resolution": (4, 2048),
    "img_channels": (1, 8),
    "channel_base": (1, 1 << 20),
    "channel_max": (1, 1 << 14),
    "num_layers": (1, 32),
    "num_critical": (0, 32),
    "first_cutoff": (0.01, 1024),
    "first_stopband": (0.01, 4096),
    "last_stopband_rel": (0.01, 64),
    "margin_size": (0, 256),
    "num_fp16_res": (0, 64),
    "conv_kernel": (1, 15),
    "filter_size": (1, 64),
    "lrelu_upsampling": (1, 8),
    "cmap_dim": (0, 1 << 14),
    "embed_features": (1, 1 << 14),
    "layer_features": (1, 1 << 14),
    "mbstd_group_size": (1, 1 << 14),
    "mbstd_num_channels": (0, 1 << 14),
    "freeze_layers": (0, 1000),
}
_LARGEST = 1e6  # of any other number
_MAX_TAPS = 1024  # a radial filter is as wide as it is high


def _arguments(name: str, module: _Module, budget: Budget) -> dict:
    positional = module.state.get("_init_args", ())
    if type(positional) not in (tuple, list) or positional:
        raise budget.refuse(f"{name} was made with arguments that have no names")
    kwargs = _plain(module.state.get("_init_kwargs"), budget)
    if type(kwargs) is not dict or not kwargs:
        raise budget.refuse(f"{name} ({shown(module.kind)}) has no constructor arguments")
    _check_limits(name, kwargs, budget)
    return kwargs


def _check_limits(where: str, kwargs: dict, budget: Budget) -> None:
    for key, value in kwargs.items():
        if type(value) is dict:
            _check_limits(f"{where}.{key}", value, budget)
        elif type(value) in (int, float):
            low, high = _LIMITS.get(key, (-_LARGEST, _LARGEST))
            if not (math.isfinite(value) and low <= value <= high):
                raise budget.refuse(f"{where}: {shown(key)}={shown(value, 30)} makes no network")


def _plain(value: Any, budget: Budget) -> Any:
    """Numbers, texts, lists and dictionaries with names, at most 1,000 of them."""
    left = 1000

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > 6:
            raise budget.refuse("arguments without end")
        if type(value) is dict:
            if not all(type(key) is str and len(key) <= 100 for key in value):
                raise budget.refuse("an argument without a name")
            return {key: copy(part, depth + 1) for key, part in value.items()}
        if type(value) in (list, tuple):
            return [copy(part, depth + 1) for part in value]
        if type(value) is str:
            return value[:1000]
        if value is None or type(value) in (int, float, bool):
            return value
        raise budget.refuse(f"an argument that is a {type(value).__name__}")

    return copy(value, 0)
