"""Folders of photographs and videos whose consent stands on a ledger."""

import datetime
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from calm import Calm
from PIL import Image

import launch
from jaxface.data import edema_folder, face_folder, uvphoto
from jaxface.data import folder as folder_module
from jaxface.data.consent import Ledger, in_folder
from jaxface.data.manifest import consents, read_manifest
from jaxface.errors import UserError

HEADING = "file,subject"


@pytest.fixture(autouse=True)
def keys(tmp_path, monkeypatch):
    """Private keys of a test stay in its own folder."""
    monkeypatch.setenv("JAXFACE_KEYS", str(tmp_path / "keys"))


@pytest.fixture
def folder(tmp_path):
    """Six flat little pictures, each of another person."""
    path = tmp_path / "photographs"
    path.mkdir()
    for i in range(6):
        Image.fromarray(np.full((20, 30, 3), 20 * i, np.uint8)).save(path / f"{i}.png")
    write(path, [f"{i}.png,S{i}" for i in range(6)])
    return path


@pytest.fixture
def ledger(folder):
    """A ledger beside the pictures on which everybody agreed to general research."""
    ledger = Ledger.open(folder / "consent", create=True)
    ledger.give_all([f"S{i}" for i in range(6)], "GRU")
    return ledger


def write(path, rows, heading=HEADING):
    (path / "manifest.csv").write_text("\n".join([heading, *rows]) + "\n")


def named(folder, **more):
    return face_folder.config_for(folder, resolution=16, align=False, **more)


def build(config, tmp_path, name="face_folder"):
    tfds.disable_progress_bar()
    builder = tfds.builder(
        name, data_dir=tmp_path / "built", config=config, file_format="array_record"
    )
    builder.download_and_prepare()
    return builder


def refused(folder, **more):
    with pytest.raises(UserError) as error:
        read_manifest(folder, **more)
    return str(error.value)


def test_the_ledger_in_the_folder_is_used_unasked(folder, ledger, tmp_path):
    assert in_folder(folder) == str(folder / "consent") and in_folder("") == ""
    builder = build(named(folder), tmp_path)
    assert sum(split.num_examples for split in builder.info.splits.values()) == 6
    shutil.move(folder / "consent", tmp_path / "elsewhere")
    assert in_folder(folder) == ""
    assert "no column consent" in refused(folder)
    assert len(read_manifest(folder, ledger=tmp_path / "elsewhere").rows) == 6
    assert "holds no consent ledger" in refused(folder, ledger=folder / "consent")


def test_a_folder_called_consent_without_a_ledger_is_any_folder(folder):
    (folder / "consent").mkdir()
    (folder / "consent" / "forms.txt").write_text("")
    assert "no column consent" in refused(folder)
    (folder / "consent" / "head.json").write_text("{}")  # what is left of a ledger
    assert "public key is missing" in refused(folder)


@pytest.mark.parametrize(
    "change,said",
    [
        (lambda led: led.withdraw("S2"), "S2 on the ledger {}: withdrawn on {today}"),
        (lambda led: led.expire("S2"), "S2 on the ledger {}: expired on {today}"),
        (
            lambda led: led.give("S2", "GRU", expires="2026-01-31"),
            "S2 on the ledger {}: expired on 2026-01-31",
        ),
        (
            lambda led: led.give("S2", "HMB"),
            "S2 on the ledger {}: given for HMB: GRU is not covered",
        ),
        (lambda led: led.give("S2", "GRU NPU"), "given for GRU NPU: the use must meet NPU"),
    ],
)
def test_refused_before_an_image_is_opened(folder, ledger, tmp_path, monkeypatch, change, said):
    good = named(folder)
    change(ledger)
    monkeypatch.setattr(folder_module, "read_image", None)  # calling it would be no UserError
    today = datetime.datetime.now(datetime.UTC).date()
    message = refused(folder)
    assert message.startswith(f"{folder / 'manifest.csv'}, row 4, consent: ")
    assert said.format(folder / "consent", today=today) in message
    assert "delete the row and the image" in message
    with pytest.raises(UserError, match="row 4, consent: S2 on the ledger"):
        named(folder)
    # Also when the consent ended after the settings were made.
    with pytest.raises(UserError, match="row 4, consent: S2 on the ledger"):
        build(good, tmp_path)


