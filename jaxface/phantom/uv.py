"""The phantom before the camera of a UV photo device, and before a phone.

The device takes a color and a UV photograph at the same moment, in its own even light; a phone takes a
color photograph in whatever light there is and makes a picture of it. The UV photograph is gray.
"""

import dataclasses

import cv2
import numpy as np

from jaxface.phantom import paint, skin
from jaxface.phantom.people import Subject, View, draw_view
from jaxface.phantom.render import background, levels, look, shade

SKIN_LEVEL = 0.30  # linear light of the median skin in a UV photograph: the device exposes for skin


@dataclasses.dataclass(frozen=True)
class Phone:
    """What a phone makes of light, after its View."""

    contrast: float = 1.0  # of the tone curve about the middle
    saturation: float = 1.0
    blur: float = 0.0  # standard deviation in px
    noise: float = 0.0  # standard deviation in 8-bit levels
    quality: int = 95  # of the JPEG
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Pair:
    """A color photograph, the UV photograph of the same moment and what is really there."""

    color: np.ndarray  # uint8 [S, S, 3], sRGB
    uv: np.ndarray  # uint8 [S, S]
    pigment: np.ndarray  # bool [S, S]: pigment spots


def device_view(seed: int) -> View:
    """Draws a photograph in the device: head in a rest, even light, fixed white balance."""
    rng = np.random.default_rng([seed, 8])
    level = 0.40 * np.exp(0.03 * rng.normal())
    light = (level, level, level)
    return View(
        yaw=float(np.clip(1.5 * rng.normal(), -4, 4)),
        pitch=float(np.clip(1.2 * rng.normal(), -3, 3)),
        roll=float(np.clip(0.8 * rng.normal(), -2, 2)),
        shift=(float(rng.uniform(-0.006, 0.006)), float(rng.uniform(-0.006, 0.006))),
        zoom=float(rng.uniform(0.98, 1.02)),
        lights=(((0.75, 0.25, 0.7), light), ((-0.75, 0.25, 0.7), light)),
        ambient=(0.40, 0.40, 0.40),
        background=(0.02, 0.02, 0.02),
        noise=0.5,
        seed=seed,
    )


def phone_view(seed: int) -> tuple[View, Phone]:
    """Draws a photograph by a phone: room light from one side, automatic everything."""
    rng = np.random.default_rng([seed, 9])
    warm = 0.09 * rng.normal()
    tint = 0.04 * rng.normal()
    view = dataclasses.replace(
        draw_view(seed),
        yaw=float(np.clip(3 * rng.normal(), -8, 8)),
        pitch=float(np.clip(2 * rng.normal(), -5, 5)),
        exposure=float(np.exp(rng.uniform(-0.2, 0.25))),
        white_balance=tuple(float(g) for g in np.exp([warm, tint, -1.3 * warm])),
        noise=0.0,
    )
    phone = Phone(
        contrast=float(rng.uniform(1.0, 1.35)),
        saturation=float(rng.uniform(0.9, 1.45)),
        blur=float(rng.uniform(0.4, 1.0)),
        noise=float(rng.uniform(1.5, 4.0)),
        quality=int(rng.integers(70, 93)),
        seed=seed,
    )
    return view, phone


def photograph(
    subject: Subject, marks: skin.Marks, view: View, size: int, phone: Phone | None = None
) -> Pair:
    """Takes both photographs; the same arguments give the same bytes.

    The head is drawn at half the side, its skin at the full one: what a spot detector looks at is sharp.
    The UV photograph is always the device's, whoever took the color one.

    Args:
      size: side in px, even.
    """
    seen = look(subject, view, size // 2)
    color, gloss = paint.paint(subject, seen.rest, seen.group)
    scene = background(view, seen.size)
    scene.reshape(-1, 3)[seen.pixel] = shade(color, gloss, seen.normal, seen.reach, view)
    density, pigment, bare = skin.densities(marks, seen, size)
    color_levels = levels(_larger(scene, size) * np.exp(-density[..., :3]), view)
    color_u8 = _process(color_levels, phone) if phone else _sense(color_levels, view)

    # UV light is absorbed like blue light, only more, and comes from beside the lens.
    toward = np.clip(seen.normal[:, 2], 0, 1)
    ultraviolet = np.full(seen.size**2, 0.004, np.float32)
    ultraviolet[seen.pixel] = color[:, 2] ** 1.5 * (0.3 + 0.7 * toward)
    ultraviolet = _larger(ultraviolet.reshape(seen.size, seen.size), size) * np.exp(
        -density[..., 3]
    )
    on_skin = ultraviolet[bare > 0.5]
    middle = float(np.median(on_skin)) if len(on_skin) else 1.0
    sensor = View(white_balance=(1.0,), noise=1.0, seed=view.seed + (1 << 28))  # of one channel
    light = (ultraviolet * (SKIN_LEVEL / middle))[..., None]
    return Pair(color_u8, _sense(levels(light, sensor), sensor)[..., 0], pigment)


def _larger(picture: np.ndarray, size: int) -> np.ndarray:
    grown = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.maximum(grown, 0)


def _sense(value: np.ndarray, view: View) -> np.ndarray:
    """Levels in 0..255 with the sensor's noise, uint8."""
    rng = np.random.default_rng([view.seed, 11])
    value = value + np.float32(view.noise) * rng.standard_normal(value.shape, np.float32)
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)


def _process(value: np.ndarray, phone: Phone) -> np.ndarray:
    """A phone's blur, noise, colors, tone curve and JPEG, of levels in 0..255."""
    value = cv2.GaussianBlur(value, (0, 0), phone.blur) if phone.blur else value
    rng = np.random.default_rng([phone.seed, 10])
    value = value + phone.noise * rng.standard_normal(value.shape, np.float32)
    gray = value @ np.float32([0.299, 0.587, 0.114])
    value = gray[..., None] + phone.saturation * (value - gray[..., None])
    value = 127.5 + 127.5 * np.tanh(phone.contrast * (value / 127.5 - 1)) / np.tanh(phone.contrast)
    value = np.clip(np.rint(value), 0, 255).astype(np.uint8)
    _, code = cv2.imencode(".jpg", value[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, phone.quality])
    return cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1].copy()
