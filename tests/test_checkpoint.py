"""Checkpoints come back bit for bit or not at all, whatever happens to their files or their writer."""

import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxface import checkpoint
from jaxface.checkpoint import Checkpoints, check_space, estimate_bytes
from jaxface.errors import UserError
from jaxface.system import TrainState

ROOT = pathlib.Path(__file__).parents[1]
META = {"config": {"batch": 8, "name": "tiny"}, "data": {"step": 5}}


def make_state(seed: int = 0, step: int = 5) -> TrainState:
    """A small state with every kind of leaf that a system may keep."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape).astype(np.float32))
    params = {"generator": {"w": draw(40, 50), "b": draw(7)}, "discriminator": {"w": draw(3, 3)}}
    tx = optax.adam(1e-3)
    return TrainState(
        step=jnp.int32(step),
        params=params,
        opt_state={name: tx.init(part) for name, part in params.items()},
        model_state={"generator": {"half": draw(5).astype(jnp.bfloat16), "nothing": {}}},
        ema={},
        control={
            "key": jax.random.key(seed),
            "keys": jax.random.split(jax.random.key(seed), 3),
            "other": jax.random.key(seed, impl="rbg"),
            "flag": jnp.asarray(True),
            "empty": jnp.zeros([0, 3], jnp.int8),
            "nan": jnp.asarray([np.nan, -0.0, np.inf]),
            "pool": {},
            "none": None,
            "count": 3,
            "yes": True,
        },
    )


def digest(tree) -> str:
    """sha256 over every leaf of a tree: its place, type, shape and bits."""
    sha = hashlib.sha256(str(jax.tree.structure(tree)).encode())
    for leaf in jax.tree.leaves(tree):
        if hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            sha.update(str(leaf.dtype).encode())
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        sha.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return sha.hexdigest()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with committed steps 1 and 2 of different states; tests copy it."""
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(step, make_state(step, step), META, wait=True)
    assert checkpoints.failure is None and checkpoints.steps() == [1, 2]
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def files_of(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


# ---- round trip -----------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_every_kind_of_leaf_comes_back_bit_for_bit(saved, abstract):
    state = make_state(2, 2)
    like = make_state(7, 0)
    if abstract:
        numbers = {"count": 0, "yes": False}
        like = jax.eval_shape(lambda: like)
        like = like.replace(control=like.control | numbers)
    restored, meta, step = Checkpoints(saved).restore(like)
    assert step == 2 and meta == META
    assert digest(restored) == digest(state)
    assert restored.control["count"] == 3 and type(restored.control["yes"]) is bool
    key = lambda name: jax.random.normal(restored.control[name], [2])
    assert np.array_equal(key("key"), jax.random.normal(state.control["key"], [2]))
    assert np.array_equal(key("other"), jax.random.normal(state.control["other"], [2]))


def test_empty_folder_has_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.restore(make_state()) is None
    assert checkpoints.steps() == [] and checkpoints.newest() is None
    assert not (tmp_path / "none").exists()


def test_replicated_donated_and_overwritten_states_are_saved_as_they_were(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    host = np.random.default_rng(0).normal(size=(500, 500)).astype(np.float32)
    step = jax.jit(lambda x: x * 2 + 1, donate_argnums=0)
    checkpoints = Checkpoints(tmp_path)
    for placed in (jnp.array(host), jax.device_put(host, everywhere), host.copy()):
        checkpoints.save(1, {"w": placed}, {})
        if isinstance(placed, np.ndarray):
            placed[:] = 0
        else:
            for _ in range(5):
                placed = jax.block_until_ready(step(placed))
        checkpoints.wait()
        assert np.array_equal(checkpoints.restore({"w": host})[0]["w"], host)


def test_load_needs_no_target(folder, tmp_path):
    state = make_state(2, 2)
    for path in (tmp_path, folder, folder / "2"):
        tree, meta = Checkpoints(folder).load(path)
        assert meta == META and tree["step"] == 2
        assert np.array_equal(tree["params"]["generator"]["w"], state.params["generator"]["w"])
        assert np.array_equal(tree["opt_state"]["generator"]["0"]["mu"]["b"], np.zeros(7))
    assert Checkpoints(folder).load(folder / "1")[0]["step"] == 1


def test_load_takes_a_path_from_where_one_stands(folder, monkeypatch):
    here, _ = Checkpoints(folder).load(folder)
    monkeypatch.chdir(folder.parent)
    there, _ = Checkpoints(folder.name).load(folder.name)
    assert digest(here) == digest(there)


def test_load_refuses_by_name_and_changes_nothing(folder, tmp_path):
    names = sorted(os.listdir(folder))
    (folder / "2" / "meta" / "metadata").write_text("{}")
    lines = []
    assert Checkpoints(folder, log=lines.append).load(tmp_path)[0]["step"] == 1
    assert "meta/metadata" in lines[0] and str(folder / "2") in lines[0]
    for path, words in (
        (folder / "2", "meta/metadata"),
        (folder / "9", "manifest.json is missing"),
    ):
        with pytest.raises(UserError, match=words):
            Checkpoints(folder).load(path)
    with pytest.raises(UserError, match="give a workdir"):
        Checkpoints(folder).load(tmp_path / "nowhere")
    assert sorted(os.listdir(folder)) == names


def test_another_config_is_told_by_every_name(saved):
    like = make_state()
    params = {
        "generator": {"w": jnp.zeros([40, 51]), "b": like.params["generator"]["b"]},
        "discriminator": {"kernel": jnp.zeros([3, 3])},
    }
    control = like.control | {"flag": jnp.int32(0), "key": jnp.zeros([2], jnp.uint32)}
    with pytest.raises(UserError) as error:
        Checkpoints(saved).restore(like.replace(params=params, control=control))
    told = str(error.value)
    for words in (
        "5 name(s)",
        "params/generator/w: float32 (40, 50) in it, float32 (40, 51) in this run",
        "missing in it: params/discriminator/kernel",
        "not in this run: params/discriminator/w",
        "control/flag: bool () in it, int32 () in this run",
        "control/key: key uint32 (2,) in it, uint32 (2,) in this run",
    ):
        assert words in told
    assert Checkpoints(saved).steps() == [1, 2]


# ---- what lies on disk ----------------------------------------------------------------------


def test_manifest_describes_every_file_and_leaf(saved):
    raw = (saved / "2" / "manifest.json").read_bytes()
    manifest = json.loads(raw)
    assert manifest["sha256"] == hashlib.sha256(raw.split(b"\n", 1)[1]).hexdigest()
    assert manifest["step"] == 2
    on_disk = {str(file.relative_to(saved / "2")): file for file in files_of(saved / "2")}
    del on_disk["manifest.json"]
    assert manifest["files"] == {
        name: {
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "size": file.stat().st_size,
        }
        for name, file in on_disk.items()
    }
    w = np.asarray(make_state(2, 2).params["generator"]["w"])
    assert manifest["leaves"]["params/generator/w"] == {
        "sha256": hashlib.sha256(w.tobytes()).hexdigest(),
        "shape": [40, 50],
        "dtype": "float32",
    }


def test_newest_stay_and_the_same_step_may_come_again(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 10, 11):
        checkpoints.save(step, {"w": np.full(3, step)}, {})
    assert checkpoints.newest() == 11 and checkpoints.steps() == [10, 11]
    inode = (tmp_path / "11").stat().st_ino
    checkpoints.save(11, {"w": np.full(3, 11)}, {}, wait=True)
    assert (tmp_path / "11").stat().st_ino == inode  # there already
    checkpoints.save(11, {"w": np.full(3, 12)}, {}, wait=True)
    assert checkpoints.restore({"w": np.zeros(3, int)})[0]["w"].tolist() == [12] * 3
    assert sorted(os.listdir(tmp_path)) == [".lock", "10", "11"]


def test_a_new_step_that_does_not_read_back_costs_no_older_one(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {"w": np.zeros(3)}, {}, wait=True)
    honest = checkpoint._leaf
    monkeypatch.setattr(
        checkpoint,
        "_leaf",
        lambda array, key=None: honest(array, key) | {"sha256": os.urandom(4).hex()},
    )
    checkpoints.save(2, {"w": np.ones(3)}, {}, wait=True)
    assert "step 2" in checkpoints.failure and "leaf w differs" in checkpoints.failure
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == [".lock", "1"]
    checkpoints.save(2, {"w": np.ones(3)}, {}, wait=True)
    assert checkpoints.failure is None and checkpoints.steps() == [2]


# ---- damage ---------------------------------------------------------------------------------


def test_200_flipped_bits_are_all_found_and_named(folder):
    """Anchor: Orbax alone loads every one of these silently wrong."""
    rng = random.Random(0)
    files = files_of(folder / "2")
    bits = [8 * file.stat().st_size for file in files]
    # Half of them fall anywhere, half in a file drawn first, so that small files have their share.
    flips = rng.choices(files, bits, k=100) + rng.choices(files, k=100)
    like, older = make_state(), digest(make_state(1, 1))
    for file in flips:
        place, bit = rng.randrange(file.stat().st_size), 1 << rng.randrange(8)
        flip(file, place, bit)
        checkpoints = Checkpoints(folder)
        restored, _, step = checkpoints.restore(like)
        assert step == 1 and digest(restored) == older
        (told,) = checkpoints.warnings
        assert str(folder / "2") in told and str(file.relative_to(folder / "2")) in told
        os.rename(folder / "2.damaged", folder / "2")
        flip(file, place, bit)
    assert set(files) == set(flips)
    assert Checkpoints(folder).restore(like)[2] == 2


def flip(file: pathlib.Path, place: int, bit: int) -> None:
    with open(file, "r+b") as opened:
        opened.seek(place)
        byte = opened.read(1)[0]
        opened.seek(place)
        opened.write(bytes([byte ^ bit]))


def cut(file):
    os.truncate(file, file.stat().st_size // 2)


def empty(file):
    os.truncate(file, 0)


def replace_by_folder(file):
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("harm", [cut, empty, os.unlink, replace_by_folder])
def test_each_file_harmed(folder, harm):
    like, older = make_state(), digest(make_state(1, 1))
    whole = shutil.copytree(folder / "2", folder.parent / "whole")
    names = [file.relative_to(whole) for file in files_of(whole)]
    assert len(names) >= 10
    for number, name in enumerate(names):
        harm(folder / "2" / name)
        checkpoints = Checkpoints(folder)
        if number in (0, len(names) - 1):
            restored, _, step = checkpoints.restore(like)
            assert step == 1 and digest(restored) == older
            assert str(name) in checkpoints.warnings[0]
            shutil.rmtree(folder / "2.damaged")
        else:
            with pytest.raises(checkpoint.Damaged, match=str(name)):
                checkpoint._restore(folder / "2", like)
            shutil.rmtree(folder / "2")
        shutil.copytree(whole, folder / "2")


def test_unknown_files_and_links_are_damage(folder):
    stray = folder / "2" / "state" / ".zarray"
    stray.write_text('{"shape": [1099511627776]}')
    with pytest.raises(checkpoint.Damaged, match="state/.zarray is unknown"):
        checkpoint._verify(folder / "2")
    stray.unlink()
    target = folder / "2" / "meta" / "metadata"
    shutil.move(target, folder / "elsewhere")
    target.symlink_to(folder / "elsewhere")
    with pytest.raises(checkpoint.Damaged, match="meta/metadata"):
        checkpoint._verify(folder / "2")


def test_a_manifest_that_asks_for_the_moon_is_refused_before_anything_opens(folder, monkeypatch):
    manifest = json.loads((folder / "2" / "manifest.json").read_bytes())
    manifest["leaves"]["params/generator/w"]["shape"] = [1 << 40]
    monkeypatch.setattr(checkpoint, "_orbax", lambda process: pytest.fail("Orbax was opened"))
    with pytest.raises(checkpoint.Damaged, match="bytes of memory"):
        checkpoint._read(folder / "2", manifest)


def test_nothing_good_left(folder):
    for step in ("1", "2"):
        empty(folder / step / "manifest.json")
    checkpoints = Checkpoints(folder)
    assert checkpoints.restore(make_state()) is None
    assert len(checkpoints.warnings) == 2
    assert sorted(os.listdir(folder)) == [".lock", "1.damaged", "2.damaged"]


def test_leftovers_of_interrupted_saves_are_swept(folder):
    shutil.copytree(folder / "1", folder / "7.saving")
    shutil.copytree(folder / "1", folder / "3.removing")
    (folder / "9.saving.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (folder / "10.orbax-checkpoint-tmp").mkdir()
    shutil.copytree(folder / "2", folder / "12")
    (folder / "12" / "manifest.json").unlink()
    os.rename(folder / "2", folder / "2.replaced")  # killed between two renames
    checkpoints = Checkpoints(folder)
    assert checkpoints.restore(make_state())[2] == 2
    assert sorted(os.listdir(folder)) == [".lock", "1", "12.damaged", "2"]
    told = "\n".join(checkpoints.warnings)
    for name in ("7.saving", "3.removing", "9.saving.orbax", "10.orbax", "12 is damaged: manifest"):
        assert name in told


def test_a_save_under_way_elsewhere_is_not_swept(folder):
    (folder / "7.saving").mkdir()
    other = Checkpoints(folder)
    with other._only_writer(wait=True):
        assert Checkpoints(folder).restore(make_state())[2] == 2
        assert (folder / "7.saving").exists()
    Checkpoints(folder).restore(make_state())
    assert not (folder / "7.saving").exists()


# ---- full disks -----------------------------------------------------------------------------


def test_space_is_checked_before_compute(tmp_path):
    state = make_state()
    floats, keys = 3 * (40 * 50 + 7 + 9) + 3, 2 + 3 * 2 + 4
    numbers = 2 * 4 + 4 + 5 * 2 + 1 + 8 + 1  # two Adam counts, step, bfloat16, flag, count, yes
    assert estimate_bytes(state) == 4 * (floats + keys) + numbers
    assert estimate_bytes(jax.eval_shape(lambda: state.params)) == 4 * (40 * 50 + 7 + 9)
    check_space(tmp_path / "not" / "yet", 1000)
    with pytest.raises(UserError, match="config.keep") as error:
        check_space(tmp_path / "not" / "yet", 1 << 60)
    assert f"{1 << 60:,} bytes" in str(error.value) and str(tmp_path) in str(error.value)
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)  # what is there already needs no new place
    check_space(tmp_path, 1 << 40)


FULL = """
import os, resource, sys
import numpy as np
from jaxface.checkpoint import Checkpoints
folder, size, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
small, large = rng.normal(size=size // 80), rng.normal(size=size // 8)
checkpoints = Checkpoints(folder, keep=3, log=print)
for step in (1, 2):
    checkpoints.save(step, {"w": small}, {}, wait=True)
assert checkpoints.failure is None, checkpoints.failure
if limit:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
for step in (3, 4):
    checkpoints.save(step, {"w": large}, {}, wait=True)
    print(f"FAILURE {step}", checkpoints.failure)
    print(f"FILES {step}", sorted(os.listdir(folder)))
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
checkpoints.save(5, {"w": small}, {}, wait=True)
assert checkpoints.failure is None, checkpoints.failure
assert checkpoints.restore({"w": small})[2] == 5
print("went on")
"""


def run_full(*arguments) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", FULL, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "went on" in done.stdout
    return {
        line.split(" ", 2)[0] + line.split(" ", 2)[1]: line for line in done.stdout.splitlines()
    }


def test_a_write_that_fails_names_the_cause_and_leaves_the_last_good(tmp_path):
    told = run_full(tmp_path, 8_000_000, 1_000_000)
    for step in (3, 4):
        line = told[f"FAILURE{step}"]
        assert f"step {step} could not be saved" in line and "File too large" in line
        assert "8,000,000 bytes" in line and "Checkpoint 2 is kept" in line
        assert told[f"FILES{step}"].endswith("['.lock', '1', '2']")


def test_a_full_disk_is_named_and_an_older_step_makes_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        told = run_full(disk / "checkpoints", 8_000_000, 0)
        line = told["FAILURE3"]
        assert "the disk is full" in line and "8,000,000 bytes" in line
        assert "Checkpoint 2 is kept" in line
        assert "Disk full: checkpoint 1 makes room for step 3." in told["Diskfull:"]
        assert told["FILES4"].endswith("['.lock', '2']")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---- kill -9 --------------------------------------------------------------------------------

SAVER = """
import sys
import numpy as np
from jaxface.checkpoint import Checkpoints
def state(step): return {"step": np.int32(step), "w": np.random.default_rng(step).normal(size=100_000)}
checkpoints = Checkpoints(sys.argv[1], keep=2, log=print)
found = checkpoints.restore(state(0))
if found:
    tree, meta, step = found
    assert step == tree["step"] == meta["step"] and (tree["w"] == state(step)["w"]).all()
step = found[2] if found else 0
print("FOUND", step, flush=True)
while True:
    step += 1
    checkpoints.save(step, state(step), {"step": step}, wait=True)
    assert checkpoints.failure is None, checkpoints.failure
    print("SAVED", step, flush=True)
"""


def test_kill_in_the_middle_of_saves_leaves_the_newest_whole(tmp_path):
    rng = random.Random(0)
    last = leftovers = 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        for line in process.stdout:
            if line.startswith("SAVED"):
                break
            if line.startswith("FOUND"):
                # A commit that was not yet told may be there, never one less than was told.
                assert int(line.split()[1]) in (last, last + 1)
        time.sleep(rng.uniform(0.0, 0.3))
        process.kill()
        rest = line + process.communicate()[0]
        told = [int(line.split()[1]) for line in rest.splitlines() if line.startswith("SAVED")]
        assert told, rest
        last = told[-1]
        leftovers += any(not name.isdigit() and name != ".lock" for name in os.listdir(tmp_path))
    assert leftovers, "no kill fell into a save: the test has shown nothing"
    like = {"step": np.int32(0), "w": np.zeros(100_000)}
    assert Checkpoints(tmp_path).restore(like)[2] in (last, last + 1)
