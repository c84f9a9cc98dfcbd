"""What a generator is judged by: numbers with intervals beside their noise floor, and its neighbours."""

import hashlib
import pathlib

import numpy as np

from jaxface.errors import UserError
from jaxface.metrics.features import EXTRACTOR, PROTOCOL, mobilenet_features, remembered
from jaxface.metrics.frames import GENERATED, framed
from jaxface.metrics.frechet import frechet_distance
from jaxface.metrics.intervals import bootstrap, by_subject
from jaxface.metrics.kid import kid, kid_interval
from jaxface.metrics.neighbours import nearest
from jaxface.metrics.noise_floor import split_half
from jaxface.metrics.precision_recall import memberships
from jaxface.models import inception
from jaxface.system import Figure, Result
from jaxface.weights import read_torch

BALL = 3  # neighbours of precision and recall
INCEPTION = (
    "6726825d"  # sha256 of the file that FID's PyTorch tools load begins so; so does its name
)


def against(
    reals: np.ndarray,
    subjects: np.ndarray,
    fakes: np.ndarray,
    base: np.ndarray | None = None,
    cache: pathlib.Path | None = None,
) -> dict[str, Result]:
    """KID, FD, precision and recall of generated images against photographs of people.

    Args:
      reals: uint8 [N, H, W, C], of `subjects` [N].
      fakes: uint8 [M, H, W, C] of the generator that is judged.
      base: the same of the generator that its training started from, if it did.
      cache: folder in which features of photographs are kept, see `features.remembered`.

    Returns:
      `kid_mobilenetv2`, `kid_mobilenetv2_base`, `kid_noise_floor`, `fd_mobilenetv2`,
      `fd_noise_floor`, `precision` and `recall`. A noise floor is the 95th percentile over splits, and
      is left out for less than eight people.
    """
    subjects = np.asarray(subjects)
    real, generated = _of_reals(reals, cache), mobilenet_features(fakes)
    people = len(np.unique(subjects))
    sets = f"{len(real)} photographs of {people} people against {len(generated)} generated images"
    extractor = f"features {PROTOCOL}"

    def distance(features, what):
        interval = kid_interval(real, features, subjects)
        protocol = f"{sets}{what}; all of both, {extractor}; 95 % bootstrap over people and images"
        return Result(*interval, unit="", protocol=protocol)

    results = {"kid_mobilenetv2": distance(generated, "")}
    if base is not None:
        results["kid_mobilenetv2_base"] = distance(
            mobilenet_features(base), " of the generator before training"
        )
    results["fd_mobilenetv2"] = Result(
        frechet_distance(real, generated),
        n=people,
        protocol=f"{sets}; {extractor}; no interval: resampling would add to its bias. Not FID",
    )
    if people >= 8:
        for name, metric, splits in (("kid", kid, 100), ("fd", frechet_distance, 20)):
            floor = split_half(real, metric, splits, subjects=subjects)
            results[f"{name}_noise_floor"] = Result(
                floor.p95,
                n=people,
                protocol=f"photographs against photographs: 95th percentile over {splits} splits of the "
                f"people into halves of about {floor.half} images (mean {floor.mean:.3g}); {extractor}",
            )
    if min(len(real), len(generated)) > BALL:
        precise, recalled = memberships(real, generated, BALL)
        share = lambda rows: float(rows.mean())
        over_images = bootstrap(
            by_subject(precise, np.arange(len(precise))), share, method="percentile"
        )
        over_people = bootstrap(by_subject(recalled, subjects), share, method="percentile")
        method = f"{sets}; k = {BALL}, {extractor}; 95 % bootstrap over"
        results["precision"] = Result(
            *over_images, protocol=f"{method} generated images, photographs held fixed"
        )
        results["recall"] = Result(
            *over_people, protocol=f"{method} people, generated images held fixed"
        )
    return results


