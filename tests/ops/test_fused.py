"""The fused kernel, interpreted on CPU, against the plain form."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.ops import filters, fused

RNG = np.random.default_rng(0)


def _taps(n):
    return np.ones(1) if n == 1 else filters.design_lowpass_filter(n, 2, 3, 12)


def _forms(up, down, padding, clamp, up_taps=None, down_taps=None):
    """(kernel, plain form): functions of an image."""
    fu = _taps(6 * up if up > 1 else 1) if up_taps is None else up_taps
    fd = _taps(6 * down if down > 1 else 1) if down_taps is None else down_taps
    op = fused.Nonlinearity(
        *(tuple(f[::-1].tolist()) for f in (fu, fd)), up, down, padding, 1.5, 0.2, clamp
    )
    plain = lambda x: filters.filtered_lrelu(x, fu, fd, None, up, down, padding, 1.5, 0.2, clamp)
    return lambda x: fused.filtered_lrelu(x, op, True), plain


def _difference(a, b):
    """Norm of a - b, relative to b; one activation on the other side of a kink barely shows."""
    a, b = (np.asarray(v, np.float64) for v in (a, b))
    assert a.shape == b.shape
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def _both(run, x, seed=1):
    y, pull = jax.vjp(run, x)
    r = jax.random.normal(jax.random.key(seed), y.shape, y.dtype)
    return y, pull(r)[0]


CASES = [  # up, down, padding, shape
    (2, 2, (9, 8, 9, 8), (2, 18, 33, 3)),
    (4, 2, (-6, -9, -6, -9), (1, 17, 21, 17)),
    (1, 4, (3, 6, 2, 5), (1, 33, 37, 2)),
    (2, 1, (5, 4, 3, 6), (1, 9, 21, 3)),
]


@pytest.mark.parametrize("up, down, padding, shape", CASES)
def test_values_and_gradient(up, down, padding, shape):
    """Several stripes, chunks and blocks, odd sizes, padding that crops, a clamp that acts."""
    x = RNG.standard_normal(shape).astype(np.float32)
    kernel, plain = _forms(up, down, padding, 1.0)
    y, gx = jax.jit(lambda x: _both(kernel, x))(x)
    expected, gradient = jax.jit(lambda x: _both(plain, x))(x)
    assert (np.abs(x) > 1).any() and y.dtype == np.float32
    assert _difference(y, expected) < 1e-6
    assert _difference(gx, gradient) < 1e-3


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(dtype):
    """As near to float32 as the plain form, which rounds after every pass."""
    x = jnp.asarray(RNG.standard_normal((1, 12, 14, 3)), dtype)
    asymmetric = RNG.standard_normal(12) / 3
    kernel, plain = _forms(2, 2, (9, 8, 9, 8), None, up_taps=asymmetric)
    exact = jax.jit(lambda x: _both(plain, x))(x.astype(jnp.float32))
    y = jax.jit(kernel)(x)
    assert y.dtype == dtype
    assert _difference(y, exact[0]) < 2 * _difference(jax.jit(plain)(x), exact[0])


def test_second_derivative():
    x, v = RNG.standard_normal((2, 1, 10, 8, 2)).astype(np.float32)
    kernel, plain = _forms(2, 2, (9, 8, 9, 8), None)

    def twice(run):
        energy = lambda x: jnp.sum(jnp.sin(run(x)))
        return jax.jit(jax.grad(lambda x: jnp.sum(jax.grad(energy)(x) * v)))(x)

    assert _difference(twice(kernel), twice(plain)) < 1e-3


def test_too_small_an_image_is_refused():
    kernel, _ = _forms(2, 2, (0, 0, 0, 0), None)
    with pytest.raises(ValueError, match="11 x 5 pixels"):
        kernel(jnp.ones((1, 11, 5, 1)))


def test_it_is_used_for_half_precision_on_one_gpu(monkeypatch):
    used = []
    monkeypatch.setattr(fused, "filtered_lrelu", lambda x, op, interpret: used.append(op) or x)
    f = RNG.standard_normal(12)
    run = lambda dtype, f: filters.filtered_lrelu(
        jnp.ones((1, 9, 9, 1), dtype), f, f, None, 2, 2, (9, 8, 9, 7)
    )
    run(jnp.bfloat16, f)
    with filters.whole_images():
        run(jnp.bfloat16, f)
        h200 = types.SimpleNamespace(device_kind="NVIDIA H200")
        monkeypatch.setattr(jax, "devices", lambda: [h200])
        run(jnp.float32, f)
        run(jnp.bfloat16, np.outer(f, f))
        assert not used
        run(jnp.bfloat16, f)
    run(jnp.bfloat16, f)
    (op,) = used
    assert op.up_taps == tuple(f[::-1]) and op.padding == (9, 8, 9, 7) and op.clamp is None
