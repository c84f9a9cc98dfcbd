"""Who is on which photograph, and what they agreed to: `manifest.csv` in a folder of images.

One row an image, columns in any order, more of them are ignored:

  file      path relative to the folder
  subject   pseudonym of the person; two images of one person carry the same
  consent   purposes the person agreed to, separated by spaces or semicolons, or "yes" for all
  side      optional, of the cleft: left, right (the person's own), none, unknown
  severity  optional, of the cleft: 0 (none) to 1 (worst)

A first one for a folder is written by

  python -m jaxface.data.manifest FOLDER --consent=yes [--subject=file|folder] [--output=FILE]
"""

import argparse
import csv
import dataclasses
import io
import math
import os
import pathlib
import re
import sys

from jaxface.data.images import list_images
from jaxface.errors import UserError

NAME = "manifest.csv"
REQUIRED = ("file", "subject", "consent")
OPTIONAL = ("side", "severity")
SIDES = ("left", "right", "none", "unknown")
ANY_PURPOSE = ("yes", "true", "1")
SHOWN = 5  # problems told at once


@dataclasses.dataclass(frozen=True)
class Row:
    """One photograph."""

    file: str  # posix path relative to the folder
    subject: str
    consent: str
    side: str = "unknown"
    severity: float = math.nan


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All that is known of a folder."""

    folder: pathlib.Path
    path: pathlib.Path
    rows: tuple[Row, ...]  # sorted by file
    without_row: tuple[str, ...]  # images of the folder that no row names: they are not used
    text: str


def read_manifest(
    folder: str | os.PathLike,
    manifest: str | os.PathLike | None = None,
    purpose: str = "research",
) -> Manifest:
    """Reads and checks `manifest` (default: manifest.csv in `folder`) for use under `purpose`.

    Raises UserError naming file, row (as a spreadsheet counts, the heading is row 1), field and
    remedy: folder or manifest missing, unreadable or without rows; a column missing; a row whose file
    is absent or outside the folder; two rows with one file; no subject; no consent to the purpose; a
    side or severity that is none.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name the folder that holds the images.")
    path = pathlib.Path(manifest) if manifest else folder / NAME
    text = _read(path, folder)
    images = list_images(folder)
    rows, problems, seen = [], [], {}
    root = folder.resolve()
    for number, fields in _records(path, text):
        row, wrong = _row(fields, root, purpose)
        if row and row.file in seen:
            wrong.append(f"file: {row.file!r} has row {seen[row.file]} already: keep one of them")
        problems += [f"row {number}, {problem}" for problem in wrong]
        if row:
            seen.setdefault(row.file, number)
            rows.append(row)
    if problems:
        raise UserError(_several(path, problems))
    if not rows:
        raise UserError(f"{path} has no rows: add one for each image.")
    return Manifest(
        folder=folder,
        path=path,
        rows=tuple(sorted(rows, key=lambda row: row.file)),
        without_row=tuple(image for image in images if image not in seen),
        text=text,
    )


def _read(path: pathlib.Path, folder: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: it says who is on each image and what they agreed to. Write a first "
            f"one with: python -m jaxface.data.manifest {folder} --consent=yes --subject=file"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save it as 'CSV UTF-8'.") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}.") from None


def _records(path: pathlib.Path, text: str) -> list[tuple[int, dict[str, str]]]:
    """(row number, {column: text}) of every row that is not blank."""
    heading = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=heading.count)  # spreadsheets of some countries write semicolons
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise UserError(f"{path} is no CSV file ({error}): save it as 'CSV UTF-8'.") from None
    columns = [name.strip().lower() for name in lines[0]] if lines else []
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}: the first row must name the columns "
            f"{', '.join(REQUIRED)} (and, if known, {', '.join(OPTIONAL)})."
        )
    repeated = [name for name in REQUIRED + OPTIONAL if columns.count(name) > 1]
    if repeated:
        raise UserError(f"{path} has column {repeated[0]} twice: keep one of them.")
    return [
        (number, dict(zip(columns, [field.strip() for field in line] + [""] * len(columns))))
        for number, line in enumerate(lines[1:], start=2)
        if any(field.strip() for field in line)
    ]


