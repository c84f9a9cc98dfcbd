"""Whole photographs and the patches that translation learns from (UV-photo Net, Kojima et al. 2021).

The paper cuts overlapping patches of 256 x 256 px from pairs at full resolution and keeps those with
enough skin. Here a photograph is shuffled to as one, and of its patches one is drawn for each example,
so that every person counts the same however large the face. A batch holds a window around each patch
rather than the patch alone: the training step can then rotate and scale both pictures of a pair
alike and still fill the patch with what is really there.
"""

import collections
import dataclasses
import functools
import hashlib
import io
import threading

import numpy as np
from PIL import Image

from jaxface import terminal
from jaxface.data.base import PhotoBuilder
from jaxface.data.pipeline import RESIDENT_BYTES, Examples, NobodyError, open_source
from jaxface.errors import UserError
from jaxface.ops.tiles import patch_centers

KEPT_BYTES = 2 * RESIDENT_BYTES  # decoded pictures kept in the host's memory
AHEAD = 4  # batches of windows made ahead
_WORDS = ("id", "subject", "view", "device")
_NUMBERS = ("face_width", "covered", "ita")
_SHOWN = 5  # names told at once


class _Records:
    """Records of a data set with the pictures that were decoded last; safe to use from threads."""

    def __init__(self, source):
        self.source = source
        self.centers: dict[tuple, np.ndarray] = {}
        self._kept: collections.OrderedDict[tuple[int, str], np.ndarray] = collections.OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def pictures(self, number: int, *names: str) -> list[np.ndarray | None]:
        """uint8 [H, W, 3] or [H, W], read-only; None for an empty one."""
        with self._lock:
            found = {n: self._kept[number, n] for n in names if (number, n) in self._kept}
            for name in found:
                self._kept.move_to_end((number, name))
        missing = [name for name in names if name not in found]
        if missing:
            record = self.source[number]
            new = {name: _decode(record[name]) for name in missing}
            found |= new
            with self._lock:
                for name, picture in new.items():
                    if picture is None or (number, name) in self._kept:
                        continue
                    self._kept[number, name] = picture
                    self._bytes += picture.nbytes
                while self._bytes > KEPT_BYTES and len(self._kept) > 1:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return [found[name] for name in names]

    @functools.cached_property
    def labels(self) -> dict[str, np.ndarray]:
        rows = collections.defaultdict(list)
        for number in range(len(self.source)):
            record = self.source[number]
            for name in _WORDS:
                rows[name].append(record[name].decode())
            for name in _NUMBERS:
                rows[name].append(np.float32(record[name]))
            rows["has_uv"].append(bool(record["uv"]))
            width, height = Image.open(io.BytesIO(record["color"])).size
            rows["height"].append(height)
            rows["width"].append(width)
        return {name: np.array(values) for name, values in rows.items()}


def _decode(content: bytes) -> np.ndarray | None:
    if not content:
        return None
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    pixels.flags.writeable = False
    return pixels


