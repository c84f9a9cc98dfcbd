"""Videos of a face to sharp, frontal, loosely aligned frames (edema, Akamatsu et al., JBHI 2022).

  python -m jaxface.data.video VIDEO_OR_FOLDER... --output=DIR [--frames=100] [--side=224]

writes DIR/<video>/000.jpg and so on, pixels alone, and DIR/<video>/frames.csv, a row for each frame that
was looked at: when, whether it was kept and if not why, how the head is turned, how sharp the face is.

The study took 100 frames of each video of about three minutes from intervals in which the face is seen
from the front (spec section 3.1); how it found them is not published, every limit here is ours. A video is
decoded frame by frame and never held in memory: `LOOKED_AT` times as many frames as are wanted, spread
evenly in time, are looked at, and if too few of them will do, as many again within the intervals that are
frontal. Of each frame only its crop of `side` px is kept. A crop is turned, scaled and moved by eyes and
mouth (`align.LOOSE`); its colors, background and aspect are the video's own.

Videos come in by this door alone. Containers other than those named here are refused, because playlists
and the like would make the decoder open other files or addresses.
"""

import argparse
import collections
import contextlib
import csv
import io
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import av
import cv2
import numpy as np
from PIL import Image

from jaxface.data.images import Limits, list_files
from jaxface.errors import UserError
from jaxface.faces import align
from jaxface.faces.detect import detect
from jaxface.faces.mesh import OVAL, landmarks_of
from jaxface.faces.pose import Pose, pose_of
from jaxface.faces.prepare import MIN_SCORE
from jaxface.faces.regions import face_width

VERSION = "1"  # of what becomes of a video: a new one rebuilds the data
SUFFIXES = (".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mts", ".m2ts", ".mpg")
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg"
LOOKED_AT = 3  # frames looked at for each one wanted, in one pass
CHUNK = 8  # frames in memory at their full size
SHORTEST = 1.0  # s of video
INTERVAL = 0.5  # s: a face that is frontal for less is only passing, and blurred
FRONTAL = Pose(yaw=15.0, pitch=25.0, roll=25.0)  # most degrees; the zero of pitch differs by person
SECOND_FACE = 0.5  # widths of the largest face from which another one is not a bystander's
ENLARGED = 2.0  # px of the crop per px of the video, at most
CUT_OFF = 0.02  # face widths that the outline may reach beyond the picture's edge
BLURRED = 0.5  # share of the video's upper quartile of sharpness under which a frame is blurred
TRUNCATED = 0.05  # share of the announced length that may be missing (and half a second)
QUALITY = 95  # of JPEG
LOG = "frames.csv"

KEPT, SPARE = "kept", "not needed"
NO_FACE, TWO_FACES, TURNED, BRIEF = "no face", "two faces", "turned away", "frontal too briefly"
SMALL, CUT, BLUR, BROKEN = "face too small", "face cut off", "blurred", "broken frame"
_REMEDIES = {
    NO_FACE: "film one upright face from the front, in light",
    TWO_FACES: "film one person alone, nobody else as near to the camera",
    TURNED: "film the face from the front",
    BRIEF: "film the face from the front and let it rest there",
    SMALL: "hold the camera nearer, or ask for a smaller side",
    CUT: "keep the whole face in the picture",
    BLUR: "hold camera and head still",
    BROKEN: "copy the file again from the camera",
    SPARE: "film longer, or ask for fewer frames",
}


class VideoError(UserError):
    """A video that cannot be used; `reason` says why, without the file's name."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = pathlib.Path(path), reason


class Row(NamedTuple):
    """What was made of one frame. Degrees and sharpness are NaN where no face was measured."""

    time: float  # s from the first frame
    verdict: str  # "kept", "not needed", or why it was refused
    yaw: float = np.nan  # degrees, signs as in `pose.Pose`
    pitch: float = np.nan
    roll: float = np.nan
    sharpness: float = np.nan  # variance of the Laplacian in the face's outline, in levels^2 of 255


class Selection(NamedTuple):
    """The frames of one video that are used."""

    images: np.ndarray  # uint8 [n, side, side, 3], in order of time
    times: np.ndarray  # float64 [n], s from the first frame
    log: list[Row]  # every frame that was looked at, in order of time
    note: str  # what a user should know of them; "": nothing


class _Look(NamedTuple):
    """One frame that was looked at; `fault` is "" for one in which the face can be judged further."""

    time: float
    fault: str
    pose: Pose = Pose(np.nan, np.nan, np.nan)
    sharpness: float = np.nan
    crop: np.ndarray | None = None


def frames_of(path: str | os.PathLike) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (s from the first frame, uint8 [H, W, 3] in RGB) of a video, one frame after the other.

    Frames are upright (the container's rotation or mirroring is undone), their pixels square. Times are
    those the file gives to each frame, so that a frame rate that varies is followed.

    Raises VideoError naming file and reason: no such file, no video in it, over the limits of
    `images.Limits` (px, not bytes), broken.
    """
    for time, frame, aspect in _decoded(pathlib.Path(path)):
        yield time, _upright(frame, aspect)


