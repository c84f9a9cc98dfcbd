"""DISH, the Divergence Index of Severity Histograms: are the generated clefts as severe as real ones?

CleftGAN (Hayajneh et al., arXiv 2310.07969) names the index and not its formula. Ours: histograms of
a severity score over training and generated faces, their Jensen-Shannon divergence in bits as the
headline, the Kullback-Leibler divergence and the Wasserstein distance beside it.
"""

from typing import NamedTuple

import numpy as np
import scipy

from jaxface.system import Result

BINS = 20  # of a raw score; the scale of human raters, 1..7, has edges of its own: HUMAN
HUMAN = tuple(k + 0.5 for k in range(7))  # unit bins of the seven-point scale
SMOOTH = 0.5  # added to each count, so that an empty bin does not make KL infinite
SPLITS = 1000
RESAMPLES = 2000
BUNDLES = 2000  # units that are split and resampled at most; more people are bundled


class Dish(NamedTuple):
    """How far two severity histograms are apart; all four are 0 for equal ones."""

    js: float  # Jensen-Shannon divergence in bits, 0..1
    kl: float  # Kullback-Leibler divergence of training from generated, in nats
    w1: float  # Wasserstein distance of the scores themselves, in the score's unit
    noise_floor: float  # js between halves of the training faces: 95th percentile over splits
    low: float | None  # 95 % bootstrap interval of js; None for less than two people
    high: float | None
    edges: np.ndarray  # [K + 1]; the first and the last bin are open outward
    training: np.ndarray  # [K] share of training faces in each bin
    generated: np.ndarray  # [K]

    @property
    def indistinguishable(self) -> bool:
        """Whether js is within what two halves of the training faces differ by."""
        return self.js <= self.noise_floor


