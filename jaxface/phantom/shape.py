"""From a subject to the vertices of the head."""

import numpy as np

from jaxface.phantom import head as heads
from jaxface.phantom.people import IDENTITY, Subject

SMILE = {
    "mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "cheekSquintLeft": 0.6, "cheekSquintRight": 0.6,
    "mouthUpperUpLeft": 0.35, "mouthUpperUpRight": 0.35, "jawOpen": 0.10,
}  # fmt: skip
NOSTRIL = (0.095, 6.835)  # rest x (of the left one) and y of a nostril's floor
LIP_BOTTOM = 6.608  # rest y of the upper lip's free edge
GAP_BOTTOM = 0.085  # rest x where a left cleft leaves the lip's free edge: under the bow's peak


def side_sign(subject: Subject) -> float:
    """+1 for a cleft on the subject's left (positive x), -1 for the right, 0 for none."""
    return {"left": 1.0, "right": -1.0, "none": 0.0}[subject.side]


def build(subject: Subject) -> np.ndarray:
    """Vertices [V, 3] of the subject in mesh units."""
    head = heads.load()
    weights = np.zeros(len(head.names), np.float32)

    def add(name: str, weight: float) -> None:
        weights[head.names[name]] += weight

    for sex, share in (("male", subject.sex), ("female", 1 - subject.sex)):
        for kind, part in zip(("caucasian", "asian", "african"), subject.ancestry):
            add(f"{kind}-{sex}-young", share * part * (1 - subject.age))
            add(f"{kind}-{sex}-old", share * part * subject.age)
    if subject.shape:
        for (less, more, _, _), pair in zip(IDENTITY, np.reshape(subject.shape, (-1, 2))):
            for side, weight in zip("lr", pair if less[0] == "*" else pair[:1]):
                add((more if weight > 0 else less).replace("*", side), abs(weight))
    for name, weight in SMILE.items():
        add(name, weight * subject.smile)
    for name, weight in subject.targets:
        add(name, weight)
    vertices = head.rest + (head.targets @ weights).reshape(-1, 3)

    skin = slice(0, head.curtain.start)
    rest = head.rest[skin]
    crown = np.abs(rest[:, 1] - 7.6) < 0.25
    offset = (vertices[skin] - rest)[crown].mean(0)
    width = np.abs(vertices[skin][crown, 0]).max() / np.abs(rest[crown, 0]).max()
    volume = 0.03 + 0.16 * subject.hair_volume
    end = 7.0 - 1.7 * subject.hair_length
    loose = heads.curtain(end, 0.06 + 0.14 * subject.hair_volume, np.sin(subject.seed))
    for part, sheet in ((head.curtain, loose), (head.cloth, heads.cloth())):
        vertices[part] = sheet * [width, 1, 1] + offset * [0, 1, 1]
    if subject.hair_length < 0.3:
        vertices[head.curtain] = offset + [0, 7, 0.5]  # no area: never drawn

    full = np.clip(hair_depth(subject, rest) / 0.22, 0, 1)
    full = full * full * (3 - 2 * full)
    away = rest - [0, 7.45, 0.5]
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    vertices[skin] += (volume * full * (1 - 0.9 * subject.baldness))[:, None] * away
    if subject.severity > 0:
        vertices[skin] += cleft_displacement(rest, subject)
    return vertices.astype(np.float32)


def hair_depth(subject: Subject, rest: np.ndarray) -> np.ndarray:
    """How far inside the hairline a point at rest [..., 3] lies, negative outside, in mesh units."""
    fringe = 0.16 * subject.hairline - 0.22 * (subject.hairline < -0.55)
    bare = subject.baldness
    z = np.array([-0.6, 0.2, 0.33, 0.36, 0.66, 0.70, 0.82, 0.95, 1.12, 1.3, 1.5, 1.8])
    y = np.array([6.45, 6.6, 7.3, 7.42, 7.42, 7.12, 7.16, 7.55, 7.84, 7.93, 7.95, 7.95])
    y = y + fringe * np.clip((z - 0.8) / 0.3, 0, 1)
    y = y + bare * np.interp(z, [0.0, 0.6, 0.9, 1.2], [0.0, 0.3, 0.9, 0.9])
    return rest[..., 1] - np.interp(rest[..., 2], z, y).astype(rest.dtype)


def gap(subject: Subject, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The cleft's wedge at rest points: (signed distance from its middle line, half width, top).

    x is already mirrored, so that the cleft lies on the positive side.
    """
    severity = subject.severity
    reach = NOSTRIL[1] - LIP_BOTTOM
    top = LIP_BOTTOM + min(0.05 + 0.42 * severity, reach)
    along = np.clip((y - LIP_BOTTOM) / reach, 0, 1)
    middle = GAP_BOTTOM + (NOSTRIL[0] - GAP_BOTTOM) * along
    taper = np.clip((top - y) / (top - LIP_BOTTOM), 0, 1)
    half = (0.012 + 0.075 * severity) * taper**0.8 + 0.03 * max(severity - 0.45, 0) * (1 - taper)
    return x - middle, half, top


def cleft_displacement(rest: np.ndarray, subject: Subject) -> np.ndarray:
    """Displacement [V, 3] of a stylised one-sided cleft lip: gap, lifted lip edges, flat nostril."""
    sign, severity = side_sign(subject), subject.severity
    x, y, z = sign * rest[:, 0], rest[:, 1], rest[:, 2]
    front = np.clip((z - 1.36) / 0.06, 0, 1)
    offset, half, top = gap(subject, x, y)
    upper = np.clip((y - LIP_BOTTOM + 0.012) / 0.012, 0, 1)  # leaves the lower lip alone
    fade = np.clip((top + 0.06 - y) / 0.12, 0, 1)
    near = upper * fade * front * np.clip((0.25 - x) / 0.06, 0, 1)

    beside = _bell(offset / 0.11) * near
    free = np.clip((6.77 - y) / 0.16, 0, 1)
    apart = severity * (0.02 + 0.07 * free) * np.tanh(offset / 0.025) * beside
    lift = 0.075 * severity * _bell(offset / 0.07) * free * near
    deep = -0.07 * severity * _bell(offset / (half + 0.015)) * near

    ala = _bell((x - 0.165) / 0.085, (y - 6.885) / 0.085) * front
    tip = _bell(x / 0.10, (y - 6.88) / 0.10) * front
    moved_x = apart + severity * (0.065 * ala - 0.035 * tip)
    moved_y = lift - 0.045 * severity * ala
    moved_z = deep - 0.075 * severity * ala
    return np.stack([sign * moved_x, moved_y, moved_z], 1)


def _bell(*terms: np.ndarray) -> np.ndarray:
    """A Gaussian that is exactly zero away from its middle, so that the rest of the face stays."""
    return np.maximum(np.exp(-sum(term * term for term in terms)) - 0.01, 0)
