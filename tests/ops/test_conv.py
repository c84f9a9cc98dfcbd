"""Convolutions and their gradients in forms of ours against JAX's own, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.ops import conv, filters

CASES = {  # sides, kernel, stride, padding of rows and of columns
    "halving": ((8, 10), (4, 4), 2, ((1, 1), (1, 1))),
    "odd sides": ((9, 8), (3, 3), 2, ((1, 1), (1, 1))),
    "StyleGAN2's discriminator": ((7, 5), (3, 3), 2, ((0, 0), (0, 0))),
    "stem": ((11, 9), (7, 5), 2, ((3, 3), (0, 2))),
    "kernel smaller than stride": ((7, 10), (1, 1), 2, ((0, 0), (0, 0))),
    "a phase without taps": ((9, 10), (2, 2), 3, ((0, 0), (0, 0))),
    "uneven padding": ((9, 9), (3, 2), 3, ((0, 1), (2, 0))),
    "AlexNet": ((23, 23), (11, 11), 4, ((2, 2), (2, 2))),
    "no stride": ((6, 7), (3, 3), 1, ((1, 1), (1, 1))),
    "full padding": ((6, 7), (3, 3), 1, ((2, 2), (3, 2))),
    "PatchGAN": ((10, 11), (4, 4), 1, ((1, 1), (1, 1))),
    "four taps a stride": ((17, 16), (8, 8), 2, ((3, 3), (3, 3))),
    "rows and columns differ": ((8, 9), (2, 4), 2, ((0, 0), (1, 0))),
}
FORMS = {  # the limits of ops/conv.py that make it take a form wherever it can
    "lax": dict(LARGE=np.inf, FEW=0),
    "columns": dict(HEAVY=0, FEW=np.inf),
    "dense": dict(LARGE=0, FEW=0, MOVING=np.inf),
    "winograd": dict(LARGE=0, FEW=0, MOVING=0),
}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    for name, limit in FORMS[request.param].items():
        monkeypatch.setattr(conv, name, limit)
    return request.param


def _once(f):
    """The gradient of a loss that is not linear, so that it depends on both arguments."""
    return jax.grad(lambda x, kernel: jnp.sum(jnp.sin(f(x, kernel))), (0, 1))


def _twice(f):
    return jax.grad(lambda *args: sum(jnp.sum(g**3) for g in _once(f)(*args)), (0, 1))


def _assert_equal(ours, theirs, bound):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        a, b = (np.asarray(value, np.float64) for value in (a, b))
        assert np.abs(a - b).max() <= bound * np.abs(b).max()


@functools.cache
def _by_lax(case):
    """(arguments, what JAX's own form makes of them)"""
    sides, size, stride, padding = CASES[case]
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=s)) for s in ((2, *sides, 3), (*size, 3, 4)))
    theirs = lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=conv.DIMENSIONS
    )
    return (x, kernel), _all(theirs)(x, kernel)


def _all(f):
    return jax.jit(lambda *args: (f(*args), _once(f)(*args), _twice(f)(*args)))


@pytest.mark.parametrize("case", CASES)
def test_value_gradient_and_its_gradient_equal_lax(form, case):
    _, _, stride, padding = CASES[case]
    with jax.enable_x64(True):
        args, expected = _by_lax(case)
        ours = lambda x, kernel: conv.convolution(x, kernel, (stride, stride), padding)
        _assert_equal(_all(ours)(*args), expected, 1e-12)


def test_each_form_is_taken_where_it_fits(form):
    """Else the other tests would compare lax with itself."""
    taken = {}
    for case, (sides, size, stride, padding) in CASES.items():
        geometry = conv._Geometry((stride, stride), padding, sides, size, None)
        taken[case] = conv._form(geometry, 2, 3, 4, jnp.float32)
    del taken["kernel smaller than stride"]  # of which `convolution` makes
    geometry = conv._Geometry((1, 1), ((0, 0), (0, 0)), (4, 5), (1, 1), None)
    assert conv._form(geometry, 2, 3, 4, jnp.float32) == "product"
    fit = {"halving", "no stride", "full padding", "PatchGAN", "four taps a stride"}
    wide = {"rows and columns differ"}
    expected = {"lax": set(taken), "columns": set(taken), "winograd": fit}
    expected["dense"] = {"halving", "four taps a stride"} | wide
    assert {case for case in taken if taken[case] == form} >= expected[form]
    assert form == "lax" or set(taken.values()) <= {"lax", "dense", form}


