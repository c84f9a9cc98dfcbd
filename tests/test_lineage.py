"""Whose data a checkpoint owes to, against the order that training has really drawn."""

import dataclasses
import json
import shutil
import types

import numpy as np
import pytest

import launch
from jaxface import lineage, patients, start, train, uv
from jaxface.checkpoint import Checkpoints, read_meta
from jaxface.data import pipeline
from jaxface.data.consent import Ledger
from jaxface.errors import UserError
from jaxface.reports import report
from jaxface.systems import cleftgan, edema
from jaxface.workdir import Workdir
from tests import study
from tests.clinic import Clinic


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photographs, a ledger, a run and one that started from the run's second checkpoint."""
    folder = tmp_path_factory.mktemp("study")
    study.photograph(folder / "photographs")
    study.consent(folder / "ledger", folder / "keys")
    config = study.Config(data_dir=str(folder / "photographs"), ledger=str(folder / "ledger"))
    study.run(folder / "run", config)
    child = dataclasses.replace(
        config, seed=1, steps=1, init_from=str(folder / "run/checkpoints/2")
    )
    study.run(folder / "child", child)
    return folder, config, child


def told(step_folder) -> dict:
    return read_meta(step_folder)[1]["lineage"]


def as_aliases(people: dict) -> dict:
    return {lineage.alias(person): sorted(images) for person, images in people.items()}


def test_every_checkpoint_names_those_it_has_drawn(place):
    folder, config, child = place
    sizes = []
    for step in (1, 2, 3, 4):
        found = told(folder / f"run/checkpoints/{step}")
        truth = as_aliases(study.drawn(config, folder / "run/data", step))
        assert found["consumed"] == truth
        assert (found["people"], found["images"]) == (len(truth), 8 * step)
        assert found["root"] == lineage.root(truth)
        assert found["ledger"] == lineage.Ledger.open(folder / "ledger").head
        assert (found["data"], found["purpose"]) == ("face_folder", "research")
        assert found["ancestors"] == []
        sizes.append(len(truth))
    assert sizes[0] < sizes[-1]  # else nothing above says when somebody came in


def test_a_transfer_carries_its_ancestors_people(place):
    folder, config, child = place
    found, parent = told(folder / "child/checkpoints/1"), told(folder / "run/checkpoints/2")
    assert found["consumed"] == as_aliases(study.drawn(child, folder / "child/data", 1))
    (ancestor,) = found["ancestors"]
    assert ancestor["checkpoint"] == read_meta(folder / "run/checkpoints/2")[0]
    assert ancestor["consumed"] == parent["consumed"] and ancestor["step"] == 2
    only_there = parent["consumed"].keys() - found["consumed"].keys()
    assert lineage.owes_to(found, only_there.pop()) == "transfer"
    assert lineage.owes_to(found, next(iter(found["consumed"]))) == "direct"
    assert lineage.owes_to(found, lineage.alias("somebody else")) == ""


def test_the_workdir_tells_counts_and_nobody(place):
    folder, _, _ = place
    for name in ("run", "child"):
        for file in ("lineage.json", "config.json", "report.html"):
            text = (folder / name / file).read_text()
            assert not [p for p in study.PEOPLE if p in text or lineage.alias(p) in text], file
    now = json.loads((folder / "child/lineage.json").read_text())["now"]
    full = told(folder / "child/checkpoints/1")
    assert now == lineage.summary(full) | {"step": 1}
    assert now["ancestors"][0]["people"] == len(full["ancestors"][0]["consumed"])


def test_the_report_says_it_in_a_sentence(place, tmp_path):
    folder, _, _ = place
    text = (folder / "child/report.html").read_text()
    now = json.loads((folder / "child/lineage.json").read_text())["now"]
    assert f"have learned from {now['people']} people and 8 pictures of them" in text
    parent = now["ancestors"][0]["people"]
    assert f"began as networks that had learned from {parent} people" in text
    assert now["ledger"][:16] in text and "withdrawn the consent" not in text
    gone = {
        "withdrawn": {"people": 2, "on": "2026-11-27"},
        "allowed": [{}],
        "starts": [{"data": "x"}],
    }
    (tmp_path / "lineage.json").write_text(json.dumps(gone))
    text = report.write(tmp_path).read_text()
    assert "2 of these people have withdrawn" in text and "used once (--allow_withdrawn)" in text


