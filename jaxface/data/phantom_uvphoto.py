"""Rendered people before a UV photo device and before phones (UV-photo Net, Kojima et al. 2021).

As many as the paper's: 184 people with a color and a UV photograph of one moment, of whom 24 are held out,
and 200 with a phone photograph alone. The UV photographs of the phone people exist here and are kept for
judgement, which the paper could not have. Stylised, like every phantom: what is measured on it tells
whether a method works, and nothing about patients.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
from collections.abc import Iterator

import tensorflow_datasets as tfds

from jaxface import terminal
from jaxface.data import base
from jaxface.errors import UserError
from jaxface.faces.portrait import portraits
from jaxface.phantom import skin, uv
from jaxface.phantom.people import draw_subject

VERSION = "1.1.0"  # of the pictures: a new one rebuilds the data
SIDE = 1024  # px
PEOPLE = {  # how many of each kind and split
    ("device", "train"): 160,
    ("device", "heldout"): 24,
    ("phone", "train"): 120,
    ("phone", "heldout"): 80,
}
PREFIX = {"device": "U", "phone": "H"}  # of the people's names
_FIRST = {"device": 60_000_000, "phone": 70_000_000}  # seeds no other phantom draws
_TOGETHER, _AHEAD = 2, 3  # photographs made at once, and how many times that are in the making


@dataclasses.dataclass
class Config(base.PhotoConfig):
    """Settings of one build."""

    num_subjects: int | None = None
    side: int = SIDE


def config_for(num_subjects: int | None = None, side: int = SIDE) -> Config:
    """Settings whose name tells everything that the records depend on.

    Args:
      num_subjects: people altogether, in about the usual proportions; None for all 384.
      side: of the photographs in px.
    """
    people = f"{num_subjects}people" if num_subjects else "all"
    return Config(name=f"{side}px-{people}", num_subjects=num_subjects, side=side)


class PhantomUvphoto(base.PhotoBuilder):
    """Rendered faces whose pigment spots a UV photograph shows and a color photograph hardly does.

    `tfds.builder("phantom_uvphoto", data_dir=..., config=config_for(), file_format="array_record")`
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, *, config=None, **kwargs):
        super().__init__(config=config or config_for(), **kwargs)

    @classmethod
    def settle(cls, run) -> Config:
        """Settings of the build that a run's config asks for."""
        if run.num_subjects and not 8 <= run.num_subjects <= sum(PEOPLE.values()):
            raise UserError(
                f"config.num_subjects={run.num_subjects}: phantom_uvphoto has 8 to "
                f"{sum(PEOPLE.values())} people."
            )
        if run.side < 256 or run.side % 2:
            raise UserError(f"config.side={run.side}: photographs have an even side from 256 px.")
        return config_for(run.num_subjects or None, run.side)

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        share = (self.builder_config.num_subjects or sum(PEOPLE.values())) / sum(PEOPLE.values())
        wanted = {kind: max(2, round(share * count)) for kind, count in PEOPLE.items()}
        splits = {
            split: [p for device in PREFIX for p in _people(device, split, wanted[device, split])]
            for split in ("train", "heldout")
        }
        return {split: self._records(split, people) for split, people in splits.items()}

    def _records(self, split: str, people: list[tuple[str, str, int]]) -> Iterator:
        """Renders on all cores, a few photographs ahead; the order and the bytes do not depend on it."""
        twos = [people[i : i + _TOGETHER] for i in range(0, len(people), _TOGETHER)]
        waiting: collections.deque = collections.deque()
        what, done = f"rendering {self.name}, {split}", 0
        with (
            terminal.Progress(what, len(people), unit="face") as progress,
            concurrent.futures.ThreadPoolExecutor() as pool,
        ):
            queue = iter(twos)
            for some in twos:
                for ahead in itertools.islice(queue, _AHEAD - len(waiting)):
                    waiting.append(pool.submit(self._render, ahead))
                yield from ((record["id"], record) for record in waiting.popleft().result())
                done += len(some)
                progress.update(done)

    def _render(self, people: list[tuple[str, str, int]]) -> list[dict]:
        """Records of a few people; of those whose face is found, which at full size is everybody's."""
        pairs = []
        for _, device, seed in people:
            # Shaved, as one is asked to come to such a photograph: hair in UV light is dark like spots.
            subject = dataclasses.replace(draw_subject(seed), beard=0.0)
            view, phone = uv.phone_view(seed) if device == "phone" else (uv.device_view(seed), None)
            pairs.append(
                uv.photograph(
                    subject, skin.draw_marks(subject), view, self.builder_config.side, phone
                )
            )
        faces = portraits([pair.color for pair in pairs])
        return [
            base.photo_record(
                id=name,
                subject=name,
                view="front",
                device=device,
                color=pair.color,
                mask=face.mask,
                landmarks=face.landmarks,
                face_width=face.face_width,
                covered=face.covered,
                ita=face.ita,
                uv=None if device == "phone" else pair.uv,
                truth_uv=pair.uv,
                pigment=pair.pigment,
            )
            for (name, device, _), pair, face in zip(people, pairs, faces)
            if face
        ]


def _people(device: str, split: str, count: int) -> Iterator[tuple[str, str, int]]:
    """(name, device, seed) of the first people whose name puts them into a split."""
    names = ((f"{PREFIX[device]}{n:04d}", n) for n in itertools.count(1))
    fitting = ((name, n) for name, n in names if base.split_of(name) == split)
    for name, n in itertools.islice(fitting, count):
        yield name, device, _FIRST[device] + n
