"""What a training run is: a state that changes and a bundle of pure functions that change it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import numpy as np


@flax.struct.dataclass
class TrainState:
    """Everything that changes while training, and nothing that does not."""

    step: jax.Array  # int32 scalar: finished training steps
    params: Any  # {"generator": ..., "discriminator": ...} or {"encoder": ..., "head": ...}
    opt_state: Any  # same keys as params
    model_state: Any  # Linen's other collections: batch statistics, w_avg, magnitude EMAs
    ema: Any  # slow weights (and their model state) used for evaluation, {} if none
    control: Any  # what steers training: ADA's p and its statistic, image pool, skipped updates, ...


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


class System(NamedTuple):
    """A method as pure functions, after `optax.GradientTransformation`."""

    init: Callable  # (key) -> TrainState
    train_step: Callable  # (state, batch, key, *, axis=None) -> (TrainState, {name: scalar})
    batches: Callable  # (start, process_index, process_count) -> iterator of {name: numpy array}
    evals: Mapping[str, Callable]  # {name: (state, key) -> {metric: Result | Figure | float}}
    sample: Callable  # (state, key, number) -> uint8 images [number, H, W, C]
    resident: Callable = dict  # () -> {name: numpy array} kept whole in device memory; a batch
    #   then carries "index" and the compiled step sees {name: array[index]} in its place
    preview: Callable | None = None  # () -> Figure of training images as the step sees them
    start_from: Callable | None = None  # (state, loaded tree) -> (state, [what did not fit])
