"""What classifiers of headshots share: photographs and their labels, protocols, jobs, batches, judgement.

The study (Aoto et al., Sci Rep 12:3730, 2022) photographed 277 people about nine times each. Photographs of
one person resemble each other: whoever is judged on was not learned from, unless a protocol says so in its
name. A run is a list of jobs, a model each: it learns from some photographs and answers for others.
"""

import bisect
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import scipy
import sklearn
import tensorflow_datasets as tfds
from PIL import Image

from jaxface.backbones import Backbone
from jaxface.data.base import HeadshotBuilder, split_of
from jaxface.data.foxglovetree import CLEAR, published_smile_selection
from jaxface.data.pipeline import RESIDENT_BYTES, open_source
from jaxface.errors import UserError, nearest
from jaxface.faces.mandible import mandible_vectors
from jaxface.metrics import (
    classification,
    conformal,
    headshot_baselines,
    learning_curve,
    plots,
)
from jaxface.ops.affine import vary_headshots
from jaxface.system import Figure, Reading, Result, RunConfig
from jaxface.terminal import Progress, say

PROTOCOLS = ("person_folds", "leave_one_out", "fixed", "image_folds", "published")
METHODS = {  # a name: the kind of model that learns by it
    "transfer_augmented": "head",  # on frozen features of augmented copies, as published
    "transfer": "head",  # on frozen features of the photographs themselves
    "finetune": "finetune",  # the backbone as well, from `freeze` on
    "scratch": "scratch",  # a small network from random weights
}
IMAGE_FOLDS = 10  # published
CHUNK = 64  # photographs a call of a network embeds


@dataclasses.dataclass
class HeadshotRunConfig(RunConfig):
    """What a run on headshots has besides its method."""

    # Data
    data: str = "phantom_headshots"
    task: str = "sex"  # or another word of the labels
    num_subjects: int = 0  # people of a phantom, 0: its own default
    side: int = 299  # px of a photograph (published)
    channels: int = 3  # 1: gray (published)
    manifest: str = ""  # of a user's folder; "": manifest.csv in it
    votes: str = ""  # a table of votes; "": labels stand in the manifest
    ledger: str = ""  # folder of a consent ledger, which then decides
    purpose: str = "research"  # what the people must have consented to
    max_bad_fraction: float = 0.001  # unreadable photographs of a user's folder that are left out
    # Who learns and who is judged
    protocol: str = "person_folds"  # of the headline: one of PROTOCOLS
    beside: str = "published,shuffled"  # also trained and reported; "": nothing
    folds: int = 5  # groups of people (ours)
    selection: str = (
        "decided"  # learned from and judged on; "clear": the published choice of smiles
    )
    validation: float = 0.15  # share of the people learned from who choose the operating point
    copies: int = 10  # augmented ones of a photograph, learned from in its place (published)
    methods: str = "transfer_augmented"  # of METHODS; the first is the headline
    budgets: str = "all"  # people learned from
    photographs: str = "all"  # of each of them
    seeds: int = 1  # draws of the people and of the first weights
    network_folds: int = 5  # in a study of budgets, folds that whole networks are trained for


