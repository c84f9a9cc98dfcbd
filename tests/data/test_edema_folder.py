"""A folder of videos before and after a dialysis, and everything that may be wrong with one."""

import csv
import dataclasses
import io

import films
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxface.data import base, edema_folder, video
from jaxface.data.pipeline import open_source
from jaxface.errors import UserError
from jaxface.system import RunConfig

HEADING = "file,subject,day,session,weight_kg,consent"
SIDE = 64


@dataclasses.dataclass
class Run(RunConfig):
    data: str = "edema_folder"
    manifest: str = ""
    purpose: str = "research"
    ledger: str = ""
    side: int = SIDE
    frames: int = 2
    max_bad_fraction: float = 0.001


class Folder:
    """A folder in the making: videos and the rows of its manifest."""

    def __init__(self, path):
        self.path, self.rows = path / "videos", []
        self.path.mkdir(parents=True)
        self.run = Run(data_dir=str(self.path), build_dir=str(path / "build"))

    def add(self, name, subject, day, session, weight, consent="yes", content=None):
        """A row and, under its name, a file of its own."""
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_bytes(f"no video {name}".encode() if content is None else content)
        self.rows.append(f"{name},{subject},{day},{session},{weight},{consent}")

    def write(self):
        (self.path / "manifest.csv").write_text("\n".join([HEADING, *self.rows]) + "\n")

    def open(self, split="train+heldout", **settings):
        """The records, by id."""
        self.write()
        skip = {"image": tfds.decode.SkipDecoding()}
        run = dataclasses.replace(self.run, **settings)
        source = open_source(run, base.FrameBuilder, split, skip)
        return {source[i]["id"].decode(): source[i] for i in range(len(source))}

    def refused(self, **settings):
        """What is said against the manifest."""
        self.write()
        with pytest.raises(UserError) as caught:
            edema_folder.read_manifest(self.path, **settings)
        return str(caught.value)

    def table(self, name):
        """{file: texts} of left_out.csv or notes.csv of the only build."""
        (path,) = self.path.parent.glob(f"build/**/{name}")
        with path.open(newline="") as file:
            return {row["file"]: row.get("reason") or row["note"] for row in csv.DictReader(file)}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def unseen(monkeypatch):
    """Frames are picked without looking for a face: of one gray, the last digit of the name times 20."""

    def select(path, count, side):
        length = video._length(path)  # what is broken is still refused
        shade = int(path.stem[-1]) * 20
        images = np.full((count, side, side, 3), shade, np.uint8)
        return video.Selection(images, np.arange(count) * length / count, [], "")

    monkeypatch.setattr(video, "select", select)


