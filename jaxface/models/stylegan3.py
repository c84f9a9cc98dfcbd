"""StyleGAN3, the alias-free generator: translation- (-t) and rotation-equivariant (-r).

Karras et al. 2021, "Alias-Free Generative Adversarial Networks" (arXiv 2106.12423). A mapping
network turns a latent z into w; a synthesis network starts from Fourier features and filters them
through layers of modulated convolution and low-passed leaky ReLU, each with its own sampling rate,
cutoff and transition band. -r is `conv_kernel=1, use_radial_filters=True` with doubled channels.

Weights keep the paths of the published code with `/` for `.`: `mapping/fc0/weight`,
`synthesis/L0_36_512/affine/bias`. Matrices are [in, out], kernels HWIO. What changes without a
gradient (w_avg, magnitude_ema) or is drawn once and kept (freqs, phases, transform) is in the
collection "stats". Filters follow from the arguments and are not stored. Where the published code
lowers the highest resolutions to float16, here they take `dtype`, bfloat16 by default, which needs
no rescaling.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from flax.core import FrozenDict

from jaxface.errors import nearest
from jaxface.ops.filters import CONVOLVED, design_lowpass_filter, filtered_lrelu, modulated_conv2d
from jaxface.ops.here import few_ops

_EXACT = jax.lax.Precision.HIGHEST  # for small products, which set the scale of everything after


class LayerPlan(NamedTuple):
    """One synthesis layer. Rates in samples, frequencies in cycles per unit (the image's side)."""

    name: str
    is_torgb: bool
    is_critically_sampled: bool
    low_precision: bool
    in_channels: int
    out_channels: int
    in_size: int
    out_size: int
    in_sampling_rate: float
    out_sampling_rate: float
    tmp_sampling_rate: float
    in_cutoff: float
    out_cutoff: float
    in_half_width: float
    out_half_width: float
    up_factor: int
    down_factor: int
    up_taps: int
    down_taps: int
    down_radial: bool
    padding: tuple[int, int, int, int]
    conv_kernel: int

    @property
    def up_filter(self) -> np.ndarray | None:
        return design_lowpass_filter(
            self.up_taps, self.in_cutoff, 2 * self.in_half_width, self.tmp_sampling_rate
        )

    @property
    def down_filter(self) -> np.ndarray | None:
        return design_lowpass_filter(
            self.down_taps,
            self.out_cutoff,
            2 * self.out_half_width,
            self.tmp_sampling_rate,
            self.down_radial,
        )


class Plan(NamedTuple):
    """The Fourier features and every layer of a synthesis network."""

    input_channels: int
    input_size: int
    input_sampling_rate: float
    input_bandwidth: float
    layers: tuple[LayerPlan, ...]

    @property
    def num_ws(self) -> int:
        return len(self.layers) + 1


def layer_plan(
    img_resolution: int,
    img_channels: int = 3,
    channel_base: int = 32768,
    channel_max: int = 512,
    num_layers: int = 14,
    num_critical: int = 2,
    first_cutoff: float = 2,
    first_stopband: float = 2**2.1,
    last_stopband_rel: float = 2**0.3,
    margin_size: int = 10,
    num_fp16_res: int = 0,
    conv_kernel: int = 3,
    use_radial_filters: bool = False,
    lrelu_upsampling: int = 2,
    filter_size: int = 6,
) -> Plan:
    """Sampling rates, cutoffs, sizes, channels, taps and padding of every layer.

    Cutoff and stopband grow geometrically from the first layer to the last `num_critical`, which
    are critically sampled; the sampling rate is the power of two that holds the stopband.

    Args:
      img_resolution: output size in pixels, a power of two.
      channel_base, channel_max: a layer has `channel_base / 2 / cutoff` channels, at most the max.
      num_layers: layers before ToRGB.
      first_stopband: stopband frequency of the first layer; of the last, relative to its cutoff:
        `last_stopband_rel`.
      margin_size: pixels kept around the picture in the inner layers.
      num_fp16_res: the highest resolutions, counted in powers of two, that run in low precision.
      filter_size: zero crossings of a filter: 6 gives 12 taps at 2x upsampling.

    Raises:
      ValueError: the resolution or the number of layers makes no network.

    Reference: arXiv 2106.12423, section 3.2 "flexible layer specifications" and appendix C.
    """
    if img_resolution < 2 * first_cutoff or img_resolution & (img_resolution - 1):
        raise ValueError(
            f"img_resolution={img_resolution} is not a power of two of at least {2 * first_cutoff}"
        )
    if num_layers <= num_critical:
        raise ValueError(f"num_layers={num_layers} must exceed num_critical={num_critical}")
    last_cutoff = img_resolution / 2
    last_stopband = last_cutoff * last_stopband_rel
    exponents = np.minimum(np.arange(num_layers + 1) / (num_layers - num_critical), 1)
    cutoffs = first_cutoff * (last_cutoff / first_cutoff) ** exponents
    stopbands = first_stopband * (last_stopband / first_stopband) ** exponents
    rates = np.exp2(np.ceil(np.log2(np.minimum(stopbands * 2, img_resolution))))
    half_widths = np.maximum(stopbands, rates / 2) - cutoffs
    sizes = rates + margin_size * 2
    sizes[-2:] = img_resolution
    channels = np.rint(np.minimum(channel_base / 2 / cutoffs, channel_max))
    channels[-1] = img_channels

    layers = []
    for i in range(num_layers + 1):
        before = max(i - 1, 0)
        is_torgb = i == num_layers
        is_critical = i >= num_layers - num_critical
        kernel = 1 if is_torgb else conv_kernel
        tmp_rate = max(rates[before], rates[i]) * (1 if is_torgb else lrelu_upsampling)
        up, down = round(tmp_rate / rates[before]), round(tmp_rate / rates[i])
        up_taps = filter_size * up if up > 1 and not is_torgb else 1
        down_taps = filter_size * down if down > 1 and not is_torgb else 1
        in_size, out_size = int(sizes[before]), int(sizes[i])
        # What the two filters and the output need, less what the convolution's output offers.
        needed = (out_size - 1) * down + 1 + (up_taps - 1) + (down_taps - 1)
        total = needed - (in_size + kernel - 1) * up
        low = (total + up) // 2  # centres the picture, minding the zeros after the last sample
        layers.append(
            LayerPlan(
                name=f"L{i}_{out_size}_{int(channels[i])}",
                is_torgb=is_torgb,
                is_critically_sampled=is_critical,
                low_precision=bool(rates[i] * 2**num_fp16_res > img_resolution),
                in_channels=int(channels[before]),
                out_channels=int(channels[i]),
                in_size=in_size,
                out_size=out_size,
                in_sampling_rate=float(rates[before]),
                out_sampling_rate=float(rates[i]),
                tmp_sampling_rate=float(tmp_rate),
                in_cutoff=float(cutoffs[before]),
                out_cutoff=float(cutoffs[i]),
                in_half_width=float(half_widths[before]),
                out_half_width=float(half_widths[i]),
                up_factor=up,
                down_factor=down,
                up_taps=up_taps,
                down_taps=down_taps,
                down_radial=use_radial_filters and not is_critical,
                padding=(low, total - low, low, total - low),
                conv_kernel=kernel,
            )
        )
    return Plan(int(channels[0]), int(sizes[0]), float(rates[0]), float(cutoffs[0]), tuple(layers))


def _exact_dtype(x: jax.Array):
    return jnp.promote_types(x.dtype, jnp.float32)


def _mean_over_devices(x: jax.Array, axis: str | None) -> jax.Array:
    return x if axis is None else jax.lax.pmean(x, axis)


class FullyConnected(nn.Module):
    """Dense layer with an equalised learning rate. [N, in] -> [N, features]

    The stored weight has unit variance divided by `lr_multiplier`, and is scaled in use, so that
    Adam moves every layer at a rate that its fan-in does not change (arXiv 1710.10196, 4.1).
    """

    features: int
    activate: bool = False  # leaky ReLU, slope 0.2, gain sqrt(2)
    lr_multiplier: float = 1.0
    weight_init: float = 1.0
    bias_init: float | tuple[float, ...] = 0.0

    @nn.compact
    def __call__(self, x):
        weight = self.param(
            "weight",
            nn.initializers.normal(self.weight_init / self.lr_multiplier),
            (x.shape[-1], self.features),
        )
        bias = self.param(
            "bias",
            lambda key, shape: jnp.broadcast_to(
                jnp.asarray(self.bias_init, jnp.float32) / self.lr_multiplier, shape
            ),
            (self.features,),
        )
        dtype = _exact_dtype(x)
        gain = self.lr_multiplier / math.sqrt(x.shape[-1])
        y = jnp.matmul(x.astype(dtype), weight.astype(dtype) * gain, precision=_EXACT)
        y = y + bias.astype(dtype) * self.lr_multiplier
        return jnp.where(y > 0, y, 0.2 * y) * math.sqrt(2) if self.activate else y


def _unit_second_moment(x):
    return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-8)