def words(text: str) -> tuple[str, ...]:
    """The parts of a list of words in a config."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def is_study(config: HeadshotRunConfig) -> bool:
    """Whether a run asks how much data is enough."""
    return words(config.budgets) != ("all",) or words(config.photographs) != ("all",)


def check(config: HeadshotRunConfig) -> None:
    """Raises UserError for settings that no run on headshots can use, before anything is read."""
    choices = {
        "compile": ("jit", "pmap"),
        "accumulate": (1,),
        "protocol": PROTOCOLS,
        "selection": ("decided", "clear"),
    }
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise UserError(
                f"config.{name}={getattr(config, name)!r}: use one of {', '.join(map(repr, allowed))}."
            )
    for name, known in (("methods", METHODS), ("beside", ("published", "shuffled"))):
        for word in words(getattr(config, name)):
            if word not in known:
                raise UserError(f"config.{name} names {word!r}.{nearest(word, known)}")
    if not words(config.methods):
        raise UserError(f"config.methods is empty.{nearest('', METHODS)}")
    for name, least in (
        ("folds", 2),
        ("seeds", 1),
        ("copies", 1),
        ("network_folds", 0),
        ("batch", 2),
    ):
        if getattr(config, name) < least:
            raise UserError(f"config.{name}={getattr(config, name)}: use {least} or more.")
    if not 0 <= config.validation <= 0.5:
        raise UserError(f"config.validation={config.validation}: a share from 0 to 0.5.")
    for name in ("budgets", "photographs"):
        for word in words(getattr(config, name)):
            if word != "all" and not (word.isdigit() and int(word) > 0):
                raise UserError(
                    f"config.{name}={getattr(config, name)!r}: numbers and the word all, joined by commas."
                )
        if "all" not in words(getattr(config, name)) and name == "budgets":
            raise UserError(
                f"config.budgets={config.budgets!r}: add all, which the curve ends with."
            )


# ---- photographs ------------------------------------------------------------------------------


class Table(NamedTuple):
    """All that is known of N photographs but their pixels; sorted by person and number."""

    id: np.ndarray  # str [N]
    subject: np.ndarray  # str [N]
    photo: np.ndarray  # int [N]
    label: np.ndarray  # int [N]: 1, 0, or -1 undecided
    against: np.ndarray  # int [N]: votes, -1 where nobody was asked
    favor: np.ndarray  # int [N]: votes for label 1
    truth: np.ndarray  # int [N]: of phantoms, else -1
    ita: np.ndarray  # float [N]: skin tone in degrees, NaN where it is not known
    record: np.ndarray  # int [N]: number of the record it stands in


class Photos:
    """The photographs of a run; opened when first needed."""

    def __init__(self, config: HeadshotRunConfig):
        self.config = config

    @functools.cached_property
    def _source(self):
        skip = {"image": tfds.decode.SkipDecoding()}
        # Both splits: here protocols say who is who.
        return open_source(self.config, HeadshotBuilder, "train+heldout", skip)

    @functools.cached_property
    def table(self) -> Table:
        """Of all photographs.

        Raises:
          UserError: nobody has a label for the task, or all have the same.
        """
        task, source = self.config.task, self._source
        rows = [source[i] for i in range(len(source))]
        told = [json.loads(_text(row["labels"])) for row in rows]
        known = sorted({name for one in told for name in one})
        if task not in known:
            raise UserError(
                f"config.task={task!r}: no photograph of config.data={self.config.data!r} has such a "
                f"label.{nearest(task, known)}"
            )
        nothing = {"votes": None, "label": -1, "truth": -1}
        own = [one.get(task, nothing) for one in told]
        columns = {
            "id": [_text(row["id"]) for row in rows],
            "subject": [_text(row["subject"]) for row in rows],
            "photo": [int(row["photo"]) for row in rows],
            "label": [one["label"] for one in own],
            "against": [(one["votes"] or (-1, -1))[0] for one in own],
            "favor": [(one["votes"] or (-1, -1))[1] for one in own],
            "truth": [one["truth"] for one in own],
            "ita": [float(row["ita"]) for row in rows],
        }
        columns = {name: np.array(values) for name, values in columns.items()}
        order = np.lexsort([columns["photo"], columns["subject"]])
        return checked(
            Table(**{name: values[order] for name, values in columns.items()}, record=order), task
        )

    def image(self, index: int) -> np.ndarray:
        """uint8 [S, S, C] of a row of the table."""
        content = self._source[int(self.table.record[index])]["image"]
        mode = "L" if self.config.channels == 1 else "RGB"
        image = np.asarray(Image.open(io.BytesIO(content)).convert(mode))
        return image[..., None] if image.ndim == 2 else image

    def who(self, index: int) -> tuple[str, str]:
        """The pseudonym of a row of the table and the sha256 of its image's bytes."""
        content = self._source[int(self.table.record[index])]["image"]
        return str(self.table.subject[index]), hashlib.sha256(content).hexdigest()

    @functools.cached_property
    def images(self) -> np.ndarray:
        """All photographs, uint8 [N, S, S, C], in the order of the table."""
        return np.stack([self.image(i) for i in range(len(self.table.id))])

    @functools.cached_property
    def fit_in_memory(self) -> bool:
        return len(self.table.id) * self.image(0).nbytes <= RESIDENT_BYTES

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [n, S, S, C] of some rows of the table."""
        return self.images[rows] if self.fit_in_memory else np.stack([self.image(i) for i in rows])

    @functools.cached_property
    def plan(self) -> list["Job"]:
        """Every model of the run; tells once what was left out and whether a protocol leaks."""
        jobs = plan(self)
        left = int((self.table.label < 0).sum())
        if left:
            say(f"{left} photographs without a decided label ({self.config.task}) are left out.")
        if any(job.protocol == "image_folds" for job in jobs):
            say(LEAK)
        return jobs

    @functools.cache  # noqa: B019 (one table a run)
    def folds(self, protocol: str) -> list["Fold"]:
        return folds_of(self.table, protocol, self.config.folds, self.config.seed)

    @functools.cache  # noqa: B019 (one table a run)
    @functools.cache  # noqa: B019 (one table a run)
    def split(self, job: "Job") -> "Split":
        return split(self, job)

    def labels(self, job: "Job") -> np.ndarray:
        """int [N]: what a job learns and is judged by."""
        return self._dealt_anew if job.shuffled else self.table.label

    @functools.cached_property
    def _dealt_anew(self) -> np.ndarray:
        return dealt_anew(self.table, self.config.seed)

    def preview(self, number: int = 64) -> Figure:
        """Some photographs of each label, half and half."""
        table, half = self.table, number // 2
        some = lambda label: np.flatnonzero(table.label == label)
        evenly = lambda rows: rows[np.unique(np.linspace(0, len(rows) - 1, half).astype(int))]
        rows = np.concatenate([evenly(some(label)) for label in (1, 0)])
        counts = ", ".join(f"{(table.label == v).sum()} labelled {v}" for v in (1, 0))
        caption = (
            f"Headshots ({self.config.data}), {self.config.task}: above those labelled 1, below 0. "
            f"{len(np.unique(table.subject))} people, {counts}, {(table.label < 0).sum()} undecided."
        )
        return Figure(self.pixels(rows), 8, caption, photographs=True)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def checked(table: Table, task: str) -> Table:
    """The table; raises UserError unless both labels occur."""
    present = np.unique(table.label[table.label >= 0])
    if len(present) < 2:
        what = f"is labelled {present[0]}" if len(present) else "has no decided label"
        raise UserError(
            f"config.task={task!r}: every photograph {what}; a classifier needs examples of both labels."
        )
    return table


def _votes(table: Table) -> np.ndarray:
    """int [N, 2]: against, for; a label that nobody voted on counts as one vote for itself."""
    asked = (table.against >= 0)[:, None]
    votes = np.stack([table.against, table.favor], 1)
    return np.where(asked, votes, np.stack([table.label == 0, table.label == 1], 1))


def clear(table: Table) -> np.ndarray:
    """bool [N]: more than CLEAR of the votes are for the label, or none is (published, for smiles)."""
    against, favor = _votes(table).T
    return (table.label >= 0) & ((favor > CLEAR * (against + favor)) | (favor == 0))


def selected(table: Table, selection: str) -> np.ndarray:
    """bool [N]: the photographs that are learned from and that the headline is of."""
    return clear(table) if selection == "clear" else table.label >= 0


def of_person(table: Table) -> bool:
    """Whether the label is one of a person (sex), not of a photograph (smile)."""
    decided = table.label >= 0
    pairs = set(zip(table.subject[decided], table.label[decided]))
    return len(pairs) == len(np.unique(table.subject[decided]))


def dealt_anew(table: Table, seed: int) -> np.ndarray:
    """int [N]: labels of the control, where nothing can be learned; who is undecided stays so."""
    label, decided = table.label.copy(), table.label >= 0
    label[decided] = headshot_baselines.shuffled(label[decided], table.subject[decided], seed)
    return label


# ---- protocols --------------------------------------------------------------------------------

LEAK = (
    "The published protocol for photographs splits photographs, not people: one person is in training and "
    "test at once, and its accuracy is too high. It is reported beside the one by people, never instead."
)


class Fold(NamedTuple):
    """Rows that may be learned from, and rows that are judged on."""

    rest: np.ndarray  # int [n]
    test: np.ndarray  # int [m]


class Split(NamedTuple):
    """Rows of the table that a job learns from, chooses an operating point by, and answers for."""

    learn: np.ndarray  # int [n]
    validation: np.ndarray  # int [v]
    test: np.ndarray  # int [m]


def resolved(table: Table, protocol: str) -> str:
    """What the study did for such a label: each volunteer left out in turn, or folds of photographs."""
    if protocol != "published":
        return protocol
    return "leave_one_out" if of_person(table) else "image_folds"


def folds_of(table: Table, protocol: str, folds: int, seed: int) -> list[Fold]:
    """The parts of a protocol; photographs without a decided label are in none.

    Args:
      protocol: person_folds (people dealt into `folds`, labels in proportion), leave_one_out (a person
        each), fixed (one part: the people whom the data set holds out) or image_folds.

    Raises:
      UserError: fewer people than folds, or nobody to learn from or to judge.
    """
    decided = np.flatnonzero(table.label >= 0)
    subject = table.subject[decided]
    people = np.unique(subject)
    if protocol == "image_folds":
        return _image_folds(table, seed)
    if protocol == "fixed":
        out = np.array([split_of(name) == "heldout" for name in subject])
        if out.all() or not out.any():
            raise UserError(
                "config.protocol='fixed': the data set holds out nobody, or everybody, who has a label: "
                "use person_folds."
            )
        return [Fold(decided[~out], decided[out])]
    if protocol == "leave_one_out":
        if len(people) < 2:
            raise UserError(f"{len(people)} person has labels: leaving one out needs two at least.")
        return [Fold(decided[subject != one], decided[subject == one]) for one in people]
    if len(people) < folds:
        raise UserError(
            f"config.folds={folds}, but {len(people)} people have a decided label: use --config.folds="
            f"{max(2, len(people))} or fewer, or more people."
        )
    return [
        Fold(decided[rest], decided[test])
        for rest, test in _dealt(table.label[decided], subject, folds, seed)
    ]


def _dealt(label: np.ndarray, subject: np.ndarray, folds: int, seed: int):
    """People dealt into folds with labels in proportion: (rest, test) of each."""
    splitter = sklearn.model_selection.StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a label that is rarer than folds: told by `split`
            return list(splitter.split(label, label, subject))
    except ValueError:
        raise UserError(
            f"config.folds={folds}: fewer photographs of each label than folds: use fewer folds."
        ) from None


def _image_folds(table: Table, seed: int) -> list[Fold]:
    """The published folds: clear labels, the first negatives of the file, balanced, split by photograph."""
    one, zero = published_smile_selection(_votes(table))
    count = min(len(one), len(zero))
    if count < 2:
        raise UserError(
            f"the published folds of photographs need two clear ones of each label; there are {count}."
        )
    rng = np.random.default_rng([seed, 5])
    one, zero = rng.permutation(one[:count]), rng.permutation(zero[:count])
    folds = min(IMAGE_FOLDS, count)
    size = count // folds
    parts = []
    for k in range(folds):
        out = np.zeros(count, bool)
        out[k * size : (k + 1) * size] = True
        join = lambda keep: np.sort(np.concatenate([one[keep], zero[keep]]))
        parts.append(Fold(join(~out), join(out)))
    return parts


# ---- jobs -------------------------------------------------------------------------------------


class Job(NamedTuple):
    """One model to be trained."""

    method: str
    protocol: str
    fold: int  # -1: learns from everybody, to be used
    people: str = "all"  # learned from: a number, or "all"
    photographs: str = "all"  # of each of them
    seed: int = 0
    shuffled: bool = False  # labels of others: what chance gives
    validates: bool = True  # whether people are set aside for the operating point

    @property
    def kind(self) -> str:
        return METHODS[self.method]

    @property
    def name(self) -> str:
        """What it learns from, not by which method: what is compared sees the same photographs."""
        return "/".join(map(str, self[1:7]))


def plan(photos: Photos) -> list[Job]:
    """Every model of a run, models of one kind together.

    A study of budgets has each number of people, photographs a person and seed in each fold; whole
    networks only with the first seed, the largest number of photographs and in `network_folds` folds.
    Any other run has the headline's folds, those `beside` it, and a model that learns from everybody.
    """
    table, config = photos.table, photos.config
    methods, protocol = words(config.methods), resolved(table, config.protocol)
    folds, kinds = range(len(photos.folds(protocol))), list(METHODS.values())
    if is_study(config):
        budgets, each = words(config.budgets), words(config.photographs)
        most = max(each, key=lambda k: np.inf if k == "all" else int(k))
        every = itertools.product(methods, folds, budgets, each, range(config.seeds))
        jobs = [Job(m, protocol, f, n, k, seed, False, False) for m, f, n, k, seed in every]
        few = lambda job: (
            job.seed == 0 and job.photographs == most and job.fold < config.network_folds
        )
        jobs = [job for job in jobs if job.kind == "head" or few(job)]
        jobs = [job for job in jobs if _affordable(photos, job)]
        return sorted(jobs, key=lambda job: kinds.index(job.kind))
    jobs = [Job(method, protocol, fold) for method in methods for fold in folds]
    main = methods[0]
    if "shuffled" in words(config.beside):
        jobs += [Job(main, protocol, fold, shuffled=True, validates=False) for fold in folds]
    published = resolved(table, "published")
    if "published" in words(config.beside) and published != protocol:
        every = range(len(photos.folds(published)))
        jobs += [Job(main, published, fold, validates=False) for fold in every]
    jobs.append(Job(main, protocol, -1))
    return sorted(jobs, key=lambda job: kinds.index(job.kind))


def _affordable(photos: Photos, job: Job) -> bool:
    """Whether a fold has more people than a job asks for; what is all of them is not trained twice."""
    if job.people == "all":
        return True
    rest = photos.folds(job.protocol)[job.fold].rest
    rows = rest[selected(photos.table, photos.config.selection)[rest]]
    return int(job.people) < len(np.unique(photos.table.subject[rows]))


def split(photos: Photos, job: Job) -> Split:
    """Who a job learns from, who validates it and whom it answers for.

    Raises:
      UserError: it would learn one label only, or somebody is in two of the three.
    """
    table, config, label = photos.table, photos.config, photos.labels(job)
    if job.fold < 0:
        rest, test = np.flatnonzero(label >= 0), np.zeros(0, int)
    else:
        rest, test = photos.folds(job.protocol)[job.fold]
    validation = rest[:0]
    people = np.unique(table.subject[rest])
    if job.validates and config.validation > 0 and len(people) >= 4:
        commoner = np.unique(label[rest], return_counts=True)[1].max()
        parts = min(len(people), commoner, max(2, round(1 / config.validation)))
        keep, out = _dealt(label[rest], table.subject[rest], parts, config.seed)[0]
        rest, validation = rest[keep], rest[out]
    learn = rest[selected(table, config.selection)[rest]]
    learn = subset(table, learn, job.people, job.photographs, [config.seed, job.fold + 1, job.seed])
    if len(np.unique(label[learn])) < 2:
        raise UserError(
            f"config.task={config.task!r}: in fold {job.fold} of {job.protocol} all that is learned from "
            "has one label: use fewer folds, or more people of the rarer label."
        )
    found = Split(learn, validation, test)
    if job.protocol != "image_folds":
        apart(table, found)
    return found


def apart(table: Table, found: Split) -> None:
    """Raises UserError if a person is in two of the parts."""
    names = [set(table.subject[rows]) for rows in found]
    both = (names[0] & names[1]) | (names[0] & names[2]) | (names[1] & names[2])
    if both:
        raise UserError(
            f"{len(both)} people would be learned from and judged on at once, first {min(both)!r}: each "
            "photograph of a person must carry the same pseudonym."
        )


def subset(table: Table, rows: np.ndarray, people: str, photographs: str, seed: list) -> np.ndarray:
    """Some people's photographs, nested: fewer people and fewer photographs are part of more.

    Labels take turns, so that few people are not all of one: people are drawn in an order that
    alternates their more frequent label, and the first photograph of a person is of the label whose turn
    it is, if there is one.
    """
    if (people, photographs) == ("all", "all"):
        return rows
    rng = np.random.default_rng(seed)
    names, index = np.unique(table.subject[rows], return_inverse=True)
    mean = np.bincount(index, table.label[rows]) / np.bincount(index)
    order = rng.permutation(len(names))
    sides = [[n for n in order if mean[n] >= 0.5], [n for n in order if mean[n] < 0.5]]
    turns = [side[k] for k in range(len(names)) for side in sides if k < len(side)]
    chosen = []
    for turn, person in enumerate(turns[: None if people == "all" else int(people)]):
        own = np.random.default_rng([*seed, int(person)]).permutation(rows[index == person])
        first = int(np.argmax(table.label[own] == 1 - turn % 2))
        own = np.concatenate([own[first : first + 1], np.delete(own, first)])
        chosen.append(own[: None if photographs == "all" else int(photographs)])
    return np.sort(np.concatenate(chosen))


# ---- features of photographs -------------------------------------------------------------------


def draws(ids: np.ndarray) -> np.ndarray:
    """uint32 [N]: what a photograph's random changes are drawn by, of its name alone."""
    digest = lambda name: hashlib.sha256(name.encode()).digest()[:4]
    return np.frombuffer(b"".join(digest(str(name)) for name in ids), np.uint32)


