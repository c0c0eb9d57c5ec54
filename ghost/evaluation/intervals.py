"""95% intervals: by bootstrap for means, after Wilson for shares.

The bootstrap resamples whole conversations: turns of one share a partner, a topic and a mood, so resampling turns would
make every interval too narrow. If conversations were not recorded, turns are resampled, and the report says so.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ghost.evaluation.data import Estimate

CONFIDENCE = 0.95
RESAMPLES = 2_000  # the error of the bounds is then about a fortieth of the interval


def ratio(numerators: Sequence[float], denominators: Sequence[float], groups: Sequence[int], seed: int) -> Estimate:
    """Σ numerators / Σ denominators, such as nats a token, of observations that belong to `groups`.

    The interval is the percentile bootstrap over groups (Efron & Tibshirani 1993, chapters 8 and 13). With one group
    only, observations are resampled; with one observation, the interval is that point.
    """
    if len(set(groups)) < 2:
        groups = range(len(numerators))
    tops, bottoms = _summed(numerators, groups), _summed(denominators, groups)
    value = float(tops.sum() / bottoms.sum())
    if len(tops) < 2:
        return Estimate(value, value, value, len(numerators))
    from scipy.stats import bootstrap

    def statistic(top: NDArray[np.float64], bottom: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        below: NDArray[np.float64] = bottom.sum(axis)
        # A resample of groups without a denominator says nothing; it counts as the figure itself.
        found: NDArray[np.float64] = np.divide(
            top.sum(axis), below, out=np.full(np.shape(below), value), where=below != 0
        )
        return found

    found = bootstrap(
        (tops, bottoms),
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(found.low), float(found.high), len(numerators))


def share(count: int, total: int) -> Estimate:
    """`count` of `total`, with Wilson's interval (1927), which stays between 0 and 1 and suits rare events.

    Raises ValueError if `total` is 0.
    """
    from scipy.stats import binomtest

    if total < 1:
        raise ValueError("a share of nothing")
    found = binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(count / total, float(found.low), float(found.high), total)


def _summed(values: Sequence[float], groups: Sequence[int]) -> NDArray[np.float64]:
    """(groups,) the sum of each group's values."""
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(place, weights=np.asarray(values, dtype=np.float64)).astype(np.float64)
