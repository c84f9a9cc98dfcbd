"""Rendered dialysis patients filmed before and after (Akamatsu et al., JBHI 2022, arXiv 2212.07582).

As many as the paper's: 39 patients (25 men, 14 women), 196 days of dialysis, 1 to 10 a patient, a video
before and one after each, 100 frames a video. Weight and excess fluid are exact. Stylised, like every
phantom: what is measured on it tells whether a method works, and nothing about patients.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jaxface.data import base
from jaxface.data.phantom import rendered
from jaxface.errors import UserError
from jaxface.phantom import fluid
from jaxface.phantom import head as heads

VERSION = "1.1.0"  # of the pictures: a new one rebuilds the data
SIDE, FRAMES = 96, 100  # px; frames of a video
MEN, WOMEN = 25, 14
DAYS, MOST_DAYS = 196, 10  # of all patients, of one
_FIRST = 80_000_000  # seeds no other phantom draws
_SEEDS = 1000  # of the patients that one config.seed can draw
_SESSIONS = ("pre", "post")


class Enrolled(NamedTuple):
    """A patient of the data set."""

    name: str
    truth: fluid.Patient
    days: int  # on which the patient is filmed


def config_for(
    num_subjects: int | None = None, side: int = SIDE, frames: int = FRAMES, seed: int = 0
) -> base.FrameConfig:
    """Settings whose name tells everything that the records depend on.

    Args:
      num_subjects: patients, each with as many days as among all; None for all 39.
      side: of the frames in px.
      frames: of each video.
      seed: other seeds draw other patients.
    """
    people = f"{num_subjects}people" if num_subjects else "all"
    return base.FrameConfig(
        name=f"{side}px-{frames}frames-{people}-seed{seed}",
        side=side,
        frames=frames,
        num_subjects=num_subjects,
        seed=seed,
    )


class PhantomEdema(base.FrameBuilder):
    """Rendered faces of dialysis patients whose fluid shows in cheeks, lids and jaw.

    `tfds.builder("phantom_edema", data_dir=..., config=config_for(), file_format="array_record")`
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, *, config: base.FrameConfig | None = None, **kwargs):
        super().__init__(config=config or config_for(), **kwargs)

    @classmethod
    def settle(cls, run) -> base.FrameConfig:
        """Settings of the build that a run's config asks for."""
        config = config_for(run.num_subjects or None, run.side, run.frames)
        _check(config)
        return config

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        _check(config)
        splits = {}
        for patient in patients(config.seed)[: config.num_subjects]:
            splits.setdefault(base.split_of(patient.name), []).append(patient)
        return {split: self._records(split, some) for split, some in splits.items()}

    def _records(self, split: str, people: list[Enrolled]) -> Iterator[tuple[str, dict]]:
        """The records of some patients, video by video."""
        heads.load()  # here, or every thread would make its own
        videos = [
            (patient.name, f"{day:02d}", word, session)
            for patient in people
            for day, both in enumerate(fluid.draw_days(patient.truth, patient.days), 1)
            for word, session in zip(_SESSIONS, both)
        ]
        what = f"rendering {self.name}, {split}"
        return rendered(what, "frame", videos, self.builder_config.frames, self._film)

    def _film(self, name: str, day: str, word: str, session: fluid.Session) -> list[dict]:
        config = self.builder_config
        film = fluid.film(session, config.frames, config.side)
        return [
            base.frame_record(
                image=base.encode_png(image),
                subject=name,
                day=day,
                session=word,
                weight_kg=session.weight_kg,
                frame=number,
                time=time,
                fluid_kg=session.fluid_kg,
            )
            for number, (time, image) in enumerate(film)
        ]


def patients(seed: int) -> list[Enrolled]:
    """All 39 of a seed: the first men and women drawn, as many of each as in the paper."""
    first, wanted = _FIRST + _SEEDS * seed, {True: MEN, False: WOMEN}
    drawn = []
    for number in itertools.count():
        patient = fluid.draw_patient(first + number)
        male = patient.subject.sex > 0.5
        if wanted[male]:
            wanted[male] -= 1
            drawn.append(patient)
        if not any(wanted.values()):
            break
    days = _days(first, len(drawn))
    return [Enrolled(f"E{n:04d}", p, d) for n, (p, d) in enumerate(zip(drawn, days), 1)]


def _days(seed: int, patients: int) -> list[int]:
    """How many days each comes: 1 to 10 and 196 together, as in the paper; spread evenly at first."""
    rng = np.random.default_rng([seed, 16])
    days = rng.integers(1, MOST_DAYS + 1, patients)
    while days.sum() != DAYS:
        step = np.sign(DAYS - days.sum())
        who = rng.integers(patients)
        days[who] = np.clip(days[who] + step, 1, MOST_DAYS)
    return [int(d) for d in days]


def _check(config: base.FrameConfig) -> None:
    most = MEN + WOMEN
    if config.num_subjects is not None and not 1 <= config.num_subjects <= most:
        raise UserError(
            f"config.num_subjects={config.num_subjects}: phantom_edema has 1 to {most} patients."
        )
    if config.side < 32:
        raise UserError(f"config.side={config.side}: frames of phantom_edema have 32 px or more.")
    if not 1 <= config.frames <= 1000:
        raise UserError(f"config.frames={config.frames}: a video of phantom_edema has 1 to 1000.")
    if config.seed < 0:
        raise UserError(f"config.seed={config.seed}: a phantom's seed is 0 or more.")
