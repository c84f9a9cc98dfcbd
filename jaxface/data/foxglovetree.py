"""The published headshots of 277 volunteers (NCCHD, Aoto et al., Sci Rep 12:3730, 2022), as arrays.

The user downloads and unpacks them by hand (`URL`, 168 MiB, version 1.4) and names the folder with
--data_dir. It then holds

  headshot_data.npy    uint8 [2429, 128881], each row a gray photograph of 359 x 359 px
  headshot_labels.npy  whole numbers [2429, 5]: volunteer 1..277, photograph 1..9, female 0 or 1, and how
                       many of 17 voters saw no smile and how many saw one

Their terms: no redistribution or release of data in an image format that are made from the arrays. The
records that are built from them, pictures of a report among them, must therefore stay where they are.

Photographs are cropped to the 299 px in their middle, as published, and stored at that size or smaller.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterator

import cv2
import numpy as np
import tensorflow_datasets as tfds

from jaxface import terminal
from jaxface.data import base
from jaxface.data.consent import ledger_for
from jaxface.errors import UserError
from jaxface.faces.mandible import MARGIN, SIDE

VERSION = "1.0.0"  # of what becomes of the arrays: a new one rebuilds the data
URL = "https://aihospital.ncchd.go.jp/foxglovetree/data/headshot_data.tbz2"
MD5 = "257d6854f5dd298cb53a611b3ce94fec"  # of the archive, version 1.4
IMAGES, LABELS = "headshot_data.npy", "headshot_labels.npy"
VOLUNTEERS, PHOTOS, VOTERS = 277, 9, 17
CROP = SIDE - 2 * MARGIN  # px: 299
CLEAR = 0.8  # share of votes above which a photograph is one of a smile
SHOWN = 5  # problems told at once
_REMEDY = (
    f"download {URL} (168 MiB, md5 {MD5}), unpack it, and name the folder with --data_dir. Its terms forbid "
    "to give away image-format data made from it"
)


def published_smile_selection(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which photographs the study learns smiles from, by votes int [N, 2] (against, for) in file order.

    Returns:
      (rows with more than 0.8 of the votes for a smile, as many rows with none), both ascending. Everything
      between is discarded, and so are all further rows without a vote for a smile: those kept are the
      first ones of the file. Of the published arrays, 668 and 668.

    If fewer have no vote than are smiles, all of them are given.
    """
    votes = np.asarray(votes)
    smiling = np.flatnonzero(votes[:, 1] > CLEAR * votes.sum(1))
    neutral = np.flatnonzero((votes[:, 1] == 0) & (votes[:, 0] > 0))
    return smiling, neutral[: len(smiling)]


