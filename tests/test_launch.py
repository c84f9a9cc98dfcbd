"""What a person at the command line meets: help, dry runs, and every mistake answered in one message."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from calm import Calm
from PIL import Image

import launch
from jaxface import cache

ROOT = pathlib.Path(__file__).parents[1]


def fails(capsys, *arguments) -> str:
    """Runs the launcher in-process and returns its one message; asserts exit code 2, no traceback."""
    status = launch.guarded(["launch.py", *arguments], Calm())
    output = capsys.readouterr()
    assert status == 2, output
    assert "Traceback" not in output.err + output.out
    return output.err


def test_help_is_quick_and_lists_experiments():
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "launch.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cleftgan" in done.stdout and "--workdir" in done.stdout
    assert "jax" not in done.stderr
    assert time.monotonic() - began < 60  # a hang, not a speed


def test_help_imports_nothing_heavy():
    code = (
        "import sys, launch; launch.main(['launch.py', '--help'], None);"
        "assert not {'jax', 'flax', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_a_run_waits_for_nothing_that_only_its_end_needs():
    """Drawing and statistics are a third of what there is to import."""
    code = (
        "import sys; from experiments import cleftgan, edema_pretrain, uvphoto; from jaxface import train;"
        "late = {'matplotlib', 'scipy.stats', 'scipy.sparse', 'scipy.spatial', 'sklearn', 'skimage.metrics'};"
        "assert not late & set(sys.modules), late & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_quick_runs_are_compiled_without_optimization(monkeypatch):
    """Tiny scales are, written in few ops too, and what a user has set himself stays."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2 --xla_dump_to=here")
    cache.compile_quickly()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[:2] == ["--xla_backend_optimization_level=2", "--xla_dump_to=here"]
    assert not any(flag.startswith("--xla_backend") for flag in flags[2:])
    monkeypatch.setenv("XLA_FLAGS", "")
    code = (
        "import os, launch; from calm import Calm; from jaxface import train; from jaxface.ops import here;"
        "train.dry_run = lambda *_: print(here.few_ops(), end=' ');"
        "launch.guarded(['launch.py', '--experiment=cleftgan:SCALE', '--dry_run'], Calm());"
        "print('level=0' in os.environ['XLA_FLAGS'], here.few_ops())"
    )
    for scale, quick in (("tiny", "True True False"), ("demo", "False False False")):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("SCALE", scale)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": "tests"},
            capture_output=True,
            text=True,
        )
        assert done.stdout.splitlines()[-1] == quick, done.stderr


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--experiment=cleftgn"], ["cleftgn", "cleftgan"]),
        (["--experiment=cleftgan:dem"], ["dem", "demo"]),
        (["--experiment=cleftgan", "--mode=trian"], ["trian", "train"]),
        (["--experiment=cleftgan:tiny", "--config.resolutoin=64"], ["resolutoin", "resolution"]),
        (["--experiment=cleftgan:tiny", "--workdri=x"], ["workdri", "workdir"]),
        (["--experiment=cleftgan:tiny", "--config.batch=eight"], ["batch", "eight"]),
        (["--experiment=cleftgan:tiny", "--config.resolution=48"], ["48", "power of two"]),
        (["--experiment=cleftgan:tiny", "--config.batch=6"], ["batch=6", "multiple"]),
        (["--experiment=cleftgan:tiny", "--init_from=/nowhere"], ["/nowhere"]),
        (["--mode=train"], ["--experiment"]),
    ],
)
def test_a_typo_names_the_nearest(capsys, tmp_path, arguments, words):
    message = fails(capsys, *arguments, f"--workdir={tmp_path / 'run'}")
    assert all(word in message for word in words), message
    assert not (tmp_path / "run").exists()


def test_batch_must_split_over_devices(capsys, tmp_path):
    message = fails(
        capsys, "--experiment=cleftgan:tiny", "--config.batch=12", f"--workdir={tmp_path / 'run'}"
    )
    assert "12" in message and "8 device" in message and "multiple of 8" in message


def test_unknown_data_set(capsys, tmp_path):
    message = fails(
        capsys,
        "--experiment=cleftgan:tiny",
        "--config.data=cleft_foldr",
        f"--workdir={tmp_path / 'r'}",
    )
    assert "cleft_folder" in message


