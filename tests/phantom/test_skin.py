"""Marks in the phantom's skin: where they lie, how large and how dark they are, and who sees them."""

import dataclasses

import numpy as np
import pytest

from jaxface.phantom import head as heads
from jaxface.phantom import skin
from jaxface.phantom.people import View, draw_subject
from jaxface.phantom.render import look
from jaxface.phantom.skin import ABSORBS, HEMOGLOBIN, MELANIN, Marks, densities, draw_marks

HALF, SIZE = 128, 256
CHEEK = (0.45, 6.95)  # place (x, y) on the undeformed mesh


def spots(face, kind=MELANIN, radius=0.06, density=0.8, ratio=1.0, angle=0.0, relief=0.0):
    """A mark in the middle of each of these triangles."""
    number = len(face)
    return Marks(
        kind=np.full(number, kind),
        face=np.array(face, int),
        weights=np.full([number, 3], 1 / 3),
        radius=np.full(number, radius),
        density=np.full(number, density),
        shape=np.tile([ratio, angle], (number, 1)),
        relief=relief,
        seed=3,
    )


def centers(points):
    return points[heads.load().faces].mean(1)


def place(seen, face, size=SIZE):
    """(x, y) in px of the middle of a triangle."""
    return centers(seen.points)[face, :2] * size / seen.size


def mesh_unit(seen, size=SIZE):
    """px of a mesh unit, from the eyes' distance."""
    eyes = [np.array(seen.landmarks[name]) for name in ("left_eye", "right_eye")]
    return np.linalg.norm(eyes[0] - eyes[1]) * size / 0.616


@pytest.fixture(scope="module")
def person():
    return dataclasses.replace(draw_subject(3), shape=(), smile=0.0, beard=0.0)


@pytest.fixture(scope="module")
def seen(person):
    return look(person, View(), HALF)


@pytest.fixture(scope="module")
def forehead():
    """A triangle that looks into the camera, far from everything that is no skin."""
    head, allowed = heads.load(), skin._skin()[0]
    toward = heads.normals(head, head.rest)[head.faces[allowed]].mean(1)[:, 2]
    away = np.abs(centers(head.rest)[allowed] - [0.0, 7.65, 1.3]).max(1)
    return int(allowed[np.argmin(away + (1 - toward))])


