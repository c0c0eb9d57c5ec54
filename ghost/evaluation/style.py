"""The style of generated replies beside the person's own, each distance beside the person's distance from themselves.

Every distance is taken between equally many replies: k of the person's against k generated ones, and, as the floor, k
of the person's against k others of theirs, both averaged over the same seeded draws. A distance between small samples
is never 0, and grows as they shrink; at equal sizes what is above the floor is a difference of style. What `floor_high`
says is how far two such samples of the person come apart 19 times in 20.

The floor is that of one person in one stretch of time: replies of one conversation resemble each other, and draws do
not keep conversations together, so it is a little too low where a person writes differently to different people.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from training.evaluation.distances import FORMULAS, difference, jensen_shannon, kolmogorov_smirnov, pooled, share
from training.evaluation.exchange import Exchange
from training.evaluation.features import FEATURES, Feature, Observation, Reference

DRAWS = 40  # of samples; the mean of the floor then moves by less than a tenth of itself from seed to seed
FEWEST = 20  # replies a sample: with fewer the floor of most features is above what they could show
AUDIBLE = 0.02  # nobody hears less; a habit without exception has a floor of 0, above which a single reply would be
SHOWN = 8  # kinds of a distribution, those whose shares differ most


@dataclass(frozen=True)
class Kind:
    """One kind of a distribution, as the shares of either side."""

    name: str
    own: float
    said: float


@dataclass(frozen=True)
class StyleFigure:
    """One feature. `distance` and `floor` are comparable with each other and, by formula, from 0 to 1."""

    key: str
    title: str
    formula: str
    """Key of distances.FORMULAS."""
    own: float | None
    """The person's mean number or share; None where kinds are counted."""
    said: float | None
    distance: float
    floor: float
    floor_high: float
    """95th percentile of the person's distance from themselves: above it, a difference of style."""
    n: int
    """Replies in each sample that was compared."""
    kinds: tuple[Kind, ...]
    cannot_say: str

    @property
    def is_off(self) -> bool:
        return self.distance > max(self.floor_high, AUDIBLE)

    def __str__(self) -> str:
        return f"{self.title}: {self.distance:.2f} (yourself: {self.floor:.2f})"


def compare(own: Sequence[Exchange], said: Sequence[Exchange], seed: int = 0) -> list[StyleFigure]:
    """One figure for each feature; none for a share or a mean of what there is nothing of on one side, such as lines in
    lower case of somebody who writes in a script without capitals.

    own   the person's held-out replies, each once: an exchange whose reply is in several windows should come with one
    said  generated replies, best to the same contexts

    Empty where a sample would have fewer than FEWEST replies: `too_few` says so in words.
    """
    if too_few(own, said):
        return []
    reference = Reference.of(own)
    draws = _draws(len(own), len(said), seed)
    figures = (
        _figure(feature, feature.observe(own, reference), feature.observe(said, reference), draws)
        for feature in FEATURES
    )
    return [figure for figure in figures if figure is not None]


def too_few(own: Sequence[Exchange], said: Sequence[Exchange]) -> str:
    """Why nothing is compared; "" when there is enough."""
    if _size(len(own), len(said)) >= FEWEST:
        return ""
    return (
        f"style is not compared: {len(own)} held-out replies and {len(said)} generated ones, and it takes "
        f"{2 * FEWEST} and {FEWEST}"
    )


def _size(own: int, said: int) -> int:
    return min(own // 2, said)


Draw = tuple[list[int], list[int], list[int]]


def _draws(own: int, said: int, seed: int) -> list[Draw]:
    """Two disjoint samples of the person's replies and one of the others, as positions."""
    rng, size = random.Random(seed), _size(own, said)
    drawn = []
    for _ in range(DRAWS):
        mine = rng.sample(range(own), 2 * size)
        drawn.append((mine[:size], mine[size:], rng.sample(range(said), size)))
    return drawn


def _figure(
    feature: Feature, own: Sequence[Observation], said: Sequence[Observation], draws: Sequence[Draw]
) -> StyleFigure | None:
    """None where one side has no mean, or no draw something to count in all of its samples."""
    apart, floors = [], []
    for one, other, theirs in draws:
        sample = [own[place] for place in one]
        distance = _distance(feature, sample, [said[place] for place in theirs])
        floor = _distance(feature, sample, [own[place] for place in other])
        if distance is not None and floor is not None:
            apart.append(distance)
            floors.append(floor)
    by_kind = feature.measure == "jensen_shannon"
    means = (None, None) if by_kind else (_mean(own), _mean(said))
    if not apart or (not by_kind and None in means):
        return None
    return StyleFigure(
        key=feature.key,
        title=feature.title,
        formula=feature.measure,
        own=means[0],
        said=means[1],
        distance=fmean(apart),
        floor=fmean(floors),
        floor_high=sorted(floors)[int(0.95 * (len(floors) - 1))],
        n=len(draws[0][0]),
        kinds=_kinds(own, said) if by_kind else (),
        cannot_say=feature.cannot_say,
    )


def _distance(feature: Feature, one: Sequence[Observation], other: Sequence[Observation]) -> float | None:
    if feature.measure == "kolmogorov_smirnov":
        return kolmogorov_smirnov(_numbers(one), _numbers(other))
    counted = pooled(map(_counter, one)), pooled(map(_counter, other))
    return difference(*counted) if feature.measure == "difference" else jensen_shannon(*counted)


def _mean(observed: Sequence[Observation]) -> float | None:
    if numbers := _numbers(observed):
        return fmean(numbers)
    return share(pooled(map(_counter, observed)))


def _kinds(own: Sequence[Observation], said: Sequence[Observation]) -> tuple[Kind, ...]:
    mine, theirs = pooled(map(_counter, own)), pooled(map(_counter, said))
    kinds = [
        Kind(name, mine[name] / max(mine.total(), 1), theirs[name] / max(theirs.total(), 1))
        for name in sorted({*mine, *theirs})
    ]
    return tuple(sorted(kinds, key=lambda kind: -abs(kind.own - kind.said))[:SHOWN])


def _numbers(observed: Sequence[Observation]) -> list[float]:
    return [number for one in observed if isinstance(one, list) for number in one]


def _counter(observed: Observation) -> Counter[str]:
    return observed if isinstance(observed, Counter) else Counter[str]()


def as_json(figures: Sequence[StyleFigure]) -> dict[str, Any]:
    """For evaluation.json, by key. Single words and emoji of the person may be among the kinds, no message is."""
    return {
        figure.key: {
            "title": figure.title,
            "formula": FORMULAS[figure.formula],
            "own": figure.own,
            "said": figure.said,
            "distance": round(figure.distance, 4),
            "floor": round(figure.floor, 4),
            "floor_high": round(figure.floor_high, 4),
            "off": figure.is_off,
            "n": figure.n,
            "kinds": [[kind.name, round(kind.own, 4), round(kind.said, 4)] for kind in figure.kinds],
            "cannot_say": figure.cannot_say,
        }
        for figure in figures
    }
