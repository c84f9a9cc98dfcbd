"""The input path: how many pictures a second are rendered, decoded and read from records.

Beside decoding stands Pillow as a plain data set of PyTorch calls it, beside reading records PyTorch's
DataLoader on a folder of the same PNG files.
"""

import io
import pathlib
import tempfile

import numpy as np
from PIL import Image

from benchmarks.harness import Case, Work, eager
from jaxface.data import phantom_cleft  # noqa: F401  (pipeline finds it once imported)
from jaxface.data.images import read_image
from jaxface.data.pipeline import Batches, open_faces
from jaxface.phantom.render import draw_subject, draw_view, render
from jaxface.systems.cleftgan import Config


def _kept() -> pathlib.Path:
    """A folder that goes when this process does."""
    _kept.folders.append(tempfile.TemporaryDirectory())
    return pathlib.Path(_kept.folders[-1].name)


_kept.folders = []


def _photograph(side: int) -> np.ndarray:
    """Smooth with some noise, as compression meets it. uint8 [side, side, 3]"""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side))
    noisy = np.asarray(coarse, np.float32) + rng.normal(0, 4, (side, side, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def rendering_ours(number, side) -> Work:
    people = [(draw_subject(seed, cleft=True), draw_view(seed)) for seed in range(number)]

    def run():
        for subject, view in people:
            render(subject, view, side)

    return eager(run)


def _files(number, side, suffix) -> list[pathlib.Path]:
    files = [_kept() / f"0.{suffix}"]
    files += [files[0].with_name(f"{n}.{suffix}") for n in range(1, number)]
    for file in files:
        Image.fromarray(_photograph(side)).save(file, quality=90)
    return files


def decoding_ours(number, side, suffix) -> Work:
    files = _files(number, side, suffix)
    return eager(lambda: [read_image(file) for file in files])


def decoding_plain(number, side, suffix) -> Work:
    files = _files(number, side, suffix)
    return eager(lambda: [np.asarray(Image.open(file).convert("RGB")) for file in files])


def _built(people, side) -> Config:
    return Config(num_subjects=people, resolution=side, build_dir=str(_kept()))


def records_ours(people, side, batch, number) -> Work:
    batches = iter(Batches(open_faces(_built(people, side)), batch, seed=0, stream=True))
    return eager(lambda: [next(batches) for _ in range(number // batch)])


def records_torch(people, side, batch, number) -> Work:
    from torch.utils.data import DataLoader, Dataset

    faces, folder = open_faces(_built(people, side)), _kept()
    for index in range(len(faces)):
        (folder / f"{index}.png").write_bytes(faces.source[index]["image"])

    class Folder(Dataset):
        def __len__(self):
            return number

        def __getitem__(self, index):
            content = (folder / f"{index % len(faces)}.png").read_bytes()
            return np.array(Image.open(io.BytesIO(content)).convert("RGB"))

    loader = DataLoader(Folder(), batch, shuffle=True)
    return eager(lambda: [batch.sum() for batch in loader])


CASES = {
    "phantom_rendering": Case(rendering_ours, None, dict(number=4, side=64), 4),
    "jpeg_decoding": Case(
        decoding_ours, decoding_plain, dict(number=8, side=1024, suffix="jpg"), 8, needs_torch=False
    ),
    "png_decoding": Case(
        decoding_ours, decoding_plain, dict(number=8, side=1024, suffix="png"), 8, needs_torch=False
    ),
    "records": Case(
        records_ours, records_torch, dict(people=32, side=64, batch=32, number=1024), 1024
    ),
}
