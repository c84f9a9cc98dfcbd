"""The protocol of features: what enters the network, and that batches do not matter."""

import jax
import numpy as np
import pytest
from golden import assert_close
from PIL import Image

from jaxface.metrics import features


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(features, "SIDE", 32)  # the protocol on a smaller canvas, for speed


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 24, 20, 3), np.uint8)


def pillow(image, side):
    """Bicubic and antialiased, float for every channel: clean-fid's way to resize."""
    channels = [
        np.asarray(Image.fromarray(image[..., c].astype(np.float32)).resize((side, side), 3))
        for c in range(image.shape[-1])
    ]
    return np.stack(channels, axis=-1)


def test_protocol_by_hand(images):
    module, variables = features.network()
    resized = np.stack([pillow(image, 32) for image in images])
    by_hand = jax.jit(module.apply)(variables, resized / 127.5 - 1)
    assert_close(features.mobilenet_features(images, batch=4), by_hand, 1e-4, "features")


def test_downscaling_is_antialiased():
    image = np.random.default_rng(1).integers(0, 256, (70, 90, 1), np.uint8)
    canvas = features.canvas(image[None], 32)[0, ..., :1]
    assert_close(canvas, pillow(image, 32) / 127.5 - 1, 1e-4, "resize")


def test_batches_and_gray(images):
    whole = features.mobilenet_features(images, batch=4)
    assert whole.shape == (5, 1280) and whole.dtype == np.float32
    assert_close(features.mobilenet_features(images[3:], batch=4), whole[3:], 1e-5, "second half")
    gray = images[..., :1]
    three = features.mobilenet_features(gray.repeat(3, axis=-1), batch=4)
    assert_close(features.mobilenet_features(gray, batch=4), three, 1e-5, "gray")


def test_floats_are_refused(images):
    with pytest.raises(ValueError, match="uint8"):
        features.mobilenet_features(images / 255)


def test_name_says_the_size():
    assert features.PROTOCOL == "mobilenetv2@128"


def test_remembered_features_are_of_these_pictures_and_this_protocol(tmp_path):
    calls = []

    def extract(images):
        calls.append(len(images))
        return images.reshape(len(images), -1).astype(np.float32)

    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    first = features.remembered(images, "a", extract, tmp_path)
    again = features.remembered(images, "a", extract, tmp_path)
    assert np.array_equal(first, again) and calls == [5]
    features.remembered(images, "b", extract, tmp_path)
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    other = features.remembered(changed, "a", extract, tmp_path)
    assert calls == [5, 5, 5] and not np.array_equal(first, other)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-7])  # cut by a full disk
    assert np.array_equal(features.remembered(images, "a", extract, tmp_path), first)
    assert len(calls) == 4