def test_the_form_is_the_one_that_was_measured_to_be_fastest(monkeypatch):
    """By the table in `_form`."""
    of = lambda n, side, kernel, inputs, outputs, stride, padding=1, dtype=jnp.float32: conv._form(
        conv._Geometry((stride,) * 2, ((padding,) * 2,) * 2, (side,) * 2, (kernel,) * 2, None),
        *(n, inputs, outputs, dtype),
    )
    large = (2, 128, 4, 64, 128, 2)
    measured = {
        large: "winograd",
        (2, 64, 4, 128, 256, 2): "dense",
        (2, 32, 4, 256, 512, 2): "columns",
        (2, 4, 4, 512, 512, 2): "columns",
        (4, 84, 3, 64, 64, 1, 2): "lax",
        (8, 28, 3, 128, 128, 1): "winograd",
        (8, 7, 3, 512, 512, 1): "columns",
        (4, 36, 3, 512, 512, 1, 2): "winograd",
        (8, 224, 7, 3, 64, 2, 3): "lax",
        (4, 4, 3, 16, 16, 1): "lax",
    }
    assert {case: of(*case) for case in measured} == measured
    assert of(*large, dtype=jnp.bfloat16) == "dense"  # whose sums of tiles would be too coarse
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert {of(*case) for case in measured} == {"lax"}


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize(
    "case", ["no stride", "kernel smaller than stride", "StyleGAN2's discriminator"]
)
def test_correlate_is_a_convolution_on_every_machine(form, case, backend, monkeypatch):
    _, _, stride, padding = CASES[case]
    with jax.enable_x64(True):
        args, expected = _by_lax(case)
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        ours = lambda x, kernel: conv.correlate(x, kernel, stride, padding[0][0])
        _assert_equal(_all(ours)(*args), expected, 1e-12)


@pytest.mark.parametrize("dtype, bound", [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
def test_less_precision(form, dtype, bound):
    rng = np.random.default_rng(1)
    x, kernel = (jnp.asarray(rng.normal(size=s), dtype) for s in ((2, 8, 8, 3), (4, 4, 3, 4)))
    f = lambda x, kernel: conv.convolution(x, kernel, (2, 2), [(1, 1), (1, 1)])
    wide = [value.astype(jnp.float32) for value in (x, kernel)]
    plain = lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, (2, 2), [(1, 1), (1, 1)], dimension_numbers=conv.DIMENSIONS
    )
    theirs = jax.jit(_once(plain))(*wide)
    _assert_equal(jax.jit(_once(f))(x, kernel), [g.astype(dtype) for g in theirs], bound)


def test_transposed_equals_the_transpose_of_lax(form):
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        for size in (3, 4):
            y, kernel = (
                jnp.asarray(rng.normal(size=s)) for s in ((2, 4, 3, 5), (size, size, 2, 5))
            )
            halved = lambda x, kernel=kernel: jax.lax.conv_general_dilated(
                x, kernel, (2, 2), [(1, 1), (1, 1)], dimension_numbers=conv.DIMENSIONS
            )
            _, back = jax.vjp(halved, jnp.zeros([2, 8, 6, 2]))
            _assert_equal(conv.transposed(y, kernel, 2, 1, (8, 6)), back(y)[0], 1e-12)
        with pytest.raises(ValueError, match=r"makes \(4, 4\) of \(8, 8\), not \(4, 3\)"):
            conv.transposed(y, kernel, 2, 1, (8, 8))


def test_vmapped_over_images_and_kernels(form):
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        x, kernel = (jnp.asarray(rng.normal(size=s)) for s in ((3, 1, 8, 8, 2), (3, 4, 4, 2, 2)))
        f = lambda x, kernel: conv.convolution(x, kernel, (2, 2), [(1, 1), (1, 1)])
        one, each = jax.jit(_once(f)), jax.jit(jax.vmap(_once(f)))(x, kernel)
        for n in range(3):
            _assert_equal([g[n] for g in each], one(x[n], kernel[n]), 1e-12)


def test_what_is_dilated_grouped_or_laid_out_otherwise_is_lax():
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.normal(size=(2, 9, 9, 4)), jnp.float32)
    for shape, more in (
        ((3, 3, 4, 2), {"rhs_dilation": (2, 2)}),
        ((3, 3, 4, 2), {"lhs_dilation": (2, 2)}),
        ((3, 3, 1, 4), {"feature_group_count": 4}),
        ((3, 3, 9, 2), {"dimension_numbers": ("NCHW", "HWIO", "NCHW")}),
    ):
        kernel = jnp.asarray(rng.normal(size=shape), jnp.float32)
        more = {"dimension_numbers": conv.DIMENSIONS} | more
        ours = conv.convolution(x, kernel, (1, 1), [(1, 1), (1, 1)], **more)
        theirs = jax.lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1), (1, 1)], **more)
        np.testing.assert_array_equal(ours, theirs)


def test_an_exported_program_has_the_plain_form():
    """It takes batches of any size, on machines of any kind."""
    (batch,) = jax.export.symbolic_shape("batch")
    x, w, s = (
        jax.ShapeDtypeStruct(n, jnp.float32) for n in ((64, 64, 128), (3, 3, 128, 128), (128,))
    )
    of_batch = lambda one: jax.ShapeDtypeStruct((batch, *one.shape), one.dtype)
    plain = lambda x, w, s: conv.convolution(x, w, padding="SAME")
    modulated = lambda x, w, s: filters.modulated_conv2d(x, w, s, padding=2)
    for function in (plain, modulated):
        program = jax.export.export(jax.jit(function), platforms=("cpu",))(
            of_batch(x), w, of_batch(s)
        )
        assert program.mlir_module().count("stablehlo.convolution") == 1
