"""The quick maximum of windows against XLA's, in values, gradients and their gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.ops.max_pool import max_pool

CASES = {  # sides, window, stride, padding
    "ResNet": ((12, 10), 3, 2, 1),
    "odd sides": ((11, 9), 3, 2, 1),
    "AlexNet": ((13, 15), 3, 2, 0),
    "a rest that no window meets": ((12, 8), 3, 2, 0),
    "no stride": ((6, 5), 3, 1, 1),
    "stride of three": ((17, 14), 5, 3, 2),
    "apart": ((8, 8), 2, 2, 0),
}


def _theirs(x, window, stride, padding):
    return nn.max_pool(x, (window, window), (stride, stride), ((padding, padding),) * 2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ties", [False, True])
def test_equals_xla(case, ties):
    """With ties, as a ReLU in front makes them, the first pixel of a window has the gradient.

    The gradient's gradient is compared without them: XLA's does not keep to the first pixel there.
    """
    sides, window, stride, padding = CASES[case]
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(
            rng.integers(-2, 2, (2, *sides, 3)) if ties else rng.normal(size=(2, *sides, 3))
        )
        x = x.astype(jnp.float64)
        weight = jnp.asarray(rng.normal(size=_theirs(x, window, stride, padding).shape))

        def everything(pool):
            total = lambda x: jnp.sum(jnp.sin(pool(x, window, stride, padding)) * weight)
            penalty = lambda x: jnp.sum(jax.grad(total)(x) ** 3)
            return jax.jit(
                lambda x: (
                    pool(x, window, stride, padding),
                    jax.grad(total)(x),
                    x if ties else jax.grad(penalty)(x),
                )
            )

        for ours, theirs in zip(everything(max_pool)(x), everything(_theirs)(x)):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_what_is_not_a_number_stays_so():
    x = jnp.zeros((1, 6, 6, 1)).at[0, 3, 3, 0].set(jnp.nan).at[0, 0, 0, 0].set(-jnp.inf)
    np.testing.assert_array_equal(max_pool(x, 3, 2, 1), _theirs(x, 3, 2, 1))
    grad = jax.grad(lambda x: jnp.sum(max_pool(x, 3, 2, 1)))(x)
    assert grad.sum() == 9 and grad[0, 3, 3, 0] == 4  # windows that see it take it for the largest


def test_exported_programs_and_accelerators_have_xlas_form(monkeypatch):
    (batch,) = jax.export.symbolic_shape("batch")
    image = jax.ShapeDtypeStruct((batch, 8, 8, 2), jnp.float32)
    text = jax.export.export(jax.jit(lambda x: max_pool(x, 3, 2, 1)))(image).mlir_module()
    assert "stablehlo.reduce_window" in text
    jaxpr = lambda: str(jax.make_jaxpr(lambda x: max_pool(x, 3, 2, 1))(jnp.zeros((1, 8, 8, 2))))
    assert "reduce_window" not in jaxpr()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "reduce_window" in jaxpr()
