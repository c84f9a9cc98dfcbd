"""Pose from the mesh against the angles that heads were rendered at."""

import dataclasses

import numpy as np
import pytest

from jaxface.faces import align, detect, mesh
from jaxface.faces.pose import Pose, pose_of
from jaxface.phantom import render

# (subject, yaw, pitch, roll) in degrees; positive: to the own left, up, to the own left shoulder.
STRAIGHT = (0, 0, 0)
TURNED = [(20, 0, 0), (-20, 0, 0), (0, 15, 0), (0, -15, 0), (0, 0, 15), (0, 0, -15), (10, -8, 10)]
TAKEN = [(seed, *angles) for seed in (0, 3) for angles in (STRAIGHT, *TURNED)]
TAKEN += [(seed, *STRAIGHT) for seed in (5, 6, 7, 8)]


@pytest.fixture(scope="module")
def points():
    """{(subject, yaw, pitch, roll): [468, 3]}."""
    images = []
    for seed, yaw, pitch, roll in TAKEN:
        view = dataclasses.replace(
            render.draw_view(seed), yaw=yaw, pitch=-pitch, roll=roll, zoom=0.7, noise=0
        )  # the renderer's pitch is positive downward
        images.append(render.render(render.draw_subject(seed), view, 160, supersample=1).image)
    found = [faces[0] for faces in detect.detect(images)]
    return dict(zip(TAKEN, mesh.landmarks_of(images, found)[0]))


@pytest.mark.parametrize("truth", TAKEN, ids=str)
def test_rendered_angles(points, truth):
    seed, yaw, pitch, roll = truth
    pose = pose_of(points[truth])
    assert abs(pose.yaw - yaw) < 4
    assert abs(pose.roll - roll) < 3
    straight = pose_of(points[seed, *STRAIGHT])
    assert abs(straight.pitch) < 15  # a person's own zero is not known ...
    assert abs(pose.pitch - straight.pitch - pitch) < 6  # ... what changes is


def test_signs():
    """A drawn head of two axes, turned by hand: no network, no camera."""
    points = np.zeros((468, 3))
    for right, left in ((33, 263), (133, 362), (61, 291), (234, 454), (127, 356), (46, 276)):
        points[right], points[left] = (-1, 0, 0), (1, 0, 0)  # the own left is at the right edge
    points[2], points[151] = (0, 1, 0), (0, -1, 0)  # y points down, z away from the camera
    assert np.allclose(pose_of(points), 0)

    def turned(axis, degrees):
        """Right-handed about an axis of the picture (x right, y down, z away)."""
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        matrix = np.eye(3)
        matrix[first, first] = matrix[second, second] = c
        matrix[first, second], matrix[second, first] = -s, s
        return points @ matrix.T

    # To the own left: the left ear goes away from the camera.
    left = turned("y", -20)
    assert left[454, 2] > 0
    assert np.allclose(pose_of(left), (20, 0, 0))
    # Up: the forehead goes away from the camera.
    up = turned("x", -15)
    assert up[151, 2] > 0
    assert np.allclose(pose_of(up), (0, 15, 0))
    # To the own left shoulder: the top of the head goes to the right edge.
    leaning = turned("z", 10)
    assert leaning[151, 0] > 0
    assert np.allclose(pose_of(leaning), (0, 0, 10))


def test_scale_and_place_do_not_matter(points):
    one = points[TAKEN[-1]]
    assert np.allclose(pose_of(one), pose_of(3 * one + [40, -7, 11]))


def test_no_plane():
    assert pose_of(np.zeros((468, 3))) == Pose(0, 0, 0)


def test_loose_crop_holds_the_whole_face(points):
    for taken, one in points.items():
        matrix = align.frame_of(one, 100, align.LOOSE)
        placed = align.to_frame(one, matrix)
        outline = placed[list(mesh.OVAL), :2]
        assert outline.min() > 4 and outline.max() < 96, taken
        if taken[1:] == STRAIGHT:  # a fifth more than the face's box, as a whole
            box = np.ptp(outline, axis=0)
            assert box.min() > 55 and box.max() < 100 / 1.2, taken
            assert np.abs(mesh.centers(placed) / 100 - align.LOOSE).max() < 0.04
