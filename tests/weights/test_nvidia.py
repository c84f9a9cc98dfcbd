"""NVIDIA snapshots: the reference one, and small ones written here."""

import functools

import forge
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.errors import UserError
from jaxface.models import discriminator, stylegan3
from jaxface.weights import UnsafeFileError, read_nvidia_snapshot

G = {"z_dim": 4, "c_dim": 3, "w_dim": 5, "img_resolution": 16, "img_channels": 1}
G |= {"channel_base": 64, "channel_max": 4, "num_layers": 4, "filter_size": 2}
G |= {"mapping_kwargs": {"num_layers": 1}}
D = {"c_dim": 3, "img_resolution": 16, "img_channels": 1, "channel_base": 32, "channel_max": 4}
D |= {"mapping_kwargs": {"num_layers": 1}, "epilogue_kwargs": {"mbstd_group_size": 2}}


@functools.cache
def networks(variant: str = "t", classes: int = 3):
    """{"G", "D", "G_ema"}: (kwargs, arrays) of random networks."""
    radial = {"conv_kernel": 1, "use_radial_filters": True} if variant == "r" else {}
    g_kwargs, d_kwargs = G | radial | {"c_dim": classes}, D | {"c_dim": classes}
    g, d = stylegan3.from_kwargs(g_kwargs), discriminator.from_kwargs(d_kwargs)
    z, c, x = jnp.zeros([1, 4]), jnp.zeros([1, classes]), jnp.zeros([1, 16, 16, 1])
    found = {}
    for seed, name in enumerate(("G", "D", "G_ema")):
        module, inputs = (d, (x, c)) if name == "D" else (g, (z, c))
        shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
        leaves, tree = jax.tree.flatten(shapes)
        rng = np.random.default_rng(seed)
        values = [(0.3 * rng.normal(size=s.shape) + 0.5).astype(np.float32) for s in leaves]
        variables = jax.tree.unflatten(tree, values)
        to_state_dict = (discriminator if name == "D" else stylegan3).to_state_dict
        kwargs = d_kwargs if name == "D" else g_kwargs
        found[name] = kwargs, to_state_dict(kwargs, variables)
    return found


def write(path, found, **options):
    pieces = {
        name: forge.network("Discriminator" if name == "D" else "Generator", kwargs, arrays)
        for name, (kwargs, arrays) in found.items()
    }
    path.write_bytes(forge.snapshot(pieces, **options))
    return path


def test_golden_snapshot():
    file = golden.path() / "network-snapshot-r32.pkl"
    data = golden.load("network-snapshot-r32")
    snap = read_nvidia_snapshot(file)
    z, c = data["in/z"], data["in/c"]
    images = snap.generator_ema.sample(z, c, truncation=0.8)
    golden.assert_close(
        golden.nchw(images), data["out/image_G_ema_psi0.8"], 1e-4, "averaged generator"
    )
    golden.assert_close(
        golden.nchw(snap.generator.sample(z, c)), data["out/image_G"], 1e-4, "generator"
    )
    golden.assert_close(
        snap.discriminator.score(images, c), data["out/D_logits"], 1e-4, "discriminator"
    )
    assert snap.augment_p == pytest.approx(float(data["augment_p"]))
    arrays = stylegan3.to_state_dict(snap.kwargs["G_ema"], snap.generator_ema.variables)
    sums = {k.removeprefix("sum/G_ema/"): v for k, v in data.items() if k.startswith("sum/G_ema/")}
    assert len(sums) > 80
    for name, total in sums.items():
        if not name.endswith("_filter"):
            assert arrays[name].astype(np.float64).sum() == pytest.approx(float(total), rel=1e-6)


@pytest.mark.parametrize("variant,classes", [("t", 3), ("t", 0), ("r", 0)])
def test_every_array_arrives_exactly(tmp_path, variant, classes):
    found = networks(variant, classes)
    snap = read_nvidia_snapshot(write(tmp_path / "a.pkl", found))
    for name, network in (
        ("G", snap.generator),
        ("D", snap.discriminator),
        ("G_ema", snap.generator_ema),
    ):
        module = discriminator if name == "D" else stylegan3
        back = module.to_state_dict(found[name][0], network.variables)
        assert back.keys() == found[name][1].keys()
        for key, array in found[name][1].items():
            np.testing.assert_array_equal(back[key], array, f"{name}.{key}")
    assert snap.augment_p == 0.25
    assert snap.training_set == {"resolution": 16}
    filters = sum("_filter" in name for _, arrays in found.values() for name in arrays)
    assert sum(snap.mapped.values()) + filters == sum(len(a) for _, a in found.values())
    assert len([name for name in snap.unmapped if "_filter" in name]) == filters


def test_only_an_averaged_generator(tmp_path):
    found = {"G_ema": networks()["G_ema"]}
    snap = read_nvidia_snapshot(write(tmp_path / "a.pkl", found, p=None, log=forge.value([1])))
    assert snap.generator is None and snap.discriminator is None and snap.augment_p is None
    assert snap.generator_ema.module.c_dim == 3
    assert "log" in snap.unmapped


def spoil(**changes):
    """The networks with G's arrays or arguments changed."""
    found = dict(networks())
    kwargs, arrays = found["G"]
    arrays = dict(arrays)
    for name, array in changes.pop("arrays", {}).items():
        if array is None:
            del arrays[name]
        else:
            arrays[name] = array
    return found | {"G": (kwargs | changes, arrays)}


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"arrays": {"mapping.fc0.bias": None}}, "G does not fit: .*mapping.fc0.bias: missing"),
        ({"arrays": {"mapping.extra": np.zeros(2, "f")}}, "mapping.extra: not used"),
        ({"arrays": {"mapping.w_avg": np.zeros(7, "f")}}, r"mapping.w_avg: has shape \(7,\)"),
        ({"arrays": {"synthesis.b4.const": np.zeros(7, "f")}}, "StyleGAN2"),
        ({"img_resolution": 2**20}, "img_resolution=1048576 makes no network"),
        ({"num_layers": 10**9}, "num_layers=1000000000 makes no network"),
        ({"num_layers": 5}, "arguments make a layer"),
        ({"margin_size": float("nan")}, "margin_size=nan makes no network"),
        ({"first_cutoff": 0.01, "filter_size": 64}, "does not fit"),
        ({"mapping_kwargs": {"num_layers": 10**7}}, "num_layers=10000000 makes no network"),
        ({"z_dim": "64"}, "does not fit"),
        ({"img_resolution": [16]}, "does not fit"),
        ({"img_resolutoin": 16}, "Did you mean 'img_resolution'"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_in_a_line(tmp_path, changes, words):
    path = write(tmp_path / "a.pkl", spoil(**changes))
    with pytest.raises(UnsafeFileError, match=words) as error:
        read_nvidia_snapshot(path)
    assert "\n" not in str(error.value)


def test_what_is_no_snapshot(tmp_path):
    file = tmp_path / "a.pkl"
    file.write_bytes(forge.whole(forge.value({"G": 1})))
    with pytest.raises(UnsafeFileError, match="no generator under G or G_ema"):
        read_nvidia_snapshot(file)
    forge.write_archive(file, forge.value({}), {})
    with pytest.raises(UserError, match="use read_torch"):
        read_nvidia_snapshot(file)
    other = forge.persistent("Generator", forge.table({"_init_kwargs": forge.value({})}))
    file.write_bytes(forge.snapshot({"G": other}))
    with pytest.raises(UnsafeFileError, match="no constructor arguments"):
        read_nvidia_snapshot(file)
