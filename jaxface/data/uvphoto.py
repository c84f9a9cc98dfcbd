"""A user's folder of photographs, paired with UV photographs or not (UV-photo Net, Kojima et al. 2021).

`manifest.csv` names the UV photograph of each color photograph; those without one are unpaired, as phones
take them. Every file comes in by the one door (`images`). A pair is held against the limits of
`registration`, the face is found, and the photograph is cropped to it, so that only pixels around a face
reach a record. What cannot be used is left out, counted and listed by name and reason in `left_out.csv`
beside the built data; what is used and should be looked at (glasses, a beard, a turned head) is listed
in `notes.csv`.
"""

import os
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np

from jaxface import terminal
from jaxface.data import base, folder, registration
from jaxface.data.images import ImageError, Limits, read_gray, read_image
from jaxface.data.manifest import Manifest, Row, read_manifest
from jaxface.errors import UserError
from jaxface.faces.portrait import Portrait, portrait
from jaxface.faces.prepare import NoFaceError
from jaxface.ops.tiles import patch_centers

VERSION = "1"  # of what becomes of a photograph: a new one rebuilds the data
LIMITS = Limits(file_bytes=256 << 20)  # 40 Mpx of 16-bit color, uncompressed
MARGIN = 0.25  # face widths kept around the face
FARTHEST = 0.05  # face widths by which config.shift may move a UV photograph
NOTES = "notes.csv"


def config_for(
    folder_: str | os.PathLike,
    manifest: str | os.PathLike | None = None,
    purpose: str = "research",
    patch: int = 256,
    coverage: float = 0.5,
    shift: bool = False,
    max_bad_fraction: float = 0.001,
    ledger: str | os.PathLike = "",
) -> base.PhotoConfig:
    """Settings for `uvphoto` whose name changes with all that the records depend on.

    Args:
      folder_: holds the photographs.
      manifest: default: manifest.csv in the folder.
      purpose: that the subjects must have consented to.
      patch: px a side. A face in which no patch has enough skin is left out.
      coverage: share of skin, 0..1, that a patch must have.
      shift: move UV photographs that lie up to FARTHEST off; without, they are left out.
      max_bad_fraction: unreadable photographs tolerated before the build stops.
      ledger: folder of a consent ledger; default: `consent` in the folder, if one is there.

    Raises UserError for what `read_manifest` refuses.
    """
    read = read_manifest(folder_, manifest, purpose, pairs=True, ledger=ledger)
    settings = (purpose, patch, coverage, shift, max_bad_fraction, VERSION, folder.VERSION)
    return base.PhotoConfig(
        name=f"{patch}px-{folder.digest(read, settings)}",
        description="A folder of photographs.",
        folder=str(folder_),
        manifest=str(read.path),
        purpose=purpose,
        ledger=str(ledger),
        patch=patch,
        coverage=coverage,
        shift=shift,
        max_bad_fraction=max_bad_fraction,
    )


