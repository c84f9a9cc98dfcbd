import numpy as np

from jaxface.phantom.raster import rasterize


def slow(points, faces, size):
    """Every pixel against every triangle."""
    best = np.full((size, size), -np.inf)
    found = np.full((size, size), -1)
    for number, face in enumerate(faces):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = points[face]
        area = (cx - ax) * (by - ay) - (bx - ax) * (cy - ay)
        if area <= 0:
            continue
        for row in range(size):
            for column in range(size):
                x, y = column + 0.5, row + 0.5
                u = ((cx - bx) * (y - by) - (cy - by) * (x - bx)) / -area
                v = ((ax - cx) * (y - cy) - (ay - cy) * (x - cx)) / -area
                w = 1 - u - v
                depth = u * az + v * bz + w * cz
                if min(u, v, w) >= 0 and depth > best[row, column]:
                    best[row, column], found[row, column] = depth, number
    return found


def test_equals_slow_reference():
    rng = np.random.default_rng(0)
    points = rng.uniform(-4, 20, (60, 3))
    faces = rng.integers(0, 60, (50, 3))
    pixel, face, _ = rasterize(points, faces, 16)
    found = np.full(256, -1)
    found[pixel] = face
    np.testing.assert_array_equal(found.reshape(16, 16), slow(points, faces, 16))


def test_weights_place_the_pixel_center():
    points = np.array([[1.0, 2.0, 0.0], [3.0, 14.0, 1.0], [15.0, 5.0, 2.0]])
    pixel, _, weights = rasterize(points, np.array([[0, 1, 2]]), 16)
    assert len(pixel) > 40
    at = weights @ points[:, :2]
    centers = np.stack([pixel % 16, pixel // 16], 1) + 0.5
    np.testing.assert_allclose(at, centers, atol=1e-4)


def test_back_of_a_triangle_is_not_seen():
    points = np.array([[1.0, 2.0, 0.0], [3.0, 14.0, 1.0], [15.0, 5.0, 2.0]])
    assert len(rasterize(points, np.array([[0, 2, 1]]), 16)[0]) == 0


def test_neighbors_share_an_edge_without_gap():
    points = np.array([[0.0, 0.0, 0.0], [0.0, 16.0, 0.0], [16.0, 16.0, 0.0], [16.0, 0.0, 0.0]])
    pixel, _, _ = rasterize(points, np.array([[0, 1, 2], [0, 2, 3]]), 16)
    assert len(pixel) == 256
