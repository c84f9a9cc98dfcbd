import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.ops import tiles


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("length", [1, 7, 32, 33, 100, 128])
@pytest.mark.parametrize(
    "tile, stride, margin", [(32, 16, 0), (32, 8, 7), (32, 16, 8), (32, 32, 0)]
)
def test_origins_cover_the_axis_in_one_phase(length, tile, stride, margin):
    found = tiles.origins(length, tile, stride, margin)
    assert all(o % stride == 0 for o in found) and np.diff(found).tolist() == [stride] * (
        len(found) - 1
    )
    used = np.zeros(length + 4 * tile, int)
    for o in found:
        used[2 * tile + o + margin : 2 * tile + o + tile - margin] += 1
    assert used[2 * tile : 2 * tile + length].min() >= 1
    for one in (found[0], found[-1]):  # none is there for nothing
        if len(found) > 1:
            used[2 * tile + one + margin : 2 * tile + one + tile - margin] -= 1
            assert used[2 * tile : 2 * tile + length].min() == 0
            used[2 * tile + one + margin : 2 * tile + one + tile - margin] += 1


def test_one_tile_is_one_tile():
    assert tiles.origins(256, 256, 128) == [0]


def test_gaps_are_refused():
    with pytest.raises(ValueError, match="gaps"):
        tiles.origins(100, 32, 24, margin=8)


def test_window():
    weight = tiles.window(16, 3)
    assert weight.dtype == np.float32 and weight.shape == (16, 16)
    assert (weight[3:-3, 3:-3] > 0).all() and weight.max() <= 1
    assert np.count_nonzero(weight) == 10 * 10
    np.testing.assert_array_equal(weight, weight[::-1, ::-1])
    plain = tiles.window(16)[8] / tiles.window(16)[8].max()
    np.testing.assert_allclose(plain[:8] + plain[8:], plain[0] + plain[8], rtol=1e-6)  # overlap-add


@pytest.mark.parametrize("size", [(301, 517), (20, 30), (64, 64), (3, 200)])
@pytest.mark.parametrize("margin, shift", [(0, 0), (12, 0), (5, 13)])
def test_identity_is_exact(size, margin, shift):
    image = noise(*size)
    shapes = set()

    def network(x):
        shapes.add((x.shape, x.dtype))
        return x

    out = tiles.translate(network, image, tile=64, stride=32, margin=margin, batch=3, shift=shift)
    assert out.dtype == np.float32 and out.shape == image.shape
    assert np.abs(out - (image / 127.5 - 1)).max() < 1e-6
    assert shapes == {((3, 64, 64, 3), np.dtype(np.float32))}


def test_blends_by_the_window_of_each_tile():
    """Against the slow way: all tiles on full-size canvases."""
    image = noise(50, 75)
    calls = iter(range(1000))
    network = lambda x: np.full((*x.shape[:3], 1), next(calls), np.float32) + x[..., :1]
    out = tiles.translate(network, image, tile=32, stride=16, batch=1)
    padded = np.pad(image, ((0, 48), (0, 48), (0, 0)), mode="reflect") / 127.5 - 1
    total, weights = np.zeros((98, 123)), np.full((98, 123), 1e-20)
    number = 0
    for top in tiles.origins(50, 32, 16):
        for left in tiles.origins(75, 32, 16):
            here = (slice(top, top + 32), slice(left, left + 32))
            total[here] += tiles.window(32) * (padded[(*here, 0)] + number)
            weights[here] += tiles.window(32)
            number += 1
    np.testing.assert_allclose(out[..., 0], (total / weights)[:50, :75], atol=1e-4)


class Hourglass(nn.Module):
    @nn.compact
    def __call__(self, x):
        skip = nn.leaky_relu(nn.Conv(4, (4, 4), 2, 1)(x))
        x = nn.leaky_relu(nn.Conv(6, (4, 4), 2, 1)(skip))
        x = nn.relu(nn.ConvTranspose(4, (4, 4), (2, 2), padding="SAME")(x))
        return jnp.tanh(
            nn.ConvTranspose(2, (4, 4), (2, 2), padding="SAME")(jnp.concatenate([x, skip], -1))
        )


