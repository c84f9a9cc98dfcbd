"""What every data set of face photographs has in common: its settings, its fields, its split."""

import dataclasses
import hashlib
import inspect
import io

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from PIL import Image

from jaxface.errors import UserError

HELD_OUT = 0.15  # share of people never trained on: the memorisation test and the noise floor


@dataclasses.dataclass
class FaceConfig(tfds.core.BuilderConfig):
    """Settings of one build; whatever changes the records must change `name` (the cache's key)."""

    resolution: int = 256  # stored side in px
    channels: int = 3
    folder: str | None = None  # a user's folder of images (face_folder, cleft_folder)
    manifest: str | None = None  # default: <folder>/manifest.csv
    purpose: str = "research"  # what the subjects must have consented to
    align: bool = True  # detect, align, adjust color and blur the background
    max_bad_fraction: float = 0.001  # unreadable images tolerated before the build stops
    num_subjects: int | None = None  # phantoms only
    seed: int = 0  # phantoms only


def features() -> tfds.features.FeaturesDict:
    """Fields of one record. Images enter as PNG bytes: arrays would make tfds import TensorFlow."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, None)),
            "id": tfds.features.Text(),  # stable name of the photograph
            "subject": tfds.features.Text(),  # pseudonym of the person
            "severity": np.float32,  # cleft severity 0..1, NaN if not known
            "side": tfds.features.Text(),  # of the cleft: left, right, none, unknown
        }
    )


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


class FaceBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the builders of rendered and of real people share: their fields, and no chatter."""

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

    def _info(self) -> tfds.core.DatasetInfo:
        description = inspect.getdoc(self).split("\n")[0]
        return tfds.core.DatasetInfo(builder=self, description=description, features=features())

    def _generate_examples(self, people):
        raise NotImplementedError("_split_generators gives the records themselves")

    def _log_download_bytes(self) -> None:
        """Nothing is downloaded."""

    def _log_download_done(self) -> None:
        """Said by whoever opens the data."""
