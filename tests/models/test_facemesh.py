import jax
import numpy as np
import pytest
from test_blazeface import pattern

from jaxface import assets
from jaxface.models import facemesh

# Outputs of the TFLite model (float32 weights) in LiteRT 2.3 for `pattern(192)` in 0..1.
POINTS = {
    0: [112.8185, 121.1308, -10.4861],
    33: [77.936, 72.9084, 5.6188],
    152: [110.7663, 161.0428, 6.4155],
    263: [152.867, 75.1847, 5.8664],
    467: [154.6078, 71.7165, 3.9285],
}
SCORE = -9.104939


@pytest.fixture(scope="module")
def net():
    return facemesh.from_state_dict({}, assets.load("face_landmark_f16"))


def test_size(net):
    assert sum(leaf.size for leaf in jax.tree.leaves(net.variables)) == 604_685


def test_equals_tflite_and_itself_without_jit(net):
    x = (pattern(192)[None] + 1) / 2
    points, score = jax.jit(net.apply)(x)
    assert points.shape == (1, 468, 3) and score.shape == (1,)
    # Our weights are stored as float16: 0.1 of 192 px.
    np.testing.assert_allclose(points[0, list(POINTS)], list(POINTS.values()), atol=0.1)
    np.testing.assert_allclose(score, [SCORE], atol=0.1)
    eager_points, eager_score = net.apply(x)
    np.testing.assert_allclose(points, eager_points, atol=1e-3)
    np.testing.assert_allclose(score, eager_score, atol=1e-3)


def test_refuses_weights_of_another_network():
    arrays = assets.load("face_landmark_f16")
    for broken in (
        assets.load("face_detection_back_f16"),
        {k: v for k, v in arrays.items() if k != "211"},
        arrays | {"211": arrays["211"][:99]},
    ):
        with pytest.raises(ValueError):
            facemesh.from_state_dict({}, broken)
