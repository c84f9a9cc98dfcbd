"""What a training run is: a state that changes and a bundle of pure functions that change it."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.struct
import flax.traverse_util
import jax
import numpy as np

from jaxface.errors import UserError


@flax.struct.dataclass
class TrainState:
    """Everything that changes while training, and nothing that does not."""

    step: jax.Array  # int32 scalar: finished training steps
    params: Any  # {"generator": ..., "discriminator": ...} or {"encoder": ..., "head": ...}
    opt_state: Any  # same keys as params
    model_state: Any  # Linen's other collections: batch statistics, w_avg, magnitude EMAs
    ema: Any  # slow weights (and their model state) used for evaluation, {} if none
    control: (
        Any  # what steers training: ADA's p and its statistic, image pool, skipped updates, ...
    )


class Result(NamedTuple):
    """One reported number: what `results.json` and the report show of it."""

    value: float
    low: float | None = None  # ends of the 95 % interval; None where an interval makes no sense
    high: float | None = None
    n: int | None = None  # number of people (or images, as the protocol says) it rests on
    unit: str = ""
    protocol: str = ""  # one sentence: which images, which extractor, which interval


class Figure(NamedTuple):
    """A grid of pictures that an evaluation wants in the report."""

    images: np.ndarray  # uint8 [N, H, W, C]
    columns: int
    caption: str
    photographs: bool = False  # whether training photographs are among them


class Film(NamedTuple):
    """Moving pictures that a system can show, each frame a grid."""

    frames: np.ndarray  # uint8 [T, N, H, W, C]
    columns: int
    caption: str
    fps: int = 24


class Record(NamedTuple):
    """A file of its own that an evaluation leaves in the workdir."""

    write: Callable  # (workdir, sha256 of the checkpoint that was evaluated) -> None


class Reading(NamedTuple):
    """What a network makes of one photograph of a user."""

    pictures: Mapping[
        str, np.ndarray
    ]  # {name: uint8 [H, W] or [H, W, C]} at the photograph's size;
    #   a page shows "side_by_side" alone if there is one, else all of them
    numbers: Mapping[str, float | str]
    warnings: tuple[str, ...] = ()  # what a person should know about this photograph


class Export(NamedTuple):
    """What of a state other programs may want: arrays, and functions with these arrays in them."""

    variables: Any  # tree of arrays, as --init_from reads it
    functions: Mapping[str, tuple[Callable, Mapping[str, tuple]]]  # {name: (function of arrays,
    #   {argument: shape without the batch})}; all arguments and results are float32, batch first


class Asked(NamedTuple):
    """What a user asks --mode=sample for."""

    show: str = ""  # a name of System.shows, "" for single pictures and a grid of them
    seed: int = 0
    number: int | None = None  # of pictures, None for as many as are usual
    label: str = ""  # a class of a conditional system, "" for all by turns


class System(NamedTuple):
    """A method as pure functions, after `optax.GradientTransformation`."""

    init: Callable  # (key) -> TrainState
    train_step: Callable  # (state, batch, key, *, axis=None) -> (TrainState, {name: scalar})
    batches: Callable  # (start, process_index, process_count) -> iterator of {name: numpy array}
    evals: Mapping[str, Callable]  # {name: (state, key) -> {metric: Result | Figure | Record}}
    sample: (
        Callable  # (state, key, number, label="") -> uint8 images [number, H, W, C], or a Figure
    )
    #   of pictures that belong together
    shows: Mapping[str, Callable] = MappingProxyType(
        {}
    )  # {name: (state, key, number or None, label)
    #   -> Figure | Film}: what else --mode=sample can show; "" is no label
    readings: Callable | None = (
        None  # (state, path of a photograph or a folder of them) -> iterator
    )
    #   of (name of the file relative to the path, Reading | UserError): what cannot be read comes as
    #   its error, so that the others still are
    reads: str = "photograph"  # or "video": what `readings` takes
    judge_folder: Callable | None = None  # (folder of pictures) -> what an evaluation returns
    release: Callable | None = None  # (workdir, sha256 of the checkpoint): raises UserError while
    #   pictures of this checkpoint must not leave the run
    export: Callable | None = None  # (state) -> Export
    resident: Callable = dict  # () -> {name: numpy array} kept whole in device memory; a batch
    #   then carries "index" and the compiled step sees {name: array[index]} in its place
    preview: Callable | None = None  # () -> Figure of training images as the step sees them
    start_from: Callable | None = None  # (state) -> state with the networks of --init_from
    monitors: Mapping[str, Callable] = MappingProxyType({})  # evals cheap enough to follow training
    num_steps: Callable | None = None  # () -> steps of the run where only its data can tell;
    #   without it, config.num_steps
    consumed: Callable | None = (
        None  # (step) -> set of (pseudonym, sha256 of an image in a record):
    )
    #   whose data the state after `step` steps depends on; "" for the sha256 where a person's
    #   measurements went in and no picture did. A superset of what it is for a smaller step


@dataclasses.dataclass
class RunConfig:
    """What every run has, whatever it trains. A system's Config adds its method's fields."""

    seed: int = 0
    batch: int = 32  # examples per step over all devices
    accumulate: int = 1  # micro-batches a step is split into when memory is short
    compile: str = "jit"  # "jit" on a mesh of all devices, or "pmap"
    quick: bool = False  # compile in a third of the time what then runs slower: for a few steps
    log_every: int = 50  # steps between scalars
    sample_every: int = 500  # steps between picture grids
    eval_every: int = 0  # steps between evaluations while training; 0: at the end only
    save_every: int = 500  # steps between checkpoints
    keep: int = 3  # checkpoints kept
    max_skipped: int = 20  # updates skipped in a row for non-finite numbers before the run stops
    data: str = ""  # name of the tfds builder that gives the training set
    data_dir: str = ""  # a user's folder of files; set by --data_dir
    build_dir: str = ""  # where records are built: <workdir>/data, phantoms in the user's cache
    init_from: str = ""  # what to start from; set by --init_from, "" trains from random weights

    @property
    def num_steps(self) -> int:
        raise NotImplementedError("a system's Config says how long it trains")


def fit(target, loaded, what: str):
    """Returns `loaded` in the structure, shapes and types of `target`.

    Raises:
      UserError: lists every name that only one of them has, and every shape that differs.
    """
    wanted = flax.traverse_util.flatten_dict(target, sep="/")
    given = flax.traverse_util.flatten_dict(loaded, sep="/")
    wrong = [f"missing: {name} {np.shape(wanted[name])}" for name in wanted if name not in given]
    wrong += [
        f"not in this network: {name} {np.shape(given[name])}"
        for name in given
        if name not in wanted
    ]
    wrong += [
        f"{name}: {np.shape(given[name])} in the file, {np.shape(wanted[name])} in this network"
        for name in wanted
        if name in given and np.shape(wanted[name]) != np.shape(given[name])
    ]
    if wrong:
        raise UserError(
            f"--init_from: {what} does not fit this config ({len(wrong)} name(s)): set resolution, "
            "channels, variant and network sizes as in the run it comes from.\n  "
            + "\n  ".join(wrong)
        )
    fitted = {name: np.asarray(given[name]).astype(wanted[name].dtype) for name in wanted}
    return flax.traverse_util.unflatten_dict(fitted, sep="/")


def started(params: dict, stats: dict, start: dict) -> tuple[dict, dict]:
    """Networks, {name: tree}, and what their normalisation keeps, with those of `start` that have the name.

    Raises:
      UserError: lists every name and shape that differs.
    """
    params, stats = dict(params), dict(stats)
    for name in (name for name in params if name in start["params"]):
        params[name] = fit(params[name], start["params"][name], f"the {name}")
        if name in stats:
            kept = start.get("model_state", {}).get(name, {})
            stats[name] = fit(stats[name], kept, f"statistics of the {name}")
    return params, stats
