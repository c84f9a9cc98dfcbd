"""Records of photographs and frames: what goes in comes out, and the kinds of data set are kept apart."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxface.data import base, phantom_faces, pipeline  # noqa: F401  (found by name)
from jaxface.errors import UserError


def arrays(seed=0, height=20, width=30):
    random = np.random.default_rng(seed)
    return {
        "color": random.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "uv": random.integers(0, 256, (height, width), dtype=np.uint8),
        "pigment": random.random((height, width)) < 0.1,
        "mask": random.random((height, width)) < 0.5,
        "landmarks": random.normal(size=(468, 3)).astype(np.float32),
    }


def record(name, **change):
    measured = {"face_width": 12.5, "covered": 0.25, "ita": -7.0}
    words = {"id": name, "subject": name, "view": "front", "device": "device"}
    return base.photo_record(**(words | measured | arrays() | change))


class DrawnPhotos(base.PhotoBuilder):
    """Two photographs of noise."""

    def _split_generators(self, dl_manager):
        del dl_manager
        hidden = arrays(1)["uv"]
        unpaired = record("ü", uv=None, truth_uv=hidden, pigment=None, device="phone")
        return {"train": iter([("a", record("a")), ("b", unpaired)])}


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_what_goes_in_comes_out(tmp_path):
    tfds.disable_progress_bar()
    config = base.PhotoConfig(name="x")
    builder = DrawnPhotos(data_dir=tmp_path, config=config, file_format="array_record")
    builder.download_and_prepare()
    found = {r["id"].decode(): r for r in builder.as_data_source(split="train")}
    paired, unpaired = found["a"], found["ü"]
    drawn = arrays()
    for one in (paired, unpaired):
        np.testing.assert_array_equal(decoded(one["color"]), drawn["color"])
        np.testing.assert_array_equal(decoded(one["mask"]), drawn["mask"] * 255)
        np.testing.assert_array_equal(one["landmarks"], drawn["landmarks"])
        assert (one["face_width"], one["covered"], one["ita"]) == (12.5, 0.25, -7)
    np.testing.assert_array_equal(decoded(paired["uv"]), drawn["uv"])
    np.testing.assert_array_equal(decoded(paired["truth_uv"]), drawn["uv"])
    np.testing.assert_array_equal(decoded(paired["pigment"]), drawn["pigment"] * 255)
    assert unpaired["uv"] == unpaired["pigment"] == b"" and unpaired["device"] == b"phone"
    np.testing.assert_array_equal(decoded(unpaired["truth_uv"]), arrays(1)["uv"])


def frame(**change):
    words = {"subject": "P1", "day": "2024-05-02", "session": "pre"}
    numbers = {"weight_kg": 61.5, "frame": 7, "time": 12.25}
    return base.frame_record(**({"image": b"png"} | words | numbers | change))


def test_names_of_frames():
    one = frame()
    assert one["id"] == "P1/2024-05-02/pre/007" and one["video"] == "P1/2024-05-02/pre"
    assert one.keys() == base.frame_features().keys() and np.isnan(one["fluid_kg"])
    for change in ({"session": "before"}, {"subject": "P/1"}, {"day": "2/5"}):
        with pytest.raises(ValueError, match="neither pre nor post|not unique"):
            frame(**change)


@pytest.mark.parametrize("field", ["uv", "truth_uv", "pigment", "mask"])
def test_pictures_of_another_size_or_type(field):
    good = arrays()["uv" if "uv" in field else field]
    change = {"uv": None} if field == "truth_uv" else {}
    for bad in (good[:-1], good.astype(np.float32)):
        with pytest.raises(ValueError, match=f"^{field} of a: "):
            record("a", **change, **{field: bad})


def test_each_kind_is_found_by_its_own_experiments():
    assert pipeline.builder_for("drawn_photos", base.PhotoBuilder) is DrawnPhotos
    with pytest.raises(
        UserError, match="'drawn_photos' holds whole photographs.*needs faces in one"
    ):
        pipeline.builder_for("drawn_photos")
    with pytest.raises(UserError, match="'phantom_faces' holds faces.*needs whole.*drawn_photos"):
        pipeline.builder_for("phantom_faces", base.PhotoBuilder)
    with pytest.raises(UserError, match="is no data set. Did you mean 'drawn_photos'"):
        pipeline.builder_for("drawn_photo", base.PhotoBuilder)
