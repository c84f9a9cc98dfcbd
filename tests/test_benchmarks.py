"""The harness that times ours beside a comparator: what it reports, and that what it times still runs."""

import inspect
import json
import sys

import jax
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import cyclegan, harness, steps
from jaxface.models import layers, patchgan, translator

TINY = dict(batch=1, side=16, channels=2)


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")


def test_every_case_takes_its_sizes():
    names = {suite: list(harness.cases(suite)) for suite in harness.SUITES}
    assert {"stylegan3_t_iteration_64_small", "stylegan3_t_iteration_64"} < set(names["step"])
    assert all(names.values()) and set(command.CEILINGS) < set(names["ops"])
    for suite in harness.SUITES:
        for case in harness.cases(suite).values():
            for build in filter(None, (case.ours, case.theirs)):
                parameters = inspect.signature(build).parameters.values()
                if all(p.kind is not p.VAR_KEYWORD for p in parameters):
                    inspect.signature(build).bind(**case.sizes)


def test_two_processes_by_turns_and_a_file_of_results(monkeypatch, tmp_path, capsys):
    pytest.importorskip("torch")
    case = harness.cases("ops")["upsample"]._replace(sizes=TINY)
    monkeypatch.setitem(harness.cases("ops"), "upsample", case)
    file = tmp_path / "speed.json"
    file.write_text(json.dumps({"ops": {"earlier": {}}, "tiles": {}}))
    arguments = ["--suite=ops", "--only=upsample", "--repeats=3", f"--json={file}"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    assert command.main() == 0
    assert "upsample" in capsys.readouterr().out
    kept = json.loads(file.read_text())
    assert set(kept) == {"ops", "tiles"} and "earlier" in kept["ops"]
    found = kept["ops"]["upsample"]
    assert found["ratio"] == found["torch_seconds"] / found["seconds"]
    assert found["spread"][0] <= found["seconds"] <= found["spread"][1]
    assert found["torch_spread"][0] <= found["torch_seconds"] <= found["torch_spread"][1]
    for peak in ("peak_bytes", "torch_peak_bytes"):
        assert 2**26 < found[peak] < 2**32
    assert 0 < found["compile_seconds"] < 100


def test_without_pytorch_its_column_is_empty(monkeypatch):
    monkeypatch.setattr(harness, "has_torch", lambda: False)
    ours, theirs = harness.measure("ops", "upsample", 1, TINY)
    assert theirs is None and ours.operations > 0
    assert harness.entry(ours, theirs)["ratio"] is None


def test_a_worker_that_dies_is_named():
    with pytest.raises(harness.Died, match="ops/copy, ours"):
        harness.measure("ops", "copy", 1, {"mebibytes": -1})


def test_an_unknown_case_is_answered_with_those_there_are(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--suite=tiles", "--only=unet"])
    with pytest.raises(SystemExit):
        command.main()
    assert "unet_tiles" in capsys.readouterr().err


def test_shares_of_calls_add_up_and_rare_ones_are_timed_once():
    class Worker:
        about = {"compile_seconds": 1.0, "operations": None, "bytes": None}

        def ask(self, word):
            return {"rare": {"seconds": [0.5, 0.25]}, "peak": {"bytes": 7}}[word]

    side = harness._side(Worker(), [[2.0, 1.0], [5.0, 0.0], [4.0, 0.0]])
    assert side.seconds == 4.75 and side.spread == (3.75, 5.75) and side.peak_bytes == 7


def test_cyclegan_is_the_same_step_on_both_sides():
    pytest.importorskip("torch")
    from benchmarks import torch_reference as reference

    config = cyclegan.Config(side=32, ngf=2, ndf=2, blocks=1)
    images = [steps.pixels(1, 32, 32, 3, seed=n) for n in range(2)]
    init, train_step = cyclegan.build(config)
    state = jax.jit(init)(jax.random.key(0))
    net = reference.CycleGAN(config, *images)
    net.G.to("cpu"), net.D.to("cpu")
    both = {
        "generator": (net.G, translator._names(translator.Translator(3, 1, 2))),
        "discriminator": (net.D, patchgan._names(patchgan.PatchGAN(ndf=2, norm="instance"))),
    }
    for where, (nets, names) in both.items():
        for name in "ab":
            arrays = layers.write({"params": state.params[where][name]}, names)
            reference.load(nets[name], arrays)
    _, metrics = jax.jit(train_step)(state, dict(zip("ab", images)), jax.random.key(1))
    loss_g, loss_d = net.step()
    np.testing.assert_allclose(metrics["loss/generator"], loss_g, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss/discriminator"], loss_d, rtol=1e-4)