def features_of(photos: Photos, network: Backbone, copies: int) -> np.ndarray:
    """Features of all photographs, then of so many augmented copies of each: float16 [(1 + copies) N, F].

    A copy depends on the photograph's name, its number and the seed alone. Features are a person's data:
    they are kept in memory and made anew by each start.
    """
    number, seed = len(photos.table.id), photos.config.seed
    drawn = draws(photos.table.id)

    @jax.jit
    def embed(variables, images, draw, copy):
        images = images.astype(jnp.float32) / 127.5 - 1

        def varied(images):
            key = jax.random.fold_in(jax.random.key(seed), copy)
            return vary_headshots(images, jax.vmap(lambda d: jax.random.fold_in(key, d))(draw))

        seen = jax.lax.cond(copy > 0, varied, lambda x: x, images)
        return network(variables, seen)[0].astype(jnp.float16)

    parts = []
    with Progress("features", (1 + copies) * number, unit="photograph") as progress:
        for copy in range(1 + copies):
            for first in range(0, number, CHUNK):
                # One size: compiled once, and the last photographs are as if others stood beside them.
                rows = np.arange(first, first + CHUNK) % number
                found = embed(network.variables, photos.pixels(rows), drawn[rows], np.int32(copy))
                parts.append(np.asarray(found)[: min(CHUNK, number - first)])
                progress.update(copy * number + min(first + CHUNK, number))
    return np.concatenate(parts)