def test_who_is_not_on_the_ledger(folder, ledger):
    write(folder, ["0.png,S0", "1.png,nobody"])
    message = refused(folder)
    assert "row 3, consent: nobody on the ledger" in message and "never given" in message
    assert f"consent add {folder / 'consent'} nobody --purpose" in message


@pytest.mark.parametrize(
    "text,said",
    [
        ("", ""),
        ("ledger", ""),
        ("Ledger", ""),
        ("yes", ""),
        ("GRU", ""),
        ("no", "consent: 'no' does not cover purpose 'research'"),
        ("teaching", "consent: 'teaching' does not cover purpose 'research'"),
    ],
)
def test_the_column_beside_a_ledger(folder, ledger, text, said):
    write(folder, [f"0.png,S0,{text}"], HEADING + ",consent")
    if said:
        assert said in refused(folder)
        return
    assert len(read_manifest(folder).rows) == 1
    ledger.withdraw("S0")
    assert "withdrawn on" in refused(folder)


def test_a_row_that_counts_on_a_ledger_that_is_not_there(folder):
    write(folder, ["0.png,S0,ledger"], HEADING + ",consent")
    message = refused(folder)
    assert "row 2, consent: 'ledger', and there is none" in message
    assert "--ledger=DIR" in message and str(folder / "consent") in message


def test_purposes(folder, ledger):
    for purpose in ("GRU", "HMB", "ds:mondo:0016044", "HMB NPU", "DUO:0000006"):
        assert len(read_manifest(folder, purpose=purpose).rows) == 6
    assert "CC is not covered" in refused(folder, purpose="CC")
    assert "teaching is not covered" in refused(folder, purpose="teaching")
    assert "'HBM' is no code" in refused(folder, purpose="HBM")


def test_a_tampered_ledger_refuses_the_build(folder, ledger, tmp_path):
    good = named(folder)
    events = folder / "consent" / "events.jsonl"
    events.write_bytes(events.read_bytes().replace(b'"subject":"S3"', b'"subject":"S9"'))
    for attempt in (lambda: named(folder), lambda: build(good, tmp_path)):
        with pytest.raises(UserError, match="event 4 is not what was signed"):
            attempt()


def test_the_name_follows_the_consents_and_nothing_else(folder, ledger):
    plain = named(folder).name
    ledger.give("stranger", "GRU")
    ledger.withdraw("stranger")
    ledger.reconfirm("S1", expires="2099-01-01")
    assert named(folder).name == plain
    ledger.withdraw("S1")
    ledger.give("S1", "GRU")  # what was built before the withdrawal is not served again
    second = named(folder).name
    ledger.give("S2", "NRES")
    assert len({plain, second, named(folder).name}) == 3
    write(folder, [f"{i}.png,S{i}" for i in range(6) if i != 1])
    without = named(folder).name
    ledger.give("S1", "HMB")
    assert named(folder).name == without


def test_without_a_ledger_names_are_what_they_were(folder):
    write(folder, ["0.png,S0,yes"], HEADING + ",consent")
    assert read_manifest(folder).given == ()


def test_photograph_pairs(folder, ledger, tmp_path):
    config = uvphoto.config_for(folder, purpose="HMB", ledger=folder / "consent")
    assert (config.ledger, config.purpose) == (str(folder / "consent"), "HMB")
    ledger.withdraw("S5")
    with pytest.raises(UserError, match="row 7, consent: S5 on the ledger .* withdrawn"):
        uvphoto.config_for(folder, purpose="HMB")
    with pytest.raises(UserError, match="row 7, consent: S5"):
        build(config, tmp_path, "uvphoto")


