"""What lies in the phantom's skin: pigment spots, red spots and pores, at known places.

Light that enters skin is absorbed by melanin, the more the shorter its wavelength, and by hemoglobin,
which takes green most and red hardly; in ultraviolet light melanin absorbs several times as much and
hemoglobin hardly shows (Anderson & Parrish 1981, J. Invest. Dermatol. 77). The ratios below follow that;
how strong and how many the marks are is chosen, by two rules and before any network was trained: a spot
detector on the color photograph alone must stay under r = 0.7, because red spots darken it too, and a
linear mix of the three colors must show that the pigment is still in there.
"""

import dataclasses

import cv2
import numpy as np

from jaxface import locks
from jaxface.phantom import head as heads
from jaxface.phantom.people import Subject
from jaxface.phantom.render import Sight

MELANIN, HEMOGLOBIN = 0, 1
# Optical density (natural) in red, green, blue and ultraviolet of a mark of density 1.
ABSORBS = np.float32([[0.155, 0.25, 0.42, 1.0], [0.006, 0.34, 0.18, 0.05]])
PORES = np.float32([1.0, 1.0, 1.0, 0.5])  # of the skin's relief: gray, and less in even UV light
_EYES_APART = 0.616  # between the eyes' centers on the undeformed mesh
_NOISE = 1024


@dataclasses.dataclass(frozen=True)
class Marks:
    """All marks of one person, S of them, on the undeformed mesh."""

    kind: np.ndarray  # int [S]: MELANIN or HEMOGLOBIN
    face: np.ndarray  # int [S]: triangle
    weights: np.ndarray  # [S, 3]: place in it
    radius: np.ndarray  # [S] in mesh units (about 1 dm)
    density: np.ndarray  # [S] at the center
    shape: (
        np.ndarray
    )  # [S, 2]: shorter axis over longer one, direction of the longer one in radians
    relief: float  # standard deviation of the pores' optical density
    seed: int


@locks.made_once
def _skin() -> tuple[np.ndarray, np.ndarray]:
    """Triangles of the face that marks lie on, and the chance of each: area, more on the cheeks."""
    head = heads.load()
    corners = head.rest[head.faces]
    center = corners.mean(1)
    x, y, z = np.abs(center[:, 0]), center[:, 1], center[:, 2]
    on_face = (head.groups == heads.SKIN) & (z > 0.75) & (y > 6.2) & (y < 8.0) & (x < 0.85)
    on_face &= ~((y < 6.72) & (y > 6.47) & (x < 0.29) & (z > 1.2))  # lips
    on_face &= ~((np.abs(y - 7.28) < 0.09) & (np.abs(x - 0.32) < 0.17))  # eyes
    chosen = np.flatnonzero(on_face)
    a, b, c = corners[chosen].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    cheek = np.exp(-(((x - 0.48) / 0.22) ** 2) - ((y - 6.95) / 0.25) ** 2)[chosen]
    chance = area * (0.35 + cheek)
    return chosen, chance / chance.sum()


def draw_marks(subject: Subject) -> Marks:
    """Draws a person's marks: how many and how strong varies much more between people than within.

    The numbers of pigment and of red spots are independent lognormals (medians 130 and 375 on the whole
    face), so that what darkens a color photograph says little of what a UV photograph shows. Pigment
    spots are a little more frequent with age. A few are moles, which everybody sees.
    """
    rng = np.random.default_rng([subject.seed, 6])
    pigment = rng.poisson(130 * np.exp(0.85 * rng.normal() + 0.8 * (subject.age - 0.38)))
    red = rng.poisson(375 * np.exp(0.85 * rng.normal()))
    moles = rng.poisson(3)
    kind = np.repeat([MELANIN, HEMOGLOBIN, MELANIN], [pigment, red, moles])
    total = len(kind)
    strength = [0.50 * np.exp(0.20 * rng.normal()), 0.88 * np.exp(0.25 * rng.normal()), 2.5]
    density = np.repeat(strength, [pigment, red, moles]) * np.exp(0.40 * rng.normal(size=total))
    radius = 0.0058 * np.exp(0.32 * rng.normal(size=total))
    chosen, chance = _skin()
    weights = rng.dirichlet([1, 1, 1], total)
    shape = np.stack([rng.uniform(0.6, 1, total), rng.uniform(0, np.pi, total)], 1)
    return Marks(
        kind=kind,
        face=rng.choice(chosen, total, p=chance),
        weights=weights,
        radius=np.clip(radius, 0.0032, 0.0125),
        density=np.clip(density, 0.15, 4.0),
        shape=shape,
        relief=float(rng.uniform(0.008, 0.022)),
        seed=subject.seed,
    )