# ---- batches ----------------------------------------------------------------------------------


class Group(NamedTuple):
    """Jobs of one kind that are trained at once."""

    kind: str
    jobs: tuple[int, ...]  # numbers; the last one again where a group is not full
    first: int  # step of the run with which it begins
    steps: int  # it takes; in the last one its models answer


def groups_of(jobs: list[Job], steps: dict[str, int], together: dict[str, int]) -> list[Group]:
    """All jobs in groups, one after the other.

    Args:
      steps: {kind: of training}.
      together: {kind: models trained at once}.
    """
    groups, first = [], 0
    for kind, own in itertools.groupby(range(len(jobs)), lambda n: jobs[n].kind):
        numbers, size = list(own), together[kind]
        for at in range(0, len(numbers), size):
            some = numbers[at : at + size]
            some += some[-1:] * (size - len(some))
            groups.append(Group(kind, tuple(some), first, steps[kind] + 1))
            first += steps[kind] + 1
    return groups


class JobBatches:
    """Batches for models that are trained group by group, from step `start` on.

    What a batch holds depends on its step alone. Rows [b] have a column for each model of the group, G:

      index int32 [b, G]    rows of the table; for kind "head" rows of `features_of`
      target, weight float32 [b, G]    0..1 what the photograph is called, and what it counts
      draw uint32 [b, G]    what random changes of this photograph are drawn by
      local int32 [b, G]    step of the model, 0 for its first
      keep bool, job int32, seed uint32 [b, G]    of the model
      <kind> int8 [b]       says by its name which kind of model this is

    The last batch of a group asks about its photographs of validation and test: it has `answers` rows and
    no "target". Streamed photographs of networks stand in "image" uint8 [b, G, S, S, C].
    """

    def __init__(self, photos: Photos, groups: list[Group], start: int, index: int, count: int):
        config = photos.config
        if config.batch % count:
            raise UserError(
                f"config.batch={config.batch} does not split over {count} processes: use a multiple of "
                f"{count}."
            )
        self.step, self._groups = start, groups
        self._photos, self._index, self._count = photos, index, count
        self._begins = [group.first for group in groups]
        self._facts = functools.cache(self._facts_of)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def get_state(self) -> dict[str, int]:
        """The position to resume from: the number of global batches already given out."""
        return {"step": self.step}

    def __next__(self) -> dict[str, np.ndarray]:
        config, photos = self._photos.config, self._photos
        group = self._groups[bisect.bisect_right(self._begins, self.step) - 1]
        local = self.step - group.first
        jobs = [photos.plan[n] for n in group.jobs]
        asks = local == group.steps - 1
        rows = answers(photos) if asks else config.batch
        columns = [self._asked(job) if asks else self._learned(job, local) for job in jobs]
        batch = {name: np.stack([column[name] for column in columns], 1) for name in columns[0]}
        of_job = {
            "local": np.array([local] * len(jobs), np.int32),
            "keep": np.array([job.fold < 0 for job in jobs]),
            "job": np.array(group.jobs, np.int32),
            "seed": np.array([job.seed + 1000 * (job.fold + 1) for job in jobs], np.uint32),
        }
        batch |= {name: np.broadcast_to(value, (rows, len(jobs))) for name, value in of_job.items()}
        batch |= {group.kind: np.zeros(rows, np.int8)}
        own = slice(self._index * rows // self._count, (self._index + 1) * rows // self._count)
        batch = {name: value[own] for name, value in batch.items()}
        self.step += 1
        if group.kind != "head" and not photos.fit_in_memory:
            index = batch["index"]
            pixels = photos.pixels(index.ravel())
            batch["image"] = pixels.reshape(*index.shape, *pixels.shape[1:])
        return batch

    def _facts_of(self, job: Job):
        """(rows learned from, their targets, their weights, seed) of a job."""
        table, config = self._photos.table, self._photos.config
        learn = self._photos.split(job).learn
        label = self._photos.labels(job)[learn]
        target = label.astype(np.float64)
        if config.soft_targets and not job.shuffled:
            votes = table.against[learn] + table.favor[learn]
            target = np.where(votes > 0, table.favor[learn] / np.maximum(votes, 1), target)
        target = target * (1 - config.label_smoothing) + config.label_smoothing / 2
        share = np.array([np.mean(label == value) for value in (0, 1)])
        weight = 0.5 / share[label] if config.class_weights else np.ones(len(label))
        digest = hashlib.sha256(f"{config.seed}/{job.name}".encode()).digest()
        seed = list(np.frombuffer(digest[:16], np.uint32))
        return learn, target.astype(np.float32), weight.astype(np.float32), seed

    def _learned(self, job: Job, local: int) -> dict[str, np.ndarray]:
        """A batch of photographs that a job learns from: all of them by turns, newly shuffled."""
        learn, target, weight, seed = self._facts(job)
        config, number = self._photos.config, len(learn)
        batch = config.batch
        turn, place = np.divmod(np.arange(local * batch, (local + 1) * batch), number)
        chosen = np.empty(batch, int)
        for one in np.unique(turn):
            order = np.random.default_rng([*seed, 0, one]).permutation(number)
            chosen[turn == one] = order[place[turn == one]]
        rng = np.random.default_rng([*seed, 1, local])
        copy = (
            rng.integers(1, config.copies + 1, batch) if job.method == "transfer_augmented" else 0
        )
        return {
            "index": (learn[chosen] + len(self._photos.table.id) * copy).astype(np.int32),
            "target": target[chosen],
            "weight": weight[chosen],
            "draw": rng.integers(0, 1 << 32, batch, dtype=np.uint32),
        }

    def _asked(self, job: Job) -> dict[str, np.ndarray]:
        found = self._photos.split(job)
        index = np.zeros(answers(self._photos), np.int32)
        own = np.concatenate([found.validation, found.test])
        index[: len(own)] = own
        return {"index": index}


def answers(photos: Photos) -> int:
    """Rows that the answers of a job take: the most of any job, rounded up to whole batches."""
    most = max(len(found.validation) + len(found.test) for found in map(photos.split, photos.plan))
    return -(-max(most, 1) // photos.config.batch) * photos.config.batch


def consumed(photos: Photos, groups: list[Group]) -> Callable:
    """`System.consumed`: the photographs of all jobs that have begun, learned from, validated by or answered
    for (their answers are in the state); and from the first step on the labels of everybody, by whom people
    are dealt into folds.
    """
    table = photos.table
    everybody = frozenset((str(s), "") for s in np.unique(table.subject[table.label >= 0]))
    who = functools.cache(photos.who)

    @functools.cache
    def of(number: int) -> frozenset[tuple[str, str]]:
        parts = [rows for n in groups[number].jobs for rows in photos.split(photos.plan[n])]
        return frozenset(who(int(row)) for row in np.unique(np.concatenate(parts)))

    def at(step: int) -> frozenset[tuple[str, str]]:
        begun = (of(n) for n, group in enumerate(groups) if group.first < step)
        return (everybody if step else frozenset()).union(*begun)

    return at


# ---- judgement --------------------------------------------------------------------------------

MANDIBLE, SMALL = (
    299,
    32,
)  # px of the photographs whose jaw is outlined, and of those that are learned whole
BASELINE_FOLDS = 20
WRONG = 24  # photographs told wrong that are shown
PUBLISHED_POSITIVE = {"sex": 0}  # the study's precision, recall and F are of men


class Told(NamedTuple):
    """What models that had not seen them said of photographs."""

    rows: np.ndarray  # int [M]: of the table
    label: np.ndarray  # int [M]: 0 or 1, by which they are judged
    probability: np.ndarray  # [M]: of label 1, by the temperature of each model's validation people
    shifted: np.ndarray  # [M]: the same, with each model's operating point moved to 1/2
    temperature: float  # mean over models; NaN without validation
    threshold: float  # mean over models of the probability; NaN without validation

    def keep(self, of: np.ndarray) -> "Told":
        """Some of the photographs, bool [N] of the table."""
        some = of[self.rows]
        return self._replace(**{n: getattr(self, n)[some] for n in self._fields[:4]})


def told(photos: Photos, answers_: np.ndarray, wanted: Callable[[Job], bool]) -> Told | None:
    """Of those jobs that are finished, None if none is.

    Args:
      answers_: logits [jobs, answers] of the state.
      wanted: which jobs.
    """
    config, parts, points = photos.config, [], []
    for number, job in enumerate(photos.plan):
        if not wanted(job):
            continue
        found, label = photos.split(job), photos.labels(job)
        count = len(found.validation)
        logit = answers_[number, : count + len(found.test)].astype(np.float64)
        if not np.isfinite(logit).all():
            continue
        heat, point = calibrated(label[found.validation], logit[:count], config.sensitivity)
        of_test = logit[count:] / heat
        low = scipy.special.logit(np.clip(point, 1e-9, 1 - 1e-9))
        points.append((heat, point))
        chances = [scipy.special.expit(x) for x in (of_test, of_test - low)]
        parts.append((found.test, label[found.test], *chances))
    if not parts:
        return None
    known = [pair for pair in points if np.isfinite(pair[0]) and config.validation > 0]
    mean = np.mean(known, 0) if known else np.full(2, np.nan)
    return Told(*map(np.concatenate, zip(*parts)), *map(float, mean))


def calibrated(label: np.ndarray, logit: np.ndarray, sensitivity: float) -> tuple[float, float]:
    """(temperature, operating point as a probability) by validation; (1, 1/2) without both labels."""
    if len(np.unique(label)) < 2:
        return 1.0, 0.5
    heat = classification.temperature(label, logit)
    chance = scipy.special.expit(logit / heat)
    return heat, classification.operating_point(label, chance, sensitivity)


def judge(photos: Photos, answers_: np.ndarray) -> dict:
    """Everything an evaluation reports of classifiers, from logits [jobs, answers] of the state."""
    if is_study(photos.config):
        return study(photos, answers_)
    table, config = photos.table, photos.config
    methods, protocol = words(config.methods), resolved(table, config.protocol)
    by_method = {
        method: told(
            photos,
            answers_,
            lambda job, m=method: (
                (job.method, job.protocol) == (m, protocol) and job.fold >= 0 and not job.shuffled
            ),
        )
        for method in methods
    }
    whole = by_method.pop(methods[0])
    if whole is None:
        return {}
    chosen = selected(table, config.selection)
    own = whole.keep(chosen)
    people = table.subject[own.rows]
    of = PROTOCOL_WORDS[protocol]
    words_ = f"{config.task}, {of}" + ("; clear votes alone" if config.selection == "clear" else "")
    positive = PUBLISHED_POSITIVE.get(config.task, 1)
    results = classification.scores(
        own.label, own.probability, people, positive=positive, protocol=words_
    )
    if config.selection == "clear":
        results["accuracy_all_decided"] = _accuracy(
            table, whole, f"{config.task}, {of}; all decided"
        )
    truth = own.keep(table.truth >= 0)
    if len(truth.rows):
        exact = truth._replace(label=table.truth[truth.rows])
        results["accuracy_truth"] = _accuracy(
            table, exact, f"{words_}; by the phantom's truth, not votes"
        )
    if np.isfinite(own.temperature):
        results |= classification.at_operating_point(
            own.label, own.shifted, people, 0.5, config.sensitivity, f"{words_}; a point a fold"
        )
        results["threshold_validation"] = Result(
            own.threshold, protocol="probability, mean over the folds' operating points"
        )
        results["temperature"] = Result(own.temperature, protocol="mean over the folds")
    results |= _beside(photos, answers_, protocol, own, chosen, results["accuracy"])
    for method, other in by_method.items():
        other = other and other.keep(chosen)
        if other is None or not np.array_equal(other.rows, own.rows):
            continue
        scores = classification.scores(other.label, other.probability, people, protocol=words_)
        results |= {f"{n}_{method}": scores[n] for n in ("accuracy", "auroc")}
        results[f"accuracy_gain_{method}"] = classification.difference(
            own.label, own.probability, other.probability, people, protocol=words_
        )
    results |= _baselines(photos, protocol, own, f"{words_}; without a network")
    results |= classification.strata(
        own.label,
        own.probability,
        people,
        classification.tones(table.ita[own.rows], people),
        name="accuracy_skin",
        protocol=words_,
    )
    results |= classification.abstention(own.label, own.probability, people, protocol=words_)
    results["reliability"] = classification.reliability(own.label, own.probability, people)
    others = {n: t.keep(chosen) for n, t in by_method.items() if t is not None}
    curves = {methods[0]: own.probability} | {
        n: t.probability for n, t in others.items() if np.array_equal(t.rows, own.rows)
    }
    results["roc"] = classification.roc(
        own.label, curves, caption=f"Sensitivity over false alarms: {words_}."
    )
    return results | _wrong(photos, own)


PROTOCOL_WORDS = {
    "person_folds": "people dealt into folds, none learned from and judged on at once",
    "leave_one_out": "each person left out in turn",
    "fixed": "the people whom the data set holds out",
    "image_folds": "folds of photographs, NOT of people: one person is learned from and judged on at once",
}


def _accuracy(table: Table, found: Told, protocol: str) -> Result:
    scores = classification.scores(
        found.label, found.probability, table.subject[found.rows], protocol=protocol
    )
    return scores["accuracy"]


def _beside(photos, answers_, protocol: str, own: Told, chosen, accuracy: Result) -> dict:
    """The published protocol and labels of others."""
    table, config, results = photos.table, photos.config, {}
    published = resolved(table, "published")
    if published == protocol:
        results["accuracy_published_protocol"] = accuracy
    else:
        found = told(photos, answers_, lambda job: job.protocol == published and job.fold >= 0)
        if found is not None:
            results["accuracy_published_protocol"] = _accuracy(
                table, found, f"{config.task}, as published: {PROTOCOL_WORDS[published]}"
            )
    found = told(photos, answers_, lambda job: job.shuffled)
    if found is not None:
        results["accuracy_shuffled_labels"] = _accuracy(
            table,
            found.keep(chosen),
            f"control: labels of {config.task} dealt out anew, so that nothing can be learned; "
            f"{PROTOCOL_WORDS[protocol]}",
        )
    return results


def _baselines(photos: Photos, protocol: str, own: Told, words_: str) -> dict[str, Result]:
    """What needs no network, by the same folds: the usual label, the jaw's outline, small pictures.

    Where a protocol has more folds than BASELINE_FOLDS, people are dealt into folds instead.
    """
    table, config = photos.table, photos.config
    if len(photos.folds(protocol)) > BASELINE_FOLDS:
        protocol, words_ = "person_folds", f"{words_}, {PROTOCOL_WORDS['person_folds']}"
    rows = np.flatnonzero(selected(table, config.selection))
    fold = np.full(len(table.id), -1)
    for number, part in enumerate(photos.folds(protocol)):
        fold[part.test] = number
    gray = [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) if x.shape[-1] == 3 else x[..., 0] for x in
            photos.pixels(rows)]  # fmt: skip
    sized = lambda side: np.stack(
        [cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA) for x in gray]
    )
    jaw, pixels = mandible_vectors(sized(MANDIBLE)), sized(SMALL).reshape(len(rows), -1) / 255
    results = {}
    for name, features, kind in (
        ("majority", jaw, "majority"),
        ("mandible_gradient_boosting", jaw, "gradient_boosting"),
        ("mandible_random_forest", jaw, "random_forest"),
        ("pixels", pixels, "logistic_regression"),
    ):
        chance = headshot_baselines.out_of_fold(
            kind, features, table.label[rows], fold[rows], config.seed
        )
        judged = np.isfinite(chance)
        found = own._replace(
            rows=rows[judged], label=table.label[rows[judged]], probability=chance[judged]
        )
        results[f"accuracy_baseline_{name}"] = _accuracy(table, found, words_)
    return results