def test_a_resumed_run_tells_the_same(place, tmp_path):
    folder, config, _ = place
    config = dataclasses.replace(config, build_dir=str(folder / "run/data"))
    study.run(tmp_path / "run", dataclasses.replace(config, steps=2))
    study.run(tmp_path / "run", config)
    for step in (2, 3, 4):
        resumed = told(tmp_path / f"run/checkpoints/{step}")
        assert resumed == told(folder / f"run/checkpoints/{step}")


def test_who_went_in_stays_named_when_the_data_change():
    config = study.Config()
    before = {"consumed": {lineage.alias("gone"): ["a"]}, "ancestors": [{"checkpoint": "b"}]}
    found = lineage.Lineage(config, lambda step: {("here", "c"), ("weighed", "")}, before).at(3)
    assert found["consumed"] == {
        lineage.alias("gone"): ["a"],
        lineage.alias("here"): ["c"],
        lineage.alias("weighed"): [],
    }
    assert found["ancestors"] == before["ancestors"] and found["ledger"] == ""
    assert (found["people"], found["images"]) == (3, 2)


def test_the_root_depends_on_everybody_and_on_no_order():
    consumed = {"p": ["1", "2"], "q": []}
    assert lineage.root(consumed) == lineage.root({"q": [], "p": ["2", "1"]})
    for other in ({"p": ["1", "2"]}, {"p": ["1"], "q": []}, {"p": ["1"], "q": ["2"]}):
        assert lineage.root(other) != lineage.root(consumed)


def test_packs_name_the_checkpoint_and_nobody(place, tmp_path):
    folder, config, _ = place
    start.pack(str(folder / "run"), str(tmp_path / "pack.npz"))
    digest, meta = read_meta(folder / "run/checkpoints/4")
    with np.load(tmp_path / "pack.npz") as arrays:
        text = str(arrays["__meta__"])
    assert digest in text and meta["lineage"]["root"] in text
    assert not [p for p in study.PEOPLE if p in text or lineage.alias(p) in text]
    assert str(folder) not in text
    _, about = start.read(str(tmp_path / "pack.npz"), lambda line: None)
    (ancestor,) = about["ancestors"]
    assert ancestor["checkpoint"] == digest and ancestor["consumed"] is None
    assert ancestor["people"] == meta["lineage"]["people"]
    kept = json.loads((folder / "run/passed_on" / f"{digest}.json").read_text())
    assert kept[0]["consumed"] == meta["lineage"]["consumed"]


def test_a_pack_in_spite_of_a_withdrawal_is_recorded(tmp_path):
    state = {"step": np.int32(3), "params": {"generator": {"w": np.zeros(2, np.float32)}}}
    saved = Checkpoints(tmp_path / "checkpoints")
    saved.save(3, state, {}, wait=True)
    people = [{"person": "p", "on": "2026-01-02"}]
    stone = {"digest": saved.digest(3), "withdrawn": people}
    lineage.tombstone(tmp_path / "checkpoints/3").write_text(json.dumps(stone))
    with pytest.raises(UserError, match="1 person"):
        start.pack(str(tmp_path), str(tmp_path / "pack.npz"))
    start.pack(str(tmp_path), str(tmp_path / "pack.npz"), allow_withdrawn=True)
    (allowed,) = json.loads((tmp_path / "lineage.json").read_text())["allowed"]
    assert allowed["checkpoint"] == saved.digest(3) and allowed["people"] == 1


def test_withdrawn_people_close_a_copied_checkpoint_by_the_ledger(place, tmp_path, capsys):
    folder, config, child = place
    ledger = study.consent(tmp_path / "ledger", tmp_path / "keys")
    workdir = Workdir(folder / "run", gate=lineage.Gate(str(tmp_path / "ledger")))
    system = study.build(dataclasses.replace(config, build_dir=str(folder / "run/data")))
    state, _ = train.newest(system, config, workdir)
    assert int(state.step) == 4
    own = study.drawn(config, folder / "run/data", 2)
    person = next(p for p in own if p not in study.drawn(child, folder / "child/data", 1))
    ledger.withdraw(person)
    day = ledger.state(person).newest.time[:10]
    for name in ("run", "child"):
        gate = lineage.Gate(str(tmp_path / "ledger"))
        with pytest.raises(UserError) as refused:
            train.newest(system, config, Workdir(folder / name, gate=gate))
        message = str(refused.value)
        assert "study:tiny" in message and "1 person" in message and day in message
        assert "python launch.py --experiment=study" in message and "--allow_withdrawn" in message
        with pytest.raises(UserError, match="1 person"):
            start.read(
                str(folder / name), lambda line: None, lineage.Gate(str(tmp_path / "ledger"))
            )
    said = []
    gate = lineage.Gate(str(tmp_path / "ledger"), allow=True, say=said.append)
    workdir = Workdir(folder / "run", gate=gate)
    train.newest(system, config, workdir)
    assert len(said) == 1 and "--allow_withdrawn" in said[0]
    (allowed,) = json.loads((folder / "run/lineage.json").read_text())["allowed"]
    assert allowed["people"] == 1 and allowed["withdrawn_on"] == day
    assert allowed["checkpoint"] == read_meta(folder / "run/checkpoints/4")[0]
    # Who has not learned from the person is open as before, and so is everything to a ledger of others.
    if person not in study.drawn(config, folder / "run/data", 1):
        Checkpoints(folder, gate=lineage.Gate(str(tmp_path / "ledger"))).load(
            folder / "run/checkpoints/1"
        )
    train.newest(system, config, Workdir(folder / "run", gate=lineage.Gate(str(folder / "ledger"))))


