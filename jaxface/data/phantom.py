"""Rendered people as tfds records: what the builders of phantoms share.

The data are embedded in the project and stand where a user's folder of photographs goes. They are
stylised: what is measured on them tells whether a method works, and nothing about patients.
"""

import collections
import concurrent.futures
import itertools
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxface import terminal
from jaxface.data import base
from jaxface.errors import UserError
from jaxface.phantom.render import draw_subject, draw_view, render

VERSION = "1.0.0"  # of the pictures: a new one rebuilds the data
_SEEDS = 1 << 24  # people a seed can draw of each kind


def rendered(
    what: str, unit: str, parts: Sequence, pictures: int, make: Callable[..., list[dict]]
) -> Iterator[tuple[str, dict]]:
    """Records of parts, each rendered in a thread of its own, on all cores and a few parts ahead.

    The order and the bytes do not depend on how many cores there are.

    Args:
      what, unit: words of the progress bar.
      parts: arguments of `make`, each a tuple.
      pictures: in each part.
      make: returns the records of one part, which have an "id".
    """
    ahead, done = (os.cpu_count() or 1) + 1, 0
    waiting: collections.deque = collections.deque()
    with (
        terminal.Progress(what, pictures * len(parts), unit=unit) as progress,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        queue = iter(parts)
        for _ in parts:
            for part in itertools.islice(queue, ahead - len(waiting)):
                waiting.append(pool.submit(make, *part))
            yield from ((record["id"], record) for record in waiting.popleft().result())
            done += pictures
            progress.update(done)


def config_for(
    resolution: int = 64, num_subjects: int | None = None, seed: int = 0, channels: int = 3
) -> base.FaceConfig:
    """Settings whose name tells everything that the records depend on.

    Args:
      resolution: side in px, a power of two of at least 16.
      num_subjects: people, each photographed once; None for the data set's own number.
      seed: other seeds draw other people.
      channels: 3 color, 1 gray.
    """
    kind = "color" if channels == 3 else "gray"
    people = f"{num_subjects}people" if num_subjects else "all"
    return base.FaceConfig(
        name=f"{resolution}px-{kind}-{people}-seed{seed}",
        resolution=resolution,
        num_subjects=num_subjects,
        seed=seed,
        channels=channels,
    )


class PhantomBuilder(base.FaceBuilder, skip_registration=True):
    """Renders `num_subjects` people, one photograph each."""

    VERSION = tfds.core.Version(VERSION)
    CLEFT = False
    PREFIX = ""  # of the people's names: no name occurs in two data sets
    NUM_SUBJECTS = 0

    def __init__(self, *, config: base.FaceConfig | None = None, **kwargs):
        super().__init__(config=config or config_for(), **kwargs)

    @classmethod
    def settle(cls, run) -> base.FaceConfig:
        """Settings of the build that a run's config asks for."""
        return config_for(run.resolution, run.num_subjects or None, channels=run.channels)

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        _check(config)
        count = config.num_subjects or self.NUM_SUBJECTS
        splits = {}
        for number in range(1, count + 1):
            name = f"{self.PREFIX}{number:04d}"
            splits.setdefault(base.split_of(name), []).append((number, name))
        return {split: self._records(split, people) for split, people in splits.items()}

    def _records(self, split: str, people: list[tuple[int, str]]) -> Iterator[tuple[str, dict]]:
        what = f"rendering {self.name}, {split}"
        with terminal.Progress(what, len(people), unit="face") as progress:
            for done, (number, name) in enumerate(people, 1):
                yield name, self._record(number, name)
                progress.update(done)

    def _record(self, number: int, name: str) -> dict:
        config = self.builder_config
        seed = (2 * config.seed + self.CLEFT) * _SEEDS + number
        subject = draw_subject(seed, cleft=self.CLEFT)
        fine = max(2, min(4, 192 // config.resolution))
        image = render(subject, draw_view(seed), config.resolution, supersample=fine).image
        if config.channels == 1:
            image = np.asarray(Image.fromarray(image).convert("L"))
        return {
            "image": base.encode_png(image),
            "id": name,
            "subject": name,
            "severity": np.float32(subject.severity),
            "side": subject.side,
        }


def _check(config: base.FaceConfig) -> None:
    base.check_pictures(config.resolution, config.channels, least=16)
    if config.num_subjects is not None and not 0 <= config.num_subjects < _SEEDS:
        raise UserError(
            f"config.num_subjects={config.num_subjects}: a phantom has 1 to {_SEEDS - 1} people."
        )
    if config.seed < 0:
        raise UserError(f"config.seed={config.seed}: a phantom's seed is 0 or more.")
