"""Perceptual path length: a peer's paths, and generators whose length is known."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.metrics.ppl import clipped_mean, path_lengths, ppl, sample_lengths, seen, slerp
from jaxface.models import stylegan3
from jaxface.ops import resize

PATHS = ["w_end_nocrop_eps0.01", "w_full_crop_eps0.01", "z_full_nocrop_eps0.01"]


def squares(a, b):
    return jnp.square(a - b).sum((1, 2, 3))


@pytest.fixture(scope="module")
def peer():
    data = golden.load("metrics")
    kwargs = {"z_dim": 32, "c_dim": 0, "w_dim": 32, "img_resolution": 32, "img_channels": 3}
    kwargs |= {"channel_base": 512, "channel_max": 16, "mapping_kwargs": {"num_layers": 2}}
    arrays = {k.removeprefix("ppl/G/"): v for k, v in data.items() if k.startswith("ppl/G/")}
    weight = data["ppl/W"]

    def distance(a, b):
        """The file's stand-in for LPIPS: 8x8 means of images in 0..255, then a projection."""
        embed = lambda x: golden.nchw(resize.area((x + 1) * 127.5, (8, 8))).reshape(len(x), -1)
        return jnp.square((embed(a) - embed(b)) @ weight).sum(1)

    return data, stylegan3.from_state_dict(kwargs, arrays), distance


@pytest.mark.parametrize("name", [*PATHS, "z_end_nocrop_eps0.001"])
def test_peer(peer, name):
    data, g, distance = peer
    space, _, crop, epsilon = name.split("_")
    z0, z1, t, expected = (data[f"ppl/{name}/{part}"] for part in ("z0", "z1", "t", "dist"))
    lengths = path_lengths(
        g.mapping,
        g.synthesis,
        distance,
        z0,
        z1,
        t,
        space=space,
        epsilon=float(epsilon.removeprefix("eps")),
        crop=crop == "crop",
    )
    np.testing.assert_allclose(lengths, expected, rtol=2e-3)  # differences over eps²


def test_clipping_of_peer():
    data = golden.load("metrics")
    lengths = data["ppl/clip_in"][: int(data["ppl/clip_num_samples"])]
    assert clipped_mean(lengths) == pytest.approx(float(data["ppl/clip_out"]), rel=1e-6)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_of_peer(t):
    data = golden.load("metrics")
    ours = slerp(data["slerp/a"], data["slerp/b"], t)
    np.testing.assert_allclose(ours, data[f"slerp/nvidia_t{t}"], atol=1e-6)


def test_slerp_turns_evenly():
    a, b = np.array([[3.0, 0, 0]] * 4), np.array([[0, 0.5, 0]] * 4)
    t = np.array([0, 1 / 3, 0.5, 1])
    angle = t * np.pi / 2
    expected = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    np.testing.assert_allclose(slerp(a, b, t), expected, atol=1e-6)
    np.testing.assert_allclose(slerp(a, a, 0.4), [[1, 0, 0]] * 4, atol=1e-6)


def linear(latent):
    """[N, 12] -> images [N, 2, 2, 3] holding the latent's own numbers."""
    return latent.reshape(-1, 2, 2, 3)


def identity(z, c=None):
    return z


def test_length_of_straight_paths():
    """Of a linear generator the step is eps (w1 - w0), so the length is |w1 - w0|²."""
    z0, z1 = np.random.default_rng(0).normal(size=(2, 5, 12)).astype(np.float32)
    expected = np.square(z1 - z0).sum(1)
    for t in (np.zeros(5), np.full(5, 0.7)):
        lengths = path_lengths(identity, linear, squares, z0, z1, t, epsilon=1e-2)
        np.testing.assert_allclose(lengths, expected, rtol=1e-3)


def test_length_of_arcs():
    """On the sphere the step is eps times the angle."""
    z0, z1 = np.random.default_rng(1).normal(size=(2, 5, 12)).astype(np.float32)
    cosine = (z0 * z1).sum(1) / np.linalg.norm(z0, axis=1) / np.linalg.norm(z1, axis=1)
    t = np.array([0, 0.2, 0.5, 0.9, 1])
    lengths = path_lengths(identity, linear, squares, z0, z1, t, space="z", epsilon=1e-2)
    np.testing.assert_allclose(lengths, np.arccos(cosine) ** 2, rtol=1e-3)


