"""How severe is a cleft? The slow way: distance from what a generator of normal faces makes of the face.

The normalization of Hayajneh et al. (PLOS ONE 2023, figures 5 and 6), in two stages:

1. Inversion: the latent w whose picture is nearest to the face, by StyleGAN2's projector (Karras et al.
   2020, arXiv 1912.04958, appendix D): Adam from the mean of w, its rate ramped up and down, with noise
   on w that fades. StyleGAN3 has no noise inputs, so the projector's noise regularization has no object.
2. Adaptation: w is frozen and the weights of the synthesis network follow the face, so that what w cannot
   say comes back: identity, skin, light. Followed for long they bring the cleft back too. The stop rule
   is fixed in advance: a number of steps, in which nose and mouth do not count.

Face and normal face are then subtracted, eroded, masked, cut off and summed as in
`jaxface.metrics.severity`, whose score needs a hundredth of a second where this one needs seconds.
Faces must be in the frame of `jaxface.faces.align`, and the generator trained on such faces.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxface.errors import UserError
from jaxface.metrics import perceptual, severity
from jaxface.metrics.ppl import SIDE as MOST_SEEN
from jaxface.models.lpips import Loaded
from jaxface.system import Figure

SCORER = "severity by inversion into a generator of normal faces and adaptation of its weights"
LPIPS = "lpips_alexnet"
LEAST_SEEN = 64  # px, to which smaller pictures are enlarged for LPIPS: AlexNet leaves 3 of 64
BATCH = 16  # faces inverted together
FIRST = 4096  # latents that tell the mean of w and its spread; the projector takes 10,000
_ADAM = optax.scale_by_adam()  # 0.9, 0.999


class Settings(NamedTuple):
    """Of the two searches. SG2 = StyleGAN2's projector, spec = proposed for the paper's unstated ones."""

    steps: int = 100  # of the inversion, for 32 px (SG2: 1000, for 1024 px)
    rate: float = 0.1  # SG2
    ramp_up: float = 0.05  # share of the steps, SG2
    ramp_down: float = 0.25  # SG2
    noise: float = 0.05  # on w in units of its spread, gone after 3/4 of the steps, SG2
    whole: bool = True  # the inversion looks at nose and mouth too; False: it never sees them
    adaptation_steps: int = 50  # spec: the stop rule
    adaptation_rate: float = 3e-4  # spec
    perceptual_weight: float = 1.0
    pixel_weight: float = 0.1  # of the mean square of pixels in [-1, 1], spec


DEFAULTS = Settings()


class Generator(NamedTuple):
    """A generator of normal faces. Both functions must be pure; they are compiled."""

    mapping: Callable[..., jax.Array]  # variables, z [N, z_dim] -> w [N, layers, w_dim]
    synthesis: Callable[..., jax.Array]  # variables, w -> [N, S, S, C], about [-1, 1]
    variables: Any  # {"params": {"synthesis": what adaptation moves, ...}, ...}
    z_dim: int


class Inverter(NamedTuple):
    """A severity score made of a generator; `fit` makes it."""

    generator: Generator
    threshold: float = 0.0  # squared gray levels; heat below is taken for nothing
    settings: Settings = DEFAULTS
    seed: int = 0  # of the noise on w and of the latents that start the search

    def normalized(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [N, S, S, C] -> the faces and their normal faces, both uint8 [N, G, G, C].

        G is the side of the generator's pictures: nothing finer is compared.

        Raises:
          ValueError: the images are not uint8, or have another number of channels than the generator.
          UserError: the weights of LPIPS-AlexNet are not on this machine.
        """
        side, channels = _size(self.generator)
        faces = _shrunk(images, side, channels)
        x = faces.astype(np.float32) / 127.5 - 1
        ws, _ = invert(self.generator, x, jax.random.key(self.seed), self.settings)
        made, _ = adapt(self.generator, x, ws, self.settings)
        return faces, np.clip(np.rint((made + 1) * 127.5), 0, 255).astype(np.uint8)

    def heat(self, images: np.ndarray) -> np.ndarray:
        """Squared YCbCr difference from the normal face, eroded: [N, S, S, C] -> [N, SIDE, SIDE].

        In squared gray levels, zero outside `severity.MASK`. Raises as `normalized`.
        """
        return _heat(*self.normalized(images))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Severity of faces uint8 [N, S, S, C] -> float64 [N]; raises as `normalized`."""
        return severity.score(self.heat(images), self.threshold)

    def calibrated(self, images: np.ndarray, ratings: np.ndarray) -> "Inverter":
        """The same with the threshold that correlates best with ratings [N] of other people's faces.

        Raises:
          ValueError: less than three faces, or all ratings equal; and as `normalized`.
        """
        found = severity.best_threshold(self.heat(images), ratings, self.threshold)
        return self._replace(threshold=found)

    def figure(self, images: np.ndarray, photographs: bool = True) -> Figure:
        """Each face, the generator's normal face for it, and its heat in the face (red)."""
        faces, made = self.normalized(images)
        return severity.pictures(
            severity.canvas(faces),
            severity.canvas(made),
            _heat(faces, made),
            self.threshold,
            "Severity by inversion: each face, what a generator of normal faces makes of it, and where "
            "the two differ more than normal faces do (red).",
            photographs,
        )


