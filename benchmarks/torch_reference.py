"""The networks and training steps that ours are timed beside, in PyTorch as a user would write them today.

Written from the papers: StyleGAN3-t (arXiv 2106.12423), the discriminator of StyleGAN2 (1912.04958), adaptive
augmentation (ADA, 2006.06676), pix2pix (1611.07004), CycleGAN (1703.10593), residual networks (1512.03385),
Inception-v3 (1512.00567) with FID's pooling, momentum contrast (MoCo, 1911.05722). Upsampling inserts zeros
and filters with a depthwise convolution, modulated convolution is a grouped one with weights scaled per
sample, R1 is a double backward. Layer plans, filters and what a run draws at random are ours
(`jaxface.models.stylegan3.layer_plan` and its like), names in state dicts are the published ones, so that a
test can give both sides the same weights and compare values (tests/test_torch_reference.py).

Tensors are [N, C, H, W]. Nothing here is used outside benchmarks and that test.
"""

import copy
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from jaxface.models import mobilenet, resnet, stylegan3
from jaxface.ops import affine, augment, handheld, warp

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(module: nn.Module, arrays: dict[str, np.ndarray]) -> nn.Module:
    """`module` with the arrays of a published state dict; constant filters among them are not needed."""
    own = module.state_dict()
    module.load_state_dict({name: torch.tensor(np.asarray(arrays[name])) for name in own})
    return module


def waiting(function, *args):
    """A call of `function` that returns when its result is there."""

    def run():
        function(*args)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return run


def without_gradient(net: nn.Module):
    """A network in inference mode as a function."""
    net.eval()
    return torch.no_grad()(lambda *args: net(*args))


# ---- filters -------------------------------------------------------------------------------------


