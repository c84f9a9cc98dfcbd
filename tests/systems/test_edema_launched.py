"""Edema from the command line: many patients, then a model each, then a video of one of them."""

import csv
import json

import films
import numpy as np
import pytest
from PIL import Image

import launch
from jaxface.preemption import Preemption

pytestmark = pytest.mark.usefixtures("few_resamples")


def run(*arguments) -> int:
    with Preemption() as preemption:
        return launch.guarded(["launch.py", *map(str, arguments)], preemption)


@pytest.fixture(scope="module")
def trained(phantoms, tmp_path_factory):
    """(workdir of the pre-training, workdir of the models)"""
    folder = tmp_path_factory.mktemp("edema")
    first, second = folder / "first", folder / "second"
    assert run("--experiment=edema_pretrain:tiny", f"--workdir={first}") == 0
    start = (f"--init_from={first}", "--config.save_every=20")  # of 54 steps
    assert run("--experiment=edema:tiny", f"--workdir={second}", *start) == 0
    return first, second


def test_both_stages_leave_numbers_pictures_and_a_report(trained):
    for workdir, names in zip(
        trained,
        (
            {"video_accuracy_frozen", "mae_kg_frozen"},
            {"video_accuracy", "mae_kg_scratch", "video_accuracy_baseline_background"},
        ),
    ):
        results = json.loads((workdir / "results.json").read_text())
        assert names <= set(results)
        page = (workdir / "report.html").read_text()
        assert all(name in page for name in names) and "data:image/" in page
        assert list((workdir / "samples").glob("*.png"))
    with open(trained[1] / "patients.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == results["video_accuracy"]["n"]
    assert (trained[1] / "samples" / f"days_{rows[0]['subject']}.png").exists()
    lineage = json.loads((trained[1] / "lineage.json").read_text())
    assert lineage["starts"][0]["init_from"] == str(trained[0])


def patient_of(workdir) -> str:
    with open(workdir / "patients.csv", newline="") as file:
        return next(csv.DictReader(file))["subject"]


def test_videos_of_a_patient_are_read(trained, tmp_path, capsys):
    workdir, folder = trained[1], tmp_path / "videos"
    folder.mkdir()
    frames = [films.moved(films.still(), k % 3, k % 2) for k in range(12)]
    films.write(folder / "upright.mp4", frames)
    films.write(folder / "turned.mp4", [np.rot90(frame, -1) for frame in frames], turn=90)
    (folder / "broken.mp4").write_bytes(b"no video at all")
    name = patient_of(workdir)
    asked = ("--mode=sample", f"--workdir={workdir}", f"--input={folder}")
    assert run(*asked, f"--config.patient={name}") == 0
    told = capsys.readouterr().out
    assert "not read: broken.mp4: no readable video" in told
    with open(workdir / "readings.csv", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert rows["broken.mp4"]["error"]
    for one in ("upright.mp4", "turned.mp4"):
        row = rows[one]
        assert row["frames_used"] == "2"
        if row["weight_kg"] != "withheld":
            assert (
                float(row["weight_kg_low"]) < float(row["weight_kg"]) < float(row["weight_kg_high"])
            )
        stem = row["folder"]
        assert Image.open(workdir / "readings" / stem / "frames.png").size == (64, 32)
        assert Image.open(workdir / "readings" / stem / "days.png").size[0] == 1600
    up, turned = (np.asarray(Image.open(workdir / f"readings/{s}/frames.png"), int) for s in
                  ("upright", "turned"))  # fmt: skip
    assert np.abs(up - turned).mean() < 6  # the same frames, but for the codec
    page = (workdir / "readings.html").read_text()
    assert "Nothing here replaces the scales" in page and "2 videos" in page


def test_a_patient_must_be_named(trained, tmp_path, capsys):
    films.write(tmp_path / "a.mp4", [films.still()] * 12)
    asked = ("--mode=sample", f"--workdir={trained[1]}", f"--input={tmp_path / 'a.mp4'}")
    assert run(*asked) == 2
    assert "config.patient='': name the patient whose model is to read. Known: E" in (
        capsys.readouterr().err
    )
    assert run(*asked, "--config.patient=E9999") == 2


def test_a_folder_without_videos(trained, tmp_path, capsys):
    (tmp_path / "note.txt").write_text("nothing")
    asked = ("--mode=sample", f"--workdir={trained[1]}", f"--input={tmp_path}")
    assert run(*asked, f"--config.patient={patient_of(trained[1])}") == 2
    assert "no video in it (MP4, MOV" in capsys.readouterr().err
