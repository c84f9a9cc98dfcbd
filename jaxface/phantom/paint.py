"""Procedural colors of the head, painted in rest coordinates. All colors are linear RGB in 0..1."""

import functools

import numpy as np

from jaxface.phantom import head as heads
from jaxface.phantom.people import Subject
from jaxface.phantom.shape import LIP_BOTTOM, gap, hair_depth, side_sign

_SKIN_MELANIN = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
_SKIN_SRGB = np.array(
    [[246, 214, 195], [226, 181, 150], [178, 126, 90], [122, 79, 52], [70, 45, 32]]
)
_NOISE = 512


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """Of sRGB in 0..1 (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


@functools.cache
def _noise(kind: str) -> np.ndarray:
    """Tileable [512, 512] noise of unit deviation: "blotch" 1/f, "strand" long in its rows' axis."""
    rng = np.random.default_rng(20231012)
    u = np.fft.fftfreq(_NOISE)[:, None] * _NOISE
    w = np.fft.fftfreq(_NOISE)[None] * _NOISE
    if kind == "blotch":
        gain = 1 / np.maximum(np.hypot(u, w), 2) ** 1.1
    else:
        gain = np.exp(-((u / 5) ** 2)) / np.maximum(np.abs(w), 6) ** 0.6
    spectrum = np.fft.fft2(rng.normal(size=(_NOISE, _NOISE))) * gain
    field = np.fft.ifft2(spectrum).real
    field -= field.mean()
    return (field / field.std()).astype(np.float32)


def _look_up(kind: str, u: np.ndarray, v: np.ndarray, seed: int) -> np.ndarray:
    """Noise at u, v (one tile a unit), shifted by the seed."""
    du, dv = np.random.default_rng([seed, 4]).integers(0, _NOISE, 2)
    row = (v * _NOISE).astype(np.int32) + dv
    column = (u * _NOISE).astype(np.int32) + du
    return _noise(kind)[row % _NOISE, column % _NOISE]


def skin_color(melanin: float) -> np.ndarray:
    srgb = [np.interp(melanin, _SKIN_MELANIN, _SKIN_SRGB[:, k]) for k in range(3)]
    return srgb_to_linear(np.array(srgb) / 255).astype(np.float32)


def lip_color(subject: Subject) -> np.ndarray:
    skin = skin_color(subject.melanin)
    tint = np.array([0.80, 0.36, 0.36]) - np.array([0.0, 0.10, 0.07]) * subject.redness
    tint -= np.array([0.0, 0.05, 0.03]) * (1 - subject.sex)
    return (skin * tint).astype(np.float32)


