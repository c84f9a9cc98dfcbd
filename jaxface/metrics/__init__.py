"""Metrics of images and of people: float64 on the host, each with its protocol and its interval."""

from jaxface.metrics.dish import dish
from jaxface.metrics.equivariance import eq_r, eq_t
from jaxface.metrics.frechet import frechet_distance, frechet_from_statistics
from jaxface.metrics.inception_score import inception_score
from jaxface.metrics.kid import kid, kid_subsets
from jaxface.metrics.ppl import path_lengths, ppl, slerp
from jaxface.metrics.precision_recall import precision_recall
from jaxface.metrics.spots import spot_ratio

__all__ = [
    "dish",
    "eq_r",
    "eq_t",
    "frechet_distance",
    "frechet_from_statistics",
    "inception_score",
    "kid",
    "kid_subsets",
    "path_lengths",
    "ppl",
    "precision_recall",
    "slerp",
    "spot_ratio",
]
