"""Both UV-photo Nets from the command line: trained, judged, drawn, exported, asked about photographs."""

import csv
import dataclasses
import importlib
import json

import jax
import numpy as np
import pytest
from PIL import Image

import launch
from jaxface.data import photos
from jaxface.preemption import Preemption

pytestmark = pytest.mark.usefixtures("few_resamples")
STEPS = 3


def run(*arguments) -> None:
    with Preemption() as preemption:
        assert launch.guarded(["launch.py", *map(str, arguments)], preemption) == 0


@pytest.fixture(scope="module", params=["uvphoto", "uvphoto_v2"])
def trained(request, phantoms, tmp_path_factory):
    """(experiment, its workdir after a few steps)"""
    workdir = tmp_path_factory.mktemp(request.param) / "run"
    run(
        f"--experiment={request.param}:tiny",
        f"--workdir={workdir}",
        f"--config.kpatches={STEPS * 8 / 1000}",
    )
    return request.param, workdir


def test_a_run_leaves_numbers_pictures_and_a_report(trained):
    name, workdir = trained
    results = json.loads((workdir / "results.json").read_text())
    assert {"spot_ratio_r", "spot_ratio_r_color_gain", "spot_ratio_r_phone"} <= set(results)
    assert results["spot_ratio_r"]["n"] == 2
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["value"] for line in lines if line["name"] == "loss/l1"]
    assert len(losses) == STEPS and np.isfinite(losses).all()
    with open(workdir / "spot_ratios.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["device"] for row in rows} == {"device", "phone"}
    assert len(list((workdir / "samples").glob("*.png"))) >= 2
    page = (workdir / "report.html").read_text()
    assert "spot_ratio_r" in page and "data:image/" in page


def test_judged_again_it_is_the_same(trained):
    name, workdir = trained
    before = (workdir / "results.json").read_text()
    run(f"--experiment={name}:tiny", "--mode=evaluate", f"--workdir={workdir}")
    assert json.loads((workdir / "results.json").read_text()) == json.loads(before)


def test_photographs_are_read_and_the_blank_one_is_named(trained, phantoms, tmp_path):
    """A photograph of somebody who was held out is read in full size."""
    name, workdir = trained
    folder = tmp_path / "photographs"
    folder.mkdir()
    tiny = importlib.import_module(f"experiments.{name}").tiny
    config = dataclasses.replace(tiny, build_dir=str(phantoms / "data"))
    face = photos.open_photos(config, "heldout", paired=True).color(0)
    Image.fromarray(face).save(folder / "face.png")
    Image.new("RGB", (300, 300), "white").save(folder / "blank.png")
    run(f"--experiment={name}:tiny", "--mode=sample", f"--workdir={workdir}", f"--input={folder}")
    with open(workdir / "readings.csv", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert "no face" in rows["blank.png"]["error"] and not rows["face.png"]["error"]
    assert 0 <= float(rows["face.png"]["spot_ratio_right_cheek"]) <= 1
    with Image.open(workdir / "readings/face/uv.png") as picture:
        assert picture.size == face.shape[1::-1] and picture.mode == "L"
        assert np.ptp(picture) > 10


def test_exported_network_gives_the_same_patches(trained):
    name, workdir = trained
    run(f"--experiment={name}:tiny", "--mode=export", f"--workdir={workdir}")
    loaded = jax.export.deserialize(
        bytearray((workdir / "export" / "generator.stablehlo").read_bytes())
    )
    patches = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64, 3)).astype(np.float32)
    out = np.asarray(loaded.call(patches))
    assert out.shape == (3, 64, 64, 1) and np.abs(out).max() <= 1
    np.testing.assert_allclose(np.asarray(loaded.call(patches[1:2])), out[1:2], atol=1e-5)


def test_dry_run_writes_nothing(trained, tmp_path, capsys):
    name, _ = trained
    run(f"--experiment={name}:paper", "--config.data=phantom_uvphoto", "--dry_run",
        f"--workdir={tmp_path / 'run'}")  # fmt: skip
    told = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert "config.patch = 256" in told and "Steps: " in told and "Memory on each" in told
