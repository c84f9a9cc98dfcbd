"""--mode=evaluate of a folder of pictures: the same numbers, under their own names."""

import dataclasses
import json

import numpy as np
import pytest
from calm import Calm
from PIL import Image

from experiments import cleftgan as experiment
from jaxface import train
from jaxface.errors import UserError
from jaxface.systems import cleftgan
from jaxface.workdir import Workdir, as_dict


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate")
    config = dataclasses.replace(
        experiment.tiny, resolution=16, num_layers=3, build_dir=str(path / "data")
    )
    workdir = Workdir(path / "run")
    workdir.prepare(as_dict(config), {"experiment": "cleftgan", "scale": "tiny"})
    return cleftgan.build(config), config, workdir


def save(folder, pictures):
    folder.mkdir()
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index}.png")


def test_real_pictures_are_nearer_than_noise(run, tmp_path):
    system, config, workdir = run
    reals = system.resident()["image"]
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    save(tmp_path / "reals", reals)
    save(tmp_path / "noise", noise)  # of twice the side: they are scaled
    values = {}
    for name in ("reals", "noise"):
        assert not train.evaluate(system, config, workdir, Calm(), str(tmp_path / name))
        results = json.loads((workdir.path / "results.json").read_text())
        assert all(key.startswith("folder_") for key in results)
        values[name] = results["folder_kid_mobilenetv2"]
    assert values["reals"]["value"] <= 0 < values["noise"]["low"]
    assert "20 generated" in values["noise"]["protocol"]
    assert (workdir.path / "report.html").exists()


def test_what_cannot_be_judged_is_named(run, tmp_path):
    system, config, workdir = run
    with pytest.raises(UserError, match="nowhere"):
        train.evaluate(system, config, workdir, Calm(), str(tmp_path / "nowhere"))
    save(tmp_path / "wide", [np.zeros((8, 9, 3), np.uint8)])
    with pytest.raises(UserError, match=r"0\.png is 9 x 8 px"):
        train.evaluate(system, config, workdir, Calm(), str(tmp_path / "wide"))
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    save(tmp_path / "cut", noise)
    cut = tmp_path / "cut" / "1.png"
    cut.write_bytes(cut.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"1\.png"):
        train.evaluate(system, config, workdir, Calm(), str(tmp_path / "cut"))