class MappingNetwork(nn.Module):
    """Latent z, and a label, to one style vector w per layer (arXiv 1812.04948).

    `w_avg`, the running mean of w, is the centre of truncation.
    """

    z_dim: int
    c_dim: int
    w_dim: int
    num_ws: int
    num_layers: int = 2
    lr_multiplier: float = 0.01
    w_avg_beta: float = 0.998

    @nn.compact
    def __call__(
        self,
        z: jax.Array,
        c: jax.Array | None = None,
        truncation: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
        axis: str | None = None,
    ) -> jax.Array:
        """[N, z_dim], one-hot or soft label [N, c_dim] -> [N, num_ws, w_dim].

        Args:
          truncation: psi, 1 leaves w alone and 0 gives the mean.
          truncation_cutoff: layers from the first that are truncated; None: all.
          update_emas: move w_avg towards this batch; needs mutable=["stats"].
          axis: pmap axis over which the batch is spread.

        Raises:
          ValueError: z or c has another width than the network.
        """
        if z.shape[-1] != self.z_dim:
            raise ValueError(f"z has {z.shape[-1]} numbers a row, the generator z_dim={self.z_dim}")
        x = _unit_second_moment(z.astype(_exact_dtype(z)))
        if self.c_dim:
            if c is None or c.shape[-1] != self.c_dim:
                raise ValueError(
                    f"a conditional generator needs labels c of shape [N, {self.c_dim}]"
                )
            y = FullyConnected(self.w_dim, name="embed")(c)
            x = jnp.concatenate([x, _unit_second_moment(y).astype(x.dtype)], -1)
        elif c is not None and c.shape[-1]:
            raise ValueError("labels c were given to an unconditional generator")
        for i in range(self.num_layers):
            x = FullyConnected(
                self.w_dim, activate=True, lr_multiplier=self.lr_multiplier, name=f"fc{i}"
            )(x)
        w_avg = self.variable("stats", "w_avg", jnp.zeros, (self.w_dim,), jnp.float32)
        if update_emas:
            mean = _mean_over_devices(jax.lax.stop_gradient(x).mean(0), axis)
            w_avg.value = (mean + (w_avg.value - mean) * self.w_avg_beta).astype(w_avg.value.dtype)
        ws = jnp.broadcast_to(x[:, None], (x.shape[0], self.num_ws, self.w_dim))
        if isinstance(truncation, int | float) and truncation == 1:
            return ws
        truncated = w_avg.value + (ws - w_avg.value) * truncation
        layer = np.arange(self.num_ws)[:, None]
        cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return jnp.where(layer < cutoff, truncated, ws)


