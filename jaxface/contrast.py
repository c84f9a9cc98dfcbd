"""Contrastive objectives with a momentum encoder, a queue, and positives that are more or less alike.

A query q_i is pulled towards its own momentum key and towards entries of the queue, the more the larger
their attraction a_ik in [0, 1], and pushed away from whatever else the queue holds:

    L_i = - sum_k a_ik / (sum_j a_ij) * log(exp(q_i.k_k / tau) / sum_n exp(q_i.k_n / tau)),

k, j and n over its own key, whose a is 1 always, and the filled slots of the queue. What the objectives
differ in (y: before or after dialysis; w: weight normalised within the patient, training days only):

| OBJECTIVES | a_ik | source |
|---|---|---|
| weight_sup_moco | 1[y_i = y_k] exp(-(w_i - w_k)^2 / (2 sigma^2)) | Akamatsu et al. 2022 (arXiv 2212.07582) |
| sup_moco | 1[y_i = y_k], the limit sigma -> infinity | the paper's name; SupCon (2004.11362) in a queue |
| y_aware | exp(-(w_i - w_k)^2 / (2 sigma^2)), no gate | Dufumier et al. 2021 (arXiv 2106.08808) |
| moco | 0, the limit sigma -> 0 for different weights | He et al. 2019 (arXiv 1911.05722) |
| rank_n_contrast | an order by |w_i - w_k|, see `rank_n_contrast` | Zha et al. 2023 (arXiv 2210.01189) |

WeightSupMoCo is the method of the paper. Its formula is not published: the abstract says that features
are pulled together by the similarity of weight where the labels are the same, and the above is our
default for that. The sum over positives stands outside of the logarithm, as in SupCon's better form.

The anchors of a batch do not meet: their keys are in the queue one step later. So the mean over devices
of means over their anchors is the mean over the batch, and the same holds for gradients.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import flax.struct
import jax
import jax.numpy as jnp

from jaxface.parallel import gather


@flax.struct.dataclass
class Facts:
    """What is known of N pictures."""

    label: jax.Array  # int32 [N]: before or after dialysis
    weight: jax.Array  # float [N]: normalised within the patient, 0 on average
    subject: jax.Array  # int32 [N]: whose picture
    video: jax.Array  # int32 [N]: of which video; no objective reads it


@flax.struct.dataclass
class Queue:
    """A ring of the last K keys. What stands in slots from `filled` on is no key and counts nowhere."""

    features: jax.Array  # [K, D]
    facts: Facts  # [K]
    filled: jax.Array  # int32 scalar
    next: jax.Array  # int32 scalar: the slot that is written next


def empty(size: int, dimension: int) -> Queue:
    """A queue of `size` slots without a key, of JAX's default float type."""
    none = lambda *shape: jnp.zeros(shape, jnp.int32)  # each its own, as donated arrays have to be
    facts = Facts(label=none(size), weight=jnp.zeros([size]), subject=none(size), video=none(size))
    return Queue(jnp.zeros([size, dimension]), facts, filled=none(), next=none())


def enqueue(queue: Queue, features: jax.Array, facts: Facts, axis=None) -> Queue:
    """Writes the keys of a batch over the oldest, in the batch's order. [n, D], Facts [n]

    Args:
      axis: the mesh axis under pmap, where each device has n of the batch's rows; all then hold the
        same queue, with the rows of every device.

    Raises:
      ValueError: the whole batch has more rows than the queue has slots.
    """
    features, facts = jax.tree.map(lambda x: gather(x, axis), (features, facts))
    number, size = len(features), len(queue.features)
    if number > size:
        raise ValueError(f"{number} keys do not fit a queue of {size}")
    slots = (queue.next + jnp.arange(number)) % size
    write = lambda held, new: held.at[slots].set(new.astype(held.dtype), unique_indices=True)
    return Queue(
        features=write(queue.features, jax.lax.stop_gradient(features)),
        facts=jax.tree.map(write, queue.facts, facts),
        filled=jnp.minimum(queue.filled + number, size),
        next=(queue.next + number) % size,
    )


