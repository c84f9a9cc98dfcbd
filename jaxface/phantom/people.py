"""Who is photographed, and how: the parameters of the phantom, drawn from a seed."""

import dataclasses

import numpy as np

# Shape targets that make identity: (decrease, increase, standard deviation, mean). A leading "*-"
# stands for both sides.
IDENTITY = (
    ("head-fat-decr", "head-fat-incr", 0.30, 0.0),
    ("head-oval", "head-square", 0.22, 0.0),
    ("head-triangular", "head-invertedtriangular", 0.22, 0.0),
    ("head-diamond", "head-rectangular", 0.18, 0.0),
    ("head-scale-horiz-decr", "head-scale-horiz-incr", 0.40, 0.0),
    ("head-scale-vert-decr", "head-scale-vert-incr", 0.35, -0.2),
    ("forehead-temple-decr", "forehead-temple-incr", 0.4, 0.0),
    ("forehead-nubian-decr", "forehead-nubian-incr", 0.3, 0.0),
    ("forehead-scale-vert-decr", "forehead-scale-vert-incr", 0.3, 0.0),
    ("*-cheek-bones-decr", "*-cheek-bones-incr", 0.5, 0.0),
    ("*-cheek-volume-decr", "*-cheek-volume-incr", 0.5, 0.0),
    ("*-cheek-inner-decr", "*-cheek-inner-incr", 0.25, 0.0),
    ("chin-width-decr", "chin-width-incr", 0.3, 0.0),
    ("chin-height-decr", "chin-height-incr", 0.35, -0.3),
    ("chin-prominent-decr", "chin-prominent-incr", 0.4, 0.0),
    ("chin-bones-decr", "chin-bones-incr", 0.25, 0.0),
    ("chin-jaw-drop-decr", "chin-jaw-drop-incr", 0.35, -0.1),
    ("*-eye-scale-decr", "*-eye-scale-incr", 0.3, 0.4),
    ("*-eye-height2-decr", "*-eye-height2-incr", 0.3, 0.3),
    ("*-eye-corner1-down", "*-eye-corner1-up", 0.3, 0.0),
    ("*-eye-corner2-down", "*-eye-corner2-up", 0.4, 0.0),
    ("*-eye-trans-in", "*-eye-trans-out", 0.3, 0.0),
    ("*-eye-eyefold-up", "*-eye-eyefold-down", 0.35, 0.0),
    ("*-eye-bag-decr", "*-eye-bag-incr", 0.35, 0.0),
    ("eyebrows-trans-down", "eyebrows-trans-up", 0.4, 0.0),
    ("eyebrows-angle-down", "eyebrows-angle-up", 0.3, 0.1),
    ("nose-scale-horiz-decr", "nose-scale-horiz-incr", 0.4, 0.0),
    ("nose-scale-vert-decr", "nose-scale-vert-incr", 0.3, 0.0),
    ("nose-scale-depth-decr", "nose-scale-depth-incr", 0.3, 0.0),
    ("nose-hump-decr", "nose-hump-incr", 0.4, 0.0),
    ("nose-point-down", "nose-point-up", 0.4, 0.0),
    ("nose-width2-decr", "nose-width2-incr", 0.4, 0.0),
    ("nose-width3-decr", "nose-width3-incr", 0.4, 0.0),
    ("nose-volume-decr", "nose-volume-incr", 0.4, 0.0),
    ("nose-base-down", "nose-base-up", 0.35, 0.0),
    ("nose-flaring-decr", "nose-flaring-incr", 0.35, 0.0),
    ("mouth-scale-horiz-decr", "mouth-scale-horiz-incr", 0.35, 0.1),
    ("mouth-scale-vert-decr", "mouth-scale-vert-incr", 0.3, 0.0),
    ("mouth-trans-down", "mouth-trans-up", 0.3, 0.0),
    ("mouth-upperlip-height-decr", "mouth-upperlip-height-incr", 0.5, 0.0),
    ("mouth-lowerlip-height-decr", "mouth-lowerlip-height-incr", 0.5, 0.0),
    ("mouth-upperlip-volume-decr", "mouth-upperlip-volume-incr", 0.5, 0.0),
    ("mouth-lowerlip-volume-decr", "mouth-lowerlip-volume-incr", 0.5, 0.0),
    ("mouth-cupidsbow-decr", "mouth-cupidsbow-incr", 0.5, 0.0),
    ("mouth-angles-down", "mouth-angles-up", 0.3, 0.1),
    ("*-ear-scale-decr", "*-ear-scale-incr", 0.4, 0.0),
    ("*-ear-wing-decr", "*-ear-wing-incr", 0.4, 0.0),
)
ASYMMETRY = 0.06  # standard deviation between the two sides of a pair
LEFT_CLEFTS = 2 / 3  # share of left among one-sided clefts, about what clinics report
CAMERA = 12.0  # mesh units between camera and eyes, about 1.2 m

