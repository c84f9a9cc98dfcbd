"""The networks that speed is measured beside are the same networks: equal values from equal weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import assert_close, nchw, nhwc
from reference import arrays_like

from jaxface.models import (
    discriminator,
    inception,
    mobilenet,
    patchgan,
    resnet,
    stylegan3,
    translator,
    unet,
)
from jaxface.ops import augment

torch = pytest.importorskip("torch")
from benchmarks import torch_reference as reference  # noqa: E402  (needs torch)


def run(net, *arrays):
    net.to("cpu")
    with torch.no_grad():
        return net(*(torch.tensor(np.array(a)) for a in arrays)).numpy()


def randomly(shapes, seed=0):
    return arrays_like({k: np.zeros(v.shape) for k, v in shapes.items()}, seed)


def images(*shape, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def test_stylegan3():
    plan = dict(channel_base=256, channel_max=16, num_layers=5, margin_size=6)
    kwargs = dict(z_dim=8, c_dim=0, w_dim=12, img_resolution=16, img_channels=3) | plan
    net = reference.Generator(8, 12, 16, **plan)
    arrays = randomly(net.state_dict())
    for name in arrays:
        if name.endswith("magnitude_ema"):
            arrays[name] = np.float32(0.7)
    net = reference.load(net, arrays)
    ours = stylegan3.from_state_dict(kwargs, arrays)
    z = np.random.default_rng(2).normal(size=(2, 8)).astype(np.float32)
    assert_close(nhwc(run(net, z)), ours.sample(z), 2e-4)
    with torch.no_grad():
        net(torch.tensor(z), update_emas=True)
    _, changed = ours.module.apply(ours.variables, z, update_emas=True, mutable=["stats"])
    moved = stylegan3.to_state_dict(kwargs, ours.variables | changed)
    for name in ("mapping.w_avg", "synthesis.L3_28_16.magnitude_ema"):
        assert_close(net.state_dict()[name].numpy(), moved[name], 1e-4, name)


def test_discriminator_and_its_penalty():
    kwargs = dict(c_dim=0, img_resolution=16, img_channels=3, channel_base=128, channel_max=12)
    net = reference.Discriminator(16, 128, 12)
    arrays = randomly(net.state_dict())
    net, ours = reference.load(net, arrays), discriminator.from_state_dict(kwargs, arrays)
    x = images(4, 16, 16, 3)
    assert_close(run(net, nchw(x)), ours.score(x), 1e-4)

    seen = torch.tensor(nchw(x).copy(), requires_grad=True)
    (slope,) = torch.autograd.grad(net(seen).sum(), seen, create_graph=True)
    slope.square().sum().backward()

    def penalty(params):
        score = lambda x: ours.module.apply({"params": params}, x).sum()
        return jnp.square(jax.grad(score)(jnp.asarray(x))).sum()

    gradient = jax.jit(jax.grad(penalty))(ours.variables["params"])
    for block, layer in (("b16", "conv1"), ("b8", "skip")):
        expected = gradient[block][layer]["weight"]
        assert_close(getattr(getattr(net, block), layer).weight.grad.numpy(), expected, 1e-3)


def test_augmentation():
    x = images(16, 24, 24, 3)
    drawn = augment.draw(jax.random.key(3), jnp.arange(16), (24, 24, 3), field=False)
    ours = augment.apply(jnp.asarray(x), drawn, 0.8, "bgc")
    given = {name: torch.tensor(np.array(value)) for name, value in drawn.items()}
    assert_close(nhwc(reference.ada(torch.tensor(nchw(x).copy()), given, 0.8).numpy()), ours, 1e-3)
    assert set(reference.draws(1, "cpu")) <= set(given)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_translation_networks(norm):
    x = images(2, 128, 128, 3)
    pairs = [
        (
            unet,
            dict(netG="unet_128", input_nc=3, output_nc=1, ngf=2, norm=norm),
            reference.UNet(3, 1, 7, 2, norm),
        ),
        (
            patchgan,
            dict(netD="basic", input_nc=3, ndf=2, norm=norm),
            reference.PatchGAN(3, 2, norm),
        ),
    ]
    if norm == "instance":
        kwargs = dict(netG="resnet_6blocks", input_nc=3, output_nc=3, ngf=2, norm=norm)
        pairs.append((translator, kwargs, reference.Translator(3, 3, 2, 6)))
    for module, kwargs, net in pairs:
        arrays = randomly(net.state_dict())
        ours = module.from_state_dict(kwargs, arrays).apply(x, train=True)
        assert_close(nhwc(run(reference.load(net, arrays), nchw(x))), ours, 1e-4, module.__name__)


@pytest.mark.parametrize("depth", [10, 50])
def test_residual_networks(depth):
    net, x = reference.ResNet(depth, 4), images(2, 64, 64, 3)
    arrays = randomly(net.state_dict())
    kwargs = dict(depth=depth, num_classes=None, width=4)
    ours = resnet.from_state_dict(kwargs, arrays).apply(x, train=True)
    assert_close(run(reference.load(net, arrays), nchw(x)), ours, 1e-4)


def test_networks_of_metrics():
    net, rng = reference.Inception(), np.random.default_rng(4)
    arrays = randomly(net.state_dict())
    arrays |= {"fc.weight": np.zeros((1008, 2048)), "fc.bias": np.zeros(1008)}
    seen = rng.integers(0, 256, (1, 40, 50, 3)).astype(np.uint8)
    ours = inception.from_state_dict({}, arrays).features(seen)
    assert_close(run(reference.load(net, arrays).eval(), nchw(seen)), ours, 1e-3)

    net, x = reference.MobileNetV2(), images(2, 64, 64, 3)
    arrays = randomly(net.state_dict())
    ours = mobilenet.from_state_dict({}, arrays).features(x)
    assert_close(run(reference.load(net, arrays).eval(), nchw(x)), ours, 1e-3)