def momentum(slow, fast, m: float):
    """m slow + (1 - m) fast, leaf by leaf: the key encoder's step. arXiv 1911.05722, equation 2.

    >>> momentum({"bias": jnp.array([4.0])}, {"bias": jnp.array([8.0])}, 0.75)["bias"].tolist()
    [5.0]
    """
    return jax.tree.map(lambda s, f: (m * s + (1 - m) * f).astype(s.dtype), slow, fast)


def same_label(query: Facts, key: Facts) -> jax.Array:
    """1 where both are before or both after dialysis. Facts [N], Facts [K] -> [N, K]"""
    return (query.label[:, None] == key.label).astype(key.weight.dtype)


def same_subject(query: Facts, key: Facts) -> jax.Array:
    """1 where both are of one patient. Facts [N], Facts [K] -> [N, K]"""
    return (query.subject[:, None] == key.subject).astype(key.weight.dtype)


def near_weight(query: Facts, key: Facts, sigma: float) -> jax.Array:
    """exp(-(difference of weight)^2 / (2 sigma^2)). Facts [N], Facts [K] -> [N, K]

    The kernel of y-aware InfoNCE: Dufumier et al. 2021 (arXiv 2106.08808).

    Args:
      sigma: > 0, in units of the normalised weight; infinity is allowed and gives 1.
    """
    return jnp.exp(-0.5 * jnp.square((query.weight[:, None] - key.weight) / sigma))


def weight_aware(query: Facts, key: Facts, sigma: float) -> jax.Array:
    """`near_weight` where labels are the same, else 0: WeightSupMoCo. Facts [N], [K] -> [N, K]

    >>> facts = lambda label, weight: Facts(*map(jnp.array, (label, weight, [0, 0], [0, 0])))
    >>> print(weight_aware(facts([0, 1], [0.0, 1.0]), facts([0, 0], [0.0, 1.0]), sigma=1.0))
    [[1.         0.60653067]
     [0.         0.        ]]
    """
    return same_label(query, key) * near_weight(query, key, sigma)


def nothing(query: Facts, key: Facts) -> jax.Array:
    """0: only its own key attracts a query, as in MoCo. Facts [N], Facts [K] -> [N, K]"""
    return jnp.zeros([len(query.weight), len(key.weight)], key.weight.dtype)


def weighted_infonce(
    queries: jax.Array,
    own_keys: jax.Array,
    queue: Queue,
    attraction: jax.Array,
    temperature: float,
) -> jax.Array:
    """InfoNCE with positives that count by their attraction. [N, D], [N, D], [N, K] -> [N]

    The equation above. Without an attraction in the queue it is InfoNCE with the own key (1911.05722,
    equation 1), and 0 where the queue is empty. Features come as they are meant, usually of length 1;
    float32 inside whatever their type. Only queries have a gradient.
    """
    own, others, valid = _logits(queries, own_keys, queue, temperature)
    attraction = jax.lax.stop_gradient(jnp.where(valid, attraction, 0).astype(own.dtype))
    masked = jnp.where(valid, others, -jnp.inf)  # before exp, whose gradient may overflow
    top = jax.lax.stop_gradient(jnp.maximum(own, jnp.max(masked, 1)))  # a shift: no influence
    total = jnp.exp(own - top) + jnp.sum(jnp.exp(masked - top[:, None]), 1)
    drawn = own - top + jnp.sum(attraction * (others - top[:, None]), 1)
    return jnp.log(total) - drawn / (1 + jnp.sum(attraction, 1))


