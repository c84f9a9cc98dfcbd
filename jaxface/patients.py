"""What both edema systems do with video frames: who is a target, which frames are drawn, what is kept.

Patients are dealt into folds by a hash of their pseudonym. Pre-training learns from all folds but one;
the patients of that one are the targets, for each of whom a small model is trained on some days and
judged on others. Frames of one video are near copies of each other: days are split, never frames
(Akamatsu et al., 10.1109/JBHI.2022.3227517, arXiv 2212.07582; how its authors split is not known).
"""

import dataclasses
import functools
import hashlib
import io
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxface.data.base import FrameBuilder
from jaxface.data.pipeline import RESIDENT_BYTES, Drawn, Examples, open_source
from jaxface.data.video import Selection
from jaxface.errors import UserError
from jaxface.metrics import ablation, conformal, edema, edema_baselines, plots
from jaxface.models.resnet import BLOCKS, ResNet
from jaxface.system import Figure, Reading, Record, RunConfig

LEAST_DAYS = 2  # of a target: one to learn from, one to be judged on
ALPHA = 0.1  # share of days that may lie outside their intervals
# What is promised to a new patient is kept too well by one day in n + 1, n the patients it is learned
# from: from here on by 3 in 100 at most. Of fewer, errors are pooled, which promises nothing but comes near.
PROMISED = 33
CHARTS = 3  # patients whose days are drawn
CHUNK = 64  # frames a call of a network embeds
HEADLINE = {"video_accuracy": "Video accuracy", "mae_kg": "Mean error of the weight"}
PUBLISHED = {"video_accuracy": 0.85, "mae_kg": 0.5}
METHODS = {"transfer": "pre-trained, then the whole network", "scratch": "from random weights"}
SIMPLE = {  # words, and how names of their results end
    "linear on frozen features": "_frozen",
    "always the more frequent class": "_baseline_majority",
    "the patient's mean weight": "_baseline_training_mean",
    "mean of the true class (sees the label)": "_baseline_class_mean_uses_label",
    "colors of the picture": "_baseline_color_histogram",
    "what surrounds the face": "_baseline_background",
}


@dataclasses.dataclass
class FrameRunConfig(RunConfig):
    """What a run on video frames has besides its method. MC = MoCo's setting (arXiv 1911.05722)."""

    # Data
    data: str = "phantom_edema"
    num_subjects: int = 0  # patients of a phantom, 0: its own default
    side: int = 224  # px of a frame (ours; the paper's crop is not known)
    frames: int = 100  # of a video (the paper's)
    manifest: str = ""  # of a user's folder; "": manifest.csv in it
    purpose: str = "research"  # what the patients in the manifest must have consented to
    ledger: str = ""  # folder of a consent ledger, which then decides; "": `consent` in data_dir
    max_bad_fraction: float = 0.001  # unreadable videos of a user's folder that are left out
    folds: int = 5  # groups of patients (ours)
    fold: int = 0  # the one whose patients pre-training never sees
    # Network: a residual network without its classifier (the paper's backbone is not known)
    depth: int = 18
    width: int = 64  # channels of its first stage
    precision: str = "float32"  # "bfloat16": its convolutions


def check(config: FrameRunConfig) -> None:
    """Raises UserError for settings that no run on frames can use, before anything is read."""
    choices = {"compile": ("jit", "pmap"), "precision": ("float32", "bfloat16")}
    choices |= {"depth": tuple(BLOCKS), "accumulate": (1,)}
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise UserError(
                f"config.{name}={getattr(config, name)!r}: use one of {', '.join(map(repr, allowed))}."
            )
    if config.folds < 2:
        raise UserError(
            f"config.folds={config.folds}: use 2 or more; one fold is kept for targets."
        )
    if not 0 <= config.fold < config.folds:
        raise UserError(f"config.fold={config.fold}: use 0 to {config.folds - 1}.")
    for name in ("width", "frames", "batch"):
        if getattr(config, name) < 1:
            raise UserError(f"config.{name}={getattr(config, name)}: use 1 or more.")


def encoder(config: FrameRunConfig) -> ResNet:
    """[N, S, S, 3] as `resnet.normalize` gives it -> features [N, `features(config)`]."""
    dtype = jnp.bfloat16 if config.precision == "bfloat16" else None
    return ResNet(config.depth, None, dtype, config.width)


def features(config: FrameRunConfig) -> int:
    """How many features the encoder gives."""
    return (32 if config.depth >= 50 else 8) * config.width


