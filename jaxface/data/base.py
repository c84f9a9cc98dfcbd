"""What every data set has in common: its settings, its fields, its split.

There are four kinds of record. A `FaceBuilder` gives faces brought to one frame and one small size, with
the labels of a cleft: what a generator learns. A `PhotoBuilder` gives photographs at their own size,
with the UV photograph where there is one and with what was measured on the face: what translation from
color to UV learns. A `FrameBuilder` gives frames of videos taken before and after a dialysis, with the
body weight: what edema is read from. A `HeadshotBuilder` gives headshots, several a person, with what was
voted of them: what a classifier learns. A new data set is a class in a module of its own that

  - sets `name` by being called like it (`PhantomUvphoto` is found as "phantom_uvphoto" once its module
    is imported) and begins its docstring with the line that describes the data;
  - has a class method `settle(run)` that reads a run's config and returns a tfds.core.BuilderConfig (a
    `FaceConfig`, a `PhotoConfig` or one of its own) whose `name` tells everything the records depend
    on: the records are built once for each name. What cannot be built raises UserError here;
  - has `_split_generators(self, dl_manager)`, which returns {split: iterator of (key, record)} for the
    splits "train" and "heldout" (a split without people is left out), people assigned by `split_of`,
    keys unique strings, records as `photo_record` makes them. `self.builder_config` is what `settle`
    returned; files beside the records may be written to `self.data_path`.
"""

import dataclasses
import hashlib
import inspect
import io
import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from PIL import Image

from jaxface.errors import UserError

HELD_OUT = 0.15  # share of people never trained on: the memorisation test and the noise floor
LANDMARKS = 468  # points of the face mesh


@dataclasses.dataclass
class FaceConfig(tfds.core.BuilderConfig):
    """Settings of one build; whatever changes the records must change `name` (the cache's key)."""

    resolution: int = 256  # stored side in px
    channels: int = 3
    folder: str | None = None  # a user's folder of images (face_folder, cleft_folder)
    manifest: str | None = None  # default: <folder>/manifest.csv
    purpose: str = "research"  # what the subjects must have consented to
    ledger: str = ""  # folder of a consent ledger; "": `consent` in the folder, if one is there
    align: bool = True  # detect, align, adjust color and blur the background
    max_bad_fraction: float = 0.001  # unreadable images tolerated before the build stops
    num_subjects: int | None = None  # phantoms only
    seed: int = 0  # phantoms only


@dataclasses.dataclass
class PhotoConfig(tfds.core.BuilderConfig):
    """Settings of a user's folder of photograph pairs; what changes the records must change `name`."""

    folder: str | None = None
    manifest: str | None = None  # default: <folder>/manifest.csv
    purpose: str = "research"  # what the subjects must have consented to
    ledger: str = ""  # folder of a consent ledger; "": `consent` in the folder, if one is there
    patch: int = 256  # px a side: faces too small for one patch are left out
    coverage: float = 0.5  # share of skin that a patch must have
    shift: bool = False  # move UV photographs that lie a little off instead of leaving them out
    max_bad_fraction: float = 0.001  # unreadable photographs tolerated before the build stops


@dataclasses.dataclass
class FrameConfig(tfds.core.BuilderConfig):
    """Settings of one build of video frames; what changes the records must change `name`."""

    side: int = 224  # stored side in px
    frames: int = 100  # of each video
    folder: str | None = None  # a user's folder of videos (edema_folder)
    manifest: str | None = None  # default: <folder>/manifest.csv
    purpose: str = "research"  # what the patients must have consented to
    ledger: str = ""  # folder of a consent ledger; "": `consent` in the folder, if one is there
    max_bad_fraction: float = 0.001  # unreadable videos tolerated before the build stops
    num_subjects: int | None = None  # phantoms only
    seed: int = 0  # phantoms only


