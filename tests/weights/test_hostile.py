"""Hostile files against every door, in a process of its own that may not execute, linger or swell."""

import json
import pathlib
import subprocess
import sys

import hostile
import pytest

ROOT = pathlib.Path(__file__).parents[2]
SECONDS, BYTES = 5, 1 << 30
DOORS = ("read_torch", "read_nvidia_snapshot", "start")

READER = """
import json, resource, sys, time

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
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
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
    assert not pathlib.Path("/tmp", hostile.CANARY).exists()
    assert {p.name for p in folder.iterdir()} == {name for name, _, _ in hostile.FILES}


def test_the_canary_sings(tmp_path):
    """The commands that the files hold do what the test above looks for."""
    subprocess.run(hostile.COMMAND.split(), cwd=tmp_path, check=True)
    assert (tmp_path / hostile.CANARY).exists()
    (tmp_path / hostile.CANARY).unlink()
    subprocess.run([sys.executable, "-c", hostile.CODE], cwd=tmp_path, check=True)
    assert (tmp_path / hostile.CANARY).exists()
