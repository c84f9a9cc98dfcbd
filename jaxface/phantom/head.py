"""The phantom's head: MakeHuman's CC0 mesh made ready for rendering.

Lengths are the mesh's own unit, about 1 dm; x toward the subject's left, y upward, z to the front.
*Rest coordinates* are a vertex's place on the undeformed mesh: whatever is painted in them sits at
the same place of every face.
"""

import dataclasses

import numpy as np
import scipy  # its parts are loaded when they are asked for

from jaxface import assets, locks
from jaxface.phantom.raster import rasterize

SKIN, LEFT_EYE, RIGHT_EYE, HELPER_HAIR, UPPER_TEETH, LOWER_TEETH, TONGUE, CURTAIN, CLOTH = range(9)
EYE = np.array([0.308, 7.284, 1.245])  # center of the left eyeball at rest
EYE_RADIUS = 0.14
NUM_DIRECTIONS = 96  # in which the baked shadows are known
_CURTAIN_SHAPE = (15, 33)  # rows from crown to tips, columns around the head
_CLOTH_SHAPE = (7, 33)


@dataclasses.dataclass(frozen=True)
class Head:
    """Constant arrays of the mesh: V vertices, F triangles, K shape targets."""

    rest: np.ndarray  # [V, 3]
    faces: np.ndarray  # int [F, 3]
    groups: np.ndarray  # int [F]
    targets: "scipy.sparse.csr_matrix"  # [V * 3, K] displacement at full strength
    names: dict[str, int]  # of the targets
    incidence: "scipy.sparse.csr_matrix"  # [V, F]: 1 where a triangle has the vertex
    curtain: slice  # vertices of long hair
    cloth: slice  # vertices of the clothing
    directions: np.ndarray  # [D, 3] unit vectors
    visible: np.ndarray  # [V, D] share of the light from a direction that reaches a vertex
    sky: np.ndarray  # [V] share of even light from all around that reaches a vertex


@locks.made_once
def load() -> Head:
    """Reads, refines and shades the mesh; takes about 2 s, once a process."""
    pack = assets.load("mh_head_cc0")
    kept = pack["g"] != HELPER_HAIR
    faces, groups = pack["f"][kept].astype(np.int64), pack["g"][kept].astype(np.int64)
    names = {str(name): k for k, name in enumerate(pack["names"])}
    targets = np.zeros((len(names), len(pack["v"]), 3), np.float32)
    which = np.repeat(np.arange(len(names)), np.diff(pack["off"]))
    targets[which, pack["idx"]] = pack["d"]

    rest, spread = pack["v"], None
    for reach in (0.34, 0.25):
        center = rest[faces].mean(1)
        mouth = (np.abs(center[:, 0]) < reach) & (np.abs(center[:, 1] - 6.79) < 0.62 * reach)
        faces, groups, step = _subdivide(
            faces, groups, mouth & (center[:, 2] > 1.38) & (groups == SKIN), len(rest)
        )
        rest = step @ rest
        spread = step if spread is None else step @ spread
    num_head = len(rest)
    flat = targets.transpose(1, 0, 2).reshape(targets.shape[1], -1)
    flat = (spread @ flat).reshape(num_head, len(names), 3).transpose(1, 0, 2)

    grids = [(CURTAIN, _grid(*_CURTAIN_SHAPE)), (CLOTH, _grid(*_CLOTH_SHAPE))]
    parts, start = [], num_head
    for group, (count, grid_faces) in grids:
        faces = np.concatenate([faces, grid_faces + start])
        groups = np.concatenate([groups, np.full(len(grid_faces), group)])
        parts.append(slice(start, start + count))
        start += count
    targets = np.zeros((len(names), start, 3), np.float32)
    targets[:, :num_head] = flat
    rest = np.concatenate([rest, np.zeros((start - num_head, 3))]).astype(np.float32)
    rest[parts[0]], rest[parts[1]] = curtain(6.0), cloth()

    ones = np.ones(faces.size, np.float32)
    owner = np.repeat(np.arange(len(faces)), 3)
    incidence = scipy.sparse.csr_matrix((ones, (faces.ravel(), owner)), shape=(start, len(faces)))
    directions = _directions(NUM_DIRECTIONS)
    typical = rest + _typical(targets, names)
    visible = _bake(typical, faces, groups, directions)
    facing = np.clip(_normals(typical, faces, incidence) @ directions.T, 0, None)
    sky = (visible * facing).sum(1) / np.maximum(facing.sum(1), 1e-6)
    flat = scipy.sparse.csr_matrix(targets.reshape(len(names), -1).T)
    return Head(
        rest, faces, groups, flat, names, incidence, *parts, directions, visible,
        sky.astype(np.float32),
    )  # fmt: skip


def normals(head: Head, vertices: np.ndarray) -> np.ndarray:
    """Unit normals [V, 3], area-weighted means of the triangles around each vertex."""
    return _normals(vertices, head.faces, head.incidence)


def _normals(vertices, faces, incidence):
    a, b, c = (vertices[faces[:, k]].T for k in range(3))
    u, v = b - a, c - a
    cross = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]
    total = incidence @ np.stack(cross, 1)
    return total / np.maximum(np.sqrt(np.einsum("vk,vk->v", total, total)), 1e-12)[:, None]


