"""A user's folder of videos before and after a dialysis (edema, Akamatsu et al., JBHI 2022).

`manifest.csv` in the folder has one row a video, columns in any order and no others:

  file       path, relative to the folder, of a video, or of a folder of frames that are selected already
             (000.jpg and so on, square crops, as python -m jaxface.data.video writes them)
  subject    pseudonym of the patient, without "/"
  day        of the dialysis: a date like 2026-01-31, or a whole number from 0 to 9999 that counts up
  session    pre or post the dialysis
  weight_kg  body weight at the time of the video, 20 to 300
  consent    purposes the patient agreed to, separated by spaces or semicolons, or "yes" for all; or
             "ledger", or no such column, where a ledger (`consent`) says it

A day needs both videos, and its weights must fit each other: a row without its other half is refused
together with all the others like it. A patient with one day is learned from and cannot be a target, which
is said. All this is checked before the first video is decoded.

Frames are picked, aligned and refused as in `video`. A video that cannot be used takes its whole day with
it; both are listed by name and reason in `left_out.csv` beside the built data, and what a user should
know of those that are used in `notes.csv`.
"""

import collections
import csv
import dataclasses
import datetime
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

import numpy as np

from jaxface import terminal
from jaxface.data import base, folder, video
from jaxface.data.images import ImageError, list_images, read_image
from jaxface.data.manifest import NAME, Rule, listed, read_table, read_text
from jaxface.errors import UserError, nearest
from jaxface.faces.resample import resample

VERSION = "1"  # of what becomes of a folder of frames: a new one rebuilds the data
COLUMNS = ("file", "subject", "day", "session", "weight_kg", "consent")
SESSIONS = ("pre", "post")
WEIGHTS = (20.0, 300.0)  # kg a patient may weigh
MOST_GAINED = 0.5  # kg that a dialysis may seem to add: clothes, a drink, the scales
MOST_LOST = 10.0  # kg that it may take away
NOTES = "notes.csv"


