"""What is computed once is the same, and is computed once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.ops.materialize import materialize

SHAPE = (4, 128, 130)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.int8, jnp.int32])
def test_the_same_bit_for_bit(dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(0, 40, SHAPE), dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        x = x.at[0, 0, :5].set(jnp.array([jnp.inf, -jnp.inf, jnp.nan, 0.0, -0.0], dtype))
    else:
        x = x.at[0, 0, :2].set(jnp.array([jnp.iinfo(dtype).min, jnp.iinfo(dtype).max], dtype))
    for f in (materialize, jax.jit(materialize), jax.vmap(materialize)):
        same = f(x)
        assert same.dtype == x.dtype and same.shape == x.shape
        assert np.asarray(same).tobytes() == np.asarray(x).tobytes()


def test_gradients_pass_unchanged_twice():
    x = jax.random.normal(jax.random.key(0), SHAPE)
    f = lambda x: jnp.sum(materialize(x) ** 3)
    once = jax.jit(jax.grad(f))
    twice = jax.jit(jax.grad(lambda x: jnp.sum(once(x) ** 2)))
    np.testing.assert_allclose(once(x), 3 * x**2, rtol=1e-6)
    np.testing.assert_allclose(twice(x), 36 * x**3, rtol=1e-5)


def test_xla_does_not_fuse_it_with_what_made_the_operand(monkeypatch):
    """Else it would cost something and save nothing."""

    def transposed(x, keep):
        return keep(x[:, ::2] * 2 + x[:, 1::2]).swapaxes(1, 2)

    x = jnp.zeros((4, 512, 256))
    fusions = lambda keep: (
        jax.jit(lambda x: transposed(x, keep)).lower(x).compile().as_text().count("fusion(")
    )
    assert fusions(jax.lax.optimization_barrier) == fusions(lambda x: x) == 1
    assert (
        fusions(materialize) == 2
    )  # of what makes it and of itself; a transposition alone is none
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert fusions(lambda x: materialize(x)) == 1


def test_small_arrays_and_exported_programs_are_left_alone():
    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(jax.jit(materialize))
    large = jax.ShapeDtypeStruct((batch, *SHAPE), jnp.float32)
    assert "reduce_window" not in exported(large).mlir_module()
    assert "reduce_window" not in str(jax.make_jaxpr(materialize)(jnp.zeros([8, 8])))
    assert "reduce_window" in str(jax.make_jaxpr(materialize)(jnp.zeros(SHAPE)))
