"""Metrics of images and of people: float64 on the host, each with its protocol and its interval."""

from jaxface.metrics.dish import dish
from jaxface.metrics.frechet import frechet_distance, frechet_from_statistics
from jaxface.metrics.kid import kid
from jaxface.metrics.precision_recall import precision_recall

__all__ = ["dish", "frechet_distance", "frechet_from_statistics", "kid", "precision_recall"]
