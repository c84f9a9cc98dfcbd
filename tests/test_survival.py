"""A run that was killed and stopped on its way ends as the one that was not, bit for bit."""

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxface.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 20  # of cleftgan, R1 acts in the first and in the 17th; batches are of 8
SMALLER = {  # than :tiny, of which every process would trace and compile more
    "cleftgan": ["resolution=16", "num_layers=3", "margin_size=2", "mapping_layers=1"],
    "uvphoto": ["ngf=2"],
    "uvphoto_v2": ["ngf=2", "inverse_blocks=1"],
    "edema_pretrain": ["width=2"],
}
LENGTH = {  # in thousand images
    "cleftgan": "kimg",
    "uvphoto": "kpatches",
    "uvphoto_v2": "kpatches",
    "edema_pretrain": "kframes",
}
KILLED = {"cleftgan": (3, 8, 12)}  # after these steps; others after the 8th alone
TABLES = {"uvphoto": {"spot_ratios.csv"}, "uvphoto_v2": {"spot_ratios.csv"}}
LIMIT = 30.0  # seconds that a scheduler waits between SIGTERM and SIGKILL


@pytest.fixture(scope="module")
def launch(phantoms):
    """Starts the launcher on an experiment's tiny scale in a process of its own, on its own devices."""
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])

    def start(workdir, name="cleftgan"):
        return subprocess.Popen(
            [sys.executable, "launch.py", f"--experiment={name}:tiny", f"--workdir={workdir}"]
            + [
                f"--config.{LENGTH[name]}={STEPS * 8 / 1000}",
                "--config.save_every=2",
                "--config.sample_every=9",
            ]
            + [f"--config.{change}" for change in SMALLER[name]],
            cwd=ROOT,
            env=os.environ | {"XLA_FLAGS": flags, "JAXFACE_CACHE": str(phantoms)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def finish(process, code: int = 0, timeout: float = 400) -> str:
    text = process.communicate(timeout=timeout)[0]
    assert process.returncode == code, text
    return text


def wait_for(process, reached) -> None:
    """Returns as soon as `reached()`; fails if the process ends before that."""
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def logged(workdir) -> int:
    """The last step in metrics.jsonl, 0 before the first."""
    file = workdir / "metrics.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def final_state(workdir) -> dict:
    """Every leaf of the newest checkpoint as (dtype, shape, bytes)."""
    tree, _ = Checkpoints(workdir / "checkpoints").load(workdir)
    return {k: (v.dtype, v.shape, v.tobytes()) for k, v in flatten_dict(tree, sep="/").items()}


def flip_a_bit(folder: pathlib.Path) -> str:
    """Damages the largest file under a folder and returns its name."""
    largest = max(folder.rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    return largest.name


@pytest.mark.parametrize("name", LENGTH)
def test_killed_damaged_and_stopped_equals_the_straight_run(launch, tmp_path_factory, name):
    straight, tmp_path = tmp_path_factory.mktemp("straight"), tmp_path_factory.mktemp("run")
    finish(launch(straight, name))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    rng = random.Random(0)
    for step in KILLED.get(name, (8,)):
        process = launch(tmp_path, name)
        wait_for(process, lambda step=step: logged(tmp_path) >= step)
        time.sleep(rng.uniform(0, 0.2))  # anywhere: in a step, a grid or a save
        process.kill()
        process.communicate()
    assert logged(tmp_path) < STEPS

    older, newest = checkpoints.steps()[-2:]
    damaged = flip_a_bit(tmp_path / "checkpoints" / str(newest))
    process = launch(tmp_path, name)
    wait_for(process, lambda: logged(tmp_path) >= 15)
    process.send_signal(signal.SIGTERM)
    text = finish(process, 143, LIMIT)
    assert f"{newest} is damaged" in text and damaged in text
    assert f"Continuing at step {older} of {STEPS}" in text
    step = checkpoints.newest()
    assert f"step {step} is saved" in text.lower() and 15 <= step < STEPS

    text = finish(launch(tmp_path, name))
    assert f"Continuing at step {step} of {STEPS}" in text
    state, expected = final_state(tmp_path), final_state(straight)
    assert state.keys() == expected.keys() and len(state) > 50
    # Optimizers keep vectors: few leaves, but no fewer numbers than there are weights.
    held = lambda part: sum(len(x[2]) for name, x in state.items() if name.startswith(part))
    assert held("opt_state/") >= held("params/") > 0
    assert [leaf for leaf in expected if state[leaf] != expected[leaf]] == []
    assert int(np.frombuffer(state["step"][2], np.int32)[0]) == STEPS
    tables = {file.name for file in straight.glob("*.csv")}
    assert tables == TABLES.get(name, set())
    for file in {"metrics.jsonl", "results.json"} | tables:
        assert (tmp_path / file).read_text() == (straight / file).read_text()


@pytest.mark.parametrize("moment", ["import", "start"])
def test_a_signal_before_the_first_step_says_that_nothing_is_lost(launch, tmp_path, moment):
    """At the start programs are compiled in threads of their own, which must not keep the process."""
    process = launch(tmp_path / "run")
    if moment == "start":
        wait_for(process, (tmp_path / "run" / "samples" / "reals.png").exists)
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    text = finish(process, 143, LIMIT)
    assert time.monotonic() - began < 5
    doing = {"import": "importing", "start": "(starting|drawing samples|compiling)"}[moment]
    assert re.search(f"Stopped while {doing}: no step finished yet.", text)
