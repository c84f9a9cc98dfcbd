"""Taking named arrays: what fits, what does not, and batch normalization folded away."""

import numpy as np
import pytest

from jaxface.errors import UserError
from jaxface.models.named import NamedArrays


def test_everything_taken():
    source = NamedArrays(
        "a test", {"a": np.arange(3), "n_tracked": np.zeros(())}, "n_tracked".__eq__
    )
    np.testing.assert_array_equal(source.take("a", (3,)), [0, 1, 2])
    source.close()


def test_all_that_is_wrong_is_told_at_once():
    source = NamedArrays("a test", {"a": np.zeros(3), "extra": np.zeros(1)})
    assert source.take("a", (4,)).shape == (4,)
    assert source.take("b", (2, 2)).shape == (2, 2)
    with pytest.raises(UserError) as error:
        source.close()
    assert str(error.value).splitlines() == [
        "these weights are not a test's:",
        "  a: has shape (3,), wanted (4,)",
        "  b: missing",
        "  extra: not in this network",
    ]


def test_batch_normalization_folds_into_a_kernel():
    rng = np.random.default_rng(0)
    parts = ("weight", "bias", "running_mean", "running_var")
    norm = {f"bn.{part}": rng.uniform(0.5, 2, 5) for part in parts}
    kernel, x = rng.normal(size=(4, 5)), rng.normal(size=(7, 4))
    layer = NamedArrays("a test", norm).folded(kernel, "bn", epsilon=0.1)
    scale, shift, mean, variance = norm.values()
    expected = (x @ kernel - mean) / np.sqrt(variance + 0.1) * scale + shift
    np.testing.assert_allclose(x @ layer["kernel"] + layer["bias"], expected, rtol=1e-5, atol=1e-5)