def curtain(end: float, volume: float = 0.0, part: float = 0.0) -> np.ndarray:
    """Long hair as a sheet around sides and back of the head, in rest coordinates.

    Args:
      end: height of the tips.
      volume: how far it stands off, in mesh units.
      part: shifts the gap at the front to one side, -1..1.
    """
    rows, columns = _CURTAIN_SHAPE
    down, around = np.linspace(0, 1, rows)[:, None], np.linspace(-1, 1, columns)[None]
    y = 8.35 + (end - 8.35) * down
    dome = np.sqrt(np.clip(1 - (np.clip(y - 7.6, 0, None) / 1.02) ** 2, 0.02, 1))
    half = (0.80 + volume) * dome + 0.10 * np.clip(7.0 - y, 0, 1) ** 1.5
    angle = np.deg2rad(116 + 5 * np.sin(9 * down) + 6 * part * np.sign(around)) * around
    wave = 1 + 0.02 * np.sin(26 * around + 5 * down)
    x = half * wave * np.sin(angle)
    z = 0.46 - (0.98 + volume) * dome * wave * np.cos(angle)
    return np.stack([x, np.broadcast_to(y, x.shape), z], -1).reshape(-1, 3)


def cloth() -> np.ndarray:
    """Collar and shoulders, in rest coordinates."""
    rows, columns = _CLOTH_SHAPE
    down, around = np.linspace(0, 1, rows)[:, None], np.linspace(-1, 1, columns)[None]
    angle = np.pi * around
    x = (0.50 + 1.5 * down**0.7) * np.sin(angle)
    z = 0.38 - (0.50 + 0.5 * down) * np.cos(angle)
    y = 6.14 - 0.75 * down**1.5 + 0.06 * np.cos(angle) + 0 * x
    return np.stack([x, y, z], -1).reshape(-1, 3)


def _grid(rows: int, columns: int) -> tuple[int, np.ndarray]:
    """Triangles of a sheet, both sides."""
    k = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (q.ravel() for q in (k[:-1, :-1], k[:-1, 1:], k[1:, :-1], k[1:, 1:]))
    front = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    return rows * columns, np.concatenate([front, front[:, ::-1]])


def _subdivide(faces, groups, chosen, num_vertices):
    """Splits the chosen triangles in four; also returns the matrix old -> new vertices."""
    picked = faces[chosen]
    edges = np.sort(picked[:, [[0, 1], [1, 2], [2, 0]]], axis=-1)
    unique, index = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True)
    (a, b, c), (ab, bc, ca) = picked.T, num_vertices + index.reshape(-1, 3).T
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    new = np.concatenate([np.stack(part, 1) for part in parts])
    rows = np.concatenate([np.arange(num_vertices), *[num_vertices + np.arange(len(unique))] * 2])
    columns = np.concatenate([np.arange(num_vertices), unique[:, 0], unique[:, 1]])
    values = np.concatenate([np.ones(num_vertices), np.full(2 * len(unique), 0.5)])
    shape = (num_vertices + len(unique), num_vertices)
    matrix = scipy.sparse.csr_matrix((values.astype(np.float32), (rows, columns)), shape=shape)
    faces = np.concatenate([faces[~chosen], new])
    return faces, np.concatenate([groups[~chosen], np.tile(groups[chosen], 4)]), matrix


def _typical(targets: np.ndarray, names: dict[str, int]) -> np.ndarray:
    """Displacement [V, 3] of the mean of the six young adult macro shapes."""
    kinds = [
        f"{a}-{s}-young" for a in ("caucasian", "asian", "african") for s in ("male", "female")
    ]
    return np.mean([targets[names[kind]] for kind in kinds], axis=0)


def _directions(count: int) -> np.ndarray:
    """Unit vectors spread evenly over the hemisphere in front, a little beyond its rim."""
    k = np.arange(count) + 0.5
    z = 1 - 1.15 * k / count
    angle = np.pi * (1 + np.sqrt(5)) * k
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1).astype(np.float32)


def _bake(vertices, faces, groups, directions, size: int = 160) -> np.ndarray:
    """Which vertices each direction's light reaches [V, D]: one small depth map a direction."""
    solid = faces[(groups != CURTAIN) & (groups != CLOTH)]
    center = np.array([0, 7.2, 0.7])
    center[1] += (vertices[solid] - center)[..., 1].mean()
    visible = np.ones((len(vertices), len(directions)), np.float32)
    for k, toward in enumerate(directions):
        right = np.cross([0, 1, 0], toward)
        right /= np.linalg.norm(right)
        up = np.cross(toward, right)
        place = (vertices - center) @ np.stack([right, up, toward], 1)
        points = np.stack([place[:, 0], -place[:, 1], place[:, 2]], 1)
        points[:, :2] = (points[:, :2] / 3.2 + 0.5) * size
        pixel, face, weights = rasterize(points, solid, size)
        depth = np.full(size * size, -np.inf)
        depth[pixel] = (points[solid[face], 2] * weights).sum(1)
        column, row = (np.clip(points[:, axis].astype(int), 0, size - 1) for axis in (0, 1))
        blocked = np.zeros(len(points))
        for dy, dx in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)):
            at = np.clip(row + dy, 0, size - 1) * size + np.clip(column + dx, 0, size - 1)
            blocked += depth[at] > points[:, 2] + 0.05
        visible[:, k] = 1 - blocked / 5
    return visible