class Uvphoto(base.PhotoBuilder):
    """Photographs of faces from a folder, with the UV photographs that its manifest names.

    `tfds.builder("uvphoto", data_dir=..., config=config_for(FOLDER), file_format="array_record")`
    """

    @classmethod
    def settle(cls, run) -> base.PhotoConfig:
        """Settings of the build that a run's config asks for; UserError without --data_dir."""
        return config_for(
            folder.data_dir_of(run, cls.name),
            run.manifest or None,
            run.purpose,
            run.patch,
            run.coverage,
            run.shift,
            run.max_bad_fraction,
            run.ledger,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        if not config or not config.folder:
            raise UserError(f"{self.name} needs a folder of photographs: give its path.")
        manifest = read_manifest(
            config.folder, config.manifest, config.purpose, pairs=True, ledger=config.ledger
        )
        path = pathlib.Path(self.data_path)
        prepared = path / "prepared"  # gone before the build is complete
        prepared.mkdir(parents=True)
        kept = _prepare(manifest, config, prepared, path)
        splits: dict[str, list[pathlib.Path]] = {}
        for row, file in kept:
            splits.setdefault(base.split_of(row.subject), []).append(file)
        left = len(kept)

        def records(files: list[pathlib.Path]) -> Iterator[tuple[str, dict]]:
            nonlocal left
            for file in files:
                record = _load(file)
                yield record["id"], record
                file.unlink()
                left -= 1
            if not left:
                shutil.rmtree(prepared)

        return {split: records(files) for split, files in splits.items()}


class _LeftOutError(Exception):
    """A photograph that cannot be used; the message is the reason."""


def _prepare(
    manifest: Manifest, config: base.PhotoConfig, prepared: pathlib.Path, reports: pathlib.Path
) -> list[tuple[Row, pathlib.Path]]:
    """Writes the record of each usable photograph into `prepared` and both lists into `reports`.

    Raises UserError when too many photographs cannot be read or none can be used.
    """
    total = len(manifest.rows)
    allowed = int(config.max_bad_fraction * total)
    unreadable: list[tuple[Row, str]] = []
    unfit: list[tuple[Row, str]] = []
    notes: list[tuple[Row, str]] = []
    kept: list[tuple[Row, pathlib.Path]] = []
    with terminal.Progress("preparing photographs", total, unit="photograph") as progress:
        for done, row in enumerate(manifest.rows, 1):
            try:
                record, said = _record(row, manifest.folder, config)
                file = prepared / f"{len(kept)}.npz"
                _save(file, record)
                kept.append((row, file))
                notes += [(row, note) for note in said]
            except ImageError as error:
                named = pathlib.Path(error.path).relative_to(manifest.folder).as_posix()
                which = "" if named == row.file else f"{named}: "
                unreadable.append((row, which + error.reason))
            except _LeftOutError as error:
                unfit.append((row, str(error)))
            progress.update(done)
    folder.check_readable(manifest, [(row.file, why) for row, why in unreadable], allowed)
    if not kept:
        raise UserError(
            f"{manifest.folder}: none of the {total} photographs can be used:"
            + folder.names([(row.file, why) for row, why in unreadable + unfit])
        )
    left_out = [(row.file, row.subject, why) for row, why in unreadable + unfit]
    left_out += [(name, "", f"no row in {manifest.path.name}") for name in manifest.without_row]
    heading = ("file", "subject", "reason")
    folder.write_table(reports / folder.LEFT_OUT, heading, left_out)
    told = [(row.file, row.subject, note) for row, note in notes]
    folder.write_table(reports / NOTES, ("file", "subject", "note"), told)
    _say(kept, left_out, notes)
    return kept


def _say(kept: list, left_out: list, notes: list) -> None:
    paired = sum(bool(row.uv) for row, _ in kept)
    message = f"{len(kept)} photographs prepared, {paired} with a UV photograph"
    if left_out:
        message += f", {len(left_out)} left out (names and reasons: {folder.LEFT_OUT})"
    if notes:
        message += f", {len({row.file for row, _ in notes})} to be looked at ({NOTES})"
    where = ". The lists are beside the built data." if left_out or notes else "."
    reasons = folder.names([(name, why) for name, _, why in left_out])
    terminal.say(message + where + reasons)


def _record(row: Row, root: pathlib.Path, config: base.PhotoConfig) -> tuple[dict, list[str]]:
    """The record of one photograph and what a user should know of it.

    Raises ImageError for a file that cannot be read and _LeftOutError for a photograph that cannot be used.
    """
    color = read_image(root / row.file, LIMITS)
    uv, note = read_gray(root / row.uv, LIMITS) if row.uv else (None, "")
    notes = [f"{row.uv}: {note}"] if note else []
    mask = read_gray(root / row.mask, LIMITS)[0] > 127 if row.mask else None
    for name, plane in ((row.uv, uv), (row.mask, mask)):
        if plane is not None and plane.shape != color.shape[:2]:
            raise _LeftOutError(
                f"{name} is {_size(plane)} px, the photograph {_size(color)} px: both must be of one size"
            )
    try:
        face = portrait(color, mask)
    except NoFaceError:
        raise _LeftOutError("no face found") from None
    notes += face.warnings

    rows, columns = _around(face, color.shape)
    color, mask = color[rows, columns], face.mask[rows, columns]
    landmarks = face.landmarks - np.array([columns.start, rows.start, 0])
    if uv is not None:
        uv, moved = _registered(color, uv[rows, columns], landmarks, face.face_width, config)
        notes += moved
    if not len(patch_centers(mask, config.patch, max(1, config.patch // 8), config.coverage)):
        raise _LeftOutError(
            f"face too small for one patch: it is {face.face_width:.0f} px wide, and no patch of "
            f"{config.patch} px has {config.coverage:.0%} usable skin (config.patch, config.coverage)"
        )
    record = base.photo_record(
        id=row.file,
        subject=row.subject,
        view=row.view,
        device=row.device or ("device" if row.uv else "phone"),
        color=color,
        uv=uv,
        mask=mask,
        landmarks=landmarks,
        face_width=face.face_width,
        covered=face.covered,
        ita=face.ita,
    )
    return record, notes


def _registered(
    color: np.ndarray, uv: np.ndarray, landmarks: np.ndarray, width: float, config: base.PhotoConfig
) -> tuple[np.ndarray, list[str]]:
    """The UV photograph, moved if config asks for it, and a note if it was; _LeftOutError if it is off."""
    most = registration.limit(width)
    fit = registration.register(color, uv, landmarks)
    if fit.match < registration.MATCH:
        raise _LeftOutError(
            "the UV photograph shows nothing of the color photograph: is it another's?"
        )
    if fit.misfit <= most:
        return uv, []
    off = np.hypot(*fit.shift)
    if config.shift and off <= FARTHEST * width:
        uv = registration.moved_back(uv, fit.shift)
        rest = registration.register(color, uv, landmarks).misfit
        if rest <= most:
            down, right = (-x for x in fit.shift)
            return uv, [f"UV photograph moved by {right:+.1f} px to the right, {down:+.1f} px down"]
        raise _LeftOutError(
            f"not registered: the UV photograph lies up to {rest:.1f} px off even after it was moved by "
            f"{off:.1f} px ({most:.1f} px are allowed): it is turned, scaled or another's"
        )
    raise _LeftOutError(
        f"not registered: the UV photograph lies up to {fit.misfit:.1f} px off ({most:.1f} px are "
        "allowed; config.shift=True moves those that are shifted by up to "
        f"{FARTHEST * width:.0f} px)"
    )


def _around(face: Portrait, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the face with its margin, inside the photograph."""
    points, margin = face.landmarks[:, :2], MARGIN * face.face_width
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    left, top = np.maximum(np.floor(low), 0).astype(int)
    right, bottom = np.minimum(np.ceil(high), shape[1::-1]).astype(int)
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def _save(file: pathlib.Path, record: dict) -> None:
    """Bytes as arrays: nothing is pickled."""
    arrays = {
        name: np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.asarray(value)
        for name, value in record.items()
    }
    np.savez(file, **arrays)


def _load(file: pathlib.Path) -> dict:
    with np.load(file, allow_pickle=False) as arrays:
        record = {name: arrays[name] for name in arrays.files}
    for name, value in record.items():
        if value.dtype == np.uint8:
            record[name] = value.tobytes()
        elif value.dtype.kind == "U":
            record[name] = str(value)
        elif not value.ndim:
            record[name] = value[()]
    return record
