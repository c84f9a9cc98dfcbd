"""Volunteers of the phantom: men and women, the headshots they send in, and who votes on them.

As the study asked for (Aoto et al., Sci Rep 2022): one pose, a plain wall, hair off the face, neutral and
smiling. A person keeps wall, clothes and camera; light, exposure, distance and a little of the pose change
with every photograph. Sex shows in the whole face and wholly in nothing: bones, brows, shaved or grown
beard, lips. A smile has a strength and a manner, mouth open or closed, and a neutral mouth is not always
closed. What else differs, where the face stands, how large it is, where the light comes from, skin, hair
and wall, says nothing of either, so that a linear classifier of pixels cannot do what a face does to
everybody who looks at it (`python -m benchmarks.headshots_difficulty`).

Stylised, like the whole phantom: two sexes that differ by rule, drawn as heads.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxface.phantom.people import Subject, View, draw_subject

PHOTOS = 9  # of a person
SEX_VOTERS, SMILE_VOTERS = 21, 17
NEUTRAL, SMILING, BETWEEN = "neutral", "smiling", "between"  # what a photograph was meant to show
SMILE = {NEUTRAL: (0.0, 0.06), SMILING: (0.65, 1.0), BETWEEN: (0.15, 0.5)}  # strength, even between
BETWEEN_SHARE = 0.05  # of photographs
HARDLY = 0.015  # of people, whose sex hardly shows
SMILES = 4  # of a person's photographs, one more or one less
# Shape targets that differ between the sexes besides the head's own, at the strength of a plain man and, for
# the opposite, of a plain woman. "*-" stands for both sides.
DIMORPHISM = (
    ("chin-width-decr", "chin-width-incr", 0.60),
    ("chin-bones-decr", "chin-bones-incr", 0.55),
    ("*-cheek-bones-incr", "*-cheek-bones-decr", 0.50),
    ("eyebrows-trans-up", "eyebrows-trans-down", 0.95),
    ("*-eye-scale-incr", "*-eye-scale-decr", 0.60),
    ("mouth-upperlip-volume-incr", "mouth-upperlip-volume-decr", 0.65),
    ("mouth-lowerlip-volume-incr", "mouth-lowerlip-volume-decr", 0.65),
    ("neck-scale-horiz-decr", "neck-scale-horiz-incr", 0.70),
    ("nose-scale-horiz-decr", "nose-scale-horiz-incr", 0.45),
)  # (female, male, strength)


@dataclasses.dataclass(frozen=True)
class Photograph:
    """One headshot and what was true when it was taken."""

    subject: Subject  # with the expression of the moment
    view: View
    meant: str  # NEUTRAL, SMILING or BETWEEN
    smile: float  # strength, 0..1


class Voters(NamedTuple):
    """V people who vote; each sees a little more or less than the others and draws the line elsewhere."""

    sensitivity: np.ndarray  # [V]: logits that a strength of 1 is worth
    threshold: np.ndarray  # [V]: strength at which either answer is as likely
    caution: np.ndarray  # [V]: chance to abstain at the threshold; 0 where nobody may


def draw_volunteer(seed: int) -> Subject:
    """Draws a person with a neutral face; the same seed gives the same one.

    `sex` is 0.06 (female) or 0.94 (male) give or take 0.05, but for a few (HARDLY) in whom it hardly
    shows. Adults of all ages, young ones more often; faces are less odd than other phantoms'.
    """
    rng = np.random.default_rng([seed, 31])
    subject = draw_subject(seed)
    male = subject.sex > 0.5
    sex = float(np.clip((0.94 if male else 0.06) + 0.05 * rng.normal(), 0, 1))
    if rng.uniform() < HARDLY:
        sex = 0.5 + float(rng.uniform(0.12, 0.25)) * (1 if male else -1)
    way = 2 * sex - 1  # -1 female .. 1 male
    moved = [
        (name.replace("*", side), abs(way) * strength)
        for female, man, strength in DIMORPHISM
        for name in [man if way > 0 else female]
        for side in ("lr" if name[0] == "*" else "l")
    ]
    shadow = rng.uniform(0.10, 0.28)
    beard = rng.beta(1.2, 1.2) if rng.uniform() < 0.3 else shadow
    length = rng.uniform(0.3, 0.9) if rng.uniform() < (0.15 if male else 0.25) else 0.0
    return dataclasses.replace(
        subject,
        sex=sex,
        age=0.75 * subject.age,
        shape=tuple(0.85 * weight for weight in subject.shape),
        hair_length=float(length),
        baldness=float(0.6 * subject.baldness),
        beard=float(male * beard),
        brow_thickness=float(np.clip(0.48 + 0.38 * way + 0.07 * rng.normal(), 0, 1)),
        smile=0.0,
        targets=tuple(moved),
    )


def draw_headshots(subject: Subject, photos: int = PHOTOS) -> list[Photograph]:
    """Draws a person's photographs in the order in which they were sent in."""
    rng = np.random.default_rng([subject.seed, 32])
    smiles = SMILES + rng.integers(-1, 2)
    kinds = np.array([SMILING] * smiles + [NEUTRAL] * (PHOTOS - smiles))
    kinds = np.where(rng.uniform(size=PHOTOS) < BETWEEN_SHARE, BETWEEN, kinds)
    kinds = rng.permutation(kinds)
    home = _draw_home(rng)
    return [
        _draw_headshot(subject, str(kind), home, np.random.default_rng([subject.seed, 33, number]))
        for number, kind in enumerate(kinds[:photos])
    ]