@dataclasses.dataclass(frozen=True)
class Video:
    """One row of the manifest."""

    file: str  # posix path relative to the folder, of a video or of a folder of frames
    subject: str
    day: str  # ISO date, or a number of four digits: sorts by time
    session: str  # pre, post
    weight_kg: float


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All that is known of a folder of videos."""

    folder: pathlib.Path
    path: pathlib.Path
    videos: tuple[Video, ...]  # sorted by subject, day, and pre before post
    without_row: tuple[str, ...]  # videos of the folder that no row names: they are not used
    notes: tuple[tuple[str, str, str], ...]  # (file, subject, what should be known of it)
    text: str
    given: tuple[tuple[str, str], ...]  # (subject, hash of the consent on the ledger), sorted


def read_manifest(
    folder_: str | os.PathLike,
    manifest: str | os.PathLike | None = None,
    purpose: str = "research",
    ledger: str | os.PathLike | None = None,
) -> Manifest:
    """Reads and checks `manifest` (default: manifest.csv in the folder) for use under `purpose`.

    Where there is a ledger (`ledger`, else `consent` in the folder) it decides, see `manifest.Rule`.

    Raises UserError naming file, row (as a spreadsheet counts, the heading is row 1), field and remedy:
    folder or manifest missing, unreadable, without rows; a column missing, unknown or named twice; a
    file that is absent, outside the folder, named twice or a copy of another; a subject or day that is
    none; a session that is neither; a weight that is none or impossible, or does not fit that of the
    other half of the day; a day with one half only; no consent to the purpose; a ledger that was
    tampered with.
    """
    root = pathlib.Path(folder_)
    if not root.is_dir():
        raise UserError(f"{root} is no folder: name the folder that holds the videos.")
    rule = Rule(root, ledger, purpose, "patient")
    path = pathlib.Path(manifest) if manifest else root / NAME
    text = read_text(
        path,
        f"write a table with one row a video and the columns {', '.join(COLUMNS)} (what they hold: "
        "jaxface/data/edema_folder.py).",
    )
    found: list[tuple[int, Video]] = []
    problems: list[tuple[int, str]] = []
    unclear = set()  # patients of whom a row cannot be placed: what seems missing may be that
    for number, fields in _records(path, text, rule.columns(COLUMNS)):
        one, wrong = _video(fields, root.resolve(), rule)
        problems += [(number, problem) for problem in wrong]
        if one:
            found.append((number, one))
        else:
            unclear.add(fields["subject"])
    problems += _repeated(root, found)
    problems += _days([(number, one) for number, one in found if one.subject not in unclear])
    if problems:
        lines = [f"row {number}, {problem}" for number, problem in sorted(problems)]
        raise UserError(listed(path, lines))
    if not found:
        raise UserError(f"{path} has no rows: add one for each video.")
    videos = sorted(
        (one for _, one in found), key=lambda v: (v.subject, v.day, SESSIONS.index(v.session))
    )
    named = {one.file for one in videos}
    days = collections.defaultdict(set)
    for one in videos:
        days[one.subject].add(one.day)
    once = "its patient has this day only: learned from, and no target to be tested on"
    return Manifest(
        folder=root,
        path=path,
        videos=tuple(videos),
        without_row=tuple(name for name in video.list_videos(root) if name not in named),
        notes=tuple((v.file, v.subject, once) for v in videos if len(days[v.subject]) == 1),
        text=text,
        given=rule.given(one.subject for one in videos),
    )


def _records(
    path: pathlib.Path, text: str, required: tuple[str, ...]
) -> list[tuple[int, dict[str, str]]]:
    """(row number, {column: text}) of every row that is not blank."""
    columns, rows = read_table(path, text)
    for name in columns:
        if name and name not in COLUMNS:
            raise UserError(
                f"{path} has a column {name!r}, which nothing reads: delete it or correct its name."
                + nearest(name, COLUMNS)
            )
        if name and columns.count(name) > 1:
            raise UserError(f"{path} has column {name} twice: keep one of them.")
    missing = [name for name in required if name not in columns]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}: the first row must name the columns "
            f"{', '.join(required)}."
        )
    return rows


def _video(
    fields: dict[str, str], root: pathlib.Path, rule: Rule
) -> tuple[Video | None, list[str]]:
    """The row, None if it belongs to no session, and what is wrong with it ("field: what").

    A file or weight that is wrong stands as "" or NaN.
    """
    wrong: list[str] = []
    file = _inside(fields["file"], root, wrong)
    subject, session = fields["subject"], fields["session"].lower()
    if not subject:
        wrong.append("subject: empty: give the patient a pseudonym")
    elif "/" in subject:
        wrong.append(f"subject: {subject!r} has a '/': leave it out")
    day = _day(fields["day"], wrong)
    if session not in SESSIONS:
        wrong.append(f"session: {fields['session']!r} is neither pre nor post")
    placed = bool(subject and day and session in SESSIONS)
    weight = _weight(fields["weight_kg"], wrong)
    refusal = rule.refusal(fields, "the rows of that day and the videos")
    wrong += [refusal] if refusal else []
    return (Video(file, subject, day, session, weight) if placed else None), wrong


def _inside(name: str, root: pathlib.Path, wrong: list[str]) -> str:
    """The path, relative to `root`, of a video or folder of frames; "", and why in `wrong`, if none."""
    if not name:
        wrong.append("file: empty: name a video or delete the row")
        return ""
    name = name.replace("\\", "/")
    try:
        target = (root / name).resolve()
        if not target.is_relative_to(root) or target == root:
            wrong.append(f"file: {name!r} lies outside the folder: move it inside")
        elif target.is_dir() and not list_images(target):
            wrong.append(f"file: the folder {name!r} has no frames: select them anew")
        elif not target.exists():
            wrong.append(f"file: {name!r} is not in the folder: correct it or delete the row")
        else:
            return target.relative_to(root).as_posix()
    except (OSError, ValueError):
        wrong.append(f"file: {name!r} is no path: correct it")
    return ""


def _day(text: str, wrong: list[str]) -> str:
    """A day in a form that sorts by time."""
    if re.fullmatch(r"[0-9]{1,4}", text):
        return f"{int(text):04d}"
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        pass  # no such day in that month
    wrong.append(
        f"day: {text!r} is no date like 2026-01-31 and no whole number from 0 to 9999: write one of them"
        if text
        else "day: empty: write the date of the dialysis, or its number"
    )
    return ""


def _weight(text: str, wrong: list[str]) -> float:
    """kg; NaN, and why in `wrong`, if it is none."""
    if not text:
        wrong.append(
            "weight_kg: empty: write the weight at the time of the video, or delete the day"
        )
        return math.nan
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    low, high = WEIGHTS
    if low <= weight <= high:
        return weight
    wrong.append(
        f"weight_kg: {text!r} is no number: write it like 61.4"
        if math.isnan(weight)
        else f"weight_kg: {text} kg is not between {low:.0f} and {high:.0f}: correct it, in kg"
    )
    return math.nan


def _repeated(root: pathlib.Path, found: list[tuple[int, Video]]) -> list[tuple[int, str]]:
    """Rows whose file another row has, under the same name or as a copy."""
    problems, seen = [], {}
    sizes = collections.defaultdict(list)
    for number, one in found:
        if not one.file:
            continue
        if one.file in seen:
            first = seen[one.file]
            problems.append(
                (number, f"file: {one.file!r} has row {first} already: keep one of them")
            )
            continue
        seen[one.file] = number
        if (root / one.file).is_file():
            sizes[(root / one.file).stat().st_size].append((number, one.file))
    for same in sizes.values():  # only what has the same size is read
        copies: dict[bytes, tuple[int, str]] = {}
        for number, name in same if len(same) > 1 else ():
            with (root / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            first, other = copies.setdefault(digest, (number, name))
            if first != number:
                problems.append(
                    (
                        number,
                        f"file: {name!r} is a copy of {other!r} in row {first}: one is mistaken",
                    )
                )
    return problems


def _days(found: list[tuple[int, Video]]) -> Iterator[tuple[int, str]]:
    """Rows that do not make whole days of one weight before and one after."""
    days: dict[tuple[str, str], dict[str, tuple[int, Video]]] = collections.defaultdict(dict)
    kinds: dict[str, dict[bool, int]] = collections.defaultdict(dict)
    doubled = set()
    for number, one in found:
        day = (one.subject, one.day)
        first, _ = days[day].setdefault(one.session, (number, one))
        if first != number:
            doubled.add(day)
            what = f"{one.session} of {one.subject} on day {one.day}"
            yield number, f"session: {what} has row {first} already: keep one of them"
        kinds[one.subject].setdefault("-" in one.day, number)
    for first, second in (sorted(kind.values()) for kind in kinds.values() if len(kind) == 2):
        yield (
            second,
            (
                f"day: row {first} of this patient has the other of date and number: use one of them, "
                "together they do not sort"
            ),
        )
    for (subject, day), sessions in days.items():
        last = max(number for number, _ in sessions.values())
        what = f"{subject} on day {day}"
        if len(sessions) == 2:
            lost = sessions["pre"][1].weight_kg - sessions["post"][1].weight_kg
            if lost < -MOST_GAINED:
                yield (
                    last,
                    (
                        f"weight_kg: {what} weighs {-lost:.1f} kg more after the dialysis than before it: "
                        "are pre and post exchanged?"
                    ),
                )
            elif lost > MOST_LOST:
                yield (
                    last,
                    (
                        f"weight_kg: {what} lost {lost:.1f} kg, over {MOST_LOST:.0f} kg: correct the weights"
                    ),
                )
        elif (subject, day) not in doubled:
            (there,) = sessions
            (gone,) = set(SESSIONS) - {there}
            yield (
                last,
                f"session: {what} has {there} without {gone}: add its row, or delete this one",
            )


def config_for(
    folder_: str | os.PathLike,
    manifest: str | os.PathLike | None = None,
    purpose: str = "research",
    side: int = 224,
    frames: int = 100,
    max_bad_fraction: float = 0.001,
    ledger: str | os.PathLike = "",
) -> base.FrameConfig:
    """Settings for `edema_folder` whose name changes with all that the records depend on.

    Args:
      folder_: holds the videos.
      manifest: default: manifest.csv in the folder.
      purpose: that the patients must have consented to.
      side: px of a crop.
      frames: of each video; those with at least half as many are used too, and noted.
      max_bad_fraction: unusable videos tolerated before the build stops.
      ledger: folder of a consent ledger; default: `consent` in the folder, if one is there.

    Raises UserError for what `read_manifest` refuses and for numbers that are none.
    """
    video.check(frames, side)
    read = read_manifest(folder_, manifest, purpose, ledger)
    settings = (purpose, side, frames, max_bad_fraction, VERSION, video.VERSION)
    return base.FrameConfig(
        name=f"{side}px-{frames}-{_digest(read, settings)}",
        description="A folder of videos before and after a dialysis.",
        folder=str(folder_),
        manifest=str(read.path),
        purpose=purpose,
        ledger=str(ledger),
        side=side,
        frames=frames,
        max_bad_fraction=max_bad_fraction,
    )


def _digest(manifest: Manifest, settings: tuple) -> str:
    """16 hexadecimal digits that change with the manifest, the settings and any file that is used."""
    names = list(manifest.without_row)
    for one in manifest.videos:
        path = manifest.folder / one.file
        inside = [f"{one.file}/{name}" for name in (*list_images(path), video.LOG)]
        names += [name for name in inside if (manifest.folder / name).is_file()]
        names += [one.file] if path.is_file() else []
    stats = [(name, (manifest.folder / name).stat()) for name in sorted(names)]
    facts = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    content = [settings, facts, manifest.text, *([manifest.given] if manifest.given else [])]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


class EdemaFolder(base.FrameBuilder):
    """Frames of a folder of videos that show patients before and after a dialysis.

    `tfds.builder("edema_folder", data_dir=..., config=config_for(FOLDER), file_format="array_record")`
    """

    @classmethod
    def settle(cls, run) -> base.FrameConfig:
        """Settings of the build that a run's config asks for; UserError without --data_dir."""
        return config_for(
            folder.data_dir_of(run, cls.name, "videos"),
            run.manifest or None,
            run.purpose,
            run.side,
            run.frames,
            run.max_bad_fraction,
            run.ledger,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        if not config or not config.folder:
            raise UserError(f"{self.name} needs a folder of videos: give its path.")
        manifest = read_manifest(config.folder, config.manifest, config.purpose, config.ledger)
        path = pathlib.Path(self.data_path)
        prepared = path / "prepared"  # gone before the build is complete
        prepared.mkdir(parents=True)
        kept = _prepare(manifest, config, prepared, path)
        splits: dict[str, list] = {}
        for one, times, place in kept:
            splits.setdefault(base.split_of(one.subject), []).append((one, times, place))
        left = len(kept)

        def records(rows: list) -> Iterator[tuple[str, dict]]:
            nonlocal left
            for one, times, place in rows:
                for number, time in enumerate(times):
                    record = base.frame_record(
                        image=(place / f"{number}.jpg").read_bytes(),
                        subject=one.subject,
                        day=one.day,
                        session=one.session,
                        weight_kg=one.weight_kg,
                        frame=number,
                        time=time,
                    )
                    yield record["id"], record
                shutil.rmtree(place)
                left -= 1
            if not left:
                shutil.rmtree(prepared)

        return {split: records(rows) for split, rows in splits.items()}


def _prepare(
    manifest: Manifest, config: base.FrameConfig, prepared: pathlib.Path, reports: pathlib.Path
) -> list[tuple[Video, np.ndarray, pathlib.Path]]:
    """Writes the frames of each usable video into `prepared` and both lists into `reports`.

    Returns (video, times [n] in s, folder of its frames 0.jpg, 1.jpg, ...) for whole days.
    Raises UserError when more videos cannot be used than config.max_bad_fraction, or all.
    """
    total = len(manifest.videos)
    allowed = int(config.max_bad_fraction * total)
    bad: list[tuple[Video, str]] = []
    good: list[tuple[Video, np.ndarray, pathlib.Path]] = []
    notes = list(manifest.notes)
    with terminal.Progress("selecting frames", total, unit="video") as progress:
        for done, one in enumerate(manifest.videos, 1):
            try:
                images, times, note = _frames(manifest.folder / one.file, config)
                notes += [(one.file, one.subject, note)] if note else []
                place = prepared / str(done)
                place.mkdir()
                for number, image in enumerate(images):
                    (place / f"{number}.jpg").write_bytes(video.encode_jpeg(image))
                good.append((one, times, place))
            except (video.VideoError, ImageError) as error:
                named = pathlib.Path(error.path)
                inside = "" if named == manifest.folder / one.file else f"{named.name}: "
                bad.append((one, inside + error.reason))
            progress.update(done)
    files = [(one.file, why) for one, why in bad]
    if len(bad) == total:
        raise UserError(f"{manifest.folder}: no video can be used:" + folder.names(files))
    if len(bad) > allowed:
        raise UserError(
            f"{manifest.folder}: {len(bad)} of {total} videos cannot be used, {allowed} may be "
            "(config.max_bad_fraction). Replace them, or delete the rows of those days in "
            f"{manifest.path.name}:" + folder.names(files)
        )
    lost = {(one.subject, one.day): one for one, _ in bad}
    kept = [each for each in good if (each[0].subject, each[0].day) not in lost]
    if not kept:
        raise UserError(f"{manifest.folder}: no day has two usable videos:" + folder.names(files))
    left_out = [(one.file, one.subject, why) for one, why in bad]
    for one, _, place in good:
        other = lost.get((one.subject, one.day))
        if other:
            shutil.rmtree(place)
            reason = f"the other video of its day, {other.file}, cannot be used"
            left_out.append((one.file, one.subject, reason))
    left_out += [(name, "", f"no row in {manifest.path.name}") for name in manifest.without_row]
    gone = {name for name, _, _ in left_out}
    notes = [note for note in notes if note[0] not in gone]
    folder.write_table(reports / folder.LEFT_OUT, ("file", "subject", "reason"), left_out)
    folder.write_table(reports / NOTES, ("file", "subject", "note"), notes)
    _say(kept, left_out, notes)
    return kept


def _say(kept: list, left_out: list, notes: list) -> None:
    patients = {one.subject for one, _, _ in kept}
    message = (
        f"{sum(len(times) for _, times, _ in kept)} frames of {len(kept)} videos of {len(patients)} "
        "patients selected"
    )
    if left_out:
        message += f", {len(left_out)} videos left out (names and reasons: {folder.LEFT_OUT})"
    if notes:
        message += f", {len({name for name, _, _ in notes})} to be looked at ({NOTES})"
    where = ". The lists are beside the built data." if left_out or notes else "."
    terminal.say(message + where + folder.names([(name, why) for name, _, why in left_out + notes]))


def _frames(path: pathlib.Path, config: base.FrameConfig) -> tuple[np.ndarray, np.ndarray, str]:
    """Frames uint8 [n, side, side, 3], times [n] in s, and a note, of a video or a folder of frames.

    Raises VideoError or ImageError.
    """
    if path.is_dir():
        return _selected(path, config.frames, config.side)
    chosen = video.select(path, config.frames, config.side)
    return chosen.images, chosen.times, chosen.note


def _selected(path: pathlib.Path, count: int, side: int) -> tuple[np.ndarray, np.ndarray, str]:
    """`_frames` of a folder of crops; `count` of them, spread evenly, where there are more."""
    names = list_images(path)
    least = (count + 1) // 2
    if len(names) < least:
        raise video.VideoError(
            path, f"{len(names)} frames, {least} must be there: select them anew, or ask for fewer"
        )
    at = np.arange(len(names))
    if len(names) > count:
        at = np.floor((np.arange(count) + 0.5) * len(names) / count).astype(int)
    images = np.zeros((len(at), side, side, 3), np.uint8)
    for number, index in enumerate(at):
        image = read_image(path / names[index])
        height, width = image.shape[:2]
        if height != width:
            raise ImageError(
                path / names[index],
                f"{width}x{height} px is no square crop: name the video, or select frames of it with "
                "python -m jaxface.data.video",
            )
        if video.ENLARGED * width < side:
            raise ImageError(
                path / names[index], f"{width} px a side is under half of config.side={side}"
            )
        scale = width / side
        matrix = np.array([[scale, 0, 0], [0, scale, 0]])
        images[number] = image if width == side else resample(image, matrix, side)
    times = _times(path)
    note = "" if len(at) == count else f"only {len(at)} of {count} frames are in the folder"
    return images, np.array([times.get(names[index], math.nan) for index in at]), note


def _times(path: pathlib.Path) -> dict[str, float]:
    """{file: s} of the log beside selected frames; empty where there is none or it cannot be read."""
    try:
        with (path / video.LOG).open(newline="", encoding="utf-8") as file:
            return {row["file"]: float(row["time"]) for row in csv.DictReader(file) if row["file"]}
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return {}