def rank_n_contrast(
    queries: jax.Array,
    own_keys: jax.Array,
    query_facts: Facts,
    queue: Queue,
    temperature: float,
    within_patient: bool = False,
) -> jax.Array:
    """Each candidate against those that differ in weight as much or more. [N, D], [N, D] -> [N]

    Zha et al. 2023 (arXiv 2210.01189), the loss of one sample, with the inner product for their distance
    of features and the queue for their batch: the mean over candidates j, own key and queue, of

        -log(exp(q_i.k_j / tau) / sum_{k: d_ik >= d_ij} exp(q_i.k_k / tau)),

    d_ik = |w_i - w_k|, and 0 for the own key. Equal distances are in each other's sums. In
    O(K log K) for each anchor: in the order of distance the sums are cumulative.

    Args:
      within_patient: candidates are the patient's own alone; others are farther than all of these,
        so that they stand in every sum.
    """
    own, others, valid = _logits(queries, own_keys, queue, temperature)
    mine, held = query_facts, queue.facts
    ranked = jnp.broadcast_to(valid, others.shape)
    if within_patient:
        ranked = valid & (mine.subject[:, None] == held.subject)
    # All that is no candidate is one last column. Not -inf where that is nothing: its slope would be NaN.
    least = jnp.finfo(others.dtype).min / 2
    rest = jax.nn.logsumexp(jnp.where(valid & ~ranked, others, least), 1, keepdims=True)

    order = _nearest_first(mine.weight, held.weight)
    others = jnp.take_along_axis(jnp.where(ranked, others, -jnp.inf), order, 1)
    distance = jnp.abs(mine.weight[:, None] - held.weight)
    distance = jnp.take_along_axis(distance, order, 1)
    zero = jnp.zeros_like(distance[:, :1])
    distance = jnp.concatenate([zero, distance, zero + jnp.inf], 1)
    return _ranking(jnp.concatenate([own[:, None], others, rest], 1), distance)


def _nearest_first(of: jax.Array, weight: jax.Array) -> jax.Array:
    """Indices of weights by their distance from each of N others. [N], [K] -> int32 [N, K]

    Sorting N rows is slow on CPUs. Once the weights are sorted, those above are in order already and
    those below in reverse, so that a row is a merge: the place of each is its number on its own side
    and, by bisection, the number of nearer ones on the other. Of equals those above come first.
    """
    by_weight = jnp.argsort(weight)
    weight = weight[by_weight]
    size = len(weight)
    distance = jnp.abs(of[:, None] - weight)
    middle = jnp.searchsorted(weight, of).astype(jnp.int32)[:, None]
    at = jnp.arange(size, dtype=jnp.int32)
    above = at >= middle
    start, end = jnp.where(above, 0, middle), jnp.where(above, middle, size)

    def grow(i, bound):
        """Longer by a power of 2 where what is then passed is, seen from the middle, to be passed."""
        longer = bound + jnp.left_shift(1, size.bit_length() - 1 - i)
        passed = jnp.minimum(longer, size) - 1
        other = jnp.take_along_axis(distance, passed, 1, mode="promise_in_bounds")
        go = jnp.where(above, other >= distance, other <= distance) & (longer <= end)
        return jnp.where(go, longer, bound)

    bound = jax.lax.fori_loop(0, size.bit_length(), grow, start)
    place = jnp.where(above, at - bound, bound - 1 - at)
    rows = jnp.arange(len(of))[:, None]
    order = jnp.zeros(distance.shape, jnp.int32)
    return order.at[rows, place].set(by_weight.astype(jnp.int32), unique_indices=True)


@jax.custom_vjp
def _ranking(logits: jax.Array, distance: jax.Array) -> jax.Array:
    """The mean over candidates of `rank_n_contrast`. [N, M], [N, M] -> [N]

    The gradient is written out: that of a cumulative log-sum-exp of logits that may be -inf is NaN.

    Args:
      logits: -inf where there is no key.
      distance: ascending in each row; infinity where a key is no candidate.
    """
    return _ranking_and_slope(logits, distance)[0]