class SynthesisInput(nn.Module):
    """Fourier features on a plane that w rotates and shifts (arXiv 2106.12423, section 3.2, F).

    w [N, w_dim], user transform [3, 3] or [N, 3, 3] -> [N, size, size, channels]
    """

    channels: int
    size: int
    sampling_rate: float
    bandwidth: float

    @nn.compact
    def __call__(self, w: jax.Array, transform: jax.Array | None = None) -> jax.Array:
        def draw_freqs(key):
            # Uniform inside the disc of the bandwidth.
            freqs = jax.random.normal(key, (self.channels, 2))
            radius = jnp.sqrt(jnp.sum(freqs**2, 1, keepdims=True))
            return freqs / (radius * jnp.exp(radius**2) ** 0.25) * self.bandwidth

        weight = self.param("weight", nn.initializers.normal(1.0), (self.channels, self.channels))
        freqs = self.variable("stats", "freqs", lambda: draw_freqs(self.make_rng("params"))).value
        phases = self.variable(
            "stats",
            "phases",
            lambda: jax.random.uniform(self.make_rng("params"), (self.channels,)) - 0.5,
        ).value
        stored = self.variable("stats", "transform", jnp.eye, 3)
        transform = stored.value if transform is None else jnp.asarray(transform)
        dtype = _exact_dtype(w)

        affine = FullyConnected(4, weight_init=0.0, bias_init=(1.0, 0.0, 0.0, 0.0), name="affine")
        t = affine(w)
        t = t / jnp.linalg.norm(t[:, :2], axis=1, keepdims=True)
        cos, sin, x, y = t.T
        zero, one = jnp.zeros_like(cos), jnp.ones_like(cos)
        rotate = jnp.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1)
        shift = jnp.stack([one, zero, -x, zero, one, -y, zero, zero, one], 1)
        dot = functools.partial(jnp.matmul, precision=_EXACT)
        plane = dot(dot(rotate.reshape(-1, 3, 3), shift.reshape(-1, 3, 3)), transform.astype(dtype))
        phases = phases + dot(plane[:, None, :2, 2], freqs.T)[:, 0]  # [N, C]
        freqs = dot(freqs, plane[:, :2, :2])  # [N, C, 2]

        # A frequency that the transform lifts over the bandwidth fades out before it can alias.
        excess = jnp.linalg.norm(freqs, axis=2) - self.bandwidth
        amplitudes = jnp.clip(1 - excess / (self.sampling_rate / 2 - self.bandwidth), 0, 1)
        # sin(across + down) by the addition theorem: sines of two lines instead of a plane of them.
        position = (np.arange(self.size) + 0.5 - self.size / 2) / self.sampling_rate * 2 * math.pi
        position = jnp.asarray(position, dtype)[None, :, None]
        across = position * freqs[:, None, :, 0] + 2 * math.pi * phases[:, None]  # [N, W, C]
        down = position * freqs[:, None, :, 1]  # [N, H, C]
        amplitudes = amplitudes[:, None].astype(dtype)
        sin, cos = amplitudes * jnp.sin(across), amplitudes * jnp.cos(across)
        waves = sin[:, None] * jnp.cos(down)[:, :, None] + cos[:, None] * jnp.sin(down)[:, :, None]
        return dot(waves, weight.astype(dtype) / math.sqrt(self.channels))


