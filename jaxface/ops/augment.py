"""Augmentations of the discriminator's input: ADA's pipe and StyleGAN3-r's fading blur.

Karras et al. 2020, "Training generative adversarial networks with limited data" (ADA, arXiv
2006.06676), appendix B and its algorithm 1. The pipe is differentiable with respect to the images,
so that the generator learns through it. Two things differ in form, not in effect: the reflected
margin around an image has a size that is fixed when the pipe is compiled (the largest the reference
allows, width - 1), where the reference measures its batch; and every image draws from its own key,
folded with its global index, so that a result does not depend on how a batch is split.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxface.errors import nearest
from jaxface.ops.filters import downsample2d, filter2d, upsample2d
from jaxface.ops.warp import sample_bilinear

Draws = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Pipe:
    """Strengths (the probability is strength * p) and ranges, at the published defaults."""

    xflip: float = 0.0  # mirror
    rotate90: float = 0.0  # multiples of a quarter turn
    xint: float = 0.0  # shift by whole pixels
    scale: float = 0.0  # isotropic zoom
    rotate: float = 0.0  # any angle, before and after the anisotropic zoom
    aniso: float = 0.0  # stretch one axis, squeeze the other
    xfrac: float = 0.0  # shift by fractions of a pixel
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0  # mirror at the gray axis: dark becomes bright, hue stays
    hue: float = 0.0
    saturation: float = 0.0
    imgfilter: float = 0.0  # amplify or damp octaves of spatial frequency
    noise: float = 0.0
    cutout: float = 0.0  # a black rectangle
    xint_max: float = 0.125  # of the image's width, height
    scale_std: float = 0.2  # in octaves
    rotate_max: float = 1.0  # of half a turn, either way
    aniso_std: float = 0.2  # in octaves
    xfrac_std: float = 0.125  # of the image's width, height
    brightness_std: float = 0.2  # on the scale [-1, 1]
    contrast_std: float = 0.5  # in octaves
    hue_max: float = 1.0  # of half a turn, either way
    saturation_std: float = 1.0  # in octaves
    imgfilter_bands: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)  # strengths, low to high frequency
    imgfilter_std: float = 1.0  # in octaves
    noise_std: float = 0.1  # on the scale [-1, 1]
    cutout_size: float = 0.5  # side of the rectangle, of the image's width, height


GEOMETRIC = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
PRESETS = {
    "blit": GEOMETRIC[:3],
    "geom": GEOMETRIC[3:],
    "color": COLOR,
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": GEOMETRIC,
    "bgc": GEOMETRIC + COLOR,
    "bgcf": (*GEOMETRIC, *COLOR, "imgfilter"),
    "bgcfn": (*GEOMETRIC, *COLOR, "imgfilter", "noise"),
    "bgcfnc": (*GEOMETRIC, *COLOR, "imgfilter", "noise", "cutout"),
}

# Wavelets: symlet 6 (12 taps) resamples without loss, symlet 2 (4 taps) splits into octaves.
_SYM6 = np.array(
    [0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633]
    + [0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263748278646252]
    + [-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148]
)
_LOW_PASS = _SYM6 / _SYM6.sum()
_REACH = len(_LOW_PASS) // 4  # input pixels that the filter reaches to either side
_SYM2 = np.array([1 - 3**0.5, 3 - 3**0.5, 3 + 3**0.5, 1 + 3**0.5]) / 32**0.5
_EXPECTED_POWER = np.array([10, 1, 1, 1]) / 13  # of the four octaves in natural images (1/f)

# Names of the random numbers. Each is one uniform [0, 1) or standard normal number per image; each
# value has a uniform gate beside it, which lets it pass with probability strength * p.
_UNIFORM = ("xflip", "rotate90", "xint_x", "xint_y", "rotate_pre", "rotate_post", "lumaflip", "hue")
_UNIFORM += ("cutout_x", "cutout_y")
_NORMAL = ("scale", "aniso", "xfrac_x", "xfrac_y", "brightness", "contrast", "saturation")
_NORMAL += ("band0", "band1", "band2", "band3", "noise")
_GATED = ("xflip", "rotate90", "xint", "scale", "rotate_pre", "aniso", "rotate_post", "xfrac")
_GATED += (*COLOR, "band0", "band1", "band2", "band3", "noise", "cutout")


def as_pipe(pipe: str | Mapping | Pipe) -> Pipe:
    """A preset's name, or a mapping of strengths and ranges, as a Pipe.

    Raises:
      ValueError: unknown name; the message gives the nearest one.
    """
    if isinstance(pipe, Pipe):
        return pipe
    if isinstance(pipe, str):
        if pipe not in PRESETS:
            raise ValueError(f"augmentation pipe {pipe!r} is not known.{nearest(pipe, PRESETS)}")
        return Pipe(**dict.fromkeys(PRESETS[pipe], 1.0))
    known = [field.name for field in dataclasses.fields(Pipe)]
    for name in pipe:
        if name not in known:
            raise ValueError(f"augmentation {name!r} is not known.{nearest(name, known)}")
    bands = {k: tuple(v) for k, v in pipe.items() if k == "imgfilter_bands"}
    if bands and len(bands["imgfilter_bands"]) != len(_EXPECTED_POWER):
        raise ValueError(f"imgfilter_bands takes 4 strengths, not {len(bands['imgfilter_bands'])}.")
    return Pipe(**{**pipe, **bands})


def draw(key: jax.Array, index: jax.Array, shape: tuple[int, int, int], field: bool) -> Draws:
    """Random numbers of the images with global indices `index` [N], independent of the pipe.

    Args:
      shape: (H, W, C) of an image.
      field: also draw the noise field, the one large draw.
    Returns:
      {name: [N]}, names as in the pipe, gates as "<name>_gate"; "noise_field" [N, H, W, C].
    """

    names = [*_UNIFORM, *(f"{name}_gate" for name in _GATED), *_NORMAL]

    def one(index):
        key_values, key_field = jax.random.split(jax.random.fold_in(key, index))
        # One call for all of them: compiling the generator is what a draw costs.
        values = jax.random.uniform(key_values, [len(names)])
        # Half a grid step keeps the ends of [0, 1) apart from infinity, symmetrically.
        centered = 2 * values[-len(_NORMAL) :] - 1 + 2.0**-23
        normal = 2**0.5 * jax.scipy.special.erfinv(centered)
        values = jnp.concatenate([values[: -len(_NORMAL)], normal])
        return values, jax.random.normal(key_field, shape) if field else None

    values, noise = jax.vmap(one)(index)
    draws = dict(zip(names, values.T))
    return draws | {"noise_field": noise} if field else draws


def at_percentile(draws: Draws, q) -> Draws:
    """`draws` with every value at percentile `q` of its distribution and every gate open.

    The second rotation is zero, the noise field stays random, as in the reference's debug mode
    (whose normal quantile lacks the factor sqrt(2)).
    """
    normal = jax.scipy.special.erfinv(2 * q - 1)
    fixed = {name: q for name in _UNIFORM} | {name: normal for name in _NORMAL}
    fixed |= {"rotate_post": 0.5, "noise": jax.scipy.special.erfinv(q)}
    fixed |= {f"{name}_gate": -1.0 for name in _GATED}
    return {k: jnp.full_like(v, fixed[k]) if k in fixed else v for k, v in draws.items()}


def augment(images, key, p, pipe="bgc", debug_percentile=None, index=None):
    """Augments every image at random with overall probability `p`.

    Args:
      images: [N, H, W, C] in [-1, 1]; C is 1 or 3 where the pipe changes colors.
      key: one key for the whole batch.
      p: scalar in [0, 1], may be traced.
      pipe: name in PRESETS, or mapping of strengths and ranges (fields of Pipe).
      debug_percentile: use this percentile of every distribution, on every image.
      index: [N] global index of every example; default 0 .. N - 1.
    Returns:
      [N, H, W, C].
    Raises:
      ValueError: unknown pipe or augmentation, or colors of neither 1 nor 3 channels.
    """
    pipe = as_pipe(pipe)
    index = jnp.arange(images.shape[0]) if index is None else index
    draws = draw(key, index, images.shape[1:], field=pipe.noise > 0)
    if debug_percentile is not None:
        draws = at_percentile(draws, debug_percentile)
    return apply(images, draws, p, pipe)


def apply(images, draws: Draws, p, pipe="bgc"):
    """Augments images with given random numbers. [N, H, W, C] -> [N, H, W, C]"""
    pipe = as_pipe(pipe)
    dtype = images.dtype
    images = images.astype(jnp.promote_types(dtype, jnp.float32))
    draws = {name: value.astype(images.dtype) for name, value in draws.items()}

    def gated(name, strength, value, otherwise):
        """`value` where the gate lets it pass."""
        return jnp.where(draws[f"{name}_gate"] < strength * p, value, otherwise)

    if any(getattr(pipe, name) > 0 for name in GEOMETRIC):
        images = _geometric(images, draws, p, pipe, gated)
    if any(getattr(pipe, name) > 0 for name in COLOR):
        images = _color(images, draws, pipe, gated)
    if pipe.imgfilter > 0:
        images = _filter(images, draws, pipe, gated)
    if pipe.noise > 0:
        sigma = gated("noise", pipe.noise, jnp.abs(draws["noise"]) * pipe.noise_std, 0)
        images = images + draws["noise_field"] * sigma[:, None, None, None]
    if pipe.cutout > 0:
        size = gated("cutout", pipe.cutout, pipe.cutout_size, 0)[:, None] / 2
        keep = [
            jnp.abs((jnp.arange(n) + 0.5) / n - draws[f"cutout_{axis}"][:, None]) >= size
            for axis, n in zip("yx", images.shape[1:3])
        ]
        images = images * (keep[0][:, :, None] | keep[1][:, None, :])[..., None]
    return images.astype(dtype)


def _geometric(images, draws, p, pipe, gated):
    """One affine warp per image: where every output pixel lies in the input."""
    height, width = images.shape[1:3]
    zero = jnp.zeros_like(draws["xflip"])
    matrix = jnp.zeros([len(images), 2, 2], images.dtype) + jnp.eye(2, dtype=images.dtype)
    shift = jnp.stack([zero, zero], -1)

    def linear(a, b, c, d):
        rows = [
            jnp.stack(jnp.broadcast_arrays(zero + a, zero + b), -1),
            jnp.stack([zero + c, zero + d], -1),
        ]
        return _product(matrix, jnp.stack(rows, -2))

    def moved(x, y):
        return shift - _product(matrix, jnp.stack([x, y], -1)[..., None])[..., 0]

    def turned(angle):
        return linear(jnp.cos(angle), -jnp.sin(angle), jnp.sin(angle), jnp.cos(angle))

    if pipe.xflip > 0:
        flip = gated("xflip", pipe.xflip, jnp.floor(draws["xflip"] * 2), 0)
        matrix = linear(1 - 2 * flip, 0, 0, 1)
    if pipe.rotate90 > 0:
        quarters = gated("rotate90", pipe.rotate90, jnp.floor(draws["rotate90"] * 4), 0)
        cos, sin = (jnp.round(f(quarters * jnp.pi / 2)) for f in (jnp.cos, jnp.sin))
        matrix = linear(cos, -sin, sin, cos)
    if pipe.xint > 0:
        x, y = (
            gated("xint", pipe.xint, (draws[name] * 2 - 1) * pipe.xint_max, 0)
            for name in ("xint_x", "xint_y")
        )
        shift = moved(jnp.round(x * width), jnp.round(y * height))
    if pipe.scale > 0:
        s = gated("scale", pipe.scale, jnp.exp2(draws["scale"] * pipe.scale_std), 1)
        matrix = linear(1 / s, 0, 0, 1 / s)
    # Two rotations, before and after the stretch, of which at least one happens with probability
    # rotate * p.
    either = 1 - jnp.sqrt(jnp.clip(1 - pipe.rotate * p, 0, 1))

    def angle(name):
        gate = draws[f"{name}_gate"] < either
        return jnp.where(gate, (draws[name] * 2 - 1) * jnp.pi * pipe.rotate_max, 0)

    if pipe.rotate > 0:
        matrix = turned(angle("rotate_pre"))
    if pipe.aniso > 0:
        s = gated("aniso", pipe.aniso, jnp.exp2(draws["aniso"] * pipe.aniso_std), 1)
        matrix = linear(1 / s, 0, 0, s)
    if pipe.rotate > 0:
        matrix = turned(angle("rotate_post"))
    if pipe.xfrac > 0:
        x, y = (
            gated("xfrac", pipe.xfrac, draws[name] * pipe.xfrac_std, 0)
            for name in ("xfrac_x", "xfrac_y")
        )
        shift = moved(x * width, y * height)
    return _warp(images, matrix, shift, _margins(height, width, pipe))


def _product(a, b):
    """Batched product of tiny matrices in full precision, on any accelerator."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _margins(height: int, width: int, pipe: Pipe) -> tuple[int, int]:
    """Reflected pixels needed on each side (vertically, horizontally) for any draw of the pipe."""
    if pipe.scale > 0 or pipe.aniso > 0 or pipe.xfrac > 0:
        return height - 1, width - 1
    half = np.array([height - 1, width - 1]) / 2
    move = np.ceil(pipe.xint_max * np.array([height, width])) * (pipe.xint > 0)
    reach = half + move
    if pipe.rotate > 0:
        reach = np.full(2, np.hypot(*reach))
    elif pipe.rotate90 > 0:
        reach = np.full(2, reach.max())
    margin = np.ceil(reach - half).astype(int) + 2 * _REACH
    return min(int(margin[0]), height - 1), min(int(margin[1]), width - 1)