def select(
    path: str | os.PathLike, count: int = 100, side: int = 224, least: int | None = None
) -> Selection:
    """Picks `count` sharp frontal frames spread in time from a video.

    Frames are refused without a face or with two, with a head turned beyond FRONTAL, with a face cut off by
    the picture's edge or smaller than half its size in the crop, when they are blurred by the video's own
    measure (BLURRED), and when the face is frontal for less than INTERVAL around them. Those left
    are split in order of time into `count` runs as equal as can be, and the sharpest of each is kept.

    Args:
      path: a video of one person, at least a second long.
      count: frames wanted.
      side: of a crop, px.
      least: frames without which the video is refused, by default half of `count`; what is between is
        given with a note.

    Raises VideoError (a UserError) naming file, counts of each reason and remedy.
    """
    check(count, side)
    path = pathlib.Path(path)
    least = (count + 1) // 2 if least is None else least
    length = _length(path)
    if length < SHORTEST - 1e-6:
        raise VideoError(
            path, f"{length:.2f} s long, {SHORTEST:.0f} s is the least: film about three minutes"
        )
    number = LOOKED_AT * count
    looks = _look(path, np.arange(number) * (length / number), side)
    verdicts, intervals = _judge(looks, length)
    if verdicts.count("") < count and intervals:
        seen = [look.time for look in looks]
        looks += _look(path, _within(intervals, number), side, seen)
        looks.sort(key=lambda look: look.time)
        verdicts, _ = _judge(looks, length)
    usable = [i for i, verdict in enumerate(verdicts) if not verdict]
    if len(usable) < max(least, 1):
        raise VideoError(path, _too_few(verdicts, max(least, 1)))
    if len(usable) > count:
        runs = np.array_split(usable, count)
        kept = [max(run, key=lambda i: looks[i].sharpness) for run in runs]
    else:
        kept = usable
    chosen = set(kept)
    final = [KEPT if i in chosen else verdict or SPARE for i, verdict in enumerate(verdicts)]
    log = [
        Row(look.time, verdict, *look.pose, look.sharpness) for look, verdict in zip(looks, final)
    ]
    note = ""
    if len(kept) < count:
        note = f"only {len(kept)} of {count} frames could be used ({_counts(verdicts)})"
    images = np.stack([looks[i].crop for i in kept])
    return Selection(images, np.array([looks[i].time for i in kept]), log, note)


def check(frames: int, side: int) -> None:
    """Raises UserError unless so many frames of that side (px) can be picked of a video."""
    if not 1 <= frames <= 999:
        raise UserError(f"frames={frames}: use 1 to 999 (the study: 100).")
    if not 32 <= side <= 1024:
        raise UserError(f"side={side}: use 32 to 1024 px (an ImageNet encoder: 224).")


def list_videos(folder: str | os.PathLike) -> list[str]:
    """Paths (posix, relative) of all videos in and under `folder`, sorted; hidden ones are skipped."""
    return list_files(folder, SUFFIXES)