@dataclasses.dataclass
class HeadshotConfig(tfds.core.BuilderConfig):
    """Settings of one build of headshots; what changes the records must change `name`."""

    side: int = 128  # stored side in px
    channels: int = 3
    folder: str | None = None  # with photographs (headshot_folder) or arrays (foxglovetree)
    manifest: str | None = None  # default: <folder>/manifest.csv
    votes: str | None = None  # a table of votes; default: labels stand in the manifest
    purpose: str = "research"  # what the people must have consented to
    ledger: str | None = None  # the folder of a consent ledger, which then decides
    max_bad_fraction: float = 0.001  # unreadable photographs tolerated before the build stops
    num_subjects: int | None = None  # phantoms only
    seed: int = 0  # phantoms only


def face_features() -> tfds.features.FeaturesDict:
    """Fields of one face. Images enter as PNG bytes: arrays would make tfds import TensorFlow."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, None)),
            "id": tfds.features.Text(),  # stable name of the photograph
            "subject": tfds.features.Text(),  # pseudonym of the person
            "severity": np.float32,  # cleft severity 0..1, NaN if not known
            "side": tfds.features.Text(),  # of the cleft: left, right, none, unknown
        }
    )


def photo_features() -> tfds.features.FeaturesDict:
    """Fields of one photograph (see `photo_record`).

    Pictures are PNG bytes in text fields: a field for images could not be empty, and reading one would
    decode it at once.
    """
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),  # stable name of the photograph
            "subject": tfds.features.Text(),  # pseudonym of the person
            "view": tfds.features.Text(),  # front, left, right, ...
            "device": tfds.features.Text(),  # device, phone, or a word of the manifest's
            "color": tfds.features.Text(),  # RGB
            "uv": tfds.features.Text(),  # gray; empty: unpaired
            "truth_uv": tfds.features.Text(),  # gray; what only judgement may see
            "pigment": tfds.features.Text(),  # 0 or 255: exact spots of a phantom; empty: not known
            "mask": tfds.features.Text(),  # 0 or 255: skin to be used
            "landmarks": tfds.features.Tensor(shape=(LANDMARKS, 3), dtype=np.float32),  # px
            "face_width": np.float32,  # px
            "covered": np.float32,  # 0..1: share of the face's skin that does not look like skin
            "ita": np.float32,  # individual typology angle, degrees
        }
    )


def frame_features() -> tfds.features.FeaturesDict:
    """Fields of one frame of a video. Images enter as PNG or JPEG bytes."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),  # loosely aligned face, square
            "id": tfds.features.Text(),  # stable name: <video>/<frame, 3 digits>
            "video": tfds.features.Text(),  # stable name: <subject>/<day>/<session>
            "subject": tfds.features.Text(),  # pseudonym of the patient
            "day": tfds.features.Text(),  # of the dialysis, sorts by time within a patient
            "session": tfds.features.Text(),  # pre (edema present) or post (absent)
            "weight_kg": np.float32,  # body weight at the time of the video
            "fluid_kg": np.float32,  # exact excess fluid of a phantom, NaN where that is not known
            "time": np.float32,  # s from the start of the video
        }
    )


