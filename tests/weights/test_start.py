"""What --init_from reads: every kind of file by its content, and what it says of it."""

import dataclasses
import json
import shutil

import flax.traverse_util
import forge
import golden
import jax
import numpy as np
import pytest
import test_nvidia

from experiments import cleftgan as experiment
from jaxface import assets, start, uv
from jaxface.checkpoint import Checkpoints
from jaxface.errors import UserError
from jaxface.system import TrainState
from jaxface.systems import cleftgan
from jaxface.weights import export_safetensors, kinds


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep="/")


def read(path):
    lines = []
    tree, about = start.read(str(path), lines.append)
    assert len(lines) == 1
    json.dumps(about)  # goes into lineage.json
    return tree, about, lines[0]


def test_an_export_starts_as_the_pack_it_was_made_of(tmp_path):
    packed, about, line = read("faces_base_32")
    assert about["kind"] == "packed networks" and about["mapped"]["discriminator"] == 23
    assert "discriminator 23" in line
    export_safetensors(
        tmp_path / "x.safetensors",
        packed | {"opt_state": {"mu": np.zeros(2)}},
        {"run": about["run"], "augment_p": "no number"},
    )
    shutil.copy(tmp_path / "x.safetensors", tmp_path / "no_suffix")
    for name in ("x.safetensors", "no_suffix"):
        tree, again, line = read(tmp_path / name)
        assert again["kind"] == "export" and again["run"] == about["run"]
        assert again["unmapped"] == "opt_state" and "Not mapped: opt_state." in line
        assert again["mapped"] == about["mapped"]
        for key, array in flat(packed).items():
            np.testing.assert_array_equal(flat(tree)[key], array)


def test_a_snapshot_of_other_filters_than_a_config_can_say(tmp_path):
    path = test_nvidia.write(tmp_path / "a.npz", test_nvidia.networks("r", 0))
    with pytest.raises(UserError, match="made with filter_size=2"):
        start.read(str(path))  # and the false suffix misleads nobody


def test_golden_snapshot_starts_a_run():
    file = golden.path() / "network-snapshot-r32.pkl"
    if not file.exists():
        pytest.skip(f"reference outputs not on this machine: {file}")
    tree, about, line = read(file)
    assert about["kind"] == "NVIDIA snapshot" and about["augment_p"] == pytest.approx(0.37)
    assert about["mapped"] == {"generator": 86, "discriminator": 23, "averaged generator": 86}
    for part in ("augment_pipe.Hz_geom", "70 filters", "p=0.37", "--config.variant=r"):
        assert part in line
    # The command line that it names makes networks that take it, name by name.
    config = dataclasses.replace(experiment.SCALES["tiny"], **flags(about["flags"]))
    system = cleftgan.build(config, tree)
    state = system.start_from(jax.eval_shape(system.init, jax.random.key(0)))
    same = lambda a, b: np.testing.assert_array_equal(a, b)
    jax.tree.map(same, state.ema["params"], tree["ema"]["params"])
    jax.tree.map(same, state.params["generator"], tree["params"]["generator"])
    jax.tree.map(same, state.params["discriminator"], tree["params"]["discriminator"])
    # The averaged generator is not the trained one.
    weight = "synthesis/input/weight"
    difference = flat(tree["ema"]["params"])[weight] - flat(tree["params"]["generator"])[weight]
    assert np.abs(difference).max() > 1e-3


def flags(text):
    pairs = (flag.removeprefix("--config.").split("=") for flag in text.split())
    return {key: value if key == "variant" else int(value) for key, value in pairs}


def test_a_snapshot_without_discriminator(tmp_path):
    found = {"G_ema": test_nvidia.networks()["G_ema"]}
    path = test_nvidia.write(tmp_path / "a.pkl", found)
    with pytest.raises(UserError, match="no discriminator"):
        start.read(str(path))


def files(folder):
    """One file of each kind that holds no generator with its discriminator, and what says so."""
    array = np.float32([1, 2])
    piece = forge.table({"conv1.weight": forge.plain_tensor(array, "0")})
    forge.write_archive(folder / "a", piece, {"0": array.tobytes()})
    yield "a", kinds.TORCH, r"torch file of 1 arrays \(conv1.weight"
    (folder / "b").write_bytes(forge.legacy_bytes(piece, {"0": array}))
    yield "b", kinds.TORCH, "torch file of 1 arrays"
    (folder / "c").write_bytes(forge.whole(forge.value({"x": 1})))
    yield "c", kinds.PICKLE, "holds no array"
    (folder / "d").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    yield "d", kinds.PICKLE, "posix.system"
    np.savez(folder / "e.npz", a=array)
    yield "e.npz", kinds.NPZ, "not a file that jaxface packed"
    export_safetensors(folder / "f.safetensors", {"a": {"b": array}, "a/c": array}, {})
    yield "f.safetensors", kinds.SAFETENSORS, "no generator and discriminator"
    (folder / "g").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    yield "g", kinds.HDF5, "HDF5 file"
    (folder / "h").write_text("once upon a time")
    yield "h", kinds.UNKNOWN, "unknown kind"
    export_safetensors(folder / "i.safetensors", {"params/discriminator": array, "ema": array}, {})
    yield "i.safetensors", kinds.SAFETENSORS, "no generator and discriminator"
    whole = {"params/discriminator/a": array, "ema/params/a": array, "ema/stats/a": array}
    export_safetensors(folder / "j.safetensors", whole | {"params/generator": array}, {})
    yield "j.safetensors", kinds.SAFETENSORS, "no generator and discriminator"
    export_safetensors(folder / "k.safetensors", whole | {"\x1b[31m": array}, {})
    yield "k.safetensors", kinds.SAFETENSORS, "no generator and discriminator"