def encode_jpeg(image_u8: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> JPEG of quality 95 with color at full resolution, the pixels alone."""
    buffer = io.BytesIO()
    Image.fromarray(image_u8).save(buffer, format="JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[tuple]:
    """The container and its first video stream; nothing is decoded yet."""
    try:
        if not path.is_file():
            raise VideoError(path, "no such file" if not path.exists() else "not a file")
        if not path.stat().st_size:
            raise VideoError(path, "empty file")
        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        container = av.open(f"file:{path}", options=options, metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError):
        kinds = "MP4, MOV, MKV, WebM, AVI or MPEG"
        raise VideoError(
            path, f"no readable video ({kinds}): another kind of file, or truncated"
        ) from None
    except OSError as error:
        raise VideoError(path, error.strerror or str(error)) from None
    with container:
        streams = [
            s for s in container.streams.video if not s.disposition & s.disposition.attached_pic
        ]
        if not streams:
            raise VideoError(path, "no video in it, only sound or a picture")
        stream = streams[0]
        if stream.codec_context is None:
            raise VideoError(path, "its codec is not known: convert it to H.264 in MP4")
        _check_size(path, stream.codec_context.width, stream.codec_context.height)
        stream.thread_type = "AUTO"
        yield container, stream


def _check_size(path: pathlib.Path, width: int, height: int) -> None:
    limits = Limits()
    if width * height > limits.pixels or max(width, height) > limits.side:
        raise VideoError(
            path,
            f"{width}x{height} px a frame is over {limits.pixels / 1e6:.0f} Mpx or {limits.side} px a "
            "side: make it smaller",
        )


def _length(path: pathlib.Path) -> float:
    """Seconds of video that are really in the file; raises VideoError when part of it is missing."""
    with _opened(path) as (container, stream):
        announced = stream.duration and float(stream.duration * stream.time_base)
        announced = announced or (container.duration or 0) / av.time_base
        try:
            packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
            stamps = [p.dts if p.pts is None else p.pts for p in packets]
        except av.error.FFmpegError:
            raise VideoError(path, "broken or truncated: copy it again from the camera") from None
        rate = float(stream.average_rate or 25)
        known = np.sort([float(stamp * stream.time_base) for stamp in stamps if stamp is not None])
        if len(known) < len(stamps) or len(known) < 2:
            length = len(stamps) / rate
        else:
            length = known[-1] - known[0] + np.median(np.diff(known))
    if length < announced - max(TRUNCATED * announced, 0.5):
        raise VideoError(
            path,
            f"truncated: {length:.1f} s of {announced:.1f} s are there: copy it again from the camera",
        )
    return float(length)


def _decoded(path: pathlib.Path) -> Iterator[tuple[float, av.VideoFrame, float]]:
    """(s from the first frame, frame as the decoder gives it, width of a px per height); times grow."""
    with _opened(path) as (container, stream):
        # Which damage a decoder tells of depends on how many threads share its work.
        stream.codec_context.thread_count = 1
        aspect = float(stream.sample_aspect_ratio or 1)
        rate = float(stream.average_rate or 25)
        first, last = None, -np.inf
        try:
            for number, frame in enumerate(container.decode(stream)):
                stamp = frame.dts if frame.pts is None else frame.pts
                at = number / rate if stamp is None else float(stamp * frame.time_base)
                first = at if first is None else first
                if at - first > last:
                    last = at - first
                    _check_size(path, frame.width, frame.height)
                    yield last, frame, aspect
        except av.error.FFmpegError:
            since = f"{max(last, 0):.1f} s after its start" if first is not None else "at its start"
            raise VideoError(path, f"broken {since}: copy it again from the camera") from None
        if first is None:
            raise VideoError(path, "no frame of it can be decoded")


def _upright(frame: av.VideoFrame, aspect: float) -> np.ndarray:
    """uint8 [H, W, 3]: square pixels, turned and mirrored as the container says."""
    image = frame.to_ndarray(format="rgb24")
    if abs(aspect - 1) > 1e-3:  # the longer edge of a px gets more of them: nothing is thrown away
        wide, tall = max(aspect, 1.0), max(1 / aspect, 1.0)
        size = round(image.shape[1] * wide), round(image.shape[0] * tall)
        image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    # Nine numbers, of which a, b, c, d tell x' = a x + c y, y' = b x + d y (ISO 14496-12, 6.2.2).
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(int)
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _look(
    path: pathlib.Path, due: np.ndarray, side: int, seen: Sequence[float] = ()
) -> list[_Look]:
    """Looks at the first frame at or after each time of `due` (ascending), none twice."""
    seen, looks, taken, next_, damaged = set(seen), [], [], 0, False
    for time, frame, aspect in _decoded(path):
        if next_ == len(due):
            break
        # What follows a broken frame is made from it, up to the next one that stands by itself.
        damaged = frame.is_corrupt or (damaged and not frame.key_frame)
        if time < due[next_] - 1e-6:
            continue
        while next_ < len(due) and due[next_] <= time + 1e-6:
            next_ += 1
        if time in seen:
            continue
        if damaged:
            looks.append(_Look(time, BROKEN))
            continue
        taken.append((time, _upright(frame, aspect)))
        if len(taken) == CHUNK:
            looks += _examine(taken, side)
            taken = []
    looks += _examine(taken, side)
    return sorted(looks, key=lambda look: look.time)


def _examine(frames: Sequence[tuple[float, np.ndarray]], side: int) -> list[_Look]:
    """What can be said of each (time, uint8 [H, W, 3]) by itself."""
    faces = []  # (number of the frame, detection), the largest of a frame first
    for number, found in enumerate(detect([image for _, image in frames])):
        wide = [d for d in found if np.ptp(d.box[::2]) >= SECOND_FACE * np.ptp(found[0].box[::2])]
        faces += [(number, one) for one in wide]
    points, scores = landmarks_of([frames[n][1] for n, _ in faces], [one for _, one in faces])
    people = collections.defaultdict(list)
    for (number, _), one, score in zip(faces, points, scores):
        if score >= MIN_SCORE and not any(_same(one, other) for other in people[number]):
            people[number].append(one)
    return [_measure(*frame, people[number], side) for number, frame in enumerate(frames)]


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two meshes [468, 3] lie on one face: the detector finds parts of very large ones too."""
    apart = one[:, :2].mean(axis=0) - other[:, :2].mean(axis=0)
    return bool(np.hypot(*apart) < face_width(other) / 2)


def _measure(time: float, image: np.ndarray, people: list[np.ndarray], side: int) -> _Look:
    """Judges one frame by the points [468, 3] of its faces."""
    if len(people) != 1:
        return _Look(time, TWO_FACES if people else NO_FACE)
    (points,) = people
    pose = pose_of(points)
    outline, reach = points[list(OVAL), :2], CUT_OFF * face_width(points)
    if outline.min() < -reach or (outline > np.array(image.shape[1::-1]) + reach).any():
        return _Look(time, CUT, pose)
    matrix = align.frame_of(points, side, align.LOOSE)
    if np.hypot(*matrix[:, 0]) < 1 / ENLARGED:
        return _Look(time, SMALL, pose)
    if (np.abs(pose) > FRONTAL).any():
        return _Look(time, TURNED, pose)
    crop = align.align_by(image, matrix, side)
    return _Look(time, "", pose, _sharpness(crop, align.to_frame(points, matrix)), crop)


def _sharpness(crop: np.ndarray, points: np.ndarray) -> float:
    """Variance of the Laplacian inside the face's outline, of the crop as it is kept."""
    inside = np.zeros(crop.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.rint(points[list(OVAL), :2] - 0.5).astype(np.int32)], 1)
    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(gray, cv2.CV_64F)[inside > 0].var())


