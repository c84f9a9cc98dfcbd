"""Checkpoints that are whole or not there: written by Orbax, hashed, read back, committed last.

directory/<step>/state, meta     what Orbax writes
directory/<step>/manifest.json   sha256, shape and dtype of every leaf, sha256 and size of every file
directory/<step>.withdrawn.json  who withdrew after it learned from them (`lineage`): it is not given out
directory/<step>.damaged         a step that did not verify, kept for whoever wants to know why
directory/<step>.saving          a save that did not end; the next restore sweeps it
directory/.lock                  held by the process that writes

The manifest proves that a checkpoint is what was saved, not who saved it.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
import threading
from collections.abc import Callable

import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
from clu import asynclib
from jax.experimental import multihost_utils

from jaxface import lineage, locks, parallel
from jaxface.errors import UserError

MANIFEST = "manifest.json"
MANIFEST_LIMIT = 64 << 20  # bytes; a manifest takes about 150 a leaf
_LEFTOVER = re.compile(r"(\d+)\.(saving|removing|replaced)|.*\.orbax-checkpoint-tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = ("No space left", "Disk quota exceeded")  # how TensorStore's errors say it


class Damaged(Exception):
    """A step that is not, bit for bit, what was saved; the message names the file or the leaf."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: made by the first save.
      keep: how many of the newest steps stay.
      log: called with one line whenever a step is set aside, swept or removed for want of space;
        the same lines are kept in `warnings`.
      gate: called with (folder of the step, its digest, its meta) before anything is given out; raises
        UserError where that must not be. By default one that allows nothing.

    Attributes:
      failure: why the newest finished save failed, None if it did not. Waits for nothing.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        keep: int = 3,
        log: Callable[[str], None] = lambda line: None,
        gate: Callable[[pathlib.Path, str, dict], None] | None = None,
    ):
        self.directory = pathlib.Path(directory).absolute()
        self.keep = max(1, keep)
        self.failure: str | None = None
        self.warnings: list[str] = []
        self._log = log
        self._gate, self._passed = gate or lineage.Gate(), ""
        self._pool = asynclib.Pool("checkpoint", max_workers=1)
        self._pending = None
        self._lock = threading.Lock()  # the main thread and the one that answers SIGTERM both save

    # ---- saving -----------------------------------------------------------------------------

    def save(self, step: int, state, meta: dict, wait: bool = False) -> None:
        """Copies `state` to the host and writes it in the background; `wait` waits for the commit.

        The step may donate `state` as soon as this returns. A failed save sets `failure` and raises
        nothing: the older checkpoints stay and the next save tries again. Of several processes only
        the first one writes and none waits for another, so that any of them may be the only caller.
        """
        with self._lock:
            self.wait()
            if jax.process_index() == 0:
                arrays, keys = _host_leaves(state)
                self._pending = self._pool(self._save)(int(step), arrays, keys, meta)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Returns when the save that was under way is committed or has failed."""
        if self._pending is not None:
            self._pending.result()

    def _save(self, step: int, arrays: dict, keys: dict, meta: dict) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._only_writer(wait=True):
                self._commit(step, arrays, keys, meta)
                for old in self.steps()[: -self.keep]:
                    self._remove(old)
            self.failure = None
        except Exception as error:
            self.failure = self._why(step, error, sum(a.nbytes for a in arrays.values()))

    def _commit(self, step: int, arrays: dict, keys: dict, meta: dict) -> None:
        leaves = {name: _leaf(array, keys.get(name)) for name, array in arrays.items()}
        final, draft = self._path(step), self.directory / f"{step}.saving"
        replaced = self.directory / f"{step}.replaced"
        if final.exists():
            try:
                if _verify(final)["leaves"] == leaves:
                    return
            except Damaged as damage:
                self._set_aside(final, damage)
        while True:
            _delete(draft, replaced)
            try:
                _write(draft, step, arrays, leaves, meta)
                break
            except Exception as error:
                _delete(draft, *self.directory.glob(f"{draft.name}*"))
                older = self.steps()[:-1]
                if not older or not _is_full(error):
                    raise
                self._say(f"Disk full: checkpoint {older[0]} makes room for step {step}.")
                self._remove(older[0])
        if final.exists():
            os.rename(final, replaced)
        os.rename(draft, final)
        _sync(self.directory)
        _delete(replaced)

    def _remove(self, step: int) -> None:
        # Under another name first: a removal cut short must not look like a damaged checkpoint.
        going = self.directory / f"{step}.removing"
        _delete(going)
        os.rename(self._path(step), going)
        _delete(going)

    def _why(self, step: int, error: Exception, needed: int) -> str:
        kept = self.steps()
        cause = "the disk is full" if _is_full(error) else _cause(error)
        free = _free(self.directory)
        return (
            f"step {step} could not be saved in {self.directory}: {cause} (needs up to "
            f"{needed:,} bytes, {free:,} are free). "
            + (f"Checkpoint {kept[-1]} is kept." if kept else "There is no earlier checkpoint.")
        )

    # ---- restoring --------------------------------------------------------------------------

    def restore(self, like) -> tuple | None:
        """Newest checkpoint that verifies, as (state, meta, step); None if there is none.

        Args:
          like: tree of arrays, typed keys, Python numbers or ShapeDtypeStructs.

        Returns the tree of `like` with numpy arrays (typed keys for typed keys), bit for bit as
        saved. Every file is hashed before Orbax opens one and every leaf after. A step that fails is
        renamed to <step>.damaged, with one line that names it and the file, and the next older one
        is tried. All processes of a run call this and get the step that process 0 found.

        Raises:
          UserError: names, shapes or dtypes differ from `like`; all of them are listed. Or the newest one
            owes to a person who has withdrawn: no older one is taken in its place.
        """
        if jax.process_count() == 1:
            return self._restore_newest(like)
        if jax.process_index() == 0:
            try:
                found = self._restore_newest(like)
            except UserError:
                multihost_utils.broadcast_one_to_all(np.int64(-2))
                raise
            multihost_utils.broadcast_one_to_all(np.int64(-1 if found is None else found[2]))
            return found
        step = int(multihost_utils.broadcast_one_to_all(np.int64(0)))
        if step == -2:
            raise UserError(f"process 0 cannot continue from {self.directory}: see its message.")
        if step == -1:
            return None
        try:
            return *_restore(self._path(step), like), step
        except Damaged as damage:
            raise UserError(
                f"process {jax.process_index()} cannot read checkpoint {step} of {self.directory} "
                f"that process 0 has read ({damage}): give all processes the same shared --workdir."
            ) from None

    def ask_gate(self) -> None:
        """Asks the gate about the newest step, before anything is built or compiled for its sake.

        Raises:
          UserError: the gate refuses it.
        """
        step = self.newest()
        if step is not None:
            # What is damaged `restore` finds, and asks about the step that it gives out.
            with contextlib.suppress(Damaged):
                self._ask(self._path(step), *read_meta(self._path(step)))

    def _ask(self, path: pathlib.Path, digest: str, meta: dict) -> None:
        if digest != self._passed:  # asked once, for it tells what it lets through
            self._gate(path, digest, meta)
            self._passed = digest

    def _restore_newest(self, like):
        self._sweep()
        for step in reversed(self._numbered()):
            try:
                state, meta = _restore(self._path(step), like)
            except Damaged as damage:
                self._set_aside(self._path(step), damage)
            else:
                self._ask(self._path(step), self.digest(step), meta)
                return state, meta, step
        return None

    def load(self, path: str | os.PathLike) -> tuple[dict, dict]:
        """Newest good checkpoint of a workdir, a checkpoints folder or a step folder, as it stands.

        Returns (nested dict of numpy arrays, meta). A typed key comes back as its uint32 data.
        Changes nothing on disk.

        Raises:
          UserError: there is no checkpoint at `path` or none that verifies, or the gate refuses it.
        """
        path = pathlib.Path(path).absolute()
        if (path / MANIFEST).exists() or path.name.isdigit():
            candidates = [path]
        else:
            folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
            candidates = [folder / str(step) for step in reversed(_numbered(folder))]
        for candidate in candidates:
            try:
                manifest = _verify(candidate)
                arrays, meta = _read(candidate, manifest)
            except Damaged as damage:
                self._say(f"Checkpoint {candidate} is damaged: {damage}.")
                reason = f"its newest checkpoint {candidate.name} is damaged: {damage}"
            else:
                self._ask(candidate, manifest["sha256"], meta)
                return _nested(arrays), meta
        if not candidates:
            reason = "give a workdir, its checkpoints folder or one step of it"
        raise UserError(f"{path} holds no good checkpoint: {reason}.")

    def digest(self, step: int) -> str:
        """sha256 of what step `step` holds, as its manifest says it: the checkpoint's name for good.

        Raises UserError where there is no such checkpoint.
        """
        try:
            return _read_manifest(self._path(step))["sha256"]
        except Damaged as damage:
            raise UserError(f"checkpoint {self._path(step)}: {damage}.") from None

    def steps(self) -> list[int]:
        """Committed steps in ascending order: those whose manifest is there and whole."""
        return [step for step in self._numbered() if _is_committed(self._path(step))]

    def newest(self) -> int | None:
        """The newest committed step, None before the first; waits for a save that is under way."""
        self.wait()
        return max(self.steps(), default=None)

    # ---- the folder -------------------------------------------------------------------------

    def _path(self, step: int) -> pathlib.Path:
        return self.directory / str(step)

    def _numbered(self) -> list[int]:
        return _numbered(self.directory)

    def _say(self, line: str) -> None:
        self.warnings.append(line)
        self._log(line)

    def _set_aside(self, path: pathlib.Path, damage: Damaged) -> None:
        aside, number = path.with_name(f"{path.name}.damaged"), 1
        while aside.exists():
            number += 1
            aside = path.with_name(f"{path.name}.damaged-{number}")
        moved = f"moved to {aside.name}, an older one is used if there is one"
        try:
            os.rename(path, aside)
            _sync(self.directory)
        except OSError as error:
            moved = f"could not be moved aside ({error.strerror}), an older one is used"
        self._say(f"Checkpoint {path} is damaged: {damage}; {moved}.")

    def _sweep(self) -> None:
        """Removes what interrupted saves and removals left, unless another process saves now."""
        if not self.directory.is_dir():
            return
        with self._only_writer(wait=False) as alone:
            if not alone:
                return
            for path in sorted(self.directory.iterdir()):
                match = _LEFTOVER.fullmatch(path.name)
                if not match:
                    continue
                if match[2] == "replaced" and not self._path(int(match[1])).exists():
                    os.rename(path, self._path(int(match[1])))
                    continue
                _delete(path)
                self._say(f"Swept {path}: a save or removal that was interrupted.")

    @contextlib.contextmanager
    def _only_writer(self, wait: bool):
        """Yields whether this process holds the folder's lock; the system frees it on any death."""
        try:
            file = open(self.directory / ".lock", "a")  # noqa: SIM115 (closed below)
        except OSError:
            yield False
            return
        with file:
            yield locks.taken(file, wait)