def test_published_step_is_not_lost_in_rounding():
    z0, z1 = np.random.default_rng(2).normal(size=(2, 200, 12)).astype(np.float32)
    lengths = path_lengths(identity, linear, squares, z0, z1, np.full(200, 0.5))
    expected = np.square(z1 - z0).sum(1)
    assert np.mean(lengths) == pytest.approx(expected.mean(), rel=5e-3)


def test_mean_over_paths():
    options = {"samples": 500, "batch": 125, "epsilon": 1e-2, "seed": 3}
    lengths = sample_lengths(identity, linear, squares, 12, **options)
    assert lengths.shape == (500,)
    assert ppl(identity, linear, squares, 12, **options) == clipped_mean(lengths)
    assert np.mean(lengths) == pytest.approx(24, rel=0.1)  # E |w1 - w0|² of 12 normal pairs
    arcs = sample_lengths(identity, linear, squares, 12, space="z", sampling="full", **options)
    assert np.mean(arcs) == pytest.approx((np.pi / 2) ** 2, rel=0.1)


def test_end_and_full_sampling():
    """A generator that moves only beyond the middle of a path from 0 to 1."""
    late = lambda w: jnp.maximum(w - 0.5, 0)[:, :, None, None]
    zero_one = lambda z, c: next(ends)
    for sampling, expected in (("end", 0), ("full", 0.5)):
        ends = iter([jnp.zeros((400, 1)), jnp.ones((400, 1))])
        lengths = sample_lengths(
            zero_one, late, squares, 1, samples=400, batch=400, sampling=sampling, epsilon=1e-3
        )
        assert np.mean(lengths) == pytest.approx(expected, abs=0.08)


def test_what_the_distance_sees():
    rows, columns = np.mgrid[:64, :64]
    images = np.stack([rows, columns], -1)[None].astype(np.float32)
    cropped = seen(images, crop=True)[0]
    assert cropped.shape == (32, 32, 2)
    np.testing.assert_array_equal(cropped[[0, -1], 0, 0], [24, 55])
    np.testing.assert_array_equal(cropped[0, [0, -1], 1], [16, 47])
    assert seen(images).shape == images.shape
    large = np.random.default_rng(5).normal(size=(1, 512, 512, 1)).astype(np.float32)
    expected = large.reshape(1, 256, 2, 256, 2, 1).mean((2, 4))
    np.testing.assert_allclose(seen(large), expected, atol=1e-6)
    assert seen(large, crop=True).shape == (1, 256, 256, 1)


def test_clipping_drops_the_ends():
    x = np.r_[np.arange(200.0), 1e9]
    np.random.default_rng(6).shuffle(x)
    # The 1st percentile of 201 values is the third smallest, the 99th the third largest.
    assert clipped_mean(x) == np.arange(2.0, 199.0).mean()
    assert clipped_mean([2.0, 4.0]) == 3


def test_labels_reach_the_mapping():
    """Class 1 doubles the latent: its paths are four times as long."""
    mapping = lambda z, c: z * (1 + c[:, 1:])
    labels = np.eye(2)[np.arange(300) % 2]
    lengths = sample_lengths(
        mapping, linear, squares, 12, samples=300, batch=128, labels=labels, epsilon=1e-2
    )
    assert lengths[1::2].mean() / lengths[::2].mean() == pytest.approx(4, rel=0.25)
    with pytest.raises(ValueError, match="as many labels"):
        sample_lengths(mapping, linear, squares, 12, samples=301, labels=labels)


def test_compiled_equals_eager():
    z0, z1 = np.random.default_rng(7).normal(size=(2, 3, 12)).astype(np.float32)
    t = np.zeros(3, np.float32)
    run = lambda z0, z1, t: path_lengths(
        identity, linear, squares, z0, z1, t, space="z", epsilon=0.1
    )
    np.testing.assert_allclose(jax.jit(run)(z0, z1, t), run(z0, z1, t), rtol=1e-4)


def test_wrong_words():
    z = np.zeros((1, 12), np.float32)
    with pytest.raises(ValueError, match="'z' or 'w'"):
        path_lengths(identity, linear, squares, z, z, np.zeros(1), space="s")
    with pytest.raises(ValueError, match="'full' or 'end'"):
        ppl(identity, linear, squares, 12, sampling="middle")
