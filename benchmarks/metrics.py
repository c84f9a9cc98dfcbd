"""Features of pictures and the distances between them.

Inception has random weights here: those of FID are the user's, and a time does not depend on them. Beside
`frechet_distance` stands the matrix square root that pytorch-fid takes, beside precision and recall
`torch.cdist`.
"""

import functools

import jax
import numpy as np

from benchmarks.frechet import by_square_root
from benchmarks.harness import Call, Case, Work, eager
from jaxface.metrics import frechet_distance, precision_recall
from jaxface.metrics.features import SIDE, mobilenet_features
from jaxface.models.inception import Inception, Loaded


def pictures(number: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, side, side, 3), np.uint8)


def inception_ours(number, side) -> Work:
    module = Inception()
    blank = np.zeros([1, 299, 299, 3], np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), blank)
    rng = np.random.default_rng(0)
    spread = lambda leaf: np.sqrt(2 / max(np.prod(leaf.shape[:-1]), 1))
    draw = lambda leaf: rng.normal(0, spread(leaf), leaf.shape).astype(np.float32)
    loaded = Loaded(module, jax.tree.map(lambda leaf: jax.numpy.asarray(draw(leaf)), shapes))
    images = pictures(number, side)
    return eager(lambda: loaded.features(images, batch=number))


def inception_torch(number, side) -> Work:
    from benchmarks import torch_reference as reference

    net = reference.without_gradient(reference.Inception().to(reference.DEVICE))
    images = reference.torch.tensor(np.moveaxis(pictures(number, side), -1, 1).copy())
    return Work((Call(reference.waiting(lambda: net(images.to(reference.DEVICE)).cpu())),))


def mobilenet_ours(number, side) -> Work:
    images = pictures(number, side)
    return eager(lambda: mobilenet_features(images, batch=number))


def mobilenet_torch(number, side) -> Work:
    from benchmarks import torch_reference as reference

    net = reference.without_gradient(reference.MobileNetV2().to(reference.DEVICE))
    images = reference.torch.tensor(np.moveaxis(pictures(number, side), -1, 1).copy())
    larger = functools.partial(
        reference.F.interpolate, size=(SIDE, SIDE), mode="bicubic", align_corners=False
    )

    def run():
        net(larger(images.to(reference.DEVICE).float()) / 127.5 - 1).cpu()

    return Work((Call(reference.waiting(run)),))


def features(number, dimensions) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative and skewed, like what is pooled after a ReLU."""
    rng = np.random.default_rng(0)
    scale = 1 / np.arange(1, dimensions + 1) ** 0.5
    draw = lambda shift: np.maximum(rng.normal(size=(number, dimensions)) * scale + shift, 0)
    return draw(0.0).astype(np.float32), draw(0.02).astype(np.float32)


def frechet_ours(number, dimensions) -> Work:
    return eager(frechet_distance, *features(number, dimensions))


def frechet_plain(number, dimensions) -> Work:
    return eager(by_square_root, *(x.astype(np.float64) for x in features(number, dimensions)))


def neighbours_ours(number, dimensions) -> Work:
    return eager(precision_recall, *features(number, dimensions))


def neighbours_torch(number, dimensions, k=3) -> Work:
    from benchmarks import torch_reference as reference

    torch = reference.torch
    real, made = (torch.tensor(x, device=reference.DEVICE) for x in features(number, dimensions))

    def share(points, manifold):
        radii = (
            torch.cdist(manifold, manifold).kthvalue(k + 1, 1).values
        )  # one is its own neighbour
        return (torch.cdist(points, manifold) <= radii).any(1).float().mean().item()

    return eager(lambda: (share(made, real), share(real, made)))


CASES = {
    "inception_features": Case(inception_ours, inception_torch, dict(number=16, side=256), 16),
    "mobilenet_features": Case(mobilenet_ours, mobilenet_torch, dict(number=32, side=64), 32),
    "frechet_distance": Case(
        frechet_ours, frechet_plain, dict(number=512, dimensions=1280), needs_torch=False
    ),
    "precision_recall": Case(neighbours_ours, neighbours_torch, dict(number=2048, dimensions=1280)),
}
