"""Records of headshots: what goes in comes out of a built data set, and nothing else goes in."""

import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxface.data import base, phantom_faces, pipeline  # noqa: F401  (found by name)
from jaxface.errors import UserError

LABELS = {
    "smile": base.Label(label=1, votes=(np.int64(3), np.int64(14)), truth=0),
    "sex": base.Label(label=0),
}


def picture(seed=0, channels=3):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (20, 20, channels), dtype=np.uint8)


def record(**change):
    words = {"id": "P1/2", "subject": "P1", "photo": 2, "labels": LABELS}
    return base.headshot_record(**({"image": base.encode_png(picture())} | words | change))


class DrawnHeadshots(base.HeadshotBuilder):
    """Two photographs of noise."""

    def _split_generators(self, dl_manager):
        del dl_manager
        gray = record(id="P1/3", image=base.encode_png(picture(1, 1)), labels={}, ita=31.5)
        return {"train": iter([("a", record()), ("b", gray)])}


def test_what_goes_in_comes_out(tmp_path):
    tfds.disable_progress_bar()
    config = base.HeadshotConfig(name="x")
    builder = DrawnHeadshots(data_dir=tmp_path, config=config, file_format="array_record")
    builder.download_and_prepare()
    skip = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(split="train", decoders=skip)
    found = {r["id"].decode(): r for r in source}
    pixels = lambda one: np.asarray(Image.open(io.BytesIO(one["image"])))
    color, gray = found["P1/2"], found["P1/3"]
    np.testing.assert_array_equal(pixels(color), picture())
    np.testing.assert_array_equal(pixels(gray), picture(1, 1)[..., 0])
    assert color["subject"] == b"P1" and color["photo"] == 2
    assert json.loads(color["labels"]) == {
        "smile": {"votes": [3, 14], "label": 1, "truth": 0},
        "sex": {"votes": None, "label": 0, "truth": -1},
    }
    assert np.isnan(color["ita"]) and gray["ita"] == 31.5 and json.loads(gray["labels"]) == {}


def test_the_text_of_labels_does_not_depend_on_their_order():
    turned = dict(reversed(LABELS.items()))
    assert record(labels=turned)["labels"] == record()["labels"]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"photo": 0}, "photo 0 of P1/2"),
        ({"labels": {"has smile": base.Label()}}, "'has smile' of P1/2 is no word"),
        ({"labels": {"sex": base.Label(2)}}, "sex of P1/2: label 2"),
        ({"labels": {"sex": base.Label(truth=3)}}, "truth 3"),
        ({"labels": {"sex": base.Label(votes=(1, -1))}}, "votes .* are not two counts"),
        ({"labels": {"sex": base.Label(votes=(1, 2, 3))}}, "votes .* are not two counts"),
    ],
)
def test_what_is_no_record(change, words):
    with pytest.raises(ValueError, match=words):
        record(**change)


def test_headshots_are_a_kind_of_their_own():
    assert pipeline.builder_for("drawn_headshots", base.HeadshotBuilder) is DrawnHeadshots
    with pytest.raises(UserError, match="'drawn_headshots' holds headshots.*needs faces in one"):
        pipeline.builder_for("drawn_headshots")
    with pytest.raises(UserError, match="'phantom_faces' holds faces.*needs headshots"):
        pipeline.builder_for("phantom_faces", base.HeadshotBuilder)