def _warp(images, matrix, shift, margins):
    """Resamples at twice the resolution, between two orthogonal wavelet filters.

    Args:
      matrix, shift: [N, 2, 2], [N, 2] that map an output pixel (x, y) to an input pixel, both in
        pixels from the image's center.
      margins: reflected pixels (vertical, horizontal); beyond them the input is 0.
    """
    height, width = images.shape[1:3]
    vertical, horizontal = margins
    fine = jnp.pad(images, [(0, 0), (vertical,) * 2, (horizontal,) * 2, (0, 0)], mode="reflect")
    fine = jnp.pad(upsample2d(fine, _LOW_PASS), [(0, 0), (1, 1), (1, 1), (0, 0)])
    # Fine pixel 2 * n lies on pixel n, so the center is at fine pixel size - 1.
    center_y, center_x = height - 1, width - 1
    y = jnp.arange(2 * (height + 2 * _REACH), dtype=images.dtype) - 2 * _REACH - center_y
    x = jnp.arange(2 * (width + 2 * _REACH), dtype=images.dtype) - 2 * _REACH - center_x
    matrix, shift = matrix[:, :, :, None, None], shift[:, :, None, None]
    source_x = matrix[:, 0, 0] * x + matrix[:, 0, 1] * y[:, None] + 2 * shift[:, 0]
    source_y = matrix[:, 1, 0] * x + matrix[:, 1, 1] * y[:, None] + 2 * shift[:, 1]
    warped = jax.vmap(sample_bilinear)(
        fine, source_y + (center_y + 2 * vertical + 1), source_x + (center_x + 2 * horizontal + 1)
    )
    return downsample2d(warped, _LOW_PASS, padding=-2 * _REACH, flip_filter=True)


