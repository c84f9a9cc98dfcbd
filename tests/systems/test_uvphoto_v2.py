"""One joint step of UV-photo Net v2, its seven terms and its pools."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from steps import compiled, leaf_names, leaves_differ, photographs

from experiments import uvphoto_v2 as experiment
from jaxface import losses, uv
from jaxface.errors import UserError
from jaxface.ops.camera import other_camera
from jaxface.ops.warp import vary
from jaxface.systems import uvphoto_v2

TINY = dataclasses.replace(
    experiment.tiny, batch=2, ngf=2, ndf=2, inverse_ngf=2, inverse_blocks=1, pool=4, noise=0.5
)
NETWORKS = {"generator", "inverse", "discriminator", "discriminator_uv", "discriminator_rgb"}
batch_of = functools.partial(photographs, phone=3)


@pytest.fixture(scope="module")
def tiny():
    return compiled(uvphoto_v2.build(TINY))


@pytest.fixture(scope="module")
def first(tiny):
    _, state, step, key = tiny
    return jax.device_get(step(state, batch_of(TINY), key))


def test_same_inputs_same_bits_and_every_part_moves(tiny, first):
    _, state, step, key = tiny
    new, metrics = first
    again, _ = step(state, batch_of(TINY), key)
    assert not leaves_differ(new, again)
    parts = lambda s: (s.params, s.model_state, s.opt_state)
    moved = leaves_differ(parts(state), parts(new))
    assert [name for name in leaf_names(parts(state)) if name not in moved] == []
    assert state.params.keys() == state.opt_state.keys() == NETWORKS
    assert new.step == 1 and int(metrics["skipped/in_a_row"]) == 0
    facts = new.control["photographs"]
    assert (facts["face_width"], facts["spot_threshold"]) == (150, 4)


def by_hand(config, state, batch, key):
    """Every loss of a first step, one pass at a time, and what the two pools are given.

    Without "phone" in the batch it is the pair's losses alone, and no pool is given anything.
    """
    nets = uvphoto_v2.networks(config)
    keys = jax.random.split(jax.random.fold_in(key, state.step), 7)
    key_pair, key_phone, key_camera, key_noise, key_drop, _, _ = keys
    example = batch["example"]
    each = lambda key: jnp.stack([jax.random.fold_in(key, e) for e in example])
    patches = lambda name, key: vary(
        batch[name] / jnp.float32(127.5) - 1, each(key), config.patch, config.warp
    )
    device, real = patches("color", key_pair), patches("uv", key_pair)
    seen = other_camera(device, each(key_camera), config.camera)

    def forward(name, x, call=0):
        """One batch through a network in training; `call` is its place among the step's passes."""
        variables = {"params": state.params[name], "batch_stats": state.model_state[name]}
        drops = hasattr(nets[name], "use_dropout") or hasattr(nets[name], "dropout")
        numbers = jnp.concatenate([example] * (len(x) // len(example)))
        dropout = jax.random.fold_in(key_drop, call)
        more = {"rngs": {"dropout": dropout}, "example": numbers} if drops else {}
        return nets[name].apply(variables, x, train=True, mutable=["batch_stats"], **more)[0]

    # Pairs and phones are one batch of G, whose statistics they share.
    phone = patches("phone", key_phone) if "phone" in batch else seen[:0]
    translated = forward("generator", jnp.concatenate([seen, phone]))
    fake, fake_phone = translated[: len(seen)], translated[len(seen) :]
    passes = 6 if "phone" in batch else 2  # of the generators' turn, before the discriminators'
    beside = lambda image, call: forward("discriminator", jnp.concatenate([seen, image], -1), call)
    bce = lambda logits, label: -jnp.log(jax.nn.sigmoid(logits if label else -logits)).mean()
    apart = lambda a, b: jnp.abs(a - b).mean()
    terms = {
        "generator": bce(beside(fake, 1), 1),
        "l1": apart(fake, real),
        "detail": losses.detail(fake, real, 16).mean(),
        "discriminator": (bce(beside(fake, passes), 0) + bce(beside(real, passes + 1), 1)) / 2,
    }
    if "phone" not in batch:
        return terms, {}

    def inverse(uv):  # normalised image by image: one at a time is the same
        return forward("inverse", uv)

    made_phone = inverse(real)
    noise = jnp.stack([jax.random.normal(k, real.shape[1:]) for k in each(key_noise)])
    score = lambda name, image, goal: ((forward(name, image) - goal) ** 2).mean()
    terms |= {
        "l1_inverse": apart(inverse(real), device),
        "generator_uv": score("discriminator_uv", fake_phone, 1),
        "generator_rgb": score("discriminator_rgb", made_phone, 1),
        "cycle_phone": apart(inverse(fake_phone + config.noise * noise), phone),
        "cycle_uv": apart(forward("generator", made_phone), real),
    }
    for name, made, true in (("uv", fake_phone, real), ("rgb", made_phone, phone)):
        network = f"discriminator_{name}"  # an empty pool shows what it is given
        terms[network] = (score(network, made, 0) + score(network, true, 1)) / 2
    return terms, {"pool_uv": fake_phone, "pool_rgb": made_phone}


def test_every_term_of_the_first_step_by_hand(tiny, first):
    _, state, _, key = tiny
    new, metrics = first
    hand = jax.jit(lambda state, batch, key: by_hand(TINY, state, batch, key))
    terms, given = hand(state, batch_of(TINY), key)
    assert {f"loss/{name}" for name in terms} == {n for n in metrics if n.startswith("loss/")}
    for name, value in terms.items():
        np.testing.assert_allclose(metrics[f"loss/{name}"], value, rtol=1e-4, err_msg=name)
    for name, images in given.items():
        held = new.control[name]
        assert int(held["count"]) == TINY.batch
        levels = np.asarray(images) * 127.5 + 127.5
        assert np.abs(held["images"][: TINY.batch] - levels).max() < 0.51
        assert not np.asarray(held["images"][TINY.batch :]).any()


def test_pools_fill_and_then_exchange(tiny, first):
    _, _, step, key = tiny
    state, held = first[0], []
    for number in range(1, 6):
        state = jax.device_get(step(state, batch_of(TINY, number, number), key)[0])
        held.append(state.control)
    for name in ("pool_uv", "pool_rgb"):
        assert [int(control[name]["count"]) for control in held] == [4] * 5
        changed = sum(len(leaves_differ(a[name], b[name])) for a, b in zip(held, held[1:]))
        assert changed > 0
        for control in held:
            assert np.asarray(control[name]["images"]).any((1, 2, 3)).all()


def test_steps_without_phones_are_those_of_pairs_alone(tiny, first):
    """The other networks, their pools and what was last said of them stay; the pair's terms do not."""
    _, state, step, key = tiny
    batch = {name: rows for name, rows in batch_of(TINY).items() if name != "phone"}
    new, metrics = step(state, batch, key)
    terms, _ = jax.jit(lambda *given: by_hand(TINY, *given))(state, batch, key)
    assert terms.keys() == set(uvphoto_v2.PAIRED)
    for name, value in terms.items():
        np.testing.assert_allclose(metrics[f"loss/{name}"], value, rtol=1e-4, err_msg=name)
    for name in ("inverse", "discriminator_uv", "discriminator_rgb"):
        for part in ("params", "opt_state", "model_state"):
            assert not leaves_differ(getattr(state, part)[name], getattr(new, part)[name])
    for name in ("generator", "discriminator"):
        assert leaves_differ(state.params[name], new.params[name])
    for name in ("pool_uv", "pool_rgb"):
        assert not leaves_differ(state.control[name], new.control[name])
    assert all(float(metrics[f"loss/{name}"]) == 0 for name in uvphoto_v2.JOINT)
    later, metrics = step(first[0], batch_of(TINY, 1, 1), key)
    assert all(float(metrics[f"loss/{name}"]) > 0 for name in uvphoto_v2.JOINT)
    _, said = step(jax.device_get(later), batch, key)
    assert all(said[f"loss/{name}"] == metrics[f"loss/{name}"] for name in uvphoto_v2.JOINT)
    assert step._cache_size() == 2


def test_phones_come_with_every_third_batch_wherever_a_run_begins(monkeypatch):
    class Drawn:
        def __init__(self, found, batch, seed, start, *processes):
            self.found, self.at = found, start

        def __next__(self):
            self.at += 1
            return {"color": (self.found, self.at - 1)}

    found = uv.Photographs(TINY)
    monkeypatch.setattr(uv.Photographs, "unpaired", "phones")
    monkeypatch.setattr(found, "_cut", Drawn)
    monkeypatch.setattr(found, "pairs", lambda *given: iter([{}] * 9))
    for start in range(5):
        got = [b.get("phone", (0, None))[1] for b in found.pairs_and_phones(3, start)]
        whole = [0, None, None, 1, None, None, 2, None, None, 3, None, None, 4]
        assert got == whole[start : start + 9]


def test_a_poisoned_batch_changes_nothing_but_the_count(tiny, first):
    """A pair that is no number skips what hears of it; D of phones is not told of pairs."""
    _, _, step, key = tiny
    good = first[0]
    batch = batch_of(TINY, seed=1, step=1)
    batch["color"][1] = np.nan
    bad, metrics = step(good, batch, key)
    for name in ("generator", "inverse", "discriminator"):
        assert not leaves_differ(good.params[name], bad.params[name])
        assert not leaves_differ(good.opt_state[name], bad.opt_state[name])
        assert not leaves_differ(good.model_state[name], bad.model_state[name])
        assert int(metrics[f"skipped/{name}"]) == 1
    assert int(metrics["skipped/in_a_row"]) == 1 and bad.step == 2
    for name in ("pool_uv", "pool_rgb"):
        assert not leaves_differ(good.control[name], bad.control[name])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((bad.params, bad.model_state)))


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"phones_every": 0}, "config.phones_every=0: use 1 or more"),
        ({"pool": 1}, "config.pool=1 is smaller than config.batch=2: use 2"),
        ({"levels": 7}, "config.patch=64 cannot be halved config.levels=7 times.*multiple of 128"),
        ({"patch": 72}, "config.patch=72.*multiple of 16"),
        ({"norm": "layer"}, "config.norm='layer'.*'batch', 'instance'"),
        ({"batch": 1}, "config.batch=1.*config.norm=instance"),
        ({"compile": "fast"}, "config.compile='fast'"),
        ({"accumulate": 2}, "config.accumulate=2"),
        ({"tile_stride": 50}, "config.tile_stride=50 leaves gaps"),
    ],
)
def test_bad_settings_are_refused_by_name(changes, words):
    with pytest.raises(UserError, match=words):
        uvphoto_v2.build(dataclasses.replace(TINY, **changes))