def dish(
    severity_a: np.ndarray,
    severity_b: np.ndarray,
    edges: np.ndarray | None = None,
    *,
    subjects: np.ndarray | None = None,
    seed: int = 0,
) -> Dish:
    """Divergence of the severity histogram of generated faces from that of training faces.

    js = KL(p|m) / 2 + KL(q|m) / 2 with m = (p + q) / 2 in bits, kl = sum p ln(p / q), where
    p_k = (n_k + 1/2) / (N + K/2) over the training faces and q_k likewise over the generated ones.

    The noise floor compares halves of the training faces, n/2 with n/2, so it is a little higher than
    that of two sets of n. The interval resamples people and generated faces, is reflected at the
    value ("basic"), because resampling raises a divergence as much as sampling did, and is stretched
    to the value where it would leave it out.

    Args:
      severity_a: scores [N] of the training faces; they decide the bins and the noise floor.
      severity_b: scores [M] of the generated faces.
      edges: increasing [K + 1]; scores beyond the ends count in the outermost bins. None: 20 equal
        bins from 0 to the 99.5th percentile of the training scores.
      subjects: person [N] of each training face, people are split and resampled whole; None: each
        face its own.

    Raises:
      ValueError: less than two faces, a score that is not finite, edges that do not increase, or
        training scores that are not above 0 where `edges` is None.
    """
    a, b = _scores(severity_a, "training"), _scores(severity_b, "generated")
    edges = _default_edges(a) if edges is None else np.asarray(edges, np.float64)
    if edges.ndim != 1 or len(edges) < 3 or not (np.diff(edges) > 0).all():
        raise ValueError(f"edges must increase and bound at least two bins, got {edges}")
    people = np.arange(len(a)) if subjects is None else np.asarray(subjects)
    if people.shape != a.shape:
        raise ValueError(f"{len(a)} training scores of {people.shape} subjects")
    rng = np.random.default_rng(seed)
    counts = _by_person(a, people, edges, rng)
    total_a = counts.sum(0)
    total_b = np.bincount(_bins(b, edges), minlength=len(edges) - 1).astype(np.float64)
    p, q = _smoothed(total_a), _smoothed(total_b)
    js = float(_js(p, q))

    low = high = None
    floor = 0.0
    units = len(counts)
    if units > 1:
        first = rng.permuted(np.tile(np.arange(units) < units // 2, (SPLITS, 1)), axis=1) @ counts
        halves = _js(_smoothed(first), _smoothed(total_a - first))
        floor = float(np.percentile(halves, 95))
        drawn_a = rng.multinomial(units, np.full(units, 1 / units), RESAMPLES) @ counts
        drawn_b = rng.multinomial(len(b), total_b / len(b), RESAMPLES)
        replicates = _js(_smoothed(drawn_a), _smoothed(drawn_b))
        least, most = np.percentile(replicates, [2.5, 97.5])
        low, high = min(max(2 * js - most, 0.0), js), max(2 * js - least, js)
    return Dish(
        js,
        float((p * np.log(p / q)).sum()),
        float(scipy.stats.wasserstein_distance(a, b)),
        floor,
        None if low is None else float(low),
        None if high is None else float(high),
        edges,
        total_a / len(a),
        total_b / len(b),
    )


def reported(
    training: np.ndarray, generated: np.ndarray, subjects: np.ndarray, scorer: str
) -> dict[str, Result]:
    """DISH as a report shows it: `dish_js`, `dish_kl`, `dish_w1` and `dish_noise_floor`.

    Args:
      training, generated: severity scores [N], [M].
      subjects: person [N] of each training face.
      scorer: the name of the score, which goes with every number made of it.
    """
    found = dish(training, generated, subjects=subjects)
    n = len(np.unique(subjects))
    sets = (
        f"severity ({scorer}) of {len(generated)} generated against {len(training)} training faces"
    )
    bins = f"{len(found.edges) - 1} equal bins up to the training faces' 99.5th percentile"
    verdict = "not above" if found.indistinguishable else "above"
    return {
        "dish_js": Result(
            found.js, found.low, found.high, n, "bit",
            f"{sets}; {bins}; 95 % bootstrap over people and generated faces; {verdict} its noise floor",
        ),
        "dish_kl": Result(found.kl, n=n, unit="nat", protocol=f"{sets}; {bins}"),
        "dish_w1": Result(found.w1, n=n, protocol=f"{sets}; in the score's unit, no bins"),
        "dish_noise_floor": Result(
            found.noise_floor, n=n, unit="bit",
            protocol=f"training faces against training faces: 95th percentile over {SPLITS} splits of "
            "the people into halves",
        ),
    }  # fmt: skip


def _scores(values, whose: str) -> np.ndarray:
    values = np.asarray(values, np.float64).reshape(-1)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"{whose} scores must be at least 2 finite numbers, got {len(values)}")
    return values


def _default_edges(training: np.ndarray) -> np.ndarray:
    top = np.percentile(training, 99.5)
    if not top > 0:
        raise ValueError("training scores are not above 0: give the edges of the bins")
    return np.linspace(0, top, BINS + 1)


def _bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.digitize(values, edges[1:-1])


def _by_person(values, people, edges, rng: np.random.Generator) -> np.ndarray:
    """How many faces each person (or bundle of people) has in each bin. -> float64 [people, K]"""
    names, person = np.unique(people, return_inverse=True)
    units, bins = min(len(names), BUNDLES), len(edges) - 1
    if len(names) > BUNDLES:
        person = (rng.permutation(len(names)) * BUNDLES // len(names))[person]
    cells = np.bincount(person * bins + _bins(values, edges), minlength=units * bins)
    return cells.reshape(units, bins).astype(np.float64)


def _smoothed(counts: np.ndarray) -> np.ndarray:
    counts = counts + SMOOTH
    return counts / counts.sum(-1, keepdims=True)


def _js(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """[..., K], [..., K] -> [...] in bits; never below 0, which rounding could do to equal ones."""
    m = (p + q) / 2
    value = ((p * np.log2(p / m)) + (q * np.log2(q / m))).sum(-1) / 2
    return np.maximum(value, 0)
