"""The camera: a subject and a view to a picture with exact truth.

A digital phantom in the sense of medical imaging: made to know the truth of every picture, not to be
taken for a patient. Its cleft is stylised (a wedge from the lip's edge to the nostril whose height,
width and the distortion around it grow with `severity`), and nothing measured on it is a clinical
claim.

Faces appear in the frame to which `jaxface.faces.align` brings photographs: in a picture of side 1
the eyes near (0.5 -+ EYE_HALF_DISTANCE, EYES_Y), the mouth near (0.5, MOUTH_Y), up to the view's
small shift, zoom and roll.
"""

import dataclasses

import cv2
import numpy as np

from jaxface.phantom import head as heads
from jaxface.phantom import paint, shape
from jaxface.phantom.people import CAMERA, Subject, View, draw_subject, draw_view
from jaxface.phantom.raster import rasterize

__all__ = [
    "CAMERA", "EYES_Y", "EYE_HALF_DISTANCE", "MOUTH_Y", "Picture", "Subject", "View",
    "draw_subject", "draw_view", "render",
]  # fmt: skip

EYES_Y, EYE_HALF_DISTANCE, MOUTH_Y = 0.40, 0.17, 0.735  # in sides of the picture
_WRAP = np.float32(
    [0.38, 0.24, 0.18]
)  # light that skin carries round the edge of a shadow: red most
_PLACES = {  # rest coordinates of the landmarks on the skin
    "left_mouth_corner": (0.258, 6.612, 1.44),
    "right_mouth_corner": (-0.258, 6.612, 1.44),
    "nose_tip": (0.0, 6.925, 1.68),
}


@dataclasses.dataclass(frozen=True)
class Sight:
    """What the camera sees of a head, before any light: the N pixels that see something."""

    size: int  # side in px
    points: np.ndarray  # [V, 3] of all vertices in px: x, y downward, z toward the camera
    landmarks: dict[str, tuple[float, float]]  # (x, y) in sides of the picture
    pixel: np.ndarray  # int [N] = row * size + column
    face: np.ndarray  # int [N]: the triangle there
    group: np.ndarray  # int [N]
    rest: np.ndarray  # [N, 3]: the place on the undeformed mesh
    normal: np.ndarray  # [N, 3] in the camera's frame, about of unit length
    reach: np.ndarray  # [N, 1 + lights]: how much of the even and of each light arrives


@dataclasses.dataclass(frozen=True)
class Picture:
    """A rendered photograph. Left and right are the subject's own."""

    image: np.ndarray  # uint8 [S, S, 3], sRGB
    mask: np.ndarray  # bool [S, S]: head, hair and neck
    landmarks: dict[str, tuple[float, float]]  # (x, y) in px; a pixel's center is at +0.5


def render(subject: Subject, view: View, size: int, supersample: int = 2) -> Picture:
    """Photographs the subject; the same arguments give the same bytes.

    Args:
      size: side of the picture in px.
      supersample: the scene is sampled at size * supersample and averaged in linear light.
    """
    large = size * supersample
    seen = look(subject, view, large)
    color, gloss = paint.paint(subject, seen.rest, seen.group)
    scene = background(view, large)
    scene.reshape(-1, 3)[seen.pixel] = shade(color, gloss, seen.normal, seen.reach, view)
    cover = np.zeros((large, large), np.float32)
    cover.reshape(-1)[seen.pixel] = seen.group != heads.CLOTH
    if supersample > 1:
        scene = cv2.resize(scene, (size, size), interpolation=cv2.INTER_AREA)
        cover = cv2.resize(cover, (size, size), interpolation=cv2.INTER_AREA)
    places = {name: (float(x * size), float(y * size)) for name, (x, y) in seen.landmarks.items()}
    return Picture(develop(scene, view), cover > 0.5, places)


def look(subject: Subject, view: View, size: int) -> Sight:
    """Finds what each pixel of a picture of side `size` sees, without supersampling."""
    head = heads.load()
    vertices = shape.build(subject)
    turn = _rotation(view)
    points, landmarks, unit = _project(head, vertices, turn, view)
    points[:, :2] *= size
    pixel, face, weights = rasterize(points, head.faces, size)
    points[:, 2] *= size * unit
    normal = heads.normals(head, vertices) @ turn.T
    light = _reach(head, turn, view)
    attributes = np.concatenate([head.rest, normal, light], 1).astype(np.float32)
    at = np.einsum("nk,nkc->nc", weights, attributes[head.faces[face]])
    return Sight(
        size,
        points,
        landmarks,
        pixel,
        face,
        head.groups[face],
        at[:, :3],
        at[:, 3:6],
        at[:, 6:],
    )


def _rotation(view: View) -> np.ndarray:
    """[3, 3] of yaw and pitch; roll is the camera's."""
    yaw, pitch = np.deg2rad(view.yaw), np.deg2rad(view.pitch)
    c, s = np.cos(yaw), np.sin(yaw)
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    c, s = np.cos(pitch), np.sin(pitch)
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return (about_x @ about_y).astype(np.float32)


