import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from skimage.metrics import structural_similarity

from jaxface.metrics import gradcam
from jaxface.models import resnet
from jaxface.system import Result


@pytest.fixture(scope="module")
def maps():
    return np.random.default_rng(0).normal(size=(3, 5, 4, 6)).astype(np.float32)


def test_of_a_linear_head_on_pooled_maps_it_is_the_class_activation_map(maps):
    # Zhou et al. 2016, arXiv 1512.04150, equation 2: sum_k w_k A_k.
    kernel = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)
    for answer in (0, 1):
        cam = np.maximum(maps @ kernel[:, answer], 0)
        expected = cam / cam.max((1, 2), keepdims=True)
        heat = gradcam.grad_cam(lambda m, a=answer: (m.mean((1, 2)) @ kernel)[:, a] + 3.0, maps)
        assert heat.dtype == np.float32 and heat.shape == (3, 5, 4)
        np.testing.assert_allclose(heat, expected, atol=1e-6)


def test_weights_are_mean_slopes_of_the_score(maps):
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(5 * 4 * 6, 7)) / 5, rng.normal(size=7)

    def score(m, xp):
        return xp.tanh(m.reshape(len(m), -1) @ first) @ second

    exact = maps.astype(np.float64)
    slope = np.zeros_like(exact)
    for index in np.ndindex(exact.shape[1:]):
        step = np.zeros_like(exact)
        step[(slice(None), *index)] = 1e-5
        slope[(slice(None), *index)] = (score(exact + step, np) - score(exact - step, np)) / 2e-5
    heat = np.maximum((slope.mean((1, 2), keepdims=True) * exact).sum(-1), 0)
    found = gradcam.grad_cam(lambda m: score(m, jnp), maps)
    np.testing.assert_allclose(found, heat / heat.max((1, 2), keepdims=True), atol=1e-4)


def test_what_speaks_against_an_answer_is_cold(maps):
    heat = gradcam.grad_cam(lambda m: -jnp.abs(m).mean((1, 2, 3)), np.abs(maps))
    assert not heat.any()
    for answer in (1, -1):
        heat = gradcam.grad_cam(lambda m, a=answer: a * m.mean((1, 2, 3)), maps)
        assert heat.min() == 0 and (heat.max((1, 2)) == 1).all()
        hottest = (answer * maps.sum(-1)).reshape(3, -1).argmax(1)
        np.testing.assert_array_equal(heat.reshape(3, -1).argmax(1), hottest)


def test_overlay():
    gray = np.full((40, 32, 1), 100, np.uint8)
    heat = np.zeros((5, 4), np.float32)
    heat[2, 3] = 1
    for image in (gray, gray.repeat(3, 2)):
        drawn = gradcam.overlay(image, heat)
        assert drawn.dtype == np.uint8 and drawn.shape == (40, 32, 3)
        assert (drawn[:8] == 100).all() and (drawn[:, :16] == 100).all()  # cold: unchanged
        far = np.abs(drawn.astype(int) - 100).sum(-1)
        row, column = np.unravel_index(far.argmax(), far.shape)
        assert 16 <= row < 24 and column >= 24  # the cell [2, 3] of 8 px
    assert gradcam.overlay(gray, heat).tobytes() == gradcam.overlay(gray, heat).tobytes()


def test_similarities_are_scipys_and_scikit_images():
    rng = np.random.default_rng(3)
    one, other = rng.random((2, 4, 9, 8)).astype(np.float32)
    one[0, :4], one[1] = 0, 0  # many equal, all equal
    rank = gradcam.rank_correlation(one, other)
    assert rank.shape == (4,) and rank[1] == 0
    for index in (0, 2, 3):
        expected = scipy.stats.spearmanr(one[index].ravel(), other[index].ravel())[0]
        assert rank[index] == pytest.approx(expected, abs=1e-12)
    expected = [structural_similarity(x, y, data_range=1, win_size=7) for x, y in zip(one, other)]
    np.testing.assert_allclose(gradcam.ssim(one, other), expected, atol=1e-6)
    small = gradcam.ssim(one[2:, :3, :3], other[2:, :3, :3])
    large = [cv2.resize(x[2, :3, :3], (7, 7)) for x in (one, other)]
    assert small[0] == pytest.approx(
        structural_similarity(*large, data_range=1, win_size=7), abs=1e-5
    )
    np.testing.assert_allclose(gradcam.ssim(one, one), 1)


def test_shuffled_keeps_values_and_loses_order():
    variables = {
        "a": jnp.arange(60.0).reshape(3, 4, 5),
        "b": {"c": jnp.arange(9), "d": jnp.ones(())},
    }
    mixed = gradcam.shuffled(variables, jax.random.key(0))
    assert jax.tree.map(jnp.shape, mixed) == jax.tree.map(jnp.shape, variables)
    assert not (mixed["a"] == variables["a"]).all()
    np.testing.assert_array_equal(np.sort(mixed["a"], None), np.arange(60))
    np.testing.assert_array_equal(np.sort(mixed["b"]["c"]), np.arange(9))
    again = gradcam.shuffled(variables, jax.random.key(0))
    np.testing.assert_array_equal(mixed["a"], again["a"])