def fit(
    generator: Generator, normals: np.ndarray, settings: Settings = DEFAULTS, seed: int = 0
) -> Inverter:
    """The score whose threshold `severity.RARE` of the pixels of normal faces stay below.

    Args:
      normals: uint8 [N, S, S, C] of people without a cleft whom the generator was not trained on.

    Raises:
      ValueError: no faces; and as `Inverter.normalized`.
    """
    if len(normals) == 0:
        raise ValueError("a threshold needs faces without a cleft")
    inverter = Inverter(generator, settings=settings, seed=seed)
    return inverter._replace(threshold=severity.rare(inverter.heat(normals)))


def invert(
    generator: Generator, faces: np.ndarray, key: jax.Array, settings: Settings = DEFAULTS
) -> tuple[np.ndarray, np.ndarray]:
    """The latents whose pictures are nearest to faces: float [N, S, S, C] in [-1, 1], S the generator's.

    Returns:
      w float32 [N, layers, w_dim], the same in every layer, and the loss [steps, N] on the way, which
      the noise on w is part of. A face's w depends on its place in `faces`, not on its neighbors.

    Raises:
      UserError: the weights of LPIPS-AlexNet are not on this machine.
    """
    lpips = _lpips()
    key, first = jax.random.split(key)
    z = jax.random.normal(first, (FIRST, generator.z_dim))
    ws = jax.jit(generator.mapping)(generator.variables, z)
    layers, mean = ws.shape[1], ws[:, 0].mean(0)
    spread = jnp.sqrt(jnp.square(ws[:, 0] - mean).sum(-1).mean())
    keep = jnp.ones(faces.shape[1:3]) if settings.whole else _keep(faces.shape[1])

    batch = min(BATCH, len(faces))
    found, losses = [], []
    for start in range(0, len(faces), batch):
        # The last batch is filled up, so that the search is compiled for one shape.
        which = np.arange(start, start + batch)
        some = jnp.asarray(faces[np.minimum(which, len(faces) - 1)], jnp.float32)
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(which)
        w = jnp.broadcast_to(mean, (batch, len(mean)))
        moments, path = _ADAM.init(w), []
        # One compiled step, called from here: XLA:CPU runs convolutions inside its loops far slower.
        for step in range(settings.steps):
            w, moments, loss = _inversion_step(
                generator.synthesis,
                lpips.module,
                settings,
                layers,
                (generator.variables, lpips.variables),
                w,
                moments,
                some,
                keep,
                keys,
                step,
                spread,
            )
            path.append(loss)
        kept = min(batch, len(faces) - start)
        found.append(np.asarray(w)[:kept])
        losses.append(np.stack([np.asarray(loss) for loss in path])[:, :kept])
    return np.repeat(np.concatenate(found)[:, None], layers, 1), np.concatenate(losses, 1)