def test_videos(folder, ledger, tmp_path):
    for session in ("pre", "post"):
        (folder / session).mkdir()
        for name in ("000.png", "001.png"):
            shade = 90 if session == "pre" else 190
            pixels = np.full((32, 32, 3), shade + int(name[2]), np.uint8)
            Image.fromarray(pixels).save(folder / session / name)
    rows = ["pre,S1,1,pre,62", "post,S1,1,post,60"]
    write(folder, rows, "file,subject,day,session,weight_kg")
    config = edema_folder.config_for(folder, side=32, frames=2)
    ledger.give("S3", "GRU")
    assert edema_folder.config_for(folder, side=32, frames=2).name == config.name
    ledger.withdraw("S1")
    said = "row 2, consent: S1 on the ledger .*withdrawn.*the rows of that day and the videos"
    with pytest.raises(UserError, match=said):
        edema_folder.config_for(folder, side=32, frames=2)
    with pytest.raises(UserError, match=said):
        build(config, tmp_path, "edema_folder")
    ledger.give("S1", "GRU")
    assert edema_folder.config_for(folder, side=32, frames=2).name != config.name
    shutil.rmtree(folder / "consent")
    with pytest.raises(UserError, match="has no column consent"):
        edema_folder.config_for(folder)


def launched(folder, tmp_path, capsys, *more):
    """(exit status, what was said) of a run that trains on a folder; it stops before it computes."""
    arguments = ["--experiment=cleftgan:tiny", "--config.data=cleft_folder", f"--data_dir={folder}"]
    arguments += [f"--workdir={tmp_path / 'run'}", "--config.align=false", *more]
    status = launch.guarded(["launch.py", *arguments], Calm())
    output = capsys.readouterr()
    return status, output.out + output.err


def test_a_run_says_what_it_is_for_and_by_which_ledger(folder, ledger, tmp_path, capsys):
    status, said = launched(folder, tmp_path, capsys, "--dry_run")
    assert status == 0 and str(folder / "consent") in said
    status, said = launched(folder, tmp_path, capsys, "--purpose=CC")
    assert status == 2 and "row 2, consent: S0 on the ledger" in said and "CC is not" in said
    status, said = launched(folder, tmp_path, capsys, f"--ledger={tmp_path}")
    assert status == 2 and "holds no consent ledger" in said
    ledger.withdraw("S4")
    status, said = launched(folder, tmp_path, capsys, "--purpose=HMB")
    assert status == 2 and "row 6, consent: S4" in said and "python -m jaxface.withdraw S4" in said


@pytest.mark.parametrize(
    "text,purpose,covered",
    [
        ("yes", "HMB NPU", True),
        ("research", "research", True),
        ("research", "HMB", True),
        ("HMB", "research", False),
        ("gru;npu", "HMB NPU", True),
        ("GRU NPU", "HMB", False),
        ("HMB TS:2020-01-01", "HMB", False),
        ("HMB TS:2999-01-01", "HMB", True),
        ("research;teaching", "teaching", True),
        ("Our study", "study", True),
        ("no", "HMB", False),
        ("not for research", "research", False),
        ("No research", "HMB", False),
        ("research: no", "research", False),
        ("withdrawn (research)", "research", False),
        ("GRU GS:NO", "HMB GS:NO", True),  # Norway
        ("DS:1", "HMB", False),
        ("", "research", False),
        ("Our study", "HMB", False),
    ],
)
def test_words_of_a_manifest_alone(text, purpose, covered):
    assert consents(text, purpose) is covered


@pytest.mark.parametrize(
    "text,purpose,why",
    [
        (
            "GRU NPU",
            "research",
            "the use must meet NPU (by not-for-profit organisations only); say",
        ),
        ("HMB", "research", "GRU is not covered; say with --purpose=... what it is used for, or"),
        ("teaching", "research", "GRU is not covered; say with --purpose="),
        ("GRU", "NPU", "add one of NRES, GRU"),
        ("GRU TS:2020-01-01", "research", "TS: lapsed on 2020-01-01; ask the person again, or del"),
        ("not for research", "research", "it says no; delete the row and the image"),
        ("", "research", "use 'yes' or 'research' if the person agreed, else delete"),
        ("?", "research", "use 'yes' or 'research' if the person agreed, else delete"),
        ("NPU", "research", "use 'yes' or 'research' if the person agreed, else delete"),
    ],
)
def test_no_consent_is_to_be_overwritten(folder, text, purpose, why):
    write(folder, [f"0.png,S0,{text}"], HEADING + ",consent")
    message = refused(folder, purpose=purpose)
    assert f"row 2, consent: {text!r} does not cover purpose {purpose!r}: " in message
    assert why in message and ("use 'yes'" in message) == why.startswith("use 'yes'")
