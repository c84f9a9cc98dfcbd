"""One of 20 people withdraws: which models, whose bytes, and what is left of everybody else."""

import base64
import dataclasses
import hashlib
import io
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

from jaxface import lineage, start, train, weights, withdraw
from jaxface.checkpoint import Checkpoints, read_meta
from jaxface.data import pipeline
from jaxface.data.base import split_of
from jaxface.data.consent import Ledger
from jaxface.errors import UserError
from jaxface.reports.grid import SIDE
from jaxface.workdir import Workdir
from tests import study

RUN = study.Config(data_dir="photographs", build_dir="data", ledger="ledger")
OTHER = dataclasses.replace(RUN, seed=1, steps=2)
# Started from the run's second checkpoint, and from a pack of its fourth; with built data of its own.
CHILD = dataclasses.replace(RUN, steps=1, init_from="run/checkpoints/2", build_dir="")
GRANDCHILD = dataclasses.replace(RUN, seed=7, steps=1, init_from="pack.npz")


def truth(child: study.Config) -> dict[str, set[str]]:
    """{checkpoint: people whose data it owes to}, from the batches that training gets."""
    data = pathlib.Path("data")
    people = lambda config, steps: set(study.drawn(config, data, steps))
    found = {f"run/checkpoints/{s}": people(RUN, s) for s in range(1, 5)}
    found |= {f"other/checkpoints/{s}": people(OTHER, s) for s in (1, 2)}
    found["child/checkpoints/1"] = people(child, 1) | found["run/checkpoints/2"]
    found["grandchild/checkpoints/1"] = people(GRANDCHILD, 1) | found["run/checkpoints/4"]
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder with a whole study, the person, the child's config); the tests work on copies of it."""
    folder = tmp_path_factory.mktemp("study") / "tree"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFACE_KEYS", str(folder.parent / "keys"))
        study.photograph(folder / "photographs")
        patch.chdir(folder)
        study.consent(pathlib.Path("ledger"), folder.parent / "keys")
        study.run(pathlib.Path("run"), RUN)
        study.run(pathlib.Path("other"), OTHER)
        # Somebody whom the run meets in its second step and the child, by its own data, never.
        early, second = (set(study.drawn(RUN, pathlib.Path("data"), s)) for s in (1, 2))
        child = person = None
        for seed in range(2, 9):
            child = dataclasses.replace(CHILD, seed=seed)
            free = second - early - set(study.drawn(child, pathlib.Path("data"), 1))
            free -= set(study.drawn(OTHER, pathlib.Path("data"), 1))
            if free:
                person = min(free)
                break
        study.run(pathlib.Path("child"), child)
        start.pack("run", "pack.npz")
        study.run(pathlib.Path("grandchild"), GRANDCHILD)
        yield folder, person, child


@pytest.fixture
def tree(made, tmp_path, monkeypatch):
    """A copy of the study, which is the working directory, with keys of its own."""
    shutil.copytree(made[0], tmp_path / "tree")
    shutil.copytree(made[0].parent / "keys", tmp_path / "keys")
    monkeypatch.setenv("JAXFACE_KEYS", str(tmp_path / "keys"))
    monkeypatch.chdir(tmp_path / "tree")
    return tmp_path / "tree"


def snapshot(folder: pathlib.Path, but: str = "ledger") -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != but and path.name != ".lock"
    }


def photographs(folder: pathlib.Path, person: str) -> dict[str, bytes]:
    rows = (folder / "photographs/manifest.csv").read_text().splitlines()[1:]
    names = [row.split(",")[0] for row in rows if row.split(",")[1] == person]
    return {name: (folder / "photographs" / name).read_bytes() for name in names}


def records(folder: pathlib.Path) -> dict[str, list[bytes]]:
    """{shard: records as they stand in it} of all built data."""
    found = {}
    for path in sorted(folder.rglob("*.array_record-*")):
        reader = ArrayRecordReader(str(path))
        found[str(path.relative_to(folder))] = reader.read_all()
        reader.close()
    return found


