"""Exports: other programs get the numbers that the generator gives here."""

import dataclasses
import importlib.util
import json

import jax
import numpy as np
import pytest

from experiments import cleftgan as experiment
from jaxface import export, start, train
from jaxface.checkpoint import Checkpoints
from jaxface.systems import cleftgan
from jaxface.workdir import Workdir, as_dict

TINY = dataclasses.replace(experiment.tiny, resolution=16, num_layers=3, augment_pipe="")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir of random weights after --mode=export, its system and its state."""
    path = tmp_path_factory.mktemp("export")
    system = cleftgan.build(TINY)
    workdir = Workdir(path)
    workdir.prepare(as_dict(TINY), {"experiment": "cleftgan", "scale": "tiny"})
    state = jax.jit(system.init)(jax.random.key(0))
    checkpoints = Checkpoints(path / "checkpoints", keep=1, log=print)
    here = as_dict(dataclasses.replace(TINY, data_dir="/home/somebody/photographs"))
    about = {"experiment": "cleftgan", "command": "python launch.py --workdir=/home/somebody/run"}
    checkpoints.save(0, state, {"config": here, "run": about}, wait=True)
    assert train.export(system, TINY, workdir) == 0
    return system, state, path / "export", checkpoints.digest(0)


def test_stablehlo_gives_the_same_pictures_at_any_batch(run):
    system, state, folder, _ = run
    loaded = jax.export.deserialize(bytearray((folder / "generator.stablehlo").read_bytes()))
    function, takes = system.export(state).functions["generator"]
    for batch in (1, 3):
        z = np.random.default_rng(batch).standard_normal((batch, *takes["z"])).astype(np.float32)
        there, here = np.asarray(loaded.call(z)), np.asarray(jax.jit(function)(z))
        assert there.shape == (batch, 16, 16, 3)
        np.testing.assert_allclose(there, here, atol=1e-5)


def test_arrays_can_be_started_from(run):
    _, state, folder, _ = run
    tree, about = start.read(str(folder / "networks.safetensors"), say=lambda line: None)
    for part in ("params", "ema"):
        same = jax.tree.map(np.array_equal, tree[part], jax.device_get(getattr(state, part)))
        assert jax.tree.all(same)
    assert about["kind"] == "export"


def test_description_names_every_file_and_the_checkpoint(run):
    _, _, folder, digest = run
    text = json.loads((folder / "about.json").read_text())
    assert text["about"]["checkpoint_sha256"] == digest and "synthetic" in text["about"]
    written = {file.name for file in folder.iterdir()} - {"about.json", "networks.json"}
    assert set(text["files"]) == written
    assert text["files"]["generator.stablehlo"]["arguments"] == {"z": ["batch", 8]}


def test_onnx_is_written_or_said_how(run, tmp_path):
    system, state, _, _ = run
    lines = []
    export.write(tmp_path, system.export(state), {"seed": "0"}, lines.append)
    there = (tmp_path / "generator.onnx").exists()
    assert there == (importlib.util.find_spec("jax2onnx") is not None)
    assert any(line.startswith("ONNX: ") and ("jax2onnx" in line or there) for line in lines)


def test_a_pack_starts_a_run_and_tells_nothing_of_the_machine(run, tmp_path):
    _, state, folder, _ = run
    start.pack(str(folder.parent), str(tmp_path / "pack.npz"))
    tree, about = start.read(str(tmp_path / "pack.npz"), say=lambda line: None)
    assert about["run"] == {"experiment": "cleftgan"} and about["config"]["z_dim"] == TINY.z_dim
    assert "somebody" not in json.dumps({k: v for k, v in about.items() if k != "path"})
    with np.load(tmp_path / "pack.npz") as arrays:
        assert "somebody" not in str(arrays["__meta__"])
    close = jax.tree.map(
        lambda packed, kept: np.allclose(packed, kept, rtol=1e-3, atol=1e-6),
        tree["ema"],
        jax.device_get(state.ema),
    )
    assert jax.tree.all(close)