# ---- leaves ---------------------------------------------------------------------------------


def _is_key(leaf) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _named(tree) -> dict:
    """{"params/generator/...": leaf} in the order of the tree."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _nested(arrays: dict) -> dict:
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def _host_leaves(state) -> tuple[dict, dict]:
    """({name: numpy array}, {name of a typed key: its implementation})"""
    named = _named(state)
    keys = {k: str(jax.random.key_impl(leaf)) for k, leaf in named.items() if _is_key(leaf)}
    raw = {k: jax.random.key_data(leaf) if k in keys else leaf for k, leaf in named.items()}
    # Copies: on CPU the host's arrays may be views of buffers that the next step overwrites.
    return {name: np.array(array) for name, array in parallel.to_host(raw).items()}, keys


def _leaf(array: np.ndarray, key: str | None = None) -> dict:
    entry = {
        "sha256": hashlib.sha256(
            np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        ).hexdigest(),
        "shape": list(array.shape),
        "dtype": array.dtype.name,
    }
    return entry | {"key": key} if key else entry


def _expected(leaf) -> dict:
    """Shape and dtype that a leaf of `like` has once it is a numpy array on the host."""
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    elif not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return {"shape": list(leaf.shape), "dtype": np.dtype(leaf.dtype).name}


def estimate_bytes(state) -> int:
    """Bytes that a tree of arrays, typed keys or ShapeDtypeStructs takes in a checkpoint."""
    expected = [_expected(leaf) for leaf in jax.tree.leaves(state)]
    return sum(_bytes(entry) for entry in expected)


def _bytes(entry: dict) -> int:
    size = 1
    for length in entry["shape"]:
        size *= length
    return size * np.dtype(entry["dtype"]).itemsize


def check_space(directory: str | os.PathLike, needed: int) -> None:
    """Raises UserError where `directory` cannot come to hold `needed` bytes.

    What it holds already counts: a run that is continued needs no second place for its checkpoints.
    """
    directory = pathlib.Path(directory).absolute()
    held = sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(directory)
        for name in names
    )
    free = _free(directory)
    if free + held < needed:
        raise UserError(
            f"{directory}: checkpoints need {needed - held:,} bytes more and {free:,} are free: "
            "free some, choose a --workdir on a larger disk or lower config.keep."
        )


# ---- one step folder ------------------------------------------------------------------------


def _orbax(process: int) -> ocp.Checkpointer:
    # The only process that Orbax knows of is this one: it waits at no barrier for the others.
    alone = ocp.options.MultiprocessingOptions(primary_host=process, active_processes={process})
    options = ocp.CompositeOptions(multiprocessing_options=alone)
    handler = ocp.CompositeCheckpointHandler(
        composite_options=options,
        state=ocp.StandardCheckpointHandler(multiprocessing_options=alone),
        meta=ocp.JsonCheckpointHandler(multiprocessing_options=alone),
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _write(draft: pathlib.Path, step: int, arrays: dict, leaves: dict, meta: dict) -> None:
    """Writes a step folder, durably, and reads it back."""
    # TensorStore takes no array without elements; shape and dtype in the manifest are all of one.
    state = _nested({name: array for name, array in arrays.items() if array.size})
    with _orbax(jax.process_index()) as orbax:
        items = {"state": ocp.args.StandardSave(state), "meta": ocp.args.JsonSave(meta)}
        orbax.save(draft, args=ocp.args.Composite(**items))
    files = {name: _file(draft / name, sync=True) for name in _files(draft)}
    content = {"format": 1, "step": step, "leaves": leaves, "files": files}
    body = json.dumps(content, indent=1, sort_keys=True).encode()[2:]  # all but '{\n'
    part = draft / f"{MANIFEST}.part"
    with open(part, "wb") as file:
        file.write(_head(body) + body)
        file.flush()
        os.fsync(file.fileno())
    os.rename(part, draft / MANIFEST)
    for folder, _, _ in os.walk(draft, topdown=False):
        _sync(folder)
    _read(draft, _verify(draft))


def _head(body: bytes) -> bytes:
    """The manifest's first line: the digest of every byte that follows it."""
    return b'{"sha256": "%s",\n' % hashlib.sha256(body).hexdigest().encode()


