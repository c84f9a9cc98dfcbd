"""Hostile files against every door, in a process of its own that may not execute, linger or swell."""

import json
import pathlib
import random
import subprocess
import sys

import forge
import hostile
import numpy as np
import pytest

from jaxface.errors import UserError
from jaxface.weights import read_nvidia_snapshot, read_torch
from jaxface.weights.torch_file import tensor_globals
from jaxface.weights.unpickle import _OPCODES, Budget

ROOT = pathlib.Path(__file__).parents[2]
SECONDS, BYTES = 5, 1 << 30
DOORS = ("read_torch", "read_nvidia_snapshot", "start")

READER = """
import json, pathlib, re, sys, time

EXECUTES = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class"}
caught = []
sys.addaudithook(lambda event, _: caught.append(event) if event in EXECUTES else None)

import jax
from jaxface import start, weights
from jaxface.errors import UserError

jax.config.update("jax_compilation_cache_dir", None)
caught.clear()  # what imports do is their own affair
doors = {
    "read_torch": weights.read_torch,
    "read_nvidia_snapshot": weights.read_nvidia_snapshot,
    "start": lambda path: start.read(path, lambda line: None),
}
# Not ru_maxrss, which begins with what the process had that started this one.
status = pathlib.Path("/proc/self/status")
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) * 1024
print(json.dumps({"imports": peak()}))
for name in sys.argv[2:]:
    for door, read in doors.items():
        began = time.monotonic()
        try:
            read(f"{sys.argv[1]}/{name}")
            kind, text = "read", ""
        except UserError as error:
            kind, text = type(error).__name__, str(error)
        except BaseException as error:
            kind, text = type(error).__name__, repr(error)[:300]
        seconds = time.monotonic() - began
        line = {"file": name, "door": door, "kind": kind, "text": text, "seconds": seconds}
        print(json.dumps(line | {"peak": peak(), "caught": caught[:]}), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """{file: {door: what came of it}} from one child process, whose working folder stays empty."""
    folder, empty = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("empty")
    words = hostile.write_all(folder)
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder), *words],
        cwd=empty,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=len(words) * SECONDS,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    found = {name: {} for name in words}
    for line in lines[1:]:
        found[line["file"]][line["door"]] = line
    return found, lines[0]["imports"], sorted(p.name for p in [*empty.iterdir()]), folder


@pytest.mark.parametrize("name,words", [(n, w) for n, _, w in hostile.FILES], ids=lambda x: str(x))
def test_hostile_file_is_refused_in_a_line(outcomes, name, words):
    found = outcomes[0][name]
    assert set(found) == set(DOORS)
    for door, outcome in found.items():
        assert outcome["kind"] in ("UnsafeFileError", "UserError"), outcome
        assert "\n" not in outcome["text"] and len(outcome["text"]) < 1200, outcome
        assert outcome["text"].isprintable() and name in outcome["text"], outcome
        assert outcome["seconds"] < SECONDS, outcome
        assert outcome["peak"] < BYTES, outcome
        assert not outcome["caught"], f"{door} executed: {outcome['caught']}"
    assert any(
        outcome["kind"] == "UnsafeFileError" and all(word in outcome["text"] for word in words)
        for outcome in found.values()
    ), [outcome["text"] for outcome in found.values()]


def test_nothing_of_them_ran(outcomes):
    _, _, left, folder = outcomes
    assert left == []
    assert not [p for p in folder.parent.rglob(hostile.CANARY)]
    assert {p.name for p in folder.iterdir()} == {name for name, _, _ in hostile.FILES}


def piece(rng: random.Random) -> bytes:
    """A piece of a pickle as an author might have it who knows what the readers allow."""
    plain = [0, 1, -1, 2**40, 2**62, True, None, 1.5, (), (1, 2), (0,), (2**40,), [], {}, "a", "<"]
    held = forge.legacy_bytes(
        forge.storage("FloatStorage", "0", 6), {"0": np.arange(6, dtype=np.float32)}
    )
    several = lambda most: [piece(rng) for _ in range(rng.randrange(most))]
    parts = ("_parameters", "_buffers", "_modules", "_init_kwargs", "_init_args")
    return rng.choice(
        [
            lambda: forge.name(*rng.choice(NAMES)),
            lambda: forge.value(rng.choice([*plain, "float32", "f4", "latin1", "class"])),
            lambda: forge.raw(rng.choice([b"", b"1234", held])),
            lambda: forge.embedded_tensor(np.arange(6, dtype=np.float32)),
            lambda: bytes([rng.choice(list(_OPCODES))]),
            lambda: b"q" + bytes([rng.randrange(6)]),
            lambda: b"h" + bytes([rng.randrange(6)]),
            lambda: forge.call(forge.name(*rng.choice(NAMES)), *several(6)),
            lambda: forge.table({rng.choice("abG"): piece(rng) for _ in range(2)}),
            lambda: forge.row(*several(5)),
            lambda: piece(rng) + piece(rng) + b"b",
            lambda: forge.persistent(
                "Generator", forge.table({rng.choice(parts): piece(rng) for _ in range(2)})
            ),
        ]
    )()


NAMES = [*tensor_globals(Budget("x", 1)), ("dnnlib.util", "EasyDict")]


def test_random_programs_of_what_is_allowed(tmp_path):
    """Arrays or a refusal in a line, and no other error, whatever the allowed pieces are put to."""
    rng, file, outcomes = random.Random(0), tmp_path / "x", set()
    for _ in range(1500):
        names = rng.sample(["G", "G_ema", "D", "x", "augment_pipe"], 2)
        file.write_bytes(forge.whole(forge.table({name: piece(rng) for name in names})))
        for read in (read_torch, read_nvidia_snapshot):
            try:
                read(file)
                outcomes.add("read")
            except UserError as error:
                assert str(error).isprintable() and len(str(error)) < 1200
                outcomes.add(type(error).__name__)
    assert outcomes == {"read", "UserError", "UnsafeFileError"}


def test_the_canary_sings(tmp_path):
    """The commands that the files hold do what the test above looks for."""
    subprocess.run(hostile.COMMAND.split(), cwd=tmp_path, check=True)
    assert (tmp_path / hostile.CANARY).exists()
    (tmp_path / hostile.CANARY).unlink()
    subprocess.run([sys.executable, "-c", hostile.CODE], cwd=tmp_path, check=True)
    assert (tmp_path / hostile.CANARY).exists()