def _color(images, draws, pipe, gated):
    """One affine map of color space per image."""
    channels = images.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"color augmentations take images of 1 or 3 channels, not {channels}.")
    eye = jnp.eye(3, dtype=images.dtype)
    luma = jnp.full([3, 3], 1 / 3, images.dtype)  # projection on the gray axis
    matrix = jnp.zeros([len(images), 3, 4], images.dtype) + jnp.eye(3, 4, dtype=images.dtype)
    wide = lambda x: x[:, None, None]
    if pipe.brightness > 0:
        b = gated("brightness", pipe.brightness, draws["brightness"] * pipe.brightness_std, 0)
        matrix = matrix.at[:, :, 3].add(b[:, None])
    if pipe.contrast > 0:
        c = gated("contrast", pipe.contrast, jnp.exp2(draws["contrast"] * pipe.contrast_std), 1)
        matrix = matrix * wide(c)
    if pipe.lumaflip > 0:
        flip = gated("lumaflip", pipe.lumaflip, jnp.floor(draws["lumaflip"] * 2), 0)
        matrix = _product(eye - 2 * luma * wide(flip), matrix)
    if channels == 3 and pipe.hue > 0:
        turn = (draws["hue"] * 2 - 1) * jnp.pi * pipe.hue_max
        angle = gated("hue", pipe.hue, turn, 0)
        # Rodrigues' formula about the gray axis, whose cross product matrix this is.
        cross = jnp.asarray([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], images.dtype) / 3**0.5
        cos, sin = wide(jnp.cos(angle)), wide(jnp.sin(angle))
        matrix = _product(luma + (eye - luma) * cos + cross * sin, matrix)
    if channels == 3 and pipe.saturation > 0:
        s = jnp.exp2(draws["saturation"] * pipe.saturation_std)
        s = gated("saturation", pipe.saturation, s, 1)
        matrix = _product(luma + (eye - luma) * wide(s), matrix)
    if channels == 1:
        gray = matrix.mean(1)
        return images * gray[:, None, None, None, :3].sum(-1) + gray[:, None, None, None, 3]
    colors = jnp.einsum(
        "nhwc,ndc->nhwd", images, matrix[:, :, :3], precision=jax.lax.Precision.HIGHEST
    )
    return colors + matrix[:, None, None, :, 3]


