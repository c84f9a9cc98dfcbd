"""The jaw's outline in 75 numbers, against the published rule worked by hand."""

import numpy as np
import pytest

from jaxface.faces.mandible import FEATURES, mandible_vectors


def by_hand(image):
    """The rule pixel by pixel."""
    numbers = []
    for j in range(30, 177, 2):
        values = [int(image[i, c]) for i in (267, 268, 269) for c in (j, j + 1, 358 - j, 357 - j)]
        numbers.append(sum(values) / 12 / 255)
    middle = [int(image[i, c]) for i in (267, 268, 269) for c in (178, 179, 180)]
    return [*numbers, sum(middle) / 9 / 255]


def test_the_published_rule():
    images = np.random.default_rng(0).integers(0, 256, (3, 359, 359), dtype=np.uint8)
    found = mandible_vectors(images)
    assert found.shape == (3, FEATURES) and found.dtype == np.float64
    np.testing.assert_allclose(found, [by_hand(image) for image in images], rtol=1e-12)


def test_values_worked_by_hand():
    image = np.zeros((1, 359, 359), np.uint8)
    image[0, 267, 30] = 255  # first pair, one of twelve px
    image[0, 269, 357 - 176] = 51  # last pair, mirrored
    image[0, 268, 179] = 255  # the middle
    image[0, 266] = image[0, 270] = 255  # rows beside those that count
    image[0, 267, :30] = image[0, 267, 329:] = 255  # columns beside them
    found = mandible_vectors(image)[0]
    assert found[0] == 1 / 12 and found[73] == pytest.approx(0.2 / 12) and found[74] == 1 / 9
    assert (found[1:73] == 0).all()


def test_both_sides_count_alike_and_the_crop_holds_all_of_it():
    images = np.random.default_rng(1).integers(0, 256, (2, 359, 359), dtype=np.uint8)
    found = mandible_vectors(images)
    np.testing.assert_array_equal(mandible_vectors(images[:, :, ::-1]), found)
    np.testing.assert_array_equal(mandible_vectors(images[:, 30:329, 30:329]), found)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 359, 359), np.float32),
        np.zeros((2, 359, 358), np.uint8),
        np.zeros((2, 128, 128), np.uint8),
        np.zeros((359, 359), np.uint8),
    ],
)
def test_other_pictures_are_refused(images):
    with pytest.raises(ValueError, match="uint8|359"):
        mandible_vectors(images)
