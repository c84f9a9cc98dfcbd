"""One pure step gives the same numbers on one device, on eight, and on two processes of four."""

import concurrent.futures
import os
import pathlib
import socket
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface import parallel
from jaxface.errors import UserError

SYSTEMS = ("conv_net", "cleftgan", "uvphoto", "uvphoto_v2", "contrastive", "classify")
ON_TWO = ("conv_net:jit", "conv_net:pmap", "cleftgan:jit", "contrastive:jit")  # processes
ROOT = pathlib.Path(__file__).parents[1]
TOLERANCE = 1e-9  # of each leaf's largest value, in float64; the promise is 1e-6
# A bias before instance normalisation has no gradient but rounding, of about 1e-15. Nothing below FLOOR
# measures an error by itself, and what Adam (eps 1e-8) makes of that rounding in a step is let pass.
FLOOR, IDLE = {"uvphoto_v2": 1e-4}, {"uvphoto_v2": 1e-7}


def run(*arguments) -> dict:
    """The numbers that one process of topologies.py wrote."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "tests/topologies.py", *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with np.load(arguments[0]) as file:
        return dict(file)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """{"1": .., "8": .., "2x4": [first process, second process]} of {run/step/leaf: array}"""
    out = tmp_path_factory.mktemp("topologies")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        one = pool.submit(run, out / "1.npz", 1, ",".join(f"{system}:jit" for system in SYSTEMS))
        runs = ",".join(f"{system}:{mode}" for system in SYSTEMS for mode in ("jit", "pmap"))
        eight = pool.submit(run, out / "8.npz", 8, runs)
        concurrent.futures.wait([one, eight])
        runs = ",".join(ON_TWO)
        two = [pool.submit(run, out / f"{i}.npz", 4, runs, address, i) for i in (0, 1)]
    return {"1": one.result(), "8": eight.result(), "2x4": [future.result() for future in two]}


def assert_equal_runs(reference: dict, other: dict, run: str) -> None:
    system = run.split(":")[0]
    wanted = {k.split("/", 1)[1]: v for k, v in reference.items() if k.startswith(f"{system}:jit/")}
    given = {k.split("/", 1)[1]: v for k, v in other.items() if k.startswith(f"{run}/")}
    assert wanted.keys() == given.keys() and len(wanted) > 10
    for name, value in wanted.items():
        assert value.dtype == given[name].dtype and value.shape == given[name].shape, name
        value, near = value.astype(np.float64), given[name].astype(np.float64)
        scale = max(np.abs(value).max(initial=0), FLOOR.get(system, 1e-12))
        error = np.abs(value - near).max(initial=0) / scale
        bound = IDLE.get(system, TOLERANCE) if name.endswith("/bias") else TOLERANCE
        # What a system logs or steers by in float32 carries that type's rounding.
        assert error < (1e-6 if given[name].dtype == np.float32 else bound), (name, error)


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_eight_devices_equal_one(numbers, system, mode):
    """State, gradients (kept by both optimizers) and metrics after one step and after two."""
    assert_equal_runs(numbers["1"], numbers["8"], f"{system}:{mode}")


@pytest.mark.parametrize("run", ON_TWO)
def test_two_processes_of_four_equal_one(numbers, run):
    for process in numbers["2x4"]:
        assert_equal_runs(numbers["1"], process, run)


def test_gradients_are_compared(numbers):
    """The momentum after the first step is the gradient, and it is not nothing."""
    trace = {k: v for k, v in numbers["1"].items() if "/1/state/opt_state/0/trace/" in k}
    norm = np.sqrt(sum((v**2).sum() for v in trace.values()))
    assert norm == pytest.approx(float(numbers["1"]["conv_net:jit/1/metrics/gradient"]), rel=1e-12)
    assert norm > 0.1


def test_a_signal_to_one_process_stops_both_after_the_same_step(numbers):
    """Both also restored, bit for bit, the checkpoint that the first of them wrote."""
    first, second = (int(process["stopped"]) for process in numbers["2x4"])
    assert first == second > 6


def test_batches_that_do_not_split_are_refused():
    parallel.check_batch(32, 2)
    with pytest.raises(UserError, match="multiple of 16, for example 16"):
        parallel.check_batch(24, 2)
    with pytest.raises(UserError, match="for example 8"):
        parallel.check_batch(4)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_options_that_the_environment_settles_are_left_alone(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000000000")
    told = {}
    libc = types.SimpleNamespace(mallopt=told.__setitem__)
    monkeypatch.setattr(parallel.ctypes, "CDLL", lambda name: libc)
    parallel.keep_memory()
    assert told == {-4: 0, -2: 2**28}  # nothing mapped, grown by 256 MiB
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    parallel.keep_memory()
    assert told[-1] == -1  # never trimmed


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_steps_find_the_memory_of_the_step_before():
    """Page faults of a program with 200 MB of temporary arrays, in a process of its own."""
    about = """
