"""A person takes back the consent: the ledger says so, the data go, the models are marked.

python -m jaxface.withdraw SUBJECT --ledger=DIR --under=FOLDER [--under=FOLDER ...]
    [--photographs=erase|keep] [--dry_run]

Stop runs that use these folders first. Under them, and nowhere else, in this order:

  1. the ledger gets the withdrawal, if it has none of this person yet
  2. each checkpoint, pack and export that owes to the person gets a tombstone (`lineage`): none of them is
     loaded any more without --allow_withdrawn. Programs of an export (.stablehlo, .onnx) hold the same
     weights and run without this code: they are listed, to be deleted by hand
  3. of workdirs: pictures of training people or people held out, TensorBoard's events (they hold the same
     grids; the scalars stay in metrics.jsonl), rows and readings of the person, and the pages made of them;
     the report is written anew
  4. features that were kept beside built data
  5. built data: shards are rewritten without the person's records, all others stay byte for byte and in
     their order, whether or not the photographs they were built from are still there
  6. with --photographs=erase: photographs, UV photographs, masks and videos that manifests name for the
     person, then what was voted on them, and then the manifests' rows

What tells where something is to be found goes last, and every change is one file or folder put in place of
another, so that an interrupted withdrawal is finished by the same command. Done twice, nothing changes.
"""

import argparse
import csv
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import sys
import zipfile
from collections.abc import Iterable

import safetensors
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from PIL import Image

from jaxface import checkpoint, lineage, weights
from jaxface.data import votes
from jaxface.data.consent import Ledger
from jaxface.data.manifest import NAME
from jaxface.errors import UserError
from jaxface.reports import report
from jaxface.weights import kinds

DRAFT, READY, OLD = ".rewriting", ".rewritten", ".erasing"  # of a build that is being rewritten
_UNFINISHED = re.compile(r"incomplete\.\w+_\d+\.\d+\.\d+")  # a tfds build that did not end
_PERSON = ("file", "uv", "mask")  # columns of a manifest that name files
_TEXTS = {".csv", ".html", ".json", ".jsonl", ".md", ".tsv", ".txt", ".yaml"}
_MOST = 64 << 20  # bytes of a text file that is searched
SHOWN = 20  # names told at once


@dataclasses.dataclass
class Build:
    """A built data set that holds records of the person."""

    path: pathlib.Path
    total: int
    own: int  # records of the person
    others: str  # sha256 over all other records


@dataclasses.dataclass
class Table:
    """A CSV file with rows of the person."""

    path: pathlib.Path
    rows: list[int]  # from 1, as a spreadsheet counts; 1 is the heading
    names: list[str] = dataclasses.field(default_factory=list)  # in a manifest's rows
    files: list[pathlib.Path] = dataclasses.field(
        default_factory=list
    )  # of these names, that are there


@dataclasses.dataclass
class Run:
    """A workdir."""

    path: pathlib.Path
    config: dict
    erase: list[pathlib.Path] = dataclasses.field(default_factory=list)
    tables: list[Table] = dataclasses.field(default_factory=list)
    concerned: bool = False  # whether it may show the person


@dataclasses.dataclass
class Model:
    """A checkpoint, a pack or an export."""

    path: pathlib.Path
    digest: str  # of the checkpoint that it is or was made of
    name: str  # what its tombstone names: the digest, or the sha256 of the file
    step: int | None = None  # of a checkpoint
    run: pathlib.Path | None = None
    how: str = ""  # "direct", "transfer", "" where it does not owe to the person


@dataclasses.dataclass
class Found:
    """All that concerns one person under some folders."""

    subject: str
    builds: list[Build] = dataclasses.field(default_factory=list)
    tables: list[Table] = dataclasses.field(default_factory=list)  # beside built data
    manifests: list[Table] = dataclasses.field(default_factory=list)
    votes: list[Table] = dataclasses.field(default_factory=list)
    caches: list[pathlib.Path] = dataclasses.field(default_factory=list)
    leftovers: list[pathlib.Path] = dataclasses.field(default_factory=list)
    runs: list[Run] = dataclasses.field(default_factory=list)
    models: list[Model] = dataclasses.field(default_factory=list)
    programs: list[Model] = dataclasses.field(default_factory=list)  # that owe to the person
    unknown: list[str] = dataclasses.field(default_factory=list)  # what cannot be told, and why

    @property
    def photographs(self) -> list[pathlib.Path]:
        return [file for manifest in self.manifests for file in manifest.files]

    @property
    def affected(self) -> list[Model]:
        return [model for model in self.models if model.how]