def _wrong(photos: Photos, own: Told) -> dict[str, Figure]:
    """The photographs told wrong most surely."""
    surest = np.abs(own.probability - 0.5)
    wrong = np.flatnonzero((own.probability >= 0.5) != own.label)
    some = wrong[np.argsort(-surest[wrong], kind="stable")[:WRONG]]
    if not len(some):
        return {}
    caption = (
        f"{len(wrong)} of {len(own.rows)} photographs were told wrong ({photos.config.task}); those that the "
        "network was surest of: "
        + ", ".join(f"{own.probability[i]:.2f} for {own.label[i]}" for i in some)
        + "."
    )
    return {"told_wrong": Figure(photos.pixels(own.rows[some]), 8, caption, photographs=True)}


# ---- a user's photograph ----------------------------------------------------------------------

ANSWERS = {"sex": ("male", "female"), "smile": ("no smile", "smile")}  # of labels 0 and 1


class Known(NamedTuple):
    """What a model that is used knows of those it learned from."""

    features: np.ndarray  # [n, F] of the photographs learned from
    subject: np.ndarray  # person [n] of each
    temperature: float
    threshold: float  # of the probability, chosen on people of validation


def read_photograph(
    task: str, image: np.ndarray, features: np.ndarray, logit: float, known: Known
) -> Reading:
    """What a model says of one photograph.

    Args:
      image: uint8 [S, S, 3], the face as the network sees it.
      features: [F] of it.
    """
    names = ANSWERS.get(task, (f"{task} 0", f"{task} 1"))
    chance = float(scipy.special.expit(logit / known.temperature))
    found = conformal.unlike(known.features, features[None], known.subject)
    score, notes = float(found.score[0]), []
    numbers: dict[str, float | str] = {
        f"probability_of_{names[1].replace(' ', '_')}": round(chance, 4),
        "answer": names[int(chance >= 0.5)],
        "answer_at_operating_point": names[int(chance >= known.threshold)],
    }
    if not score <= found.threshold:
        notes.append(
            "No answer is given: this photograph is unlike all those that the network learned from. Is it "
            "one upright face from the front, in a similar crop and light?"
        )
        numbers = dict.fromkeys(numbers, "withheld")
    numbers["unlike_those_learned_from"] = round(score, 2)
    return Reading({"face": image}, numbers, tuple(notes))


