import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxface.data import phantom_cleft, phantom_faces
from jaxface.data.base import FaceConfig, split_of
from jaxface.errors import UserError
from jaxface.phantom.render import draw_subject, draw_view, render

PEOPLE = 16


@pytest.fixture(autouse=True)
def quiet():
    tfds.disable_progress_bar()


def build(name, folder, **settings):
    config = FaceConfig(name="test", **({"resolution": 32, "num_subjects": PEOPLE} | settings))
    builder = tfds.builder(name, data_dir=folder, config=config, file_format="array_record")
    builder.download_and_prepare()
    return builder


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    return {
        name: build(name, folder).as_data_source() for name in ("phantom_faces", "phantom_cleft")
    }


def records(source):
    return {
        split: {record["subject"].decode(): record for record in part}
        for split, part in source.items()
    }


def test_records(sources):
    for name, source in sources.items():
        assert set(source) == {"train", "heldout"}
        splits = records(source)
        assert not set(splits["train"]) & set(splits["heldout"])
        assert sum(map(len, splits.values())) == PEOPLE
        for split, people in splits.items():
            for subject, record in people.items():
                assert split_of(subject) == split
                assert record["image"].shape == (32, 32, 3) and record["image"].dtype == np.uint8
                if name == "phantom_faces":
                    assert record["severity"] == 0 and record["side"] == b"none"
                else:
                    assert 0.1 <= record["severity"] <= 1
                    assert record["side"] in (b"left", b"right")


def test_truth_belongs_to_the_picture(sources):
    people = records(sources["phantom_cleft"])
    record = (people["train"] | people["heldout"])["P0007"]
    seed = (1 << 24) + 7
    subject = draw_subject(seed, cleft=True)
    expected = render(subject, draw_view(seed), 32, supersample=4).image
    np.testing.assert_array_equal(record["image"], expected)
    assert record["severity"] == np.float32(subject.severity)
    assert record["side"].decode() == subject.side


def test_data_sets_share_nobody(sources):
    names, pictures = [], []
    for source in sources.values():
        for part in records(source).values():
            names += part
            pictures += [record["image"].tobytes() for record in part.values()]
    assert len(set(names)) == len(set(pictures)) == 2 * PEOPLE


def test_other_seed_other_people_and_gray(tmp_path, sources):
    builder = build("phantom_cleft", tmp_path, seed=1, channels=1, num_subjects=2)
    decoders = {"image": tfds.decode.SkipDecoding()}
    people = records(builder.as_data_source(decoders=decoders))
    for split, part in people.items():
        for subject, record in part.items():
            image = Image.open(io.BytesIO(record["image"]))
            assert image.mode == "L" and image.size == (32, 32)
            assert (
                record["severity"] != records(sources["phantom_cleft"])[split][subject]["severity"]
            )


@pytest.mark.parametrize("settings", [{"resolution": 48}, {"resolution": 8}, {"channels": 2}])
def test_settings_it_cannot_render(tmp_path, settings):
    with pytest.raises(UserError, match=f"config.{next(iter(settings))}="):
        build("phantom_faces", tmp_path, **settings)


def test_name_tells_what_the_records_depend_on():
    assert phantom_faces.config_for is phantom_cleft.config_for
    names = {
        phantom_cleft.config_for(*settings).name
        for settings in [(64,), (32,), (64, 10), (64, None, 1), (64, None, 0, 1)]
    }
    assert len(names) == 5


def test_without_tensorflow(tmp_path):
    code = f"""
import sys
import tensorflow_datasets as tfds
from jaxface.data import phantom_cleft
builder = tfds.builder("phantom_cleft", data_dir={str(tmp_path)!r},
    config=phantom_cleft.config_for(16, 3), file_format="array_record")
builder.download_and_prepare()
assert sum(len(part) for part in builder.as_data_source().values()) == 3
assert "tensorflow" not in sys.modules and "jax" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