def fold_of(subject: str, folds: int) -> int:
    """0 to folds - 1, from the name alone: adding or withdrawing a patient moves nobody else."""
    digest = hashlib.sha256(f"fold of {subject}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * folds >> 64


class Table(NamedTuple):
    """All that is known of N frames but their pixels; sorted by patient, day, session, frame."""

    id: np.ndarray  # str [N]
    subject: np.ndarray  # str [N]
    day: np.ndarray  # str [N]
    session: np.ndarray  # str [N]: pre, post
    video: np.ndarray  # str [N]
    weight_kg: np.ndarray  # float64 [N]
    fluid_kg: np.ndarray  # float64 [N], NaN where it is not known
    record: np.ndarray  # int [N]: number of the record it stands in


def within(
    weight_kg: np.ndarray, subject: np.ndarray, video: np.ndarray
) -> tuple[np.ndarray, float]:
    """Weights about the mean of a patient's videos, in units of one spread that all share.

    One common spread, not one a patient: a distance stays the same kg whoever it is (spec: ours).

    Returns:
      ([N] of (w - mean of the patient) / s, s in kg: pooled standard deviation within patients).
    """
    _, first = np.unique(video, return_index=True)
    names, of = np.unique(subject, return_inverse=True)
    of_video, w = of[first], weight_kg[first]
    count = np.bincount(of_video, minlength=len(names))
    mean = np.bincount(of_video, w, len(names)) / count
    left = len(first) - len(names)
    squares = np.sum((w - mean[of_video]) ** 2)
    spread = float(np.sqrt(squares / left)) if left > 0 and squares > 0 else 1.0
    return (weight_kg - mean[of]) / spread, spread


class Frames:
    """The frames of a run; opened when first needed."""

    def __init__(self, config: FrameRunConfig):
        self.config = config

    @functools.cached_property
    def _source(self):
        skip = {"image": tfds.decode.SkipDecoding()}
        # Both splits: here folds say who is who.
        return open_source(self.config, FrameBuilder, "train+heldout", skip)

    @functools.cached_property
    def table(self) -> Table:
        """Of all patients."""
        rows = [self._source[i] for i in range(len(self._source))]
        text = lambda name: np.array([row[name].decode() for row in rows])
        number = lambda name: np.array([row[name] for row in rows], np.float64)
        order = np.argsort(text("id"), kind="stable")
        words = {name: text(name)[order] for name in ("id", "subject", "day", "session", "video")}
        numbers = {name: number(name)[order] for name in ("weight_kg", "fluid_kg")}
        return Table(**words, **numbers, record=order)

    @functools.cached_property
    def is_target(self) -> np.ndarray:
        """bool [N]: whether a frame is of a patient whom pre-training never sees."""
        config = self.config
        known = {s: fold_of(s, config.folds) == config.fold for s in np.unique(self.table.subject)}
        return np.array([known[s] for s in self.table.subject])

    def image(self, index: int) -> np.ndarray:
        """uint8 [S, S, 3] of a row of the table."""
        content = self._source[int(self.table.record[index])]["image"]
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    def who(self, index: int) -> list[tuple[str, str]]:
        """The pseudonym of a row of the table and the sha256 of its image's bytes, as `Drawn` takes them."""
        content = self._source[int(self.table.record[index])]["image"]
        return [(str(self.table.subject[index]), hashlib.sha256(content).hexdigest())]

    def weighed(self) -> frozenset[tuple[str, str]]:
        """Those whose weights make the spread that weights are told in: all whom pre-training sees."""
        return frozenset((str(s), "") for s in np.unique(self.table.subject[self.learned_from]))

    @functools.cached_property
    def images(self) -> np.ndarray:
        """All frames, uint8 [N, S, S, 3], in the order of the table."""
        return np.stack([self.image(i) for i in range(len(self.table.id))])

    @functools.cached_property
    def fit_in_memory(self) -> bool:
        return len(self.table.id) * self.image(0).nbytes <= RESIDENT_BYTES

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [n, S, S, 3] of some rows of the table."""
        return self.images[rows] if self.fit_in_memory else np.stack([self.image(i) for i in rows])

    def resident(self) -> dict[str, np.ndarray]:
        """What stays on the device: every frame, if all of them fit."""
        return {"image": self.images} if self.fit_in_memory else {}

    @functools.cached_property
    def learned_from(self) -> np.ndarray:
        """int [n]: rows of the patients that pre-training sees.

        Raises:
          UserError: nobody is left for pre-training.
        """
        rows = np.flatnonzero(~self.is_target)
        if not len(rows):
            raise UserError(
                f"every patient of config.data={self.config.data!r} is in config.fold="
                f"{self.config.fold}: nobody is left to learn from. Use another config.fold or more patients."
            )
        return rows

    @functools.cached_property
    def targets(self) -> dict[str, list[str]]:
        """{patient: days} of those to be judged, in order of name and of time.

        Raises:
          UserError: none of the fold's patients has two days with both videos.
        """
        table, found = self.table, {}
        for subject in np.unique(table.subject[self.is_target]):
            of = table.subject == subject
            sessions = {
                d: set(table.session[of & (table.day == d)]) for d in np.unique(table.day[of])
            }
            days = [day for day, seen in sessions.items() if seen == {"pre", "post"}]
            if len(days) >= LEAST_DAYS:
                found[str(subject)] = [str(day) for day in days]
        if not found:
            raise UserError(
                f"no patient in config.fold={self.config.fold} of {self.config.folds} has "
                f"{LEAST_DAYS} days with a video before and one after dialysis: nobody can be judged. "
                "Use another config.fold, or more days a patient."
            )
        return found

    def preview(self, rows: np.ndarray, caption: str, videos: int = 12) -> Figure:
        """One frame of each of some videos, before and after the same dialysis side by side."""
        table = self.table
        _, first = np.unique(table.video[rows], return_index=True)
        order = sorted(
            rows[first], key=lambda i: (table.subject[i], table.day[i], table.session[i])
        )
        pairs = [
            (post, pre)
            for post, pre in zip(order, order[1:])
            if (table.subject[pre], table.day[pre]) == (table.subject[post], table.day[post])
        ]
        step = max(1, len(pairs) // (videos // 2))
        shown = [row for post, pre in pairs[::step][: videos // 2] for row in (pre, post)]
        return Figure(self.pixels(np.array(shown)), 6, caption, photographs=True)


class PairBatches(Examples):
    """Endless batches of two frames a row: same patient, same label, another video where there is one.

    Patients take equal turns. Yields "example" [b] and "index" int32 [b, 2] (query, key), rows of the
    table; streamed, also "image" uint8 [b, 2, S, S, 3].
    """

    def __init__(self, frames: Frames, rows: np.ndarray, seed: int, start, index, count):
        table = frames.table
        self._frames, self._stream = frames, not frames.fit_in_memory
        self._seed = seed
        videos: dict[str, dict[tuple[str, str], np.ndarray]] = {}
        for video in np.unique(table.video[rows]):
            own = rows[table.video[rows] == video]
            subject, session = str(table.subject[own[0]]), str(table.session[own[0]])
            videos.setdefault(subject, {})[session, str(video)] = own
        self._videos = [videos[subject] for subject in sorted(videos)]
        config = frames.config
        super().__init__(config.batch, start, index, count, threads=4 if self._stream else 0)

    def _records(self, number: int) -> np.ndarray:
        turn, place = divmod(number, len(self._videos))
        order = np.random.default_rng([self._seed, 0, turn]).permutation(len(self._videos))
        own = self._videos[order[place]]
        rng = np.random.default_rng([self._seed, 1, number])
        names = sorted(own)
        session, video = names[rng.integers(len(names))]
        others = [name for name in names if name[0] == session and name[1] != video]
        other = others[rng.integers(len(others))] if others else (session, video)
        return np.int32([rng.choice(own[session, video]), rng.choice(own[other])])

    def _example(self, number: int) -> dict[str, np.ndarray]:
        pair = self._records(number)
        more = {"image": self._frames.pixels(pair)} if self._stream else {}
        return {"index": pair} | more


def pair_batches(frames: Frames, start: int, index: int = 0, count: int = 1) -> Iterator[dict]:
    """Batches for pre-training, with what is known of each frame [b, 2]: label, weight, subject, video."""
    rows, table = frames.learned_from, frames.table
    weight, _ = within(table.weight_kg[rows], table.subject[rows], table.video[rows])
    facts = {"weight": np.zeros(len(table.id), np.float32)}
    facts["weight"][rows] = weight
    facts["label"] = (table.session == "pre").astype(np.int32)
    for name in ("subject", "video"):
        facts[name] = np.unique(getattr(table, name), return_inverse=True)[1].astype(np.int32)
    for batch in PairBatches(frames, rows, frames.config.seed, start, index, count):
        yield batch | {name: values[batch["index"]] for name, values in facts.items()}


def pairs_consumed(frames: Frames) -> Callable:
    """`System.consumed` of pre-training: frames that were drawn, and from the first step on the weights
    of all whom it sees. The queue of keys holds drawn frames alone; targets steer nothing.
    """
    rows = frames.learned_from
    drawn = PairBatches(frames, rows, frames.config.seed, 0, 0, 1).drawn
    of_frames = Drawn(drawn, frames.who, len(rows))
    return lambda step: of_frames(step) | (frames.weighed() if step else set())


def embedded(network: Callable, images: np.ndarray) -> np.ndarray:
    """A network's result [n, F] for frames, uint8 [n, S, S, 3], in calls of one size.

    Args:
      network: float32 [CHUNK, S, S, 3] in [-1, 1] -> [CHUNK, F].
    """
    results = []
    for first in range(0, len(images), CHUNK):
        some = images[first : first + CHUNK]
        padded = np.concatenate([some, np.repeat(some[:1], CHUNK - len(some), 0)])
        results.append(np.asarray(network(padded.astype(np.float32) / 127.5 - 1))[: len(some)])
    return np.concatenate(results)


def neighbors(features: np.ndarray, video: np.ndarray, number: int, columns: int = 8) -> np.ndarray:
    """Rows [n, columns]: some frames by equal steps, each with its nearest of other videos (cosine)."""
    unit = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-12)
    chosen = np.unique(np.linspace(0, len(unit) - 1, min(number, len(unit))).astype(int))
    near = unit[chosen] @ unit.T
    near[video[chosen][:, None] == video[None]] = -np.inf
    order = np.argsort(-near, axis=1, kind="stable")[:, : columns - 1]
    return np.concatenate([chosen[:, None], order], 1)


# ---- one small model a patient ----------------------------------------------------------------


class Job(NamedTuple):
    """One small model to be trained."""

    method: int  # which of the networks it starts from
    subject: str
    days: tuple[str, ...]  # it learns from
    test: str  # the day it is judged on; "": none, the model is kept to be used
    budget: str  # what `days` are called: a number, or "all"


def plan(
    targets: dict[str, list[str]], methods: int, budgets: tuple[str, ...], seed: int
) -> list[Job]:
    """Every model that a comparison needs: each day of each patient left out in turn.

    Args:
      targets: {patient: days}.
      methods: how many networks models start from; all learn from the same days.
      budgets: how many days a model learns from, "all" for all but the one left out. A number that is
        all of them for a patient is not trained twice: it is left out of his plan.

    Returns:
      Jobs; at the end one a patient that learns from all days and is kept.
    """
    jobs = []
    for number, (subject, days) in enumerate(targets.items()):
        for test in days:
            others = [day for day in days if day != test]
            rng = np.random.default_rng([seed, number, days.index(test)])
            order = rng.permutation(len(others))
            for budget in budgets:
                if budget != "all" and int(budget) >= len(others):
                    continue
                count = len(others) if budget == "all" else int(budget)
                learned = tuple(others[i] for i in sorted(order[:count]))
                jobs += [Job(m, subject, learned, test, budget) for m in range(methods)]
    return jobs + [Job(0, subject, tuple(days), "", "all") for subject, days in targets.items()]


def rows_of(table: Table, subject: str, days: tuple[str, ...]) -> np.ndarray:
    """int [n]: frames of a patient's days, in order of time."""
    return np.flatnonzero((table.subject == subject) & np.isin(table.day, days))


def weights(table: Table, rows: np.ndarray) -> np.ndarray:
    """kg [videos]: of the videos that some frames are of."""
    _, first = np.unique(table.video[rows], return_index=True)
    return table.weight_kg[rows[first]]


def mean_weight(table: Table, rows: np.ndarray) -> float:
    """kg: mean over the videos that some frames are of."""
    return float(weights(table, rows).mean())


class JobBatches(Examples):
    """Batches for models that are trained group by group, from step `start` on.

    A group of `together` models takes `head_steps` batches for its heads, `steps` for the whole network
    (they hold "whole"), and one whose frames are those of the days left out (it holds no "label").
    Rows [b] have `together` columns G:

      index int32 [b, G]   rows of the table; streamed, also image uint8 [b, G, S, S, 3]
      job, method int32 [b, G], keep int32 [b, G]: the place to keep the finished model in, -1: none
      begin bool [b, G], label float32 [b, G] (1: edema), target float32 [b, G] (spreads about the mean of
      the days learned), draw uint32 [b, G]: what random changes of this frame are drawn by
      constant float32 [b, G, 2]: what a model's heads begin with beside the slopes of its method
    """

    def __init__(
        self,
        frames: Frames,
        jobs: list[Job],
        config,
        spread: float,
        start: int,
        index: int,
        count: int,
        constants: np.ndarray | None = None,  # [jobs, 2], by default 0
    ):
        self._frames, self._jobs, self._config, self._spread = frames, jobs, config, spread
        self._constants = np.zeros([len(jobs), 2]) if constants is None else constants
        self._stream = not frames.fit_in_memory
        kept = [job.subject for job in jobs if not job.test]
        self._keep = [kept.index(job.subject) if not job.test else -1 for job in jobs]
        self._of = functools.cache(self._rows_of)
        self._all_of = functools.cache(lambda n: {int(i) for own in self._of(n)[:2] for i in own})
        self._rows, self._index = config.batch // count, index
        super().__init__(config.batch, start, index, count, threads=4 if self._stream else 0)

    def _rows_of(self, number: int):
        """(rows before, rows after dialysis, kg about which weights are told) of a job."""
        job, table = self._jobs[number], self._frames.table
        rows = rows_of(table, job.subject, job.days)
        pre = table.session[rows] == "pre"
        return rows[pre], rows[~pre], mean_weight(table, rows)

    def _place(self, step: int) -> tuple[list[int], int]:
        """Numbers of the jobs of a step's group, and how many steps the group has taken."""
        config = self._config
        group, local = divmod(step, config.num_steps)
        first = group * config.together
        last = len(self._jobs) - 1
        return [min(first + i, last) for i in range(config.together)], local

    def _row(self, number: int, local: int, row: int) -> tuple[int, np.ndarray]:
        """(row of the table, random uint32 [4]) that a job's step draws for a row of the batch."""
        job, (before, after, _) = self._jobs[number], self._of(number)
        # By the days alone and not by the method: what is compared has learned from the same frames.
        name = f"{job.subject}/{job.test}/{job.budget}/{local}/{row}"
        draw = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], np.uint32)
        own = before if row % 2 == 0 else after
        return own[int(draw[0]) * len(own) >> 32], draw

    def drawn(self, step: int, seen: Collection[int] = frozenset()) -> set[int]:
        """Rows of the table that a step draws, and in a group's last one those that it asks about.

        Jobs whose frames are all in `seen` are passed over: one patient's frames are drawn many times.
        """
        jobs, local = self._place(step)
        if local == self._config.num_steps - 1:
            return set(self._asked_rows(jobs).ravel().tolist())
        fresh = [n for n in jobs if not self._all_of(n) <= seen]
        rows = range(self._config.batch)
        return {int(self._row(n, local, row)[0]) for n in fresh for row in rows}

    def _example(self, number: int) -> dict[str, np.ndarray]:
        config, table = self._config, self._frames.table
        step, row = divmod(number, config.batch)
        jobs, local = self._place(step)
        columns = []
        for n in jobs:
            job, mean = self._jobs[n], self._of(n)[2]
            i, draw = self._row(n, local, row)
            columns.append(
                {
                    "index": np.int32(i),
                    "label": np.float32(table.session[i] == "pre"),
                    "target": np.float32((table.weight_kg[i] - mean) / self._spread),
                    "draw": draw[1] & np.uint32(0x7FFFFFFF),
                    "begin": np.bool_(local == 0),
                    "constant": self._constants[n].astype(np.float32),
                    "job": np.int32(n),
                    "method": np.int32(job.method),
                    "keep": np.int32(self._keep[n]),
                }
            )
        rows = {name: np.stack([column[name] for column in columns]) for name in columns[0]}
        return rows | ({"image": self._frames.pixels(rows["index"])} if self._stream else {})

    def __next__(self) -> dict[str, np.ndarray]:
        jobs, local = self._place(self.step)
        batch = super().__next__()
        if local == self._config.num_steps - 1:
            return self._asked(batch, jobs)
        return batch | ({"whole": batch["begin"]} if local >= self._config.head_steps else {})

    def _asked_rows(self, jobs: list[int]) -> np.ndarray:
        """Frames of the days left out, int32 [answers, jobs]; row 0 of the table where there are fewer."""
        asked = np.zeros([answers(self._config), len(jobs)], np.int32)
        for column, n in enumerate(jobs):
            own = rows_of(self._frames.table, self._jobs[n].subject, (self._jobs[n].test,))
            asked[: len(own), column] = own
        return asked

    def _asked(self, batch: dict, jobs: list[int]) -> dict[str, np.ndarray]:
        """The batch that asks finished models about their days left out; this process's rows of it."""
        rows = answers(self._config) * self._rows // self._config.batch
        index = self._asked_rows(jobs)[self._index * rows : (self._index + 1) * rows]
        kept = {n: np.repeat(batch[n][:1], rows, 0) for n in ("job", "method", "keep", "example")}
        more = {}
        if self._stream:
            side = self._frames.config.side
            more["image"] = self._frames.pixels(index.ravel()).reshape(*index.shape, side, side, 3)
        return kept | {"index": index} | more