def clip(path, shade=0):
    return films.write(path, [films.wall() // 2 + np.uint8(shade)] * 10).read_bytes()


def pixels(record):
    return np.asarray(Image.open(io.BytesIO(record["image"])))


def test_videos_and_frames_become_records(folder, tmp_path, capsys):
    frames = [films.moved(films.still(0), k, 0) for k in range(10)]
    content = films.write(tmp_path / "a.mp4", frames).read_bytes()
    folder.add("pre.mp4", "P1", "2026-01-31", "pre", 63.5, "research; teaching", content)
    assert video.main([str(folder.path / "pre.mp4"), f"--output={folder.path}", "--frames=2",
                       f"--side={SIDE}"]) == 0  # fmt: skip
    folder.add("pre", "P1", "2026-01-31", "POST", 61.25)  # the same once more, as frames
    capsys.readouterr()
    records = folder.open()
    ids = [f"P1/2026-01-31/{session}/{k:03d}" for session in ("post", "pre") for k in (0, 1)]
    assert sorted(records) == ids
    for id_, record in records.items():
        session = id_.split("/")[2]
        text = {name: record[name].decode() for name in ("video", "subject", "day", "session")}
        assert text == {
            "video": id_[:-4],
            "subject": "P1",
            "day": "2026-01-31",
            "session": session,
        }
        assert record["weight_kg"] == {"pre": np.float32(63.5), "post": np.float32(61.25)}[session]
        assert np.isnan(record["fluid_kg"])
        assert pixels(record).shape == (SIDE, SIDE, 3)
    chosen = video.select(folder.path / "pre.mp4", 2, SIDE)
    for k in (0, 1):
        one, other = records[ids[k]], records[ids[2 + k]]
        np.testing.assert_allclose([one["time"], other["time"]], chosen.times[k], atol=1e-4)
        assert np.abs(pixels(other).astype(int) - chosen.images[k]).mean() < 3
        assert np.abs(pixels(one).astype(int) - pixels(other)).mean() < 2
    assert folder.table("left_out.csv") == {}
    assert set(folder.table("notes.csv")) == {"pre.mp4", "pre"}  # one day only
    said = capsys.readouterr().out
    assert "4 frames of 2 videos of 1 patients selected, 2 to be looked at (notes.csv)" in said
    assert "its patient has this day only: learned from, and no target" in said
    assert not list(folder.path.parent.glob("build/**/prepared"))


def two_patients(folder):
    """P1 with two days, P5 with one."""
    for k, (subject, day) in enumerate((("P1", "2"), ("P1", "10"), ("P5", "3"))):
        for j, (session, weight) in enumerate((("pre", 62.0 + k), ("post", 60.0 + k))):
            number = 2 * k + j
            content = clip(folder.path.parent / f"{number}.mp4", 20 * number)
            folder.add(f"v{number}.mp4", subject, day, session, weight, "yes", content)


def test_days_sort_and_patients_stay_in_their_split(folder, unseen):
    two_patients(folder)
    assert {base.split_of("P1"), base.split_of("P5")} == {"train", "heldout"}
    found = folder.open(base.split_of("P1"))
    assert sorted({record["day"].decode() for record in found.values()}) == ["0002", "0010"]
    assert all(record["subject"] == b"P1" for record in found.values()) and len(found) == 8
    assert len(folder.open(base.split_of("P5"))) == 4
    assert abs(pixels(found["P1/0010/post/001"]).astype(int) - 60).max() <= 2  # v3.mp4
    assert set(folder.table("notes.csv")) == {"v4.mp4", "v5.mp4"}


def test_a_video_that_cannot_be_used_takes_its_day_with_it(folder, unseen, capsys):
    two_patients(folder)
    (folder.path / "v2.mp4").write_bytes(b"broken")
    clip(folder.path / "more7.mp4")
    with pytest.raises(UserError) as caught:
        folder.open()
    assert "1 of 6 videos cannot be used, 0 may be (config.max_bad_fraction)" in str(caught.value)
    assert "v2.mp4: no readable video" in str(caught.value)
    capsys.readouterr()
    found = folder.open(max_bad_fraction=0.2)
    assert {id_.rsplit("/", 2)[0] for id_ in found} == {"P1/0002", "P5/0003"}
    reasons = folder.table("left_out.csv")
    assert reasons.pop("v2.mp4").startswith("no readable video")
    assert reasons.pop("v3.mp4") == "the other video of its day, v2.mp4, cannot be used"
    assert reasons.pop("more7.mp4") == "no row in manifest.csv" and not reasons
    assert (
        "8 frames of 4 videos of 2 patients selected, 3 videos left out" in capsys.readouterr().out
    )
    for number in range(6):
        (folder.path / f"v{number}.mp4").write_bytes(b"broken %d" % number)
    with pytest.raises(UserError, match="no video can be used:\n  v0.mp4: no readable"):
        folder.open(max_bad_fraction=1.0)


def test_no_usable_day(folder, unseen):
    content = clip(folder.path.parent / "1.mp4")
    folder.add("v1.mp4", "P1", "1", "pre", 62, "yes", content)
    folder.add("v2.mp4", "P1", "1", "post", 60)
    with pytest.raises(UserError, match="no day has two usable videos:\n  v2.mp4: no readable"):
        folder.open(max_bad_fraction=0.5)


def frames_folder(folder, name, sizes):
    (folder.path / name).mkdir()
    for k, size in enumerate(sizes):
        image = np.full((*size, 3), 10 * k, np.uint8)
        Image.fromarray(image).save(folder.path / name / f"{k:03d}.png")


def test_folders_of_frames(folder):
    frames_folder(folder, "many", [(SIDE, SIDE)] * 9)
    frames_folder(folder, "large", [(2 * SIDE, 2 * SIDE)] * 3)
    folder.add("many", "P1", "1", "pre", 62)
    folder.add("large", "P1", "1", "post", 60)
    (folder.path / "many" / "frames.csv").write_text("file,time\n001.png,soon\n")
    found = folder.open(frames=4)
    taken = [pixels(found[f"P1/0001/pre/{k:03d}"])[0, 0, 0] for k in range(4)]
    np.testing.assert_allclose(taken, [10, 30, 50, 70], atol=2)  # four of nine, spread
    assert all(np.isnan(record["time"]) for record in found.values())
    assert pixels(found["P1/0001/post/002"]).shape == (SIDE, SIDE, 3)
    assert folder.table("notes.csv")["large"]
    for sizes, said in {
        ((SIDE, SIDE),): "1 frames, 2 must be there: select them anew, or ask for fewer",
        ((SIDE, SIDE), (SIDE, SIDE + 2)): "001.png: 66x64 px is no square crop",
        ((20, 20),) * 4: "000.png: 20 px a side is under half of config.side=64",
    }.items():
        for path in (folder.path / "large").iterdir():
            path.unlink()
        (folder.path / "large").rmdir()
        frames_folder(folder, "large", sizes)
        with pytest.raises(UserError, match="1 of 2 videos cannot be used") as caught:
            folder.open(frames=4)
        assert f"large: {said}" in str(caught.value)


@pytest.mark.parametrize(
    "rows,said",
    [
        (["P1,1,pre,,yes", "P1,1,post,60,yes"], "row 2, weight_kg: empty: write the weight"),
        (["P1,1,pre,heavy,yes", "P1,1,post,60,yes"], "row 2, weight_kg: 'heavy' is no number"),
        (["P1,1,pre,nan,yes", "P1,1,post,60,yes"], "row 2, weight_kg: 'nan' is no number"),
        (["P1,1,pre,-4,yes", "P1,1,post,60,yes"], "row 2, weight_kg: -4 kg is not between 20 and"),
        (["P1,1,pre,6200,yes", "P1,1,post,60,yes"], "row 2, weight_kg: 6200 kg is not between"),
        (["P1,1,pre,60,yes", "P1,1,post,inf,yes"], "row 3, weight_kg: inf kg is not between"),
        (
            ["P1,1,pre,60,yes", "P1,1,post,60.6,yes"],
            "row 3, weight_kg: P1 on day 0001 weighs 0.6 kg more after the dialysis than before",
        ),
        (
            ["P1,1,pre,72,yes", "P1,1,post,60.5,yes"],
            "row 3, weight_kg: P1 on day 0001 lost 11.5 kg, over 10 kg",
        ),
        (["P1,1,mid,62,yes", "P1,1,post,60,yes"], "row 2, session: 'mid' is neither pre nor post"),
        (["P1,1,pre,62,yes", "P1,1,pre,60,yes"], "row 3, session: pre of P1 on day 0001 has row 2"),
        (["P/1,1,pre,62,yes", "P1,1,post,60,yes"], "row 2, subject: 'P/1' has a '/'"),
        ([",1,pre,62,yes", "P1,1,post,60,yes"], "row 2, subject: empty"),
        (["P1,1/2,pre,62,yes", "P1,1,post,60,yes"], "row 2, day: '1/2' is no date like 2026-01-31"),
        (["P1,2026-02-30,pre,62,yes", "P1,1,post,60,yes"], "row 2, day: '2026-02-30' is no date"),
        (["P1,,pre,62,yes", "P1,1,post,60,yes"], "row 2, day: empty: write the date"),
        (["P1,1,pre,62,no", "P1,1,post,60,yes"], "row 2, consent: 'no' does not cover purpose 'rese"),
        (["P1,1,pre,62,", "P1,1,post,60,teaching"], "row 3, consent: 'teaching' does not cover"),
    ],
)  # fmt: skip
def test_rows_that_are_refused_before_any_video_is_opened(folder, rows, said):
    for number, row in enumerate(rows):
        folder.add(f"{number}.mp4", *row.split(","))
    message = folder.refused()
    assert message.startswith(f"{folder.path / 'manifest.csv'}:") and f"  {said}" in message
    if all(
        row.startswith("P1,") for row in rows
    ):  # both halves are there, whatever is wrong with one
        assert "delete this one" not in message


def test_limits_are_still_allowed(folder):
    rows = ["P1,1,pre,60,yes", "P1,1,post,60.5,yes", "P1,2,pre,70,RESEARCH|a", "P1,2,post,60,true"]
    for number, row in enumerate(rows):
        folder.add(f"{number}.mp4", *row.split(","))
    folder.write()
    read = edema_folder.read_manifest(folder.path)
    assert [(v.day, v.session, v.weight_kg) for v in read.videos] == [
        ("0001", "pre", 60.0),
        ("0001", "post", 60.5),
        ("0002", "pre", 70.0),
        ("0002", "post", 60.0),
    ]
    assert read.notes == ()
    assert "consent: 'yes'" not in folder.refused(purpose="teaching")


def test_pre_without_post_is_named_with_all_others_like_it(folder):
    for number, row in enumerate(["P1,1,pre", "P1,2,pre", "P1,2,post", "P2,1,post"]):
        folder.add(f"{number}.mp4", *row.split(","), 60)
    message = folder.refused()
    assert "row 2, session: P1 on day 0001 has pre without post: add its row, or" in message
    assert "row 5, session: P2 on day 0001 has post without pre" in message
    assert message.count("delete this one") == 2


def test_dates_and_numbers_of_one_patient(folder):
    for number, row in enumerate(["1,pre", "1,post", "2026-01-31,pre", "2026-01-31,post"]):
        folder.add(f"{number}.mp4", "P1", *row.split(","), 60)
    assert "row 4, day: row 2 of this patient has the other of date and number" in folder.refused()


def test_files_that_are_refused(folder):
    folder.add("0.mp4", "P1", "1", "pre", 60)
    folder.add("0.mp4", "P1", "1", "post", 60)
    folder.add("2.mp4", "P1", "2", "pre", 60, content=b"same")
    folder.add("3.mp4", "P1", "2", "post", 60, content=b"same")
    (folder.path / "empty").mkdir()
    outside = folder.path.parent / "out.mp4"
    outside.write_bytes(b"")
    folder.rows += [
        "gone.mp4,P1,3,pre,60,yes",
        "../out.mp4,P1,3,post,60,yes",
        "empty,P1,4,pre,60,yes",
    ]
    folder.rows += [",P1,4,post,60,yes"]
    said = folder.refused().split("\n")
    assert "row 3, file: '0.mp4' has row 2 already" in said[1]
    assert "row 5, file: '3.mp4' is a copy of '2.mp4' in row 4" in said[2]
    assert "row 6, file: 'gone.mp4' is not in the folder" in said[3]
    assert "row 7, file: '../out.mp4' lies outside the folder" in said[4]
    assert "row 8, file: the folder 'empty' has no frames" in said[5]
    assert said[6:] == ["  and 1 more"]


@pytest.mark.parametrize(
    "text,said",
    [
        ("file,subject,day,session,consent\n", "has no column weight_kg: the first row must name"),
        (
            "file,subject,day,session,weigth_kg,consent\n",
            "has a column 'weigth_kg', which nothing reads.* Did you mean 'weight_kg'?",
        ),
        (f"{HEADING},day\n", "has column day twice"),
        (f"{HEADING}\n", "has no rows"),
        ("", "has no column file, subject"),
        (f'{HEADING}\n"a', "is no CSV file"),
    ],
)
def test_tables_that_are_refused(folder, text, said):
    (folder.path / "manifest.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        edema_folder.read_manifest(folder.path)


def test_without_folder_or_manifest(folder, tmp_path):
    with pytest.raises(
        UserError, match="manifest.csv is missing: write a table with one row a video"
    ):
        edema_folder.read_manifest(folder.path)
    with pytest.raises(UserError, match="gone is no folder"):
        edema_folder.read_manifest(tmp_path / "gone")
    (folder.path / "manifest.csv").write_bytes(b"file;subj\xe9ct")
    with pytest.raises(UserError, match="is not UTF-8"):
        edema_folder.read_manifest(folder.path)
    with pytest.raises(UserError, match="reads your videos: say where they are with --data_dir"):
        folder.open(data_dir="")
    with pytest.raises(UserError, match="frames=0: use 1 to 999"):
        folder.open(frames=0)


def test_a_spreadsheet_with_semicolons(folder):
    folder.add("a.mp4", "P1", "1", "pre", 60)
    folder.add("b.mp4", "P1", "1", "post", 59.5)
    text = "\ufeff" + "\n".join([HEADING, *folder.rows]).replace(",", ";")
    (folder.path / "manifest.csv").write_text(text)
    assert [v.weight_kg for v in edema_folder.read_manifest(folder.path).videos] == [60, 59.5]


def test_name_follows_content_and_settings(folder):
    frames_folder(folder, "many", [(SIDE, SIDE)] * 2)
    folder.add("many", "P1", "1", "pre", 60)
    folder.add("b.mp4", "P1", "1", "post", 60)
    folder.write()
    name = lambda **more: edema_folder.config_for(folder.path, **more).name
    first = name()
    assert first == name() and first.startswith("224px-100-")
    changed = [{"side": 64}, {"frames": 9}, {"max_bad_fraction": 0.5}]
    assert len({first, *(name(**one) for one in changed)}) == 4
    (folder.path / "many" / "001.png").write_bytes(b"another")
    second = name()
    (folder.path / "many" / "frames.csv").write_text("file,time\n")
    assert len({first, second, name()}) == 3


def test_nothing_but_pixels_is_in_the_files(folder, unseen):
    for k, session in enumerate(("pre", "post")):
        content = clip(folder.path.parent / f"{k}.mp4", k)
        folder.add(f"Yamada{k}.mp4", "P1", "1", session, 60, content=content)
    folder.open()
    built = [path for path in folder.path.parent.glob("build/**/*") if path.is_file()]
    assert any(".array_record" in path.name for path in built)
    for path in built:
        content = path.read_bytes()
        assert str(folder.path).encode() not in content, path
        assert b"Yamada" not in content or path.name == "notes.csv"  # beside the records
