"""One photograph under two names, and photographs that are only alike."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxface.data import duplicates, phantom_headshots

SIDE = 96


@pytest.fixture(scope="module")
def pictures():
    """Nine photographs of each of three people: uint8 [27, 96, 96, 3]."""
    people = phantom_headshots.people()[:3]
    shots = [one for _, subject in people for one in phantom_headshots.headshots(subject)]
    return np.stack([phantom_headshots.picture(one.taken, SIDE) for one in shots])


def jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=30)
    return np.asarray(Image.open(buffer))


def turned(image):
    matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), 2, 1.03)
    return cv2.warpAffine(image, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)


CHANGES = {
    "encoded anew": jpeg,
    "cut": lambda image: image[4:, :-4],
    "smaller": lambda image: cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA),
    "mirrored": lambda image: image[:, ::-1],
    "brighter": lambda image: np.clip(1.15 * image + 8, 0, 255).astype(np.uint8),
    "turned": turned,
    "all but size": lambda image: jpeg(turned(np.ascontiguousarray(image[:, ::-1]))),
}


def thumbnails(images):
    return np.stack([duplicates.thumbnail(np.ascontiguousarray(image)) for image in images])


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_under_another_name_is_found(pictures, change):
    copies = [CHANGES[change](pictures[row]) for row in (0, 10)]
    subjects = [f"P{n // 9}" for n in range(27)] + ["X", "Y"]
    found = list(duplicates.one_photograph(thumbnails([*pictures, *copies]), subjects))
    assert found == [(0, 27), (10, 28)]


def test_other_photographs_are_no_copies(pictures):
    """Not of other people, and not of one person, who has another name for each photograph."""
    small = thumbnails(pictures)
    assert not list(duplicates.one_photograph(small, [f"P{n}" for n in range(len(small))]))


def test_copies_of_one_person_are_nobodys_error(pictures):
    small = thumbnails([pictures[0], pictures[0]])
    assert not list(duplicates.one_photograph(small, ["P", "P"]))
    assert list(duplicates.one_photograph(small, ["P", "Q"])) == [(0, 1)]


def test_flat_pictures_are_like_nothing():
    flat = np.full((3, duplicates.SIDE, duplicates.SIDE), 80, np.float32)
    assert not list(duplicates.one_photograph(flat, ["P", "Q", "R"]))


def test_blocks_join_without_a_gap(pictures, monkeypatch):
    monkeypatch.setattr(duplicates, "_ROWS", 2)
    small = thumbnails(pictures[[0, 9, 18, 0, 9]])
    assert list(duplicates.one_photograph(small, list("ABCDE"))) == [(0, 3), (1, 4)]
