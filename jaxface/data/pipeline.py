"""One input path for every set of face photographs: a tfds builder in, global batches out.

The order of examples is a pure function of (seed, position): position `step * batch + row` names one
example of one epoch, whoever reads it. A run resumed at step s therefore needs no saved iterator, and
any number of hosts sees the same global batches, each host its own contiguous rows of them.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator

import grain
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxface import locks, terminal
from jaxface.data.base import (
    FaceBuilder,
    FrameBuilder,
    HeadshotBuilder,
    PhotoBuilder,
    RecordBuilder,
)
from jaxface.data.images import ImageError, list_images, read_image
from jaxface.data.phantom import PhantomBuilder
from jaxface.errors import UserError, nearest
from jaxface.faces.resample import resample

RESIDENT_BYTES = 1 << 30  # sets up to this size stay whole in device memory


class NobodyError(UserError):
    """The splits that are asked for hold nobody."""


@dataclasses.dataclass(frozen=True)
class Faces:
    """One split of a built data set."""

    source: object  # tfds data source, undecoded images
    channels: int

    def __len__(self) -> int:
        return len(self.source)

    def image(self, index: int) -> np.ndarray:
        """Returns the uint8 image [H, W, C] of one record."""
        image = Image.open(io.BytesIO(self.source[index]["image"]))
        pixels = np.asarray(image.convert("L" if self.channels == 1 else "RGB"))
        return pixels[..., None] if self.channels == 1 else pixels

    def who(self, index: int) -> list[tuple[str, str]]:
        """The pseudonym of one record and the sha256 of its image's bytes, as `Drawn` takes them."""
        record = self.source[index]
        return [(_text(record["subject"]), hashlib.sha256(record["image"]).hexdigest())]

    @functools.cached_property
    def images(self) -> np.ndarray:
        """All images, uint8 [N, H, W, C], in a fixed order."""
        return np.stack([self.image(i) for i in range(len(self))])

    @functools.cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """Everything but the pixels: id, subject, side [N] strings; severity [N] float32."""
        records = [self.source[i] for i in range(len(self))]
        text = lambda name: np.array([_text(r[name]) for r in records])
        return {name: text(name) for name in ("id", "subject", "side")} | {
            "severity": np.array([r["severity"] for r in records], np.float32)
        }

    @functools.cached_property
    def fits_in_memory(self) -> bool:
        return len(self) * self.image(0).nbytes <= RESIDENT_BYTES


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


_USE = {
    FaceBuilder: "faces in one frame, for generators (experiment cleftgan and its like)",
    PhotoBuilder: "whole photographs, for UV translation (experiments uvphoto and uvphoto_v2)",
    FrameBuilder: "frames of videos, for edema (experiments edema_pretrain and edema)",
    HeadshotBuilder: "headshots with votes, for classifiers (experiments headshots_sex and headshots_smile)",
}


def builder_for(name: str, kind: type[RecordBuilder] = FaceBuilder) -> type[RecordBuilder]:
    """The imported builder class of this kind called `name`.

    Raises UserError with the nearest name, or with what the data set is for if it is of another kind.
    """
    found = _builders(kind)
    if name in found:
        return found[name]
    for other, use in _USE.items():
        if other is not kind and name in _builders(other):
            raise UserError(
                f"config.data={name!r} holds {use}; this experiment needs {_USE[kind]}."
                f"{nearest('', found)}"
            )
    raise UserError(f"config.data={name!r} is no data set.{nearest(name, found)}")


def _builders(kind: type[RecordBuilder]) -> dict[str, type[RecordBuilder]]:
    """All imported classes without subclasses, by name."""
    found, classes = {}, kind.__subclasses__()
    while classes:
        cls = classes.pop()
        classes += cls.__subclasses__()
        if not cls.__subclasses__():
            found[cls.name] = cls
    return found


def is_rendered(data: str) -> bool:
    """Whether the data sets of a config's field `data` are phantoms; UserError for an unknown one."""
    return all(issubclass(builder_for(name.strip()), PhantomBuilder) for name in data.split("+"))