def paint(subject: Subject, rest: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (color [N, 3], gloss [N]) of points at rest [N, 3] belonging to `group` [N]."""
    color = np.empty((len(rest), 3), np.float32)
    gloss = np.full(len(rest), 0.035, np.float32)
    around = np.arctan2(rest[:, 0], rest[:, 2] - 0.45)

    hair = group == heads.CURTAIN
    color[hair], gloss[hair] = _hair(subject, rest[hair], around[hair]), 0.05
    skin = np.flatnonzero(group == heads.SKIN)
    color[skin], gloss[skin] = _skin(subject, rest[skin], around[skin])
    for eye, sign in ((heads.LEFT_EYE, 1), (heads.RIGHT_EYE, -1)):
        at = group == eye
        color[at], gloss[at] = _eye(subject, rest[at] * [sign, 1, 1]), 0.0
    color[(group == heads.UPPER_TEETH) | (group == heads.LOWER_TEETH)] = [0.72, 0.66, 0.56]
    color[group == heads.TONGUE] = [0.35, 0.10, 0.10]
    color[group == heads.CLOTH] = subject.cloth_color
    return color, gloss


def _hair(subject: Subject, rest: np.ndarray, around: np.ndarray) -> np.ndarray:
    strand = _look_up("strand", around / np.pi, rest[:, 1] * 0.12, subject.seed)
    shade = np.exp(0.30 * np.clip(strand, -2.5, 2.5))
    return np.array(subject.hair_color, np.float32) * shade[:, None]


def _skin(subject, rest, around):
    x, y, z = rest.T
    ax = np.abs(x)
    front = z > 0.9
    blotch = _look_up("blotch", around * 0.33, y * 0.33, subject.seed)
    color = skin_color(subject.melanin) * (1 + 0.045 * blotch[:, None])
    gloss = np.full(len(rest), 0.030, np.float32)

    rosy = _bump((ax - 0.44) / 0.2, (y - 6.97) / 0.16) + 0.8 * _bump(x / 0.14, (y - 6.93) / 0.12)
    rosy = rosy * front * (0.15 + 0.85 * subject.redness) * (1 - 0.6 * subject.melanin)
    color *= 1 - rosy[:, None] * np.array([0.02, 0.26, 0.22], np.float32)

    hair_color = np.array(subject.hair_color, np.float32)
    near = np.flatnonzero((z > 0.62) & (ax < 0.8) & (y > 6.1) & (y < 8.0))
    color[near], gloss[near] = _features(subject, rest[near], color[near], gloss[near], hair_color)

    depth = hair_depth(subject, rest) + 0.02 * _look_up("strand", around, y * 0.1, subject.seed)
    scalp = _step(depth / 0.05 + 0.5) * (1 - 0.55 * subject.baldness * _step((y - 7.6) / 0.3))
    at = np.flatnonzero(scalp > 0)
    color[at] = _mix(color[at], _hair(subject, rest[at], around[at]), scalp[at])
    return color, gloss


def _features(subject, rest, color, gloss, hair_color):
    """Brows, lids, lips, beard, wrinkles and cleft of the points [N, 3] on the front of the face."""
    x, y, z = rest.T
    ax = np.abs(x)
    furrow = subject.age**1.5
    if furrow > 0.05:
        fold = ax - _interp(y, [6.55, 6.75, 6.95], [0.33, 0.27, 0.19])
        lines = 0.5 * np.exp(-((fold / 0.02) ** 2)) * (y > 6.55) * (y < 6.95)
        lines += (
            0.4
            * np.exp(-(((y - 7.21 + 0.25 * (ax - 0.32) ** 2) / 0.016) ** 2))
            * (ax > 0.18)
            * (ax < 0.46)
        )
        for height in (7.63, 7.72, 7.81):
            wave = y - height - 0.012 * np.sin(14 * x + 20 * height)
            lines += 0.4 * np.exp(-((wave / 0.012) ** 2)) * (ax < 0.45)
        color = color * (1 - 0.5 * furrow * np.clip(lines, 0, 1))[:, None]

    if subject.beard > 0:
        cheek = _interp(ax, [0, 0.22, 0.3, 0.42, 0.62, 0.75], [6.47, 6.56, 6.76, 6.80, 7.02, 7.25])
        chin = _step((cheek - y) / 0.08) * _step((y - 6.12) / 0.06)
        moustache = _step((6.79 - y) / 0.03) * _step((y - 6.64) / 0.03) * _step((0.33 - ax) / 0.05)
        grain = 0.85 + 0.15 * _look_up("strand", x * 1.7, y * 0.6, subject.seed)
        cover = np.maximum(chin, moustache) * np.clip(grain, 0, 1) * (0.15 + 0.75 * subject.beard)
        color = _mix(color, hair_color * 0.6, np.clip(cover, 0, 0.92))

    arch = 0.045 - 0.02 * subject.sex
    t = np.clip((ax - 0.13) / 0.37, 0, 1)
    middle = 7.46 + arch * (np.sin(np.pi * (0.15 + 0.8 * t)) - 0.3)
    half = (0.017 + 0.023 * subject.brow_thickness) * (1 - 0.65 * t**2)
    brow = _step((half - np.abs(y - middle)) / 0.016 + 0.5)
    brow *= _step((ax - 0.115) / 0.04) * _step((0.52 - ax) / 0.06)
    hairs = 0.85 + 0.15 * _look_up("strand", x * 2 + y, y * 0.8, subject.seed)
    color = _mix(color, np.minimum(hair_color, 0.25) * 0.8, brow * np.clip(hairs, 0, 1) * 0.9)

    across = (ax - 0.32) / 0.135
    lid = 7.276 + 0.056 * (1 - across**2)
    lash = np.exp(-(((y - lid - 0.006) / 0.012) ** 2)) * (np.abs(across) < 1.15)
    under = 7.27 - 0.032 * (1 - across**2)
    lash += 0.35 * np.exp(-(((y - under) / 0.010) ** 2)) * (np.abs(across) < 1.0)
    color = _mix(
        color, np.float32([0.02, 0.013, 0.01]), np.clip(lash, 0, 1) * (0.8 - 0.25 * subject.sex)
    )

    lips = lip_color(subject)
    upper = _interp(
        ax, [0, 0.04, 0.085, 0.15, 0.21, 0.265], [6.677, 6.687, 6.701, 6.682, 6.65, 6.612]
    )
    lower = _interp(ax, [0, 0.10, 0.16, 0.22, 0.265], [6.487, 6.497, 6.522, 6.566, 6.612])
    lip = (
        _step(np.minimum(upper - y, y - lower) / 0.014 + 0.5)
        * _step((0.268 - ax) / 0.02)
        * (z > 1.2)
    )
    color = _mix(color, lips, 0.92 * lip)
    gloss = gloss + 0.05 * lip
    line = np.exp(-(((y - LIP_BOTTOM + 0.002) / 0.009) ** 2)) * (ax < 0.255)
    color = color * (1 - 0.75 * line)[:, None]
    nostril = _bump((ax - 0.098) / 0.045, (y - 6.862) / 0.018) * (z > 1.4)
    color = color * (1 - 0.8 * np.clip(1.3 * nostril, 0, 1))[:, None]
    if subject.severity > 0:
        color, gloss = _cleft(subject, x * side_sign(subject), y, z, color, gloss, lips)
    return color, gloss


def _cleft(subject, x, y, z, color, gloss, lips):
    """Vermilion along both edges of the gap, mucosa inside."""
    offset, half, top = gap(subject, x, y)
    front = (z > 1.38) & (y > LIP_BOTTOM - 0.008) & (x < 0.25)
    beyond = np.abs(offset) - half
    rim_width = 0.012 + 0.028 * subject.severity
    rim = _step((rim_width - beyond) / 0.012) * _step((top + 0.01 - y) / 0.02 + 0.5) * front
    edge = 0.5 * lips * np.float32([1, 0.7, 0.7]) + np.float32([0.28, 0.06, 0.055])
    color = _mix(color, edge, 0.95 * rim)
    inside = _step(-beyond / 0.008 + 0.5) * _step((top - y) / 0.01 + 0.5) * front
    core = np.clip(1 - np.abs(offset) / np.maximum(half, 1e-6), 0, 1)[:, None]
    mucosa = (
        np.float32([0.20, 0.025, 0.025]) * (1 - core) + np.float32([0.045, 0.006, 0.007]) * core
    )
    return _mix(color, mucosa, inside), gloss * (1 - inside)


def _eye(subject, rest):
    """Iris, pupil and white of the points [N, 3] of the left eyeball at rest."""
    place = (rest - heads.EYE) / heads.EYE_RADIUS
    radius = np.hypot(place[:, 0] - 0.02, place[:, 1])
    color = np.tile(np.float32([0.74, 0.71, 0.69]), (len(rest), 1))
    color *= (1 - 0.25 * np.clip(np.abs(place[:, 0]) - 0.5, 0, 1))[:, None]
    iris = np.array(subject.eye_color, np.float32)
    ring = iris * (0.75 + 0.9 * np.clip(0.5 - radius, 0, 0.3))[:, None]
    color = _mix(color, ring, _step((0.47 - radius) / 0.05 + 0.5))
    rim = np.exp(-(((radius - 0.45) / 0.05) ** 2))
    color *= (1 - 0.7 * rim)[:, None]
    color = _mix(color, np.float32([0.006] * 3), _step((0.20 - radius) / 0.04 + 0.5))
    lid = np.clip((place[:, 1] - 0.1) / 0.25, 0, 1)
    color = color * (1 - 0.5 * lid)[:, None]
    glint = _step((0.09 - np.hypot(place[:, 0] - 0.13, place[:, 1] - 0.16)) / 0.04)
    return _mix(color, np.float32([0.9] * 3), glint)


def _interp(x, at, values):
    return np.interp(x, at, values).astype(np.float32)


def _bump(*terms):
    return np.exp(-sum(term * term for term in terms))


def _step(t):
    """Smooth step from 0 at t = 0 to 1 at t = 1."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _mix(color, other, share):
    share = share[:, None]
    return color + (other - color) * share
