"""Resizing: peers' outputs, and what each convention does to a ramp and to a lone pixel."""

import golden
import jax
import numpy as np
import pytest
from golden import assert_close, nchw, nhwc

from jaxface.ops import resize

IMAGES = ("s64", "s100x140")


@pytest.mark.parametrize("image", IMAGES)
def test_clean_fid_with_pillow(image):
    data = golden.load("resize")
    x = nhwc(data[f"in/{image}"][None])
    names = [n for n in data if n.startswith(f"clean_fid/{image}/PIL_")]
    assert len(names) == 8
    for name in names:
        _, kind, method, size = name.split("/")[-1].split("_")
        width, height = map(int, size.split("x"))
        y = resize.pil(x, (height, width), method, quantized=kind == "q")[0]
        assert y.dtype == data[name].dtype
        np.testing.assert_array_equal(y, data[name], name)
    y = resize.pil(x, (299, 299))[0]
    np.testing.assert_array_equal(y[::8, ::8], data[f"clean_fid/{image}/clean299_stride8"])


@pytest.mark.parametrize("image", IMAGES)
def test_clean_fid_with_pytorch(image):
    data = golden.load("resize")
    x = nhwc(data[f"in/{image}"][None])
    for side in (40, 75):
        expected = data[f"clean_fid/{image}/PyTorch_f_bilinear_{side}x{side}"]
        assert_close(resize.half_pixel_bilinear(x, (side, side))[0], expected, 1e-5, side)
    y = resize.half_pixel_bilinear(x, (299, 299))[0, ::8, ::8]
    assert_close(y, data[f"clean_fid/{image}/legacy_pytorch299_stride8"], 1e-5)


@pytest.mark.parametrize("image", IMAGES)
def test_torch_fidelity(image):
    data = golden.load("resize")
    x = nhwc(data[f"in/{image}"][None])
    y = nchw(resize.tf1_bilinear(x, (299, 299)))[..., ::8, ::8]
    assert_close(y, data[f"torch_fidelity/{image}/tf1_299_stride8"], 1e-5)
    y = nchw(resize.tf1_bilinear(x, (40, 40)))
    assert_close(y, data[f"torch_fidelity/{image}/tf1_40"], 1e-5)
    y = nchw(resize.tf1_bilinear(x, (75, 75), align_corners=True))
    assert_close(y, data[f"torch_fidelity/{image}/tf1_75_align"], 1e-5)


def test_where_the_pixels_lie():
    ramp = np.arange(4.0)[None, :, None, None]  # one column
    half = np.ravel(resize.half_pixel_bilinear(ramp, (8, 1)))
    np.testing.assert_allclose(half, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    corner = np.ravel(resize.tf1_bilinear(ramp, (8, 1)))
    np.testing.assert_allclose(corner, [0, 0.5, 1, 1.5, 2, 2.5, 3, 3])
    aligned = np.ravel(resize.tf1_bilinear(ramp, (7, 1), align_corners=True))
    np.testing.assert_allclose(aligned, np.arange(7) / 2)


def test_area():
    x = np.random.default_rng(2).normal(size=(2, 6, 9, 3)).astype(np.float32)
    expected = x.reshape(2, 3, 2, 3, 3, 3).mean((2, 4))
    assert_close(resize.area(x, (3, 3)), expected, 1e-6)
    # 9 columns on 6: each new one covers 1.5, and takes the mean of both that it touches.
    columns = np.floor(np.arange(6) * 1.5).astype(int)
    expected = (x[:, :, columns] + x[:, :, columns + 1]) / 2
    assert_close(resize.area(x, (6, 6)), expected, 1e-6)


def test_only_pillow_antialiases():
    dot = np.zeros((1, 16, 16, 1), np.uint8)
    dot[0, 6, 6] = 255
    # By corners rows 0, 4, 8 and 12 are read and 6 is missed; by centers 5 and 6 are averaged.
    assert np.asarray(resize.tf1_bilinear(dot, (4, 4))).max() == 0
    assert np.asarray(resize.half_pixel_bilinear(dot, (4, 4))).max() == pytest.approx(255 / 4)
    box = resize.pil(dot, (4, 4), "box")
    assert box.max() == pytest.approx(255 / 16)
    assert box.sum() == pytest.approx(255 / 16)


def test_quantized_is_float_rounded():
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        x = rng.integers(0, 256, (2, 12, 9, channels)).astype(np.uint8)
        exact = resize.pil(x, (7, 15), "bilinear")
        rounded = resize.pil(x, (7, 15), "bilinear", quantized=True)
        assert rounded.dtype == np.uint8 and rounded.shape == exact.shape == (2, 7, 15, channels)
        # Pillow rounds after each of its two passes.
        assert 0.1 < np.abs(exact - rounded).max() <= 1.01


def test_no_images():
    assert resize.pil(np.zeros((0, 4, 4, 3), np.uint8), (2, 5)).shape == (0, 2, 5, 3)


def test_overshoots_are_cut():
    edge = np.zeros((1, 8, 8, 1), np.uint8)
    edge[:, 4:] = 255
    y = resize.pil(edge, (16, 16), "bicubic")
    assert y.min() == 0 and y.max() == 255
    assert (resize.pil(edge * 0.5 + 50, (16, 16), "bicubic") < 49).any()


def test_jit_equals_eager():
    x = np.random.default_rng(1).normal(size=(2, 5, 6, 3)).astype(np.float32)
    for function in (resize.half_pixel_bilinear, resize.tf1_bilinear, resize.area):
        compiled = jax.jit(lambda x, f=function: f(x, (9, 4)))
        assert_close(compiled(x), function(x, (9, 4)), 1e-6)


def test_what_cannot_be_resized():
    with pytest.raises(ValueError, match="nearest"):
        resize.pil(np.zeros((1, 4, 4, 3), np.uint8), (2, 2), "nearest")
    with pytest.raises(ValueError, match="uint8"):
        resize.pil(np.zeros((1, 4, 4, 3)), (2, 2), quantized=True)
