"""Who is on which photograph, and what they agreed to: `manifest.csv` in a folder of images.

One row an image, columns in any order, more of them are ignored:

  file      path relative to the folder
  subject   pseudonym of the person; two images of one person carry the same
  consent   purposes the person agreed to, separated by spaces or semicolons, or "yes" for all; or
            "ledger", or no such column, where a ledger (`consent`) says it
  side      optional, of the cleft: left, right (the person's own), none, unknown
  severity  optional, of the cleft: 0 (none) to 1 (worst)

and, where photographs are paired with UV photographs (the data set `uvphoto`),

  uv        optional, path of the UV photograph; empty: there is none, as for phones
  mask      optional, path of an own mask of usable skin: white is used, black is not
  view      optional: front, left, right or another word
  device    optional: device, phone or another word; if empty, device with a UV photograph, else phone

A first one for a folder is written by

  python -m jaxface.data.manifest FOLDER --consent=yes [--subject=file|folder] [--pairs] [--output=FILE]

where --pairs takes NAME_uv.* for the UV photograph and NAME_mask.* for the mask of NAME.*
"""

import argparse
import csv
import dataclasses
import datetime
import io
import math
import os
import pathlib
import re
import sys
from collections.abc import Iterable

from jaxface.data import duo
from jaxface.data.consent import IN_FOLDER, ledger_for
from jaxface.data.images import list_images
from jaxface.errors import UserError

NAME = "manifest.csv"
REQUIRED = ("file", "subject", "consent")
OPTIONAL = ("side", "severity")
PAIRS = ("uv", "mask", "view", "device")  # columns of photograph pairs
SUFFIX = "_uv"  # of the name of a UV photograph
_MASK = "_mask"
SIDES = ("left", "right", "none", "unknown")
ANY_PURPOSE = ("yes", "true", "1")
# Beside any purpose they refuse: "not for research".
NO_PURPOSE = ("no", "not", "none", "never", "refused", "withdrawn", "false", "0")
SAYS_NO = "it says no"  # why such a row may not be used
ON_LEDGER = "ledger"  # a row's consent, where a ledger says what it is
SHOWN = 5  # problems told at once


@dataclasses.dataclass(frozen=True)
class Row:
    """One photograph."""

    file: str  # posix path relative to the folder
    subject: str
    consent: str
    side: str = "unknown"
    severity: float = math.nan
    uv: str = ""  # posix paths relative to the folder
    mask: str = ""
    view: str = "unknown"
    device: str = ""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All that is known of a folder."""

    folder: pathlib.Path
    path: pathlib.Path
    rows: tuple[Row, ...]  # sorted by file
    without_row: tuple[str, ...]  # images of the folder that no row names: they are not used
    text: str
    given: tuple[tuple[str, str], ...] = ()  # (subject, hash of the consent on the ledger), sorted


def read_manifest(
    folder: str | os.PathLike,
    manifest: str | os.PathLike | None = None,
    purpose: str = "research",
    pairs: bool = False,
    ledger: str | os.PathLike | None = None,
) -> Manifest:
    """Reads and checks `manifest` (default: manifest.csv in `folder`) for use under `purpose`.

    The columns of photograph pairs are read with `pairs` alone, and ignored like any other without.
    Where there is a ledger (`ledger`, else `folder`/consent) it decides, see `Rule`.

    Raises UserError naming file, row (as a spreadsheet counts, the heading is row 1), field and
    remedy: folder or manifest missing, unreadable or without rows; a column missing; a row whose file
    is absent or outside the folder; two rows with one file; no subject; no consent to the purpose; a
    side or severity that is none; a UV photograph or mask that is absent or named twice; a ledger that
    was tampered with.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name the folder that holds the images.")
    rule = Rule(folder, ledger, purpose)
    path = pathlib.Path(manifest) if manifest else folder / NAME
    text = _read(path, folder, pairs)
    images = list_images(folder)
    rows, problems, seen = [], [], {}
    root = folder.resolve()
    optional = OPTIONAL + PAIRS if pairs else OPTIONAL
    for number, fields in _records(path, text, rule.columns(REQUIRED), optional):
        row, wrong = _row(fields, root, rule, pairs)
        for column in ("file", "uv", "mask") if row else ():
            name = getattr(row, column)
            if name in seen:
                wrong.append(f"{column}: {name!r} has row {seen[name]} already: keep one of them")
            elif name:
                seen[name] = number
        problems += [f"row {number}, {problem}" for problem in wrong]
        rows += [row] if row else []
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
        given=rule.given(row.subject for row in rows),
    )