def _ranking_and_slope(logits, distance):
    """Loss [N] and its derivative by each logit, [N, M]."""
    logits -= jnp.max(logits, 1, keepdims=True)  # a shift, for the largest to be exact
    candidate = jnp.isfinite(distance) & (logits > -jnp.inf)
    number = jnp.sum(candidate, 1, keepdims=True).astype(logits.dtype)
    # The first and the last that are as far as each.
    at = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    new = distance[:, 1:] != distance[:, :-1]
    edge = jnp.ones_like(new[:, :1])
    first = jax.lax.cummax(jnp.where(jnp.concatenate([edge, new], 1), at, 0), axis=1)
    last = jnp.where(jnp.concatenate([new, edge], 1), at, logits.shape[1])
    last = jax.lax.cummin(last, axis=1, reverse=True)

    total = jnp.take_along_axis(_accumulated(logits, reverse=True), first, 1)
    loss = jnp.sum(jnp.where(candidate, total - logits, 0), 1) / number[:, 0]

    # A logit is in the sum of every candidate that is no farther, with the share exp(logit - total).
    up_to_here = _accumulated(jnp.where(candidate, -total, -jnp.inf))
    shares = jnp.exp(logits + jnp.take_along_axis(up_to_here, last, 1))
    return loss, (shares - candidate) / number


def _accumulated(logits, reverse=False):
    """log(sum(exp)) of each logit and all before it in its row, or after it. [N, M] -> [N, M]

    First within blocks of sqrt(M), of all at once, then over blocks. lax.cumlogsumexp does the same in
    40 times the time on CPUs, lax.associative_scan with 4 times the time to compile.
    """
    number, size = len(logits), math.isqrt(logits.shape[1])
    blocks = jnp.pad(logits, ((0, 0), (0, -logits.shape[1] % size)), constant_values=-jnp.inf)
    blocks = blocks.reshape(number, -1, size)
    none = jnp.full_like(blocks[:, :, 0], -jnp.inf)
    including = lambda so_far, x: (jnp.logaddexp(so_far, x),) * 2
    before = lambda so_far, x: (jnp.logaddexp(so_far, x), so_far)
    whole, inside = jax.lax.scan(including, none, jnp.moveaxis(blocks, 2, 0), reverse=reverse)
    others = jax.lax.scan(before, none[:, 0], whole.T, reverse=reverse)[1].T
    sums = jnp.moveaxis(jnp.logaddexp(inside, others), 0, 2)
    return sums.reshape(number, -1)[:, : logits.shape[1]]


def _ranking_backward(slope, cotangent):
    return cotangent[:, None] * slope, None


_ranking.defvjp(_ranking_and_slope, _ranking_backward)


def _logits(queries, own_keys, queue, temperature):
    """q.k / tau for the own key [N] and for each slot [N, K], and which slots hold a key [K]."""
    dtype = jnp.promote_types(jnp.result_type(queries, own_keys, queue.features), jnp.float32)
    queries = queries.astype(dtype) / temperature
    own_keys = jax.lax.stop_gradient(own_keys.astype(dtype))
    features = jax.lax.stop_gradient(queue.features.astype(dtype))
    # Accelerators would round the factors: at tau = 0.07 that is several hundredths of a logit.
    others = jnp.matmul(queries, features.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(queries * own_keys, 1), others, jnp.arange(len(features)) < queue.filled


def _infonce(attraction: Callable) -> Callable:
    """The objective of an attraction (query facts, key facts, sigma)."""

    def objective(
        queries, own_keys, query_facts, queue, *, temperature, sigma, within_patient=False
    ):
        a = attraction(query_facts, queue.facts, sigma)
        if within_patient:
            a *= same_subject(query_facts, queue.facts)
        return weighted_infonce(queries, own_keys, queue, a, temperature)

    return objective


def _rank_n_contrast(
    queries, own_keys, query_facts, queue, *, temperature, sigma, within_patient=False
):
    del sigma  # an order has no width
    return rank_n_contrast(queries, own_keys, query_facts, queue, temperature, within_patient)


# {config.objective: (queries [N, D], own keys [N, D], their Facts [N], Queue, *, temperature, sigma,
# within_patient) -> loss [N]}. sigma matters to weight_sup_moco and y_aware alone; within_patient, which
# leaves other patients' entries as negatives, to all but moco.
OBJECTIVES: Mapping[str, Callable] = MappingProxyType(
    {
        "weight_sup_moco": _infonce(weight_aware),
        "sup_moco": _infonce(lambda query, key, sigma: same_label(query, key)),
        "y_aware": _infonce(near_weight),
        "moco": _infonce(lambda query, key, sigma: nothing(query, key)),
        "rank_n_contrast": _rank_n_contrast,
    }
)