def test_workdir_of_another_config(capsys, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"resolution": 128, "batch": 8}))
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    message = fails(capsys, "--experiment=cleftgan:tiny", f"--workdir={tmp_path}")
    assert "another config" in message and "resolution: 128 there" in message


def test_evaluate_without_a_run(capsys, tmp_path):
    for mode in ("evaluate", "sample", "report"):
        message = fails(
            capsys, "--experiment=cleftgan:tiny", f"--mode={mode}", f"--workdir={tmp_path / 'no'}"
        )
        assert str(tmp_path / "no") in message and "train" in message


def test_dry_run_writes_nothing(capsys, tmp_path):
    status = launch.guarded(
        ["launch.py", "--experiment=cleftgan:paper", "--dry_run", f"--workdir={tmp_path / 'run'}"],
        Calm(),
    )
    text = capsys.readouterr().out
    assert status == 0 and not list(tmp_path.iterdir())
    for words in (
        "config.resolution = 1024",
        "Memory on each",
        "Steps: 14375",
        "Writes:",
        "Reads:",
    ):
        assert words in text, words


# ---- folders of photographs -------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Twelve small pictures of nobody with their manifest."""
    path = tmp_path / "photos"
    path.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for index in range(12):
        pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{index}.png")
        rows.append({"file": f"{index}.png", "subject": f"S{index}", "consent": "yes"})
    write_manifest(path, rows)
    return path


def write_manifest(folder, rows):
    with open(folder / "manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "subject", "consent"])
        writer.writeheader()
        writer.writerows(rows)


def read_manifest(folder):
    with open(folder / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def train_on(folder, tmp_path):
    return [
        "--experiment=cleftgan:tiny",
        "--config.data=cleft_folder",
        "--config.align=false",
        f"--data_dir={folder}",
        f"--workdir={tmp_path / 'run'}",
    ]


def no_manifest(folder):
    (folder / "manifest.csv").unlink()
    return ["manifest.csv", "python -m jaxface.data.manifest"]


def row_without_file(folder):
    (folder / "3.png").unlink()
    return ["3.png", "row"]


def two_rows_with_one_file(folder):
    rows = read_manifest(folder)
    write_manifest(folder, rows + [rows[4]])
    return ["4.png", "row"]


def no_consent(folder):
    rows = read_manifest(folder)
    rows[5]["consent"] = ""
    write_manifest(folder, rows)
    return ["row 7", "consent", "research"]


def truncated(folder):
    data = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(data[: len(data) // 2])
    return ["2.png", "truncated"]


def bomb(folder):
    Image.new("RGB", (9000, 9000)).save(folder / "6.png", compress_level=9)
    return ["6.png", "9000"]


def nothing_readable(folder):
    for file in folder.glob("*.png"):
        file.write_text("not a picture")
    return ["0.png"]


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    return [str(folder)]


@pytest.mark.parametrize(
    "spoil",
    [
        no_manifest,
        row_without_file,
        two_rows_with_one_file,
        no_consent,
        truncated,
        bomb,
        nothing_readable,
        empty,
    ],
    ids=lambda f: f.__name__,
)
def test_a_spoiled_folder_is_refused_before_compute(capsys, tmp_path, folder, spoil):
    words = spoil(folder)
    message = fails(capsys, *train_on(folder, tmp_path))
    assert all(word in message for word in words), message
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_folder_that_is_not_there(capsys, tmp_path):
    message = fails(capsys, *train_on(tmp_path / "nowhere", tmp_path))
    assert "nowhere" in message


def test_no_disk_space(capsys, tmp_path, monkeypatch):
    usage = type("usage", (), {"total": 10, "used": 9, "free": 1})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = fails(
        capsys,
        "--experiment=cleftgan:tiny",
        "--config.num_subjects=4",
        f"--workdir={tmp_path / 'run'}",
    )
    assert "space" in message and str(tmp_path) in message


def test_a_disk_that_fills_up_is_named(capsys, monkeypatch):
    def full(argv, preemption):
        raise OSError(28, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr(launch, "main", full)
    assert launch.guarded(["launch.py"], Calm()) == 1
    message = capsys.readouterr().err
    assert "disk is full" in message and "metrics.jsonl" in message and "Traceback" not in message
