"""Resizing as the FID tools do it, one function for each convention.

An FID depends on the resizing as much as on the pictures (Parmar et al. 2022, arXiv 2104.11222), so a
metric's protocol names one of these and takes no other:

  pil                   clean-fid's "clean": Pillow, antialiased, each channel as float, or quantized
  half_pixel_bilinear   pytorch-fid and clean-fid's "legacy_pytorch": four neighbors, no antialiasing
  tf1_bilinear          torch-fidelity, NVIDIA and the first FID: TensorFlow 1's, pixels at corners
  area                  torch-fidelity's LPIPS and every PPL: means of whole pixels

Images are [N, H, W, C]; sizes are (height, width). `pil` takes values in 0..255, the others any.
"""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

_FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def pil(
    images: np.ndarray, size: tuple[int, int], method: str = "bicubic", *, quantized: bool = False
) -> np.ndarray:
    """Resizes by Pillow, whose filters widen when an image shrinks (antialiasing).

    Args:
      images: [N, H, W, C]; uint8 if quantized.
      method: "box", "bilinear", "bicubic" or "lanczos".
      quantized: resize all channels of uint8 at once and round to uint8 again; else each channel by
        itself in float32, not rounded. Overshoots are cut to 0..255 either way.

    Returns:
      [N, *size, C], uint8 if quantized, else float32.

    Raises:
      ValueError: another method, or images that are not uint8 (gray or RGB) while quantized.
    """
    if method not in _FILTERS:
        raise ValueError(f"{method!r} is no filter of Pillow's here; there are {sorted(_FILTERS)}")
    images = np.asarray(images)
    channels = images.shape[-1]
    if quantized and (images.dtype != np.uint8 or channels not in (1, 3)):
        raise ValueError(f"quantized resizing is of uint8 with 1 or 3 channels, got {images.dtype}")
    # Three uint8 channels are one Pillow image; a float image has only one channel.
    planes = images if quantized and channels == 3 else np.moveaxis(images, -1, 1)[..., None]
    planes = planes.reshape(-1, *planes.shape[-3:])
    planes = planes.squeeze(-1) if planes.shape[-1] == 1 else planes
    planes = planes if quantized else planes.astype(np.float32)
    wanted = size[::-1], _FILTERS[method]
    resized = [np.asarray(Image.fromarray(plane).resize(*wanted)) for plane in planes]
    shape = (len(planes), *size, *planes.shape[3:])
    resized = np.clip(np.asarray(resized, planes.dtype).reshape(shape), 0, 255)
    if resized.ndim == 4:
        return resized
    return np.moveaxis(resized.reshape(-1, channels, *size), 1, -1)


def half_pixel_bilinear(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear from the four pixels around each new center, no antialiasing; not rounded.

    Pixel centers lie at half-integers, as in PyTorch's `interpolate(align_corners=False)`.
    """
    for axis, new in zip((1, 2), size, strict=True):
        old = images.shape[axis]
        images = _blend(images, axis, np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0))
    return images


def tf1_bilinear(
    images: jax.Array, size: tuple[int, int], *, align_corners: bool = False
) -> jax.Array:
    """Bilinear of TensorFlow 1's `resize_bilinear`: pixel i lies at i, no antialiasing; not rounded.

    The result is shifted by up to half a pixel towards the upper left. That is a fault, and part of
    the first FID. With `align_corners` the corner pixels stay where they are.
    """
    for axis, new in zip((1, 2), size, strict=True):
        old = images.shape[axis]
        step = (old - 1) / (new - 1) if align_corners and new > 1 else old / new
        images = _blend(images, axis, np.arange(new) * step)
    return images


def area(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Mean of all pixels that a new pixel touches, whole even where it touches a part; not rounded.

    PyTorch's `interpolate(mode="area")`. For whole factors it is the mean of equal squares.
    """
    x = jnp.asarray(images)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    means = []
    for old, new in zip(x.shape[1:3], size, strict=True):
        pixel, cell = np.arange(old), np.arange(new)[:, None]
        inside = (pixel >= cell * old // new) & (pixel < -(-(cell + 1) * old // new))
        means.append(jnp.asarray(inside / inside.sum(1, keepdims=True), x.dtype))
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("ih,jw,nhwc->nijc", *means, x, precision=highest)


def _blend(x: jax.Array, axis: int, position: np.ndarray) -> jax.Array:
    """Linear interpolation along an axis at positions in pixels; the last pixel repeats."""
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    last = x.shape[axis] - 1
    lower = np.minimum(np.floor(position).astype(int), last)
    upper = np.minimum(lower + 1, last)
    shape = [1] * x.ndim
    shape[axis] = -1
    weight = jnp.asarray(position - lower, x.dtype).reshape(shape)
    below, above = jnp.take(x, lower, axis), jnp.take(x, upper, axis)
    return below + (above - below) * weight
