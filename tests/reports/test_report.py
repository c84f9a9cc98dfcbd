"""The report shows every number, reads nothing from outside, and survives what is missing."""

import base64
import html.parser
import json
import re

import numpy as np
import pytest

from jaxface.reports import report
from jaxface.reports.grid import save_grid
from jaxface.reports.words import duration, number

EVIL = "<script>alert('x')</script>"
RESULTS = {
    "kid_mobilenetv2": {"value": 0.05231, "low": 0.0411, "high": 0.0647, "n": 436, "unit": "",
                        "protocol": f"{EVIL} & features"},
    "kid_mobilenetv2_base": {"value": 0.41762, "low": 0.3891, "high": 0.4469, "n": 436},
    "kid_noise_floor": {"value": 0.00912, "low": None, "high": None, "n": 436},
    "mae_kg": {"value": 1.25, "low": 1.1, "high": 1.4, "n": 12, "unit": "kg", "protocol": "by hand"},
    "broken": {"value": None, "low": None, "high": None, "n": None, "unit": "", "protocol": ""},
}  # fmt: skip


class Page(html.parser.HTMLParser):
    """What a browser would fetch, show and run."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.values, self.sources, self.alts, self.words = [], [], [], [], []
        self.ids, self.links = set(), []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag == "img":
            self.sources.append(attributes["src"])
            self.alts.append(attributes["alt"])
        if tag == "data":
            self.values.append(attributes["value"])
        if "id" in attributes:
            self.ids.add(attributes["id"])
        self.links += [
            attributes[k] for k in ("href", "src", "action", "srcset") if k in attributes
        ]
        assert not [k for k in attributes if k.startswith("on")]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "samples").mkdir()
    rng = np.random.default_rng(0)
    about = {"synthetic": "made by a generator", "seed": "0", "checkpoint": "step 20"}
    for step in range(0, 21, 2):
        grid = rng.integers(0, 256, (4, 16, 16, 3), np.uint8)
        save_grid(grid, folder / f"samples/{step:08d}.png", 2, about)
    save_grid(grid, folder / "samples/reals.png", 2, {})
    save_grid(grid, folder / "samples/neighbours.png", 2, {})
    config = {"data": "phantom_cleft", "gamma": 0.5, "note": EVIL}
    run = {"experiment": "cleftgan", "scale": "demo", "start": None,
           "command": f"python launch.py --experiment=cleftgan --config.note={EVIL}"}  # fmt: skip
    captions = {"neighbours.png": f"Is it a copy? {EVIL}"}
    lineage = {"starts": [{"from_step": 0, "init_from": EVIL, "python": "3.11.7",
                           "versions": {"jax": "0.10.2"}, "devices": ["cpu:cpu"]}]}  # fmt: skip
    files = {
        "config.json": config | {"run": run},
        "results.json": RESULTS,
        "samples/captions.json": captions,
        "lineage.json": lineage,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    lines = [
        {"step": step, "name": name, "value": value}
        for step in range(0, 2000, 10)
        for name, value in [
            ("loss/generator", 0.7 + 0.1 * np.sin(step)),
            ("gradient/generator", float(np.exp(-step / 200))),
            (EVIL, float(step)),
            ("skipped/r1", 0),
            ("loss/r1", None if step == 40 else 0.1 + step / 1e4),
        ]
    ]
    cut = '{"step": 30, "na'
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n" + cut)
    times = [{"activity": "step", "seconds": 90.0, "step": 1}, {"activity": EVIL, "seconds": 30.0}]
    (folder / "timing.jsonl").write_text("\n".join(map(json.dumps, times)))
    return folder


@pytest.fixture(scope="module")
def text(workdir):
    path = report.write(workdir)
    assert path == workdir / "report.html"
    return path.read_text()


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_number_is_shown_and_kept_in_full(page):
    for name, result in RESULTS.items():
        assert name in page.text
        for key in ("value", "low", "high"):
            if result[key] is not None:
                assert str(result[key]) in page.values
        if result["n"]:
            assert str(result["n"]) in page.text
    for shown in ("0.052", "0.041 to 0.065", "0.418", "0.00912", "1.25", "kg", "by hand"):
        assert shown in page.text
    assert "not a finite number" in page.text


def test_verdict_compares_with_base_and_floor(page):
    assert "training has brought them nearer" in page.text
    assert "above the noise floor of 0.00912" in page.text


def test_nothing_comes_from_outside(text, page):
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[\w+/=]+", "", text))
    assert page.links and all(link.startswith("data:image/") for link in page.links)
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    for source in page.sources:
        kind, _, content = source.partition(";base64,")
        content = base64.b64decode(content)
        if kind == "data:image/svg+xml":
            assert not re.search(rb'href="(?!#)|<script', content)
        else:
            assert content.startswith(b"\x89PNG")


def test_what_users_write_is_escaped(text, page):
    assert EVIL not in text
    assert page.text.count(EVIL) >= 6  # shown as words


def test_pictures_have_words(page):
    assert len(page.sources) == 2 + 6 + 1 + 3  # last and reals, history, neighbours, three charts
    assert all(page.alts)
    assert "synthetic made by a generator, seed 0, step 20" in page.text


def test_order_and_sections(text, page):
    wanted = ["results", "pictures", "figures", "curves", "times", "next", "config", "versions",
              "lineage"]  # fmt: skip
    places = [text.index(f'<section id="{name}"') for name in wanted]
    assert places == sorted(places)
    for words in ("Not about patients.", "2 min 0 s", "75.0 %", "skipped/r1 = 0", "loss/r1 1",
                  "--mode=sample", "cleftgan:paper", "0.10.2", "1 × cpu:cpu"):  # fmt: skip
        assert words in page.text, words


def test_equal_files_give_an_equal_page(workdir, text):
    assert report.write(workdir).read_text() == text


def test_an_empty_workdir_has_a_page_of_honest_sentences(tmp_path):
    page = Page(report.write(tmp_path).read_text())
    for name in ("results.json", "metrics.jsonl", "timing.jsonl", "config.json", "lineage.json"):
        assert f"There is no {name} in this workdir" in page.text
    assert "There are no sample pictures" in page.text
    assert not page.sources


def test_damaged_files_cost_their_section_only(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "00000010.png").write_bytes(b"no picture")
    (tmp_path / "samples" / "captions.json").write_text("[]")
    (tmp_path / "results.json").write_text('{"accuracy": ')
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "timing.jsonl").write_text('{"activity": "step", "seconds": 2.5}\nnonsense')
    (tmp_path / "lineage.json").write_text('{"parent": {"sha256": "ab"}}')
    (tmp_path / "config.json").write_text(
        '{"experiment": "edema", "scale": "paper", "data": "mine"}'
    )
    page = Page(report.write(tmp_path).read_text())
    for words in ("results.json could not be read", "metrics.jsonl is empty", "2.5 s", "sha256",
                  "edema · paper", "Before you use it."):  # fmt: skip
        assert words in page.text, words


def test_large_pictures_are_made_small(tmp_path):
    (tmp_path / "samples").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (1, 1800, 1800, 3), np.uint8)
    save_grid(noise, tmp_path / "samples" / "reals.png", 1, {})
    path = report.write(tmp_path)
    assert path.stat().st_size < 3e6
    assert "data:image/jpeg" in path.read_text()


@pytest.mark.parametrize(
    ("value", "spread", "shown"),
    [
        (0.0293, 0.045, "0.029"),
        (-0.0123, None, "−0.0123"),
        (12345.0, None, "12\u202f345"),
        (3, None, "3"),
        (0.0, None, "0"),
        (0.00000123, None, "1.23e−06"),
        (87.654, 2.1, "87.7"),
        (None, None, "not a finite number"),
    ],
)
def test_numbers_for_people(value, spread, shown):
    assert number(value, spread) == shown


def test_durations():
    assert [duration(s) for s in (2.34, 42, 85, 7325)] == [
        "2.3 s",
        "42 s",
        "1 min 25 s",
        "2 h 2 min",
    ]