import resource
from jaxface import parallel

parallel.keep_memory()
import jax, jax.numpy as jnp

program = jax.jit(lambda x: (x @ x.T)[::1000, ::1000])
x = jnp.ones([7000, 8])
for _ in range(16):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(program(x))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", about], capture_output=True, text=True, check=True)
    faults = list(map(int, done.stdout.split()))
    # A step now and then takes a new place; where a thread of XLA's has its own arena, each one does.
    assert faults[0] > 20_000 and sorted(faults)[3] < 2_000, faults


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_goes_back_to_the_system():
    """A freed gigabyte that the allocator was told to keep, in a process of its own."""
    about = """
import ctypes
from jaxface import parallel

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

parallel.keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
block, above = libc.malloc(2**30), libc.malloc(2**20)  # what lies above keeps the heap from shrinking
ctypes.memset(block, 1, 2**30)
libc.free(block)
kept = resident()
parallel.release_memory()
print(kept, resident())
"""
    done = subprocess.run([sys.executable, "-c", about], capture_output=True, text=True, check=True)
    kept, left = map(int, done.stdout.split())
    assert kept > 1024 and left < kept - 900


def test_memory_goes_back_between_two_programs_where_a_step_is_long(monkeypatch):
    clock, released = [0.0], []
    monkeypatch.setattr(parallel.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(parallel, "release_memory", lambda: released.append(clock[0]))
    turns = parallel.Turns()
    for program, seconds in [("a", 9), ("a", 9), ("b", 1), ("a", 9), ("b", 9), ("b", 1), ("a", 1)]:
        with turns.of(program):
            clock[0] += seconds
    assert released == [18, 28]  # before the two turns of b that come after a long step of a


def test_unknown_compilation_is_refused():
    with pytest.raises(UserError, match="jit' or 'pmap"):
        parallel.compile_step(lambda *a, **k: a, parallel.make_mesh(), "pjit")


def test_a_step_that_was_compiled_aside_is_not_traced_again():
    """A state as `place_state` makes it fits the program that was compiled from shapes alone."""
    traced = []

    def step(state, batch, key, *, axis=None):
        traced.append(1)
        return jax.tree.map(lambda x: x + batch["x"].sum(), state), {}

    mesh, key = parallel.make_mesh(), jax.random.key(0)
    state = {"w": np.zeros([3], np.float32), "n": np.zeros([], np.float32)}
    batch = {"x": np.arange(8.0, dtype=np.float32)}
    step_fn = parallel.compile_step(step, mesh, "jit")
    shapes = jax.eval_shape(lambda: state)
    parallel.compile_aside(parallel.lower_step(step_fn, shapes, batch, {}, key, mesh))()
    placed = parallel.place_state(state, mesh), parallel.place_batch(batch, mesh)
    new, _ = step_fn(*placed, {}, key)
    assert len(traced) == 1 and new["n"] == 28


def test_what_goes_wrong_aside_is_told():
    def fails(x):
        raise RuntimeError("out of memory")

    lowered = types.SimpleNamespace(compile=lambda: fails(1))
    wait = parallel.compile_aside(lowered)
    with pytest.raises(RuntimeError, match="out of memory"):
        wait()


def test_resident_rows_replace_the_index():
    step = lambda state, batch, key, *, axis=None: (state + batch["x"].sum(), {"y": batch["y"]})
    mesh = parallel.make_mesh()
    resident = parallel.place_state({"x": np.arange(10.0)}, mesh)
    batch = {"index": np.array([1, 1, 2, 9] * 2), "y": np.arange(8)}
    state, metrics = parallel.compile_step(step, mesh, "jit")(
        parallel.place_state(np.float32(5), mesh),
        parallel.place_batch(batch, mesh),
        resident,
        jax.random.key(0),
    )
    assert state == 5 + 2 * 13 and metrics["y"].tolist() == list(range(8))


def test_helpers_do_nothing_without_an_axis():
    x = jnp.arange(3.0)
    assert parallel.pmean(x) is x and parallel.gather(x) is x
