"""Numbers of a style generator by itself: how smooth its space is, how it moves with its input."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from jaxface.metrics import equivariance, perceptual
from jaxface.metrics.intervals import bootstrap, by_subject
from jaxface.metrics.ppl import clipped_mean, sample_lengths
from jaxface.models.lpips import Loaded
from jaxface.system import Result

PUBLISHED = "lpips_vgg16"  # the distance of published path lengths
LEAST_SIDE = 24  # px, below which no pixel is far enough from the border for EQ-R


def smoothness(
    mapping: Callable,
    synthesis: Callable,
    z_dim: int,
    *,
    samples: int,
    batch: int = 16,
    labels: np.ndarray | None = None,
    networks: Mapping[str, Loaded] | None = None,
) -> dict[str, Result]:
    """Perceptual path length at the ends of straight paths in w, whole pictures.

    Args:
      mapping, synthesis, z_dim, batch, labels: as `ppl.sample_lengths` takes them.
      samples: paths.
      networks: distances by name; None: all that are on this machine.

    Returns:
      `ppl2_wend` by LPIPS-VGG16, the published measure, where its weights are here, and
      `ppl_wend_lpips_alexnet` by the smaller network. They are not on one scale.
    """
    results = {}
    for name, network in (perceptual.networks() if networks is None else networks).items():
        lengths = sample_lengths(
            mapping,
            synthesis,
            network.distance,
            z_dim,
            samples=samples,
            batch=batch,
            labels=labels,
        )
        paths = by_subject(lengths, np.arange(len(lengths)))
        interval = bootstrap(paths, clipped_mean, method="percentile")
        key = "ppl2_wend" if name == PUBLISHED else f"ppl_wend_{name}"
        protocol = (
            f"{samples} paths in w, t = 0, epsilon 1e-4, whole pictures, {name}, lowest and highest "
            "hundredth left out; 95 % bootstrap over paths. Published values take 50,000 paths"
        )
        results[key] = Result(*interval, protocol=protocol)
    return results


def moving(
    mapping: Callable,
    synthesis: Callable,
    z_dim: int,
    *,
    side: int,
    samples: int,
    batch: int = 32,
    labels: np.ndarray | None = None,
) -> dict[str, Result]:
    """Equivariance in dB: `eq_t`, `eq_t_frac` and, for pictures of `side` >= 24 px, `eq_r`.

    The arguments are those of `equivariance.eq_t`.
    """
    settings = {"samples": samples, "batch": batch, "labels": labels}
    values = {
        "eq_t": equivariance.eq_t(mapping, synthesis, z_dim, **settings),
        "eq_t_frac": equivariance.eq_t(mapping, synthesis, z_dim, fractional=True, **settings),
    }
    if side >= LEAST_SIDE:
        values["eq_r"] = equivariance.eq_r(mapping, synthesis, z_dim, **settings)
    motion = {
        "eq_t": "moved by whole pixels",
        "eq_t_frac": "moved by any amount",
        "eq_r": "turned by any angle",
    }
    return {
        name: Result(
            value,
            unit="dB",
            protocol=f"{samples} pictures {motion[name]}, the input moved against the picture moved; our "
            "filters, so published values are comparable for EQ-T by whole pixels only",
        )
        for name, value in values.items()
        if math.isfinite(value)
    }
