"""The severity scores against the truth of the phantom.

    python -m benchmarks.severity [--normals=1200] [--slow=N] [--pictures=FILE.png]

125 people, 61 with a cleft of severity 0.1 to 1, photographed with more turn, light, camera and skin
than the demo's, and prepared as photographs are (detected, aligned, color adjusted, 64 px). The score
sees only other people's normal faces; its threshold is chosen on 125 people of a calibration set.

Pearson r with the truth over the 125 (95 % bootstrap over people): 0.925 (0.894 to 0.942), over the 61
clefts alone 0.83; difference from the mean of normal faces 0.09 (-0.08 to 0.24); left-right asymmetry
0.27 (0.10 to 0.42). With faces shrunk to 32 px first 0.91, with 300 normal faces 0.90. About 20 ms a face
and 15 s to fit on one CPU core.

--slow=N adds the score by inversion into the shipped generator on N of the 125, half of them with a
cleft; its threshold is chosen on N/2 normal and N rated faces of other people. With --normals=300
--slow=24 and its defaults (100 steps of inversion, 50 of adaptation; commit 4b7feac, one core of an EPYC
shared with other work): r 0.08 (-0.43 to 0.58) at 6.8 s a face, where the fast score has 0.93 (0.87 to
0.98) on the same 24 faces; r between the two 0.39. The shipped 32 px base is probably too poor for it:
what it cannot draw of a person looks like a cleft. With 60 and 15 steps and the threshold chosen on the
very 24 faces of the calibration set r had been 0.87, which says how little such a number is worth.
"""

import argparse
import dataclasses
import functools
import time

import cv2
import jax
import numpy as np

from experiments import cleftgan as experiment
from jaxface import start
from jaxface.faces.prepare import prepare_all
from jaxface.metrics import inversion, severity
from jaxface.phantom.render import draw_subject, draw_view, render
from jaxface.systems import cleftgan

PEOPLE, CLEFTS = 125, 61
NORMALS, CALIBRATION, TEST = 700_000, 800_000, 900_000  # first seeds: nobody is in two sets


def photograph(seed: int, cleft: bool, side: int = 128):
    """-> (uint8 [side, side, 3], severity)"""
    subject, view = draw_subject(seed, cleft), draw_view(seed)
    rng = np.random.default_rng([seed, 7])
    bell = lambda limit: float(limit * (2 * rng.beta(2.5, 2.5) - 1))
    times = lambda gain, color: tuple(float(gain * channel) for channel in color)
    key, fill, ambient = rng.uniform(0.5, 1.3), rng.uniform(0.5, 2), rng.uniform(0.5, 1.25)
    white_balance = np.exp(0.1 * rng.normal(size=3))
    (toward_key, key_color), (toward_fill, fill_color) = view.lights
    view = dataclasses.replace(
        view,
        yaw=bell(18),
        pitch=bell(9),
        roll=bell(10),
        shift=tuple(float(x) for x in rng.uniform(-0.03, 0.03, 2)),
        zoom=float(rng.uniform(0.8, 0.95)),
        lights=((toward_key, times(key, key_color)), (toward_fill, times(fill, fill_color))),
        ambient=times(ambient, view.ambient),
        exposure=float(np.exp(rng.uniform(-0.35, 0.35))),
        white_balance=times(1, white_balance),
        noise=float(rng.uniform(0, 3)),
    )
    if rng.uniform() < 0.5:
        subject = dataclasses.replace(subject, melanin=float(rng.uniform()))
    return render(subject, view, side).image, subject.severity


def people(first: int, number: int, clefts: int) -> tuple[np.ndarray, np.ndarray]:
    """Prepared faces uint8 [number, 64, 64, 3] and severities; faces not found are left out."""
    images, truth = zip(*[photograph(first + i, i < clefts) for i in range(number)])
    prepared = prepare_all(images, severity.SIDE)
    kept = [i for i, one in enumerate(prepared) if one is not None]
    if len(kept) < number:
        print(f"{number - len(kept)} of {number} faces not found")
    return np.stack([prepared[i].image for i in kept]), np.array(truth)[kept]