def traces(folder: pathlib.Path, person: str, own: dict[str, bytes]) -> set[str]:
    """Files that hold the pseudonym, a photograph's bytes or a row of its pixels, packed or not."""
    pixels = [np.asarray(Image.open(io.BytesIO(png))) for png in own.values()]
    rows = [row.tobytes() for image in pixels for row in image]
    assert len(rows) == study.EACH * study.SIDE and len(set(rows)) == len(rows)
    names = [person.encode(), *(name.encode() for name in own)]
    factor = -(-SIDE // study.SIDE)  # grids enlarge
    large = [row.repeat(factor, axis=0).tobytes() for image in pixels for row in image]

    def holds(raw: bytes, deep: bool = True) -> bool:
        if any(x in raw for x in (*names, *rows, *own.values())):
            return True
        pictures = [raw[m.start() :] for m in re.finditer(rb"\x89PNG\r\n", raw)]
        for picture in pictures:
            drawn = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
            if any(row in drawn.tobytes() for row in rows + large):
                return True
        uris = re.findall(rb"base64,([A-Za-z0-9+/=]+)", raw) if deep else []
        return any(holds(base64.b64decode(uri), False) for uri in uris)

    found = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if not path.is_file() or name.parts[0] == "ledger":
            continue
        if path.name.endswith(lineage.TOMBSTONE):
            continue
        if holds(path.read_bytes()):
            found.add(str(name))
    for name, content in records(folder).items():
        if any(map(holds, content)):
            found.add(name)
    return found


def gone(tree, person, **more) -> str:
    return withdraw.withdraw(person, tree / "ledger", [tree], **({"photographs": "erase"} | more))


def test_affected_checkpoints_equal_brute_force(made, tree):
    _, person, child = made
    expected = {name for name, people in truth(child).items() if person in people}
    page = gone(tree, person)
    stones = {str(p.relative_to(tree)) for p in tree.rglob("*.withdrawn.json")}
    assert stones == {f"{n}.withdrawn.json" for n in expected} | {"pack.npz.withdrawn.json"}
    assert {"run/checkpoints/1", "other/checkpoints/1"} & expected == set()
    assert {"run/checkpoints/2", "child/checkpoints/1", "grandchild/checkpoints/1"} <= expected
    how = lambda name: json.loads((tree / f"{name}.withdrawn.json").read_text())
    assert how("run/checkpoints/2")["withdrawn"][0]["how"] == "direct"
    assert how("child/checkpoints/1")["withdrawn"][0]["how"] == "transfer"
    signed = how("child/checkpoints/1")["withdrawn"][0]["ledger"]
    Ledger.open(tree / "ledger").verify(signed)
    assert not Ledger.open(tree / "ledger").may_use(person, "research")
    # The manifests of the checkpoints are whole, and the page names all that was marked.
    for name in expected:
        Checkpoints(tree, gate=lambda *what: None).load(tree / name)
        assert str(tree / name) in page
    assert str(tree / "run/checkpoints/1") in page  # owes nothing: a place to start from
    commands = [line.strip() for line in page.splitlines() if line.strip().startswith("python ")]
    folders = [re.search(r"--workdir=\S*/(\w+)-retrained|pack-retrained", c) for c in commands]
    order = [m[1] or "pack" for m in folders if m]
    assert order.index("run") < order.index("child") and order.index("pack") < order.index(
        "grandchild"
    )
    assert any("run-retrained" in c and "child-retrained" in c for c in commands)


def test_nothing_of_the_person_is_left(made, tree):
    _, person, _ = made
    own = photographs(tree, person)
    before = traces(tree, person, own)
    for kind in ("array_record", "reals.png", "report.html", "manifest.csv", "events.out"):
        assert any(kind in name for name in before), kind  # else the search would find nothing
    page = gone(tree, person)
    assert traces(tree, person, own) == set()
    assert all(hashlib.sha256(png).hexdigest()[:16] in page for png in own.values())
    assert "Still named" not in page


def test_all_others_stay_as_they_are(made, tree):
    folder, person, _ = made
    before, files = records(tree), snapshot(tree)
    others = lambda content: [r for r in content if person.encode() not in r]
    gone(tree, person)
    after = records(tree)
    assert after.keys() == before.keys()
    assert {name: others(content) for name, content in before.items()} == after
    assert sum(map(len, before.values())) - sum(map(len, after.values())) == 2 * study.EACH
    left = snapshot(tree)
    changed = {n for n in files if files[n] != left.get(n)}
    for name in changed:
        kind = r"data/.*|.*\.png|.*events.*|.*captions\.json|.*report\.html|.*lineage\.json|.*manifest\.csv"
        assert re.fullmatch(kind, name) or "/data/" in name, name
    rows = (folder / "photographs/manifest.csv").read_text().splitlines()
    kept = (tree / "photographs/manifest.csv").read_text().splitlines()
    assert kept == [row for row in rows if f",{person}," not in row]
    # The rewritten build opens as any other, and a build from what is left has the same records.
    rewritten = tree / next(iter(after))
    infos = json.loads((rewritten.parent / "dataset_info.json").read_text())["splits"]
    assert sum(int(n) for s in infos for n in s["shardLengths"]) == 19 * study.EACH
    again = dataclasses.replace(RUN, build_dir="again")
    fresh = {bytes(r["id"]): r for split in ("train", "heldout") for r in _all(again, split)}
    assert len(fresh) == 19 * study.EACH
    built = [r for name, content in after.items() if name.startswith("data/") for r in content]
    assert sorted(built) == sorted(r for c in records(tree / "again").values() for r in c)


def _all(config, split) -> list[dict]:
    faces = pipeline.open_faces(dataclasses.replace(config, split=split))
    return [faces.source[i] for i in range(len(faces))]


def test_done_twice_nothing_changes(made, tree):
    gone(tree, made[1])
    once = snapshot(tree, but="")
    page = gone(tree, made[1])
    assert snapshot(tree, but="") == once
    assert "Erased:\n  nothing" in page and str(tree / "run/checkpoints/2") in page


def test_photographs_are_asked_for_first(made, tree, capsys):
    _, person, _ = made
    before = snapshot(tree, but="")
    arguments = [person, f"--ledger={tree / 'ledger'}", f"--under={tree}"]
    assert withdraw.main(arguments) == 2
    message = capsys.readouterr().err
    assert "--photographs=erase" in message
    assert all(name in message for name in photographs(tree, person))
    assert snapshot(tree, but="") == before
    assert withdraw.main([*arguments, "--dry_run"]) == 0
    assert "would be refused" in capsys.readouterr().out
    assert snapshot(tree, but="") == before
    own = photographs(tree, person)
    assert withdraw.main([*arguments, "--photographs=keep"]) == 0
    page = capsys.readouterr().out
    assert photographs(tree, person) == own and all(name in page for name in own)
    assert {pathlib.Path(n).parts[0] for n in traces(tree, person, own)} == {"photographs"}


def test_marked_models_are_refused_everywhere(made, tree):
    _, person, child = made
    gone(tree, person)
    day = Ledger.open("ledger").state(person).newest.time[:10]
    no_ledger = dataclasses.replace(RUN, ledger="")
    for name, config in (("run", RUN), ("child", child), ("grandchild", GRANDCHILD)):
        system = study.build(dataclasses.replace(config, build_dir="data"))
        for gate in (lineage.Gate(), lineage.Gate("ledger")):
            with pytest.raises(UserError, match=f"study:tiny.*1 person.*{day}") as refused:
                train.newest(system, config, Workdir(name, gate=gate))
        assert "python launch.py" in str(refused.value) and "--allow_withdrawn" in str(
            refused.value
        )
        with pytest.raises(UserError, match="1 person"):
            start.pack(name, "new.npz")
        with pytest.raises(UserError, match="1 person"):
            start.read(name, lambda line: None)
    with pytest.raises(UserError, match="1 person"):
        start.read("pack.npz", lambda line: None)
    longer = dataclasses.replace(no_ledger, steps=6)
    with pytest.raises(UserError, match="1 person"):  # training on
        study.run(pathlib.Path("run"), longer)
    start.read("run/checkpoints/1", lambda line: None)  # has not seen the person
    assert not pathlib.Path("new.npz").exists()

    gate = lineage.Gate("", allow=True)
    study.run(pathlib.Path("run"), longer, gate)
    content = json.loads(pathlib.Path("run/lineage.json").read_text())
    assert content["allowed"][0]["people"] == 1 and content["withdrawn"]["people"] == 1
    # What goes on from it still says that the person went in, though the data no longer have her.
    newest = read_meta(pathlib.Path("run/checkpoints/6"))[1]["lineage"]
    assert lineage.owes_to(newest, lineage.alias(person)) == "direct"
    with pytest.raises(UserError, match="1 person"):  # by the ledger: step 6 has no tombstone
        start.read("run", lambda line: None, lineage.Gate("ledger"))
    withdraw.withdraw(person, "ledger", [tree])
    with pytest.raises(UserError, match="1 person"):
        start.read("run", lambda line: None)


def test_a_person_held_out_marks_no_model(made, tree):
    person = next(p for p in study.PEOPLE if split_of(p) == "heldout")
    own = photographs(tree, person)
    page = gone(tree, person)
    assert traces(tree, person, own) == set()
    assert not list(tree.rglob("*.withdrawn.json"))
    assert str(tree / "run/results.json") in page and "To train anew" not in page


def test_a_manifest_without_consents_and_a_renamed_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXFACE_KEYS", str(tmp_path / "keys"))
    photos, copy = tmp_path / "tree/photos", tmp_path / "tree/best"
    ledger = Ledger.open(photos / "consent", create=True)
    ledger.give_all(["S1", "S2"], "GRU")
    (photos / "manifest.csv").write_text("file,subject\na.jpg,S1\nb.jpg,S2\n")
    for name in ("a.jpg", "b.jpg"):
        (photos / name).write_bytes(name.encode())
    saving = Checkpoints(tmp_path / "checkpoints")
    told = {"consumed": {lineage.alias("S1"): ["00"]}, "ancestors": []}
    saving.save(
        3, {"x": np.zeros(2, np.float32)}, {"data": {"step": 3}, "lineage": told}, wait=True
    )
    shutil.move(tmp_path / "checkpoints/3", copy)
    page = withdraw.withdraw("S1", photos / "consent", [tmp_path / "tree"], "erase")
    assert f"{copy} (step 3, learned from the person)" in page
    with pytest.raises(UserError, match="1 person"):
        Checkpoints(tmp_path / "tree").load(copy)
    assert sorted(p.name for p in photos.glob("*.jpg")) == ["b.jpg"]
    assert (photos / "manifest.csv").read_text() == "file,subject\nb.jpg,S2\n"


@pytest.mark.parametrize("told", ["by about.json", "by the arrays"])
def test_programs_of_an_export_are_to_be_deleted_by_hand(tmp_path, monkeypatch, told):
    monkeypatch.setenv("JAXFACE_KEYS", str(tmp_path / "keys"))
    ledger, tree = Ledger.open(tmp_path / "ledger", create=True), tmp_path / "tree"
    ledger.give_all(["S1", "S2"], "GRU")
    stays, affected = tree / "stays/export", tree / "run/export"
    for folder, digest, people in ((affected, "ab", ["S1", "S2"]), (stays, "cd", ["S2"])):
        folder.mkdir(parents=True)
        lists = [{"checkpoint": digest, "consumed": {lineage.alias(p): ["00"] for p in people}}]
        (folder.parent / lineage.PASSED_ON).mkdir()
        (folder.parent / lineage.PASSED_ON / f"{digest}.json").write_text(json.dumps(lists))
        about = {"checkpoint_sha256": digest, "lineage": "{}"}
        weights.export_safetensors(folder / "networks.safetensors", {"x": np.zeros(2)}, about)
        for name in ("generator.stablehlo", "generator.onnx", "generator.bin"):
            (folder / name).write_bytes(digest.encode())
        files = {"networks.safetensors": {}, "generator.stablehlo": {}, "generator.bin": {}}
        if told == "by about.json":
            (folder / "about.json").write_text(json.dumps({"about": about, "files": files}))
            (folder / "networks.safetensors").unlink()
    (tree / "lost.onnx").write_bytes(b"ab")
    for dry_run in (True, False, False):
        page = withdraw.withdraw("S1", tmp_path / "ledger", [tree], dry_run=dry_run)
        _, _, by_hand = page.partition("which no command can refuse: delete them by hand:\n")
        lines = [line.strip() for line in by_hand.partition("\n\n")[0].splitlines()]
        names = ["onnx", "stablehlo"] if told == "by the arrays" else ["bin", "onnx", "stablehlo"]
        assert lines == [f"{affected}/generator.{n} (learned from the person)" for n in names]
        assert f"{tree / 'lost.onnx'} does not say which checkpoint it was made of" in page
        assert str(stays) not in page
    stones = ["networks.safetensors.withdrawn.json"] if told == "by the arrays" else []
    assert [path.name for path in tree.rglob("*.withdrawn.json")] == stones
    assert len(list(affected.glob("generator.*"))) == 3
    page = withdraw.withdraw("S2", tmp_path / "ledger", [tree])
    assert f"{stays}/generator.onnx (learned from the person)" in page


class Interrupted(Exception):
    """The power fails."""


def test_interrupted_anywhere_the_same_command_finishes(made, tree, tmp_path, monkeypatch):
    _, person, _ = made
    for name in ("other", "grandchild"):  # as many kinds of change, fewer of each
        shutil.rmtree(tree / name)
    (tree / "data/features").mkdir()
    (tree / "data/features/a.npy").write_bytes(b"1")
    # One event for all: copies of the ledger would differ in their time.
    Ledger.open(tree / "ledger").withdraw(person)
    shutil.copytree(tree, tmp_path / "start")
    real = {name: getattr(withdraw, name) for name in ("_put", "_move", "_delete")}
    count, limit = 0, -1

    def counted(name):
        def change(path, *more):
            nonlocal count
            count += 1
            if count == limit:
                if name == "_delete" and path.is_dir():  # half of it is gone
                    next(p for p in path.rglob("*") if p.is_file()).unlink()
                raise Interrupted
            return real[name](path, *more)

        return change

    for name in real:
        monkeypatch.setattr(withdraw, name, counted(name))
    gone(tree, person)
    changes, expected = count, snapshot(tree)
    assert changes > 30 and "data/features/a.npy" not in expected
    for limit in range(1, changes + 1, 3):  # all of them take a quarter of a minute
        for path in tree.iterdir():  # it stays itself: it is the working directory
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(tmp_path / "start", tree, dirs_exist_ok=True)
        count = 0
        with pytest.raises(Interrupted):
            gone(tree, person)
        count, stop = 0, limit
        limit = -1
        gone(tree, person)
        limit = stop
        assert snapshot(tree) == expected, f"interrupted before change {stop}"


def test_who_is_not_there_is_named(made, tree):
    with pytest.raises(UserError, match="vol-99.*not on the ledger"):
        gone(tree, "vol-99")
    with pytest.raises(UserError, match="nowhere"):
        withdraw.withdraw(made[1], tree / "ledger", [tree / "nowhere"])
    with pytest.raises(UserError, match="no consent ledger"):
        withdraw.withdraw(made[1], tree / "photographs", [tree])