_HAIR = np.array(  # linear light: black, dark brown, brown, chestnut, blond, red, gray, white
    [
        [0.012, 0.010, 0.009],
        [0.035, 0.020, 0.013],
        [0.085, 0.045, 0.024],
        [0.14, 0.058, 0.026],
        [0.42, 0.28, 0.12],
        [0.32, 0.095, 0.03],
        [0.28, 0.28, 0.28],
        [0.62, 0.61, 0.58],
    ]
)
_EYES = np.array(  # linear light: dark brown, brown, hazel, green, blue, gray
    [
        [0.035, 0.017, 0.009],
        [0.09, 0.042, 0.016],
        [0.15, 0.10, 0.035],
        [0.12, 0.20, 0.09],
        [0.09, 0.21, 0.42],
        [0.22, 0.27, 0.31],
    ]
)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A person. Colors are linear RGB in 0..1; left and right are the subject's own."""

    seed: int
    sex: float = 0.5  # 0 female .. 1 male
    age: float = 0.3  # 0 young adult .. 1 old
    ancestry: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)  # Caucasian, Asian, African shapes
    shape: tuple[
        float, ...
    ] = ()  # two weights (left, right) a row of IDENTITY; () is the mean face
    melanin: float = 0.3  # 0..1
    redness: float = 0.5  # of cheeks, nose and lips, 0..1
    hair_color: tuple[float, float, float] = (0.035, 0.020, 0.013)
    hair_length: float = 0.0  # 0 short .. 1 below the shoulders; under 0.3 the ears are free
    hair_volume: float = 0.5  # 0..1
    hairline: float = 0.0  # -1 low, fringe .. 1 high
    baldness: float = 0.0  # 0..1
    brow_thickness: float = 0.5  # 0..1
    beard: float = 0.0  # 0 shaved .. 1 full
    eye_color: tuple[float, float, float] = (0.09, 0.042, 0.016)
    cloth_color: tuple[float, float, float] = (0.1, 0.15, 0.3)
    smile: float = 0.0  # 0..1
    severity: float = 0.0  # of the cleft, 0 none .. 1 complete and wide
    side: str = "none"  # of the cleft: left, right, none
    targets: tuple[tuple[str, float], ...] = ()  # further shape targets and their strengths


@dataclasses.dataclass(frozen=True)
class View:
    """A photograph's circumstances. Directions point toward the light, in the camera's frame."""

    yaw: float = 0.0  # degrees; positive turns the face toward the right edge of the picture
    pitch: float = 0.0  # degrees; positive looks down
    roll: float = 0.0  # degrees; positive leans toward the right edge of the picture
    shift: tuple[float, float] = (0.0, 0.0)  # of the face, in sides of the picture
    zoom: float = 1.0
    distance: float = CAMERA  # mesh units between camera and eyes: perspective, not size
    lights: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...] = (
        ((0.4, 0.5, 0.8), (0.75, 0.75, 0.75)),
        ((-0.7, 0.1, 0.6), (0.18, 0.18, 0.2)),
    )  # (direction, linear RGB)
    ambient: tuple[float, float, float] = (0.35, 0.35, 0.37)  # linear RGB
    background: tuple[float, float, float] = (0.30, 0.34, 0.38)  # linear RGB
    exposure: float = 1.0
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)  # gain of each channel
    noise: float = 0.0  # standard deviation in 8-bit levels at the rendered size
    seed: int = 0  # of the noise