def open_source(run, kind: type[RecordBuilder], split: str, decoders: dict | None = None):
    """Builds the data sets of one kind that a run's config names, once, and opens `split`.

    Args:
      run: fields `data` (a tfds builder whose module is imported, or several joined by +), `build_dir`
        and whatever the builders' `settle` reads.
      split: one, or several joined by +.
      decoders: of tfds, by field.

    Returns:
      A sequence of records.

    Raises:
      UserError: unknown data set or split, bad input, nothing in the split.
    """
    tfds.disable_progress_bar()
    classes = [builder_for(name.strip(), kind) for name in run.data.split("+")]
    configs = [cls.settle(run) for cls in classes]
    wanted = [part.strip() for part in split.split("+")]
    if any(part not in ("train", "heldout") for part in wanted):
        raise UserError(f"config.split={split!r}: use 'train', 'heldout' or 'train+heldout'.")
    sources = []
    for cls, config in zip(classes, configs):
        builder = _built(cls, config, str(run.build_dir))
        sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
        parts = [part for part in wanted if sizes.get(part)]
        if not parts:
            raise NobodyError(
                f"config.split={split!r} of {cls.name} holds nobody: add people or name another split."
            )
        sources += [builder.as_data_source(split=part, decoders=decoders) for part in parts]
    return sources[0] if len(sources) == 1 else Joined(sources)


def _built(cls: type[RecordBuilder], config, folder: str) -> RecordBuilder:
    """A builder whose records are there: where processes ask for the same ones, one makes them."""
    make = lambda: cls(data_dir=folder, config=config, file_format="array_record")
    builder = make()
    if not builder.data_path.exists():
        with _in_turn(pathlib.Path(folder) / cls.name, config.name), _plainly():
            builder = make()  # reads what another process has built meanwhile
            builder.download_and_prepare()
    return builder


@contextlib.contextmanager
def _in_turn(folder: pathlib.Path, name: str) -> Iterator[None]:
    """One process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".{name}.lock", "a") as file:
        if not locks.taken(file, wait=False):
            terminal.say(f"Another run is preparing {folder.name}: this one waits for its records.")
            locks.taken(file, wait=True)
        yield


def open_faces(run) -> Faces:
    """Opens the faces that a run's config names (see `open_source`), of the splits in `run.split`."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    return Faces(
        source=open_source(run, FaceBuilder, run.split, decoders),
        channels=run.channels,
    )


def held_out(run) -> Faces | None:
    """The people of the same data whom a run does not train on; None if there are none."""
    if "heldout" in run.split:
        return None
    try:
        return open_faces(dataclasses.replace(run, split="heldout"))
    except NobodyError:
        return None


@contextlib.contextmanager
def _plainly():
    """Lets a UserError out as itself: tfds wraps what goes wrong while it builds."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, UserError):
            raise cause from None
        raise


def read_pictures(folder: str, resolution: int, channels: int) -> np.ndarray:
    """All pictures in and under a folder as they are judged, uint8 [N, resolution, resolution, channels].

    Pictures of another size are scaled by area or cubically; they must be square.

    Raises:
      UserError: no folder, nothing in it, or a picture that cannot be read or is not square.
    """
    if not pathlib.Path(folder).is_dir():
        raise UserError(f"--images={folder} is no folder.")
    pictures = []
    for name in list_images(folder):
        path = pathlib.Path(folder) / name
        try:
            image = read_image(path)
        except ImageError as error:
            raise UserError(f"--images: {error}") from None
        height, width = image.shape[:2]
        if height != width:
            raise UserError(f"--images: {path} is {width} x {height} px, and must be square.")
        if height != resolution:
            scale = height / resolution
            image = resample(image, np.array([[scale, 0, 0], [0, scale, 0]]), resolution)
        if channels == 1:
            image = np.asarray(Image.fromarray(image).convert("L"))[..., None]
        pictures.append(image)
    if len(pictures) < 2:
        raise UserError(f"--images={folder} holds {len(pictures)} picture(s): give 2 at least.")
    return np.stack(pictures)


class Joined:
    """Several data sources read as one."""

    def __init__(self, sources):
        self._sources = sources

    def __len__(self):
        return sum(map(len, self._sources))

    def __getitem__(self, index):
        for source in self._sources:
            if index < len(source):
                return source[index]
            index -= len(source)
        raise IndexError(index)


class Examples:
    """Endless batches of one process, from step `start` on, of examples that a subclass makes.

    Example `step * batch + row` is `self._example(number)`, whoever asks; process p of P holds rows
    [p * b, (p + 1) * b) of each global batch, where b = batch / P.
    """

    def __init__(
        self,
        batch: int,
        start: int = 0,
        process_index: int = 0,
        process_count: int = 1,
        threads: int = 0,  # that make examples ahead; 0: made when asked for
        ahead: int = 64,  # batches that threads make ahead
    ):
        if batch % process_count:
            raise UserError(
                f"config.batch={batch} does not split over {process_count} processes: "
                f"use a multiple of {process_count}."
            )
        self.step, self._global = start, batch
        rows = batch // process_count

        def record(position: int) -> dict[str, np.ndarray]:
            step, row = divmod(position, rows)
            number = step * batch + process_index * rows + row
            return {"example": np.int32(number & 0x7FFFFFFF)} | self._example(number)

        positions = grain.MapDataset.range(start * rows, 2**62)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        self._iterator = iter(positions.map(record).batch(rows).to_iter_dataset(options))

    def _example(self, number: int) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def _records(self, number: int) -> Iterable[int]:
        """Numbers of the records that an example is made of."""
        raise NotImplementedError

    def drawn(self, step: int) -> set[int]:
        """Numbers of the records that a step's global batch is made of, whichever process reads them."""
        numbers = range(step * self._global, (step + 1) * self._global)
        return {int(record) for number in numbers for record in self._records(number)}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._iterator)
        self.step += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """The position to resume from: the number of global batches already given out."""
        return {"step": self.step}


