"""Small print of the loop: when it stops, what it remembers."""

import errno
import json

import numpy as np
import pytest

from jaxface import train
from jaxface import workdir as workdir_module
from jaxface.errors import UserError
from jaxface.system import Result, RunConfig, fit
from jaxface.workdir import Workdir, write_json
from tests import study


def test_too_many_skipped_updates_stop_the_run_by_name():
    config = RunConfig(max_skipped=3)
    train.stop_if_diverged({"skipped/in_a_row": 2.0, "skipped/r1": 2.0}, config, step=7)
    with pytest.raises(train.Diverged, match="step 7.*skipped/r1"):
        train.stop_if_diverged({"skipped/in_a_row": 3.0, "skipped/r1": 3.0}, config, step=7)


def test_records_after_the_checkpoint_are_written_again(tmp_path):
    workdir = Workdir(tmp_path)
    log = workdir.open_metrics(after_step=0)
    for step in (1, 2, 3):
        log.write_scalars(step, {"loss/x": step / 2})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "na')  # what a kill leaves behind
    log = workdir.open_metrics(after_step=2)
    assert log.has(2, "loss/") and not log.has(3, "loss/") and not log.has(2, "eval/")
    log.write_scalars(2, {"loss/x": 1.0})  # known already: said once
    log.write_scalars(3, {"loss/x": 9.0})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["value"]) for r in lines] == [(1, 0.5), (2, 1.0), (3, 9.0)]


@pytest.mark.parametrize("text", ['{"starts": [', "[]", '{"starts": null}', "\0"])
def test_a_damaged_lineage_is_set_aside(tmp_path, capsys, text):
    file = tmp_path / "lineage.json"
    for number, name in enumerate(("lineage.json.damaged", "lineage.json.damaged-2"), start=1):
        file.write_text(text * number)
        Workdir(tmp_path).note_lineage({"from_step": number}, {"step": 5})
        assert (tmp_path / name).read_text() == text * number
        content = {"starts": [{"from_step": number}], "now": {"step": 5}}
        assert json.loads(file.read_text()) == content
        assert f"it is kept as {name}" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "lineage.json.damaged").read_text() == text


def test_a_run_goes_on_where_its_lineage_cannot_be_written(tmp_path, capsys, monkeypatch):
    run, saved = tmp_path / "run", []

    def write(path, content):
        """As long as there is no second checkpoint the disk is full."""
        if path.name == "lineage.json":
            saved.append((run / "checkpoints/2").exists())
            if not saved[-1]:
                raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, content)

    study.photograph(tmp_path / "photographs")
    monkeypatch.setattr(workdir_module, "write_json", write)
    study.run(run, study.Config(data_dir=str(tmp_path / "photographs"), steps=2, save_every=2))
    said = " ".join(capsys.readouterr().out.split())
    assert "lineage.json cannot be written (No space left on device)" in said
    assert saved == [False, True]  # the start, and after the save that it waited for
    content = json.loads((run / "lineage.json").read_text())
    assert content["now"]["step"] == 2  # and the start is noted late
    assert [one["from_step"] for one in content["starts"]] == [0]
    with pytest.raises(UserError, match="lineage.json cannot be written"):
        Workdir(tmp_path / "photographs/manifest.csv").note_lineage()


def test_results_hold_no_number_that_json_has_not(tmp_path):
    known = Workdir(tmp_path).add_results({"kid": Result(0.5, float("nan"), None, 3)})
    assert known["kid"]["low"] is None and known["kid"]["value"] == 0.5
    assert json.loads((tmp_path / "results.json").read_text()) == known


def test_fit_lists_every_difference():
    target = {"a": np.zeros([2], np.float32), "b": {"c": np.zeros([3], np.float32)}}
    loaded = {"a": np.ones([2], np.float16), "b": {"c": np.ones([4])}, "d": np.ones([1])}
    with pytest.raises(UserError) as error:
        fit(target, loaded, "it")
    assert "b/c: (4,) in the file, (3,)" in str(error.value) and "d (1,)" in str(error.value)
    same = fit(target, {"a": loaded["a"], "b": {"c": np.ones([3])}}, "it")
    assert same["a"].dtype == np.float32 and same["a"].sum() == 2
