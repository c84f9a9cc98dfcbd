"""Rendered volunteers who sent in headshots, and votes on sex and smile (Aoto et al., Sci Rep 2022).

As many as the study's: 277 people (147 women, 130 men), 9 photographs each, 21 voters on the sex of each
person, who may abstain, and 17 on the smile of each photograph. Sex and smile are exact beside what was
voted, and in a few faces the votes are split. Stylised, like every phantom: what is measured on it tells
whether a method works, and nothing about people.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxface.data import base
from jaxface.data.phantom import rendered
from jaxface.errors import UserError
from jaxface.phantom import head as heads
from jaxface.phantom import paint, volunteers
from jaxface.phantom.people import Subject
from jaxface.phantom.render import render
from jaxface.phantom.volunteers import Photograph

VERSION = "1.2.0"  # of the pictures: a new one rebuilds the data
SIDE = 128  # px
WOMEN, MEN = 147, 130
_FIRST = 90_000_000  # seeds no other phantom draws
_SEEDS = 10_000  # of the people that one config.seed can draw
_SUPERSAMPLE = 2


class Headshot(NamedTuple):
    """A photograph and what is known of it."""

    photo: int  # number within the person, from 1
    taken: Photograph
    labels: dict[str, base.Label]  # of "sex" and "smile"


def config_for(
    num_subjects: int | None = None, side: int = SIDE, channels: int = 3, seed: int = 0
) -> base.HeadshotConfig:
    """Settings whose name tells everything that the records depend on.

    Args:
      num_subjects: people, each with all 9 photographs; None for all 277.
      side: of the photographs in px.
      channels: 3 color, 1 gray.
      seed: other seeds draw other people.
    """
    people = f"{num_subjects}people" if num_subjects else "all"
    kind = "color" if channels == 3 else "gray"
    return base.HeadshotConfig(
        name=f"{side}px-{kind}-{people}-seed{seed}",
        side=side,
        channels=channels,
        num_subjects=num_subjects,
        seed=seed,
    )


class PhantomHeadshots(base.HeadshotBuilder):
    """Rendered headshots of people who smile or do not, with simulated votes on sex and smile.

    `tfds.builder("phantom_headshots", data_dir=..., config=config_for(), file_format="array_record")`
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, *, config: base.HeadshotConfig | None = None, **kwargs):
        super().__init__(config=config or config_for(), **kwargs)

    @classmethod
    def settle(cls, run) -> base.HeadshotConfig:
        """Settings of the build that a run's config asks for."""
        config = config_for(run.num_subjects or None, run.side, run.channels)
        _check(config)
        return config

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        _check(config)
        splits = {}
        for name, subject in people(config.seed)[: config.num_subjects]:
            splits.setdefault(base.split_of(name), []).append((name, subject))
        return {split: self._records(split, some) for split, some in splits.items()}

    def _records(self, split: str, some: list[tuple[str, Subject]]) -> Iterator[tuple[str, dict]]:
        """The records of some people."""
        heads.load()  # here, or every thread would make its own
        what = f"rendering {self.name}, {split}"
        return rendered(what, "photograph", some, volunteers.PHOTOS, self._photograph)

    def _photograph(self, name: str, subject: Subject) -> list[dict]:
        """The records of one person."""
        config = self.builder_config
        return [
            base.headshot_record(
                image=base.encode_png(picture(one.taken, config.side, config.channels)),
                id=f"{name}/{one.photo}",
                subject=name,
                photo=one.photo,
                labels=one.labels,
                ita=typology_angle(subject),
            )
            for one in headshots(subject, config.seed)
        ]


def people(seed: int = 0) -> list[tuple[str, Subject]]:
    """All 277 of a seed: the first women and men drawn, as many of each as in the study."""
    first, wanted = _FIRST + _SEEDS * seed, {True: WOMEN, False: MEN}
    drawn = []
    for number in itertools.count():
        subject = volunteers.draw_volunteer(first + number)
        female = volunteers.femaleness(subject) > 0
        if wanted[female]:
            wanted[female] -= 1
            drawn.append(subject)
        if not any(wanted.values()):
            return [(f"V{n:04d}", subject) for n, subject in enumerate(drawn, 1)]


def headshots(subject: Subject, seed: int = 0) -> list[Headshot]:
    """A person's photographs with votes, labels and truth.

    A label is what more voters said, -1 for a tie. The truth of a smile is what the photograph was meant
    to show, -1 where that was something between. `seed` (config.seed) draws the voters.
    """
    rng = np.random.default_rng([subject.seed, 36])
    strength = volunteers.femaleness(subject)
    sex = _label(volunteers.vote(volunteers.draw_voters("sex", seed), strength, rng), strength > 0)
    voters = volunteers.draw_voters("smile", seed)
    truth = {volunteers.SMILING: 1, volunteers.NEUTRAL: 0, volunteers.BETWEEN: -1}
    found = []
    for photo, taken in enumerate(volunteers.draw_headshots(subject), 1):
        smile = _label(volunteers.vote(voters, taken.smile, rng), truth[taken.meant])
        found.append(Headshot(photo, taken, {"sex": sex, "smile": smile}))
    return found


def _label(ballots: np.ndarray, truth: int) -> base.Label:
    against, in_favour = int((ballots == 0).sum()), int((ballots == 1).sum())
    label = -1 if against == in_favour else int(in_favour > against)
    return base.Label(label, (against, in_favour), int(truth))


def picture(taken: Photograph, side: int, channels: int = 3) -> np.ndarray:
    """uint8 [side, side, 3] or, of one channel, [side, side]."""
    image = render(taken.subject, taken.view, side, _SUPERSAMPLE).image
    return image if channels == 3 else np.asarray(Image.fromarray(image).convert("L"))


def typology_angle(subject: Subject) -> float:
    """Individual typology angle of a person's skin without redness, in white light, degrees (exact)."""
    color = paint.skin_color(subject.melanin)[None, None]
    (lightness, _, yellow) = cv2.cvtColor(color, cv2.COLOR_LRGB2LAB)[0, 0]
    return float(np.rad2deg(np.arctan2(lightness - 50, yellow)))


def _check(config: base.HeadshotConfig) -> None:
    most = WOMEN + MEN
    if config.num_subjects is not None and not 1 <= config.num_subjects <= most:
        raise UserError(
            f"config.num_subjects={config.num_subjects}: phantom_headshots has 1 to {most} people."
        )
    if config.side < 32:
        raise UserError(f"config.side={config.side}: phantom_headshots have 32 px or more.")
    if config.channels not in (1, 3):
        raise UserError(f"config.channels={config.channels}: use 3 (color) or 1 (gray).")
    if config.seed < 0:
        raise UserError(f"config.seed={config.seed}: a phantom's seed is 0 or more.")