def test_a_v1_is_a_start_of_the_networks_it_has(tiny):
    _, state, _, key = tiny
    one = lambda name, tree: {name: jax.tree.map(lambda x: np.asarray(x) + 1, tree[name])}
    names = ("generator", "discriminator")
    start = {"params": {}, "model_state": {}}
    for name in names:
        start["params"] |= one(name, state.params)
        start["model_state"] |= one(name, state.model_state)
    begun = uvphoto_v2.build(TINY, start).start_from(state)
    for name in NETWORKS:
        expected = start["params"].get(name, state.params[name])
        assert not leaves_differ(expected, begun.params[name])
    assert uvphoto_v2.build(TINY).start_from is None


def test_what_the_run_began_with_has_its_share_in_what_is_used(tiny, first):
    """keep_start mixes weights where a network is used, and touches no step."""
    _, state, _, _ = tiny
    start = {
        "params": {"generator": jax.tree.map(lambda x: x + 1, state.params["generator"])},
        "model_state": {"generator": state.model_state["generator"]},
    }
    plain = uvphoto_v2.build(TINY, start)
    mixing = uvphoto_v2.build(dataclasses.replace(TINY, keep_start=0.25), start)
    begun = plain.start_from(state)
    control = state.control | {"begun": uv.generator_of(state)}
    kept = mixing.start_from(state.replace(control=control))
    assert not leaves_differ(kept.control["begun"], uv.generator_of(begun))
    # As after training: other weights than the run began with.
    moved = lambda s: s.replace(params=s.params | {"generator": state.params["generator"]})
    used = mixing.export(moved(kept)).variables["params"]
    for old, new, one in zip(
        jax.tree.leaves(start["params"]["generator"]),
        jax.tree.leaves(state.params["generator"]),
        jax.tree.leaves(used["generator"]),
    ):
        np.testing.assert_allclose(one, 0.25 * old + 0.75 * new, rtol=1e-6, atol=1e-6)
    assert not leaves_differ(used["inverse"], kept.params["inverse"])
    x = np.zeros([1, TINY.patch, TINY.patch, 3], np.float32) + 0.3
    told = lambda system, s: np.asarray(system.export(s).functions["generator"][0](x))
    assert np.abs(told(mixing, moved(kept)) - told(plain, moved(begun))).max() > 1e-3
    shapes = jax.eval_shape(mixing.init, jax.random.key(0))
    after, _ = jax.eval_shape(mixing.train_step, shapes, batch_of(TINY), jax.random.key(0))
    assert jax.tree.structure(after) == jax.tree.structure(shapes)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(
        UserError, match="keep_start=0.5 is a share of the network that --init_from"
    ):
        uvphoto_v2.build(dataclasses.replace(TINY, keep_start=0.5))
    with pytest.raises(UserError, match="keep_start=1.0: use 0 or more and less than 1"):
        uvphoto_v2.build(dataclasses.replace(TINY, keep_start=1.0), {"params": {"generator": {}}})
