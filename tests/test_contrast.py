"""Contrastive objectives against plain loops in float64; the queue; one device against eight."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from jaxface import contrast, parallel
from jaxface.contrast import Facts, Queue

N, K, D = 4, 7, 5
NAMES = sorted(contrast.OBJECTIVES)
RANK = "rank_n_contrast"


def attraction(name, query, key, sigma):
    """a of two pictures, each (label, weight, subject)."""
    near = np.exp(-((query[1] - key[1]) ** 2) / (2 * sigma**2))
    same = float(query[0] == key[0])
    return {"weight_sup_moco": same * near, "sup_moco": same, "y_aware": near, "moco": 0.0}[name]


def reference(name, queries, own_keys, facts, queue, temperature, sigma, within_patient):
    """Loss [N] and its gradient by the queries [N, D], term by term as the papers write them."""
    losses, grads = np.zeros(len(queries)), np.zeros(queries.shape)
    of = lambda facts, i: (facts.label[i], facts.weight[i], facts.subject[i])
    for i, q in enumerate(queries):
        me = of(facts, i)
        there = range(int(queue.filled))
        keys = [own_keys[i], *(queue.features[k] for k in there)]
        others = [of(queue.facts, k) for k in there]
        mine = [not within_patient or other[2] == me[2] for other in others]
        s = np.array([np.dot(q, key) / temperature for key in keys])

        def pull(j, among, share, i=i, keys=keys, s=s):
            """-share log(exp(s_j) / sum of exp(s) among these), and its gradient."""
            top = max(s[k] for k in among)
            p = {k: np.exp(s[k] - top) for k in among}
            total = sum(p.values())
            losses[i] -= share * (s[j] - top - np.log(total))
            for k in among:
                grads[i] += share * p[k] / total * keys[k] / temperature
            grads[i] -= share * keys[j] / temperature

        if name == RANK:
            d = [0.0] + [abs(me[1] - o[1]) if m else np.inf for o, m in zip(others, mine)]
            candidates = [j for j in range(len(keys)) if d[j] < np.inf]
            for j in candidates:
                farther = [k for k in range(len(keys)) if d[k] >= d[j]]
                pull(j, farther, 1 / len(candidates))
        else:
            a = [1.0] + [m * attraction(name, me, o, sigma) for o, m in zip(others, mine)]
            for j in range(len(keys)):
                pull(j, range(len(keys)), a[j] / sum(a))
    return losses, grads


def normalised(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def problem(seed=0, n=N, k=K, d=D, filled=K):
    """Queries, own keys, their facts and a queue of float64, weights of two decimals: few ties."""
    rng = np.random.default_rng(seed)
    draw = lambda count: Facts(
        label=rng.integers(0, 2, count).astype(np.int32),
        weight=rng.normal(size=count).round(2),
        subject=rng.integers(0, 2, count).astype(np.int32),
        video=rng.integers(0, 9, count).astype(np.int32),
    )
    queries, own_keys, features = (normalised(rng.normal(size=(x, d))) for x in (n, n, k))
    # What empty slots hold must not matter.
    features[filled:] = 1e3
    queue = Queue(features, draw(k), np.int32(filled), np.int32(filled % k))
    return queries, own_keys, draw(n), queue


def ties(problem):
    """Weights on a grid that floats have exactly: many distances are equal, some 0."""
    queries, own_keys, facts, queue = problem
    coarse = lambda facts: facts.replace(weight=np.round(facts.weight * 2) / 2)
    facts, held = coarse(facts), coarse(queue.facts)
    distance = np.abs(facts.weight[:, None] - held.weight)
    assert (distance == 0).any() and all(len(set(row)) < len(row) for row in distance)
    return queries, own_keys, facts, queue.replace(facts=held)


def single_positive(problem):
    """The first slot has the label and the subject of every query, no other slot has either."""
    queries, own_keys, facts, queue = problem
    only = np.arange(K) == 0
    held = queue.facts.replace(
        label=only.astype(np.int32), subject=only.astype(np.int32), weight=queue.facts.weight
    )
    ones = np.ones(N, np.int32)
    return queries, own_keys, facts.replace(label=ones, subject=ones), queue.replace(facts=held)


def no_positive(problem):
    queries, own_keys, facts, queue = problem
    other = np.full(K, 5, np.int32)
    held = queue.facts.replace(label=other, subject=other)
    return queries, own_keys, facts, queue.replace(facts=held)


CASES = {
    "full": problem(0),
    "ties": ties(problem(1)),
    "ties, part filled": ties(problem(2, filled=5)),
    "single positive": single_positive(problem(3)),
    "no positive": no_positive(problem(4)),
    "part filled": problem(5, filled=3),
    "one filled": problem(6, filled=1),
    "empty": problem(7, filled=0),
    "large logits": problem(8),
    "opposite": problem(9, filled=4),
}
CASES["large logits"][0][:] *= 1e3  # 1e4 where exp overflows from 89 on
# The own key is as unlike as can be: an empty slot of zeros would be by far the nearest.
CASES["opposite"][0][:] *= 1e3
CASES["opposite"][1][:] = -normalised(CASES["opposite"][0])
CASES["opposite"][3].features[:] = (
    -normalised(CASES["opposite"][0].sum(0)) * (np.arange(K) < 4)[:, None]
)


TEMPERATURE, SIGMA = 0.1, 0.7


# Programs that must agree bit for bit are compiled as users' are; the suite has a faster way (conftest).
FASTER = "xla_cpu_use_fusion_emitters"
AS_USERS = {FASTER: True} if FASTER in os.environ["XLA_FLAGS"] else None


@functools.cache
def compiled(name, within_patient=False):
    """-> (loss [N], gradient of a weighted sum of it by the queries)"""

    @functools.partial(jax.jit, compiler_options=AS_USERS)
    def run(queries, own_keys, facts, queue, cotangent, sigma=SIGMA):
        options = dict(temperature=TEMPERATURE, sigma=sigma, within_patient=within_patient)
        objective = lambda q: contrast.OBJECTIVES[name](q, own_keys, facts, queue, **options)
        loss, back = jax.vjp(objective, queries)
        return loss, back(cotangent)[0]

    return run


def assert_close(got, wanted, tolerance):
    assert np.isfinite(got).all() and got.shape == wanted.shape
    np.testing.assert_allclose(
        got, wanted, rtol=tolerance, atol=tolerance * max(1, np.abs(wanted).max())
    )


@pytest.mark.parametrize("within_patient", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients_equal_plain_loops(name, within_patient):
    run = compiled(name, within_patient)
    cotangent = np.array([1.0, -0.5, 2.0, 0.25])
    with jax.enable_x64(True):
        for case, given in CASES.items():
            loss, grad = jax.device_get(run(*given, cotangent))
            assert loss.dtype == grad.dtype == np.float64
            wanted, slope = reference(name, *given, TEMPERATURE, SIGMA, within_patient)
            assert_close(loss, wanted, 1e-12)
            assert_close(grad, cotangent[:, None] * slope, 1e-11)
            assert case != "empty" or not (loss.any() or grad.any())


def test_a_longer_queue_is_ranked():
    """More than a few steps of bisection, blocks and ties."""
    given = ties(problem(10, n=3, k=97, filled=80))
    with jax.enable_x64(True):
        loss, grad = jax.device_get(compiled(RANK, True)(*given, np.ones(3)))
    wanted, slope = reference(RANK, *given, TEMPERATURE, SIGMA, True)
    assert_close(loss, wanted, 1e-12)
    assert_close(grad, slope, 1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_gradient_is_the_slope_of_the_reference_loss(name):
    queries, *others = CASES["ties, part filled"]
    slope = reference(name, queries, *others, TEMPERATURE, SIGMA, True)[1]
    for d in range(D):
        step = 1e-5 * np.eye(D)[d]
        ends = [
            reference(name, queries + s, *others, TEMPERATURE, SIGMA, True)[0]
            for s in (step, -step)
        ]
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-5, slope[:, d], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_stays_finite_and_near(name):
    narrow = lambda x: x.astype(np.float32) if x.dtype == np.float64 else x
    run = compiled(name)
    for case, given in CASES.items():
        given = jax.tree.map(narrow, given)
        loss, grad = jax.device_get(run(*given, np.ones(N, np.float32)))
        assert loss.dtype == grad.dtype == np.float32
        wide = lambda x: x.astype(np.float64) if x.dtype == np.float32 else x
        wanted, slope = reference(name, *jax.tree.map(wide, given), TEMPERATURE, SIGMA, False)
        assert_close(loss, wanted, 1e-5)
        assert_close(grad, slope, 1e-3 if case == "large logits" else 1e-5)


@pytest.mark.parametrize("name", ["weight_sup_moco", RANK])
def test_half_precision_is_computed_in_single(name):
    queries, own_keys, facts, queue = jax.tree.map(jnp.asarray, CASES["full"])
    half = queries.astype(jnp.bfloat16), own_keys.astype(jnp.bfloat16)
    ones = np.ones(N, np.float32)
    loss, grad = compiled(name)(*half, facts, queue, ones)
    assert loss.dtype == jnp.float32 and grad.dtype == jnp.bfloat16
    single = (x.astype(jnp.float32) for x in half)
    wanted, slope = compiled(name)(*single, facts, queue, ones)
    np.testing.assert_array_equal(loss, wanted)
    np.testing.assert_array_equal(grad, slope.astype(jnp.bfloat16))


@pytest.mark.parametrize("name", ["weight_sup_moco", RANK])
def test_keys_queue_and_weights_have_no_gradient(name):
    queries, own_keys, facts, queue = jax.tree.map(jnp.asarray, CASES["full"])

    def loss(own_keys, features, weight, held):
        changed = queue.replace(features=features, facts=queue.facts.replace(weight=held))
        options = dict(temperature=TEMPERATURE, sigma=SIGMA, within_patient=False)
        mine = facts.replace(weight=weight)
        return contrast.OBJECTIVES[name](queries, own_keys, mine, changed, **options).sum()

    floats = own_keys, queue.features, facts.weight, queue.facts.weight
    for grad in jax.jit(jax.grad(loss, (0, 1, 2, 3)))(*floats):
        assert not np.asarray(grad).any()


def test_attractions_by_hand():
    none = np.zeros(2, np.int32)
    query = Facts(np.array([0, 1]), np.array([0.0, 1.0], np.float32), np.array([3, 4]), none)
    key = Facts(
        np.array([1, 0, 0]), np.array([0.0, 2.0, 0.0], np.float32), np.array([3, 3, 4]), none
    )
    half, far = np.exp(-0.5), np.exp(-2)  # 1 and 2 sigma apart
    near = contrast.near_weight(query, key, 1.0)
    np.testing.assert_allclose(near, [[1, far, 1], [half, half, half]], rtol=1e-6)
    gated = contrast.weight_aware(query, key, 1.0)
    np.testing.assert_allclose(gated, [[0, far, 1], [half, 0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(contrast.same_label(query, key), [[0, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(contrast.same_subject(query, key), [[1, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(contrast.nothing(query, key), np.zeros([2, 3]))
    narrow = contrast.near_weight(query, key, 0.5)
    np.testing.assert_allclose(narrow[1], [np.exp(-2)] * 3, rtol=1e-6)


def test_limits_of_sigma():
    """Ever wider is SupMoCo, ever narrower MoCo where no two weights are equal."""
    given = CASES["full"]
    distance = np.abs(given[2].weight[:, None] - given[3].facts.weight)
    assert distance.min() > 0
    given = *given, np.ones(N)
    with jax.enable_x64(True):
        sup, plain = compiled("sup_moco")(*given), compiled("moco")(*given)
        assert np.abs(sup[0] - plain[0]).min() > 1e-3
        for got, wanted in zip(compiled("weight_sup_moco")(*given, np.inf), sup):
            np.testing.assert_array_equal(got, wanted)
        for got, wanted in zip(compiled("weight_sup_moco")(*given, 1e5), sup):
            np.testing.assert_allclose(got, wanted, rtol=1e-7, atol=1e-7)
        for name in ("weight_sup_moco", "y_aware"):
            for got, wanted in zip(compiled(name)(*given, 1e-5), plain):
                np.testing.assert_array_equal(got, wanted)


def test_only_the_gated_heed_the_label():
    queries, own_keys, facts, queue = CASES["full"]
    moved = facts.replace(label=1 - facts.label)
    for name in NAMES:
        before, after = (
            compiled(name)(queries, own_keys, f, queue, np.ones(N)) for f in (facts, moved)
        )
        change = np.abs(before[0] - after[0])
        assert (change > 1e-3).all() if "sup_moco" in name else not change.any()


@pytest.mark.parametrize("name", NAMES)
def test_within_patient(name):
    """With one patient it changes nothing; without the patient in the queue only the own key attracts."""
    queries, own_keys, facts, queue = CASES["part filled"]
    inside = compiled(name, True)
    with jax.enable_x64(True):
        of = lambda subject: queue.replace(
            facts=queue.facts.replace(subject=np.full(K, subject, np.int32))
        )
        mine = facts.replace(subject=np.ones(N, np.int32))
        ones = np.ones(N)
        alike = inside(queries, own_keys, mine, of(1), ones)
        for got, wanted in zip(alike, compiled(name)(queries, own_keys, facts, queue, ones)):
            np.testing.assert_array_equal(got, wanted)
        alone = inside(queries, own_keys, mine, of(0), ones)
        for got, wanted in zip(alone, compiled("moco")(queries, own_keys, facts, queue, ones)):
            np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)
        assert name == "moco" or np.abs(alike[0] - alone[0]).max() > 1e-3


def batch_of(first, number):
    """Rows that tell their number in every field."""
    row = np.arange(first, first + number)
    features = (row[:, None] + [0, 0.5]).astype(np.float32)
    facts = Facts(
        *(x.astype(np.int32) if x.dtype == int else x for x in (row, row / 8, row + 100, row + 200))
    )
    return features, facts


def rows_of(queue):
    """What the queue holds, from the oldest key to the newest."""
    filled, size = int(queue.filled), len(queue.features)
    start = (int(queue.next) - filled) % size
    slots = [(start + i) % size for i in range(filled)]
    label = np.asarray(queue.facts.label)[slots]
    held = queue.features, *(getattr(queue.facts, n) for n in ("weight", "subject", "video"))
    wanted = label[:, None] + [0, 0.5], label / 8, label + 100, label + 200
    for got, expected in zip(held, wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(got)[slots], expected)
    return label.tolist()


def test_the_queue_is_a_ring():
    queue, given = contrast.empty(7, 2), 0
    assert rows_of(queue) == []
    run = jax.jit(contrast.enqueue, donate_argnums=0)
    for number in (3, 3, 3, 2, 7, 2):
        queue = run(queue, *batch_of(given, number))
        given += number
        assert rows_of(queue) == list(range(max(0, given - 7), given))
        assert int(queue.next) == given % 7
    assert queue.features.dtype == jnp.float32 and queue.facts.label.dtype == jnp.int32
    with pytest.raises(ValueError, match="8 keys do not fit a queue of 7"):
        contrast.enqueue(queue, *batch_of(0, 8))


def test_momentum_by_hand():
    slow, fast = (
        {"a": jnp.array([1.0, 2.0]), "b": jnp.bfloat16(4)},
        {"a": jnp.array([5.0, 2.0]), "b": 0.0},
    )
    moved = contrast.momentum(slow, fast, 0.75)
    np.testing.assert_array_equal(moved["a"], [2, 2])
    assert moved["b"] == 3 and moved["b"].dtype == jnp.bfloat16


WIDE, SLOTS, BATCH = 6, 20, 16  # a queue that no number of batches fills evenly


def train_step(state, batch, key, *, axis=None):
    """A linear encoder, its momentum encoder and the queue; every objective on its own gradient."""
    encode = lambda w, x: (y := x @ w) / jnp.linalg.norm(y, axis=1, keepdims=True)
    facts = Facts(*(batch[name] for name in ("label", "weight", "subject", "video")))
    own_keys = encode(state["slow"], batch["view_b"])

    def loss(w, name):
        options = dict(temperature=0.2, sigma=1.0, within_patient=name == "y_aware")
        objective = contrast.OBJECTIVES[name]
        return objective(
            encode(w, batch["view_a"]), own_keys, facts, state["queue"], **options
        ).mean()

    told = {name: jax.value_and_grad(loss)(state["fast"], name) for name in NAMES}
    told = parallel.pmean(told, axis)
    fast = state["fast"] - 0.1 * sum(grad for _, grad in told.values())
    slow = contrast.momentum(state["slow"], fast, 0.9)
    queue = contrast.enqueue(state["queue"], own_keys, facts, axis)
    state = {"fast": fast, "slow": slow, "queue": queue}
    return state, {name: {"loss": loss, "gradient": grad} for name, (loss, grad) in told.items()}


def steps_on(devices, mode):
    """[(state, losses and gradients)] of three steps."""
    found = jax.devices()[:devices]
    mesh = jax.make_mesh((devices,), (parallel.DATA,), (AxisType.Auto,), devices=found)
    assert isinstance(mesh, Mesh) and mesh.size == devices
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(WIDE, D))
    state = {"fast": weights, "slow": weights + 0.1, "queue": contrast.empty(SLOTS, D)}
    state = parallel.place_state(jax.device_get(state), mesh, mode)
    run = parallel.compile_step(train_step, mesh, mode)
    seen = []
    for _ in range(3):
        integers = lambda high: rng.integers(0, high, BATCH).astype(np.int32)
        batch = {name: rng.normal(size=(BATCH, WIDE)) for name in ("view_a", "view_b")}
        batch |= {"label": integers(2), "subject": integers(3), "video": integers(9)}
        batch["weight"] = rng.normal(size=BATCH).round(1)
        placed = parallel.place_batch(batch, mesh, mode)
        state, told = run(state, placed, {}, jax.random.key(0))
        seen.append(jax.device_get((state, told)))
    return seen


@pytest.fixture(scope="module")
def on_one():
    with jax.enable_x64(True):
        return steps_on(1, "jit")


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_eight_devices_equal_one(on_one, mode):
    """Losses, gradients and both encoders to rounding, and the queue in the same order."""
    with jax.enable_x64(True):
        on_eight = steps_on(8, mode)
    for step, (one, eight) in enumerate(zip(on_one, on_eight, strict=True)):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12)
        state, told = one
        queue = state["queue"]
        assert int(queue.filled) == min(SLOTS, BATCH * (step + 1))
        assert int(queue.next) == BATCH * (step + 1) % SLOTS
        if step:  # the first queue is empty
            assert all(np.abs(told[name]["gradient"]).max() > 1e-3 for name in NAMES)
