"""How far apart two samples are: three distances, all between 0 (alike) and 1, of pooled observations.

jensen_shannon  of what is counted by kind. Half the Kullback-Leibler divergence of each distribution from their mean,
                summed, in bits (Lin 1991, "Divergence measures based on the Shannon entropy"): 0 for equal shares, 1
                where no kind is in both. It cannot say which kinds differ, nor that two kinds resemble each other.
kolmogorov_smirnov  of numbers: the largest difference between the two cumulative distributions (Smirnov 1939). 0.2 is
                a fifth of one sample that would have to move. It cannot say how far, nor in which direction.
difference      of shares: |p - q|. It cannot say more than a share can.

All three are above 0 for two samples of one source, and the more so the smaller the samples: a distance means something
beside that of two samples of the same size from one person, which style.py computes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

YES, NO = "yes", "no"

FORMULAS = {
    "jensen_shannon": "½ KL(p‖m) + ½ KL(q‖m) in bits, m = ½(p + q); 0 … 1",
    "kolmogorov_smirnov": "max over x of |F(x) − G(x)|; 0 … 1",
    "difference": "|p − q| of two shares; 0 … 1",
}


def jensen_shannon(one: Counter[str], other: Counter[str]) -> float:
    """Of two counts by kind. Where only one of them counted anything it is 1, where neither did 0."""
    if not one.total() or not other.total():
        return float(bool(one.total()) != bool(other.total()))
    from scipy.spatial.distance import jensenshannon

    kinds = sorted({*one, *other})
    distance = float(jensenshannon([one[kind] for kind in kinds], [other[kind] for kind in kinds], base=2))
    return distance**2 if distance == distance else 0.0  # rounding below zero, of which SciPy takes the root


def kolmogorov_smirnov(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two samples of numbers. Where only one of them holds any it is 1, where neither does 0."""
    if not one or not other:
        return float(bool(one) != bool(other))
    import numpy as np

    first, second = np.sort(one), np.sort(other)
    places = np.concatenate([first, second])
    steps = (np.searchsorted(values, places, side="right") / len(values) for values in (first, second))
    return float(np.abs(next(steps) - next(steps)).max())


def difference(one: Counter[str], other: Counter[str]) -> float | None:
    """Of two counts of YES and NO; None where one of them counted nothing, and so has no share."""
    first, second = share(one), share(other)
    return None if first is None or second is None else abs(first - second)


def share(counted: Counter[str]) -> float | None:
    """Of YES among YES and NO; None where nothing was counted: who writes no letters has no share of capitals."""
    return counted[YES] / total if (total := counted.total()) else None


def pooled(counts: Iterable[Counter[str]]) -> Counter[str]:
    total: dict[str, int] = {}
    for counted in counts:
        for kind, count in counted.items():  # a quarter of the time of Counter.update
            total[kind] = total.get(kind, 0) + count
    return Counter(total)
