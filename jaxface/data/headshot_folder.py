"""A user's folder of headshots, several a person, with labels in its manifest or votes beside it.

`manifest.csv` has, besides file, subject and consent (see `manifest`),

  photo  optional, number of the photograph within the person, from 1; by default in the files' order
  TASK   a column a task: sex, smile, or any other word. 1, yes or female: label 1; 0, no or male: label 0;
         empty: not known. Other columns are ignored: a task is one of which at least half of what is
         written answers a question (the words: `votes`)

and what was voted may stand in a table of its own (config.votes, see `votes`), of which the majority is
the label. A task has either a column or votes.

Photographs come in by the one door (`images`), are prepared like CleftGAN's (`faces.prepare`) and written
anew from their pixels; what cannot be used is left out and listed by name and reason in `left_out.csv`
beside the built data. One person under two names would stand on both sides of a split: subjects that are
written in two ways, and photographs of two subjects that are one photograph (`duplicates`), stop the build.
"""

import collections
import dataclasses
import hashlib
import os
import pathlib
import shutil
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxface import terminal
from jaxface.data import base, duplicates, folder, votes
from jaxface.data.images import ImageError, read_image
from jaxface.data.manifest import (
    OPTIONAL,
    PAIRS,
    REQUIRED,
    SHOWN,
    Manifest,
    Row,
    listed,
    read_manifest,
    read_table,
)
from jaxface.errors import UserError
from jaxface.faces import prepare
from jaxface.faces.portrait import portrait
from jaxface.faces.prepare import NoFaceError

VERSION = "1"  # of what becomes of a photograph: a new one rebuilds the data
PHOTO = "photo"
_KNOWN = {*REQUIRED, *OPTIONAL, *PAIRS, PHOTO}  # columns that are no task
_ONE_PERSON = "if they are of one person, give both rows one subject; else delete one of the files"


@dataclasses.dataclass
class Config(base.HeadshotConfig):
    """Settings of one build."""

    task: str = ""  # what the votes are on, where their table does not say


class Folder(NamedTuple):
    """A folder of headshots with all that is told of it, checked."""

    manifest: Manifest
    photo: dict[str, int]  # of each file
    labels: dict[str, dict[str, base.Label]]  # of each file, by task
    votes: str  # text of the table of votes


def read_folder(
    folder_: str | os.PathLike,
    manifest: str | os.PathLike | None = None,
    votes_: str | os.PathLike | None = None,
    task: str = "",
    purpose: str = "research",
    ledger: str | os.PathLike | None = None,
) -> Folder:
    """Reads and checks a folder's manifest and votes; no photograph is decoded.

    Args:
      folder_: holds the photographs.
      manifest: default: manifest.csv in the folder.
      votes_: a table of votes; default: none.
      task: what the votes are on, where their table does not say.
      purpose: that the subjects must have consented to.
      ledger: folder of a consent ledger; default: `consent` in the folder, if one is there.

    Raises UserError for what `read_manifest` and `read_votes` refuse, and naming file, row, field and
    remedy: a number of a photograph that is none or that the person has twice; a word that answers nothing
    in the column of a task; a person of both sexes; subjects that differ by case, spaces or form of
    their letters alone; a task with a column and votes; no task at all.
    """
    read = read_manifest(folder_, manifest, purpose, ledger=ledger)
    columns, lines = read_table(read.path, read.text)
    root = read.folder.resolve()
    at = {_file(fields["file"], root): (number, fields) for number, fields in lines}
    told = [(row, *at[row.file]) for row in read.rows]
    problems = _one_way(told)
    photo, wrong = _photos(told, PHOTO in columns)
    problems += wrong
    labels: dict[str, dict[str, base.Label]] = {row.file: {} for row in read.rows}
    for column in dict.fromkeys(columns):
        if column in _KNOWN or not column.isidentifier():
            continue
        found, wrong = _answers(told, column)
        problems += wrong
        for file, label in found.items():
            labels[file][column] = base.Label(label)
    if problems:
        lines = [f"row {number}, {problem}" for number, problem in sorted(problems)]
        raise UserError(listed(read.path, lines))
    text = _add_votes(read, votes_, task, labels) if votes_ else ""
    if not any(labels.values()):
        raise UserError(
            f"{read.path} has no labels: add a column named by the task (sex, smile or another word) with "
            "1, 0 or nothing in each row, or name a table of votes with config.votes."
        )
    return Folder(read, photo, labels, text)