def test_a_ledger_that_is_not_there_is_said(place, tmp_path):
    folder, config, _ = place
    path, said = folder / "run/checkpoints/1", []
    digest, meta = read_meta(path)
    lineage.Gate(say=said.append)(path, digest, meta)
    assert said == []
    meta["config"]["ledger"] = str(tmp_path / "moved")
    lineage.Gate(say=said.append)(path, digest, meta)
    (line,) = said
    assert str(path) in line and str(tmp_path / "moved") in line and "not there" in line
    said.clear()
    for gate in (lineage.Gate(config.ledger, say=said.append), lineage.Gate(say=said.append)):
        gate(path, digest, meta)
        meta["config"]["ledger"] = ""
    assert said == []


def test_an_older_ledger_put_back_is_known_by_the_checkpoint(place, tmp_path):
    """Its end and its signed head are gone together: by itself, the ledger is whole."""
    digest, meta = read_meta(place[0] / "run/checkpoints/1")
    study.consent(tmp_path / "ledger", tmp_path / "keys")
    meta["config"]["ledger"] = str(tmp_path / "ledger")
    meta["lineage"]["ledger"] = Ledger.open(tmp_path / "ledger").head
    lineage.Gate()(place[0] / "run/checkpoints/1", digest, meta)
    shutil.copytree(tmp_path / "ledger", tmp_path / "older")
    Ledger.open(tmp_path / "ledger", keys=tmp_path / "keys").give("late", "research")
    meta["lineage"]["ledger"] = Ledger.open(tmp_path / "ledger").head
    shutil.rmtree(tmp_path / "ledger")
    shutil.copytree(tmp_path / "older", tmp_path / "ledger")
    with pytest.raises(UserError, match="cut off or rewritten"):
        lineage.Gate()(place[0] / "run/checkpoints/1", digest, meta)


@pytest.mark.parametrize("asked", [(), ("--ledger=photographs/consent/",)])
def test_a_launched_run_names_its_ledger_for_every_working_directory(
    asked, tmp_path, monkeypatch, capsys
):
    """And the ledger among the photographs is not asked about normal faces, however it is named."""
    monkeypatch.setenv("JAXFACE_KEYS", str(tmp_path / "keys"))
    lineage.Ledger.open(tmp_path / "photographs/consent", create=True)
    lineage.Ledger.open(tmp_path / "everybody", create=True)
    monkeypatch.chdir(tmp_path)
    opened, runs = [], []
    empty = types.SimpleNamespace(fits_in_memory=False)
    monkeypatch.setattr(pipeline, "open_faces", lambda config: opened.append(config) or empty)
    monkeypatch.setattr(train, "dry_run", lambda *run: runs.append(run) or 0)
    arguments = ["--experiment=cleftgan:tiny", "--data_dir=photographs", "--workdir=run"]
    arguments += ["--config.data=cleft_folder", "--config.normals=face_folder", "--dry_run", *asked]
    assert launch.guarded(["launch.py", *arguments], study.Calm()) == 0, capsys.readouterr()
    ((_, config, _),) = runs
    assert config.ledger == str(tmp_path / "photographs/consent")
    for ledger, for_normals in (
        (config.ledger, ""),
        ("photographs/consent/", ""),
        ("everybody", "everybody"),
    ):
        opened.clear()
        cleftgan.build(dataclasses.replace(config, ledger=ledger)).resident()
        normals = next(one for one in opened if one.data == "face_folder")
        assert normals.ledger == for_normals


