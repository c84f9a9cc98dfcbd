"""Pictures, table and page of a user's photographs."""

import base64
import csv
import io
import re

import numpy as np
import pytest
from PIL import Image

from jaxface.reports import readings
from jaxface.system import Reading

ABOUT = {"checkpoint": "step 7", "checkpoint_sha256": "ab" * 32, "data": "uvphoto"}


def test_stems_are_names_of_folders_and_never_twice():
    taken = set()
    names = ["x/Ann.jpg", "y/ann.png", "Ann-2.png", "...jpg", "a b/c?d.jpg", "a/Zoë.png"]
    stems = [readings.unique_stem(name, taken) for name in names]
    assert stems == ["Ann", "ann-2", "Ann-2-2", "photograph", "c_d", "Zoë"]


def test_saves_gray_and_color_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    for shape in ((5, 7), (5, 7, 1), (5, 7, 3)):
        image = rng.integers(0, 256, shape, np.uint8)
        readings.save(image, tmp_path / "a.png", {"seed": "é"})
        with Image.open(tmp_path / "a.png") as file:
            np.testing.assert_array_equal(file, image.squeeze())
            assert file.text == {"seed": "é"}
    with pytest.raises(ValueError, match="uint8"):
        readings.save(np.zeros((4, 4)), tmp_path / "b.png", {})
    assert [f.name for f in tmp_path.iterdir()] == ["a.png"]


def test_the_page_shows_smaller_pictures():
    wide = np.full((400, 4000, 3), 90, np.uint8)
    together = readings.entry("n", "n", Reading({"uv": wide, "side_by_side": wide}, {}))
    assert list(together.pictures) == ["side_by_side"]
    apart = readings.entry("n", "n", Reading({"uv": wide[..., 0], "overlay": wide}, {}))
    sizes = []
    for one in (together, apart):
        for uri in one.pictures.values():
            content = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
            with Image.open(io.BytesIO(content)) as picture:
                sizes.append(picture.size)
    assert sizes == [(1600, 160), (800, 80), (800, 80)]


@pytest.mark.parametrize(
    "name, value, words",
    [
        (
            "spot_ratio_left_cheek",
            0.03456,
            ("Share of the left cheek covered by pigment spots", "3.5 %"),
        ),
        ("spots", 143, ("Pigment spots found on the face", "143")),
        ("spots", np.int64(7), ("Pigment spots found on the face", "7")),
        ("ita", np.float32(41.234), ("Skin tone (individual typology angle)", "41.2 degrees")),
        ("some_thing", "left", ("Some thing", "left")),
        (
            "spot_ratio",
            float("nan"),
            ("Share of both cheeks covered by pigment spots", "cannot be told"),
        ),
    ],
)
def test_numbers_in_words(name, value, words):
    assert readings._in_words(name, value) == words


def test_table_has_every_number_of_every_photograph(tmp_path):
    entries = [
        readings.Entry("a.jpg", "a", {}, {"x": 1.5}, ("one, two", "three")),
        readings.Entry("b.jpg", "b", error='broken, "badly"'),
        readings.Entry("c.jpg", "c", {}, {"y": "left", "x": 2}),
    ]
    readings.write_table(tmp_path / "t.csv", entries)
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["file", "folder", "x", "y", "warnings", "error"],
        ["a.jpg", "a", "1.5", "", "one, two | three", ""],
        ["b.jpg", "", "", "", "", 'broken, "badly"'],
        ["c.jpg", "c", "2", "left", "", ""],
    ]


def test_page(tmp_path):
    image = np.full((8, 8, 3), 90, np.uint8)
    good = readings.entry("<i>a</i>.jpg", "a", Reading({"uv": image}, {"spots": 3}, ("beard",)))
    plain = readings.entry("b.jpg", "b", Reading({}, {}))
    bad = readings.Entry("c.jpg", "c", error="empty file")
    readings.write_page(tmp_path / "p.html", [bad, good, plain], ABOUT)
    page = (tmp_path / "p.html").read_text()
    assert "<i>" not in page and "&lt;i&gt;a" in page and "2 photographs" in page
    assert page.count('class="warnings"') == 1 and page.count("<figure>") == 1
    assert page.index("empty file") > page.index("b.jpg") > page.index("UV photograph, made by")
    assert "phantom" not in page and "ab" * 32 in page
    assert set(re.findall(r'(?:src|href)="([^"]{5})', page)) == {"data:", "#brok"}
