"""Patients made of arrays, so that tests of edema render nobody."""

import numpy as np

from jaxface import patients


class Clinic(patients.Frames):
    """Patients P0, P1, ... with some days each; `strength` of what fluid does to a frame.

    Before dialysis the middle of a frame is brighter, by `strength` and in proportion to the kilograms of
    fluid; light and noise differ between videos and frames.
    """

    def __init__(self, config, days=(3, 4, 2, 3, 5, 2), strength=0.0, seed=0):
        super().__init__(config)
        rng = np.random.default_rng(seed)
        rows, pictures, side = [], [], config.side
        y, x = np.mgrid[:side, :side] / (side - 1) - 0.5
        middle = np.exp(-20 * (x**2 + y**2))
        for number, count in enumerate(days):
            dry = rng.uniform(45, 80)
            for day in range(count):
                removed = rng.uniform(1.5, 3)
                for session, fluid in (("post", 0.0), ("pre", removed)):
                    video = f"P{number}/{day}/{session}"
                    weight = dry + 0.2 * rng.normal() + fluid
                    light = 110 + 8 * rng.normal()
                    for frame in range(config.frames):
                        name = f"{video}/{frame:03d}"
                        rows.append((name, f"P{number}", str(day), session, video, weight, fluid))
                        picture = (
                            light + strength * fluid * middle + 4 * rng.normal(size=middle.shape)
                        )
                        pictures.append(np.clip(picture, 0, 255)[..., None].repeat(3, -1))
        words = [np.array([row[k] for row in rows]) for k in range(5)]
        numbers = [np.array([row[k] for row in rows], np.float64) for k in (5, 6)]
        # Sorted by name, as the real table is: post before pre.
        order = np.argsort(words[0], kind="stable")
        columns = [column[order] for column in words + numbers]
        self.table = patients.Table(*columns, record=order)
        self.images = np.array(pictures)[order].astype(np.uint8)

    fit_in_memory = True

    def image(self, index):
        return self.images[index]
