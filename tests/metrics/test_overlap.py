import math

import numpy as np

from jaxface.metrics import overlap

ALL = np.ones((60, 60), bool)


def squares(*places, side=4):
    result = np.zeros((60, 60), bool)
    for y, x in places:
        result[y : y + side, x : x + side] = True
    return result


def test_areas_by_hand():
    found, truth = squares((10, 10)), squares((10, 12))
    assert overlap.dice(found, truth, ALL) == 0.5
    assert overlap.iou(found, truth, ALL) == 8 / 24
    left = ALL.copy()
    left[:, 12:] = False  # only 8 px of `found` remain
    assert overlap.dice(found, truth, left) == 0
    assert math.isnan(overlap.dice(found, truth, ~ALL)) and math.isnan(overlap.iou(~ALL, ~ALL, ALL))


def test_spots_match_one_to_one():
    truth = squares((10, 10), (30, 30), (50, 50))
    found = squares((10, 12), (30, 34), (5, 40))  # 2 px off, 4 px off, invented
    assert overlap.match(found, truth, ALL, 750) == (1, 3, 3)
    wide = overlap.match(found, truth, ALL, 1000)  # 4 px are near there
    assert wide == (2, 3, 3) and wide.precision == 2 / 3 and wide.recall == 2 / 3
    # Two pieces of one spot are one hit.
    assert overlap.match(squares((10, 10), (10, 13), side=2), squares((10, 11)), ALL, 750) == (
        1,
        2,
        1,
    )
    assert overlap.match(squares((10, 11)), squares((10, 10), (10, 13), side=2), ALL, 750) == (
        1,
        1,
        2,
    )


def test_matching_is_the_largest_possible():
    # Taken in order, the first spot could take the only partner of the second.
    found, truth = squares((20, 20), (20, 26), side=2), squares((20, 23), (20, 29), side=2)
    for near in (750, 900):
        assert overlap.match(found, truth, ALL, near).matched == 2
        assert overlap.match(truth, found, ALL, near).matched == 2


def test_only_spots_of_the_region_count():
    truth, found = squares((10, 10), (30, 30)), squares((10, 10), (50, 50))
    region = ALL.copy()
    region[25:] = False
    assert overlap.match(found, truth, region, 750) == (1, 1, 1)
    none = overlap.match(~ALL, truth, ALL, 750)
    assert none == (0, 0, 2) and math.isnan(none.precision) and none.recall == 0


def test_hallucination_counts_skin_far_from_true_spots():
    truth, found = squares((10, 10)), squares((10, 12), (40, 40))
    rows, columns = np.mgrid[:60, :60]
    distance = np.array(
        [
            math.hypot(max(10 - y, 0, y - 13), max(10 - x, 0, x - 13))
            for y, x in zip(rows.ravel(), columns.ravel())
        ]
    ).reshape(60, 60)
    assert overlap.hallucination(found, truth, ALL, 3) == 16 / (distance > 3).sum()
    assert overlap.hallucination(found, truth, ALL, 1) == 20 / (distance > 1).sum()
    assert overlap.hallucination(found, ~ALL, ALL, 3) == 32 / 3600
    assert math.isnan(overlap.hallucination(found, ALL, ALL, 3))