def _read(path: pathlib.Path, folder: pathlib.Path, pairs: bool) -> str:
    return read_text(
        path,
        "it says who is on each image and what they agreed to. Write a first one with: "
        f"python -m jaxface.data.manifest {folder} --consent=yes --subject=file"
        + pairs
        * " --pairs",
    )


def read_text(path: pathlib.Path, remedy: str) -> str:
    """A manifest's text; UserError with `remedy` where there is none, and for what is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {remedy}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save it as 'CSV UTF-8'.") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}.") from None


def read_table(path: pathlib.Path, text: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """(columns in lower case, (row number, {column: text}) of every row that is not blank) of a CSV."""
    heading = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=heading.count)  # spreadsheets of some countries write semicolons
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise UserError(f"{path} is no CSV file ({error}): save it as 'CSV UTF-8'.") from None
    columns = [name.strip().lower() for name in lines[0]] if lines else []
    return columns, [
        (number, dict(zip(columns, [field.strip() for field in line] + [""] * len(columns))))
        for number, line in enumerate(lines[1:], start=2)
        if any(field.strip() for field in line)
    ]


def consents(text: str, purpose: str) -> bool:
    """Whether a row's consent covers a purpose: it says yes to all, or covers it as `duo` has it.

    What says no with other words says no.
    """
    return _uncovered(text, purpose) == ""


def _uncovered(text: str, purpose: str) -> str | None:
    """Why a row's consent does not cover a purpose, "" where it does; None where it names no purpose."""
    words = set(re.split(r"[\s;,|]+", text.lower()))
    if {word.strip(".:!()") for word in words} & set(NO_PURPOSE):
        return SAYS_NO
    if words & set(ANY_PURPOSE):
        return ""
    same = purpose.lower() in words  # as it must be where `duo` does not take the words
    try:
        given = duo.consent(text.lower())
    except UserError:
        return "" if same else None
    try:
        asked = duo.use(purpose.lower())
    except UserError as error:
        return "" if same else str(error).rstrip(".")
    return duo.uncovered(given, asked, datetime.datetime.now(datetime.UTC).date())


