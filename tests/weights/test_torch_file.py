"""Files of torch.save, written here opcode by opcode, and pickles against Python's own machine."""

import math
import pickle
import random
import zipfile

import forge
import ml_dtypes
import numpy as np
import pytest

from jaxface.errors import UserError
from jaxface.weights import UnsafeFileError, read_torch
from jaxface.weights.unpickle import Budget, Machine

RNG = np.random.default_rng(0)
BASE = RNG.normal(size=24).astype(np.float32)
KINDS = [np.dtype(k) for k in forge.STORAGES]


def pieces_and_expected():
    """Tensors of every kind of storage and view, with what reading them must give."""
    storages = {str(i): (RNG.normal(size=12) * 50).astype(d) for i, d in enumerate(KINDS)}
    storages["base"] = BASE
    pieces = {
        d.name: forge.plain_tensor(storages[str(i)].reshape(3, 4), str(i))
        for i, d in enumerate(KINDS)
    }
    expected = {d.name: storages[str(i)].reshape(3, 4) for i, d in enumerate(KINDS)}
    base = forge.storage("FloatStorage", "base", 24)
    pieces |= {
        "transposed": forge.tensor(base, 0, (4, 6), (1, 4)),
        "offset": forge.tensor(base, 5, (2, 3), (8, 2)),
        "scalar": forge.tensor(base, 7, (), ()),
        "none": forge.tensor(base, 24, (0, 3), (3, 1)),
        "parameter": forge.parameter(forge.tensor(base, 0, (24,), (1,))),
    }
    expected |= {
        "transposed": BASE.reshape(6, 4).T,
        "offset": np.stack([BASE[5:11:2][:3], BASE[13:19:2][:3]]),
        "scalar": BASE[7],
        "none": np.zeros((0, 3), np.float32),
        "parameter": BASE,
    }
    return pieces, expected, storages


def write(path, piece, storages, archive):
    if archive:
        return forge.write_archive(path, piece, {k: a.tobytes() for k, a in storages.items()})
    path.write_bytes(forge.legacy_bytes(piece, storages))
    return path


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "legacy"])
def test_every_type_and_view(tmp_path, archive):
    pieces, expected, storages = pieces_and_expected()
    arrays = read_torch(write(tmp_path / "a.pth", forge.table(pieces), storages, archive))
    assert list(arrays) == list(expected)
    for key, wanted in expected.items():
        dtype = np.float32 if key == "bfloat16" else wanted.dtype
        assert arrays[key].dtype == dtype and arrays[key].shape == wanted.shape, key
        np.testing.assert_array_equal(arrays[key], wanted.astype(dtype), key)
        assert arrays[key].flags.c_contiguous and arrays[key].flags.writeable
    assert arrays["parameter"] is not arrays["transposed"]


def test_bfloat16_is_widened_exactly(tmp_path):
    held = np.array([1 / 3, -65280.0, np.inf, 1e-40], ml_dtypes.bfloat16)
    path = write(tmp_path / "a", forge.table({"x": forge.plain_tensor(held, "0")}), {"0": held}, 1)
    np.testing.assert_array_equal(read_torch(path)["x"], held.astype(np.float32))


def test_tensors_of_newer_torch(tmp_path):
    held = np.arange(6, dtype=np.uint16)
    base = forge.storage("UntypedStorage", "0", 12)
    base = base.replace(b"ctorch\n", b"ctorch.storage\n")
    hooks = forge.call(forge.name("collections", "OrderedDict"))
    fields = [forge.value(v) for v in (0, (2, 3), (3, 1), False)]
    piece = forge.call(
        forge.name("torch._utils", "_rebuild_tensor_v3"),
        *(base, *fields, hooks, forge.name("torch", "uint16"), forge.value(None)),
    )
    path = forge.write_archive(tmp_path / "a", forge.table({"x": piece}), {"0": held.tobytes()})
    np.testing.assert_array_equal(read_torch(path)["x"], held.reshape(2, 3))


def test_weights_in_a_training_checkpoint(tmp_path):
    piece = forge.plain_tensor(BASE, "0")
    weights = {"a.weight": piece, "a.bias": piece}
    state = forge.table({"exp_avg": piece})
    optimizer = forge.table({"state": forge.table({0: state}), "lr": forge.value([0.1, 0.2])})
    outer = {"epoch": forge.value(3), "optimizer": optimizer}
    path = write(
        tmp_path / "a", forge.table(outer | {"state_dict": forge.table(weights)}), {"0": BASE}, 1
    )
    assert list(read_torch(path)) == ["a.weight", "a.bias"]
    path = write(tmp_path / "b", forge.table(outer | {"G": forge.table(weights)}), {"0": BASE}, 0)
    arrays = read_torch(path)
    assert set(arrays) == {"optimizer.state.0.exp_avg", "G.a.weight", "G.a.bias"}
    assert arrays["G.a.weight"] is arrays["G.a.bias"]  # one tensor under two names: tied weights
    path = write(tmp_path / "c", piece, {"0": BASE}, 1)
    np.testing.assert_array_equal(read_torch(path)["tensor"], BASE)
    path = write(tmp_path / "d", forge.table({"epoch": forge.value(3)}), {}, 1)
    with pytest.raises(UserError, match="holds no array"):
        read_torch(path)