def _read_manifest(path: pathlib.Path) -> dict:
    file = path / MANIFEST
    try:
        if not file.is_file() or file.is_symlink():
            raise Damaged(f"{MANIFEST} is missing, so it was never committed")
        if file.stat().st_size > MANIFEST_LIMIT:
            raise Damaged(f"{MANIFEST} is larger than any manifest")
        raw = file.read_bytes()
    except OSError as error:
        raise Damaged(f"{MANIFEST} cannot be read ({error.strerror})") from None
    head, newline, body = raw.partition(b"\n")
    if head + newline != _head(body):
        raise Damaged(f"{MANIFEST} differs from the digest in its first line")
    return json.loads(raw)


def _is_committed(path: pathlib.Path) -> bool:
    try:
        return bool(_read_manifest(path))
    except Damaged:
        return False


def read_meta(path: pathlib.Path) -> tuple[str, dict]:
    """(digest, meta) of a step's folder without its arrays, which are not looked at.

    Raises Damaged where manifest or meta is not what was saved.
    """
    manifest, name = _read_manifest(path), "meta/metadata"
    if _file(path / name) != manifest["files"].get(name):
        raise Damaged(f"{name} differs from its sha256")
    return manifest["sha256"], json.loads((path / name).read_text(encoding="utf-8"))