# ---- how much data is enough ------------------------------------------------------------------


class Runs(NamedTuple):
    """What K runs told of P people, as `learning_curve.fit` takes it; the folds of a seed are one run."""

    people: np.ndarray  # int [K]: learned from, mean over folds
    wrong: np.ndarray  # [K, P]: photographs told wrong
    photographs: np.ndarray  # [K, P]: photographs told


def runs_of(photos: Photos, answers_: np.ndarray, method: str, each: str) -> Runs | None:
    """Of one curve, fewest people first; None where no job is finished.

    Args:
      each: photographs of each person learned from.
    """
    table, config, rows = photos.table, photos.config, []
    chosen, names = selected(table, config.selection), np.unique(table.subject)
    of = lambda people, seed: lambda job: job[3:6] == (people, each, seed) and job.method == method
    for people, seed in itertools.product(words(config.budgets), range(config.seeds)):
        found = told(photos, answers_, of(people, seed))
        if found is None:
            continue
        own = found.keep(chosen)
        learned = [photos.split(job).learn for job in photos.plan if of(people, seed)(job)]
        count = np.mean([len(np.unique(table.subject[rows])) for rows in learned])
        wrong = (own.probability >= 0.5) != own.label
        place = np.searchsorted(names, table.subject[own.rows])
        total = lambda values, at=place: np.bincount(at, values, len(names))
        rows.append((round(count), total(wrong), total(np.ones(len(place)))))
    rows.sort(key=lambda row: row[0])
    return Runs(*map(np.array, zip(*rows))) if rows else None