def test_deflated_archives_read_too(tmp_path):
    path = forge.write_archive(
        tmp_path / "a", forge.table({"x": forge.plain_tensor(BASE, "0")}), {"0": BASE.tobytes()}
    )
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(tmp_path / "b", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    np.testing.assert_array_equal(read_torch(tmp_path / "b")["x"], BASE)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_numpy_arrays(tmp_path, protocol):
    arrays = {
        "f": RNG.normal(size=(3, 2)),
        "big endian": np.arange(5, dtype=">i4"),
        "fortran": np.asfortranarray(RNG.normal(size=(4, 3)).astype(np.float32)),
        "half": np.float16([1, 2]),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 2)),
    }
    file = tmp_path / "a.ckpt"
    file.write_bytes(pickle.dumps({"params": arrays, "step": np.int64(3)}, protocol))
    read = read_torch(file)
    assert list(read) == list(arrays)
    for key, wanted in arrays.items():
        assert read[key].dtype == wanted.dtype.newbyteorder("="), key
        np.testing.assert_array_equal(read[key], wanted, key)


def plain(rng: random.Random, depth: int = 0):
    """A random value of the types that pickles of weights hold."""
    kind = rng.randrange(8 if depth > 3 else 12)
    if kind < 8:
        return [
            None,
            rng.random() < 0.5,
            rng.randrange(-(2**70), 2**70),
            rng.randrange(300),
            rng.gauss(0, 1e10),
            "".join(rng.choice("aé\n\\'\U0001f600 ") for _ in range(rng.randrange(300))),
            math.inf,
            "",
        ][kind]
    many = [plain(rng, depth + 1) for _ in range(rng.randrange(5))]
    if kind == 8:
        return many
    if kind == 9:
        return tuple(many)
    if kind == 10:
        return {rng.choice([str(i), i, None, True]): part for i, part in enumerate(many)}
    return {str(part) for part in many}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_machine_agrees_with_pythons(protocol):
    rng = random.Random(protocol)
    set_names = {
        ("__builtin__", "set"): set,
        ("builtins", "set"): set,
    }  # how old protocols make one
    for _ in range(150):
        value = [plain(rng) for _ in range(6)]
        value = [value, value, {"again": value}]
        data = pickle.dumps(value, protocol)
        ours = Machine(memoryview(data), set_names, Budget("x", len(data))).load()
        assert ours == value and ours[0] is ours[1]


def test_damaged_files_are_refused_whatever_the_damage(tmp_path):
    """Any byte of a good file changed, or the file cut: arrays of it or a refusal in one line."""
    pieces, expected, storages = pieces_and_expected()
    good = []
    for archive in (True, False):
        path = write(tmp_path / "good", forge.table(pieces), storages, archive)
        good.append(path.read_bytes())
    good.append(pickle.dumps({"a": BASE, "b": {"c": BASE.astype(np.float64)}}))
    rng = random.Random(0)
    refused = 0
    for case in range(600):
        data = bytearray(good[case % 3])
        if case % 7 == 0:
            data = data[: rng.randrange(len(data))]
        for _ in range(rng.choice([1, 1, 4]) if data else 0):
            data[rng.randrange(len(data))] = rng.randrange(256)
        file = tmp_path / "damaged"
        file.write_bytes(data)
        try:
            arrays = read_torch(file)
            assert all(type(a) is np.ndarray for a in arrays.values())
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and str(file) in str(error)
    assert refused > 200


def test_what_is_no_file_of_weights(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_torch(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no such file"):
        read_torch(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(UnsafeFileError, match="empty"):
        read_torch(tmp_path / "empty")
    np.savez(tmp_path / "a.npz", a=BASE)
    with pytest.raises(UserError, match=r"none of torch\.save"):
        read_torch(tmp_path / "a.npz")
    program = forge.write_archive(
        tmp_path / "p", forge.value(1), {}, {"archive/constants.pkl": b"x"}
    )
    with pytest.raises(UserError, match="TorchScript"):
        read_torch(program)