@dataclasses.dataclass(frozen=True)
class Photos:
    """Photographs of one data set, or a choice of them; decoded when asked for.

    Pictures are read-only arrays. As many as fit `KEPT_BYTES` stay in memory, those asked for last.
    """

    records: _Records
    numbers: np.ndarray  # [N] of the records

    def __len__(self) -> int:
        return len(self.numbers)

    def color(self, index: int) -> np.ndarray:
        """The photograph, uint8 [H, W, 3]."""
        return self._pictures(index, "color")[0]

    def uv(self, index: int) -> np.ndarray | None:
        """The UV photograph that training may see, uint8 [H, W]; None for an unpaired one."""
        return self._pictures(index, "uv")[0]

    def truth_uv(self, index: int) -> np.ndarray | None:
        """The UV photograph that judgement may see, uint8 [H, W]; None where there is none."""
        paired = self.uv(index)
        return self._pictures(index, "truth_uv")[0] if paired is None else paired

    def pigment(self, index: int) -> np.ndarray | None:
        """Where the spots of a phantom are, bool [H, W]; None where that is not known."""
        (spots,) = self._pictures(index, "pigment")
        return None if spots is None else spots > 127

    def mask(self, index: int) -> np.ndarray:
        """Skin to be used, bool [H, W]."""
        return self._pictures(index, "mask")[0] > 127

    def who(self, index: int) -> list[tuple[str, str]]:
        """(pseudonym, sha256 of its PNG bytes) of the photograph and of the UV one it is paired with."""
        record = self.records.source[int(self.numbers[index])]
        seen = [record[name] for name in ("color", "uv") if record[name]]
        return [(record["subject"].decode(), hashlib.sha256(png).hexdigest()) for png in seen]

    def landmarks(self, index: int) -> np.ndarray:
        """Points of the face mesh, float32 [468, 3] in px."""
        return self.records.source[int(self.numbers[index])]["landmarks"]

    @functools.cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """Everything but pictures and points, arrays [N].

        id, subject, view, device: strings. has_uv: bool. height, width: int, px. face_width: float32, px.
        covered: float32 0..1. ita: float32, degrees.
        """
        return {name: values[self.numbers] for name, values in self.records.labels.items()}

    def where(
        self, *, paired: bool | None = None, device: str | None = None, view: str | None = None
    ) -> "Photos":
        """Those with a UV photograph or without, of one device, of one view; None takes all.

        They share what is decoded with these. There may be none.
        """
        chosen = np.ones(len(self), bool)
        for name, value in (("has_uv", paired), ("device", device), ("view", view)):
            if value is not None:
                chosen &= self.labels[name] == value
        return Photos(self.records, self.numbers[chosen])

    def centers(self, index: int, patch: int, stride: int, coverage: float) -> np.ndarray:
        """Centers of the patches with enough skin, int32 [K, 2] (row, column)."""
        key = (int(self.numbers[index]), patch, stride, coverage)
        if key not in self.records.centers:
            mask = _decode(self.records.source[key[0]]["mask"]) > 127  # not needed a second time
            self.records.centers[key] = patch_centers(mask, patch, stride, coverage)
        return self.records.centers[key]

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """`color` and `uv` in one reading."""
        return tuple(self._pictures(index, "color", "uv"))

    def _pictures(self, index: int, *names: str) -> list[np.ndarray | None]:
        return self.records.pictures(int(self.numbers[index]), *names)


def open_photos(
    run,
    split: str = "train",
    *,
    paired: bool | None = None,
    device: str | None = None,
    view: str | None = None,
) -> Photos:
    """Builds the photographs that a run's config names, once, and opens a choice of them.

    Args:
      run: fields `data` (a tfds builder whose module is imported, or several joined by +), `build_dir`
        and whatever the builders' `settle` reads.
      split: "train", "heldout", or both joined by +.
      paired, device, view: as for `Photos.where`.

    Raises:
      UserError: unknown data set or split, bad input, nothing in the split.
      NobodyError: (a UserError) nothing in the split, or nothing of what was chosen.
    """
    source = open_source(run, PhotoBuilder, split)
    photos = Photos(_Records(source), np.arange(len(source)))
    chosen = photos.where(paired=paired, device=device, view=view)
    if not len(chosen):
        asked = {"device": device, "view": view}
        wanted = [f"{name} {value!r}" for name, value in asked.items() if value is not None]
        if paired is not None:
            wanted.append("a UV photograph" if paired else "no UV photograph")
        known = ", ".join(sorted(set(photos.labels["device"])))
        raise NobodyError(
            f"config.data={run.data!r}: none of the {len(photos)} photographs of split {split!r} has "
            f"{' and '.join(wanted)} (their devices: {known}). Add such photographs to the manifest."
        )
    return chosen


