"""Compiling one pure step for many devices: the only file that counts them.

A step sees global arrays under `jit` (axis None: the compiler splits the work over the mesh) or its
device's own rows under `pmap` (axis "data"). All randomness of a step is drawn per example from the
example's global index, so both compilations compute the same numbers.
"""

import concurrent.futures
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Callable, Hashable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxface.errors import UserError
from jaxface.ops.filters import whole_images

_MALLOC = (  # glibc's options by name: number, value
    ("MMAP_MAX_", -4, 0),
    ("TRIM_THRESHOLD_", -1, -1),  # never
    ("TOP_PAD_", -2, 2**28),
)
# Seconds of a step that is hardly longer for getting its memory from the system, half a second a GiB.
LONG = 5.0
DATA = "data"  # the one mesh axis: batches are split along it, states are replicated


def initialize(coordinator: str | None, process_id: int | None, process_count: int | None) -> None:
    """Joins the other processes of a pod or cluster; with no arguments JAX finds them itself."""
    # Its handler would take SIGTERM away from jaxface.preemption, which answers in every phase.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(coordinator, process_count, process_id)


def first_process_first(work: Callable):
    """Returns `work()`, done by process 0 before the others begin: they find what it has built."""
    if jax.process_count() == 1:
        return work()
    if jax.process_index() == 0:
        done = work()
        multihost_utils.sync_global_devices("first process done")
        return done
    multihost_utils.sync_global_devices("first process done")
    return work()


def _glibc():
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") else None


def keep_memory() -> None:
    """Keeps freed memory for the next array, on machines with glibc; call before JAX touches a device.

    Handing every large array back to the system costs a tenth to a third of a step on CPU in page faults.
    What the environment has settled by itself is left alone.
    """
    # A program then runs in the thread that asks for it, whose memory the options govern: glibc takes large
    # arrays of other threads from the system and hands them back, whatever it was told. One arena for all
    # threads would do too, but compiling takes half as long again then, and a step after it a third.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    libc = _glibc()
    if libc:
        for name, option, value in _MALLOC:
            if f"MALLOC_{name}" not in os.environ:
                libc.mallopt(option, value)


def release_memory() -> None:
    """Hands back what `keep_memory` keeps.

    Compiling leaves gigabytes behind, and so does each of two programs that run by turns: the arrays of one
    seldom find room where the other's have been.
    """
    libc = _glibc()
    if libc:
        libc.malloc_trim(0)


class Turns:
    """Programs that run by turns, as steps with and without a penalty do.

    Where a step is LONG, memory goes back before another program takes its turn.
    """

    def __init__(self):
        self._latest, self._took = None, 0.0

    @contextlib.contextmanager
    def of(self, program: Hashable) -> Iterator[None]:
        """Around one step of a program, to the end of its block."""
        if program != self._latest and self._took > LONG:
            release_memory()
        self._latest, began = program, time.monotonic()
        yield
        self._took = time.monotonic() - began


def make_mesh() -> Mesh:
    """A mesh of every device of every process."""
    devices = jax.devices()
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def check_batch(batch: int, accumulate: int = 1) -> None:
    """Raises UserError unless `batch` splits evenly over devices and accumulation steps."""
    devices = jax.device_count()
    if batch % (devices * accumulate):
        fit = devices * accumulate
        raise UserError(
            f"config.batch={batch} does not split over {devices} device(s) x {accumulate} "
            f"accumulation step(s): use a multiple of {fit}, for example {max(fit, batch // fit * fit)}."
        )


def pmean(tree, axis=None):
    """Mean over devices under pmap; under jit arrays are global already and nothing is to do."""
    return tree if axis is None else jax.lax.pmean(tree, axis)


def gather(x, axis=None):
    """Rows of every device, in global order. [n, ...] -> [devices * n, ...]"""
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)


def _with_resident(step: Callable) -> Callable:
    """Looks a batch's rows up in the arrays that stay on the device."""

    def looked_up(state, batch, resident, key, axis=None):
        if resident:
            index = batch["index"]
            batch = batch | {name: array[index] for name, array in resident.items()}
        return step(state, batch, key, axis=axis)

    return looked_up