def test_same_seed_same_marks(person, seen):
    one, two = draw_marks(person), draw_marks(person)
    for name in ("kind", "face", "weights", "radius", "density", "shape", "relief"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    for a, b in zip(densities(one, seen, SIZE), densities(two, seen, SIZE)):
        assert a.tobytes() == b.tobytes()
    other = draw_marks(dataclasses.replace(person, seed=4))
    assert len(other.face) != len(one.face) or np.any(other.face != one.face)


def test_marks_are_drawn_as_told():
    """Medians of people, shares within them, and that pigment tells nothing of red spots."""
    subjects = [dataclasses.replace(draw_subject(n), age=0.38) for n in range(150)]
    drawn = [draw_marks(subject) for subject in subjects]
    red = np.array([(m.kind == HEMOGLOBIN).sum() for m in drawn])
    pigment = np.array([(m.kind == MELANIN).sum() for m in drawn]) - 3  # moles
    # Of a lognormal of deviation 0.85, the median of 150 has a deviation of 9 %.
    assert np.median(red) == pytest.approx(375, rel=0.3)
    assert np.median(pigment) == pytest.approx(130, rel=0.3)
    assert abs(np.corrcoef(np.log(red + 1), np.log(pigment + 4))[0, 1]) < 0.25
    older = [draw_marks(dataclasses.replace(s, age=0.98)) for s in subjects]
    ratio = np.median([(m.kind == MELANIN).sum() for m in older]) / np.median(pigment + 3)
    assert ratio == pytest.approx(np.exp(0.8 * 0.6), rel=0.12)
    allowed = skin._skin()[0]
    for marks in drawn[:10]:
        assert np.isin(marks.face, allowed).all()
        np.testing.assert_allclose(marks.weights.sum(1), 1)
        assert marks.radius.min() >= 0.0032 and marks.radius.max() <= 0.0125
        assert marks.density.min() >= 0.15 and marks.density.max() <= 4
        assert marks.shape[:, 0].min() >= 0.6 and marks.shape[:, 0].max() <= 1


@pytest.mark.parametrize("kind", [MELANIN, HEMOGLOBIN])
@pytest.mark.parametrize("size", [SIZE, 2 * SIZE])
def test_a_spot_is_what_the_geometry_says(seen, forehead, kind, size):
    """Place, radius and optical density in all four bands, px for px."""
    added, pigment, bare = densities(spots([forehead], kind), seen, size)
    x, y = place(seen, forehead, size)
    radius = 0.06 * mesh_unit(seen, size)
    row, column = np.mgrid[:size, :size] + 0.5
    away = np.hypot(column - x, row - y)
    assert bare[away < 2 * radius].min() == 1
    profile = 0.8 / (1 + np.exp((away / radius - 1) / 0.16))
    profile[away > 1.7 * radius] = np.nan  # where it is cut off
    known = np.isfinite(profile)
    for band in range(4):
        expected = profile[known] * ABSORBS[kind, band]
        np.testing.assert_allclose(added[known, band], expected, rtol=0.05, atol=0.01)
    assert np.abs(added[away > 3.2 * radius]).max() == 0
    if kind == MELANIN:
        weight = added[..., 3] / added[..., 3].sum()
        assert (weight * column).sum() == pytest.approx(x, abs=0.05)
        assert (weight * row).sum() == pytest.approx(y, abs=0.05)
        assert pigment.sum() == pytest.approx(np.pi * radius**2, rel=0.06)
        # Where more than half of the density at the center of an endless spot lies.
        np.testing.assert_array_equal(pigment, added[..., 3] > 0.4)
    else:
        assert not pigment.any()


def test_an_oval_lies_as_it_says(seen, forehead):
    angle = np.deg2rad(30)
    _, pigment, _ = densities(spots([forehead], ratio=0.5, angle=angle, radius=0.1), seen, SIZE)
    row, column = np.nonzero(pigment)
    variance, axes = np.linalg.eigh(np.cov(column, row))
    assert np.sqrt(variance[0] / variance[1]) == pytest.approx(0.5, abs=0.05)
    assert abs(axes[:, 1] @ [np.cos(angle), np.sin(angle)]) > np.cos(np.deg2rad(3))


def test_spots_of_two_kinds_add_up(seen, forehead):
    one, two = (spots([forehead], kind) for kind in (MELANIN, HEMOGLOBIN))
    both = Marks(
        **{
            field.name: np.concatenate([getattr(one, field.name), getattr(two, field.name)])
            for field in dataclasses.fields(Marks)
            if field.name not in ("relief", "seed")
        },
        relief=0.0,
        seed=3,
    )
    expected = densities(one, seen, SIZE)[0] + densities(two, seen, SIZE)[0]
    np.testing.assert_allclose(densities(both, seen, SIZE)[0], expected, atol=1e-5)


def test_spots_on_the_far_side_are_not_drawn(person):
    """Of a head turned by 60 degrees, one cheek is hidden behind the nose and the face."""
    middle = centers(heads.load().rest)
    allowed = skin._skin()[0]
    cheek = lambda side: int(
        allowed[
            np.argmin(np.hypot(middle[allowed, 0] - side * CHEEK[0], middle[allowed, 1] - CHEEK[1]))
        ]
    )
    left, right = cheek(1), cheek(-1)
    drawn = {}
    for yaw in (0, 60, -60):
        turned = look(person, View(yaw=float(yaw)), HALF)
        drawn[yaw] = [
            densities(spots([f], radius=0.03), turned, SIZE)[1].any() for f in (left, right)
        ]
    assert drawn[0] == [True, True]
    assert sum(drawn[60]) == sum(drawn[-60]) == 1 and drawn[60] != drawn[-60]
    back = look(person, View(yaw=180.0), HALF)
    assert not densities(spots([left, right]), back, SIZE)[1].any()


def test_spots_out_of_the_picture_are_passed_over(person, forehead):
    away = look(person, View(shift=(0.0, -0.9)), HALF)
    added, pigment, _ = densities(spots([forehead]), away, SIZE)
    assert not pigment.any() and np.all(added == 0)


def narrowness(person, forehead, yaw):
    turned = look(person, View(yaw=yaw), 256)
    _, pigment, _ = densities(spots([forehead], radius=0.1), turned, 512)
    row, column = np.nonzero(pigment)
    return np.sqrt(np.var(column) / np.var(row))


def test_turned_away_is_seen_narrower(person, forehead):
    assert narrowness(person, forehead, 0.0) == pytest.approx(1, abs=0.05)
    assert narrowness(person, forehead, 50.0) == pytest.approx(np.cos(np.deg2rad(50)), abs=0.08)


def test_pores_have_unit_deviation_and_no_mean():
    relief = skin._relief()
    assert relief.shape == (1024, 1024) and relief.dtype == np.float32
    assert abs(relief.mean(dtype=np.float64)) < 1e-6
    assert relief.std(dtype=np.float64) == pytest.approx(1, abs=1e-5)
    # It repeats without a seam: steps across the border are like those inside.
    step = np.abs(np.diff(relief, axis=0)).mean()
    assert np.abs(relief[0] - relief[-1]).mean() == pytest.approx(step, rel=0.1)
    assert ((relief - relief.mean()) ** 3).mean() > 0.5  # dense pits are rarer than thin ridges


def test_pores_on_skin_alone_and_less_in_uv(seen):
    added, pigment, bare = densities(spots([], relief=0.02), seen, SIZE)
    inside = bare == 1
    assert inside.sum() > 5000 and not pigment.any()
    assert np.all(added[bare == 0] == 0)
    for band, part in zip(range(4), (1, 1, 1, 0.5)):
        assert added[inside, band].std() == pytest.approx(0.02 * part, rel=0.1)
        assert abs(added[inside, band].mean()) < 0.02 * part * 0.1
    other = dataclasses.replace(spots([], relief=0.02), seed=4)
    assert np.corrcoef(densities(other, seen, SIZE)[0][inside, 0], added[inside, 0])[0, 1] < 0.1