PEOPLE = [f"p{n // 2}" for n in range(24)]


@pytest.fixture(scope="module")
def scene():
    """32 things in each of 24 pictures, each a spot somewhere and each with its own channel."""
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[:8, :8]
    at = rng.uniform(0, 7, (24, 32, 2, 1, 1))
    spots = np.exp(-((rows - at[:, :, 0]) ** 2 + (columns - at[:, :, 1]) ** 2) / 2)
    return np.moveaxis(spots, 1, -1).astype(np.float32)


def explain(scene):
    return lambda kernel: gradcam.grad_cam(lambda m: m.mean((1, 2)) @ kernel, scene)


def test_random_weights_show_other_things(scene):
    learned = jnp.zeros(32).at[5].set(1.0)
    keys = jax.random.split(jax.random.key(1), 8)
    draws = [gradcam.shuffled(learned, key) for key in keys]
    draws = [draw for draw in draws if draw[5] == 0]
    found = gradcam.depends_on_weights(explain(scene), learned, draws, PEOPLE)
    assert all(result.n == 12 for result in found.values())
    assert found["gradcam_rank"].high < 0.4 and found["gradcam_ssim"].high < 0.6
    assert 0.1 < found["gradcam_rank_signed"].value < found["gradcam_rank"].value + 1e-9
    assert "depend on what the network has learned" in gradcam.verdict(found["gradcam_rank"])


def test_the_same_weights_show_the_same(scene):
    learned = jnp.zeros(32).at[5].set(1.0)
    found = gradcam.depends_on_weights(explain(scene), learned, [learned] * 2, PEOPLE)
    for name in gradcam.NAMES:
        assert found[name].value == pytest.approx(1, abs=1e-6)
    assert "explain nothing" in gradcam.verdict(found["gradcam_rank"])


def test_maps_that_show_the_photograph_alone_are_found_out(scene):
    # Whatever the weights, these maps are the picture, or the picture turned around.
    picture = scene.sum(-1) / scene.sum(-1).max((1, 2), keepdims=True)
    found = gradcam.depends_on_weights(
        lambda sign: picture if sign > 0 else 1 - picture, 1, [-1, 1], PEOPLE
    )
    assert found["gradcam_rank"].value == pytest.approx(1, abs=1e-6)
    assert found["gradcam_rank_signed"].value == pytest.approx(0, abs=1e-9)
    assert "show the photograph more" in gradcam.verdict(found["gradcam_rank"])


def test_pictures_without_a_map(scene):
    learned = jnp.zeros(32).at[5].set(1.0)
    heat = explain(scene)(learned)
    heat[:2] = 0
    said = {"learned": heat, "random": np.zeros_like(heat)}
    found = gradcam.depends_on_weights(said.get, "learned", ["random"], PEOPLE)
    rank = found["gradcam_rank"]
    assert (rank.value, rank.n) == (0, 11)
    assert "2 without a map left out, 22 maps of random weights empty" in rank.protocol
    found = gradcam.depends_on_weights(said.get, "random", ["learned"], PEOPLE)
    assert np.isnan(found["gradcam_rank"].value)
    assert "No photograph has a heat map" in gradcam.verdict(found["gradcam_rank"])


def test_verdicts_between():
    assert "is not certain" in gradcam.verdict(Result(0.45, 0.38, 0.52))
    assert "0.30)" in gradcam.verdict(Result(0.3)) and "maps depend on" in gradcam.verdict(
        Result(0.3)
    )


def test_a_residual_network():
    module = resnet.ResNet(depth=10, num_classes=2, width=8)
    x = jnp.asarray(np.random.default_rng(5).normal(size=(4, 64, 64, 3)), jnp.float32)

    @jax.jit
    def run(variables):
        y, sown = module.apply(variables, x, mutable=["intermediates"])
        return y, sown["intermediates"]["layer4"][0]

    def explain(variables):
        fc = variables["params"]["fc"]
        return gradcam.grad_cam(
            lambda m: (m.mean((1, 2)) @ fc["kernel"] + fc["bias"])[:, 1], run(variables)[1]
        )

    variables = jax.jit(module.init)(jax.random.key(0), x[:1])
    logits, last = run(variables)
    fc = variables["params"]["fc"]
    np.testing.assert_allclose(last.mean((1, 2)) @ fc["kernel"] + fc["bias"], logits, atol=1e-5)
    heat = explain(variables)
    assert heat.shape == (4, 2, 2) and heat.min() >= 0 and heat.max() == 1
    draws = [gradcam.shuffled(variables, key) for key in jax.random.split(jax.random.key(2))]
    found = gradcam.depends_on_weights(explain, variables, draws, list("abcd"))
    assert 0 <= found["gradcam_rank"].value < 1
    with pytest.raises(ValueError, match="maps must be"):
        gradcam.grad_cam(lambda m: m.mean(1), logits)
    assert explain(variables).tobytes() == heat.tobytes()