class Rule:
    """Whether a row may be used: by what the ledger says of its person, else by its own words.

    With a ledger the column consent may be missing, empty or say "ledger"; where it says more, it must
    agree as well, so that a "no" in a manifest holds.
    """

    def __init__(
        self, folder: pathlib.Path, ledger: str | os.PathLike | None, purpose: str, who="person"
    ):
        """`who` is on the rows: a person, a patient. UserError as from `ledger_for` and `duo.use`."""
        self._folder, self._purpose, self._who = folder, purpose, who
        self._ledger = ledger_for(folder, ledger)
        if self._ledger:
            duo.use(purpose)

    def columns(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those among a manifest's columns that must be there."""
        return tuple(name for name in names if name != "consent" or not self._ledger)

    def refusal(self, fields: dict[str, str], remove: str) -> str:
        """Why a row may not be used, as "consent: what: remedy"; "" where it may.

        `remove` says what to delete of a person who does not agree: "the row and the image".
        """
        text, subject = fields.get("consent", ""), fields["subject"]
        if self._ledger and text.lower() in ("", ON_LEDGER):
            return self._by_ledger(subject, remove) if subject else ""
        if text.lower() == ON_LEDGER:
            return (
                f"consent: {text!r}, and there is none: name its folder with --ledger=DIR, or move it to "
                f"{self._folder / IN_FOLDER}"
            )
        why = _uncovered(text, self._purpose)
        if why == "":
            return self._by_ledger(subject, remove) if self._ledger and subject else ""
        if why is None:
            remedy = f"use 'yes' or {self._purpose!r} if the {self._who} agreed, else "
        elif why == SAYS_NO:
            remedy = f"{why}; "
        elif why.startswith("TS:"):
            remedy = f"{why}; ask the {self._who} again, or "
        else:  # what somebody agreed to is not to be overwritten
            remedy = f"{why}; say with --purpose=... what it is used for, or "
        return (
            f"consent: {text!r} does not cover purpose {self._purpose!r}: {remedy}delete {remove}"
        )

    def _by_ledger(self, subject: str, remove: str) -> str:
        why = self._ledger.refusal(subject, self._purpose)
        if not why:
            return ""
        folder, command = self._ledger.folder, "python -m jaxface.data.consent add"
        if why.startswith("never"):
            remedy = (
                f"if the {self._who} agreed, record it: {command} {folder} {subject} --purpose=..."
            )
        elif why.startswith("withdrawn"):
            remedy = f"erase what was made of it: python -m jaxface.withdraw {subject}"
        elif why.startswith("expired"):
            remedy = f"ask the {self._who} again: {command} {folder} {subject} --kind=reconfirmed"
        else:
            remedy = "say with --purpose=... what it is used for"
        return (
            f"consent: {subject} on the ledger {folder}: {why}, asked for {self._purpose}; {remedy}, "
            f"or delete {remove}"
        )

    def given(self, subjects: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """What a build depends on of the ledger: it is another one after a new consent of somebody on it.

        Events of other people do not change it, nor do re-confirmations.
        """
        if not self._ledger:
            return ()
        return tuple((one, self._ledger.state(one).given.hash) for one in sorted(set(subjects)))


def _records(
    path: pathlib.Path, text: str, required: tuple[str, ...], optional: tuple[str, ...]
) -> list[tuple[int, dict[str, str]]]:
    """(row number, {column: text}) of every row that is not blank."""
    columns, rows = read_table(path, text)
    missing = [name for name in required if name not in columns]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}: the first row must name the columns "
            f"{', '.join(required)} (and, if known, {', '.join(optional)})."
        )
    repeated = [name for name in REQUIRED + optional if columns.count(name) > 1]
    if repeated:
        raise UserError(f"{path} has column {repeated[0]} twice: keep one of them.")
    return rows


def _row(
    fields: dict[str, str], root: pathlib.Path, rule: Rule, pairs: bool
) -> tuple[Row | None, list[str]]:
    """The row, or None if it names no usable file, and what is wrong with it ("field: what")."""
    wrong = []
    inside = None
    if not fields["file"]:
        wrong.append("file: empty: name an image or delete the row")
    else:
        inside = _inside(fields["file"], "file", "delete the row", root, wrong)
    more = {}
    if pairs:
        more = {
            column: fields.get(column)
            and _inside(fields[column], column, "leave it empty", root, wrong)
            or ""
            for column in ("uv", "mask")
        }
        more["view"] = fields.get("view", "").lower() or "unknown"
        more["device"] = fields.get("device", "").lower()
    if not fields["subject"]:
        wrong.append("subject: empty: give the person a pseudonym")
    refusal = rule.refusal(fields, "the row and the image")
    wrong += [refusal] if refusal else []
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
    return Row(inside, fields["subject"], fields.get("consent", ""), side, severity, **more), wrong