# ---- what there is --------------------------------------------------------------------------


def survey(subject: str, under: Iterable[pathlib.Path], ledger: pathlib.Path) -> Found:
    """Reads everything under some folders and changes nothing.

    Raises UserError for a folder that is none.
    """
    found, tables, models = Found(subject), [], Models()
    versions: list[pathlib.Path] = []
    for folder in _folders(under):
        if not folder.is_dir():
            raise UserError(f"--under={folder} is no folder: name one that holds runs or data.")
        for path, folders, files in os.walk(folder):
            here = pathlib.Path(path)
            if here == ledger.resolve() or here.name == ".git":
                folders[:] = []
                continue
            folders.sort()
            if here.name.endswith((DRAFT, READY, OLD)) or _UNFINISHED.fullmatch(here.name):
                found.leftovers.append(here)
                folders[:] = []
            elif {"dataset_info.json", "features.json"} <= set(files):
                versions.append(here)
            elif checkpoint.MANIFEST in files and (here.name.isdigit() or "meta" in folders):
                models.add_checkpoint(here)
                folders[:] = []
                continue
            elif "config.json" in files and "run" in (config := _json(here / "config.json")):
                found.runs.append(Run(here, config))
            if here.name == lineage.PASSED_ON:
                models.add_lists(here, files)
            for name in sorted(files):
                if name.endswith(".csv"):
                    tables.append(here / name)
                elif name.endswith((".npz", ".safetensors")):
                    models.add_file(here / name)
            if names := [name for name in files if name.endswith((".stablehlo", ".onnx"))]:
                models.add_programs(here, names)
    found.builds = [build for path in versions if (build := _build(path, subject, found))]
    beside = {path for version in versions for path in version.glob("*.csv")}
    found.manifests = [m for path in tables if (m := _manifest(path, subject, found.runs))]
    named = {name for manifest in found.manifests for name in manifest.names}
    found.tables = [t for path in sorted(beside) if (t := _table(path, subject, named))]
    for path in (path for path in tables if path not in beside and _holds_votes(path)):
        of = [m for m in found.manifests if _on_photographs_of(path, m, found.runs)]
        if table := _table(path, subject, {name for manifest in of for name in manifest.names}):
            found.votes.append(table)
    roots = {build.path.parents[2] / "features" for build in found.builds}
    found.caches = sorted(path for path in roots if path.is_dir())
    found.models = models.judged(lineage.alias(subject))
    found.programs = [program for program in models.programs if program.how]
    found.unknown += models.unknown
    for run in found.runs:
        _look_into(run, found, named)
    return found