def _row(fields: dict[str, str], root: pathlib.Path, purpose: str) -> tuple[Row | None, list[str]]:
    """The row, or None if it names no usable file, and what is wrong with it ("field: what")."""
    wrong = []
    name = fields["file"].replace("\\", "/")
    inside = None
    if not name:
        wrong.append("file: empty: name an image or delete the row")
    else:
        try:
            target = (root / name).resolve()
            inside = target.relative_to(root).as_posix() if target.is_relative_to(root) else None
            if inside is None:
                wrong.append(f"file: {name!r} lies outside the folder: move it inside")
            elif not target.is_file():
                inside = None
                wrong.append(f"file: {name!r} is not in the folder: correct it or delete the row")
        except (OSError, ValueError):
            wrong.append(f"file: {name!r} is no path: correct it")
    if not fields["subject"]:
        wrong.append("subject: empty: give the person a pseudonym")
    purposes = re.split(r"[\s;,|]+", fields["consent"].lower())
    if not {purpose.lower(), *ANY_PURPOSE} & set(purposes):
        wrong.append(
            f"consent: {fields['consent']!r} does not cover purpose {purpose!r}: use 'yes' or "
            f"{purpose!r} if the person agreed, else delete the row and the image"
        )
    side = fields.get("side", "").lower() or "unknown"
    if side not in SIDES:
        wrong.append(f"side: {side!r} is none of {', '.join(SIDES)}")
    severity = math.nan
    if fields.get("severity"):
        try:
            severity = float(fields["severity"])
        except ValueError:
            severity = math.inf
        if not 0 <= severity <= 1:
            wrong.append(f"severity: {fields['severity']!r} is no number from 0 to 1")
    if inside is None:
        return None, wrong
    return Row(inside, fields["subject"], fields["consent"], side, severity), wrong


def _several(path: pathlib.Path, problems: list[str]) -> str:
    more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    if len(problems) == 1:
        return f"{path}, {problems[0]}."
    return "\n  ".join([f"{path}:", *problems[:SHOWN]]) + more


def write_manifest(
    folder: str | os.PathLike,
    consent: str,
    subject: str = "file",
    output: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> tuple[pathlib.Path, int, int]:
    """Writes a manifest for all images of `folder`; returns its path and how many rows and subjects.

    `consent` goes into every row. `subject` is "file" (each image is another person, called like the
    file) or "folder" (each subfolder is a person). Raises UserError when the folder has no images,
    the manifest exists and `overwrite` is not set, or images lie outside of subfolders.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name the folder that holds the images.")
    path = pathlib.Path(output) if output else folder / NAME
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists: edit it, or replace it with --overwrite.")
    images = [pathlib.PurePosixPath(image) for image in list_images(folder)]
    if not images:
        raise UserError(f"{folder} has no images (JPEG, PNG, WebP, BMP or TIFF).")
    if subject == "folder":
        loose = [image for image in images if len(image.parts) == 1]
        if loose:
            raise UserError(
                f"{folder}: {len(loose)} images, {str(loose[0])!r} for one, are in no person's "
                "subfolder: move them into one, or use --subject=file."
            )
        subjects = [image.parent.as_posix() for image in images]
    else:
        stems = [image.stem for image in images]
        whole = len(set(stems)) < len(stems)  # one name in two folders: the path tells them apart
        subjects = [image.with_suffix("").as_posix() if whole else image.stem for image in images]
        if len(set(subjects)) < len(subjects):
            subjects = [str(image) for image in images]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(REQUIRED + OPTIONAL)
    writer.writerows((image, name, consent, "", "") for image, name in zip(images, subjects))
    try:
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(buffer.getvalue(), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}: choose another --output.") from None
    return path, len(images), len(set(subjects))


_CONSENT = """Nothing was written: --consent is missing.
A manifest states what the people on the photographs agreed to, and only you can know that. If every
one of them agreed to any use, say --consent=yes; if to some purposes only, list them, for example
--consent="research;teaching". Leave the images of people who did not agree out of the folder."""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status: 0, or 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.data.manifest",
        description="Writes manifest.csv for a folder of photographs.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="searched with its subfolders")
    parser.add_argument("--consent", help="'yes', or the purposes all people agreed to")
    parser.add_argument(
        "--subject",
        choices=("file", "folder"),
        default="file",
        help="each image is another person (default), or each subfolder is one",
    )
    parser.add_argument("--output", metavar="FILE", help="default: FOLDER/manifest.csv")
    parser.add_argument("--overwrite", action="store_true", help="replace a manifest")
    options = parser.parse_args(arguments)
    consent = (options.consent or "").strip()
    if not consent:
        print(_CONSENT, file=sys.stderr)
        return 2
    try:
        if consent.lower() in ("no", "false", "0", "none"):
            raise UserError(f"--consent={consent}: photographs without consent are not used.")
        path, images, people = write_manifest(
            options.folder, consent, options.subject, options.output, options.overwrite
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{path}: {images} images of {people} people, consent {consent!r} as you stated.\n"
        "Subjects are called like their files: rename them if that tells who they are. "
        "Fill in side and severity where known."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