def draw_subject(seed: int, cleft: bool = False) -> Subject:
    """Draws a person; the same seed gives the same person, with or without a cleft.

    With `cleft`, severity is Beta(1.5, 1.8) stretched over 0.1..1 (mean 0.51) and the side is left
    twice as often as right. Severity is independent of everything else.
    """
    rng = np.random.default_rng([seed, 1])
    sex = float(np.clip(rng.choice([0.06, 0.94]) + 0.08 * rng.normal(), 0, 1))
    age = float(rng.beta(1.1, 1.8))
    ancestry = rng.dirichlet([0.45, 0.45, 0.45])
    shape = []
    for _, _, deviation, mean in IDENTITY:
        common, sway = rng.normal(mean, deviation), rng.normal(0, ASYMMETRY)
        shape += [np.clip(common + sway, -1, 1), np.clip(common - sway, -1, 1)]
    melanin = float(np.clip(ancestry @ [0.13, 0.27, 0.80] + 0.10 * rng.normal(), 0, 1))
    redness = float(rng.uniform())
    fair = max(0.0, 1 - melanin / 0.35) * ancestry[0]
    chances = np.array([0.25, 0.25, 0.2, 0.12, 0.25, 0.08, 0, 0]) * np.array(
        [1 - 0.6 * fair, 1, 0.15 + fair, fair, fair, fair, 0, 0]
    )
    hair = _HAIR[rng.choice(len(_HAIR), p=chances / chances.sum())]
    hair = np.clip(hair * np.exp(0.25 * rng.normal() + 0.08 * rng.normal(size=3)), 0.006, 0.8)
    gray = float(np.clip((age - 0.45) * 2.2 + 0.35 * rng.normal(), 0, 1))
    hair = hair * (1 - gray) + gray * _HAIR[rng.choice([6, 7])]
    eyes = np.array([0.35, 0.25, 0.12, 0.1, 0.2, 0.08]) * ([1, 1] + [fair] * 4)
    eye = _EYES[rng.choice(len(_EYES), p=eyes / eyes.sum())] * np.exp(0.15 * rng.normal())
    male = sex > 0.5
    length = rng.beta(1.2, 5) * 0.5 if male else rng.beta(1.7, 1.2)
    bald = male * np.clip(rng.normal(age - 0.55, 0.35), 0, 1)
    beard = male * (rng.uniform() < 0.5) * rng.beta(1.2, 1.2)
    cloth = np.exp(rng.uniform(np.log(0.02), np.log(0.6))) * rng.uniform(0.35, 1, 3)
    subject = Subject(
        seed=seed,
        sex=sex,
        age=age,
        ancestry=_floats(ancestry),
        shape=_floats(shape),
        melanin=melanin,
        redness=redness,
        hair_color=_floats(hair),
        hair_length=float(length),
        hair_volume=float(rng.uniform()),
        hairline=float(np.clip(0.45 * rng.normal(), -1, 1)),
        baldness=float(bald),
        brow_thickness=float(np.clip(0.3 + 0.35 * sex + 0.2 * rng.normal(), 0, 1)),
        beard=float(beard),
        eye_color=_floats(eye),
        cloth_color=_floats(cloth),
        smile=float(rng.uniform(0, 0.9) if rng.uniform() < 0.45 else 0.0),
    )
    if not cleft:
        return subject
    rng = np.random.default_rng([seed, 2])
    severity = 0.1 + 0.9 * rng.beta(1.5, 1.8)
    side = "left" if rng.uniform() < LEFT_CLEFTS else "right"
    return dataclasses.replace(subject, severity=float(severity), side=side)


def draw_view(seed: int) -> View:
    """Draws a nearly frontal photograph: yaw within 12, pitch within 6, roll within 4 degrees."""
    rng = np.random.default_rng([seed, 3])
    side = rng.choice([-1, 1])
    key = [side * rng.uniform(0.0, 0.9), rng.uniform(0.05, 0.75), rng.uniform(0.6, 1.0)]
    fill = [-side * rng.uniform(0.3, 0.9), rng.uniform(-0.2, 0.4), rng.uniform(0.5, 1.0)]
    warm = np.array([1.0, 0.0, -1.0]) * 0.06 * rng.normal()
    strength = rng.uniform(0.55, 0.85)
    light = np.clip(strength * (1 + warm), 0, None)
    dim = rng.uniform(0.08, 0.3) * (1 - 0.5 * warm)
    ambient = rng.uniform(0.28, 0.42) * (1 + 0.03 * rng.normal(size=3))
    shade = np.exp(rng.uniform(np.log(0.06), np.log(0.7)))
    background = shade * np.exp(0.16 * rng.normal(size=3))
    return View(
        yaw=_within(rng, 12),
        pitch=_within(rng, 6),
        roll=_within(rng, 4),
        shift=_floats(rng.uniform(-0.008, 0.008, 2)),
        zoom=float(rng.uniform(0.98, 1.02)),
        lights=((_floats(key), _floats(light)), (_floats(fill), _floats(dim))),
        ambient=_floats(ambient),
        background=_floats(np.clip(background, 0.02, 0.9)),
        exposure=float(np.exp(rng.uniform(-0.15, 0.15))),
        white_balance=_floats(np.exp(np.array([1, 0, -1]) * 0.04 * rng.normal())),
        noise=float(rng.uniform(0, 1.5)),
        seed=seed,
    )


def _within(rng: np.random.Generator, limit: float) -> float:
    """A bell within +-limit."""
    return float(limit * (2 * rng.beta(2.5, 2.5) - 1))


def _floats(values) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
