"""Inception Score (Salimans et al. 2016, arXiv 1606.03498, section 4), for whatever classifier.

    IS = exp( E_x KL( p(y|x) || p(y) ) )

It is the published number only with TF-Inception's 1,008 logits without bias; it looks at generated
images alone and cannot see that they are not faces. Reported because older tables have it.
"""

import numpy as np
import scipy


def inception_score(
    logits: np.ndarray, splits: int = 10, seed: int | None = 2020
) -> tuple[float, float]:
    """(mean, standard deviation over splits) of exp(mean KL) in each split, 1 to K, float64.

    Args:
      logits: [N, K] of generated images.
      splits: parts that the images are dealt into; the score of a part is biased downwards by about
        K / (its images), so only equal splits compare.
      seed: of the shuffle before the split (2020 is torch-fidelity's); None keeps the order.

    Raises:
      ValueError: logits of another rank, or fewer images than splits.
    """
    x = np.asarray(logits, np.float64)
    if x.ndim != 2 or not 1 <= splits <= len(x):
        raise ValueError(f"logits must be [N, K] with N of at least {splits} splits, got {x.shape}")
    if seed is not None:
        x = x[np.random.RandomState(seed).permutation(len(x))]
    scores = []
    for i in range(splits):
        log_p = scipy.special.log_softmax(x[i * len(x) // splits : (i + 1) * len(x) // splits], 1)
        log_marginal = scipy.special.logsumexp(log_p, axis=0) - np.log(len(log_p))
        scores.append(np.exp((np.exp(log_p) * (log_p - log_marginal)).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))