def test_a_network_of_strides_sees_no_tiles():
    net = Hourglass()
    image = noise(160, 208)
    whole = jnp.asarray(image, jnp.float32)[None] / 127.5 - 1
    variables = net.init(jax.random.key(0), whole)
    run = jax.jit(lambda x: net.apply(variables, x))
    # How far a px is seen is measured, not derived: the gradient's support about a center.
    probe = jax.grad(lambda x: net.apply(variables, x)[0, 80:84, 104:108].sum())(whole)
    rows = np.flatnonzero(np.abs(probe[0]).sum((1, 2)))
    reach = max(80 - rows[0], rows[-1] - 83)
    assert 4 <= reach <= 14
    untiled = np.asarray(run(whole))[0]
    tiled = tiles.translate(run, image, tile=64, stride=32, margin=16, batch=4)
    inner = (slice(16, -16), slice(16, -16))  # the untiled one meets zeros at the picture's edge
    np.testing.assert_allclose(tiled[inner], untiled[inner], atol=1e-4)
    out_of_phase = tiles.translate(run, image, tile=64, stride=30, margin=16, batch=4)
    assert np.abs(out_of_phase - untiled)[inner].max() > 1e-2


def test_small_pictures_are_continued():
    seen = []

    def network(x):
        seen.append(x)
        return x

    tiles.translate(network, noise(4, 5), tile=16, stride=8, batch=1)
    image = noise(4, 5) / 127.5 - 1
    np.testing.assert_allclose(seen[0][0, 4:7, :5], image[[2, 1, 0]], atol=1e-6)  # reflected
    np.testing.assert_allclose(seen[0][0, 7:, :5], np.stack([image[0]] * 9), atol=1e-6)  # held
    seen.clear()
    image = noise(40, 40)
    tiles.translate(network, image, tile=16, stride=4, margin=4, batch=1)
    around = np.pad(image, ((4, 0), (4, 0), (0, 0)), mode="reflect")[:16, :16] / 127.5 - 1
    np.testing.assert_allclose(seen[0][0], around, atol=1e-6)


def test_only_what_is_kept_is_computed():
    image = noise(200, 200)
    keep = np.zeros((200, 200), bool)
    keep[150:160, 20:40] = True
    count = []

    def network(x):
        count.append(len(x))
        return x[..., :1]

    out = tiles.translate(network, image, tile=32, stride=16, batch=1, keep=keep, fill=-7.0)
    everything = tiles.translate(network, image, tile=32, stride=16, batch=1)
    assert out.shape == (200, 200, 1)
    np.testing.assert_allclose(out[keep], everything[keep], atol=1e-6)
    assert (out[:100] == -7).all() and (out[:, 100:] == -7).all()
    computed = len(count) - len(tiles.origins(200, 32, 16)) ** 2
    assert computed == 2 * 3  # from rows 128 and 144, from columns 0, 16 and 32
    with pytest.raises(ValueError, match="keep"):
        tiles.translate(network, image, keep=np.zeros((200, 200), bool))


def test_patch_centers_against_counting():
    rng = np.random.default_rng(1)
    mask = rng.uniform(size=(61, 83)) < np.linspace(0, 1, 83)
    found = tiles.patch_centers(mask, 16, 5, 0.5)
    assert found.dtype == np.int32
    expected = [
        (top + 8, left + 8)
        for top in range(0, 46, 5)
        for left in range(1, 68, 5)
        if mask[top : top + 16, left : left + 16].sum() >= 128
    ]
    assert sorted(map(tuple, found)) == expected and 0 < len(expected) < 140
    assert tiles.patch_centers(mask, 62, 5, 0.0).shape == (0, 2)
    assert len(tiles.patch_centers(np.zeros((20, 20), bool), 16, 2, 0.0)) == 0


def test_seam_error_of_known_networks():
    image = noise(150, 90)
    sizes = dict(tile=32, stride=16, batch=2)
    assert tiles.seam_error(lambda x: x, image, **sizes) < 1e-4
    # A ramp along each tile: what a px gets depends on its place in the tiles alone.
    ramp = np.linspace(-1, 1, 32, dtype=np.float32)[None, :, None, None]
    network = lambda x: np.broadcast_to(ramp, (*x.shape[:3], 1))
    keep = np.zeros((150, 90), bool)
    keep[40:104, 30:60] = True  # whole periods of 16 px, inside
    weight = np.sin(np.pi * (np.arange(32) + 0.5) / 32) ** 2
    period = (ramp.ravel() * weight)[:16] + (ramp.ravel() * weight)[16:]
    expected = 127.5 * np.sqrt(np.mean(np.square(period - np.roll(period, 8))))
    found = tiles.seam_error(network, image, **sizes, keep=keep)
    assert found == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="half a stride"):
        tiles.seam_error(network, image, **sizes, align=32)