def read_arrays(folder: str | pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """(photographs uint8 [N, 359, 359], not yet read from the disk; labels int64 [N, 5]), checked.

    Raises UserError naming file, row (from 0), field and remedy: folder or file missing; a file that is no
    array, or one of another type or shape; labels and photographs of different number; a volunteer,
    photograph or sex out of range; votes that do not sum to 17; a photograph named twice; a volunteer of
    both sexes.
    """
    folder = pathlib.Path(folder)
    images, labels = _array(folder / IMAGES), _array(folder / LABELS)
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != SIDE**2:
        raise UserError(
            f"{folder / IMAGES} is {images.dtype} {list(images.shape)}, not uint8 [photographs, "
            f"{SIDE**2}]: {_REMEDY}."
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 2 or labels.shape[1] != 5:
        raise UserError(
            f"{folder / LABELS} is {labels.dtype} {list(labels.shape)}, not whole numbers "
            f"[photographs, 5]: {_REMEDY}."
        )
    if len(images) != len(labels) or not len(images):
        raise UserError(
            f"{folder / LABELS} has {len(labels)} rows for the {len(images)} photographs of {IMAGES}: "
            f"{_REMEDY}."
        )
    labels = labels.astype(np.int64)
    problems = list(_problems(labels))
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError("\n  ".join([f"{folder / LABELS}: {_REMEDY}.", *problems[:SHOWN]]) + more)
    return images.reshape(-1, SIDE, SIDE), labels


def _array(path: pathlib.Path) -> np.ndarray:
    """An array of an .npy file, left on the disk."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {_REMEDY}.") from None
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise UserError(f"{path} is no whole .npy file ({error}): {_REMEDY}.") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise UserError(f"{path} is an archive, not an .npy file: {_REMEDY}.")
    return array


def _problems(labels: np.ndarray) -> Iterator[str]:
    """What is wrong with rows [N, 5], in their order."""
    ranges = {"volunteer": (1, VOLUNTEERS), "photograph": (1, PHOTOS), "female": (0, 1)}
    first: dict[tuple[int, int], int] = {}
    sexes: dict[int, tuple[int, int]] = {}
    for row, (volunteer, photo, female, against, in_favour) in enumerate(labels.tolist()):
        for (name, (low, high)), value in zip(ranges.items(), (volunteer, photo, female)):
            if not low <= value <= high:
                yield f"row {row}, {name}: {value} is not from {low} to {high}"
        if min(against, in_favour) < 0 or against + in_favour != VOTERS:
            yield f"row {row}, votes: {against} and {in_favour} are not {VOTERS} votes"
        if (other := first.setdefault((volunteer, photo), row)) != row:
            yield f"row {row}, photograph: {photo} of volunteer {volunteer} has row {other} already"
        sex, other = sexes.setdefault(volunteer, (female, row))
        if sex != female:
            yield f"row {row}, female: {female}, but {sex} in row {other} of volunteer {volunteer}"


def config_for(
    folder: str | pathlib.Path,
    side: int = CROP,
    channels: int = 1,
    purpose: str = "research",
    ledger: str = "",
) -> base.HeadshotConfig:
    """Settings whose name changes with all that the records depend on.

    Args:
      folder: holds both arrays.
      side: px; the crop of 299 px is made smaller by area.
      channels: 1 gray, 3 the gray three times.
      purpose: of the use; asked about where there is a ledger.
      ledger: folder of a consent ledger on which the volunteers are FT001 to FT277; default: `consent` in
        the folder, if one is there. Whom it does not cover is left out.

    Raises UserError for what `read_arrays` refuses, for a side or number of channels that cannot be built,
    and for a ledger that was tampered with.
    """
    if not 16 <= side <= CROP:
        raise UserError(f"config.side={side}: foxglovetree has 16 to {CROP} px.")
    if channels not in (1, 3):
        raise UserError(f"config.channels={channels}: use 3 (three times gray) or 1 (gray).")
    _, labels = read_arrays(folder)
    given = _given(labels, folder, purpose, ledger)
    stats = [(pathlib.Path(folder) / name).stat() for name in (IMAGES, LABELS)]
    facts = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    content = json.dumps([side, channels, purpose, given, facts])
    return base.HeadshotConfig(
        name=f"{side}px-{channels}channels-{hashlib.sha256(content.encode()).hexdigest()[:16]}",
        description="The published headshots.",
        side=side,
        channels=channels,
        folder=str(folder),
        purpose=purpose,
        ledger=str(ledger or ""),
    )


def subject_of(volunteer: int) -> str:
    return f"FT{volunteer:03d}"


def _given(
    labels: np.ndarray, folder: str | pathlib.Path, purpose: str, ledger: str | None
) -> dict[str, str]:
    """{volunteer who may be used: hash of the consent, "" without a ledger}."""
    subjects = [subject_of(volunteer) for volunteer in sorted(set(labels[:, 0].tolist()))]
    book = ledger_for(folder, ledger)
    if book is None:
        return dict.fromkeys(subjects, "")
    return {
        subject: book.state(subject).given.hash
        for subject in subjects
        if not book.refusal(subject, purpose)
    }


class Foxglovetree(base.HeadshotBuilder):
    """Published gray headshots of 277 volunteers; image-format data made of them must not be given away.

    `tfds.builder("foxglovetree", data_dir=..., config=config_for(FOLDER), file_format="array_record")`
    """

    VERSION = tfds.core.Version(VERSION)

    @classmethod
    def settle(cls, run) -> base.HeadshotConfig:
        """Settings of the build that a run's config asks for; UserError without --data_dir."""
        if not run.data_dir:
            raise UserError(f"config.data={cls.name!r}: {_REMEDY}.")
        return config_for(run.data_dir, run.side, run.channels, run.purpose, run.ledger)

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        if not config or not config.folder:
            raise UserError(f"{self.name}: {_REMEDY}.")
        images, labels = read_arrays(config.folder)
        given = _given(labels, config.folder, config.purpose, config.ledger)
        splits: dict[str, list[int]] = {}
        for row, volunteer in enumerate(labels[:, 0].tolist()):
            subject = subject_of(volunteer)
            if subject in given:
                splits.setdefault(base.split_of(subject), []).append(row)
        left_out = len(labels) - sum(map(len, splits.values()))
        if left_out:
            terminal.say(
                f"{left_out} of {len(labels)} photographs left out: the ledger does not cover "
                f"{config.purpose} for their volunteers."
            )
        if not splits:
            raise UserError(
                f"{config.folder}: the ledger covers {config.purpose} for no volunteer: say with "
                "--purpose=... what the photographs are used for, or record the consents."
            )
        return {split: self._records(split, rows, images, labels) for split, rows in splits.items()}

    def _records(
        self, split: str, rows: list[int], images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[str, dict]]:
        config = self.builder_config
        what = f"reading {self.name}, {split}"
        with terminal.Progress(what, len(rows), unit="photograph") as progress:
            for done, row in enumerate(rows, 1):
                volunteer, photo, female, against, in_favour = labels[row].tolist()
                subject = subject_of(volunteer)
                image = cropped(images[row : row + 1])[0]
                if config.side != CROP:
                    size = (config.side, config.side)
                    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                record = base.headshot_record(
                    image=base.encode_png(
                        np.stack([image] * 3, -1) if config.channels == 3 else image
                    ),
                    id=f"{subject}_{photo}",
                    subject=subject,
                    photo=photo,
                    labels={
                        "sex": base.Label(female),
                        "smile": base.Label(int(in_favour > against), (against, in_favour)),
                    },
                )
                yield record["id"], record
                progress.update(done)


def cropped(images_u8: np.ndarray) -> np.ndarray:
    """The 299 px in the middle of [N, 359, 359]."""
    return np.ascontiguousarray(images_u8[:, MARGIN:-MARGIN, MARGIN:-MARGIN])
