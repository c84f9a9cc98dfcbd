"""Which way a head is turned, from the points of its mesh.

No camera calibration: the mesh's depth has the unit of its x and y (Kartynnik et al., arXiv 1907.06724),
so that lines across the face and up its middle span its own axes in space, and their rotation against
the camera's is read off. Yaw and roll are zero where a face is seen straight by symmetry alone. Pitch has
no such zero: ours is where the line from the base of the nose to the middle of the forehead is upright,
which people's faces differ in.

Measured on 102 rendered heads of 14 people (tests/faces/test_pose.py repeats it on a few), yaw within 25,
pitch within 20 and roll within 20 degrees: root mean square error 1.8 degrees of yaw, 1.1 of roll and
2.8 of changes of one person's pitch; that person's own zero of pitch lies 6 (standard deviation) from
the average person's. Turns come out about a tenth too small.
"""

from typing import NamedTuple

import numpy as np

# Pairs (the subject's right, left): corners of the eyes and of the mouth, the outline, ends of the brows.
ACROSS = ((33, 263), (133, 362), (61, 291), (234, 454), (127, 356), (46, 276))
UP = (
    2,
    151,
)  # from the base of the nose to the forehead: neither a smile nor an open mouth moves them


class Pose(NamedTuple):
    """Degrees; all are zero for a face seen straight from the front."""

    yaw: float  # positive: turned to the subject's own left, which is the right edge of the picture
    pitch: float  # positive: looks up
    roll: float  # positive: leans to the subject's own left shoulder


def pose_of(points: np.ndarray) -> Pose:
    """Pose of a head from the points [468, 3] of its mesh, as `mesh.landmarks` gives them.

    Head to camera is taken apart as: first yaw about the head's own upright axis, then pitch about the
    camera's horizontal, then roll in the picture. Points that span no plane (all equal) give zeros.
    """
    seen = np.asarray(points, np.float64) * [1, -1, -1]  # x right, y up, z toward the camera
    across = np.mean([seen[left] - seen[right] for right, left in ACROSS], axis=0)
    up = seen[UP[1]] - seen[UP[0]]
    if not np.cross(across, up).any():
        return Pose(0.0, 0.0, 0.0)
    x = across / np.linalg.norm(across)
    y = up - x * (x @ up)
    y /= np.linalg.norm(y)
    z = np.cross(x, y)  # straight out of the face
    yaw, pitch = np.arctan2(-x[2], z[2]), -np.arcsin(np.clip(y[2], -1, 1))
    return Pose(*(float(np.degrees(angle)) for angle in (yaw, pitch, np.arctan2(y[0], y[1]))))
