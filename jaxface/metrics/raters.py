"""How well voters agree, and what each of them is worth: of votes with K classes and gaps.

A table holds one vote each, int [items N, raters R], class 0..K-1 or -1 where there is none; counts hold
how many said what, int [N, K]. Votes have no order (they are nominal): a wrong class is as wrong as any
other.

Where agreement is undefined, it is None with the reason: a number would say what nobody knows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxface.metrics.intervals import bootstrap, by_subject

NO_VOTE = -1
ITERATIONS = 1000  # of EM, at most; hundreds where voters hardly know more than chance
TOLERANCE = 1e-6  # change of all posteriors under which EM has converged
EPS = 1e-10  # the least a rater's count is taken for, so that no answer is impossible
FEWEST = 3  # raters from which their errors can be told apart from the truth


class Agreement(NamedTuple):
    """A coefficient with its 95 % interval; None where it is undefined, and then `why`."""

    value: float | None
    low: float | None
    high: float | None
    n: int  # people that were resampled, or items where no people are told
    why: str = ""  # there is no value, or no interval


class DawidSkene(NamedTuple):
    """What the votes say if every rater errs in a way of his or her own; `dawid_skene` makes it."""

    posterior: np.ndarray  # [N, K]: probability of each class; the prior where nobody voted
    prior: np.ndarray  # [K]: share of each class
    confusion: (
        np.ndarray
    )  # [R, K, K]: how often rater r says l (last) of what is k; NaN without votes
    iterations: int
    converged: bool


def counts_of(table: np.ndarray, classes: int = 2) -> np.ndarray:
    """Table [N, R] -> counts int64 [N, K]."""
    table = np.asarray(table)
    if table.ndim != 2 or table.min(initial=NO_VOTE) < NO_VOTE or table.max(initial=0) >= classes:
        raise ValueError(f"a table is [items, raters] of -1 to {classes - 1}, got {table.shape}")
    return np.stack([(table == k).sum(1, dtype=np.int64) for k in range(classes)], 1)


def majority(counts: np.ndarray) -> np.ndarray:
    """int64 [N]: the class that most said, -1 where no class has more votes than every other."""
    counts = np.asarray(counts)
    most = counts.max(1, keepdims=True)
    return np.where((counts == most).sum(1) == 1, counts.argmax(1), -1)


def fleiss_kappa(
    counts: np.ndarray, people: Sequence[str] | None = None, *, resamples: int = 2000
) -> Agreement:
    """Fleiss' kappa of counts [N, K], with an interval over people [N], or over items if None.

    (P - P_e) / (1 - P_e): P is the mean over items of the share of pairs of their votes that agree, P_e the
    sum of squared shares of the classes (Fleiss, Psychological Bulletin 1971). Where items have unequal
    numbers of votes, P is over items with two or more, and a class's share the mean of its share in each
    item (Gwet, Handbook of Inter-Rater Reliability, 2014, section 2.4).
    """
    return _agreement(_kappa, counts, people, resamples)


def krippendorff_alpha(
    counts: np.ndarray, people: Sequence[str] | None = None, *, resamples: int = 2000
) -> Agreement:
    """Krippendorff's alpha, nominal, of counts [N, K], with an interval over people [N], or items if None.

    1 - D_o / D_e with the observed and expected disagreement of pairs of votes on one item, each vote
    weighing alike (Krippendorff, Content Analysis 2004, chapter 11). Items with one vote do not count.
    """
    return _agreement(_alpha, counts, people, resamples)


def _kappa(counts: np.ndarray) -> float:
    votes = counts.sum(1)
    pairs = votes * (votes - 1.0)
    paired, voted = pairs > 0, votes > 0
    agreeing = (counts * (counts - 1.0)).sum(1)[paired] / pairs[paired]
    if not len(agreeing):
        return float("nan")
    by_chance = np.square((counts[voted] / votes[voted, None]).mean(0)).sum()
    return float((agreeing.mean() - by_chance) / (1 - by_chance)) if by_chance < 1 else np.nan


def _alpha(counts: np.ndarray) -> float:
    votes = counts.sum(1)
    counts, votes = counts[votes > 1], votes[votes > 1]
    of_class = counts.sum(0, dtype=np.float64)
    total = of_class.sum()
    observed = total - (counts * (counts - 1.0) / (votes[:, None] - 1.0)).sum()
    expected = total**2 - np.square(of_class).sum()
    return float(1 - (total - 1) * observed / expected) if expected > 0 else float("nan")


def _agreement(statistic, counts, people, resamples: int) -> Agreement:
    counts = np.asarray(counts)
    voted = counts.sum(1) > 0
    people = np.arange(len(counts)) if people is None else np.asarray(people)
    if people.shape != voted.shape:
        raise ValueError(f"people must be [{len(counts)}], got {people.shape}")
    groups = by_subject(counts[voted], people[voted])
    value = statistic(counts)
    if not np.isfinite(value):
        why = "no item has two votes, so that nothing can agree"
        if counts.sum(1).max(initial=0) > 1:
            why = "all votes are the same: chance alone would agree as much (0 / 0)"
        return Agreement(None, None, None, len(groups), why)
    found = bootstrap(groups, statistic, resamples=resamples)
    why = "too few, or too much alike, for an interval" if found.low is None else ""
    return Agreement(value, found.low, found.high, found.n, why)


def dawid_skene(
    table: np.ndarray,
    classes: int = 2,
    *,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> DawidSkene:
    """Posterior of the true class and each rater's confusion matrix by EM (Dawid & Skene, JRSS C 1979).

    The model: an item is of class k with probability prior[k]; rater r then says l with probability
    confusion[r, k, l], whatever the others say. The E step is their equation 2.5, in logarithms, the M step
    2.3 and 2.4. EM starts from the shares of the votes, so that nothing is random and classes keep their
    names, and ends when no posterior moves by more than `tolerance`. A rater's expected count of an answer
    that he or she has ever given is taken for `EPS` at least; there is no other smoothing. So done, it is
    crowd-kit's DawidSkene 1.4, number for number after equally many iterations; crowd-kit's own default
    is to stop after 100, or when its bound gains less than 1e-5 a vote.

    Args:
      table: [N, R] of classes, -1 where there is no vote.

    With fewer than `FEWEST` raters, or where they err together, the votes cannot tell who is wrong: the
    posterior then only repeats the start.
    """
    counts_of(table, classes)
    rows, which, many = np.unique(table, axis=0, return_inverse=True, return_counts=True)
    counts = counts_of(rows, classes)  # items with the same votes [M] are one, and weigh as many
    votes, voted = counts.sum(1), counts.any(1)
    if not voted.any():
        raise ValueError("there is no vote")
    said = (rows[voted][..., None] == np.arange(classes)).astype(np.float64)  # [M, R, L]
    weight = (many[voted] / many[voted].sum())[:, None]
    used = said.any(0)[:, None]  # [R, 1, L]
    posterior = counts[voted] / votes[voted, None]

    def m_step(posterior):
        expected = np.einsum("mk,mrl->rkl", posterior * many[voted, None], said)
        expected = np.where(used, np.maximum(expected, EPS), 0.0)
        with np.errstate(invalid="ignore"):  # of a rater without votes
            confusion = expected / expected.sum(-1, keepdims=True)
        return np.maximum((posterior * weight).sum(0), EPS), confusion

    prior, confusion = m_step(posterior)
    done, moved = 0, np.inf
    while done < iterations and moved > tolerance:
        log = np.log(np.where(used, confusion, 1.0))
        joint = np.log(prior) + np.einsum("mrl,rkl->mk", said, log)
        joint = np.exp(joint - joint.max(1, keepdims=True))
        before, posterior = posterior, joint / joint.sum(1, keepdims=True)
        prior, confusion = m_step(posterior)
        done, moved = done + 1, float(np.abs(posterior - before).max())
    everywhere = np.tile(prior, (len(rows), 1))
    everywhere[voted] = posterior
    return DawidSkene(everywhere[which], prior, confusion, done, moved <= tolerance)
