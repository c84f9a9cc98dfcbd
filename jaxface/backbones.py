"""Trained networks as makers of features: what a classifier of photographs begins with.

Weights come from what is shipped or fetched, from a user's file, or from a run of this project.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxface import parallel
from jaxface.errors import UserError, nearest
from jaxface.models import (
    efficientnet,
    expression,
    face_embedding,
    inception,
    mobilenet,
    resnet,
)
from jaxface.system import fit
from jaxface.weights import fetched, read_torch


@dataclasses.dataclass(frozen=True, eq=False)
class Backbone:
    """A network that makes features of photographs, with its weights.

    Features are those that the network pools at its end (published). Or the maps that leave one of its
    `layer`s, averaged over `grid` x `grid` cells: pooling forgets where something was, and in an upright
    face every place has its meaning.
    """

    name: str
    module: nn.Module
    variables: dict  # params and, where it has running statistics, batch_stats
    side: int  # px that it is made for; 0: any
    pick: Callable  # what the module returns -> pooled features [N, F]
    last: str  # its layer with the last maps before they are pooled
    layer: str = ""
    grid: int = 1

    def __call__(self, variables, images: jax.Array, train=False, axis=None):
        """(features [N, F], running statistics) of images [N, S, S, 1 or 3] in [-1, 1]."""
        return self.watched(variables, images, lambda maps: maps, train, axis)

    def watched(self, variables, images, watch: Callable, train=False, axis=None):
        """The same, with `watch` called on the maps [N, h, w, C] of `layer`, or of the last: it may change
        them."""
        shape = (len(images), *(self.side or n for n in images.shape[1:3]), 3)
        x = jnp.broadcast_to(images, (*images.shape[:3], 3))
        if x.shape != shape:
            x = jax.image.resize(x, shape, "linear", antialias=True)
        maps = []

        def note(call, args, kwargs, context):
            y = call(*args, **kwargs)
            path = context.module.path
            if context.method_name == "__call__" and path == (self.layer or self.last,):
                maps.append(watch(y))
                return maps[-1]
            return y

        folded = "batch_stats" not in self.variables
        how = {} if folded else {"train": train, "axis": axis}
        more = ["batch_stats"] if train and not folded else []
        with nn.intercept_methods(note):
            x = x if folded else resnet.normalize(x)
            y, moved = self.module.apply(variables, x, mutable=more, **how)
        if self.layer:
            (y,) = maps
            height, width = y.shape[1:3]
            if height % self.grid or width % self.grid:
                raise UserError(
                    f"config.grid={self.grid} does not divide the {height} x {width} maps of layer "
                    f"{self.layer!r}: use a divisor, another layer or another config.side."
                )
            rows, columns = height // self.grid, width // self.grid
            y = y.reshape(len(y), self.grid, rows, self.grid, columns, -1).mean((2, 4))
            y = y.reshape(len(y), -1)
        else:
            y = self.pick(y)
        stats = moved.get("batch_stats", variables.get("batch_stats", {}))
        return y.astype(jnp.promote_types(y.dtype, jnp.float32)), stats

    @functools.cached_property
    def order(self) -> tuple[str, ...]:
        """Its layers in the order in which they are called."""
        found = []

        def note(call, args, kwargs, context):
            if context.method_name == "__call__" and len(context.module.path) == 1:
                found.append(context.module.name)
            return call(*args, **kwargs)

        side = self.side or 64
        with nn.intercept_methods(note):
            blank = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
            jax.eval_shape(lambda x: self(self.variables, x), blank)
        return tuple(found)


# The networks beside residual ones: reader, trained network that is shipped or fetched, side in px, what
# of the result are features, last layer before pooling.
BACKBONES = {
    "mobilenet_v2": (mobilenet, "mobilenet_v2", 0, lambda y: y, "head"),
    "efficientnet_lite0": (efficientnet, "efficientnet_lite0", 0, lambda y: y[0], "head"),
    "face_resnet": (
        face_embedding,
        "faceapi_face_recognition_model",
        face_embedding.SIDE,
        lambda y: y,
        "conv256_down_out",
    ),
    "expression": (
        expression,
        "faceapi_face_expression_model",
        expression.SIDE,
        lambda y: y[0],
        "dense3",
    ),
    "inception_v3": (inception, "", inception.SIDE, lambda y: y["2048"].mean((1, 2)), "Mixed_7c"),
}
RESIDUAL = {f"resnet{depth}": depth for depth in resnet.BLOCKS}


def residual(depth: int, width: int, key: jax.Array, name: str = "") -> Backbone:
    """A residual network with random weights."""
    module = resnet.ResNet(depth, None, None, width)
    # Under jit: eager initialisation would compile every layer's little operations one by one.
    variables = parallel.to_host(
        parallel.compiled_once(module.init)(key, jnp.zeros([1, 64, 64, 3]))
    )
    return Backbone(
        name or f"resnet{depth}",
        module,
        variables,
        0,
        lambda y: y,
        f"layer4_{resnet.BLOCKS[depth][-1] - 1}",
    )


def load(config, start: dict | None) -> Backbone:
    """The network of `config.backbone` with weights of a file, of --init_from, or shipped or fetched.

    Args:
      config: fields backbone, weights, layer, grid, width, seed.
      start: what --init_from names, read: {"params": {"encoder", ...}, "model_state": {...}}.

    Raises:
      UserError: no such network or layer, weights that do not fit it, or that it has none without a file.
    """
    name, known = config.backbone, (*BACKBONES, *RESIDUAL)
    if name not in known:
        raise UserError(f"config.backbone={name!r} is no network.{nearest(name, known)}")
    if start and name not in RESIDUAL:
        raise UserError(
            f"--init_from gives a residual encoder, and config.backbone={name!r} is none: use "
            "--config.backbone=resnet18 (or its depth), or --init_from=none."
        )
    if start and config.weights:
        raise UserError("config.weights and --init_from both give the backbone: leave one out.")
    found = _residual(config, start) if name in RESIDUAL else _folded(config)
    if config.layer and config.layer not in found.order:
        raise UserError(
            f"config.layer={config.layer!r} is no layer of {name}.{nearest(config.layer, found.order)}"
        )
    return dataclasses.replace(found, layer=config.layer, grid=config.grid)


def _folded(config) -> Backbone:
    """One of BACKBONES, whose normalisation is folded into its convolutions."""
    reader, stored, side, pick, last = BACKBONES[config.backbone]
    if not config.weights and not stored:
        raise UserError(
            f"config.backbone={config.backbone!r} needs its weights, which we may not ship: "
            "--config.weights=FILE."
        )
    arrays = read_torch(config.weights) if config.weights else fetched(stored)
    try:
        loaded = reader.from_state_dict({}, arrays)
    except ValueError as error:
        raise UserError(f"config.weights={config.weights}: {error}") from None
    return Backbone(config.backbone, loaded.module, loaded.variables, side, pick, last)


def _residual(config, start: dict | None) -> Backbone:
    """One of RESIDUAL; without a file and without `start`, its weights are random."""
    depth = RESIDUAL[config.backbone]
    if config.weights:
        arrays = read_torch(config.weights)
        loaded = resnet.from_state_dict({"depth": depth, "num_classes": None}, arrays)
        plain = residual(depth, 64, jax.random.key(0))
        return dataclasses.replace(plain, variables=dict(loaded.variables))
    found = residual(depth, config.width, jax.random.key(config.seed))
    if not start:
        return found
    stats = start.get("model_state", {}).get("encoder", {})
    variables = {
        "params": fit(found.variables["params"], start["params"].get("encoder", {}), "the encoder"),
        "batch_stats": fit(found.variables["batch_stats"], stats, "statistics of the encoder"),
    }
    return dataclasses.replace(found, variables=variables)
