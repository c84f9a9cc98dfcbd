"""The one door through which a user's photographs come in: bytes of unknown origin to plain pixels.

The header is read before anything is decoded, and what would not fit the limits is never decoded.
Orientation and color profile are applied and then, with every other word the file carries (place,
time, name, thumbnail), left behind: only pixels leave this module.
"""

import dataclasses
import io
import os
import pathlib
import warnings
from collections.abc import Callable

import numpy as np
from PIL import (  # Pillow knows only the formats whose plugins are imported
    BmpImagePlugin,  # noqa: F401
    Image,
    ImageCms,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from jaxface.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # JPEG opens MPO too
COLORFUL = 20  # levels of 255 between channels from which a px of a gray file counts as colored
COLORED = 0.05  # share of such px from which it is no gray file
_ORIENTATION = 0x0112  # EXIF tag
_PHOTOMETRIC = 0x0106  # TIFF tag
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a photograph may measure."""

    pixels: int = 40_000_000
    side: int = 8192  # px
    file_bytes: int = 64 << 20


class ImageError(UserError):
    """A file that is no acceptable photograph; `reason` says why, without the file's name."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = pathlib.Path(path), reason


def read_image(path: str | os.PathLike, limits: Limits = Limits()) -> np.ndarray:
    """Returns uint8 [H, W, 3], upright, in sRGB; what is transparent becomes white.

    Reads JPEG, PNG, WebP, BMP and TIFF of one frame, 8 or 16 bits, gray, RGB, palette or CMYK (of a
    phone's multi-picture JPEG the main picture). Raises ImageError naming file and reason.
    """
    return _read(pathlib.Path(path), limits, _to_rgb)


def read_gray(path: str | os.PathLike, limits: Limits = Limits()) -> tuple[np.ndarray, str]:
    """Reads a UV photograph or a mask: uint8 [H, W], upright, and a note for the user ("": none).

    Gray files of 8 and 16 bits are read as they are: a color profile is for eyes and is not applied, so
    that both depths of one photograph agree (16 bits v become (v + 128) // 257). 16 bits of which only
    the lower 14 or fewer are used are a sensor's raw numbers and would look black: they are refused.

    Files with colors are accepted where the channels are equal, or, with a note, where they are nearly so
    (compression, a colored stamp): then the luminance is taken. One of which more than COLORED of the px
    have channels further than COLORFUL apart is a color photograph or a tinted one, and is refused: which
    of its channels is the measured one cannot be known here.

    Raises ImageError naming file and reason, for all that `read_image` refuses too.
    """
    note = ""

    def convert(image: Image.Image) -> np.ndarray:
        nonlocal note
        if image.mode.startswith("I;16"):
            return _to_8_bits(image)
        if image.mode in ("L", "1") and not image.has_transparency_data:
            return np.asarray(image.convert("L"))
        pixels = _to_rgb(image)
        apart = np.ptp(pixels, axis=-1)
        if not apart.any():
            return pixels[..., 0]
        share = np.mean(apart > COLORFUL)
        if share > COLORED:
            raise ImageError(
                path,
                f"{share:.0%} of it is colored, and a UV photograph is gray: name the right file, or "
                "save its measured channel as gray",
            )
        note = "saved with colors that differ a little: its luminance is taken"
        return np.asarray(Image.fromarray(pixels).convert("L"))

    return _read(pathlib.Path(path), limits, convert), note


def _read(path: pathlib.Path, limits: Limits, convert: Callable) -> np.ndarray:
    """What `convert` makes of the decoded image, upright."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ImageError(path, "not a file")
        if size > limits.file_bytes:
            raise ImageError(
                path, f"{size / 2**20:.0f} MB is over {limits.file_bytes / 2**20:.0f} MB"
            )
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(path, error.strerror or str(error)) from None
    if not content:
        raise ImageError(path, "empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own limits and oddities of metadata
        image = _open(path, content, limits)
        try:
            image.load()
            return _turn(convert(image), _orientation(image))
        except ImageError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever a broken file makes them
            text = str(error)
            broken = "truncated" if "truncated" in text else f"cannot be decoded ({text})"
            raise ImageError(path, broken) from None


def _open(path: pathlib.Path, content: bytes, limits: Limits) -> Image.Image:
    """Reads the header alone and holds it against the limits."""
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
        frames = getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        limit = f"{limits.pixels / 1e6:.0f} Mpx"
        raise ImageError(path, f"its header announces far more px than {limit}") from None
    except Exception as error:
        if "truncated" in str(error).lower():
            raise ImageError(path, "truncated") from None
        kinds = "JPEG, PNG, WebP, BMP or TIFF"
        raise ImageError(path, f"no readable {kinds} image") from None
    width, height = image.size
    if width * height > limits.pixels:
        raise ImageError(
            path, f"{width}x{height} px is over {limits.pixels / 1e6:.0f} Mpx: make it smaller"
        )
    if max(width, height) > limits.side:
        raise ImageError(
            path, f"{width}x{height} px is over {limits.side} px a side: make it smaller"
        )
    if frames > 1 and image.format != "MPO":
        raise ImageError(path, f"{frames} frames: save the one to use as an image of its own")
    return image


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Any mode -> uint8 [H, W, 3] in sRGB."""
    if image.mode.startswith("I;16"):
        return np.repeat(_to_8_bits(image)[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel: save it with 8 or 16 bits a channel")
    opacity = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opacity = np.asarray(image.getchannel("A"), np.float32)[..., None] / 255
        image = image.convert("RGB")
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    image = _to_srgb(image)
    pixels = np.asarray(image.convert("RGB"))
    if opacity is not None:
        pixels = np.rint(pixels * opacity + 255 * (1 - opacity)).astype(np.uint8)
    return pixels


def _to_8_bits(image: Image.Image) -> np.ndarray:
    """Gray of 16 bits -> uint8 [H, W]."""
    gray = np.asarray(image).astype(np.uint32)
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0:
        gray = 65535 - gray  # white is zero: Pillow turns only 8 bits round
    brightest = int(gray.max())
    if 0 < brightest < 1 << 14:
        raise ValueError(
            f"16 bits a pixel of which {brightest.bit_length()} are used: stretch it to the full range "
            "and save it anew"
        )
    return ((gray + 128) // 257).astype(np.uint8)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Applies the color profile the file carries; a profile that is broken or unfit is ignored."""
    content = image.info.get("icc_profile")
    if not content:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        if "sRGB" in ImageCms.getProfileDescription(profile):
            return image
        return ImageCms.profileToProfile(image, profile, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image


def _orientation(image: Image.Image) -> int:
    """EXIF's 1..8; 1 where there is none or the metadata is broken."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # metadata is optional: what is wrong with it is no reason to refuse pixels
        return 1


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Makes upright what a camera stored lying or mirrored (EXIF 2.32, tag 0x0112)."""
    if orientation in (2, 5, 7, 4):
        pixels = pixels[:, ::-1]
    quarters = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)  # counterclockwise
    return np.ascontiguousarray(np.rot90(pixels, quarters))


def list_images(folder: str | os.PathLike) -> list[str]:
    """Paths (posix, relative) of all images in and under `folder`, sorted; hidden ones are skipped."""
    return list_files(folder, SUFFIXES)


def list_files(folder: str | os.PathLike, suffixes: tuple[str, ...]) -> list[str]:
    """The same of files whose names end in one of `suffixes` (lower case)."""
    folder = pathlib.Path(folder)
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(suffixes):
                found.append((pathlib.Path(parent) / name).relative_to(folder).as_posix())
    return sorted(found)