def headshot_features() -> tfds.features.FeaturesDict:
    """Fields of one headshot (see `headshot_record`). Images enter as PNG bytes."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, None)),
            "id": tfds.features.Text(),  # stable name of the photograph
            "subject": tfds.features.Text(),  # pseudonym of the person
            "photo": np.int32,  # number of the photograph within the person, from 1
            "labels": tfds.features.Text(),  # JSON {task: {"votes", "label", "truth"}}
            "ita": np.float32,  # individual typology angle, degrees; NaN if not known
        }
    )


class Label(NamedTuple):
    """What is known of one task ("sex": 1 is female, "smile": 1 is a smile) in one photograph."""

    label: int = -1  # 1, 0, or -1: a tie, undecided or unknown
    votes: tuple[int, int] | None = None  # against, for; None: nobody was asked
    truth: int = -1  # of phantoms: 1, 0; -1: not known


def headshot_record(
    *,
    image: bytes,
    id: str,
    subject: str,
    photo: int,
    labels: Mapping[str, Label],
    ita: float = float("nan"),
) -> dict:
    """The record of one headshot.

    Args:
      image: PNG bytes, RGB or gray, square, without metadata.
      id: stable name of the photograph, unique in its data set.
      subject: pseudonym of the person.
      photo: number of the photograph within the person, from 1.
      labels: of each task, a word such as "sex" or "smile". They are stored as JSON text {task: {"votes":
        [against, for] or null, "label": 1 | 0 | -1, "truth": 1 | 0 | -1}}, sorted by task.
      ita: individual typology angle of the skin in degrees; NaN if not known.

    Raises:
      ValueError: a number of the photograph below 1, a task that is no word, a label or truth other than
        1, 0 and -1, or votes that are not two counts of 0 or more.
    """
    if photo < 1:
        raise ValueError(f"photo {photo} of {id}: photographs count from 1")
    for task, (label, votes, truth) in labels.items():
        if not task.isidentifier():
            raise ValueError(f"task {task!r} of {id} is no word")
        if label not in (-1, 0, 1) or truth not in (-1, 0, 1):
            raise ValueError(f"{task} of {id}: label {label}, truth {truth} are not 1, 0 or -1")
        if votes is not None and (len(votes) != 2 or min(votes) < 0):
            raise ValueError(f"{task} of {id}: votes {votes} are not two counts")
    count = lambda votes: None if votes is None else [int(votes[0]), int(votes[1])]
    told = {
        task: {"votes": count(one.votes), "label": int(one.label), "truth": int(one.truth)}
        for task, one in labels.items()
    }
    return {
        "image": image,
        "id": id,
        "subject": subject,
        "photo": np.int32(photo),
        "labels": json.dumps(told, sort_keys=True),
        "ita": np.float32(ita),
    }


def frame_record(
    *,
    image: bytes,
    subject: str,
    day: str,
    session: str,
    weight_kg: float,
    frame: int,
    time: float,
    fluid_kg: float = float("nan"),
) -> dict:
    """The record of one frame.

    Args:
      image: PNG or JPEG bytes of the loosely aligned face, RGB, square, without metadata.
      subject: pseudonym of the patient, without "/".
      day: of the dialysis, without "/"; sorts by time within a patient.
      session: "pre" or "post" the dialysis.
      weight_kg: body weight at the time of the video.
      frame: number of the frame among those kept of its video, from 0.
      time: s from the start of the video.
      fluid_kg: excess fluid of a phantom.

    Raises:
      ValueError: the session is another word, or a name holds a "/".
    """
    if session not in ("pre", "post"):
        raise ValueError(f"session {session!r} is neither pre nor post")
    if "/" in subject + day:
        raise ValueError(f"{subject!r}, {day!r}: names with / are not unique as ids")
    video = f"{subject}/{day}/{session}"
    return {
        "image": image,
        "id": f"{video}/{frame:03d}",
        "video": video,
        "subject": subject,
        "day": day,
        "session": session,
        "weight_kg": np.float32(weight_kg),
        "fluid_kg": np.float32(fluid_kg),
        "time": np.float32(time),
    }


def photo_record(
    *,
    id: str,
    subject: str,
    view: str,
    device: str,
    color: np.ndarray,
    mask: np.ndarray,
    landmarks: np.ndarray,
    face_width: float,
    covered: float,
    ita: float,
    uv: np.ndarray | None = None,
    truth_uv: np.ndarray | None = None,
    pigment: np.ndarray | None = None,
) -> dict:
    """The record of one photograph from its arrays, with every picture as PNG.

    Args:
      id: stable name of the photograph, unique in its data set.
      subject: pseudonym of the person.
      view: front, left, right or another word.
      device: "device" for the camera that also takes UV photographs, "phone", or another word.
      color: uint8 [H, W, 3], sRGB.
      mask: bool [H, W], skin to be used.
      landmarks: [468, 3], points of the face mesh in px of `color`.
      face_width: px between the mesh's points 234 and 454.
      covered: 0..1, share of the mesh's skin that does not look like skin.
      ita: individual typology angle of the skin in degrees.
      uv: uint8 [H, W], the UV photograph that training may see; None for an unpaired one.
      truth_uv: uint8 [H, W], the UV photograph that only judgement may see; `uv` if that is given.
      pigment: bool [H, W], where the spots of a phantom are; None where that is not known.

    Raises:
      ValueError: a picture has another size or type than `color`.
    """
    truth_uv = truth_uv if uv is None else uv
    planes = {"uv": uv, "truth_uv": truth_uv, "pigment": pigment, "mask": mask}
    types = {"uv": np.uint8, "truth_uv": np.uint8, "pigment": np.bool_, "mask": np.bool_}
    if color.dtype != np.uint8 or color.ndim != 3 or color.shape[-1] != 3:
        raise ValueError(f"color of {id}: {color.dtype} {color.shape} is not uint8 [H, W, 3]")
    for name, plane in planes.items():
        if plane is not None and (plane.dtype != types[name] or plane.shape != color.shape[:2]):
            raise ValueError(
                f"{name} of {id}: {plane.dtype} {plane.shape} is not "
                f"{np.dtype(types[name])} {color.shape[:2]}"
            )
    gray = lambda plane: plane * np.uint8(255) if plane.dtype == np.bool_ else plane
    pictures = {n: b"" if p is None else encode_png(gray(p)) for n, p in planes.items()}
    return pictures | {
        "id": id,
        "subject": subject,
        "view": view,
        "device": device,
        "color": encode_png(color),
        "landmarks": np.asarray(landmarks, np.float32),
        "face_width": np.float32(face_width),
        "covered": np.float32(covered),
        "ita": np.float32(ita),
    }


def split_of(subject: str) -> str:
    """'train' or 'heldout', from the name alone: adding or withdrawing a person moves nobody else."""
    digest = hashlib.sha256(subject.encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "heldout" if share < HELD_OUT else "train"


def check_pictures(resolution: int, channels: int, least: int) -> None:
    """Raises UserError unless pictures of this side (a power of two from `least`) can be built."""
    if resolution < least or resolution & (resolution - 1):
        powers = sorted((2**n for n in range(4, 12)), key=lambda n: abs(n - resolution))[:2]
        raise UserError(
            f"config.resolution={resolution} is not a power of two: use {min(powers)} or "
            f"{max(powers)}."
            if resolution & (resolution - 1)
            else f"config.resolution={resolution} is too small: use {max(least, 16)} or more."
        )
    if channels not in (1, 3):
        raise UserError(f"config.channels={channels}: use 3 (color) or 1 (gray).")


def encode_png(image: np.ndarray) -> bytes:
    """uint8 [H, W], [H, W, 1] or [H, W, 3] -> PNG bytes of the pixels alone, no metadata."""
    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


class RecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the builders of all kinds of record share: no chatter, nothing to download."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = []

    def __init__(self, **kwargs):
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # tfds warns of every config that is not its own
        super().__init__(**kwargs)
        logging.set_verbosity(verbosity)

    @tfds.core.utils.classproperty
    @classmethod
    def code_path(cls) -> epath.Path:
        # tfds 4.9.10 would look it up with importlib_resources, which it does not require.
        return epath.Path(inspect.getfile(cls))

    @staticmethod
    def features() -> tfds.features.FeaturesDict:
        """Fields of one record."""
        raise NotImplementedError("the class of its kind of record gives them")

    def _info(self) -> tfds.core.DatasetInfo:
        description = inspect.getdoc(self).split("\n")[0]
        return tfds.core.DatasetInfo(
            builder=self, description=description, features=self.features()
        )

    def _generate_examples(self, people):
        raise NotImplementedError("_split_generators gives the records themselves")

    def _log_download_bytes(self) -> None:
        """Nothing is downloaded."""

    def _log_download_done(self) -> None:
        """Said by whoever opens the data."""


class FaceBuilder(RecordBuilder, skip_registration=True):
    """Faces in one frame and one size, rendered or real."""

    features = staticmethod(face_features)


class PhotoBuilder(RecordBuilder, skip_registration=True):
    """Photographs at their own size, with a UV photograph or without, rendered or real."""

    features = staticmethod(photo_features)


class FrameBuilder(RecordBuilder, skip_registration=True):
    """Frames of videos before and after a dialysis, with the body weight, rendered or real."""

    features = staticmethod(frame_features)


class HeadshotBuilder(RecordBuilder, skip_registration=True):
    """Headshots, several a person, with votes and labels, rendered or real."""

    features = staticmethod(headshot_features)