def _file(name: str, root: pathlib.Path) -> str:
    """A row's file as `read_manifest` writes it."""
    return (root / name.replace("\\", "/")).resolve().relative_to(root).as_posix()


def _one_way(told: list[tuple[Row, int, dict[str, str]]]) -> list[tuple[int, str]]:
    """Rows whose subject another row writes in another way."""
    problems: list[tuple[int, str]] = []
    first: dict[str, tuple[str, int]] = {}
    for row, number, _ in sorted(told, key=lambda one: one[1]):
        plain = "".join(unicodedata.normalize("NFKC", row.subject).casefold().split())
        subject, other = first.setdefault(plain, (row.subject, number))
        if subject != row.subject:
            problems.append(
                (
                    number,
                    f"subject: {row.subject!r} is {subject!r} in row {other}: write one person in one way, "
                    "or call two people more differently",
                )
            )
            first[plain] = (row.subject, number)  # each other way is told once
    return problems


def _photos(
    told: list[tuple[Row, int, dict[str, str]]], given: bool
) -> tuple[dict[str, int], list[tuple[int, str]]]:
    """({file: number within the person}, what is wrong)."""
    photo: dict[str, int] = {}
    problems: list[tuple[int, str]] = []
    count: collections.Counter = collections.Counter()
    seen: dict[tuple[str, int], int] = {}
    for row, number, fields in told:
        count[row.subject] += 1
        photo[row.file] = count[row.subject]
        if not given:
            continue
        text = fields[PHOTO]
        if not (text.isascii() and text.isdigit() and 1 <= int(text) < 2**31):
            problems.append((number, f"{PHOTO}: {text!r} is no whole number from 1: correct it"))
            continue
        photo[row.file] = int(text)
        other = seen.setdefault((row.subject, int(text)), number)
        if other != number:
            problems.append(
                (
                    number,
                    f"{PHOTO}: {row.subject} has {text} in row {other} already: number them anew",
                )
            )
    return photo, problems


def _answers(
    told: list[tuple[Row, int, dict[str, str]]], task: str
) -> tuple[dict[str, int], list[tuple[int, str]]]:
    """({file: label} of a column, what is wrong); nothing of a column that is no task."""
    words = votes.WORDS | votes.OWN_WORDS.get(task, {})
    written = [(row, number, fields[task].lower()) for row, number, fields in told]
    answers = [text in words for _, _, text in written if text]
    if not answers or (task not in votes.OWN_WORDS and 2 * sum(answers) < len(answers)):
        return {}, []
    labels: dict[str, int] = {}
    problems: list[tuple[int, str]] = []
    people: dict[str, tuple[int, int]] = {}
    for row, number, text in written:
        labels[row.file] = words.get(text, -1)
        if text and text not in words:
            problems.append((number, f"{task}: {text!r} is no answer: write 1, 0 or nothing"))
        elif text and task == "sex":
            label, other = people.setdefault(row.subject, (words[text], number))
            if label != words[text]:
                problems.append(
                    (
                        number,
                        f"sex: {row.subject} has another one in row {other}: correct one of them",
                    )
                )
    return labels, problems