def densities(marks: Marks, seen: Sight, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps of a photograph of side `size`, in which `seen` (of any side) says where the head is.

    Returns:
      (optical density float32 [size, size, 4] in red, green, blue and ultraviolet that the marks and
      pores add, pigment bool [size, size] where a pigment spot is, skin float32 [size, size] in 0..1).
    """
    head = heads.load()
    scale = size / seen.size
    corners = seen.points[head.faces[marks.face]]
    center = np.einsum("sk,skc->sc", marks.weights, corners)[:, :2] * scale
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    # Pixels count y downward, so the normal of a triangle that faces the camera has negative z here.
    facing = -normals[:, 2]

    rest = np.full((seen.size**2, 3), np.nan, np.float32)
    rest[seen.pixel] = seen.rest
    column, row = (np.clip((center[:, k] / scale).astype(int), 0, seen.size - 1) for k in (0, 1))
    place = np.einsum("sk,skc->sc", marks.weights, head.rest[head.faces[marks.face]])
    apart = np.linalg.norm(rest[row * seen.size + column] - place, axis=1)
    visible = np.flatnonzero((apart < 0.06) & (facing > 0.25))

    eyes = [np.array(seen.landmarks[name]) for name in ("left_eye", "right_eye")]
    unit = np.linalg.norm(eyes[0] - eyes[1]) * size / _EYES_APART  # px of a mesh unit
    amount = np.zeros((2, size, size), np.float32)
    pigment = np.zeros((size, size), bool)
    for s in visible:
        radius = marks.radius[s] * unit
        reach = int(np.ceil(1.8 * radius + 1))
        x0, y0 = (int(np.floor(center[s, k])) - reach for k in (0, 1))
        x1, y1 = x0 + 2 * reach + 1, y0 + 2 * reach + 1
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, size), min(y1, size)
        if x1 <= x0 or y1 <= y0:
            continue
        dx = (np.arange(x0, x1) + 0.5 - center[s, 0])[None]
        dy = (np.arange(y0, y1) + 0.5 - center[s, 1])[:, None]
        # Foreshortening: what turns away from the camera is seen narrower along its tilt.
        tilt = normals[s, :2] / max(np.hypot(*normals[s, :2]), 1e-9)
        along = (dx * tilt[0] + dy * tilt[1]) * (1 / facing[s] - 1)
        dx, dy = dx + along * tilt[0], dy + along * tilt[1]
        ratio, angle = marks.shape[s]
        u = dx * np.cos(angle) + dy * np.sin(angle)
        v = (dy * np.cos(angle) - dx * np.sin(angle)) / ratio
        inside = 1 / (1 + np.exp(np.clip((np.hypot(u, v) / radius - 1) / 0.16, -30, 30)))
        window = (slice(y0, y1), slice(x0, x1))
        amount[marks.kind[s]][window] += marks.density[s] * inside
        if marks.kind[s] == MELANIN:
            pigment[window] |= inside > 0.5

    bare = np.zeros(seen.size**2, np.float32)
    bare[seen.pixel] = seen.group == heads.SKIN
    skin = cv2.resize(bare.reshape(seen.size, -1), (size, size), interpolation=cv2.INTER_LINEAR)
    total = np.einsum("khw,kc->hwc", amount, ABSORBS)
    total += marks.relief * _pores(marks.seed, size)[..., None] * PORES
    return total * skin[..., None], pigment, skin


@locks.made_once
def _relief() -> np.ndarray:
    """Tileable [1024, 1024] of unit deviation: small pits of about 1 to 2 px among fine lines."""
    rng = np.random.default_rng(20210115)
    frequency = np.hypot(np.fft.fftfreq(_NOISE)[:, None], np.fft.fftfreq(_NOISE)[None])
    gain = np.exp(-((frequency / 0.16) ** 2)) - np.exp(-((frequency / 0.05) ** 2))
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(_NOISE, _NOISE))) * gain).real
    field = np.exp(0.6 * field / field.std())  # skewed: pits are darker than ridges are bright
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _pores(seed: int, size: int) -> np.ndarray:
    shift = np.random.default_rng([seed, 7]).integers(0, _NOISE, 2)
    index = [(np.arange(size) + s) % _NOISE for s in shift]
    return _relief()[index[0][:, None], index[1][None]]
