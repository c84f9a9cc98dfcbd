"""A head that is trained after a withdrawal, from photographs to report, never saw the person."""

import csv
import dataclasses
import json
import pathlib
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calm import Calm
from PIL import Image

from jaxface import lineage, train, withdraw
from jaxface.data import headshot_folder
from jaxface.data.consent import Ledger
from jaxface.errors import UserError
from jaxface.systems import classify
from jaxface.workdir import Workdir

PEOPLE = [f"vol-{number:02d}" for number in range(20)]
PERSON = "vol-07"
CONFIG = classify.Config(
    data="headshot_folder",
    task="smile",
    ledger="ledger",
    side=64,
    batch=8,
    folds=2,
    validation=0.25,
    backbone="resnet10",
    width=2,
    layer="layer1_0",
    grid=2,
    head="linear",
    head_steps=4,
    together=3,
    methods="transfer",
    beside="",
    log_every=100,
    save_every=100,
    sample_every=100,
)


def study(folder: pathlib.Path, people: list[str]) -> None:
    """Two photographs a person, who smiles in the brighter one, and what three voters said."""
    (folder / "photographs").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, cast = [("file", "subject", "consent")], [("file", "rater", "vote")]
    for number, person in enumerate(PEOPLE):
        for smile in (0, 1):
            picture = (rng.integers(0, 90, (64, 64, 3)) + 120 * smile).astype(np.uint8)
            name = f"{(number * 7 + smile * 3) % 1000:03d}.png"
            if person not in people:
                continue
            Image.fromarray(picture).save(folder / "photographs" / name)
            rows.append((name, person, "yes"))
            for rater in range(3):
                says = smile != (rater == number % 9)  # of nine people, three have a wrong vote
                cast.append((name, f"rater-{rater}", "yes" if says else "no"))
    for name, lines in (("manifest", rows), ("votes", cast)):
        with open(folder / f"photographs/{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows(lines)
    ledger = Ledger.open(folder / "ledger", create=True)
    ledger.give_all(people, "research")


def trained(workdir: str):
    """(array, by path, of a finished run on the photographs of the working directory; its results)"""
    gate = lineage.Gate("ledger")
    config = dataclasses.replace(
        CONFIG,
        data_dir="photographs",
        votes="photographs/votes.csv",
        build_dir=f"{workdir}/data",
    )
    about = {"experiment": "headshots_smile", "scale": "tiny", "command": "", "start": {}}
    system = classify.build(config)
    assert (
        train.train(system, config, Workdir(pathlib.Path(workdir), gate=gate), Calm(), about) == 0
    )
    shutil.rmtree(config.build_dir)  # built anew by whatever reads the run
    place = Workdir(pathlib.Path(workdir), gate=gate)
    state, _ = train.newest(classify.build(config), config, place)
    return state, json.loads((place.path / "results.json").read_text())


@pytest.fixture
def unprepared(monkeypatch):
    """Photographs count as prepared as they are: no network looks for a face."""

    def as_it_is(image, size):
        resized = jnp.asarray(Image.fromarray(image).resize((size, size)))
        return types.SimpleNamespace(
            image=np.asarray(resized)
        )  # as the real one: fails under a trace

    stub = types.SimpleNamespace(prepare=as_it_is, VERSION="0")
    monkeypatch.setattr(headshot_folder, "prepare", stub)
    monkeypatch.setattr(headshot_folder, "portrait", lambda image: types.SimpleNamespace(ita=12.5))


def test_a_head_after_a_withdrawal_never_saw_the_person(tmp_path, monkeypatch, unprepared):
    monkeypatch.setenv("JAXFACE_KEYS", str(tmp_path / "keys"))
    study(tmp_path / "all", PEOPLE)
    # Another study calls its photographs alike, and has votes of its own.
    shutil.copytree(tmp_path / "all/photographs", tmp_path / "all/elsewhere")
    rows = (tmp_path / "all/elsewhere/manifest.csv").read_text().replace("vol-", "ward-")
    (tmp_path / "all/elsewhere/manifest.csv").write_text(rows)
    others = {p.name: p.read_bytes() for p in (tmp_path / "all/elsewhere").iterdir()}
    monkeypatch.chdir(tmp_path / "all")
    before, _ = trained("run")
    withdraw.withdraw(PERSON, "ledger", ["."], photographs="erase")
    with pytest.raises(UserError, match="1 person"):
        trained("run")
    assert PERSON not in pathlib.Path("photographs/manifest.csv").read_text()
    assert others == {p.name: p.read_bytes() for p in pathlib.Path("elsewhere").iterdir()}
    after, results = trained("run-retrained")
    study(tmp_path / "never", [person for person in PEOPLE if person != PERSON])
    monkeypatch.chdir(tmp_path / "never")
    never, expected = trained("run")
    assert results == expected and results["accuracy"]["n"] == 19
    flat = lambda state: jax.tree_util.tree_leaves_with_path((state.params, state.control))
    for (path, a), (_, b) in zip(flat(after), flat(never), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=str(path))
    kept = lambda state: np.concatenate(
        [np.ravel(x) for x in jax.tree.leaves(state.params["kept"])]
    )
    assert not np.array_equal(kept(before), kept(after))  # the person did matter
