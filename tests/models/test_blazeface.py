import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface import assets
from jaxface.models import blazeface

# Outputs of the TFLite model in LiteRT 2.3 for `pattern(256)`: first four numbers of a box, score.
ROWS = [0, 101, 300, 511, 512, 700, 895]
BOXES = [
    [-0.1473, -6.7611, 53.3272, 53.328],
    [4.3401, -2.7644, 63.2745, 63.2744],
    [0.6343, -1.1679, 29.7776, 29.7613],
    [2.5286, -4.1444, 52.3622, 52.3625],
    [17.5914, 0.7044, 94.2558, 94.2452],
    [13.384, -6.3765, 97.9223, 97.9374],
    [5.2789, -5.0716, 62.1811, 61.1333],
]
SCORES = [-8.8318, -4.7446, -35.6032, -3.046, -3.9057, -10.8528, -16.9758]


def pattern(side):
    y, x = np.mgrid[:side, :side] / side
    waves = [np.cos(9 * x + 5 * y * y), np.sin(11 * y - 4 * x * y), np.cos(7 * x * y + 3)]
    return np.stack(waves, axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def net():
    return blazeface.from_state_dict({}, assets.load("face_detection_back_f16"))


def test_size(net):
    assert sum(leaf.size for leaf in jax.tree.leaves(net.variables)) == 136_240


def test_equals_tflite_and_itself_without_jit(net):
    x = pattern(256)[None]
    boxes, scores = jax.jit(net.apply)(x)
    assert boxes.shape == (1, 896, 16) and scores.shape == (1, 896)
    np.testing.assert_allclose(boxes[0, ROWS, :4], BOXES, atol=2e-3)
    np.testing.assert_allclose(scores[0, ROWS], SCORES, atol=2e-3)
    eager_boxes, eager_scores = net.apply(x)
    # Both reach 800, where another processor's sums differ by more than 1e-3.
    np.testing.assert_allclose(boxes, eager_boxes, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(scores, eager_scores, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("stride,shape", [(1, (5, 6)), (2, (6, 8)), (2, (7, 5))])
def test_depthwise_is_a_grouped_convolution(stride, shape):
    x = jax.random.normal(jax.random.key(0), (2, *shape, 3))
    layer = blazeface.Depthwise(stride)
    variables = layer.init(jax.random.key(1), x)
    kernel = variables["params"]["kernel"]
    expected = jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-5)


def test_block_pools_and_widens_its_skip():
    x = jnp.arange(2.0 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    block = blazeface.BlazeBlock(5, 2)
    variables = jax.tree.map(jnp.zeros_like, block.init(jax.random.key(0), x))
    y = block.apply(variables, x)
    np.testing.assert_array_equal(y[..., :3], x[:, 1::2, 1::2])  # the largest of each 2x2
    assert y.shape == (2, 2, 2, 5) and not y[..., 3:].any()


def test_refuses_weights_of_another_network():
    arrays = assets.load("face_detection_back_f16")
    with pytest.raises(ValueError, match="arrays"):
        blazeface.from_state_dict({}, {k: v for k, v in arrays.items() if k != "1"})
    with pytest.raises(ValueError, match="stem/kernel"):
        blazeface.from_state_dict({}, arrays | {"1": arrays["1"][:8]})