def _add_votes(
    read: Manifest, path: str | os.PathLike, task: str, labels: dict[str, dict[str, base.Label]]
) -> str:
    """Adds the majority of votes to `labels`; returns the table's text."""
    people = {row.file: row.subject for row in read.rows}
    for name in votes.tasks_of(path) or (task,):
        if not name.isidentifier():
            raise UserError(
                f"{path}: the task {name!r} is no word: say with config.task what it is."
            )
        if any(name in one for one in labels.values()):
            raise UserError(
                f"{path} has votes on {name!r}, and {read.path} has a column {name!r}: delete one of them."
            )
        cast = votes.in_manifest(votes.read_votes(path, name), people)
        found = votes.labels(cast)
        for file, subject in people.items():
            one = found.get(file if cast.level == "file" else subject)
            if one:
                labels[file][name] = base.Label(one["label"], tuple(one["votes"]))
    return pathlib.Path(path).read_text(encoding="utf-8-sig")


def config_for(
    folder_: str | os.PathLike,
    manifest: str | os.PathLike | None = None,
    side: int = 128,
    channels: int = 3,
    votes_: str | os.PathLike | None = None,
    task: str = "",
    purpose: str = "research",
    ledger: str | os.PathLike = "",
    max_bad_fraction: float = 0.001,
) -> Config:
    """Settings for `headshot_folder` whose name changes with all that the records depend on.

    Args:
      side: px of a stored face.
      channels: 3 color, 1 gray.
      max_bad_fraction: unreadable photographs tolerated before the build stops.

    The others as in `read_folder`. Raises UserError for what that refuses, and for a side or number of
    channels that cannot be built.
    """
    if not duplicates.SIDE <= side <= 2048:
        raise UserError(
            f"config.side={side}: faces of headshot_folder have {duplicates.SIDE} to 2048 px."
        )
    if channels not in (1, 3):
        raise UserError(f"config.channels={channels}: use 3 (color) or 1 (gray).")
    read = read_folder(folder_, manifest, votes_, task, purpose, ledger)
    settings = (
        side,
        channels,
        purpose,
        max_bad_fraction,
        task,
        read.votes,
        VERSION,
        folder.VERSION,
    )
    return Config(
        name=f"{side}px-{'color' if channels == 3 else 'gray'}-{folder.digest(read.manifest, settings)}",
        description="A folder of headshots.",
        side=side,
        channels=channels,
        folder=str(folder_),
        manifest=str(read.manifest.path),
        votes=str(votes_ or ""),
        task=task,
        purpose=purpose,
        ledger=str(ledger),
        max_bad_fraction=max_bad_fraction,
    )