def fid(
    reals: np.ndarray,
    subjects: np.ndarray,
    fakes: np.ndarray,
    weights: str,
    cache: pathlib.Path | None = None,
) -> dict[str, Result]:
    """FID by the Inception weights that define it, and KID on the same features.

    Args:
      reals, subjects, fakes, cache: as `against` takes them.
      weights: path of `pt_inception-2015-12-05-6726825d.pth`.

    Returns:
      `fid` (`fid50k_full` for 50,000 generated images, as published tables have it), `kid_inception`
      and `fid_noise_floor`.

    Raises:
      UserError: another file: its numbers would not be FID, so none is given.
    """
    check_inception(weights)
    network = inception.from_state_dict({}, read_torch(weights))
    protocol = "inception-2015-12-05, torch_fidelity"
    extract = lambda images: network.features(images, protocol="torch_fidelity")
    real, generated = remembered(reals, protocol, extract, cache), extract(fakes)
    people = len(np.unique(subjects))
    sets = f"{len(reals)} photographs of {people} people against {len(fakes)} generated images"
    biased = "biased upward by small sets, comparable at equal numbers only"
    name = "fid50k_full" if len(fakes) == 50_000 else "fid"
    interval = kid_interval(real, generated, np.asarray(subjects))
    results = {
        name: Result(
            frechet_distance(real, generated), n=people, protocol=f"{sets}; {protocol}; {biased}"
        ),
        "kid_inception": Result(
            *interval, protocol=f"{sets}; {protocol}; all of both; 95 % bootstrap"
        ),
    }
    if people >= 8:
        floor = split_half(real, frechet_distance, 20, subjects=np.asarray(subjects))
        results["fid_noise_floor"] = Result(
            floor.p95,
            n=people,
            protocol=f"photographs against photographs: 95th percentile over 20 splits of the people "
            f"into halves of about {floor.half} images; {protocol}",
        )
    return results


def check_inception(weights: str) -> None:
    """Raises UserError unless a file is the Inception that FID is defined by, to the byte."""
    try:
        with open(weights, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"config.inception={weights}: {error.strerror or error}.") from None
    if not digest.startswith(INCEPTION):
        raise UserError(
            f"config.inception={weights} is not pt_inception-2015-12-05-{INCEPTION}.pth (its sha256 begins "
            f"with {digest[:8]}): what other weights give is not FID. kid_mobilenetv2 needs none."
        )


def kid_value(reals: np.ndarray, fakes: np.ndarray, cache: pathlib.Path | None = None) -> Result:
    """KID alone, of uint8 images: quick enough to follow training with."""
    protocol = (
        f"{len(reals)} photographs against {len(fakes)} generated images; features {PROTOCOL}"
    )
    value = kid(_of_reals(reals, cache), mobilenet_features(fakes))
    return Result(value, n=len(reals), protocol=protocol)


def neighbours(
    reals: np.ndarray, samples: np.ndarray, cache: pathlib.Path | None = None
) -> dict[str, Figure | Result]:
    """Each sample beside the two photographs nearest to it, and how near they are.

    Returns:
      The figure `neighbours` and the number `neighbour_distance`: the median distance of a sample to
      its nearest photograph over that of a photograph to its nearest other photograph. Near 1 is as it
      should be, near 0 the generator repeats photographs. Nothing for less than three photographs.
    """
    if len(reals) < 3:
        return {}
    real, generated = _of_reals(reals, cache), mobilenet_features(samples)
    indices, distances = nearest(generated, real, 2)
    among = nearest(real, real, 1, leave_out=True)[1]
    rows = np.stack(
        [framed(samples, GENERATED, 255), reals[indices[:, 0]], reals[indices[:, 1]]], axis=1
    )
    caption = (
        "Is it a copy? Each framed face is generated; the two after it are the training photographs "
        f"most like it, by {PROTOCOL}."
    )
    figure = Figure(rows.reshape(-1, *samples.shape[1:]), 12, caption, photographs=True)
    ratio = float(np.median(distances[:, 0]) / max(np.median(among), 1e-12))
    protocol = (
        f"median over {len(samples)} samples, over the median of {len(real)} photographs to their "
        f"nearest other one; features {PROTOCOL}"
    )
    return {"neighbours": figure, "neighbour_distance": Result(ratio, protocol=protocol)}


def _of_reals(images: np.ndarray, cache: pathlib.Path | None) -> np.ndarray:
    return remembered(images, EXTRACTOR, mobilenet_features, cache)
