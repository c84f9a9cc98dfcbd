"""Frames of videos, and everything that may be wrong with one."""

import csv
import fractions
import pathlib

import av
import films
import numpy as np
import pytest
from PIL import Image

from jaxface.data import video
from jaxface.data.images import Limits
from jaxface.data.video import VideoError, frames_of, select
from jaxface.errors import UserError

COUNT, SIDE = 4, 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """good.mp4: two seconds and a half, of which some of everything must be refused."""
    path = tmp_path_factory.mktemp("films")
    straight, turned = films.still(0), films.still(0, yaw=32)
    quiet = [films.moved(straight, k % 3, k % 2) for k in range(8)]
    frames = [*quiet, turned, turned, turned, *quiet[:2], films.blurred(straight)]
    frames += [*quiet[:3], films.wall(), films.wall(), films.pair(), films.pair(), *quiet[:5]]
    films.write(path / "good.mp4", frames)
    return path


@pytest.fixture
def told(monkeypatch):
    """told(length, fault of a time): a video of 10 fps that no network sees; returns what is asked for."""

    def tell(length, fault):
        asked = []

        def look(path, due, side, seen=()):
            asked.append(due)
            crop = np.zeros((side, side, 3), np.uint8)
            frames = {int(np.ceil(10 * time - 1e-6)) for time in due}
            times = sorted({k / 10 for k in frames if k < 10 * length} - set(seen))
            return [video._Look(time, fault(time), sharpness=1.0, crop=crop) for time in times]

        monkeypatch.setattr(video, "_look", look)
        monkeypatch.setattr(video, "_length", lambda path: length)
        return asked

    return tell


TRUTH = [*[""] * 8, *["turned away"] * 3, "", "", "blurred", "", "", ""]
TRUTH += [*["no face"] * 2, *["two faces"] * 2, *[""] * 5]


@pytest.fixture(scope="module")
def good(folder):
    return select(folder / "good.mp4", 14, SIDE)


def test_frames_that_will_do_are_kept_and_the_others_named(good):
    assert good.images.shape == (14, SIDE, SIDE, 3) and good.images.dtype == np.uint8
    assert good.note == ""
    assert len(good.log) == len(TRUTH)  # 42 were asked for: each frame is looked at once
    for number, (row, truth) in enumerate(zip(good.log, TRUTH)):
        assert abs(row.time - number / films.FPS) < 1e-3
        expected = {truth} if truth else {"kept", "not needed"}
        assert row.verdict in expected, number
        assert np.isfinite(row.sharpness) == (truth in ("", "blurred"))
        assert np.isfinite(row.yaw) == (truth not in ("no face", "two faces"))
    assert all(row.yaw > 20 for row in good.log if row.verdict == "turned away")
    kept = [row.time for row in good.log if row.verdict == "kept"]
    np.testing.assert_array_equal(good.times, kept)
    # 18 usable frames in 14 runs: four pairs, ten alone, in order of time.
    assert np.diff(good.times).max() < 0.8 and good.times[-1] > 2.2