class SynthesisLayer(nn.Module):
    """Modulated convolution and filtered leaky ReLU, as `plan` says.

    x [N, H, W, C], w [N, w_dim] -> [N, out_size, out_size, out_channels]. `magnitude_ema`, the
    running mean square of the inputs, normalises them (arXiv 2106.12423, section 3.2).
    """

    plan: LayerPlan
    conv_clamp: float | None = 256.0
    magnitude_beta: float = 0.999
    dtype: Any = jnp.bfloat16

    @nn.compact
    def __call__(
        self, x: jax.Array, w: jax.Array, update_emas: bool = False, axis: str | None = None
    ) -> jax.Array:
        plan = self.plan
        exact = _exact_dtype(x)
        magnitude = self.variable("stats", "magnitude_ema", jnp.ones, (), jnp.float32)
        if update_emas:
            now = jnp.mean(jax.lax.stop_gradient(x).astype(exact) ** 2)
            now = _mean_over_devices(now, axis)
            magnitude.value = (now + (magnitude.value - now) * self.magnitude_beta).astype(
                magnitude.value.dtype
            )
        styles = FullyConnected(plan.in_channels, bias_init=1.0, name="affine")(w)
        if plan.is_torgb:
            styles = styles / math.sqrt(plan.in_channels * plan.conv_kernel**2)
        kernel = plan.conv_kernel
        weight = self.param(
            "weight",
            nn.initializers.normal(1.0),
            (kernel, kernel, plan.in_channels, plan.out_channels),
        )
        bias = self.param("bias", nn.initializers.zeros, (plan.out_channels,))
        x = modulated_conv2d(
            x.astype(self.dtype if plan.low_precision else exact),
            weight,
            styles,
            demodulate=not plan.is_torgb,
            padding=kernel - 1,
            input_gain=jax.lax.rsqrt(magnitude.value),
            axis=axis,
        )
        return filtered_lrelu(
            x,
            plan.up_filter,
            plan.down_filter,
            bias,
            plan.up_factor,
            plan.down_factor,
            plan.padding,
            gain=1 if plan.is_torgb else math.sqrt(2),
            slope=1 if plan.is_torgb else 0.2,
            clamp=self.conv_clamp,
        )