def _inside(
    name: str, column: str, otherwise: str, root: pathlib.Path, wrong: list[str]
) -> str | None:
    """The path relative to `root` of a file that a row names; None, and why in `wrong`, if it is none."""
    name = name.replace("\\", "/")
    try:
        target = (root / name).resolve()
        if not target.is_relative_to(root):
            wrong.append(f"{column}: {name!r} lies outside the folder: move it inside")
        elif not target.is_file():
            wrong.append(f"{column}: {name!r} is not in the folder: correct it or {otherwise}")
        else:
            return target.relative_to(root).as_posix()
    except (OSError, ValueError):
        wrong.append(f"{column}: {name!r} is no path: correct it")
    return None


def _several(path: pathlib.Path, problems: list[str]) -> str:
    return f"{path}, {problems[0]}." if len(problems) == 1 else listed(path, problems)


def listed(path: pathlib.Path, problems: list[str]) -> str:
    """The first problems of a file, a line each, and how many more there are."""
    more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "\n  ".join([f"{path}:", *problems[:SHOWN]]) + more


def write_manifest(
    folder: str | os.PathLike,
    consent: str,
    subject: str = "file",
    output: str | os.PathLike | None = None,
    overwrite: bool = False,
    pairs: str = "",
) -> tuple[pathlib.Path, int, int]:
    """Writes a manifest for all images of `folder`; returns its path and how many rows and subjects.

    `consent` goes into every row. `subject` is "file" (each image is another person, called like the
    file) or "folder" (each subfolder is a person). With `pairs` (a suffix like "_uv"; upper case is the same)
    NAME_uv.* is the UV photograph and NAME_mask.* the mask of NAME.* in the same folder.

    Raises UserError when the folder has no images, the manifest exists and `overwrite` is not set, images
    lie outside of subfolders, or the name of a UV photograph or mask fits no photograph or several.
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
    images, partners = _partners(folder, images, pairs) if pairs else (images, {})
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
    writer.writerow(REQUIRED + (PAIRS if pairs else OPTIONAL))
    for image, name in zip(images, subjects):
        more = partners[image] if pairs else ()
        writer.writerow((image, name, consent, *more, "", ""))
    try:
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(buffer.getvalue(), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}: choose another --output.") from None
    return path, len(images), len(set(subjects))


def _partners(
    folder: pathlib.Path, images: list[pathlib.PurePosixPath], suffix: str
) -> tuple[list[pathlib.PurePosixPath], dict[pathlib.PurePosixPath, list[str]]]:
    """The photographs among the images and [UV photograph, mask] of each, "" where there is none."""
    endings = (suffix.lower(), _MASK)
    kind = lambda image: [i for i, end in enumerate(endings) if image.stem.lower().endswith(end)]
    photographs = [image for image in images if not kind(image)]
    found: dict[pathlib.PurePosixPath, list[str]] = {image: ["", ""] for image in photographs}
    for image in images:
        for which in kind(image):
            stem = image.stem[: -len(endings[which])]
            of = [p for p in photographs if p.parent == image.parent and p.stem == stem]
            if len(of) != 1:
                raise UserError(
                    f"{folder / image}: {len(of)} photographs are called {stem}.*, and its name says "
                    "that it belongs to one: rename it, or move it out of the folder."
                )
            if found[of[0]][which]:
                raise UserError(
                    f"{folder / image}: {of[0]} has {found[of[0]][which]} already: keep one of them."
                )
            found[of[0]][which] = str(image)
    return photographs, found


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
    parser.add_argument(
        "--pairs",
        nargs="?",
        const=SUFFIX,
        default="",
        metavar="SUFFIX",
        help=f"NAME{SUFFIX}.* is the UV photograph of NAME.*, NAME{_MASK}.* its mask (or another SUFFIX)",
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
            options.folder,
            consent,
            options.subject,
            options.output,
            options.overwrite,
            options.pairs,
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{path}: {images} images of {people} people, consent {consent!r} as you stated.\n"
        "Subjects are called like their files: rename them if that tells who they are. "
        + (
            "Two photographs of one person must carry one subject: correct that where names differ by "
            "view. Fill in view (front, left, right) where known."
            if options.pairs
            else "Fill in side and severity where known."
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
