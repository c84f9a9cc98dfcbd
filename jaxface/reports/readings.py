"""What a network reads from a user's photographs: pictures, a table, and one page for the doctor."""

import base64
import csv
import io
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import jinja2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jaxface.reports.words import number
from jaxface.system import Reading

FOLDER = pathlib.Path(__file__).parent
WIDE = 1600  # px of a picture on the page
TOGETHER = "side_by_side"  # the picture that is shown alone where a reading has it
WORDS = {  # names in plain words, and what they are shown in
    "spot_ratio_right_cheek": ("Share of the right cheek covered by pigment spots", "%"),
    "spot_ratio_left_cheek": ("Share of the left cheek covered by pigment spots", "%"),
    "spot_ratio": ("Share of both cheeks covered by pigment spots", "%"),
    "spots": ("Pigment spots found on the face", ""),
    "face_width_px": ("Width of the face in the photograph", "px"),
    "face_width": ("Width of the face in the photograph", "px"),
    "skin_covered": ("Skin hidden by hair, beard, glasses or hands", "%"),
    "covered": ("Skin hidden by hair, beard, glasses or hands", "%"),
    "ita": ("Skin tone (individual typology angle)", "degrees"),
    "uv": ("UV photograph, made by the network", ""),
    "overlay": ("Spots found", ""),
    "weight_kg": ("Body weight, read from the face", "kg"),
    "weight_kg_low": ("In 9 of 10 videos the weight is above", "kg"),
    "weight_kg_high": ("and below", "kg"),
    "edema_probability": ("How sure the network is that this is before dialysis", "%"),
    "frames_used": ("Frames of the video that were used", ""),
    "unlike": ("How unlike the videos it learned from (0 to 1 is usual)", ""),
    "frames": ("Frames that were used", ""),
    "days": ("This patient day by day; the last one is this video", ""),
}


class Entry(NamedTuple):
    """What the page and the table say of one photograph."""

    name: str  # of the file, relative to what was asked for
    stem: str  # of the folder with its pictures
    pictures: Mapping[str, str] = {}  # {title: data URI}
    numbers: Mapping[str, float | str] = {}
    warnings: tuple[str, ...] = ()
    error: str = ""  # why it could not be read


def unique_stem(name: str, taken: set[str]) -> str:
    """A folder's name for the file `name`, and adds it to `taken`: a/Ann.jpg -> Ann, b/ann.png -> ann-2."""
    stem = re.sub(r"[^\w.-]+", "_", pathlib.PurePath(name).stem).strip(".") or "photograph"
    candidate, count = stem, 1
    while candidate.lower() in taken:  # not every disk tells Ann from ann
        count += 1
        candidate = f"{stem}-{count}"
    taken.add(candidate.lower())
    return candidate


def entry(name: str, stem: str, reading: Reading) -> Entry:
    """Keeps of a reading what the page shows, with its pictures made small enough for it."""
    titles = [TOGETHER] if TOGETHER in reading.pictures else list(reading.pictures)
    shown = {
        title: _small(reading.pictures[title], WIDE // (1 if title == TOGETHER else len(titles)))
        for title in titles
    }
    return Entry(name, stem, shown, dict(reading.numbers), tuple(reading.warnings))


def save(image: np.ndarray, path: pathlib.Path, about: Mapping[str, str]) -> None:
    """Saves uint8 [H, W] or [H, W, 1 or 3] as a PNG that says what it is; never half a file.

    Nothing but pixels and `about` goes into the file.
    """
    info = PngInfo()
    for key, value in about.items():
        info.add_itxt(key, str(value))
    draft = path.with_name(path.name + ".tmp")
    Image.fromarray(_plain(image)).save(draft, format="PNG", pnginfo=info)
    draft.replace(path)


def write_table(path: pathlib.Path, entries: Sequence[Entry]) -> None:
    """One line a photograph: file, folder, its numbers, its warnings, and why it could not be read."""
    names = list(dict.fromkeys(name for one in entries for name in one.numbers))
    draft = path.with_name(path.name + ".tmp")
    with open(draft, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "folder", *names, "warnings", "error"])
        for one in entries:
            values = [one.numbers.get(name, "") for name in names]
            folder = "" if one.error else one.stem
            table.writerow([one.name, folder, *values, " | ".join(one.warnings), one.error])
    os.replace(draft, path)


def write_page(
    path: pathlib.Path,
    entries: Sequence[Entry],
    about: Mapping[str, str],
    what: str = "photograph",
) -> None:
    """Writes the page: everything is in it, it reads nothing from outside, and equal input gives equal bytes.

    Args:
      about: has checkpoint, checkpoint_sha256 and data.
      what: was read, photograph or video.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    read = [
        {
            "name": one.name,
            "stem": one.stem,
            "pictures": [(_title(title), uri) for title, uri in one.pictures.items()],
            "numbers": [_in_words(name, value) for name, value in one.numbers.items()],
            "warnings": one.warnings,
        }
        for one in entries
        if not one.error
    ]
    page = {
        "read": read,
        "broken": [one for one in entries if one.error],
        "about": about,
        "what": what,
        "phantom": "phantom" in about["data"],
        "answers": any("answer" in one.numbers for one in entries),
    }
    html = environment.get_template("readings.html.jinja").render(page)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(html, encoding="utf-8")
    os.replace(draft, path)


def _title(name: str) -> str:
    if name == TOGETHER:
        return ""
    return WORDS[name][0] if name in WORDS else name.replace("_", " ").capitalize()


def _in_words(name: str, value: float | str) -> tuple[str, str]:
    title, unit = WORDS.get(name, (_title(name), ""))
    if isinstance(value, str):
        return title, value
    value = value.item() if isinstance(value, np.generic) else value
    if value != value:
        return title, "cannot be told"
    if unit == "%":
        return title, f"{100 * value:.1f} %"
    return title, f"{number(value)} {unit}".strip()


def _plain(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8:
        raise ValueError(f"a picture is uint8, got {image.dtype} {image.shape}")
    return image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image


def _small(image: np.ndarray, wide: int) -> str:
    """A picture of at most `wide` px a side as a JPEG data URI."""
    image = _plain(image)
    scale = min(1.0, wide / max(image.shape[:2]))
    size = tuple(max(1, round(n * scale)) for n in image.shape[1::-1])
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