class SynthesisNetwork(nn.Module):
    """Style vectors to an image."""

    plan: Plan
    conv_clamp: float | None = 256.0
    magnitude_ema_beta: float = 0.999
    output_scale: float = 0.25
    dtype: Any = jnp.bfloat16
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        ws: jax.Array,
        update_emas: bool = False,
        axis: str | None = None,
        transform: jax.Array | None = None,
    ) -> jax.Array:
        """[N, num_ws, w_dim] -> images [N, H, W, C], about [-1, 1], not clipped, float32.

        Args:
          update_emas: move every layer's magnitude towards this batch, before it is used; needs
            mutable=["stats"].
          axis: pmap axis over which the batch is spread.
          transform: inverse affine matrix [3, 3] or [N, 3, 3] of the picture, in place of the
            stored one: translation in sides of the picture, rotation about its centre.
        """
        plan = self.plan
        # Filters are cheap beside the memory that their finer signals take until the backward pass.
        kept = jax.checkpoint_policies.save_only_these_names(CONVOLVED)
        layer_type = SynthesisLayer
        if not few_ops():
            layer_type = nn.remat(
                SynthesisLayer, static_argnums=(3, 4), policy=None if self.remat else kept
            )
        x = SynthesisInput(
            plan.input_channels,
            plan.input_size,
            plan.input_sampling_rate,
            plan.input_bandwidth,
            name="input",
        )(ws[:, 0], transform)
        for i, layer in enumerate(plan.layers):
            x = layer_type(
                layer, self.conv_clamp, self.magnitude_ema_beta, self.dtype, name=layer.name
            )(x, ws[:, i + 1], update_emas, axis)
        return x.astype(_exact_dtype(x)) * self.output_scale


class Generator(nn.Module):
    """StyleGAN3 generator; arguments and defaults of the published code, see `layer_plan`.

    Initialise it under `jax.jit`, which leaves out the arithmetic: `jax.jit(g.init)(key, z, c)`.

    Attributes:
      mapping_kwargs: num_layers, lr_multiplier, w_avg_beta of the mapping network.
      conv_clamp: limit of every layer's activations, None for none.
      num_fp16_res: how many of the highest resolutions (powers of two) compute in `dtype`.
      remat: recompute each layer's convolution too in the backward pass, for less memory.
    """

    z_dim: int
    c_dim: int
    w_dim: int
    img_resolution: int
    img_channels: int = 3
    mapping_kwargs: Mapping = dataclasses.field(default_factory=dict)
    channel_base: int = 32768
    channel_max: int = 512
    num_layers: int = 14
    num_critical: int = 2
    first_cutoff: float = 2
    first_stopband: float = 2**2.1
    last_stopband_rel: float = 2**0.3
    margin_size: int = 10
    output_scale: float = 0.25
    num_fp16_res: int = 0
    conv_kernel: int = 3
    filter_size: int = 6
    lrelu_upsampling: int = 2
    use_radial_filters: bool = False
    conv_clamp: float | None = 256.0
    magnitude_ema_beta: float = 0.999
    dtype: Any = jnp.bfloat16
    remat: bool = False

    @property
    def plan(self) -> Plan:
        return layer_plan(
            img_resolution=self.img_resolution,
            img_channels=self.img_channels,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
            num_layers=self.num_layers,
            num_critical=self.num_critical,
            first_cutoff=self.first_cutoff,
            first_stopband=self.first_stopband,
            last_stopband_rel=self.last_stopband_rel,
            margin_size=self.margin_size,
            num_fp16_res=self.num_fp16_res,
            conv_kernel=self.conv_kernel,
            use_radial_filters=self.use_radial_filters,
            lrelu_upsampling=self.lrelu_upsampling,
            filter_size=self.filter_size,
        )

    def setup(self):
        plan = self.plan
        self.mapping = MappingNetwork(
            self.z_dim, self.c_dim, self.w_dim, plan.num_ws, **self.mapping_kwargs
        )
        self.synthesis = SynthesisNetwork(
            plan,
            self.conv_clamp,
            self.magnitude_ema_beta,
            self.output_scale,
            self.dtype,
            self.remat,
        )

    # Parameter paths need submodules of these names and `apply(method="mapping")` needs methods of
    # them: on a bound module setup() has already put the submodule in front of its method.
    def mapping(
        self, z, c=None, truncation=1.0, truncation_cutoff=None, update_emas=False, axis=None
    ) -> jax.Array:
        """See `MappingNetwork.__call__`."""
        return self.mapping(z, c, truncation, truncation_cutoff, update_emas, axis)

    def synthesis(self, ws, update_emas=False, axis=None, transform=None) -> jax.Array:
        """See `SynthesisNetwork.__call__`."""
        return self.synthesis(ws, update_emas, axis, transform)

    def __call__(self, z, c=None, update_emas=False, axis=None) -> jax.Array:
        """[N, z_dim], labels [N, c_dim] or None -> images [N, H, W, C] float32, about [-1, 1]."""
        ws = self.mapping(z, c, update_emas=update_emas, axis=axis)
        return self.synthesis(ws, update_emas=update_emas, axis=axis)