def adapt(
    generator: Generator, faces: np.ndarray, ws: np.ndarray, settings: Settings = DEFAULTS
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of `ws` by weights that followed each face outside nose and mouth.

    Args:
      faces: float [N, S, S, C] in [-1, 1], S the generator's.
      ws: [N, layers, w_dim] of `invert`.

    Returns:
      float32 [N, S, S, C], and the loss [steps, N] on the way.

    Raises:
      UserError: the weights of LPIPS-AlexNet are not on this machine.
    """
    lpips, keep = _lpips(), _keep(faces.shape[1])
    made, losses = [], []
    # Face by face: weights of their own would make a batch's convolutions grouped ones, which are slow.
    for face, w in zip(faces, ws):
        face, w = jnp.asarray(face[None], jnp.float32), jnp.asarray(w[None])
        weights = generator.variables["params"]["synthesis"]
        moments, path = _ADAM.init(weights), []
        for _ in range(settings.adaptation_steps):
            weights, moments, loss = _adaptation_step(
                generator.synthesis,
                lpips.module,
                settings,
                (generator.variables, lpips.variables),
                weights,
                moments,
                w,
                face,
                keep,
            )
            path.append(loss)
        made.append(_paint(generator.synthesis, generator.variables, weights, w)[0])
        losses.append(np.array([float(loss) for loss in path]))
    return np.stack([np.asarray(one) for one in made]), np.stack(losses, 1)


@functools.partial(jax.jit, static_argnames=("synthesis", "module", "layers"))
def _inversion_step(
    synthesis, module, settings, layers, variables, w, moments, faces, keep, keys, step, spread
):
    t = step / settings.steps
    fade = jnp.square(jnp.maximum(0, 1 - t / 0.75))
    draw = lambda key: jax.random.normal(jax.random.fold_in(key, step), w.shape[1:])
    noise = settings.noise * spread * fade * jax.vmap(draw)(keys)

    def total(w):
        ws = jnp.broadcast_to((w + noise)[:, None], (len(w), layers, w.shape[1]))
        losses = _losses(module, settings, variables[1], synthesis(variables[0], ws), faces, keep)
        return losses.sum(), losses

    gradient, losses = jax.grad(total, has_aux=True)(w)
    down = jnp.minimum(1, (1 - t) / settings.ramp_down)
    ramp = (0.5 - 0.5 * jnp.cos(math.pi * down)) * jnp.minimum(1, t / settings.ramp_up)
    updates, moments = _ADAM.update(gradient, moments)
    return w - settings.rate * ramp * updates, moments, losses


@functools.partial(jax.jit, static_argnames=("synthesis", "module"))
def _adaptation_step(synthesis, module, settings, variables, weights, moments, w, face, keep):
    def loss(weights):
        picture = synthesis(_with(variables[0], weights), w)
        return _losses(module, settings, variables[1], picture, face, keep)[0]

    value, gradient = jax.value_and_grad(loss)(weights)
    updates, moments = _ADAM.update(gradient, moments)
    moved = jax.tree.map(lambda p, u: p - settings.adaptation_rate * u, weights, updates)
    return moved, moments, value


@functools.partial(jax.jit, static_argnames="synthesis")
def _paint(synthesis, variables, weights, w):
    return synthesis(_with(variables, weights), w)


def _with(variables, weights):
    """The generator with other synthesis weights."""
    return {**variables, "params": {**variables["params"], "synthesis": weights}}


def _losses(module, settings, lpips_variables, pictures, faces, keep):
    """[N] perceptual and pixel distance of pictures from faces where `keep` [S, S] is 1.

    Elsewhere the picture stands in for the face, so that nothing of the face there is seen, and no edge
    around it either.
    """
    keep = keep[:, :, None]
    target = keep * faces + (1 - keep) * pictures
    pixels = jnp.square(pictures - target).sum((1, 2, 3)) / (keep.sum() * faces.shape[-1])
    shown = [_shown(images) for images in (pictures, target)]
    return (
        settings.perceptual_weight * module.apply(lpips_variables, *shown)
        + settings.pixel_weight * pixels
    )


def _shown(images):
    """Images as LPIPS takes them: three channels, neither too small for its stages nor needlessly large."""
    side = min(max(images.shape[1], LEAST_SEEN), MOST_SEEN)
    if side != images.shape[1]:
        shape = (len(images), side, side, images.shape[3])
        images = jax.image.resize(images, shape, "linear", antialias=True)
    return jnp.broadcast_to(images, (*images.shape[:3], 3))


def _lpips() -> Loaded:
    networks = perceptual.networks()
    if LPIPS not in networks:
        raise UserError(
            f"severity by inversion needs {LPIPS}: python -m jaxface.weights fetch {LPIPS}"
        )
    return networks[LPIPS]


def _size(generator: Generator) -> tuple[int, int]:
    """Side and channels of the generator's pictures."""
    z = jax.ShapeDtypeStruct((1, generator.z_dim), jnp.float32)
    draw = lambda variables, z: generator.synthesis(variables, generator.mapping(variables, z))
    return jax.eval_shape(draw, generator.variables, z).shape[2:]


def _keep(side: int) -> jax.Array:
    """[side, side] 0 in nose and mouth, 1 elsewhere; a pixel that the mask touches is in it."""
    inside = np.zeros((side, side), np.float32)
    rows, columns = (
        slice(part.start * side // severity.SIDE, -(-part.stop * side // severity.SIDE))
        for part in severity.MASK
    )
    inside[rows, columns] = 1
    return jnp.asarray(1 - inside)


def _shrunk(images: np.ndarray, side: int, channels: int) -> np.ndarray:
    """uint8 [N, S, S, channels] -> uint8 [N, side, side, channels]"""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != channels:
        raise ValueError(
            f"the generator needs uint8 [N, S, S, {channels}], got {images.dtype} {images.shape}"
        )
    if images.shape[1] == side:
        return images
    method = cv2.INTER_AREA if images.shape[1] > side else cv2.INTER_CUBIC
    small = [cv2.resize(one, (side, side), interpolation=method) for one in images]
    return np.stack(small).reshape(-1, side, side, channels)


def _heat(faces: np.ndarray, made: np.ndarray) -> np.ndarray:
    difference = severity.to_ycbcr(severity.canvas(faces)) - severity.to_ycbcr(
        severity.canvas(made)
    )
    whole = severity.eroded(np.square(difference).sum(-1))
    heat = np.zeros_like(whole)
    heat[:, *severity.MASK] = whole[:, *severity.MASK]
    return heat