def _verify(path: pathlib.Path) -> dict:
    """The manifest of a step folder all of whose files are, byte for byte, what it says.

    Raises:
      Damaged: names the first file that is missing, unknown, no plain file, or differs.
    """
    manifest = _read_manifest(path)
    try:
        found = set(_files(path)) - {MANIFEST}
        for name in sorted(found ^ manifest["files"].keys()):
            raise Damaged(f"{name} is {'unknown' if name in found else 'missing'}")
        for name, entry in manifest["files"].items():
            size = os.lstat(path / name).st_size
            if size != entry["size"]:
                raise Damaged(f"{name} has {size} bytes, not {entry['size']}")
        for name, entry in manifest["files"].items():
            if _file(path / name) != entry:
                raise Damaged(f"{name} differs from its sha256")
    except OSError as error:
        raise Damaged(f"{error.filename} cannot be read ({error.strerror})") from None
    return manifest


def _read(path: pathlib.Path, manifest: dict) -> tuple[dict, dict]:
    """({name: array}, meta) of a verified step folder, every leaf checked.

    Raises:
      Damaged: names the leaf that differs, or says why Orbax cannot read it.
    """
    leaves = manifest["leaves"]
    needed = sum(_bytes(entry) for entry in leaves.values())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise Damaged(f"{MANIFEST} asks for {needed:,} bytes of memory, more than there is")
    # Shapes and dtypes come from the manifest, never from what the array files say of themselves.
    blank = {
        name: np.broadcast_to(np.zeros([], entry["dtype"]), entry["shape"])
        for name, entry in leaves.items()
    }
    like = _nested({name: array for name, array in blank.items() if array.size})
    try:
        with _orbax(jax.process_index()) as orbax:
            items = {"state": ocp.args.StandardRestore(like), "meta": ocp.args.JsonRestore()}
            restored = orbax.restore(path, args=ocp.args.Composite(**items))
    except MemoryError:
        raise
    except Exception as error:
        raise Damaged(f"Orbax cannot read it ({_cause(error)})") from None
    arrays = blank | flax.traverse_util.flatten_dict(restored.state, sep="/")
    for name, entry in leaves.items():
        arrays[name] = np.asarray(arrays[name])
        if _leaf(arrays[name], entry.get("key")) != entry:
            raise Damaged(f"leaf {name} differs from its sha256")
    return arrays, restored.meta