def jobs_consumed(frames: Frames, jobs: list[Job], config) -> Callable:
    """`System.consumed` of models of single patients: the frames they have learned from and were asked
    about (their answers are in the state), and from the first step on the weights of all whom pre-training
    sees, which make the unit that weights are told in.
    """
    batches = JobBatches(frames, jobs, config, 1.0, 0, 0, 1)
    of_frames = Drawn(
        lambda step: batches.drawn(step, of_frames.seen), frames.who, len(frames.table.id)
    )
    return lambda step: of_frames(step) | (frames.weighed() if step else set())


def constants(
    frames: Frames, jobs: list[Job], features: np.ndarray, rule: np.ndarray
) -> np.ndarray:
    """[jobs, 2]: what makes a common rule [F, 2] (logit, spreads) 0 in the middle of the days learned from.

    Half before and half after dialysis; models of other methods than the first begin without a rule: 0.
    `features` [n, F] are those of `target_rows`.
    """
    of_row = np.zeros([len(frames.table.id), len(rule)])
    of_row[target_rows(frames)] = features
    found = np.zeros([len(jobs), 2])
    for number, job in enumerate(jobs):
        if job.method == 0:
            own = rows_of(frames.table, job.subject, job.days)
            pre = frames.table.session[own] == "pre"
            middle = (of_row[own[pre]].mean(0) + of_row[own[~pre]].mean(0)) / 2
            found[number] = -middle @ rule
    return found