# ---- the published code's arguments and weights --------------------------------------------------

_FILTERS = ("up_filter", "down_filter")


def from_kwargs(kwargs: Mapping, **overrides) -> Generator:
    """The module that a source's constructor arguments describe.

    Raises:
      ValueError: an argument that the generator does not have, or one it lacks.
    """
    known = {f.name for f in dataclasses.fields(Generator)} - {"parent", "name"}
    known_mapping = {"num_layers", "lr_multiplier", "w_avg_beta"}
    for where, given, names in (
        ("generator", kwargs, known),
        ("mapping network", kwargs.get("mapping_kwargs", {}), known_mapping),
    ):
        for name in given:
            if name not in names:
                raise ValueError(f"the {where} has no argument {name!r}.{nearest(name, names)}")
    missing = {"z_dim", "c_dim", "w_dim", "img_resolution", "img_channels"} - set(kwargs)
    if missing:
        raise ValueError(f"generator arguments are missing: {', '.join(sorted(missing))}")
    mapping_kwargs = FrozenDict(kwargs.get("mapping_kwargs", {}))  # hashable, so the module is
    return Generator(**{**kwargs, **overrides, "mapping_kwargs": mapping_kwargs})


def _swap_layout(name: str, array, back: bool = False):
    """[out, in] <-> [in, out], OIHW <-> HWIO; the rest as it is."""
    if name.rsplit(".")[-1] != "weight":
        return array
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1) if back else array.transpose(2, 3, 1, 0)
    return array.T


def _expected(module: Generator) -> dict:
    """Shapes of {"params", "stats"}, without computing anything."""
    z = jax.ShapeDtypeStruct((1, module.z_dim), jnp.float32)
    c = jax.ShapeDtypeStruct((1, module.c_dim), jnp.float32) if module.c_dim else None
    return jax.eval_shape(module.init, jax.random.key(0), z, c)


def params_from_state_dict(kwargs: Mapping, arrays: Mapping[str, np.ndarray]) -> dict:
    """Named arrays of a source generator -> variables {"params", "stats"} of float32.

    Args:
      kwargs: the source's constructor arguments.
      arrays: names as `synthesis.L0_36_512.affine.weight`, layouts of the source. The filters may
        be absent; where present they must be those that the arguments give.

    Raises:
      ValueError: lists every name that is missing, left over or of another shape.
    """
    module = from_kwargs(kwargs)
    tree = traverse_util.flatten_dict(_expected(module))
    filters = {
        f"synthesis.{layer.name}.{name}": getattr(layer, name)
        for layer in module.plan.layers
        for name in _FILTERS
        if getattr(layer, name) is not None
    }
    names = {".".join(path[1:]): path for path in tree}
    problems = [f"{name}: missing" for name in names if name not in arrays]
    problems += [f"{n}: not used" for n in arrays if n not in names and n not in filters]
    variables = {}
    for name, path in names.items():
        if name not in arrays:
            continue
        array = np.asarray(arrays[name], np.float32)
        converted = _swap_layout(name, array)
        if converted.shape == tree[path].shape:
            variables[path] = converted
        else:
            wanted = _swap_layout(name, np.empty(tree[path].shape), back=True).shape
            problems.append(f"{name}: has shape {array.shape}, wanted {wanted}")
    for name, made in filters.items():
        if name not in arrays:
            continue
        array = np.asarray(arrays[name])
        if array.shape != made.shape:
            problems.append(f"{name}: has shape {array.shape}, wanted {made.shape}")
        elif np.abs(array - made).max() > 1e-5 * np.abs(made).max():
            problems.append(f"{name}: not the filter that the constructor arguments design")
    if problems:
        raise ValueError(
            f"{len(problems)} array(s) do not fit the generator's arguments:\n  "
            + "\n  ".join(problems)
        )
    return traverse_util.unflatten_dict(variables)