def study(photos: Photos, answers_: np.ndarray) -> dict:
    """Error over people learned from, by every method, and how many a wanted error takes.

    The first method with the most photographs a person is the headline; the others with as many, and the
    first with fewer, end in a word of their own.
    """
    config, results = photos.config, {}
    methods, each = words(config.methods), words(config.photographs)
    most = max(each, key=lambda k: np.inf if k == "all" else int(k))
    curves = {(method, most): f"_{method}" for method in methods}
    curves |= {(methods[0], k): f"_{k}_photographs" for k in each if k != most}
    curves[methods[0], most] = ""
    points, fits, needed = {}, {}, {}
    for (method, k), suffix in curves.items():
        runs = runs_of(photos, answers_, method, k)
        if runs is None:
            continue
        name = f"{method}, {k} each".replace("_", " ")
        points[name] = learning_curve.errors(*runs)
        results |= {
            f"error_{n}_people{suffix}": one
            for n, one in zip(*points[name])
            if method == methods[0]
        }
        try:
            fitted = learning_curve.fit(*runs)
        except UserError as error:  # of too few sizes no law can be told
            say(f"{name}: {error}")
            continue
        results |= {
            name: _two_sided(one)
            for name, one in learning_curve.results(fitted, config.target, suffix).items()
        }
        fits[name] = functools.partial(learning_curve.error_at, fitted.curve)
        needed[name] = learning_curve.people_needed(fitted, config.target)
    if points:
        caption = (
            f"How the error falls with the people learned from ({config.task}) and the photographs of each; "
            "all are judged on people whom they have not seen. Lines: err(n) = a + b / n^c. Marks on the "
            "line of the target: people that it takes, with 95 % intervals."
        )
        if set(methods) - {m for m in methods if METHODS[m] == "head"}:
            caption += (
                f" Whole networks were trained for {config.network_folds} of {config.folds} folds, one seed "
                "and the most photographs alone."
            )
        results["error_by_people"] = plots.error_by_people(
            points, fits, target=config.target, needed=needed, caption=caption
        )
    return results


def _two_sided(result: Result) -> Result:
    """An interval without an end in words: tables show both ends or none."""
    if (result.low is None) == (result.high is None):
        return result
    end = f"at least {result.low:.3g}" if result.high is None else f"at most {result.high:.3g}"
    return result._replace(low=None, high=None, protocol=f"{result.protocol}; {end}")