def _draw_home(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What stays the same in a person's photographs."""
    return {
        "wall": np.exp(rng.uniform(np.log(0.05), np.log(0.7)) + 0.16 * rng.normal(size=3)),
        "gains": np.exp(np.array([1, 0, -1]) * 0.15 * rng.normal() + 0.07 * rng.normal(size=3)),
        "distance": rng.uniform(6, 12),
        "zoom": np.exp(rng.uniform(np.log(0.60), np.log(0.82))),
        "shift": rng.uniform(-0.08, 0.08, 2),
    }


def _draw_headshot(
    subject: Subject, kind: str, home: dict[str, np.ndarray], rng: np.random.Generator
) -> Photograph:
    floats = lambda values: tuple(float(value) for value in values)
    smile = float(rng.uniform(*SMILE[kind]))
    open_, closed = rng.beta(0.6, 1.4), rng.uniform(0, 0.25)
    lips = 0.3 * open_ * smile if kind == SMILING else 0.08 * open_ * (rng.uniform() < 0.4)
    manner = {
        "jawOpen": lips,
        "mouthUpperUpLeft": 0.4 * open_ * smile,
        "mouthUpperUpRight": 0.4 * open_ * smile,
        "eyeBlinkLeft": closed,
        "eyeBlinkRight": closed,
        "browInnerUp": 0.35 * rng.uniform(),
        "mouthPucker": 0.25 * rng.uniform() * (1 - smile),
    }
    face = tuple((name, float(weight)) for name, weight in manner.items() if weight > 0)
    azimuth, height = np.deg2rad(rng.uniform(-65, 65)), np.deg2rad(rng.uniform(-20, 60))
    key = [np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height)]
    fill = [-np.sign(azimuth) * rng.uniform(0.3, 0.9), rng.uniform(-0.2, 0.5), rng.uniform(0.4, 1)]
    even = rng.uniform(0.25, 0.6)  # share of the light that comes from everywhere
    warm = np.array([1.0, 0.0, -1.0]) * 0.07 * rng.normal()
    view = View(
        yaw=float(np.clip(4 * rng.normal(), -9, 9)),
        pitch=float(np.clip(3 * rng.normal(), -7, 7)),
        roll=float(np.clip(2.5 * rng.normal(), -6, 6)),
        shift=floats(np.array([0, 0.02]) + home["shift"] + 0.025 * rng.normal(size=2)),
        zoom=float(home["zoom"] * np.exp(0.08 * rng.normal())),
        distance=float(home["distance"]),
        lights=(
            (floats(key), floats(1.25 * (1 - even) * (1 + warm))),
            (floats(fill), floats(rng.uniform(0.05, 0.3) * (1 - warm))),
        ),
        ambient=floats(1.1 * even * (1 + 0.04 * rng.normal(size=3))),
        background=floats(np.clip(home["wall"] * np.exp(0.2 * rng.normal()), 0.02, 0.9)),
        exposure=float(np.exp(rng.uniform(-0.3, 0.3))),
        white_balance=floats(home["gains"] * np.exp(np.array([1, 0, -1]) * 0.06 * rng.normal())),
        noise=float(rng.uniform(0.5, 3)),
        seed=int(rng.integers(1 << 31)),
    )
    subject = dataclasses.replace(subject, smile=smile, targets=subject.targets + face)
    return Photograph(subject, view, kind, smile)


def draw_voters(task: str, seed: int = 0) -> Voters:
    """Draws who votes: 21 on "sex", of whom each may abstain, or 17 on "smile"."""
    if task == "sex":
        rng = np.random.default_rng([seed, 34])
        return Voters(
            sensitivity=7 * np.exp(0.3 * rng.normal(size=SEX_VOTERS)),
            threshold=0.08 * rng.normal(size=SEX_VOTERS),
            caution=rng.uniform(0, 0.6, SEX_VOTERS),
        )
    rng = np.random.default_rng([seed, 35])
    return Voters(
        sensitivity=28 * np.exp(0.3 * rng.normal(size=SMILE_VOTERS)),
        threshold=0.30 + 0.05 * rng.normal(size=SMILE_VOTERS),
        caution=np.zeros(SMILE_VOTERS),
    )


def vote(voters: Voters, strength: float, rng: np.random.Generator) -> np.ndarray:
    """int8 [V]: 1 for, 0 against, -1 abstained, on what shows with this strength.

    The strength of a smile is 0..1, that of sex -1 (male) .. 1 (female) (see `femaleness`).
    """
    logit = voters.sensitivity * (strength - voters.threshold)
    chance, silent = rng.uniform(size=(2, len(logit)))
    answer = chance < 1 / (1 + np.exp(-logit))
    abstain = silent < voters.caution * np.exp(-np.abs(logit) / 2)
    return np.where(abstain, -1, answer).astype(np.int8)


def femaleness(subject: Subject) -> float:
    """-1 for a plain man, 1 for a plain woman, as far as it shows."""
    return 1 - 2 * subject.sex
