"""Grids: places, enlargement, and provenance that travels with the file."""

import numpy as np
import pytest
from PIL import Image

from jaxface.reports.grid import GAP, make_grid, save_grid


def test_places_and_enlargement():
    images = np.arange(5 * 2 * 3 * 3, dtype=np.uint8).reshape(5, 2, 3, 3)
    grid = make_grid(images, 3, side=4)  # sides 2 and 3 become 4 and 6
    assert grid.shape == (2 * 4 + GAP, 3 * 6 + 2 * GAP, 3)
    fourth = grid[4 + GAP :, :6]
    np.testing.assert_array_equal(fourth, images[3].repeat(2, 0).repeat(2, 1))
    assert (grid[4 + GAP :, 2 * (6 + GAP) :] == 255).all()  # the sixth place is empty
    assert make_grid(np.zeros((1, 32, 32, 1), np.uint8), 8).shape == (96, 96, 3)
    assert make_grid(np.zeros((1, 128, 128, 3), np.uint8), 8).shape == (128, 128, 3)


def test_provenance_travels_with_the_file(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    about = {"synthetic": "made by a générateur", "seed": "3", "checkpoint": "step 40"}
    save_grid(image, tmp_path / "a.png", 1, about, side=0)
    with Image.open(tmp_path / "a.png") as file:
        assert file.text == about
        np.testing.assert_array_equal(np.asarray(file), image[0])
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("images", [np.zeros((0, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3))])
def test_nothing_and_floats_are_refused(images):
    with pytest.raises(ValueError):
        make_grid(images, 2)