def test_crops_are_aligned_loosely_with_the_videos_own_colors(good, folder):
    frames = dict(frames_of(folder / "good.mp4"))
    first = frames[good.times[0]]
    assert abs(first.mean(axis=(0, 1)) - good.images[0].mean(axis=(0, 1))).max() < 40
    spread = np.abs(good.images - np.median(good.images, axis=0)).mean(axis=(1, 2, 3))
    assert spread.max() < 6  # the head moved in the video; in the crops it does not
    # The head ends inside the crop: its corners show the wall, or what is before it.
    face = good.images[0, SIDE // 2, SIDE // 2].astype(int)
    assert np.abs(good.images[0, 2, 2] - face).sum() > 30


def test_few_frames_are_spread_and_sharp(folder):
    chosen = select(folder / "good.mp4", COUNT, SIDE)
    assert len(chosen.images) == COUNT and len(chosen.log) >= 3 * COUNT
    assert chosen.times[0] < 0.7 and chosen.times[-1] > 1.9
    assert all(TRUTH[round(time * films.FPS)] == "" for time in chosen.times)
    usable = [row for row in chosen.log if row.verdict in ("kept", "not needed")]
    for run in np.array_split(np.arange(len(usable)), COUNT):
        best = max((usable[i] for i in run), key=lambda row: row.sharpness)
        assert best.verdict == "kept"


def still_video(path, number=12, **options):
    straight = films.still(0)
    return films.write(path, [films.moved(straight, k % 3, 0) for k in range(number)], **options)


@pytest.mark.parametrize("turn,mirror", [(90, False), (270, False), (180, False), (90, True)])
def test_turned_by_the_container(tmp_path, turn, mirror):
    upright = [films.moved(films.still(0), k, 0)[: films.SIDE - 20] for k in range(3)]
    # The container undoes what was done to the stored frames: it turns, then mirrors.
    stored = [frame[:, ::-1] if mirror else frame for frame in upright]
    stored = [np.rot90(frame, -turn // 90) for frame in stored]
    films.write(tmp_path / "a.mov", stored, codec="png", turn=turn, mirror=mirror)
    for (_, found), expected in zip(frames_of(tmp_path / "a.mov"), upright, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_selection_of_a_turned_video_equals_the_upright_one(tmp_path):
    frames = [films.moved(films.still(0), k % 3, 0) for k in range(12)]
    films.write(tmp_path / "upright.mov", frames, codec="png")
    lying = [np.rot90(frame) for frame in frames]
    films.write(tmp_path / "lying.mov", lying, codec="png", turn=270)
    upright = select(tmp_path / "upright.mov", 1, SIDE)
    turned = select(tmp_path / "lying.mov", 1, SIDE)
    np.testing.assert_array_equal(upright.images, turned.images)
    assert upright.log == turned.log


def test_pixels_that_are_not_square(tmp_path):
    squeezed = [films.still(0)[:, ::2]] * 3
    films.write(tmp_path / "a.mp4", squeezed, aspect=fractions.Fraction(2, 1))
    _, frame = next(frames_of(tmp_path / "a.mp4"))
    assert frame.shape == films.still(0).shape
    assert np.abs(frame.astype(int) - films.still(0)).mean() < 6


def test_varying_frame_rate(tmp_path, monkeypatch):
    """Fast at first: were frames counted instead of timed, most would come from the first second."""
    crop = np.zeros((SIDE, SIDE, 3), np.uint8)
    monkeypatch.setattr(
        video,
        "_examine",
        lambda frames, side: [video._Look(t, "", sharpness=1.0, crop=crop) for t, _ in frames],
    )
    gaps = np.where(np.arange(40) < 30, 0.03, 0.25)
    times = np.cumsum(gaps) - gaps[0]
    path = still_video(tmp_path / "a.mp4", 40, times=times)
    found = [time for time, _ in frames_of(path)]
    np.testing.assert_allclose(found, times, atol=1e-3)
    chosen = select(path, COUNT, SIDE)
    looked = np.array([row.time for row in chosen.log])  # due every 0.29 s of 3.5 s
    assert 10 <= len(looked) <= 12 and np.diff(looked).max() < 0.6
    assert np.count_nonzero(looked < 0.87) == 3
    np.testing.assert_allclose(chosen.times, [0, 0.87, 1.87, 2.62], atol=0.3)


@pytest.mark.parametrize(
    "codec,suffix", [("mpeg4", "avi"), ("libx264", "mkv"), ("mpeg2video", "mpg")]
)
def test_other_containers(tmp_path, codec, suffix):
    path = films.write(tmp_path / f"a.{suffix}", [films.still(0)] * 12, codec=codec, fps=25)
    found = list(frames_of(path))
    np.testing.assert_allclose([time for time, _ in found], np.arange(12) / 25, atol=1e-3)
    assert np.abs(found[5][1].astype(int) - films.still(0)).mean() < 6


def test_nothing_is_held_in_memory(tmp_path, monkeypatch):
    """Of 100 frames those that are due are turned into pictures, a few at a time."""
    path = films.write(tmp_path / "a.mp4", [films.wall()] * 100)
    held = []
    monkeypatch.setattr(video, "_examine", lambda frames, side: held.append(len(frames)) or [])
    looks = video._look(path, np.arange(20) * 0.5, SIDE)
    assert held == [8, 8, 4] and looks == []


@pytest.mark.parametrize(
    "picture,said",
    [
        (films.wall, r"no face in all 3 frames that were looked at: film one upright face"),
        (films.pair, r"two faces in all 3 frames that were looked at: film one person alone"),
        (lambda: films.still(0, yaw=35), r"turned away in all 3 frames .*: film the face from"),
        (
            lambda: films.moved(films.still(0), 58, 0),
            r"face cut off in all 3 frames .*: keep the whole face in",
        ),
    ],
    ids=["no face", "two faces", "turned", "cut off"],
)
def test_every_frame_is_unusable(tmp_path, picture, said):
    path = films.write(tmp_path / "p7.mp4", [picture()] * 12)
    with pytest.raises(VideoError, match=said) as caught:
        select(path, 1, SIDE)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_two_boxes_on_one_face(monkeypatch):
    """A face that fills the picture is often found twice, a part of it and another; it is one person."""
    (whole,) = video.detect([films.still(0)])[0]
    width, height = whole.box[2:] - whole.box[:2]
    aside = whole._replace(box=whole.box + [0.4 * width, 0.3 * height] * 2)
    monkeypatch.setattr(video, "detect", lambda images: [[whole, aside]] * len(images))
    (found,) = video._examine([(0.0, films.still(0))], SIDE)
    assert found.fault == "" and found.crop.shape == (SIDE, SIDE, 3)


def test_face_too_small(tmp_path):
    path = films.write(tmp_path / "a.mp4", [films.still(0)] * 12)
    with pytest.raises(VideoError, match="face too small in all .* or ask for a smaller side"):
        select(path, 1, 512)


def test_too_few_frames(told):
    """Of 30 frames 12 will do: below half of what is wanted, unless less is asked for."""
    told(3.0, lambda time: "" if time < 1.15 else "no face" if time < 2.85 else "two faces")
    with pytest.raises(VideoError) as caught:
        select("p7.mp4", 30, SIDE)
    assert str(caught.value) == (
        "p7.mp4: 12 of 30 frames that were looked at can be used and 15 must be (no face 17, two "
        "faces 1): film one upright face from the front, in light"
    )
    chosen = select("p7.mp4", 30, SIDE, least=12)
    assert len(chosen.images) == 12
    assert chosen.note == "only 12 of 30 frames could be used (no face 17, two faces 1)"


def test_one_second(tmp_path, told):
    """Enough for a few frames, and too little for many."""
    chosen = select(still_video(tmp_path / "a.mp4", 10), 1, SIDE)
    assert len(chosen.images) == 1 and chosen.note == ""
    with pytest.raises(VideoError, match="b.mp4: 0.90 s long, 1 s is the least"):
        select(still_video(tmp_path / "b.mp4", 9), 1, SIDE)
    told(1.0, lambda time: "")
    chosen = select("a.mp4", 12, SIDE)
    assert len(chosen.images) == 10
    assert chosen.note == "only 10 of 12 frames could be used (nothing refused)"
    with pytest.raises(VideoError, match=r"10 of 10 .* and 50 must be .nothing refused.: film lon"):
        select("a.mp4", 100, SIDE)


def test_no_videos(tmp_path):
    whole = still_video(tmp_path / "whole.mp4", 40, movflags="faststart").read_bytes()
    Image.fromarray(films.still(0)).save(tmp_path / "picture.mp4", "PNG")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_bytes(b"no video " * 200)
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "end.mp4").write_bytes(whole[:-9])
    later = still_video(tmp_path / "later.mp4", 40).read_bytes()  # its table of frames comes last
    (tmp_path / "later.mp4").write_bytes(later[: len(later) // 2])
    hole = len(whole) // 2
    (tmp_path / "hole.mp4").write_bytes(whole[:hole] + bytes(hole // 2) + whole[hole + hole // 2 :])
    playlist = (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/whole.mp4\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "list.mp4").write_text(playlist)
    for name, said in {
        "gone.mp4": "no such file",
        "": "not a file",
        "empty.mp4": "empty file",
        "text.mp4": "no readable video",
        "picture.mp4": "no readable video",
        "list.mp4": "no readable video",
        "later.mp4": "no readable video",
        "half.mp4": r"truncated: \d.\d s of 4.0 s are there",
        "end.mp4": "broken 3.[0-9] s after its start: copy it again",
        "hole.mp4": "broken frame in all 12 frames that were looked at: copy the file again",
    }.items():
        with pytest.raises(VideoError, match=said) as caught:
            select(tmp_path / name, COUNT, SIDE)
        assert str(caught.value).startswith(str(tmp_path / name).rstrip("/")), name
        assert "\n" not in str(caught.value)


def test_sound_alone(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="a.mp4: no video in it, only sound"):
        select(tmp_path / "a.mp4", COUNT, SIDE)


def test_frames_over_the_limit_are_never_decoded(tmp_path, monkeypatch):
    small = Limits(pixels=1000)
    monkeypatch.setattr(video, "Limits", lambda: small)
    with pytest.raises(VideoError, match="160x160 px a frame is over"):
        next(frames_of(still_video(tmp_path / "a.mp4")))


def look(time, fault="", sharpness=100.0):
    return video._Look(time, fault, sharpness=sharpness)


def test_intervals():
    """Every tenth of a second: 0.4 s frontal, a gap, then 0.7 s."""
    faults = [""] * 4 + ["no face"] + [""] * 7
    looks = [look(k / 10, fault) for k, fault in enumerate(faults)]
    verdicts, intervals = video._judge(looks, 1.2)
    assert verdicts == ["frontal too briefly"] * 4 + ["no face"] + [""] * 7
    np.testing.assert_allclose(intervals, [(0.45, 1.2)])
    due = video._within([(0.45, 1.2), (3.0, 3.25)], 4)
    np.testing.assert_allclose(due, [0.575, 0.825, 1.075, 3.125])


def test_blur_is_relative_to_the_video():
    looks = [look(k / 10, "", sharp) for k, sharp in enumerate([9.0] * 8 + [4.0, 5.0])]
    assert video._judge(looks, 1.0)[0] == [""] * 8 + ["blurred", ""]


def test_a_video_that_is_rarely_frontal_is_looked_at_again(told):
    """Ten seconds of which one is frontal: the first look finds too few, the second goes there."""
    asked = told(10.0, lambda time: "" if 4 <= time < 5 else "turned away")
    chosen = select("a.mp4", 10, SIDE)
    assert len(asked) == 2 and len(asked[1]) == 30
    assert asked[1].min() > 3.8 and asked[1].max() < 5.2
    assert len(chosen.images) == 10 and chosen.times.min() >= 4 and chosen.times.max() < 5


@pytest.mark.parametrize("frames,side,said", [(0, 64, "frames=0"), (5, 8, "side=8")])
def test_bad_numbers(frames, side, said):
    with pytest.raises(UserError, match=said):
        select("a.mp4", frames, side)


def test_command(folder, tmp_path, capsys):
    inside = tmp_path / "videos"
    inside.mkdir()
    (inside / "b.mp4").write_bytes((folder / "good.mp4").read_bytes())
    (inside / "a.mp4").write_bytes(b"broken")
    (inside / "notes.txt").write_text("not a video")
    output = tmp_path / "out"
    command = [str(inside), f"--output={output}", "--frames=2", f"--side={SIDE}"]
    assert video.main(command) == 2  # one of two
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and f"error: {inside / 'a.mp4'}: no readable" in said.err
    assert said.out.count("\n") == 1
    assert f"{inside / 'b.mp4'}: 2 of " in said.out and str(output / "b") in said.out

    assert sorted(path.name for path in output.iterdir()) == ["b"]
    names = [f"{number:03d}.jpg" for number in range(2)]
    assert sorted(path.name for path in (output / "b").iterdir()) == [*names, "frames.csv"]
    image = Image.open(output / "b" / "000.jpg")
    assert image.size == (SIDE, SIDE) and not image.getexif() and "comment" not in image.info
    chosen = select(inside / "b.mp4", 2, SIDE)  # the same again, and nearly so after JPEG
    assert np.abs(np.asarray(image).astype(int) - chosen.images[0]).mean() < 3
    with (output / "b" / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == [row.verdict for row in chosen.log]
    assert [row["file"] for row in rows if row["file"]] == names
    kept = [float(row["time"]) for row in rows if row["file"]]
    np.testing.assert_allclose(kept, chosen.times, atol=1e-3)

    assert video.main([str(inside / "b.mp4"), *command[1:]]) == 2
    assert f"{output / 'b'} exists: delete it" in capsys.readouterr().err
    for arguments, part in {
        (str(tmp_path / "gone.mp4"), *command[1:]): "gone.mp4: no such file",
        (str(folder / "good.mp4"), f"{folder}", command[1]): "would both be written to good",
        (str(pathlib.Path(output) / "b"), command[1]): "has no videos",
        (command[0], command[1], "--frames=0"): "frames=0: use 1 to 999",
    }.items():
        assert video.main(list(arguments)) == 2
        assert part in capsys.readouterr().err


def test_lists_videos_without_hidden_ones(tmp_path):
    for name in ("b.MP4", ".c.mp4", "sub/a.mov", ".sub/d.mp4", "e.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert video.list_videos(tmp_path) == ["b.MP4", "sub/a.mov"]