def answers(config) -> int:
    """Rows that a day left out takes: both videos' frames, rounded up to whole batches."""
    return -(-2 * config.frames // config.batch) * config.batch


# ---- judgement --------------------------------------------------------------------------------


class Told(NamedTuple):
    """What the models of one method, each with a day left out, said of that day's frames."""

    rows: np.ndarray  # int [M]: of the table
    logit: np.ndarray  # [M]
    kg: np.ndarray  # [M]
    scale: np.ndarray  # kg [M]: spread of the weights that each model learned from


def told(
    table: Table, jobs: list[Job], given: np.ndarray, spread: float, method: int, budget: str
) -> Told | None:
    """Of those models that are finished; None if none is.

    Args:
      given: [jobs, answers, 2] of the state: logit, and weight in spreads about the mean learned.
      spread: kg.
    """
    parts = []
    for number, job in enumerate(jobs):
        if not job.test or (job.method, job.budget) != (method, budget):
            continue
        rows = rows_of(table, job.subject, (job.test,))
        own = given[number, : len(rows)].astype(np.float64)
        if not np.isfinite(own).all():
            continue
        learned = rows_of(table, job.subject, job.days)
        kg = mean_weight(table, learned) + spread * own[:, 1]
        scale = conformal.spread(weights(table, learned), spread)
        parts.append((rows, own[:, 0], kg, np.full(len(rows), scale)))
    return Told(*map(np.concatenate, zip(*parts))) if parts else None


def as_frames(table: Table, rows: np.ndarray, logit: np.ndarray, kg: np.ndarray) -> edema.Frames:
    """What was said of rows of the table, as it is judged."""
    own = [getattr(table, n)[rows] for n in ("subject", "day", "session", "video", "weight_kg")]
    return edema.Frames(*own, logit, kg)


def target_rows(frames: Frames) -> np.ndarray:
    """int [n]: every frame of the days that targets are judged on."""
    parts = [rows_of(frames.table, s, tuple(days)) for s, days in frames.targets.items()]
    return np.concatenate(parts)


def leave_one_day_out(frames: Frames) -> Iterator[tuple[np.ndarray, slice, np.ndarray, np.ndarray]]:
    """(rows of a patient's days, their place in `target_rows`, which are learned from, which left out)."""
    first = 0
    for subject, days in frames.targets.items():
        rows = rows_of(frames.table, subject, tuple(days))
        for test in days:
            out = frames.table.day[rows] == test
            yield rows, slice(first, first + len(rows)), ~out, out
        first += len(rows)


def on_features(frames: Frames, features: np.ndarray) -> edema.Frames:
    """A linear model on features [n, F] of `target_rows`, each day of each target left out in turn."""
    table, parts = frames.table, []
    for own, at, train, test in leave_one_day_out(frames):
        label = table.session[own] == "pre"
        logit, kg = edema_baselines.fit_predict(
            features[at], label, table.weight_kg[own], train, test
        )
        parts.append((own[test], logit, kg))
    return as_frames(table, *map(np.concatenate, zip(*parts)))


def baselines(frames: Frames) -> dict[str, edema.Frames]:
    """{name: what a baseline says of every day left out}"""
    table, pixels = frames.table, frames.pixels(target_rows(frames))
    features = {
        "color_histogram": edema_baselines.features_histogram(pixels),
        "background": edema_baselines.features_background(pixels),
    }
    parts: dict[str, list] = {}
    for own, at, train, test in leave_one_day_out(frames):
        found = edema_baselines.of_fold(
            {name: x[at] for name, x in features.items()},
            table.session[own] == "pre",
            table.weight_kg[own],
            train,
            test,
        )
        for name, (logit, kg) in found.items():
            parts.setdefault(name, []).append((own[test], logit, kg))
    return {n: as_frames(table, *map(np.concatenate, zip(*p))) for n, p in parts.items()}


def judge(
    frames: Frames,
    by_method: dict[str, dict[str, Told]],
    features: np.ndarray | None = None,
) -> dict:
    """Everything an evaluation reports of models of single patients.

    Args:
      by_method: {method: {budget: Told}}, the first method is the headline.
      features: [n, F] of the pre-trained network for `target_rows`; None: there is none.
    """
    table, ours = frames.table, next(iter(by_method.values()), {}).get("all")
    if ours is None:
        return {}
    said = lambda t: as_frames(table, t.rows, t.logit, t.kg)
    whole, results, rivals = said(ours), {}, {}
    curves: dict[str, dict[str, dict]] = {name: {} for name in HEADLINE}
    for number, (name, budgets) in enumerate(by_method.items()):
        end = f"_{name}" if number else ""
        for budget, t in budgets.items():
            found = edema.scores(said(t))
            for one in HEADLINE:
                curves[one].setdefault(name, {})[budget] = found[one]
                if budget != "all":
                    results[f"{one}_days_{budget}{end}"] = found[one]
            if budget == "all":
                results |= {k + end: v for k, v in found.items()}
                if number:
                    rivals[name] = said(t)
    if features is not None:
        rivals["frozen"] = on_features(frames, features)
        results |= edema.scores(rivals["frozen"], "_frozen")
        for one in HEADLINE:
            curves[one]["linear on frozen features"] = {"all": results[f"{one}_frozen"]}
    simple = baselines(frames)
    for name, frames_ in simple.items():
        found = edema.scores(frames_)
        results |= {f"{k}_baseline_{name}": found[k] for k in HEADLINE if k in found}
    # While models are still being trained, the days of those that are finished alone are compared.
    same = set(whole.video)
    for name, rival in (rivals | simple).items():
        kept = np.isin(rival.video, list(same))
        if set(rival.video[kept]) == same:
            results |= edema.gain(whole, edema.Frames(*(c[kept] for c in rival)), name)
    results["ablation"] = compared(list(by_method), results)
    for one, words in HEADLINE.items():
        results[f"{one}_by_days"] = plots.accuracy_by_days(
            curves[one],
            f"{words} over the days that a patient's model learned from; each day was left out "
            "in turn. Bars: 95 % intervals over patients.",
            quantity=words.lower(),
            chance=None if results[one].unit else 0.5,
        )

    videos = edema.by_video(whole)
    scale = dict(zip(table.video[ours.rows], ours.scale))
    scales = np.array([scale[v] for v in videos.video])
    low, high = conformal.by_others(
        videos.predicted_kg,
        videos.weight_kg,
        videos.subject,
        ALPHA,
        scales=scales,
        new_patients=len(np.unique(videos.subject)) - 1 >= PROMISED,
    )
    results["interval_coverage"] = conformal.coverage(low, high, videos.weight_kg, videos.subject)
    if features is not None:
        unlike = unlike_learned(frames, features, videos)
        results |= conformal.answered(videos, unlike)
        results["abstention"] = conformal.abstention_curve(
            videos, unlike, caption="How good estimates are if those of unusual faces are withheld."
        )
    for subject in _shown(videos):
        own = videos.subject == subject
        results[f"days_{subject}"] = plots.day_chart(
            videos.day[own],
            videos.weight_kg[own],
            videos.predicted_kg[own],
            low[own],
            high[own],
            videos.session[own],
            caption=f"Patient {subject}: weight measured and read from the face, each day by a model that "
            f"has not seen it, with {1 - ALPHA:.0%} intervals learned from the other patients.",
        )
    results["patients"] = Record(
        lambda workdir, of: edema.write_table(workdir, edema.by_patient(whole))
    )
    return results


def compared(methods: list[str], results: dict) -> Figure:
    """All methods that were judged on the same days left out, the headline first."""
    ends = {METHODS[name]: f"_{name}" if number else "" for number, name in enumerate(methods)}
    ends |= {
        words: end for words, end in SIMPLE.items() if any(one + end in results for one in HEADLINE)
    }
    rows = {
        words: {one: results[one + end] for one in HEADLINE if one + end in results}
        for words, end in ends.items()
    }
    return ablation.table(
        rows,
        HEADLINE,
        caption="Every method on the same days, which none of them has seen, of patients whom "
        "pre-training has not seen; lines: 95 % intervals over patients. The published values are those of "
        "another clinic's real patients; pre-training added 15.1 points and took 0.243 kg away there.",
        published=PUBLISHED,
        most={"video_accuracy": 1.0, "mae_kg": 1.6 * max(1.0, results["mae_kg"].value)},
    )


def unlike_learned(frames: Frames, features: np.ndarray, videos: edema.Videos) -> conformal.Unlike:
    """How unlike the days learned from each video is: the median over its frames. [V]"""
    table, score = frames.table, {}
    for own, at, train, test in leave_one_day_out(frames):
        x = features[at]
        found = conformal.unlike(x[train], x[test], table.video[own][train])
        for video in np.unique(table.video[own][test]):
            score[video] = np.median(found.score[table.video[own][test] == video])
    return conformal.Unlike(np.array([score[v] for v in videos.video]), conformal.WITHHELD)


def _shown(videos: edema.Videos) -> list[str]:
    """Patients with many, middling and few days."""
    names, count = np.unique(videos.subject, return_counts=True)
    order = names[np.argsort(-count, kind="stable")]
    return list(order[np.unique(np.linspace(0, len(order) - 1, CHARTS).astype(int))])


# ---- a user's video ---------------------------------------------------------------------------


def read_video(
    frames: Frames,
    subject: str,
    chosen: Selection,
    network: Callable,
    known: Told,
    spread_kg: float,
) -> Reading:
    """What a patient's own model says of a video.

    Args:
      chosen: its frames.
      network: float32 [CHUNK, S, S, 3] in [-1, 1] -> (features [CHUNK, F], logit, weight in spreads).
      known: what models said of the days left out of every target: how sure this one is.
      spread_kg: kg that weights are measured in.
    """
    table, days = frames.table, tuple(frames.targets[subject])
    learned = rows_of(table, subject, days)
    told = embedded(lambda x: np.column_stack(network(x)), chosen.images)
    of_days = embedded(lambda x: np.column_stack(network(x)), frames.pixels(learned))
    unlike = conformal.unlike(of_days[:, :-2], told[:, :-2], table.video[learned])
    score, mean = float(np.median(unlike.score)), mean_weight(table, learned)
    kg = mean + spread_kg * float(np.median(told[:, -1]))
    scale = conformal.spread(weights(table, learned), spread_kg)
    others = edema.by_video(as_frames(table, known.rows, known.logit, known.kg))
    scales = dict(zip(table.video[known.rows], known.scale))
    calibration = conformal.calibrate(
        others.weight_kg - others.predicted_kg,
        others.subject,
        ALPHA,
        scales=np.array([scales[v] for v in others.video]),
        new_patients=False,  # this patient's own days are among them
    )
    low, high = (
        float(end[0]) for end in conformal.interval(np.array([kg]), calibration, np.array([scale]))
    )
    sure = 1 / (1 + np.exp(-float(told[:, -2].mean())))
    warnings = [chosen.note] if chosen.note else []
    numbers: dict[str, float | str] = {
        "weight_kg": kg,
        "weight_kg_low": low,
        "weight_kg_high": high,
        "edema_probability": sure,
    }
    if not score <= unlike.threshold:
        warnings.append(
            "No estimate is given: the face in this video is unlike all videos of this patient that the "
            "model learned from. Is it the same person, in a similar crop and light?"
        )
        numbers = dict.fromkeys(numbers, "withheld")
        kg = low = high = float("nan")
    own = others.subject == subject
    last = "this video"
    chart = plots.day_chart(
        [*others.day[own], last],
        np.append(others.weight_kg[own], np.nan),
        np.append(others.predicted_kg[own], kg),
        np.append(others.predicted_kg[own] - calibration.half * scale, low),
        np.append(others.predicted_kg[own] + calibration.half * scale, high),
        [*others.session[own], "pre" if sure >= 0.5 else "post"],
        caption="",
    )
    numbers |= {"frames_used": len(chosen.images), "unlike": round(score, 2)}
    pictures = {"frames": sheet(chosen.images), "days": chart.images[0]}
    return Reading(pictures, numbers, tuple(warnings))


def sheet(images: np.ndarray, columns: int = 8, most: int = 24) -> np.ndarray:
    """Some of the pictures [n, S, S, 3], evenly chosen, side by side: uint8 [h, w, 3]."""
    some = images[np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).astype(int))]
    columns = min(columns, len(some))
    empty = np.full_like(some[:1], 255)
    padded = np.concatenate([some, np.repeat(empty, -len(some) % columns, 0)])
    side = some.shape[1]
    grid = padded.reshape(-1, columns, side, side, 3).swapaxes(1, 2)
    return grid.reshape(-1, columns * side, 3)
