"""Headshots from the command line: train, report, read a photograph, and ask how much data is enough."""

import csv
import json

import drawn
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
    workdir = tmp_path_factory.mktemp("headshots") / "smile"
    assert run("--experiment=headshots_smile:tiny", f"--workdir={workdir}") == 0
    return workdir


def test_numbers_pictures_and_a_report(trained, capsys):
    results = json.loads((trained / "results.json").read_text())
    names = {"accuracy", "accuracy_published_protocol", "accuracy_shuffled_labels"}
    names |= {"accuracy_all_decided", "accuracy_baseline_majority", "accuracy_baseline_pixels"}
    names |= {"sensitivity", "auroc", "brier", "ece", "temperature", "gradcam_rank"}
    assert names <= set(results)
    assert "NOT of people" in results["accuracy_published_protocol"]["protocol"]
    assert results["accuracy"]["n"] == 10
    page = (trained / "report.html").read_text()
    assert "How many photographs are told right?" in page and "data:image/" in page
    shown = {file.stem for file in (trained / "samples").glob("*.png")}
    assert {"reals", "abstention", "reliability", "roc", "gradcam", "told_wrong"} <= shown


def test_photographs_are_read(trained, tmp_path, capsys):
    Image.fromarray(drawn.face()).save(tmp_path / "face.png")
    (tmp_path / "broken.jpg").write_bytes(b"no photograph")
    assert run("--mode=sample", f"--workdir={trained}", f"--input={tmp_path}") == 0
    assert "not read: broken.jpg" in capsys.readouterr().out
    with open(trained / "readings.csv", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    row = rows["face.png"]
    assert row["answer"] in ("smile", "no smile", "withheld") and rows["broken.jpg"]["error"]
    assert (row["answer"] == "withheld") == ("unlike all those" in row["warnings"])
    page = (trained / "readings.html").read_text()
    assert "It has learned what others said of photographs" in page and "spots" not in page


def test_a_dry_run_builds_nothing(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAXFACE_CACHE", str(tmp_path / "cache"))
    workdir = tmp_path / "run"
    assert run("--experiment=headshots_smile:tiny", "--dry_run", f"--workdir={workdir}") == 0
    text = capsys.readouterr().out
    assert "config.task = 'smile'" in text and "only the data tell" in text
    assert not workdir.exists() and not (tmp_path / "cache" / "data").exists()
    assert run("--mode=evaluate", f"--workdir={workdir}") == 2
    assert not (tmp_path / "cache" / "data").exists()


def test_a_study_ends_with_its_curve(trained, tmp_path):
    assert run("--experiment=headshots_quantity:tiny", f"--workdir={tmp_path}") == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert {"fit_a", "fit_b", "fit_c", "people_needed", "fit_c_1_photographs"} <= set(results)
    assert {"error_2_people", "error_5_people"} <= set(results)
    assert (tmp_path / "samples/error_by_people.png").exists()


def test_a_task_that_nobody_labelled(trained, tmp_path, capsys):
    workdir = tmp_path / "run"
    asked = ("--experiment=headshots_sex:tiny", f"--workdir={workdir}", "--config.task=sec")
    assert run(*asked) == 2
    assert "config.task='sec'" in capsys.readouterr().err