def correlation(name: str, scores: np.ndarray, truth: np.ndarray) -> float:
    found = severity.agreement(scores, truth, np.arange(len(truth)), name)
    clefts = np.corrcoef(scores[truth > 0], truth[truth > 0])[0, 1]
    print(
        f"{name}: r {found.value:.3f} ({found.low:.3f} to {found.high:.3f}), n {found.n}; "
        f"clefts alone {clefts:.3f}"
    )
    return found.value


def base() -> inversion.Generator:
    """The shipped generator of normal faces, which the demo starts from."""
    tree, _ = start.read(experiment.demo.init_from)
    module, _ = cleftgan.networks(experiment.demo)
    return inversion.Generator(
        functools.partial(module.apply, method="mapping"),
        functools.partial(module.apply, method="synthesis"),
        jax.device_put(tree["ema"]),
        experiment.demo.z_dim,
    )


def some(truth: np.ndarray, number: int) -> np.ndarray:
    """Places of `number` faces, half of them the first with a cleft, half the first without."""
    clefts, others = np.flatnonzero(truth > 0), np.flatnonzero(truth == 0)
    return np.concatenate([clefts[: number // 2], others[: number - number // 2]])


def compare(fast: severity.Scorer, number: int, normals, rated, ratings, faces, truth) -> None:
    """Both scores of the same faces; `fast` is calibrated."""
    began, chosen = time.monotonic(), some(ratings, number)
    slow = inversion.fit(base(), normals[-(number // 2) :])
    slow = slow.calibrated(rated[chosen], ratings[chosen])
    print(f"threshold of the slow score: {time.monotonic() - began:.0f} s")
    chosen = some(truth, number)
    faces, truth = faces[chosen], truth[chosen]
    began = time.monotonic()
    scores = slow(faces)
    print(f"slow score: {(time.monotonic() - began) / len(faces):.1f} s a face")
    correlation("slow score", scores, truth)
    correlation("fast score, same faces", fast(faces), truth)
    print(f"slow and fast score: r {np.corrcoef(scores, fast(faces))[0, 1]:.3f}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--normals", type=int, default=1200)
    parser.add_argument("--slow", type=int, default=0, help="faces for the score by inversion too")
    parser.add_argument("--pictures", default="", help="PNG of faces, normal faces and heat")
    args = parser.parse_args()
    began = time.monotonic()
    normals, _ = people(NORMALS, args.normals, 0)
    rated, ratings = people(CALIBRATION, PEOPLE, CLEFTS)
    faces, truth = people(TEST, PEOPLE, CLEFTS)
    print(f"faces: {time.monotonic() - began:.0f} s")
    plain = correlation(
        "difference from the mean", severity.plain_difference(faces, normals), truth
    )
    correlation("asymmetry", severity.asymmetry(faces), truth)

    began = time.monotonic()
    scorer = severity.fit(normals)
    print(f"fit: {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    scores = scorer(faces)
    print(f"score: {(time.monotonic() - began) / len(faces) * 1000:.0f} ms a face")
    correlation("severity, threshold by normal faces", scores, truth)
    scorer = scorer.calibrated(rated, ratings)
    reached = correlation("severity, threshold calibrated", scorer(faces), truth)
    print(f"normal faces at 0: {(scorer(faces[truth == 0]) == 0).mean():.0%}")
    if args.slow:
        compare(scorer, args.slow, normals, rated, ratings, faces, truth)
    if args.pictures:
        order = np.argsort(-truth)
        figure = scorer.figure(faces[np.concatenate([order[:60:5], order[-4:]])])
        rows = figure.images.reshape(-1, figure.columns, *figure.images.shape[1:])
        cv2.imwrite(args.pictures, np.vstack([np.hstack(row) for row in rows])[..., ::-1])
    return int(abs(plain) >= 0.6 or reached < 0.89)


if __name__ == "__main__":
    raise SystemExit(main())