class Batches(Examples):
    """Endless batches of one process, from step `start` on.

    Yields {"example": int32 [b] global example number (wraps after 2^31), "index": int32 [b] record
    number} and, when streamed, {"image": uint8 [b, H, W, C]}, where b = batch / process_count and
    process p holds rows [p * b, (p + 1) * b) of each global batch.
    """

    def __init__(
        self,
        faces: Faces,
        batch: int,
        seed: int,
        start: int = 0,
        process_index: int = 0,
        process_count: int = 1,
        stream: bool = False,
        fields: dict[str, np.ndarray] | None = None,  # more of each record, by record number
        marks: dict[str, int] | None = None,  # {name: period}: zeros [b] in every period-th batch
        threads: int = 4,
    ):
        self._faces, self._stream, self._fields = faces, stream, fields or {}
        self._order = grain.MapDataset.source(np.arange(len(faces))).seed(seed).shuffle().repeat()
        self._marks, self._rows = marks or {}, batch // process_count
        super().__init__(batch, start, process_index, process_count, threads if stream else 0)

    def _records(self, number: int) -> tuple[int]:
        return (int(self._order[number]),)

    def _example(self, number: int) -> dict[str, np.ndarray]:
        (index,) = self._records(number)
        row = {"index": np.int32(index)}
        row |= {name: values[index] for name, values in self._fields.items()}
        return row | ({"image": self._faces.image(index)} if self._stream else {})

    def __next__(self) -> dict[str, np.ndarray]:
        marks = {n: p for n, p in self._marks.items() if self.step % p == 0}
        return super().__next__() | {name: np.zeros([self._rows], np.int8) for name in marks}


class Drawn:
    """(step) -> set of (pseudonym, sha256 of an image's bytes) that the steps before it have drawn.

    The order of examples is a pure function of their numbers, so that nothing needs to be noted while
    training. Asked for a later step it goes on where it stood, and it looks no further once every record
    that can come has come: after an epoch it costs nothing. Safe to use from threads.
    """

    def __init__(
        self,
        records: Callable[[int], Iterable[int]],
        who: Callable[[int], Iterable[tuple[str, str]]],
        most: int,
    ):
        """
        Args:
          records: (step) -> numbers of the records that this step draws, over all processes.
          who: (record number) -> the pseudonym and the sha256 of each image's bytes that it holds.
          most: how many different records any number of steps can draw.
        """
        self._records, self._who, self._most = records, who, most
        self._lock = threading.Lock()  # the main thread and the one that answers SIGTERM both save
        self._begin()

    def _begin(self) -> None:
        self._step, self.seen, self._found = 0, set(), set()

    def __call__(self, step: int) -> frozenset[tuple[str, str]]:
        with self._lock:
            if step < self._step:
                self._begin()
            while self._step < step and len(self.seen) < self._most:
                for record in set(self._records(self._step)) - self.seen:
                    self.seen.add(record)
                    self._found |= set(self._who(record))
                self._step += 1
            return frozenset(self._found)