def upfirdn(x, taps, up=1, down=1, padding=(0, 0, 0, 0), gain=1.0):
    """Zero insertion, padding [left, right, top, bottom], depthwise convolution, every `down`-th pixel."""
    n, channels, height, width = x.shape
    if up > 1:
        x = F.pad(x.reshape(n, channels, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
        x = x.reshape(n, channels, height * up, width * up)
    x = F.pad(x, padding)
    if taps is not None:
        taps = (
            torch.as_tensor(taps, dtype=x.dtype, device=x.device) * gain ** (taps.ndim / 2)
        ).flip(tuple(range(taps.ndim)))
        kernels = [taps[None], taps[:, None]] if taps.ndim == 1 else [taps]
        for kernel in kernels:  # a separable filter is two passes
            weight = kernel[None, None].repeat(channels, 1, 1, 1)
            x = F.conv2d(x, weight, groups=channels)
    return x[:, :, ::down, ::down]


def filtered_lrelu(x, bias, plan: stylegan3.LayerPlan, clamp=256.0):
    """Bias, upsampling, leaky ReLU and downsampling as a layer's plan says. 2106.12423, section 3.2"""
    up, down = plan.up_filter, plan.down_filter
    x = x + bias[None, :, None, None]
    x = upfirdn(x, up, plan.up_factor, padding=plan.padding, gain=plan.up_factor**2)
    if not plan.is_torgb:
        x = F.leaky_relu(x, 0.2) * math.sqrt(2)
    x = x.clamp(-clamp, clamp)
    return upfirdn(x, down, down=plan.down_factor)


def modulated_conv2d(x, weight, styles, demodulate=True, padding=0, input_gain=None):
    """Grouped convolution with the weights of each sample scaled. [N, I, H, W], [O, I, k, k], [N, I]"""
    n, channels, height, width = x.shape
    if demodulate:
        weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
        styles = styles * styles.square().mean().rsqrt()
    w = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        w = w * (w.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    if input_gain is not None:
        w = w * input_gain
    x = x.reshape(1, n * channels, height, width)
    x = F.conv2d(x, w.reshape(-1, *w.shape[2:]), padding=padding, groups=n)
    return x.reshape(n, -1, *x.shape[2:])


# ---- StyleGAN3 -----------------------------------------------------------------------------------


class Dense(nn.Module):
    """Fully connected layer with an equalised learning rate."""

    def __init__(self, inputs, outputs, activate=False, multiplier=1.0, weight_init=1.0, bias=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * (weight_init / multiplier))
        self.bias = nn.Parameter(
            torch.as_tensor(np.broadcast_to(np.float32(bias), outputs) / multiplier)
        )
        self.multiplier, self.activate = multiplier, activate

    def forward(self, x):
        weight = self.weight * (self.multiplier / math.sqrt(x.shape[1]))
        x = torch.addmm(self.bias * self.multiplier, x, weight.t())
        return F.leaky_relu(x, 0.2) * math.sqrt(2) if self.activate else x


class Mapping(nn.Module):
    def __init__(self, z_dim, w_dim, num_ws, num_layers):
        super().__init__()
        self.num_ws, self.num_layers = num_ws, num_layers
        for i in range(num_layers):
            layer = Dense(z_dim if i == 0 else w_dim, w_dim, activate=True, multiplier=0.01)
            setattr(self, f"fc{i}", layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z, update_emas=False):
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        if update_emas:
            self.w_avg.copy_(x.detach().mean(0).lerp(self.w_avg, 0.998))
        return x[:, None].repeat(1, self.num_ws, 1)


class SynthesisInput(nn.Module):
    """Fourier features on a plane that w turns and shifts."""

    def __init__(self, w_dim, plan: stylegan3.Plan):
        super().__init__()
        self.plan, channels = plan, plan.input_channels
        freqs = torch.randn(channels, 2)
        radius = freqs.square().sum(1, keepdim=True).sqrt()
        self.register_buffer(
            "freqs", freqs / (radius * radius.square().exp() ** 0.25) * plan.input_bandwidth
        )
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        self.register_buffer("transform", torch.eye(3))
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = Dense(w_dim, 4, weight_init=0.0, bias=(1, 0, 0, 0))

    def forward(self, w):
        size, rate, band = (
            self.plan.input_size,
            self.plan.input_sampling_rate,
            self.plan.input_bandwidth,
        )
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        turn, shift = (torch.eye(3, device=w.device).repeat(len(w), 1, 1) for _ in range(2))
        turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1] = (
            t[:, 0],
            -t[:, 1],
            t[:, 1],
            t[:, 0],
        )
        shift[:, 0, 2], shift[:, 1, 2] = -t[:, 2], -t[:, 3]
        plane = turn @ shift @ self.transform
        phases = self.phases[None] + (self.freqs[None] @ plane[:, :2, 2:])[:, :, 0]
        freqs = self.freqs[None] @ plane[:, :2, :2]
        amplitudes = (1 - (freqs.norm(dim=2) - band) / (rate / 2 - band)).clamp(0, 1)
        theta = torch.eye(2, 3, device=w.device)
        theta[0, 0] = theta[1, 1] = 0.5 * size / rate
        grid = F.affine_grid(theta[None], [1, 1, size, size], align_corners=False)
        x = (grid.unsqueeze(3) @ freqs.permute(0, 2, 1)[:, None, None]).squeeze(3)  # [N, H, W, C]
        x = torch.sin((x + phases[:, None, None]) * (2 * math.pi)) * amplitudes[:, None, None]
        x = x @ (self.weight / math.sqrt(self.plan.input_channels)).t()
        return x.permute(0, 3, 1, 2)


class SynthesisLayer(nn.Module):
    def __init__(self, w_dim, plan: stylegan3.LayerPlan):
        super().__init__()
        self.plan, kernel = plan, plan.conv_kernel
        self.affine = Dense(w_dim, plan.in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(plan.out_channels, plan.in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(plan.out_channels))
        self.register_buffer("magnitude_ema", torch.ones([]))

    def forward(self, x, w, update_emas=False):
        plan = self.plan
        if update_emas:
            now = x.detach().square().mean()
            self.magnitude_ema.copy_(now.lerp(self.magnitude_ema, 0.999))
        styles = self.affine(w)
        if plan.is_torgb:
            styles = styles / math.sqrt(plan.in_channels * plan.conv_kernel**2)
        gain = self.magnitude_ema.rsqrt()
        x = modulated_conv2d(x, self.weight, styles, not plan.is_torgb, plan.conv_kernel - 1, gain)
        return filtered_lrelu(x, self.bias, plan)


class Synthesis(nn.Module):
    def __init__(self, w_dim, plan: stylegan3.Plan):
        super().__init__()
        self.names = [layer.name for layer in plan.layers]
        self.input = SynthesisInput(w_dim, plan)
        for layer in plan.layers:
            setattr(self, layer.name, SynthesisLayer(w_dim, layer))

    def forward(self, ws, update_emas=False):
        x = self.input(ws[:, 0])
        for name, w in zip(self.names, ws.unbind(1)[1:]):
            x = getattr(self, name)(x, w, update_emas)
        return x * 0.25


class Generator(nn.Module):
    """z [N, z_dim] -> images [N, 3, H, W]. Arguments as `stylegan3.layer_plan`'s."""

    def __init__(self, z_dim, w_dim, img_resolution, mapping_layers=2, **plan):
        super().__init__()
        self.z_dim = z_dim
        plan = stylegan3.layer_plan(img_resolution, **plan)
        self.mapping = Mapping(z_dim, w_dim, plan.num_ws, mapping_layers)
        self.synthesis = Synthesis(w_dim, plan)

    def forward(self, z, update_emas=False):
        return self.synthesis(self.mapping(z, update_emas), update_emas)


_RESAMPLE = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


class Conv(nn.Module):
    """Equalised convolution, halving the picture behind a [1, 3, 3, 1] filter if `down`."""

    def __init__(self, inputs, outputs, kernel, down=False, activate=True, gain=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if activate else None
        self.kernel, self.down, self.gain = kernel, down, gain

    def forward(self, x):
        weight = self.weight / math.sqrt(self.weight[0].numel())
        if not self.down:
            x = F.conv2d(x, weight, padding=self.kernel // 2)
        elif self.kernel == 1:
            x = F.conv2d(upfirdn(x, _RESAMPLE, down=2, padding=(1, 1, 1, 1)), weight)
        else:
            x = F.conv2d(upfirdn(x, _RESAMPLE, padding=(2, 2, 2, 2)), weight, stride=2)
        if self.bias is None:
            return x * self.gain
        x = F.leaky_relu(x + self.bias[None, :, None, None], 0.2) * (math.sqrt(2) * self.gain)
        return x.clamp(-256 * self.gain, 256 * self.gain)


class DiscriminatorBlock(nn.Module):
    def __init__(self, channels, features, colors):
        super().__init__()
        self.fromrgb = Conv(colors, channels, 1) if colors else None
        self.conv0 = Conv(channels, channels, 3)
        self.conv1 = Conv(channels, features, 3, down=True, gain=math.sqrt(0.5))
        self.skip = Conv(channels, features, 1, True, activate=False, gain=math.sqrt(0.5))

    def forward(self, x):
        x = self.fromrgb(x) if self.fromrgb else x
        return self.skip(x) + self.conv1(self.conv0(x))


class Epilogue(nn.Module):
    """Minibatch standard deviation over groups of 4, convolution, two dense layers."""

    def __init__(self, channels):
        super().__init__()
        self.conv = Conv(channels + 1, channels, 3)
        self.fc = Dense(channels * 16, channels, activate=True)
        self.out = Dense(channels, 1)

    def forward(self, x):
        group = min(4, len(x))
        y = x.reshape(group, -1, *x.shape[1:])
        y = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3))
        y = y.reshape(-1, 1, 1, 1).repeat(group, 1, *x.shape[2:])
        return self.out(self.fc(self.conv(torch.cat([x, y], 1)).flatten(1)))


class Discriminator(nn.Module):
    """Images [N, 3, H, W] -> logits [N, 1]."""

    def __init__(self, img_resolution, channel_base, channel_max):
        super().__init__()
        channels = lambda side: min(channel_base // side, channel_max)
        self.sides = [img_resolution >> i for i in range(img_resolution.bit_length() - 3)]
        for side in self.sides:
            colors = 3 if side == img_resolution else 0
            setattr(
                self, f"b{side}", DiscriminatorBlock(channels(side), channels(side // 2), colors)
            )
        self.b4 = Epilogue(channels(4))

    def forward(self, x):
        for side in self.sides:
            x = getattr(self, f"b{side}")(x)
        return self.b4(x)


def draws(number: int, device=DEVICE) -> dict[str, torch.Tensor]:
    """The random numbers of ADA's pipe "bgc", named as `jaxface.ops.augment.draw` names them: [N] each."""
    uniform = (
        "xflip",
        "rotate90",
        "xint_x",
        "xint_y",
        "rotate_pre",
        "rotate_post",
        "lumaflip",
        "hue",
    )
    normal = ("scale", "aniso", "xfrac_x", "xfrac_y", "brightness", "contrast", "saturation")
    gates = ("xflip", "rotate90", "xint", "scale", "rotate_pre", "aniso", "rotate_post", "xfrac")
    gates += augment.COLOR
    found = {name: torch.rand(number, device=device) for name in uniform}
    found |= {f"{name}_gate": torch.rand(number, device=device) for name in gates}
    return found | {name: torch.randn(number, device=device) for name in normal}


def _matrix(n, device, *rows):
    """[N, R, C] of scalars and [N] tensors."""
    full = lambda v: v if torch.is_tensor(v) else torch.full([n], float(v), device=device)
    return torch.stack([torch.stack([full(v) for v in row], -1) for row in rows], -2)


def ada(images, found: dict[str, torch.Tensor], p: float, low_pass=augment._LOW_PASS):
    """ADA's pipe "bgc" with given random numbers. [N, 3, H, W] -> same. 2006.06676, algorithm 1"""
    n, _, height, width = images.shape
    make = lambda *rows: _matrix(n, images.device, *rows)
    pipe = augment.as_pipe("bgc")

    def gated(name, value, otherwise):
        return torch.where(found[f"{name}_gate"] < p, value, torch.full_like(value, otherwise))

    # From a pixel of the result to a place in the picture, both from the middle.
    G = make((1, 0, 0), (0, 1, 0), (0, 0, 1))
    turn = lambda a: make((a.cos(), -a.sin(), 0), (a.sin(), a.cos(), 0), (0, 0, 1))
    flip = gated("xflip", (found["xflip"] * 2).floor(), 0)
    G = G @ make((1 - 2 * flip, 0, 0), (0, 1, 0), (0, 0, 1))
    G = G @ turn(gated("rotate90", (found["rotate90"] * 4).floor(), 0) * (math.pi / 2))
    x = gated("xint", (found["xint_x"] * 2 - 1) * pipe.xint_max, 0)
    y = gated("xint", (found["xint_y"] * 2 - 1) * pipe.xint_max, 0)
    G = G @ make((1, 0, -(x * width).round()), (0, 1, -(y * height).round()), (0, 0, 1))
    s = gated("scale", torch.exp2(found["scale"] * pipe.scale_std), 1)
    G = G @ make((1 / s, 0, 0), (0, 1 / s, 0), (0, 0, 1))
    either = 1 - math.sqrt(1 - p)
    angle = lambda name: torch.where(
        found[f"{name}_gate"] < either,
        (found[name] * 2 - 1) * math.pi,
        torch.zeros_like(found[name]),
    )
    G = G @ turn(angle("rotate_pre"))
    s = gated("aniso", torch.exp2(found["aniso"] * pipe.aniso_std), 1)
    G = G @ make((1 / s, 0, 0), (0, s, 0), (0, 0, 1)) @ turn(angle("rotate_post"))
    x = gated("xfrac", found["xfrac_x"] * pipe.xfrac_std, 0)
    y = gated("xfrac", found["xfrac_y"] * pipe.xfrac_std, 0)
    G = G @ make((1, 0, -x * width), (0, 1, -y * height), (0, 0, 1))

    # The margin that this batch needs, reflected; twice the pixels; the warp; half the pixels.
    reach = len(low_pass) // 4
    cx, cy = (width - 1) / 2, (height - 1) / 2
    corners = torch.tensor(
        [[-cx, -cy, 1], [cx, -cy, 1], [cx, cy, 1], [-cx, cy, 1]], device=images.device
    )
    places = (G @ corners.t())[:, :2].abs().amax((0, 2))
    margin = [float(places[0]) - cx, float(places[1]) - cy]
    mx, my = (
        min(max(math.ceil(m) + 2 * reach, 0), side - 1) for m, side in zip(margin, (width, height))
    )
    x = F.pad(images, (mx, mx, my, my), mode="reflect")
    taps = len(low_pass)
    x = upfirdn(x, low_pass, 2, padding=[(taps + 1) // 2, (taps - 2) // 2] * 2, gain=4)
    fine_h, fine_w = 2 * (height + 2 * reach), 2 * (width + 2 * reach)
    scale = lambda a, b: torch.tensor([[a, 0, 0], [0, b, 0], [0, 0, 1]], device=images.device)
    move = lambda a, b: torch.tensor([[1, 0, a], [0, 1, b], [0, 0, 1.0]], device=images.device)
    G = move(-0.5, -0.5) @ scale(2.0, 2.0) @ G @ scale(0.5, 0.5) @ move(0.5, 0.5)
    G = scale(2 / x.shape[3], 2 / x.shape[2]) @ G @ scale(fine_w / 2, fine_h / 2)
    grid = F.affine_grid(G[:, :2], [n, 3, fine_h, fine_w], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    padding = [(taps - 1) // 2 - 2 * reach, (taps - 2) // 2 - 2 * reach] * 2
    images = upfirdn(x, np.flip(low_pass).copy(), down=2, padding=padding)

    # One affine map of colors.
    gray = torch.full([3, 3], 1 / 3, device=images.device)
    eye = torch.eye(3, device=images.device)
    b = gated("brightness", found["brightness"] * pipe.brightness_std, 0)
    C = make((1, 0, 0, b), (0, 1, 0, b), (0, 0, 1, b))
    C = C * gated("contrast", torch.exp2(found["contrast"] * pipe.contrast_std), 1)[:, None, None]
    flip = gated("lumaflip", (found["lumaflip"] * 2).floor(), 0)
    C = (eye - 2 * gray * flip[:, None, None]) @ C
    a = gated("hue", (found["hue"] * 2 - 1) * math.pi, 0)[:, None, None]
    cross = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0.0]], device=images.device) / math.sqrt(
        3
    )
    C = (gray + (eye - gray) * a.cos() + cross * a.sin()) @ C
    s = gated("saturation", torch.exp2(found["saturation"] * pipe.saturation_std), 1)
    C = (gray + (eye - gray) * s[:, None, None]) @ C
    images = C[:, :, :3] @ images.reshape(n, 3, height * width) + C[:, :, 3:]
    return images.reshape(n, 3, height, width)


class StyleGAN3:
    """One iteration of training: generator, discriminator, R1 where it is due, averaged generator."""

    def __init__(self, config, images: np.ndarray):
        """`config` of jaxface.systems.cleftgan; images uint8 [N, H, W, 3]."""
        plan = dict(channel_base=config.channel_base, channel_max=config.channel_max)
        plan |= dict(num_layers=config.num_layers, margin_size=config.margin_size)
        sizes = (config.z_dim, config.w_dim, config.resolution, config.mapping_layers)
        self.G = Generator(*sizes, **plan).to(DEVICE).requires_grad_(False)
        widths = (config.discriminator_channel_base, config.discriminator_channel_max)
        self.D = Discriminator(config.resolution, *widths).to(DEVICE).requires_grad_(False)
        self.ema = copy.deepcopy(self.G)
        lazy = 16 / 17
        self.opt_G = torch.optim.Adam(self.G.parameters(), config.generator_lr, (0.0, 0.99), 1e-8)
        self.opt_D = torch.optim.Adam(
            self.D.parameters(), config.discriminator_lr * lazy, (0.0, 0.99**lazy), 1e-8
        )
        self.images = torch.as_tensor(images).permute(0, 3, 1, 2).contiguous().to(DEVICE)
        self.config = config

    def score(self, images):
        if self.config.augment_pipe:
            images = ada(images, draws(len(images)), self.config.augment_p)
        return self.D(images)

    def step(self, penalty: bool) -> None:
        config, G, D = self.config, self.G, self.D
        latent = lambda: torch.randn(config.batch, config.z_dim, device=DEVICE)
        reals = self.images[torch.randint(len(self.images), [config.batch])].float() / 127.5 - 1
        if config.mirror:
            flip = torch.rand(config.batch, 1, 1, 1, device=DEVICE) < 0.5
            reals = torch.where(flip, reals.flip(3), reals)

        G.requires_grad_(True)
        self.opt_G.zero_grad(set_to_none=True)
        F.softplus(-self.score(G(latent()))).mean().backward()
        G.requires_grad_(False)
        self.opt_G.step()

        D.requires_grad_(True)
        self.opt_D.zero_grad(set_to_none=True)
        F.softplus(self.score(G(latent(), update_emas=True))).mean().backward()
        F.softplus(-self.score(reals)).mean().backward()
        self.opt_D.step()
        if penalty:
            self.opt_D.zero_grad(set_to_none=True)
            seen = reals.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.score(seen).sum(), seen, create_graph=True)
            (slope.square().sum((1, 2, 3)).mean() * (16 * config.gamma / 2)).backward()
            self.opt_D.step()
        D.requires_grad_(False)

        with torch.no_grad():
            beta = 0.5 ** (config.batch / (1000 * config.batch * 10 / 32))
            for slow, new in zip(self.ema.parameters(), G.parameters()):
                slow.copy_(new.lerp(slow, beta))
            for slow, new in zip(self.ema.buffers(), G.buffers()):
                slow.copy_(new)


# ---- pix2pix and CycleGAN ------------------------------------------------------------------------


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.InstanceNorm2d(channels)


class _Level(nn.Module):
    """One halving of a U-Net with all that is inside of it."""

    def __init__(self, outer, inner, inputs, within, norm, dropout):
        super().__init__()
        bias = norm == "instance"
        down = nn.Conv2d(inputs, inner, 4, 2, 1, bias=bias)
        up_inputs = inner if within is None else 2 * inner
        self.outermost = isinstance(outer, tuple)
        if self.outermost:
            up = nn.ConvTranspose2d(up_inputs, outer[0], 4, 2, 1)
            layers = [down, within, nn.ReLU(True), up, nn.Tanh()]
        else:
            up = nn.ConvTranspose2d(up_inputs, outer, 4, 2, 1, bias=bias)
            inside = [] if within is None else [_norm(norm, inner), within]
            layers = [nn.LeakyReLU(0.2, True), down, *inside, nn.ReLU(True), up, _norm(norm, outer)]
            layers += [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class UNet(nn.Module):
    """pix2pix's generator. 1611.07004, appendix 6.1"""

    def __init__(self, input_nc=3, output_nc=3, levels=8, ngf=64, norm="batch", dropout=False):
        super().__init__()
        widths = [ngf * min(2**level, 8) for level in range(levels)]
        within = None
        for level in reversed(range(1, levels)):
            drop = dropout and 4 <= level < levels - 1
            outer = widths[level - 1]
            within = _Level(outer, widths[level], outer, within, norm, drop)
        self.model = _Level((output_nc,), ngf, input_nc, within, norm, False)

    def forward(self, x):
        return self.model(x)


class PatchGAN(nn.Module):
    """Scores of overlapping patches of 70 px. 1611.07004, appendix 6.1.2"""

    def __init__(self, input_nc, ndf=64, norm="batch"):
        super().__init__()
        bias, layers, inputs = norm == "instance", [], input_nc
        for index, stride in enumerate((2, 2, 2, 1)):
            width = ndf * min(2**index, 8)
            layers += [nn.Conv2d(inputs, width, 4, stride, 1, bias=bias or index == 0)]
            layers += [_norm(norm, width)] if index else []
            layers += [nn.LeakyReLU(0.2, True)]
            inputs = width
        self.model = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4, 1, 1))

    def forward(self, x):
        return self.model(x)


class _Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        conv = lambda: [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
        self.conv_block = nn.Sequential(*conv(), nn.ReLU(True), *conv())

    def forward(self, x):
        return x + self.conv_block(x)


class Translator(nn.Module):
    """CycleGAN's generator with instance normalisation. 1703.10593, appendix 7.2"""

    def __init__(self, input_nc=3, output_nc=3, ngf=64, blocks=9):
        super().__init__()
        norm = lambda width: [nn.InstanceNorm2d(width), nn.ReLU(True)]
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(input_nc, ngf, 7), *norm(ngf)]
        for width in (2 * ngf, 4 * ngf):
            layers += [nn.Conv2d(width // 2, width, 3, 2, 1), *norm(width)]
        layers += [_Residual(4 * ngf) for _ in range(blocks)]
        for width in (2 * ngf, ngf):
            layers += [nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1), *norm(width)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, output_nc, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


class Pix2Pix:
    """One step of pix2pix: discriminator, then generator, on windows cut and varied as `warp.vary` does."""

    def __init__(self, config, pair: np.ndarray):
        """`config` of jaxface.systems.uvphoto; color and UV windows uint8 [N, W, W, 3 + 1]."""
        self.G = UNet(3, 1, config.levels, config.ngf, config.norm, config.dropout).to(DEVICE)
        self.D = PatchGAN(4, config.ndf, config.norm).to(DEVICE)
        adam = lambda net: torch.optim.Adam(net.parameters(), config.learning_rate, (0.5, 0.999))
        self.opt_G, self.opt_D = adam(self.G), adam(self.D)
        self.pair = torch.as_tensor(pair).permute(0, 3, 1, 2).contiguous().to(DEVICE)
        self.config = config

    def step(self) -> None:
        config, G, D = self.config, self.G, self.D
        pair = self.pair.float() / 127.5 - 1
        pair = vary(
            pair, warp.ANGLE * (torch.rand(len(pair)) < config.warp), warp.SCALE, config.patch
        )
        color, real = pair[:, :3], pair[:, 3:]
        fake = G(color)
        yes = lambda logits: F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        no = lambda logits: F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
        D.requires_grad_(True)
        self.opt_D.zero_grad()
        on_fake = D(torch.cat([color, fake.detach()], 1))
        ((no(on_fake) + yes(D(torch.cat([color, real], 1)))) * 0.5).backward()
        self.opt_D.step()
        D.requires_grad_(False)
        self.opt_G.zero_grad()
        loss = yes(D(torch.cat([color, fake], 1))) + config.lambda_l1 * F.l1_loss(fake, real)
        loss.backward()
        self.opt_G.step()


class CycleGAN:
    """One step of CycleGAN: both generators, then both discriminators on what a pool of 50 gives back."""

    def __init__(self, config, a: np.ndarray, b: np.ndarray):
        """`config` of benchmarks.cyclegan; images uint8 [N, H, W, 3]."""
        self.G = nn.ModuleDict({name: Translator(3, 3, config.ngf, config.blocks) for name in "ab"})
        self.D = nn.ModuleDict({name: PatchGAN(3, config.ndf, "instance") for name in "ab"})
        self.G, self.D = (
            self.G.to(DEVICE),
            self.D.to(DEVICE),
        )  # G["a"]: from a to b; D["a"]: judges a
        adam = lambda net: torch.optim.Adam(net.parameters(), config.learning_rate, (0.5, 0.999))
        self.opt_G, self.opt_D = adam(self.G), adam(self.D)
        put = lambda x: torch.as_tensor(x).permute(0, 3, 1, 2).contiguous().to(DEVICE)
        self.real = {"a": put(a), "b": put(b)}
        self.pool = {"a": [], "b": []}
        self.config = config

    def pooled(self, name, images):
        shown = []
        for image in images.detach():
            pool = self.pool[name]
            if len(pool) < self.config.pool:
                pool.append(image.clone())
            elif np.random.random() < 0.5:
                place = np.random.randint(len(pool))
                pool[place], image = image.clone(), pool[place]
            shown.append(image)
        return torch.stack(shown)

    def step(self) -> tuple[float, float]:
        """Returns the losses of the generators and of the discriminators."""
        config, G, D = self.config, self.G, self.D
        real = {name: x.float() / 127.5 - 1 for name, x in self.real.items()}
        D.requires_grad_(False)
        self.opt_G.zero_grad()
        loss, made = 0, {}
        for name, other in ("ab", "ba"):
            made[other] = G[name](real[name])
            back = G[other](made[other])
            same = G[name](real[other])
            judged = D[other](made[other])
            loss = loss + F.mse_loss(judged, torch.ones_like(judged))
            loss = loss + config.lambda_cycle * F.l1_loss(back, real[name])
            loss = loss + config.lambda_cycle * config.identity * F.l1_loss(same, real[other])
        loss.backward()
        self.opt_G.step()
        loss_g, loss_d = loss.item(), 0.0
        D.requires_grad_(True)
        self.opt_D.zero_grad()
        for name in "ab":
            on_real, on_fake = D[name](real[name]), D[name](self.pooled(name, made[name]))
            loss = F.mse_loss(on_real, torch.ones_like(on_real))
            loss = (loss + F.mse_loss(on_fake, torch.zeros_like(on_fake))) * 0.5
            loss.backward()
            loss_d += loss.item()
        self.opt_D.step()
        return loss_g, loss_d


# ---- classifiers and contrast --------------------------------------------------------------------


class _Block(nn.Module):
    def __init__(self, inputs, width, stride, bottleneck):
        super().__init__()
        plan = [(width, 3, stride), (width, 3, 1)]
        if bottleneck:
            plan = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
        self.count, now = len(plan), inputs
        for index, (features, size, step) in enumerate(plan, 1):
            conv = nn.Conv2d(now, features, size, step, size // 2, bias=False)
            setattr(self, f"conv{index}", conv)
            setattr(self, f"bn{index}", nn.BatchNorm2d(features))
            now = features
        self.downsample = None
        if stride > 1 or now != inputs:
            conv = nn.Conv2d(inputs, now, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(now))
        self.features = now

    def forward(self, x):
        y = x
        for index in range(1, self.count + 1):
            y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(y))
            y = F.relu(y, inplace=True) if index < self.count else y
        return F.relu((self.downsample(x) if self.downsample else x) + y, inplace=True)


class ResNet(nn.Module):
    """Normalised images [N, 3, H, W] -> features. 1512.03385, with the stride in the 3x3 convolution"""

    def __init__(self, depth, width=64):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        inputs = width
        for stage, repeats in enumerate(resnet.BLOCKS[depth]):
            blocks = []
            for repeat in range(repeats):
                stride = 2 if stage and not repeat else 1
                blocks.append(_Block(inputs, width * 2**stage, stride, depth >= 50))
                inputs = blocks[-1].features
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.features = inputs

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean((2, 3))


def vary(images, degrees, scale: float, side: int | None = None):
    """Mirrored, turned by up to `degrees` (number or [N]) and scaled by 1 +- `scale`, borders repeated.

    [N, C, S, S] -> [N, C, side, side] of the middle.
    """
    n, channels, size, _ = images.shape
    side = size if side is None else side
    uniform = lambda: torch.rand(n, device=images.device) * 2 - 1
    angle = uniform() * torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float32)).to(
        images.device
    )
    part = side / size / (1 + uniform() * scale)
    mirror = torch.where(torch.rand(n, device=images.device) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * part, angle.sin() * part
    theta = _matrix(n, images.device, (cos * mirror, -sin, 0), (sin * mirror, cos, 0))
    grid = F.affine_grid(theta, [n, channels, side, side], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def relight(images):
    """Another light: brightness, contrast and saturation of each image, gain of each color. [N, 3, H, W]"""
    n = len(images)
    near_one = lambda most, *shape: 1 + (torch.rand(n, *shape, device=images.device) * 2 - 1) * most
    x = images * 0.5 + 0.5
    x = x * near_one(handheld.LIGHT, 1, 1, 1) * near_one(handheld.TINT, 3, 1, 1)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + near_one(handheld.LIGHT, 1, 1, 1) * (x - mean)
    gray = x.mean(1, keepdim=True)
    x = gray + near_one(handheld.LIGHT, 1, 1, 1) * (x - gray)
    return x.clamp(0, 1) * 2 - 1


def normalize(images):
    """[N, 3, H, W] in [-1, 1] -> mean 0, deviation 1 of ImageNet's colors."""
    constant = lambda values: torch.tensor(values, device=images.device)[:, None, None]
    return (images * 0.5 + 0.5 - constant(resnet.MEAN)) / constant(resnet.STD)


class Classifier:
    """One step of a residual network with a head of one logit, from random weights."""

    def __init__(self, config, images: np.ndarray, target: np.ndarray):
        """`config` of jaxface.systems.classify; images uint8 [N, H, W, 3], target float32 [N]."""
        body = ResNet(config.scratch_depth, config.scratch_width)
        head = nn.Sequential(
            nn.BatchNorm1d(body.features, momentum=0.05), nn.Linear(body.features, 1)
        )
        self.net = nn.Sequential(body, head).to(DEVICE)
        self.opt = torch.optim.AdamW(self.net.parameters(), config.learning_rate, weight_decay=0.0)
        self.images = torch.as_tensor(images).permute(0, 3, 1, 2).contiguous().to(DEVICE)
        self.target, self.batch = torch.as_tensor(target).to(DEVICE), config.batch

    def step(self) -> None:
        rows = torch.arange(self.batch)
        x = vary(self.images[rows].float() / 127.5 - 1, affine.ANGLE, affine.ZOOM)
        logit = self.net(normalize(x))[:, 0]
        self.opt.zero_grad()
        F.binary_cross_entropy_with_logits(logit, self.target[rows]).backward()
        self.opt.step()


class MoCo:
    """One step of plain momentum contrast: two views, a slow encoder, a queue, cross-entropy."""

    def __init__(self, config, images: np.ndarray):
        """`config` of jaxface.systems.contrastive; images uint8 [N, S, S, 3]."""
        body = ResNet(config.depth, config.width)
        head = [nn.Linear(body.features, config.hidden), nn.ReLU(True)]
        self.fast = nn.Sequential(body, *head, nn.Linear(config.hidden, config.features)).to(DEVICE)
        self.slow = copy.deepcopy(self.fast).requires_grad_(False)
        self.opt = torch.optim.SGD(
            self.fast.parameters(), config.learning_rate, 0.9, weight_decay=config.weight_decay
        )
        self.queue = F.normalize(torch.randn(config.features, config.queue, device=DEVICE), dim=0)
        self.images = torch.as_tensor(images).permute(0, 3, 1, 2).contiguous().to(DEVICE)
        self.config, self.next = config, 0

    def step(self) -> None:
        config = self.config
        seen = lambda rows: normalize(
            relight(vary(self.images[rows].float() / 127.5 - 1, handheld.ANGLE, handheld.SCALE))
        )
        rows = torch.arange(2 * config.batch)
        queries = F.normalize(self.fast(seen(rows[: config.batch])), dim=1)
        with torch.no_grad():
            for slow, fast in zip(self.slow.parameters(), self.fast.parameters()):
                slow.mul_(config.momentum).add_(fast, alpha=1 - config.momentum)
            keys = F.normalize(self.slow(seen(rows[config.batch :])), dim=1)
        own = (queries * keys).sum(1, keepdim=True)
        logits = torch.cat([own, queries @ self.queue.clone()], 1) / config.temperature
        self.opt.zero_grad()
        zeros = torch.zeros(config.batch, dtype=torch.long, device=DEVICE)
        F.cross_entropy(logits, zeros).backward()
        self.opt.step()
        place = (self.next + torch.arange(config.batch)) % config.queue
        self.queue[:, place] = keys.t()
        self.next = (self.next + config.batch) % config.queue


# ---- networks of metrics -------------------------------------------------------------------------


class _Basic(nn.Module):
    def __init__(self, inputs, outputs, kernel=1, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)


def _same(inputs, outputs, *kernel):
    return _Basic(inputs, outputs, kernel, padding=tuple(k // 2 for k in kernel))


class _Mixed(nn.Module):
    """Branches side by side; each is a chain of named layers, and what is pooled goes along."""

    def __init__(self, branches: list, pool=None):
        super().__init__()
        self.branches, self.pool = [], pool
        for branch in branches:
            for name, layer in branch:
                setattr(self, name, layer)
            self.branches.append([name for name, _ in branch])

    def forward(self, x):
        out = []
        for names in self.branches:
            y = self.pool(x) if names[0] == "branch_pool" else x
            for name in names:
                y = getattr(self, name)(y)
            out.append(y)
        return torch.cat(out if self.branches[-1][0] == "branch_pool" else [*out, self.pool(x)], 1)


class _Fork(nn.Module):
    """The last blocks: two branches end in a row and a column side by side."""

    def __init__(self, inputs, pool):
        super().__init__()
        self.branch1x1 = _Basic(inputs, 320)
        self.branch3x3_1 = _Basic(inputs, 384)
        self.branch3x3_2a, self.branch3x3_2b = _same(384, 384, 1, 3), _same(384, 384, 3, 1)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Basic(inputs, 448), _same(448, 384, 3, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _same(384, 384, 1, 3), _same(384, 384, 3, 1)
        self.branch_pool, self.pool = _Basic(inputs, 192), pool

    def forward(self, x):
        y, z = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        out = [self.branch1x1(x), self.branch3x3_2a(y), self.branch3x3_2b(y)]
        out += [self.branch3x3dbl_3a(z), self.branch3x3dbl_3b(z), self.branch_pool(self.pool(x))]
        return torch.cat(out, 1)


class Inception(nn.Module):
    """uint8 [N, 3, H, W] -> the 2,048 features of FID, resized as pytorch-fid does. 1512.00567, table 1"""

    def __init__(self):
        super().__init__()
        average = lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        largest = lambda x: F.max_pool2d(x, 3, 1, 1)
        shrink = lambda x: F.max_pool2d(x, 3, 2)

        def chain(prefix, inputs, *layers):
            """Layers (features, kernel), a kernel with "s" halving the picture."""
            made = []
            for index, (features, kernel) in enumerate(layers, 1):
                layer = _same(inputs, features, *kernel)
                if len(kernel) == 3:
                    layer = _Basic(inputs, features, kernel[:2], 2)
                made.append((f"{prefix}_{index}" if len(layers) > 1 else prefix, layer))
                inputs = features
            return made

        one, three, five = (1, 1), (3, 3), (5, 5)
        row, column, half = (1, 7), (7, 1), (3, 3, 2)
        self.Conv2d_1a_3x3 = _Basic(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = _Basic(32, 32, 3)
        self.Conv2d_2b_3x3 = _Basic(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Basic(64, 80)
        self.Conv2d_4a_3x3 = _Basic(80, 192, 3)
        blocks = {}
        for name, i, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
            blocks[name] = _Mixed(
                [
                    chain("branch1x1", i, (64, one)),
                    chain("branch5x5", i, (48, one), (64, five)),
                    chain("branch3x3dbl", i, (64, one), (96, three), (96, three)),
                    chain("branch_pool", i, (pool, one)),
                ],
                average,
            )
        double = chain("branch3x3dbl", 288, (64, one), (96, three), (96, half))
        blocks["6a"] = _Mixed([chain("branch3x3", 288, (384, half)), double], shrink)
        for name, c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            columns = ((c, one), (c, column), (c, row), (c, column), (192, row))
            blocks[name] = _Mixed(
                [
                    chain("branch1x1", 768, (192, one)),
                    chain("branch7x7", 768, (c, one), (c, row), (192, column)),
                    chain("branch7x7dbl", 768, *columns),
                    chain("branch_pool", 768, (192, one)),
                ],
                average,
            )
        blocks["7a"] = _Mixed(
            [
                chain("branch3x3", 768, (192, one), (320, half)),
                chain("branch7x7x3", 768, (192, one), (192, row), (192, column), (192, half)),
            ],
            shrink,
        )
        blocks["7b"], blocks["7c"] = _Fork(1280, average), _Fork(2048, largest)
        self.order = list(blocks)
        for name, block in blocks.items():
            setattr(self, f"Mixed_{name}", block)

    def forward(self, images):
        x = F.interpolate(images.float(), (299, 299), mode="bilinear", align_corners=False)
        x = x / 127.5 - 1
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name in self.order:
            x = getattr(self, f"Mixed_{name}")(x)
        return x.mean((2, 3))


class MobileNetV2(nn.Module):
    """Images [N, 3, H, W] in [-1, 1] -> pooled features [N, 1280]. Sandler et al. 2018, arXiv 1801.04381"""

    def __init__(self):
        super().__init__()

        def conv(inputs, outputs, size, stride=1, groups=1, activate=True):
            layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
            return [layer, nn.BatchNorm2d(outputs)] + ([nn.ReLU6(True)] if activate else [])

        class Inverted(nn.Module):
            def __init__(self, inputs, outputs, stride, expansion):
                super().__init__()
                wide = inputs * expansion
                layers = [nn.Sequential(*conv(inputs, wide, 1))] if expansion > 1 else []
                layers += [nn.Sequential(*conv(wide, wide, 3, stride, wide))]
                self.conv = nn.Sequential(*layers, *conv(wide, outputs, 1, activate=False))
                self.skips = stride == 1 and inputs == outputs

            def forward(self, x):
                return x + self.conv(x) if self.skips else self.conv(x)

        layers, inputs = [nn.Sequential(*conv(3, mobilenet.STEM, 3, 2))], mobilenet.STEM
        for expansion, channels, repeats, stride in mobilenet.BLOCKS:
            for repeat in range(repeats):
                layers.append(Inverted(inputs, channels, 1 if repeat else stride, expansion))
                inputs = channels
        layers.append(nn.Sequential(*conv(inputs, mobilenet.FEATURES, 1)))
        self.features = nn.Sequential(*layers)

    def forward(self, images):
        return self.features(normalize(images)).mean((2, 3))
