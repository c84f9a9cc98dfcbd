"""Volunteers made of arrays, so that tests of headshots render nobody."""

import numpy as np

from jaxface import headshots


class Volunteers(headshots.Photos):
    """People V00, V01, ... with some photographs each; of label 1 is the brighter upper half.

    Args:
      level: of a person ("sex") or of a photograph ("smile") are labels.
      strength: gray levels that a label is worth.
      undecided: the first photographs have no decided label.
    """

    def __init__(self, config, people=12, each=3, level="sex", strength=40.0, undecided=0, seed=0):
        super().__init__(config)
        rng = np.random.default_rng(seed)
        number, side = people * each, config.side
        subject = np.repeat([f"V{n:02d}" for n in range(people)], each)
        photo = np.tile(np.arange(1, each + 1), people)
        label = np.repeat(np.arange(people) % 2, each)
        if level == "smile":
            label = (np.arange(number) + np.repeat(np.arange(people) // 2, each)) % 2
        label[:undecided] = -1
        favor = np.where(label == 1, 15, 0)
        favor[label < 0] = 8
        upper = np.arange(side)[:, None] < side // 2
        light = 110 + 8 * rng.normal(size=number)
        picture = light[:, None, None] + 6 * rng.normal(size=(number, side, side))
        picture += strength * np.where(label == 1, 1, 0)[:, None, None] * upper
        self.table = headshots.Table(
            id=np.array([f"{s}/{p}" for s, p in zip(subject, photo)]),
            subject=subject,
            photo=photo,
            label=label,
            against=17 - favor - (label < 0),
            favor=favor,
            truth=label,
            ita=np.repeat(np.linspace(-40, 60, people), each),
            record=np.arange(number),
        )
        self.images = np.clip(picture, 0, 255).astype(np.uint8)[..., None].repeat(3, -1)

    fit_in_memory = True

    def image(self, index):
        return self.images[index]

    def who(self, index):
        return str(self.table.subject[index]), f"sha of {self.table.id[index]}"