def _judge(looks: Sequence[_Look], length: float) -> tuple[list[str], list[tuple[float, float]]]:
    """Why each frame is refused ("": it is not), and the frontal intervals (from, to) in s.

    An interval is a run of frames in which one frontal face is seen, and reaches half way to the frames
    before and after it that are not, or to an end of the video.
    """
    verdicts = [look.fault for look in looks]
    times = np.array([look.time for look in looks])
    edges = np.concatenate([[0.0], (times[1:] + times[:-1]) / 2, [length]])
    fits = np.array([False, *(not fault for fault in verdicts), False])
    starts, ends = (np.flatnonzero(np.diff(fits.astype(int)) == way) for way in (1, -1))
    intervals = []
    for start, end in zip(starts, ends):
        if edges[end] - edges[start] < INTERVAL - 1e-6:
            verdicts[start:end] = [BRIEF] * (end - start)
        else:
            intervals.append((float(edges[start]), float(edges[end])))
    sharp = [look.sharpness for look, verdict in zip(looks, verdicts) if not verdict]
    if sharp:
        least = BLURRED * np.percentile(sharp, 75)
        for i, look in enumerate(looks):
            if not verdicts[i] and look.sharpness < least:
                verdicts[i] = BLUR
    return verdicts, intervals


def _within(intervals: Sequence[tuple[float, float]], number: int) -> np.ndarray:
    """`number` times spread evenly over the intervals laid end to end."""
    starts, ends = np.array(intervals).T
    before = np.concatenate([[0.0], np.cumsum(ends - starts)])
    along = (np.arange(number) + 0.5) * (before[-1] / number)
    which = np.searchsorted(before, along, side="right") - 1
    return starts[which] + along - before[which]