class HeadshotFolder(base.HeadshotBuilder):
    """Headshots from a folder, with the labels of its manifest and the votes beside it.

    `tfds.builder("headshot_folder", data_dir=..., config=config_for(FOLDER), file_format="array_record")`
    """

    @classmethod
    def settle(cls, run) -> Config:
        """Settings of the build that a run's config asks for; UserError without --data_dir."""
        return config_for(
            folder.data_dir_of(run, cls.name),
            run.manifest or None,
            run.side,
            run.channels,
            run.votes or None,
            run.task,
            run.purpose,
            run.ledger,
            run.max_bad_fraction,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        if not config or not config.folder:
            raise UserError(f"{self.name} needs a folder of photographs: give its path.")
        read = read_folder(
            config.folder, config.manifest, config.votes, config.task, config.purpose, config.ledger
        )
        path = pathlib.Path(self.data_path)
        prepared = path / "prepared"  # gone before the build is complete
        prepared.mkdir(parents=True)
        kept = _prepare(read.manifest, config, prepared, path / folder.LEFT_OUT)
        splits: dict[str, list[_Kept]] = {}
        for one in kept:
            splits.setdefault(base.split_of(one.row.subject), []).append(one)
        left = len(kept)

        def records(some: list[_Kept]) -> Iterator[tuple[str, dict]]:
            nonlocal left
            for row, file, ita in some:
                yield (
                    row.file,
                    base.headshot_record(
                        image=file.read_bytes(),
                        id=row.file,
                        subject=row.subject,
                        photo=read.photo[row.file],
                        labels=read.labels[row.file],
                        ita=ita,
                    ),
                )
                file.unlink()
                left -= 1
            if not left:
                shutil.rmtree(prepared)

        return {split: records(some) for split, some in splits.items()}


class _Kept(NamedTuple):
    """A photograph that is used."""

    row: Row
    file: pathlib.Path  # of the prepared face, PNG
    ita: float  # degrees


def _prepare(
    manifest: Manifest, config: Config, prepared: pathlib.Path, report: pathlib.Path
) -> list[_Kept]:
    """Writes the PNG of each usable photograph into `prepared` and what was left out into `report`.

    Raises UserError when too many photographs cannot be read or show no face, and when one photograph
    belongs to two subjects.
    """
    total = len(manifest.rows)
    allowed = int(config.max_bad_fraction * total)
    unreadable: list[tuple[Row, str]] = []
    faceless: list[tuple[Row, str]] = []
    repeated: list[tuple[Row, str]] = []
    kept: list[_Kept] = []
    thumbnails: list[np.ndarray] = []
    seen: dict[tuple[str, bytes], str] = {}
    with terminal.Progress("preparing photographs", total, unit="photograph") as progress:
        for done, row in enumerate(manifest.rows, 1):
            try:
                image = read_image(manifest.folder / row.file)
                content = hashlib.sha256(image.tobytes() + repr(image.shape).encode()).digest()
                first = seen.setdefault((row.subject, content), row.file)
                if first != row.file:
                    repeated.append((row, f"the same photograph as {first}"))
                    continue
                face = prepare.prepare(image, config.side).image
                ita = portrait(image).ita
            except ImageError as error:
                unreadable.append((row, error.reason))
                continue
            except NoFaceError:
                faceless.append((row, "no face found"))
                continue
            finally:
                progress.update(done)
            thumbnails.append(duplicates.thumbnail(face))
            if config.channels == 1:
                face = np.asarray(Image.fromarray(face).convert("L"))
            file = prepared / f"{len(kept)}.png"
            file.write_bytes(base.encode_png(face))
            kept.append(_Kept(row, file, ita))
    folder.check_readable(manifest, [(row.file, why) for row, why in unreadable], allowed)
    if len(faceless) > folder.MAX_WITHOUT_FACE * total:
        raise UserError(
            f"{manifest.folder}: no face was found in {len(faceless)} of {total} photographs, at most "
            f"{folder.MAX_WITHOUT_FACE:.0%} may be without. They should show one face from the front, "
            "upright:" + folder.names([(row.file, why) for row, why in faceless])
        )
    _check_people(manifest, [one.row for one in kept], np.stack(thumbnails))
    left_out = [(row.file, row.subject, why) for row, why in unreadable + faceless + repeated]
    left_out += [(name, "", f"no row in {manifest.path.name}") for name in manifest.without_row]
    folder.write_table(report, ("file", "subject", "reason"), left_out)
    if left_out:
        terminal.say(
            f"{len(kept)} photographs prepared, {len(left_out)} left out: {len(faceless)} without a face, "
            f"{len(unreadable)} unreadable, {len(repeated)} there twice, {len(manifest.without_row)} "
            f"without a row in {manifest.path.name}. Their names are in {folder.LEFT_OUT} beside the "
            "built data."
        )
    return kept


def _check_people(manifest: Manifest, rows: list[Row], thumbnails: np.ndarray) -> None:
    """Raises UserError if one photograph, copied, cropped, scaled or mirrored, is of two subjects."""
    found = duplicates.one_photograph(thumbnails, [row.subject for row in rows])
    pairs = [(rows[i], rows[j]) for i, j in found]
    if pairs:
        lines = [
            f"\n  {one.file} ({one.subject}) and {two.file} ({two.subject})" for one, two in pairs
        ]
        more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        raise UserError(
            f"{manifest.path}: the same photograph has two subjects, {_ONE_PERSON}:"
            + "".join(lines[:SHOWN])
            + more
        )