class PatchBatches(Examples):
    """Endless batches of windows around patches of skin, for one process, from step `start` on.

    Yields, where b = batch / process_count,
      "example": int32 [b], the global number of the example (wraps after 2^31);
      "color": uint8 [b, window, window, 3];
      "uv": uint8 [b, window, window, 1], the same places of the UV photograph, where all are paired;
      "face_width": float32 [b], px.
    Process p holds rows [p * b, (p + 1) * b) of each global batch. Example n is a function of `seed` and
    n alone. Its patch is the middle of the window: rows and columns [s, s + patch) with
    s = window // 2 - patch // 2. Beyond its edge a photograph is reflected.
    """

    def __init__(
        self,
        photos: Photos,
        batch: int,
        patch: int,
        *,
        stride: int,
        coverage: float,
        window: int,
        per_photo: int = 1,
        seed: int,
        start: int = 0,
        process_index: int = 0,
        process_count: int = 1,
        threads: int = 2,
    ):
        """
        Args:
          photos: what to cut from. Those without any patch are left out and named.
          batch: examples over all processes.
          patch: px a side.
          stride: px between the patches to choose from.
          coverage: share of skin, 0..1, that a patch must have.
          window: px a side of what is given, at least `patch`.
          per_photo: consecutive examples from one photograph; more than one spares decoding where the
            photographs do not fit the memory.

        Raises:
          UserError: no photograph has a patch; `window` is smaller than `patch`; `batch` does not split.
        """
        if window < patch:
            raise UserError(f"config.window={window} is smaller than config.patch={patch}.")
        count = len(photos)
        self._centers = [photos.centers(i, patch, stride, coverage) for i in range(count)]
        self._usable = np.array([i for i in range(count) if len(self._centers[i])], int)
        empty = [i for i in range(count) if not len(self._centers[i])]
        self.left_out = tuple(photos.labels["id"][empty])  # photographs without any patch
        if not len(self._usable):
            widest = max(photos.labels["face_width"], default=0)
            raise UserError(
                f"config.patch={patch}, config.coverage={coverage}: none of the {count} photographs has "
                f"a patch with that share of skin (the widest face measures {widest:.0f} px). Use a "
                "smaller patch, less coverage or photographs in which the face is larger."
            )
        if empty and process_index == 0:
            names = ", ".join(self.left_out[:_SHOWN]) + (", ..." if len(empty) > _SHOWN else "")
            terminal.say(
                f"{len(empty)} of {count} photographs have no patch of {patch} px with {coverage:.0%} "
                f"skin and are not trained on: {names}"
            )
        self._photos, self._window, self._seed = photos, window, seed
        self._per_photo = per_photo
        # Grain's shuffle takes milliseconds for each number of so short a list.
        self._order = functools.lru_cache(maxsize=4)(
            lambda epoch: np.random.default_rng([seed, 0, epoch]).permutation(self._usable)
        )
        self._paired = bool(photos.labels["has_uv"].all())
        super().__init__(batch, start, process_index, process_count, threads, AHEAD)

    def _records(self, number: int) -> tuple[int]:
        epoch, place = divmod(number // self._per_photo, len(self._usable))
        return (int(self._order(epoch)[place]),)

    def _example(self, number: int) -> dict[str, np.ndarray]:
        (index,) = self._records(number)
        centers = self._centers[index]
        row, column = centers[np.random.default_rng([self._seed, 1, number]).integers(len(centers))]
        pictures = self._photos.pair(index) if self._paired else [self._photos.color(index)]
        windows = [_window(picture, row, column, self._window) for picture in pictures]
        example = {
            "color": windows[0],
            "face_width": np.float32(self._photos.labels["face_width"][index]),
        }
        return example | ({"uv": windows[1][..., None]} if self._paired else {})


def _window(picture: np.ndarray, row: int, column: int, size: int) -> np.ndarray:
    """The square of `size` px around a place, reflected beyond the picture's edge."""
    top, left = int(row) - size // 2, int(column) - size // 2
    height, width = picture.shape[:2]
    if min(top, left) >= 0 and top + size <= height and left + size <= width:
        return picture[top : top + size, left : left + size]
    rows, columns = _along(top, size, height), _along(left, size, width)
    return picture[rows].take(columns, axis=1)


def _along(start: int, size: int, length: int) -> np.ndarray:
    """`size` px from `start` on an axis of `length` px, reflected at its ends (edge px once)."""
    period = max(2 * (length - 1), 1)
    at = (np.arange(size) + start) % period
    return np.minimum(at, period - at) if length > 1 else np.zeros(size, int)