@functools.lru_cache
def _bands() -> np.ndarray:
    """[4, 43]: filters of the octaves, low to high; they add up to a unit impulse."""
    low = np.convolve(_SYM2, _SYM2[::-1]) / 2
    high = low * (-1.0) ** np.arange(-3, 4)
    spread = lambda f, by: np.kron(f, np.eye(1, by)[0])[: 1 - by or None]
    octaves = [spread(high, 1), spread(high, 2), spread(high, 4)]
    wider = [spread(low, 1), spread(low, 2), spread(low, 4)]
    bands = [
        functools.reduce(np.convolve, wider),
        functools.reduce(np.convolve, [*wider[:2], octaves[2]]),
        np.convolve(wider[0], octaves[1]),
        octaves[0],
    ]
    size = len(bands[0])
    return np.stack([np.pad(b, (size - len(b)) // 2) for b in bands])


@functools.lru_cache
def _band_matrices(size: int) -> np.ndarray:
    """[4, size, size]: the octaves' filters along one reflected axis."""
    bands = _bands()
    reach = bands.shape[1] // 2
    padded = np.pad(np.eye(size), [(reach, reach), (0, 0)], mode="reflect")
    return np.stack(
        [sum(b[k] * padded[k : k + size] for k in range(bands.shape[1])) for b in bands]
    )


def _filter(images, draws, pipe, gated):
    """Amplifies the octaves of an image, at constant expected power."""
    gain = jnp.ones([len(images), 4], images.dtype)
    power = jnp.asarray(_EXPECTED_POWER, images.dtype)
    for i, strength in enumerate(pipe.imgfilter_bands):
        if strength <= 0:
            continue
        name = f"band{i}"
        amplify = jnp.exp2(draws[name] * pipe.imgfilter_std)
        band = jnp.ones_like(gain).at[:, i].set(gated(name, pipe.imgfilter * strength, amplify, 1))
        gain = gain * band / jnp.sqrt((power * band**2).sum(-1, keepdims=True))
    high = jax.lax.Precision.HIGHEST
    for spec, size in (("nyh,nhwc->nywc", images.shape[1]), ("nxw,nhwc->nhxc", images.shape[2])):
        matrices = jnp.asarray(_band_matrices(size), images.dtype)
        matrix = jnp.einsum("nb,bij->nij", gain, matrices, precision=high)
        images = jnp.einsum(spec, matrix, images, precision=high)
    return images


@functools.partial(jax.jit, static_argnames="max_sigma")
def blur(images, sigma, max_sigma: float):
    """The blur that StyleGAN3-r fades out on the discriminator's input.

    Args:
      images: [N, H, W, C], black outside.
      sigma: scalar in [0, max_sigma], may be traced: pixels at which the weight falls to one half.
        Taps lie within 3 * sigma, so there is no blur below 1 / 3.
      max_sigma: sets the number of taps, which is fixed when the program is compiled.
    Returns:
      [N, H, W, C].

    Reference: Karras et al. 2021 (arXiv 2106.12423), training of configuration R.
    """
    reach = int(3 * max_sigma)
    sigma = jnp.asarray(sigma, jnp.promote_types(images.dtype, jnp.float32))
    distance = np.abs(np.arange(-reach, reach + 1))
    taps = jnp.exp2(-((distance / jnp.maximum(sigma, 1e-3)) ** 2))
    taps = jnp.where(distance <= jnp.floor(3 * sigma), taps, 0)
    return filter2d(images, taps / taps.sum())