def to_state_dict(kwargs: Mapping, variables: Mapping) -> dict[str, np.ndarray]:
    """The inverse of `params_from_state_dict`, filters included."""
    module = from_kwargs(kwargs)
    arrays = {}
    for path, value in traverse_util.flatten_dict(dict(variables)).items():
        name = ".".join(path[1:])
        arrays[name] = np.array(_swap_layout(name, np.asarray(value), back=True), order="C")
    for layer in module.plan.layers:
        for name in _FILTERS:
            if getattr(layer, name) is not None:
                arrays[f"synthesis.{layer.name}.{name}"] = getattr(layer, name)
    return arrays


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames=("cutoff",))
def _mapping(module, conditional, variables, z, c, psi, cutoff):
    c = c if conditional else None
    return module.apply(variables, z, c, psi, cutoff, method="mapping")


@functools.partial(jax.jit, static_argnums=0)
def _synthesis(module, variables, ws, transform):
    return module.apply(variables, ws, transform=transform, method="synthesis")


@functools.partial(jax.jit, static_argnums=0)
def _activations(module, variables, ws, transform):
    _, state = module.apply(
        variables,
        ws,
        transform=transform,
        method="synthesis",
        capture_intermediates=lambda m, _: isinstance(m, SynthesisInput | SynthesisLayer),
    )
    return {k: v["__call__"][0] for k, v in state["intermediates"]["synthesis"].items()}


@dataclasses.dataclass(frozen=True)
class LoadedGenerator:
    """A generator with its weights; every call is compiled once per shape."""

    module: Generator
    variables: dict

    def mapping(self, z, c=None, truncation=1.0, truncation_cutoff=None) -> jax.Array:
        """[N, z_dim], labels [N, c_dim] -> [N, num_ws, w_dim]; see `MappingNetwork`."""
        conditional = c is not None and c.shape[-1] > 0
        z, c = jnp.asarray(z), jnp.asarray(c) if conditional else None
        return _mapping(
            self.module, conditional, self.variables, z, c, truncation, cutoff=truncation_cutoff
        )

    def synthesis(self, ws, transform=None) -> jax.Array:
        """[N, num_ws, w_dim] -> images [N, H, W, C] float32; see `SynthesisNetwork`."""
        return _synthesis(self.module, self.variables, jnp.asarray(ws), transform)

    def sample(self, z, c=None, truncation=1.0, truncation_cutoff=None) -> jax.Array:
        """Latents and labels -> images [N, H, W, C] float32, about [-1, 1]."""
        return self.synthesis(self.mapping(z, c, truncation, truncation_cutoff))

    def activations(self, ws, transform=None) -> dict[str, jax.Array]:
        """Output of every layer by name, and "input"; ToRGB's is before `output_scale`."""
        return _activations(self.module, self.variables, jnp.asarray(ws), transform)


def from_state_dict(
    kwargs: Mapping, arrays: Mapping[str, np.ndarray], dtype: Any = jnp.float32
) -> LoadedGenerator:
    """A generator from the published code's constructor arguments and named arrays.

    Args:
      dtype: of the layers that `num_fp16_res` counts; float32, as the source runs on a CPU.

    Raises:
      ValueError: arguments or arrays that do not fit; see `params_from_state_dict`.
    """
    return LoadedGenerator(from_kwargs(kwargs, dtype=dtype), params_from_state_dict(kwargs, arrays))