def _counts(verdicts: Sequence[str]) -> str:
    """'turned away 12, blurred 3', the most frequent reason first; "nothing refused" if there is none."""
    counted = collections.Counter(verdict for verdict in verdicts if verdict)
    return ", ".join(f"{reason} {n}" for reason, n in counted.most_common()) or "nothing refused"


def _too_few(verdicts: Sequence[str], least: int) -> str:
    """Why a video is refused, from the verdicts on its frames ("": usable)."""
    counted = collections.Counter(verdict for verdict in verdicts if verdict)
    usable = len(verdicts) - counted.total()
    if counted and counted.most_common(1)[0][1] == len(verdicts):
        (reason,) = counted
        return f"{reason} in all {len(verdicts)} frames that were looked at: {_REMEDIES[reason]}"
    worst = counted.most_common(1)[0][0] if counted.total() > usable else SPARE
    return (
        f"{usable} of {len(verdicts)} frames that were looked at can be used and {least} must be "
        f"({_counts(verdicts)}): {_REMEDIES[worst]}"
    )


def write_selection(selection: Selection, folder: pathlib.Path) -> None:
    """Writes 000.jpg, 001.jpg, ... and the log into a new folder, all or nothing.

    Raises UserError when the folder exists or cannot be written.
    """
    part = folder.with_name(f".{folder.name}.part")
    if folder.exists():
        raise UserError(f"{folder} exists: delete it, or choose another --output.")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for number, image in enumerate(selection.images):
            (part / f"{number:03d}.jpg").write_bytes(encode_jpeg(image))
        _write_log(selection.log, part / LOG)
        part.replace(folder)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}: choose another --output.") from None


def _write_log(log: Sequence[Row], path: pathlib.Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", *Row._fields))
        number = 0
        for row in log:
            name = f"{number:03d}.jpg" if row.verdict == KEPT else ""
            number += row.verdict == KEPT
            measured = ("" if np.isnan(value) else f"{value:.2f}" for value in row[2:])
            writer.writerow((name, f"{row.time:.4f}", row.verdict, *measured))


def _videos(given: Sequence[str]) -> list[pathlib.Path]:
    """The videos that files and folders name; UserError for two of one name, or a folder without."""
    videos: list[pathlib.Path] = []
    for name in given:
        path = pathlib.Path(name)
        if path.is_dir():
            inside = [path / file for file in list_videos(path)]
            if not inside:
                raise UserError(f"{path} has no videos ({', '.join(SUFFIXES)}).")
            videos += inside
        else:
            videos.append(path)
    names: dict[str, pathlib.Path] = {}
    for path in videos:
        if path.stem in names:
            raise UserError(
                f"{names[path.stem]} and {path} would both be written to {path.stem}: rename one of "
                "them, or call the command twice with another --output."
            )
        names[path.stem] = path
    return videos


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status: 0, or 2 if a video or an argument could not be used."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.data.video",
        description="Picks sharp frontal frames of videos of a face.",
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO_OR_FOLDER")
    parser.add_argument("--output", required=True, metavar="DIR", help="a folder a video in there")
    parser.add_argument("--frames", type=int, default=100, help="of each video (default: 100)")
    parser.add_argument("--side", type=int, default=224, help="px of a crop (default: 224)")
    options = parser.parse_args(arguments)
    failed = 0
    try:
        check(options.frames, options.side)
        videos = _videos(options.videos)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in videos:
        folder = pathlib.Path(options.output) / path.stem
        try:
            if folder.exists():  # before minutes of work
                raise UserError(f"{folder} exists: delete it, or choose another --output.")
            chosen = select(path, options.frames, options.side)
            write_selection(chosen, folder)
        except UserError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr, flush=True)
            continue
        refused = _counts([row.verdict for row in chosen.log if row.verdict != KEPT])
        note = " Note: " + chosen.note if chosen.note else ""
        print(
            f"{path}: {len(chosen.images)} of {len(chosen.log)} frames that were looked at are in "
            f"{folder} ({refused}).{note}",
            flush=True,
        )
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
