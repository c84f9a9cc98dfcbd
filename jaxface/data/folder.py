"""A user's folder of photographs -> records: what the builders of such folders share.

Every photograph goes through one door (`images.read_image`), is prepared like CleftGAN's
(`faces.prepare`) and written anew from its pixels, so that nothing but pixels reaches a record. What
cannot be used is left out, counted and listed by name in `left_out.csv` beside the built data.
"""

import csv
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np
from PIL import Image

from jaxface import terminal
from jaxface.data import base
from jaxface.data.images import ImageError, list_images, read_image
from jaxface.data.manifest import Manifest, Row, read_manifest
from jaxface.errors import UserError
from jaxface.faces import prepare
from jaxface.faces.resample import resample

VERSION = f"1.{prepare.VERSION}"  # of what becomes of a photograph: a new one rebuilds the data
MAX_WITHOUT_FACE = 0.1  # share of a folder in which no face may be found
CHUNK_PIXELS = 64_000_000  # px held at once
LEFT_OUT = "left_out.csv"


def config_for(
    folder: str | os.PathLike,
    manifest: str | os.PathLike | None = None,
    resolution: int = 256,
    channels: int = 3,
    purpose: str = "research",
    align: bool = True,
    max_bad_fraction: float = 0.001,
    ledger: str | os.PathLike = "",
) -> base.FaceConfig:
    """Settings for `face_folder` or `cleft_folder` whose name changes with the folder's content.

    The name holds a hash of all that the records depend on: names, sizes and times of the images, the
    manifest's text, the settings, the version of the preprocessing, and which consents on the ledger (if
    there is one) they rest on. A folder that changed is built anew under another name.

    Raises UserError for what `read_manifest` refuses and for a resolution or number of channels that
    the networks cannot take.
    """
    base.check_pictures(resolution, channels, least=4)
    read = read_manifest(folder, manifest, purpose, ledger=ledger)
    settings = (resolution, channels, purpose, align, max_bad_fraction, VERSION)
    return base.FaceConfig(
        name=f"{resolution}px-{'color' if channels == 3 else 'gray'}-{digest(read, settings)}",
        description="A folder of photographs.",
        resolution=resolution,
        channels=channels,
        folder=str(folder),
        manifest=str(read.path),
        purpose=purpose,
        ledger=str(ledger),
        align=align,
        max_bad_fraction=max_bad_fraction,
    )


def digest(manifest: Manifest, settings: tuple) -> str:
    """16 hexadecimal digits that change with the manifest, the settings and any image of the folder."""
    files = [(name, manifest.folder / name) for name in list_images(manifest.folder)]
    facts = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in files]
    content = [settings, facts, manifest.text, *([manifest.given] if manifest.given else [])]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def data_dir_of(run, name: str, what: str = "photographs") -> str:
    """The folder that --data_dir gave to a run; UserError without one."""
    if not run.data_dir:
        raise UserError(
            f"config.data={name!r} reads your {what}: say where they are with --data_dir=FOLDER."
        )
    return run.data_dir


