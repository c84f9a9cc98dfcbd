"""The files of one run: config, scalars, pictures, results, wall time and where it all came from.

config.json     resolved config, experiment and command
metrics.jsonl   one line a record: step, name, value; equal for equal runs, resumed or not
timing.jsonl    one line an activity: what the wall time went to, over all resumptions
events.*        the same scalars and grids for TensorBoard
results.json    the numbers the run ends with
lineage.json    data, parent checkpoint and versions that made it; how many people, no list of them
passed_on/      whose data the checkpoints owe to that were packed or exported (`lineage`)
checkpoints/ samples/ report.html
readings/ readings.csv readings.html    of a user's own photographs, where asked for
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import threading
import time
from collections.abc import Mapping

import numpy as np

from jaxface import lineage
from jaxface.errors import UserError
from jaxface.reports import readings
from jaxface.reports.grid import save_film, save_grid
from jaxface.system import Figure, Film, Result
from jaxface.terminal import say

# Fields that may differ when a run is continued: how long, how often, where things lie.
MAY_CHANGE = {
    "kimg", "steps", "log_every", "sample_every", "eval_every", "save_every", "keep", "max_skipped",
    "compile", "data_dir", "build_dir", "ledger", "eval_images", "truncation", "truncation_cutoff",
    "normals", "normals_dir", "normals_people", "inception",
}  # fmt: skip


def write_json(path: pathlib.Path, content) -> None:
    """Writes a file that is either the old one or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    with open(draft, "w") as file:
        json.dump(content, file, indent=1, sort_keys=True, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


class Workdir:
    """Reads and writes the files of one run; only the first process of a pod writes."""

    def __init__(
        self, path: str | pathlib.Path, writes: bool = True, gate: lineage.Gate | None = None
    ):
        self.path = pathlib.Path(path)
        self.writes = writes
        self.gate = gate or lineage.Gate()  # that its checkpoints pass
        self._starts: list[dict] = []  # that lineage.json does not have yet
        self._lock = threading.Lock()  # the main thread and the one that answers SIGTERM both note

    def prepare(self, config: dict, about: dict) -> None:
        """Makes the folder, or checks that it belongs to a run of the same config.

        Raises:
          UserError: the folder holds another run (every differing field is named), or is no folder
            this user may write to.
        """
        file = self.path / "config.json"
        trained = any(self.path.glob("checkpoints/[0-9]*"))
        if file.exists() and trained:
            old = self.read_config()
            differs = [
                f"{name}: {old.get(name)!r} there, {config.get(name)!r} now"
                for name in sorted(old.keys() | config.keys())
                if name not in MAY_CHANGE | {"run"} and old.get(name) != config.get(name)
            ]
            if differs:
                raise UserError(
                    f"--workdir={self.path} holds a run of another config. Continue it with its own "
                    "settings or choose a new folder.\n  " + "\n  ".join(differs)
                )
        if self.writes:
            try:
                (self.path / "samples").mkdir(parents=True, exist_ok=True)
                write_json(file, config | {"run": about})
            except OSError as error:
                raise UserError(
                    f"--workdir={self.path} cannot be written ({error.strerror}): choose a folder "
                    "that you may write to, on a disk with space."
                ) from None

    def read_config(self) -> dict:
        """The config this run was started with; UserError if there is no run here."""
        file = self.path / "config.json"
        try:
            return json.loads(file.read_text())
        except FileNotFoundError:
            raise UserError(
                f"--workdir={self.path} holds no run (config.json is missing): train one first."
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read ({error}): restore it or train anew.") from None

    # ---- scalars ----

    def open_metrics(self, after_step: int) -> "Metrics":
        """Metrics of a run resumed after `after_step` steps; later records are dropped first."""
        return Metrics(self, after_step)

    # ---- where it comes from ----

    def note_lineage(self, start: dict | None = None, now: dict | None = None) -> None:
        """Writes to lineage.json what a run was started with, what its newest checkpoint owes to, and what
        the gate has let through in spite of a withdrawal.

        A file that does not hold what it should is set aside as lineage.json.damaged, and a new one begun.

        Raises:
          UserError: the file cannot be read or written. A start is then noted by the next call that can.
        """
        if not self.writes:
            return
        file = self.path / "lineage.json"
        with self._lock:
            self._starts += [start] if start else []
            try:
                content = self._read_lineage(file)
                content["starts"] = content.get("starts", []) + self._starts
                if now:
                    content["now"] = now
                allowed = content.get("allowed", [])
                allowed += [one for one in self.gate.allowed if one not in allowed]
                write_json(file, content | ({"allowed": allowed} if allowed else {}))
            except OSError as error:
                raise UserError(
                    f"{file} cannot be written ({error.strerror or error}): it must be a file that you may "
                    "write to, on a disk with space."
                ) from None
            self._starts = []

    def _read_lineage(self, file: pathlib.Path) -> dict:
        """What lineage.json holds; {} where there is none, or none that is whole, which is set aside."""
        try:
            content = json.loads(file.read_text())
            lists = (content.get("starts", []), content.get("allowed", []))
            if all(isinstance(one, list) for one in lists):
                return content
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError):  # no JSON, or no object
            pass
        aside, number = file.with_name(f"{file.name}.damaged"), 1
        while aside.exists():
            number += 1
            aside = file.with_name(f"{file.name}.damaged-{number}")
        os.replace(file, aside)
        say(f"{file} is damaged: it is kept as {aside.name}, and a new one begins.")
        return {}

    # ---- results and pictures ----

    def add_results(self, results: dict[str, Result]) -> dict:
        """Merges numbers into results.json and returns all of them."""
        file = self.path / "results.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        for name, result in results.items():
            known[name] = {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in result._asdict().items()
            }
        if self.writes:
            write_json(file, known)
        return known

    def add_figure(self, name: str, figure: Figure, about: dict[str, str]) -> None:
        """Saves a grid as samples/<name>.png with its caption and provenance."""
        if not self.writes:
            return
        if figure.photographs:
            about = {k: v for k, v in about.items() if k != "synthetic"}
            about["content"] = "training photographs, alone or beside generated faces"
        save_grid(figure.images, self.path / "samples" / f"{name}.png", figure.columns, about)
        file = self.path / "samples" / "captions.json"
        captions = json.loads(file.read_text()) if file.exists() else {}
        write_json(file, captions | {f"{name}.png": figure.caption})

    def add_picture(self, name: str, figure: Figure, about: dict[str, str]) -> None:
        """Saves pictures of a figure as generated/<name>.png at their own size, with provenance."""
        path = self.path / "generated" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_grid(figure.images, path, figure.columns, about, side=0)

    def add_reading(self, stem: str, pictures: Mapping[str, np.ndarray], about: dict) -> None:
        """Saves what was made of a photograph as readings/<stem>/<name>.png, with provenance.

        Pictures of an earlier photograph of that name are gone afterwards, also where there are no new
        ones.
        """
        folder = self.path / "readings" / stem
        for old in folder.glob("*.png"):
            old.unlink()
        for name, image in pictures.items():
            folder.mkdir(parents=True, exist_ok=True)
            readings.save(image, folder / f"{name}.png", about)

    def add_film(self, name: str, film: Film, about: dict[str, str]) -> pathlib.Path:
        """Saves moving pictures as generated/<name>.gif, provenance in its comment. -> its path"""
        path = self.path / "generated" / f"{name}.gif"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_film(film, path, about)
        return path

    @contextlib.contextmanager
    def clock(self, activity: str, step: int = 0):
        """Notes how long the body took under the name of what it did."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.record(activity, time.monotonic() - began, step)

    def record(self, activity: str, seconds: float, step: int) -> None:
        """Adds one line to timing.jsonl."""
        if self.writes and self.path.is_dir():
            line = json.dumps({"activity": activity, "seconds": seconds, "step": step})
            with open(self.path / "timing.jsonl", "a") as file:
                file.write(line + "\n")


class Metrics:
    """Scalars and pictures to metrics.jsonl and TensorBoard, by the method names of clu's writers."""

    def __init__(self, workdir: Workdir, after_step: int):
        self._file = self._events = None
        self._known: set[tuple[int, str]] = set()  # written before the run was resumed
        if not workdir.writes:
            return
        # Imported late: protobuf and TensorBoard are not needed by whoever only reads a workdir.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        path = workdir.path / "metrics.jsonl"
        if path.exists():
            kept = []
            for line in path.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):  # a line cut by a kill
                    record = json.loads(line)
                    if record["step"] <= after_step:
                        kept.append(line)
                        self._known.add((record["step"], record["name"]))
            draft = path.with_name("metrics.jsonl.tmp")
            draft.write_text("".join(line + "\n" for line in kept))
            os.replace(draft, path)
        self._file = open(path, "a")  # noqa: SIM115 (closed by close)
        self._events = EventFileWriter(str(workdir.path))

    def has(self, step: int, prefix: str) -> bool:
        """Whether a number whose name begins so was written at `step` before the run was resumed."""
        return any(s == step and name.startswith(prefix) for s, name in self._known)

    def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
        if self._file is None:
            return
        scalars = {k: v for k, v in scalars.items() if (step, k) not in self._known}
        for name, value in sorted(scalars.items()):
            value = float(value)
            record = {"step": step, "name": name, "value": value if math.isfinite(value) else None}
            self._file.write(json.dumps(record) + "\n")
        values = [
            self._summary.Value(tag=name, simple_value=float(value))
            for name, value in scalars.items()
        ]
        self._add(step, values)

    def write_images(self, step: int, name: str, png: bytes, height: int, width: int) -> None:
        if self._file is None:
            return
        image = self._summary.Image(height=height, width=width, encoded_image_string=png)
        self._add(step, [self._summary.Value(tag=name, image=image)])

    def _add(self, step, values):
        event = self._event(wall_time=time.time(), step=step, summary=self._summary(value=values))
        self._events.add_event(event)

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()
            self._events.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._events.close()


def as_dict(config) -> dict:
    """A config dataclass as JSON-able plain values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=_plain))


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"config field of type {type(value).__name__} is not plain data")