def compile_step(step: Callable, mesh: Mesh, mode: str) -> Callable:
    """Returns `(state, batch, resident, key) -> (state, metrics)`, compiled.

    Args:
      step: `(state, batch, key, *, axis) -> (state, metrics)`.
      mode: "jit" (global view, the default everywhere) or "pmap" (one program per device).
    """
    step = _with_resident(step)
    if mode == "pmap" or mesh.size == 1:
        step = whole_images()(step)
    replicated, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(DATA))
    if mode == "jit":
        return jax.jit(
            step,
            in_shardings=(replicated, split, replicated, replicated),
            out_shardings=replicated,
            donate_argnums=0,
        )
    if mode != "pmap":
        raise UserError(f"config.compile={mode!r}: use 'jit' or 'pmap'.")

    def on_device(state, batch, resident, key):
        return step(state, batch, resident, key, axis=DATA)

    local = jax.local_device_count()
    mapped = jax.pmap(on_device, DATA, in_axes=(None, 0, None, None), out_axes=None)

    def pmapped(state, batch, resident, key):
        batch = jax.tree.map(lambda x: x.reshape(local, -1, *x.shape[1:]), batch)
        return mapped(state, batch, resident, key)

    return pmapped


def lower_step(step_fn, shapes, batch, resident, key, mesh: Mesh) -> jax.stages.Lowered | None:
    """What `compile_step` returned, traced before its state is there, for `compile_aside`.

    None but for one process with its CPUs: an accelerator's compiler tries out which kernel is the fastest
    and must not be disturbed, and several processes must run their programs in one order. There, as under
    pmap, the step is compiled when it is called.

    Args:
      shapes: of the state.
      batch: this process's rows, not placed yet.
      resident, key: as the step will be called with.
    """
    alone = jax.process_count() == 1 and jax.default_backend() == "cpu"
    if not alone or not hasattr(step_fn, "lower"):
        return None
    placed = NamedSharding(mesh, P())  # as `place_state` does, or the call would trace once more
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed), shapes)
    return step_fn.lower(state, place_batch(batch, mesh), resident, key)


def compile_aside(lowered: jax.stages.Lowered) -> Callable[[], jax.stages.Compiled]:
    """Compiles a program in a thread while the caller goes on: XLA leaves Python alone.

    Returns what waits for it, and raises what went wrong. A call of the function that was lowered finds the
    program.
    """
    pool = concurrent.futures.ThreadPoolExecutor(1)
    compiled = pool.submit(lowered.compile)
    pool.shutdown(wait=False)
    return compiled.result


def compiled_once(function: Callable) -> Callable:
    """A function that will run once, so that compiling it is what takes the time, compiled for that."""
    hasty = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=hasty)


def place_state(tree, mesh: Mesh, mode: str = "jit"):
    """Numpy or device arrays, equal on every process -> one replicated copy on every device."""
    if mode == "pmap":
        return jax.tree.map(np.asarray, tree)
    replicated = NamedSharding(mesh, P())
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(np.shape(x), replicated, lambda i: np.asarray(x)[i]),
        tree,
    )


def place_batch(batch, mesh: Mesh, mode: str = "jit"):
    """This process's rows of a batch -> one global array split over every device."""
    if mode == "pmap":
        return batch
    split = NamedSharding(mesh, P(DATA))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), batch)


def spread(rows: np.ndarray):
    """Rows over this process's own devices, where they divide evenly: for networks that judge."""
    devices = jax.local_devices()
    if len(devices) == 1 or len(rows) % len(devices):
        return rows
    return jax.device_put(rows, NamedSharding(Mesh(np.array(devices), DATA), P(DATA)))


def to_host(tree):
    """One numpy copy of a replicated tree, without any communication between processes."""

    def one(x):
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            x = x.addressable_data(0)
        return np.asarray(x)

    return jax.tree.map(one, tree)