class FolderBuilder(base.FaceBuilder, skip_registration=True):
    """Builds the folder that `builder_config` (see `config_for`) names."""

    LABELS = False  # read the cleft's side and severity from the manifest

    @classmethod
    def settle(cls, run) -> base.FaceConfig:
        """Settings of the build that a run's config asks for; UserError without --data_dir."""
        return config_for(
            data_dir_of(run, cls.name),
            run.manifest or None,
            run.resolution,
            run.channels,
            run.purpose,
            run.align,
            run.max_bad_fraction,
            run.ledger,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        if not config or not config.folder:
            raise UserError(f"{self.name} needs a folder of images: give its path.")
        manifest = read_manifest(
            config.folder, config.manifest, config.purpose, ledger=config.ledger
        )
        prepared = pathlib.Path(self.data_path) / "prepared"  # gone before the build is complete
        prepared.mkdir(parents=True)
        kept = _prepare(manifest, config, prepared, pathlib.Path(self.data_path) / LEFT_OUT)
        splits = {}
        for row, file in kept:
            splits.setdefault(base.split_of(row.subject), []).append((row, file))
        left = len(kept)

        def records(rows: list[tuple[Row, pathlib.Path]]) -> Iterator[tuple[str, dict]]:
            nonlocal left
            for row, file in rows:
                yield (
                    row.file,
                    {
                        "image": file.read_bytes(),
                        "id": row.file,
                        "subject": row.subject,
                        "severity": np.float32(row.severity if self.LABELS else np.nan),
                        "side": row.side if self.LABELS else "unknown",
                    },
                )
                file.unlink()
                left -= 1
            if not left:
                shutil.rmtree(prepared)

        return {split: records(rows) for split, rows in splits.items()}


def _prepare(
    manifest: Manifest, config: base.FaceConfig, folder: pathlib.Path, report: pathlib.Path
) -> list[tuple[Row, pathlib.Path]]:
    """Writes the PNG of each usable image into `folder` and what was left out into `report`.

    Raises UserError when too many images cannot be read or show no face.
    """
    total = len(manifest.rows)
    unreadable: list[tuple[Row, str]] = []
    faceless: list[Row] = []
    kept: list[tuple[Row, pathlib.Path]] = []
    allowed = int(config.max_bad_fraction * total)
    with terminal.Progress("preparing photographs", total, unit="image") as progress:
        done = 0
        for chunk in _chunks(manifest, unreadable):
            if len(unreadable) > allowed:
                continue  # the build is lost: go on reading only to name every bad file at once
            images = _pictures([image for _, image in chunk], config)
            for (row, _), image in zip(chunk, images):
                done += 1
                if image is None:
                    faceless.append(row)
                    continue
                file = folder / f"{len(kept)}.png"
                file.write_bytes(base.encode_png(image))
                kept.append((row, file))
            progress.update(min(done + len(unreadable), total))
    check_readable(manifest, [(row.file, why) for row, why in unreadable], allowed)
    if len(faceless) > MAX_WITHOUT_FACE * total:
        raise UserError(
            f"{manifest.folder}: no face was found in {len(faceless)} of {total} images, at most "
            f"{MAX_WITHOUT_FACE:.0%} may be without. They should show one face from the front, "
            "upright; for images that are cut out already use config.align=False:"
            + names([(row.file, "no face found") for row in faceless])
        )
    left_out = [(row.file, row.subject, why) for row, why in unreadable]
    left_out += [(row.file, row.subject, "no face found") for row in faceless]
    left_out += [(name, "", f"no row in {manifest.path.name}") for name in manifest.without_row]
    write_table(report, ("file", "subject", "reason"), left_out)
    if left_out:
        terminal.say(
            f"{len(kept)} images prepared, {len(left_out)} left out: {len(faceless)} without a face, "
            f"{len(unreadable)} unreadable, {len(manifest.without_row)} without a row in "
            f"{manifest.path.name}. Their names are in {LEFT_OUT} beside the built data."
        )
    return kept


def check_readable(manifest: Manifest, unreadable: list[tuple[str, str]], allowed: int) -> None:
    """Raises UserError if more than `allowed` images, (file, why), or all of them cannot be read."""
    total = len(manifest.rows)
    if len(unreadable) == total:
        raise UserError(f"{manifest.folder} has no readable image:" + names(unreadable))
    if len(unreadable) > allowed:
        raise UserError(
            f"{manifest.folder}: {len(unreadable)} of {total} images cannot be used, {allowed} may "
            "be (config.max_bad_fraction). Repair them, or delete them and their rows in "
            f"{manifest.path.name}:" + names(unreadable)
        )


def write_table(path: pathlib.Path, heading: tuple[str, ...], rows: list[tuple]) -> None:
    """Writes a CSV file of sorted rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heading)
        writer.writerows(sorted(rows))


def _chunks(
    manifest: Manifest, unreadable: list[tuple[Row, str]]
) -> Iterator[list[tuple[Row, np.ndarray]]]:
    """Images read in groups, small enough for the memory; bad ones go to `unreadable`."""
    chunk: list[tuple[Row, np.ndarray]] = []
    pixels = 0
    for row in manifest.rows:
        try:
            image = read_image(manifest.folder / row.file)
        except ImageError as error:
            unreadable.append((row, error.reason))
            continue
        area = image.shape[0] * image.shape[1]
        if chunk and (len(chunk) == prepare.CHUNK or pixels + area > CHUNK_PIXELS):
            yield chunk
            chunk, pixels = [], 0
        chunk.append((row, image))
        pixels += area
    if chunk:
        yield chunk


def _pictures(images: list[np.ndarray], config: base.FaceConfig) -> list[np.ndarray | None]:
    """uint8 [H, W, 3] -> uint8 [resolution, resolution, channels]; None where no face was found."""
    size = config.resolution
    if config.align:
        pictures = [p and p.image for p in prepare.prepare_all(images, size)]
    else:
        pictures = [resample(image, _middle(image.shape, size), size) for image in images]
    if config.channels == 1:
        gray = lambda p: np.asarray(Image.fromarray(p).convert("L"))[..., None]
        pictures = [None if p is None else gray(p) for p in pictures]
    return pictures


def _middle(shape: tuple[int, ...], size: int) -> np.ndarray:
    """[2, 3]: px of the output -> px of the largest square in the middle of the picture."""
    height, width = shape[:2]
    side = min(height, width)
    scale = side / size
    return np.array([[scale, 0, (width - side) / 2], [0, scale, (height - side) / 2]])


def names(files: list[tuple[str, str]]) -> str:
    """A few lines 'file: reason' and how many more there are."""
    lines = [f"\n  {name}: {why}" for name, why in files[:10]]
    return "".join(lines) + (f"\n  and {len(files) - 10} more" if len(files) > 10 else "")