def test_kinds_that_do_not_fit_are_named(tmp_path):
    for name, kind, words in files(tmp_path):
        assert kinds.kind_of(tmp_path / name) == kind, name
        with pytest.raises(UserError, match=words) as error:
            start.read(str(tmp_path / name))
        assert "\n" not in str(error.value) and name in str(error.value)


def test_packed_meta_that_is_no_dictionary(tmp_path):
    np.savez(tmp_path / "a.npz", __meta__=np.array("[1]"))
    with pytest.raises(UserError, match="no dictionary"):
        start.read(str(tmp_path / "a.npz"))
    shipped = assets.FOLDER / "faces_base_32.npz"
    (tmp_path / "b.npz").write_bytes(shipped.read_bytes()[:-200])
    with pytest.raises(UserError, match="truncated archive"):
        start.read(str(tmp_path / "b.npz"))


def translator(seed=0):
    """The state of a run that translates pictures, with networks of a few numbers."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    network = lambda: {"conv": {"kernel": draw(3, 3, 2, 4), "bias": draw(4)}}
    stats = lambda: {"norm": {"mean": draw(4), "var": draw(4) ** 2}}
    return TrainState(
        step=np.int32(70),
        params={"generator": network(), "discriminator": network()},
        opt_state={"generator": {"mu": draw(3)}},
        model_state={"generator": stats(), "discriminator": stats()},
        ema={},
        control={"photographs": {"face_width": np.float32(700)}},
    )


META = {
    "run": {"experiment": "uvphoto", "scale": "tiny", "title": "UV", "host": "h"},
    "config": {"patch": 64, "data_dir": "/somewhere", "manifest": "people.csv"},
}


@pytest.fixture
def packed(tmp_path):
    """(state, pack made of its checkpoint)."""
    state = translator()
    Checkpoints(tmp_path / "run" / "checkpoints").save(70, state, META, wait=True)
    size = start.pack(str(tmp_path / "run"), str(tmp_path / "pack.npz"))
    assert size == (tmp_path / "pack.npz").stat().st_size
    return state, tmp_path / "pack.npz"


def test_a_translator_is_packed_without_the_networks_that_trained_it(packed):
    state, path = packed
    tree, about, line = read(path)
    assert tree.keys() == {"params", "model_state"}
    assert tree["params"].keys() == tree["model_state"].keys() == {"generator"}
    assert about["mapped"] == {"generator": 4} and "generator 4" in line
    assert about["step"] == 70 and about["config"] == {"patch": 64}
    assert about["run"] == {"experiment": "uvphoto", "scale": "tiny", "title": "UV"}
    expected = flat(state.params["generator"]), flat(state.model_state["generator"])
    found = flat(tree["params"]["generator"]), flat(tree["model_state"]["generator"])
    for whole, part in zip(expected, found):
        assert whole.keys() == part.keys()
        for name, value in whole.items():
            assert part[name].dtype == np.float32
            # Half precision has 11 bits; vectors, which are small and delicate, stay whole.
            rounded = value.astype(np.float16) if value.ndim > 1 else value
            np.testing.assert_array_equal(part[name], rounded)
            np.testing.assert_allclose(part[name], value, rtol=2.0**-11, atol=1e-7)


def test_a_translator_starts_from_its_pack_and_keeps_its_own_discriminator(packed):
    state, path = packed
    other = translator(1)
    begun = uv.begin_with(other, read(path)[0])
    for name, value in flat(begun.params["generator"]).items():
        np.testing.assert_allclose(value, flat(state.params["generator"])[name], rtol=1e-3)
    for name, value in flat(begun.model_state["generator"]).items():
        np.testing.assert_array_equal(value, flat(state.model_state["generator"])[name])
    for part in ("params", "model_state"):
        mine, theirs = (getattr(s, part)["discriminator"] for s in (begun, other))
        jax.tree.map(np.testing.assert_array_equal, mine, theirs)
    assert begun.step == 70 and begun.control == other.control


def test_a_translators_workdir_starts_one_with_all_its_networks(packed):
    state, path = packed
    tree, about, _ = read(path.parent / "run")
    assert about["kind"] == "checkpoint" and about["mapped"] == {"generator": 4, "discriminator": 4}
    begun = uv.begin_with(translator(1), tree)
    for part in ("params", "model_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(begun, part), getattr(state, part))


def test_a_translator_is_no_start_for_a_style_generator(packed):
    tree = read(packed[1])[0]
    with pytest.raises(UserError, match="--init_from: these networks translate pictures"):
        cleftgan.build(experiment.SCALES["tiny"], tree)


def test_a_style_generator_is_no_start_for_a_translator():
    tree = read("faces_base_32")[0]
    with pytest.raises(UserError, match="--init_from: .* no generator in it that translates"):
        uv.begin_with(translator(), tree)
    whole = tree | {"params": {**tree["params"], "generator": tree["ema"]["params"]}}
    with pytest.raises(UserError, match="the generator") as error:
        uv.begin_with(translator(), whole)
    assert "conv/kernel" in str(error.value) and "synthesis" in str(error.value)


def test_a_translator_of_another_size_is_named(packed):
    tree = read(packed[1])[0]
    tree["params"]["generator"]["conv"]["kernel"] = np.zeros([3, 3, 1, 4], np.float32)
    with pytest.raises(UserError, match=r"conv/kernel.*\(3, 3, 1, 4\)"):
        uv.begin_with(translator(), tree)