def _folders(under: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Absolute, each once, none inside another."""
    paths = sorted({path.resolve() for path in under})
    return [p for p in paths if not any(p != q and p.is_relative_to(q) for q in paths)]


def _json(path: pathlib.Path) -> dict:
    """What a JSON file holds; {} where it holds no object or cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


class Models:
    """Everything that holds weights, and what each checkpoint that is known of owes to."""

    def __init__(self):
        self.found: list[Model] = []
        self.programs: list[Model] = []  # others load them: no tombstone would stop them
        self.unknown: list[str] = []
        self._people: dict[str, set[str]] = {}  # of a digest, as far as a list is known
        self._parents: dict[str, set[str]] = {}

    def add_checkpoint(self, path: pathlib.Path) -> None:
        """A step's folder, or a copy of one or one set aside, which has another name."""
        run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
        try:
            digest, meta = checkpoint.read_meta(path)
        except checkpoint.Damaged as damage:
            self.unknown.append(f"{path} is damaged: {damage}")
            return
        if "lineage" not in meta:
            self.unknown.append(f"{path} does not say whose data it owes to: it is older than that")
        self._learn(lineage.ancestry(meta.get("lineage"), digest))
        step, own = (meta.get("data") or {}).get("step", 0), path.name.isdigit()
        model = Model(path, digest, digest, int(path.name) if own else step, run if own else None)
        self.found.append(model)

    def add_lists(self, folder: pathlib.Path, files: list[str]) -> None:
        for name in (name for name in files if name.endswith(".json")):
            try:
                self._learn(json.loads((folder / name).read_text()))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                self.unknown.append(f"{folder / name} cannot be read ({error})")

    def add_file(self, path: pathlib.Path) -> None:
        """A pack or an export; any other file of these kinds is passed over."""
        try:
            if path.suffix == ".npz":
                with zipfile.ZipFile(path) as archive:
                    if "__meta__.npy" not in archive.namelist():
                        return
                told = json.loads(str(weights.read_npz(path)["__meta__"]))
            else:
                with safetensors.safe_open(path, "numpy") as file:
                    told = json.loads((file.metadata() or {}).get("about", "{}"))
                if "lineage" in told:
                    told["lineage"] = json.loads(told["lineage"])
            digest = told.get("checkpoint_sha256", "")
            if not digest:
                return
            self._learn(lineage.ancestry(told.get("lineage"), digest))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.unknown.append(f"{path} cannot be read ({error})")
        except (UserError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
            self.unknown.append(f"{path} cannot be read ({error})")
        else:
            self.found.append(Model(path, digest, kinds.sha256(path)))

    def add_programs(self, folder: pathlib.Path, names: list[str]) -> None:
        """Programs of an export, by its about.json or else by the arrays that lie beside them."""
        told = _json(folder / "about.json")
        about, files = told.get("about"), told.get("files")
        about = about if isinstance(about, dict) else {}
        files = files if isinstance(files, dict) else {}
        beside = [m.digest for m in self.found if m.path.parent == folder and m.step is None]
        digest = about.get("checkpoint_sha256") or next(iter(beside), "")
        if not digest:
            self.unknown += [
                f"{folder / name} does not say which checkpoint it was made of" for name in names
            ]
            return
        try:
            self._learn(lineage.ancestry(json.loads(about.get("lineage", "{}")), digest))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.unknown.append(f"{folder / 'about.json'} cannot be read ({error})")
        listed = [n for n in files if not n.endswith(".safetensors") and (folder / n).is_file()]
        self.programs += [Model(folder / n, digest, "") for n in sorted({*names, *listed})]

    def _learn(self, entries: list[dict]) -> None:
        """What a list of ancestors, the first of which is the checkpoint itself, tells of each of them."""
        digests = [entry["checkpoint"] for entry in entries]
        for number, entry in enumerate(entries):
            if entry.get("consumed") is not None:
                self._people.setdefault(digests[number], set()).update(entry["consumed"])
            self._parents.setdefault(digests[number], set()).update(digests[number + 1 :])

    def judged(self, person: str) -> list[Model]:
        """All that was found, sorted by path, each with how it owes to an alias; programs as well."""
        direct = {digest for digest, people in self._people.items() if person in people}
        for model in self.found + self.programs:
            if model.digest in direct:
                model.how = "direct"
            elif self._inherits(model.digest, direct):
                model.how = "transfer"
        return sorted(self.found, key=lambda m: (str(m.path.parent), m.step or 0, m.path.name))

    def _inherits(self, digest: str, direct: set[str]) -> bool:
        """Whether there is a way from a checkpoint over its ancestors to one that owes directly."""
        reached, ahead = set(), [digest]
        while ahead:
            reached.add(one := ahead.pop())
            ahead += self._parents.get(one, set()) - reached
        return bool(reached & direct)


# ---- built data -----------------------------------------------------------------------------


def _shards(info: dict, path: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """{split: files with records, in order} of a build's dataset_info.json."""
    found = {}
    for split in info["splits"]:
        lengths = split["shardLengths"]
        names = [
            _shard(info, split["name"], number, len(lengths)) for number in range(len(lengths))
        ]
        found[split["name"]] = [path / name for name, size in zip(names, lengths) if int(size)]
    return found


def _shard(info: dict, split: str, number: int, count: int) -> str:
    return f"{info['name']}-{split}.array_record-{number:05d}-of-{count:05d}"


def _read(shard: pathlib.Path) -> list[bytes]:
    reader = ArrayRecordReader(str(shard))
    try:
        return reader.read_all()
    finally:
        reader.close()


class _Subjects:
    """Whose a serialized record is."""

    def __init__(self, path: pathlib.Path):
        self._features = tfds.builder_from_directory(str(path)).info.features
        self._skip = {
            name: tfds.decode.SkipDecoding()
            for name, feature in self._features.items()
            if isinstance(feature, tfds.features.Image)
        }

    def __contains__(self, name: str) -> bool:
        return name in self._features

    def is_of(self, record: bytes, subject: str) -> bool:
        if subject.encode() not in record:  # most are somebody else's: nothing is decoded
            return False
        read = self._features.deserialize_example_np(record, decoders=self._skip)
        return bytes(read["subject"]).decode() == subject


def _build(path: pathlib.Path, subject: str, found: Found) -> Build | None:
    """A version folder of tfds that holds records of the person."""
    info = _json(path / "dataset_info.json")
    if info.get("fileFormat") != "array_record":
        found.unknown.append(f"{path} is a data set of another kind ({info.get('fileFormat')})")
        return None
    try:
        subjects = _Subjects(path)
        if "subject" not in subjects:
            return None
        total, own, digest = 0, 0, hashlib.sha256()
        for shards in _shards(info, path).values():
            for record in (record for shard in shards for record in _read(shard)):
                total += 1
                if subjects.is_of(record, subject):
                    own += 1
                else:
                    digest.update(hashlib.sha256(record).digest())
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        found.unknown.append(f"{path} cannot be read ({error})")
        return None
    return Build(path, total, own, digest.hexdigest()) if own else None


def _rewrite(build: Build, subject: str) -> None:
    """A build without the person; a build of nobody else goes altogether."""
    path = build.path
    draft, ready, old = (path.with_name(path.name + end) for end in (DRAFT, READY, OLD))
    if build.own == build.total:
        _move(path, old)
        _delete(old)
        return
    info, subjects = _json(path / "dataset_info.json"), _Subjects(path)
    _delete(draft)
    draft.mkdir()
    digest, splits = hashlib.sha256(), []
    for split, shards in _shards(info, path).items():
        kept = [[r for r in _read(shard) if not subjects.is_of(r, subject)] for shard in shards]
        kept = [records for records in kept if records]
        for number, records in enumerate(kept):
            file = draft / _shard(info, split, number, len(kept))
            writer = ArrayRecordWriter(str(file), "group_size:1")  # as tfds writes them
            for record in records:
                writer.write(record)
            writer.close()
            for record in _read(file):
                digest.update(hashlib.sha256(record).digest())
        if kept:  # a split without people is left out, as builders do
            (entry,) = (one for one in info["splits"] if one["name"] == split)
            size = sum(len(record) for records in kept for record in records)
            splits.append(
                entry | {"shardLengths": [str(len(r)) for r in kept], "numBytes": str(size)}
            )
    if digest.hexdigest() != build.others:
        raise RuntimeError(f"{path}: records of others are not what they were; nothing was changed")
    _put(draft / "dataset_info.json", json.dumps(info | {"splits": splits}, indent=2).encode())
    shards = {shard for some in _shards(info, path).values() for shard in some}
    for file in path.iterdir():
        if file not in shards and file.name != "dataset_info.json" and file.is_file():
            shutil.copy2(file, draft / file.name)
    _move(draft, ready)
    _move(path, old)
    _move(ready, path)
    _delete(old)


def _mend(leftover: pathlib.Path) -> None:
    """Ends the rewriting of a build that was interrupted, forwards or backwards."""
    if leftover.name.endswith(READY):
        path = leftover.with_name(leftover.name.removesuffix(READY))
        if not path.exists():  # the old one has gone its way
            _move(leftover, path)
    _delete(leftover)


# ---- tables ---------------------------------------------------------------------------------


def _lines(path: pathlib.Path) -> list[tuple[str, list[str]]]:
    """[(row as it stands in the file, fields)] of a CSV file; [] where it is none."""
    try:
        text = path.read_bytes().decode("utf-8")
        heading = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=heading.count)
        lines = list(io.StringIO(text, newline=""))
        reader, rows, first = csv.reader(lines, delimiter=delimiter, strict=True), [], 0
        for fields in reader:
            rows.append(("".join(lines[first : reader.line_num]), [f.strip() for f in fields]))
            first = reader.line_num
        return rows
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _columns(rows: list[tuple[str, list[str]]]) -> list[str]:
    return [name.lstrip("\ufeff").strip().lower() for name in rows[0][1]] if rows else []


def _table(path: pathlib.Path, subject: str, files: Iterable[str] = ()) -> Table | None:
    """A table of ours, which no manifest is, with rows of the person or of one of `files`."""
    rows = _lines(path)
    columns, found = _columns(rows), []
    if "consent" in columns:
        return None
    for number, (_, fields) in enumerate(rows[1:], start=2):
        row = dict(zip(columns, fields))
        names = [row[column].replace("\\", "/") for column in votes.FILE if row.get(column)]
        told = row.get("subject", "")  # another study may call its photographs alike
        if told == subject or (not told and any(name in files for name in names)):
            found.append(number)
    return Table(path, found) if found else None


def _holds_votes(path: pathlib.Path) -> bool:
    """Whether a CSV file holds votes: a build would refuse those on photographs that are gone."""
    columns = set(_columns(_lines(path)))
    return set(votes.LONG) <= columns or set(votes.COUNTS) <= columns


def _on_photographs_of(path: pathlib.Path, manifest: Table, runs: list[Run]) -> bool:
    """Whether votes are on the photographs of a manifest: they lie beside it, or a run names both."""

    def names(config: dict, key: str, there: pathlib.Path) -> bool:
        return bool(config.get(key)) and pathlib.Path(config[key]).resolve() == there.resolve()

    return path.parent == manifest.path.parent or any(
        names(run.config, "votes", path)
        and (
            names(run.config, "manifest", manifest.path)
            or names(run.config, "data_dir", manifest.path.parent)
        )
        for run in runs
    )


def _manifest(path: pathlib.Path, subject: str, runs: list[Run]) -> Table | None:
    """A manifest with rows of the person, and which files these name that are there."""
    rows = _lines(path)
    columns = _columns(rows)
    bases, named = [path.parent], path.name == NAME or "consent" in columns
    for run in runs:  # a manifest may lie elsewhere than the photographs, and be called anything
        if pathlib.Path(run.config.get("manifest") or os.devnull).resolve() == path.resolve():
            named = True
            bases.append(pathlib.Path(run.config.get("data_dir") or path.parent).resolve())
    if not named or not {"file", "subject"} <= set(columns):
        return None
    table = Table(path, [])
    for number, (_, fields) in enumerate(rows[1:], start=2):
        row = dict(zip(columns, fields))
        if row.get("subject") != subject:
            continue
        table.rows.append(number)
        names = [row[column].replace("\\", "/") for column in _PERSON if row.get(column)]
        table.names += names
        for name in names:
            places = [(base / name).resolve() for base in bases]
            inside = [p for base, p in zip(bases, places) if p != base and p.is_relative_to(base)]
            table.files += [place for place in inside if place.exists()][:1]
    return table if table.rows else None


def _without(table: Table) -> None:
    """Writes a table without the person's rows; all others stay as they are."""
    rows = _lines(table.path)
    gone = set(table.rows)
    kept = [text for number, (text, _) in enumerate(rows, start=1) if number not in gone]
    _put(table.path, "".join(kept).encode("utf-8"))


# ---- workdirs -------------------------------------------------------------------------------


def _look_into(run: Run, found: Found, named: set[str]) -> None:
    """What a workdir holds of the person, or may hold."""
    folder, subject = run.path, found.subject
    whole = re.compile(rf"(?<![^\W_]){re.escape(subject)}(?![^\W_])")
    run.tables = [t for path in sorted(folder.glob("*.csv")) if (t := _table(path, subject))]
    run.concerned = bool(run.tables) or any(
        model.run == folder and model.how == "direct" for model in found.models
    )
    for build in found.builds:
        root, data_set = build.path.parents[2], build.path.parents[1].name
        places = {pathlib.Path(run.config.get("build_dir") or "data").resolve(), folder / "data"}
        names = f"{run.config.get('data', '')}+{run.config.get('normals', '')}".split("+")
        if root in places and data_set in {name.strip() for name in names}:
            run.concerned = True
    captions = _json(folder / "samples" / "captions.json")
    run.concerned |= any(whole.search(f"{name} {text}") for name, text in captions.items())
    pictures = sorted((folder / "samples").glob("*.png"))
    own = [p for p in pictures if whole.search(f"{p.stem} {captions.get(p.name, '')}")]
    if run.concerned:
        run.erase += sorted(folder.glob("events.out.*")) + sorted(folder.glob("report.html.tmp"))
        run.erase += sorted((folder / "samples").glob("*.tmp"))  # left by a run that was killed
        own += [path for path in pictures if path not in own and _shows_photographs(path)]
    run.erase += own
    review = folder / "copies_review.json"
    if any(flag.get("subject") == subject for flag in _json(review).get("flags") or ()):
        run.erase.append(review)
    # A reading knows its photograph by the name below the folder that was read.
    inputs = {fields[0] for _, fields in _lines(folder / "readings.csv")[1:]}
    of_person = {n for n in inputs if n and any(f"/{full}".endswith(f"/{n}") for full in named)}
    read = _table(folder / "readings.csv", subject, of_person)
    if read:
        rows = _lines(read.path)
        place = _columns(rows).index("folder")
        stems = [rows[number - 1][1][place] for number in read.rows]
        run.erase += [folder / "readings.html"] if (folder / "readings.html").exists() else []
        run.erase += [p for s in stems if s and (p := folder / "readings" / s).is_dir()]
        run.tables = [t for t in run.tables if t.path != read.path] + [read]
    # First what is made of the others: it must not be left when they are gone.
    if (run.erase or run.tables) and (folder / "report.html").exists():
        run.erase.insert(0, folder / "report.html")


def _shows_photographs(path: pathlib.Path) -> bool:
    """Whether a picture says of itself that photographs are in it (`Workdir.add_figure`)."""
    try:
        with Image.open(path) as image:
            return "training photographs" in str(image.info.get("content", ""))
    except (OSError, ValueError):
        return True  # half a picture is looked at by nobody


def _clean(run: Run, found: Found, day: str) -> None:
    """Erases what `_look_into` found and writes lineage.json and the report anew."""
    for path in run.erase:
        _delete(path)
    for table in run.tables:
        _without(table)
    own = [model for model in found.affected if model.run == run.path]
    if not (own or run.concerned or run.erase or run.tables):
        return
    captions = run.path / "samples" / "captions.json"
    if captions.exists():
        content = _json(captions)
        kept = {n: text for n, text in content.items() if (captions.parent / n).exists()}
        if kept != content:
            _put(captions, json.dumps(kept, indent=1, sort_keys=True).encode())
    file = run.path / "lineage.json"
    content = _json(file)
    people = {person for model in own for person in lineage.withdrawals(model.path, model.name)}
    told = {"people": len(people), "on": max(day, (content.get("withdrawn") or {}).get("on", ""))}
    if own and content.get("withdrawn", {}).get("people") != len(people):
        _delete(run.path / "report.html")
        _put(file, json.dumps(content | {"withdrawn": told}, indent=1, sort_keys=True).encode())
    if (run.path / "results.json").exists() and not (run.path / "report.html").exists():
        report.write(run.path)


# ---- changing -------------------------------------------------------------------------------


def _put(path: pathlib.Path, content: bytes) -> None:
    """Writes a file that is either the old one or the new one."""
    draft = path.with_name(path.name + ".tmp")
    with open(draft, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _move(path: pathlib.Path, to: pathlib.Path) -> None:
    os.rename(path, to)


def _delete(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def carry_out(found: Found, ledger: Ledger, photographs: str) -> None:
    """Does what the module says, in its order, from the second point on."""
    event = ledger.state(found.subject).newest
    entry = {
        "person": lineage.alias(found.subject),
        "on": event.time[:10],
        "ledger": ledger.signed_head()._asdict(),
    }
    for model in found.affected:
        _bury(model, entry)
    for run in found.runs:
        _clean(run, found, entry["on"])
    for cache in found.caches:
        _delete(cache)
    for table in found.tables:
        _without(table)
    for build in found.builds:
        _rewrite(build, found.subject)
    if photographs == "erase":
        for manifest in found.manifests:
            for file in manifest.files:
                _delete(file)
        for table in found.votes + found.manifests:
            _without(table)


def _bury(model: Model, entry: dict) -> None:
    """Puts the tombstone beside a checkpoint, pack or export, or adds the person to it."""
    file = lineage.tombstone(model.path)
    old = _json(file)
    others = old.get("withdrawn", []) if old.get("digest") == model.name else []
    if any(one["person"] == entry["person"] for one in others):
        return
    people = sorted([*others, entry | {"how": model.how}], key=lambda one: one["person"])
    content = {"digest": model.name, "withdrawn": people}
    _put(file, json.dumps(content, indent=1, sort_keys=True).encode())


# ---- the page -------------------------------------------------------------------------------


def page(found: Found, done: bool, photographs: str, hashes: dict[pathlib.Path, str]) -> str:
    """What was done (or would be), which models are concerned, and what is left to a person.

    Args:
      hashes: sha256 of each photograph, taken before it was erased.
    """
    verb = "" if done else "would be "
    lines = [
        f"Withdrawal of {found.subject}" + ("" if done else " (--dry_run: nothing was changed)")
    ]
    lines += ["", "Erased:" if done else "Would be erased:"]
    erased = [
        f"{build.path}: {build.own} of {build.total} records; the other {build.total - build.own} "
        f"{verb}byte for byte as before (sha256 over them {build.others[:16]})"
        for build in found.builds
    ]
    tables = found.tables + [table for run in found.runs for table in run.tables]
    tables += found.votes + found.manifests if photographs == "erase" else []
    erased += [f"{table.path}: {len(table.rows)} row(s)" for table in tables]
    erased += [f"{path}: features of people" for path in found.caches]
    erased += [f"{path}: left by an interruption" for path in found.leftovers]
    erased += [str(path) for run in found.runs for path in run.erase]
    if photographs == "erase":
        erased += [
            f"{path} (sha256 {hashes.get(path, 'a folder')[:16]})" for path in found.photographs
        ]
    lines += _listed(erased, most=10**6)
    if photographs == "keep" and found.photographs:
        lines += ["", "Kept, as asked for (--photographs=keep); no run may read them:"]
        lines += _listed([str(path) for path in found.photographs])
    lines += ["", f"Models that owe to this person; {verb}refused from now on:"]
    models = []
    for model in found.affected:
        what = f"step {model.step}" if model.step is not None else "file"
        models.append(f"{model.path} ({what}, {_HOW[model.how]})")
    lines += _listed(models, most=10**6)
    for run in found.runs:
        steps = [m.step for m in found.models if m.run == run.path and m.how]
        free = [m.step for m in found.models if m.run == run.path and not m.how]
        if steps:
            lines.append(f"  {run.path}: from step {min(steps)} on, of those that are kept.")
        if steps and free:
            lines.append(
                f"  {run.path / 'checkpoints' / str(max(free))} owes nothing to this person."
            )
    if found.programs:
        lines += [
            "",
            "The same weights in programs, which no command can refuse: delete them by hand:",
        ]
        listed = [f"{program.path} ({_HOW[program.how]})" for program in found.programs]
        lines += _listed(listed, most=10**6)
    redo = _redo(found)
    if redo:
        lines += ["", "Numbers to redo:", *_listed(redo)]
    if found.affected:
        lines += ["", "To train anew, in this order:", *[f"  {line}" for line in _retrain(found)]]
    lines += ["", "What no command can undo:"]
    lines += [
        "  Copies that were passed on, and packs, exports and pictures outside of the folders named here.",
        "  What a network has learned: the weights of the models above stay until you delete them,",
        "  and with them pictures and features that a state holds (pools of translated patches, queues).",
        "  Backups and earlier versions that your disk, file server or cloud keeps.",
    ]
    if found.unknown:
        lines += ["", "What could not be told:", *_listed(found.unknown)]
    return "\n".join(lines)


_HOW = {"direct": "learned from the person", "transfer": "started from one that did"}


def _listed(lines: list[str], most: int = SHOWN) -> list[str]:
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return [f"  {line}" for line in lines[:most]] + more if lines else ["  nothing"]


def _redo(found: Found) -> list[str]:
    """Results of runs that owe to the person or were judged on the person."""
    affected, lines = {model.run for model in found.affected}, []
    for run in found.runs:
        names = sorted(_json(run.path / "results.json"))
        if names and (run.path in affected or run.concerned):
            more = f" and {len(names) - 6} more" if len(names) > 6 else ""
            lines.append(f"{run.path / 'results.json'}: {', '.join(names[:6])}{more}")
    return lines


def _retrain(found: Found) -> list[str]:
    """Commands, parents before the runs that start from them; each into a folder beside the old one."""
    runs = {run.path: run for run in found.runs}
    again = lambda path: path.with_name(f"{path.stem}-retrained{path.suffix}")
    files = {model.path: model for model in found.affected if model.step is None}
    maker = {m.digest: m.run for m in found.models if m.run}
    todo: dict[pathlib.Path, tuple[pathlib.Path | None, list[str]]] = {}
    for path in sorted({m.run for m in found.affected if m.run in runs}):
        start = runs[path].config.get("init_from")
        source = pathlib.Path(start).resolve() if start else None
        parent = next((p for p in runs if source and p != path and source.is_relative_to(p)), None)
        lines, new = [], str(again(parent)) if parent else None
        if source in files:
            new, parent = str(again(source)), maker.get(files[source].digest, parent)
            of = again(parent) if parent else "ITS_RUN"
            lines.append(
                f"python -m jaxface.start {of} {new}"
                if source.suffix == ".npz"
                else f"export {of} (--mode=export) and put it at {new}"
            )
        todo[path] = parent, [*lines, lineage.retrain(runs[path].config["run"], again(path), new)]
    lines = []
    while todo:
        ready = [path for path, (parent, _) in todo.items() if parent not in todo]
        for path in ready or list(todo):
            lines += todo.pop(path)[1]
    return lines


def remains(
    subject: str, under: Iterable[pathlib.Path], ledger: pathlib.Path
) -> list[pathlib.Path]:
    """Text files under the folders that still name the person, for somebody to look at."""
    whole, found = re.compile(rf"(?<![^\W_]){re.escape(subject)}(?![^\W_])"), []
    for folder in _folders(under):
        for path in sorted(folder.rglob("*")):
            fits = path.suffix.lower() in _TEXTS and path.is_file() and not path.is_symlink()
            if not fits or path.resolve().is_relative_to(ledger.resolve()):
                continue
            if path.stat().st_size <= _MOST and whole.search(path.read_text(errors="replace")):
                found.append(path)
    return found


def withdraw(
    subject: str,
    ledger_folder: str | os.PathLike,
    under: Iterable[str | os.PathLike],
    photographs: str = "",
    dry_run: bool = False,
) -> str:
    """Withdraws a person, or finishes a withdrawal that was interrupted; returns the page.

    Args:
      photographs: "erase" or "keep" the photographs that manifests name; "" where there are none.

    Raises:
      UserError: no ledger, a person who is not on it, a folder that is none; or there are photographs and
        `photographs` is "": the message lists them, and nothing was changed.
    """
    ledger, paths = Ledger.open(ledger_folder), [pathlib.Path(path) for path in under]
    if ledger.state(subject) is None:
        raise UserError(
            f"subject {subject!r} is not on the ledger {ledger_folder}: look who is with python -m "
            f"jaxface.data.consent list {ledger_folder}"
        )
    found = survey(subject, paths, ledger.folder)
    if found.photographs and not photographs and not dry_run:
        raise UserError(
            f"there are {len(found.photographs)} photograph(s) or videos of {subject}; say with "
            "--photographs=erase or --photographs=keep what becomes of them. Nothing was changed.\n"
            + "\n".join(_listed([str(path) for path in found.photographs], most=10**6))
        )
    if not dry_run:
        ledger.withdraw(subject)
        if found.leftovers:
            for leftover in sorted(found.leftovers, key=lambda path: path.name.endswith(OLD)):
                _mend(leftover)
            found = dataclasses.replace(
                survey(subject, paths, ledger.folder), leftovers=found.leftovers
            )
    hashes = {path: kinds.sha256(path) for path in found.photographs if path.is_file()}
    if not dry_run:
        carry_out(found, ledger, photographs)
    text = page(found, not dry_run, photographs, hashes)
    still = [] if dry_run else remains(subject, paths, ledger.folder)
    if still:
        text += "\n\nStill named here; these files are not ours to change:\n"
        text += "\n".join(_listed([str(path) for path in still]))
    return text


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status: 0, or 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.withdraw",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("subject", metavar="SUBJECT", help="pseudonym of the person")
    parser.add_argument("--ledger", required=True, metavar="DIR", help="the consent ledger")
    parser.add_argument(
        "--under",
        required=True,
        action="append",
        metavar="FOLDER",
        help="where runs, built data and photographs are; the cache of phantoms, if that is meant",
    )
    parser.add_argument("--photographs", choices=("erase", "keep"), default="")
    parser.add_argument("--dry_run", action="store_true", help="say what would be done, and stop")
    options = parser.parse_args(arguments)
    try:
        print(
            withdraw(
                options.subject, options.ledger, options.under, options.photographs, options.dry_run
            )
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