def _project(head, vertices, turn, view):
    """Where vertices and landmarks are seen.

    Returns:
      (points [V, 3]: x, y in sides of the picture, y downward, z in mesh units toward the camera;
      {landmark: x, y in sides of the picture}; sides of the picture that a mesh unit measures there).
    """
    rest = head.rest
    groups = {}
    for name, side in (("left_eye", 1), ("right_eye", -1)):
        groups[name] = np.flatnonzero(
            ((rest - (heads.EYE + [0, 0, 0.10]) * [side, 1, 1]) ** 2).sum(1) < 0.09**2
        )
    skin = rest[: head.curtain.start]
    for name, place in _PLACES.items():
        groups[name] = np.argmin(((skin - place) ** 2).sum(1))[None]
    eyes = vertices[np.concatenate([groups["left_eye"], groups["right_eye"]])].mean(0)
    turned = (vertices - eyes) @ turn.T
    near = view.distance / (view.distance - turned[:, 2])
    flat = (turned[:, 0] - 1j * turned[:, 1]) * near

    mark = {name: flat[index].mean() for name, index in groups.items()}
    source = np.array(
        [
            mark["right_eye"],
            mark["left_eye"],
            (mark["left_mouth_corner"] + mark["right_mouth_corner"]) / 2,
        ]
    )
    frame = np.array(
        [
            0.5 - EYE_HALF_DISTANCE + EYES_Y * 1j,
            0.5 + EYE_HALF_DISTANCE + EYES_Y * 1j,
            0.5 + MOUTH_Y * 1j,
        ]
    )
    spread = source - source.mean()
    scale = np.vdot(spread, frame - frame.mean()) / np.vdot(spread, spread)
    placed = (flat - source.mean()) * scale + frame.mean()
    pivot = 0.5 + EYES_Y * 1j
    jitter = view.zoom * np.exp(1j * np.deg2rad(view.roll))
    placed = (placed - pivot) * jitter + pivot + complex(*view.shift)
    points = np.stack([placed.real, placed.imag, turned[:, 2]], 1)
    landmarks = {name: points[index, :2].mean(0) for name, index in groups.items()}
    return points, landmarks, float(abs(scale)) * view.zoom


def _reach(head, turn, view):
    """How much ambient light and how much of each light reaches a vertex [V, 1 + L]."""
    share = [np.exp(30 * (head.directions @ (_unit(way) @ turn) - 1)) for way, _ in view.lights]
    share = [(part / part.sum()).astype(np.float32) for part in share]
    # einsum and not @: a thread pool for so small a product costs more than it saves.
    arrives = np.einsum("vd,ld->vl", head.visible, np.stack(share))
    return np.concatenate([head.sky[:, None], arrives], 1)


def shade(color, gloss, normal, reach, view):
    """Linear light [N, 3] that N points of these colors and normals send to the camera."""
    normal = normal / np.sqrt(np.einsum("nk,nk->n", normal, normal) + 1e-12)[:, None]
    open_sky = 0.15 + 0.85 * reach[:, :1]
    light = np.float32(view.ambient) * open_sky * (0.85 + 0.15 * normal[:, 1:2])
    shine = np.zeros((len(color), 3), np.float32)
    for k, (direction, strength) in enumerate(view.lights):
        toward = np.float32(_unit(direction))
        arrives = reach[:, k + 1, None] * np.float32(strength)
        light = light + arrives * np.clip((normal @ toward[:, None] + _WRAP) / (1 + _WRAP), 0, None)
        halfway = np.float32(_unit(toward + [0, 0, 1]))
        shine += arrives * (np.clip(normal @ halfway, 0, 1) ** 24)[:, None]
    return color * light + gloss[:, None] * 2.2 * shine


def background(view, size):
    """Linear light [size, size, 3] of a wall, darker to the bottom."""
    down = np.linspace(1.12, 0.82, size, dtype=np.float32)[:, None, None]
    return np.broadcast_to(np.float32(view.background) * down, (size, size, 3)).copy()


def develop(scene, view):
    """Linear light -> uint8 sRGB, with sensor noise."""
    value = levels(scene, view)
    if view.noise:
        value = value + view.noise * np.random.default_rng([view.seed, 5]).normal(size=value.shape)
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)


def levels(scene, view):
    """Linear light -> sRGB in 0..255 with exposure, white balance and a soft shoulder."""
    value = scene * np.float32(view.white_balance) * view.exposure
    value = np.where(value > 0.7, 0.7 + 0.3 * np.tanh((value - 0.7) / 0.3), value)
    value = np.clip(value, 0, 1)
    return np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055) * 255


def _unit(direction) -> np.ndarray:
    vector = np.asarray(direction, np.float64)
    return vector / np.linalg.norm(vector)