@pytest.mark.parametrize(
    "command,folder",
    [
        ("python launch.py '--data_dir=/home/o b'", "'--data_dir=/home/o b'"),
        ("python launch.py --data_dir=/home/o'brien", """'--data_dir=/home/o'"'"'brien'"""),
    ],
)
def test_a_refusal_repeats_any_command(command, folder, tmp_path):
    refused = lineage.refusal(tmp_path / "5", {"p": "2026-01-02"}, {"command": command})
    assert f"python launch.py {folder} --workdir=NEW_FOLDER" in str(refused)


def test_a_tombstone_holds_for_its_content_alone(place, tmp_path):
    path = tmp_path / "7"
    stone = lineage.tombstone(path)
    assert stone.name == "7.withdrawn.json" and lineage.withdrawals(path, "aa") == {}
    people = [{"person": "p", "on": "2026-01-02"}]
    stone.write_text(json.dumps({"digest": "aa", "withdrawn": people}))
    assert lineage.withdrawals(path, "aa") == {"p": "2026-01-02"}
    assert lineage.withdrawals(path, "bb") == {}
    stone.write_text(stone.read_text()[:-9])
    with pytest.raises(UserError, match=r"7\.withdrawn\.json"):
        lineage.withdrawals(path, "aa")


def test_drawn_goes_on_goes_back_and_ends():
    asked = []

    def records(step):
        asked.append(step)
        return {step, step + 1}

    drawn = pipeline.Drawn(records, lambda n: [(f"p{n // 2}", f"image {n}")], most=4)
    assert drawn(0) == set() and not asked
    assert drawn(1) == {("p0", "image 0"), ("p0", "image 1")}
    assert len(drawn(2)) == 3 and asked == [0, 1]
    assert len(drawn(100)) == 4 == len(drawn(1000)) and asked == [0, 1, 2]
    assert len(drawn(1)) == 2


@pytest.fixture
def clinic():
    config = edema.Config(
        data="none", side=4, frames=3, folds=3, fold=0, batch=8, steps=4, head_steps=2, together=2
    )
    return Clinic(config)


def test_pairs_of_frames_are_told_as_they_are_drawn(clinic):
    batches = patients.PairBatches(clinic, clinic.learned_from, 5, 0, 0, 1)
    told_ = patients.PairBatches(clinic, clinic.learned_from, 5, 0, 0, 1)
    for step in range(4):
        assert told_.drawn(step) == set(next(batches)["index"].ravel().tolist())
    clinic.who = lambda row: [(str(clinic.table.subject[row]), str(row))]
    consumed = patients.pairs_consumed(clinic)
    weighed = {(str(s), "") for s in clinic.table.subject[clinic.learned_from]}
    assert consumed(0) == set() and weighed < consumed(1) < consumed(3)
    assert not {s for s, _ in consumed(50)} & set(clinic.targets)


def test_frames_of_models_of_patients_are_told_as_they_are_drawn(clinic):
    jobs = patients.plan(clinic.targets, 2, ("1", "all"), 0)
    config = clinic.config
    batches = patients.JobBatches(clinic, jobs, config, 1.0, 0, 0, 1)
    clinic.who = lambda row: [(str(clinic.table.subject[row]), str(row))]
    consumed, seen = patients.jobs_consumed(clinic, jobs, config), set()
    weighed = {(str(s), "") for s in clinic.table.subject[clinic.learned_from]}
    for step in range(1, -(-len(jobs) // 2) * config.num_steps + 1):
        seen |= set(next(batches)["index"].ravel().tolist())
        assert consumed(step) - weighed == {(str(clinic.table.subject[i]), str(i)) for i in seen}
        assert weighed <= consumed(step)


class Few:
    """Photographs that are only counted."""

    def __init__(self, kind, number):
        self.kind, self.number = kind, number

    def __len__(self):
        return self.number

    def who(self, index):
        return [(f"{self.kind}{index}", f"color {index}")]


def test_every_pair_counts_at_once_and_phones_as_they_are_cut():
    config = uv.PhotoConfig(batch=1)
    photographs = uv.Photographs(config)
    photographs.paired, photographs.unpaired = Few("pair", 3), Few("phone", 4)
    cut = types.SimpleNamespace(drawn=lambda step: {step}, left_out=("the fourth",))
    photographs._cut = lambda *place: cut
    pairs = {one for i in range(3) for one in photographs.paired.who(i)}
    phones = lambda number: {one for i in range(number) for one in photographs.unpaired.who(i)}
    assert photographs.consumed(0, 0) == photographs.consumed(2, 0) == set()
    assert photographs.consumed(0, 5) == pairs
    # With phones in every second step from the first on: in steps 0, 2 and 4.
    for step, number in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (99, 3)):
        assert photographs.consumed(2, step) == pairs | phones(number), step