def _restore(path: pathlib.Path, like) -> tuple:
    """(tree of `like`, meta) of a step folder; Damaged or UserError as `Checkpoints.restore` says."""
    manifest = _verify(path)
    named = _named(like)
    leaves = manifest["leaves"]
    wrong = [f"missing in it: {name}" for name in named if name not in leaves]
    wrong += [f"not in this run: {name}" for name in leaves if name not in named]
    for name in named.keys() & leaves.keys():
        expected, entry = _expected(named[name]), leaves[name]
        saved = {field: entry[field] for field in expected}
        if saved != expected or _is_key(named[name]) != ("key" in entry):
            kind = lambda e, key: f"{'key ' * key}{e['dtype']} {tuple(e['shape'])}"
            wrong.append(
                f"{name}: {kind(saved, 'key' in entry)} in it, "
                f"{kind(expected, _is_key(named[name]))} in this run"
            )
    if wrong:
        raise UserError(
            f"checkpoint {path} does not fit this run ({len(wrong)} name(s)): use the config and the data "
            "it was saved with, or a new --workdir.\n  " + "\n  ".join(sorted(wrong))
        )
    arrays, meta = _read(path, manifest)

    def as_in_like(name, leaf):
        if _is_key(leaf):
            return jax.random.wrap_key_data(arrays[name], impl=leaves[name]["key"])
        return arrays[name] if hasattr(leaf, "dtype") else type(leaf)(arrays[name])

    filled = [as_in_like(name, leaf) for name, leaf in named.items()]
    return jax.tree.unflatten(jax.tree.structure(like), filled), meta


# ---- files ----------------------------------------------------------------------------------


def _numbered(folder: pathlib.Path) -> list[int]:
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(int(name) for name in names if re.fullmatch(r"0|[1-9]\d*", name))


def _files(path: pathlib.Path) -> list[str]:
    """Relative names of everything in a folder that is not a folder, symbolic links included."""
    names = []
    for folder, folders, files in os.walk(path):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        names += [os.path.relpath(os.path.join(folder, name), path) for name in files + links]
    return sorted(names)


def _file(path: pathlib.Path, sync: bool = False) -> dict:
    if path.is_symlink() or not path.is_file():
        return {"sha256": "no plain file", "size": 0}
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "size": file.tell()}


def _sync(folder: str | os.PathLike) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete(*paths: pathlib.Path) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _free(path: pathlib.Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) in _FULL or any(t in str(error) for t in _FULL_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _cause(error: Exception) -> str:
    """The system's words in an error, which TensorStore hides in a paragraph; else its first line."""
    text = str(error).strip()
    causes = [os.strerror(n) for n in errno.errorcode if os.strerror(n) in text]
    if isinstance(error, OSError):
        causes = []
    return ", ".join(causes) or (text.splitlines() or [type(error).__name__])[0][:300]
