"""How replies differ from the person's, in features of their writing.

Every distance compares equally many replies: k of the person's with k generated ones, and, as the floor, k of the
person's with k others of theirs, both averaged over the same random samples. A distance between small samples is never
0 and grows as they shrink; at equal sizes, whatever exceeds the floor is a difference of style. `floor_high` is the
95th percentile of the floor's samples.

Replies of one conversation resemble each other and samples do not keep conversations together, so the floor is a little
too low for a person who writes differently to different people.
"""

import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from math import fsum, log2
from statistics import fmean
from typing import Any, Literal

from ghost.evaluation.data import Exchange
from training.extraction.languages import UNDETERMINED, WRITTEN_OUT, detect

# How far apart two samples are: three distances, all between 0 (alike) and 1, of pooled observations.
#
# jensen_shannon: of counts by kind. Half the Kullback-Leibler divergence of each distribution from their mean, summed,
# in bits (Lin 1991, "Divergence measures based on the Shannon entropy"). 0 for equal shares, 1 if no kind is in both.
#
# kolmogorov_smirnov: of numbers. The largest difference of the cumulative distributions (Smirnov 1939). At 0.2, a fifth
# of one sample would have to move. It does not say how far or in which direction.
#
# difference: of shares, |p - q|.

YES, NO = "yes", "no"

FORMULAS = {
    "jensen_shannon": "½ KL(p‖m) + ½ KL(q‖m) in bits, m = ½(p + q); 0 … 1",
    "kolmogorov_smirnov": "max over x of |F(x) − G(x)|; 0 … 1",
    "difference": "|p − q| of two shares; 0 … 1",
}


def jensen_shannon(one: Counter[str], other: Counter[str]) -> float:
    """Of two counts by kind; 1 if only one is empty, 0 if both are."""
    if not one.total() or not other.total():
        return float(bool(one.total()) != bool(other.total()))
    shares = [(one[kind] / one.total(), other[kind] / other.total()) for kind in {*one, *other}]
    # fsum, since sets have no order of their own from run to run.
    return max(0.0, fsum(p * log2(2 * p / (p + q)) for pair in shares for p, q in (pair, pair[::-1]) if p) / 2)


def kolmogorov_smirnov(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two samples of numbers; 1 if only one is empty, 0 if both are."""
    if not one or not other:
        return float(bool(one) != bool(other))
    import numpy as np

    first, second = np.sort(one), np.sort(other)
    places = np.concatenate([first, second])
    steps = (np.searchsorted(values, places, side="right") / len(values) for values in (first, second))
    return float(np.abs(next(steps) - next(steps)).max())


def difference(one: Counter[str], other: Counter[str]) -> float | None:
    """Of two counts of YES and NO; None if one is empty."""
    first, second = share(one), share(other)
    return None if first is None or second is None else abs(first - second)


def share(counted: Counter[str]) -> float | None:
    """Of YES among YES and NO; None if nothing was counted: without letters there is no share of capitals."""
    return counted[YES] / total if (total := counted.total()) else None


def pooled(counts: Iterable[Counter[str]]) -> Counter[str]:
    total: dict[str, int] = {}
    for counted in counts:
        for kind, count in counted.items():  # a quarter of the time of Counter.update
            total[kind] = total.get(kind, 0) + count
    return Counter(total)


# The features. An observation is one reply's part of a feature: a count by kind, of YES and NO, or of numbers. Sampling
# draws whole replies, so that several words of one reply never count as independent.

Observation = Counter[str]
# Scripts that put no blank between words. A run of their letters is a whole message, which no figure may hold.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
COMMON = 50  # words; the first fifty of a language are almost all function words (Burrows 2002 takes 40 to 150)
OTHER_WORDS = "(any other word)"
NO_MARK, EMOJI_MARK = "(none)", "(emoji)"


@dataclass(frozen=True)
class Reference:
    """The words to compare with, the same for the person's replies and for generated ones."""

    common: frozenset[str]
    """The person's own most frequent words."""
    of_others: frozenset[str]
    """Every word that the other side writes in the contexts."""

    @classmethod
    def of(cls, own: Sequence[Exchange]) -> "Reference":
        theirs: set[str] = set()
        mine: Counter[str] = Counter()
        turns = {turn for exchange in own for turn in exchange.context}  # windows share most of theirs
        others = {exchange.context[-1].label for exchange in own if exchange.context}
        for label, text in turns:
            if label in others:
                theirs.update(words(text))
            else:
                mine.update(words(text))
        for reply in {exchange.reply for exchange in own}:
            mine.update(words(reply))
        # Ties by the alphabet: sets have no order of their own from run to run.
        ranked = sorted(mine, key=lambda word: (-mine[word], word))
        return cls(frozenset(ranked[:COMMON]), frozenset(theirs))


Observe = Callable[[Exchange, Reference], Observation]


@dataclass(frozen=True)
class Feature:
    key: str
    title: str
    measure: Literal["jensen_shannon", "kolmogorov_smirnov", "difference"]
    observe: Observe
    cannot_say: str


@cache
def pattern(source: str) -> Any:
    import regex

    return regex.compile(source)


def words(text: str) -> list[str]:
    """Runs of letters, an apostrophe or hyphen inside included, in lower case; single letters of UNSPACED scripts."""
    letters = rf"[[\p{{L}}\p{{M}}]--[{UNSPACED}]]+"
    source = rf"(?V1)[{UNSPACED}&&\p{{L}}]\p{{M}}*|{letters}(?:['’-]{letters})*"
    return pattern(source).findall(text.lower())  # type: ignore[no-any-return]


def emoji(text: str) -> list[str]:
    """Emoji as Unicode draws them (a family, a flag, a skin tone is one), and the plainest emoticons."""
    found = pattern(
        r"\p{RI}{2}|[0-9#*]\uFE0F?\u20E3"
        r"|(?:\p{Emoji_Presentation}|\p{Extended_Pictographic}\uFE0F?)\p{Emoji_Modifier}?"
        r"(?:\u200D\p{Extended_Pictographic}\uFE0F?\p{Emoji_Modifier}?)*"
        r"|(?<![\w:;<])(?:[:;][-'’]?[()DPpo/|*]|[xX]D|<3|\^\^)(?!\w)"
    ).findall(text)
    return [one for one in found if one not in "©®™"]


def lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _by_reply(observed: Callable[[str], Observation]) -> Observe:
    return lambda exchange, _: observed(exchange.reply)


def _number(count: Callable[[str], Sized]) -> Observe:
    return lambda exchange, _: Counter([str(len(count(exchange.reply)))])


def _counted(answers: Sequence[bool]) -> Counter[str]:
    yes = sum(answers)
    return Counter({YES: yes, NO: len(answers) - yes})


def _lower(reply: str) -> Counter[str]:
    return _counted([line == line.lower() for line in lines(reply) if line.lower() != line.upper()])


def _capital(reply: str) -> Counter[str]:
    firsts = [next((letter for letter in line if letter.lower() != letter.upper()), "") for line in lines(reply)]
    return _counted([first == first.upper() for first in firsts if first])


def _shouted(reply: str) -> Counter[str]:
    found = pattern(r"\p{L}{2,}").findall(reply)
    return _counted([word == word.upper() for word in found if word.lower() != word.upper()])


def _final_marks(reply: str) -> Counter[str]:
    return Counter(map(_final_mark, lines(reply)))


def _final_mark(line: str) -> str:
    line = line.rstrip()
    if (found := emoji(line)) and line.endswith(found[-1]):
        return EMOJI_MARK
    last = line[-1]
    if not unicodedata.category(last).startswith("P"):
        return NO_MARK
    return "…" if line.endswith("...") else last


def _marks(reply: str) -> Counter[str]:
    for one in emoji(reply):
        reply = reply.replace(one, " ")
    return Counter(letter for letter in reply if unicodedata.category(letter).startswith("P"))


def _repeated(reply: str) -> Counter[str]:
    return _counted([bool(pattern(r"[!?]{2}|\.{2}|…").search(line)) for line in lines(reply)])


def _stretched(reply: str) -> Counter[str]:
    return _counted([bool(pattern(r"(\p{L})\1\1").search(word)) for word in words(reply)])


def _own_words(exchange: Exchange, reference: Reference) -> Observation:
    return _counted([word not in reference.of_others for word in words(exchange.reply)])


def _common_words(exchange: Exchange, reference: Reference) -> Observation:
    return Counter(word if word in reference.common else OTHER_WORDS for word in words(exchange.reply))


@lru_cache(1)  # for both features that ask of one exchange
def _detected(exchange: Exchange) -> tuple[str, str]:
    """The languages of the turn that is answered and of the reply, given the turns before them."""
    *_, asked, answered = detect(["", *(turn.text for turn in exchange.context), exchange.reply])
    return asked, answered


def _language(exchange: Exchange, _: Reference) -> Observation:
    answered = _detected(exchange)[1]
    return Counter([answered] * (answered != UNDETERMINED))


def _switch(exchange: Exchange, _: Reference) -> Observation:
    asked, answered = _detected(exchange)
    return Counter([f"{asked}→{answered}"] * (UNDETERMINED not in (asked, answered)))


def grams(text: str) -> list[tuple[str, ...]]:
    """Each three words in a row; fewer words are one gram."""
    found = words(text)
    return [tuple(found[place : place + 3]) for place in range(max(1, len(found) - 2))] if found else []


def _repeats_itself(reply: str) -> Observation:
    found = grams(reply)
    return Counter({YES: len(found) - len(set(found)), NO: len(set(found))})


def _repeats(exchange: Exchange, _: Reference, *, other: bool) -> Observation:
    """Count the grams of the reply that its context has: in the other side's turns, or in the reply's own side's."""
    whose = exchange.context[-1].label if exchange.context else ""
    known = {gram for label, text in exchange.context if (label == whose) == other for gram in grams(text)}
    return _counted([gram in known for gram in grams(exchange.reply)])


FEATURES = (
    Feature(
        "characters", "characters a reply", "kolmogorov_smirnov", _number(str),
        "whether what is said deserved that length; a reply cut at the token limit counts as long as it got",
    ),
    Feature(
        "words", "words a reply", "kolmogorov_smirnov", _number(words),
        "anything of languages written without spaces, where each letter counts as a word",
    ),
    Feature(
        "lines", "lines a reply (bursts)", "kolmogorov_smirnov", _number(lines),
        "whether lines were messages of a burst or one message's lines: the data does not tell them apart",
    ),
    Feature(
        "emoji_rate", "replies with emoji", "difference", _by_reply(lambda reply: _counted([bool(emoji(reply))])),
        "how many there are in one reply; of emoticons only the plainest are known",
    ),
    Feature(
        "emoji", "which emoji", "jensen_shannon", _by_reply(lambda reply: Counter(emoji(reply))),
        "whether one fits what it answers; a person with many rare ones is far from themselves too",
    ),
    Feature(
        "lower_case", "lines all in lower case", "difference", _by_reply(_lower),
        "anything of scripts without capitals, whose lines are not counted",
    ),
    Feature(
        "capital_first", "lines that begin with a capital", "difference", _by_reply(_capital),
        "whether the person or their keyboard put the capital",
    ),
    Feature(
        "all_caps", "words all in capitals", "difference", _by_reply(_shouted),
        "a shout from an abbreviation such as SNCF",
    ),
    Feature(
        "final_mark", "what ends a line", "jensen_shannon", _by_reply(_final_marks),
        "anything about the marks inside of a line",
    ),
    Feature(
        "marks", "which punctuation", "jensen_shannon", _by_reply(_marks),
        "how much of it there is; emoticons are not counted",
    ),
    Feature(
        "repeated_marks", "lines with !!, ?? or ...", "difference", _by_reply(_repeated),
        "how long such a run is",
    ),
    Feature(
        "shorthand", "words of a list of abbreviations", "difference",
        _by_reply(lambda reply: _counted([word in WRITTEN_OUT for word in words(reply)])),
        "anything beyond some hundred common abbreviations of French, English, Spanish and German",
    ),
    Feature(
        "own_spellings", "words that no partner writes", "difference", _own_words,
        "a typo from a rare or foreign word, a name or an invention: no dictionary of chats is there to tell",
    ),
    Feature(
        "stretched", "words with a letter drawn out", "difference", _by_reply(_stretched),
        "how far it is drawn out, nor anything of languages written without spaces",
    ),
    Feature(
        "repeats_itself", "three words repeated in a reply", "difference", _by_reply(_repeats_itself),
        "a refrain that was meant from a loop",
    ),
    Feature(
        "repeats_last", "three words of its own last replies", "difference", partial(_repeats, other=False),
        "a habit from a loop; only the turns that the model was shown are compared",
    ),
    Feature(
        "repeats_other", "three words of the other side", "difference", partial(_repeats, other=True),
        "an echo that was meant, such as a time or a place that is confirmed",
    ),
    Feature(
        "language", "language of the reply", "jensen_shannon", _language,
        "a language from two or three words: such replies are not counted, and one that mixes two counts for one",
    ),
    Feature(
        "switching", "language by the partner's language", "jensen_shannon", _switch,
        "switches within one reply; whatever either side said in too few words is not counted",
    ),
    Feature(
        "function_words", f"the person's {COMMON} commonest words", "jensen_shannon", _common_words,
        "which words are function words, so a name that is often said is among them; they are chosen on the person's "
        "own replies, which flatters the person a little",
    ),
)  # fmt: skip


DRAWS = 40  # samples; the mean of the floor then changes by less than a tenth between seeds
FEWEST = 20  # replies a sample: with fewer the floor of most features is above what they could show
AUDIBLE = 0.02  # ignore less: a habit without exception has a floor of 0, which a single reply would exceed
SHOWN = 8  # kinds of a distribution


@dataclass(frozen=True)
class StyleFigure:
    """One feature. `distance` and `floor` are comparable with each other and, by formula, from 0 to 1."""

    key: str
    title: str
    formula: str
    """Key of FORMULAS."""
    own: float | None
    """The person's mean number or share; None where kinds are counted."""
    said: float | None
    distance: float
    floor: float
    floor_high: float
    """95th percentile of the person's distance from themselves: above it, a difference of style."""
    n: int
    """Replies in each sample that was compared."""
    kinds: tuple[tuple[str, float, float], ...]
    """(kind, the person's share, the ghost's) of those whose shares differ most."""
    cannot_say: str

    @property
    def is_off(self) -> bool:
        return self.distance > max(self.floor_high, AUDIBLE)


def compare(own: Sequence[Exchange], said: Sequence[Exchange], seed: int = 0) -> list[StyleFigure]:
    """One figure for each feature; none if one side has nothing to count, such as lower-case lines in a script without
    capitals, or neither side has any kind, such as emoji.

    own   the person's held-out replies, each once: an exchange whose reply is in several windows should come with one
    said  generated replies, best to the same contexts

    Empty if a sample would have fewer than FEWEST replies.
    """
    size = min(len(own) // 2, len(said))
    if size < FEWEST:
        return []
    reference = Reference.of(own)
    draws = _draws(len(own), len(said), size, seed)
    figures = (
        _figure(
            feature,
            [feature.observe(one, reference) for one in own],
            [feature.observe(one, reference) for one in said],
            draws,
        )
        for feature in FEATURES
    )
    return [figure for figure in figures if figure is not None]


Draw = tuple[list[int], list[int], list[int]]


def _draws(own: int, said: int, size: int, seed: int) -> list[Draw]:
    """Two disjoint samples of the person's replies and one of the others, as positions."""
    rng = random.Random(seed)
    drawn = []
    for _ in range(DRAWS):
        mine = rng.sample(range(own), 2 * size)
        drawn.append((mine[:size], mine[size:], rng.sample(range(said), size)))
    return drawn


def _figure(
    feature: Feature, own: Sequence[Observation], said: Sequence[Observation], draws: Sequence[Draw]
) -> StyleFigure | None:
    """None if one side has no mean, or no draw has something to count in each sample."""
    apart, floors = [], []
    for one, other, theirs in draws:
        sample = pooled(own[place] for place in one)
        distance = _distance(feature, sample, pooled(said[place] for place in theirs))
        floor = _distance(feature, sample, pooled(own[place] for place in other))
        if distance is not None and floor is not None:
            apart.append(distance)
            floors.append(floor)
    return _compared(feature, pooled(own), pooled(said), apart, floors, len(draws[0][0]))


def _compared(
    feature: Feature, own: Counter[str], said: Counter[str], apart: Sequence[float], floors: Sequence[float], n: int
) -> StyleFigure | None:
    by_kind = feature.measure == "jensen_shannon"
    means = (None, None) if by_kind else (_mean(feature, own), _mean(feature, said))
    if not apart or not floors or (None in means if not by_kind else not (own or said)):
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
        n=n,
        kinds=_kinds(own, said) if by_kind else (),
        cannot_say=feature.cannot_say,
    )


def _distance(feature: Feature, one: Counter[str], other: Counter[str]) -> float | None:
    if feature.measure == "kolmogorov_smirnov":
        return kolmogorov_smirnov(_numbers(one), _numbers(other))
    return difference(one, other) if feature.measure == "difference" else jensen_shannon(one, other)


def _mean(feature: Feature, counted: Counter[str]) -> float | None:
    if feature.measure == "kolmogorov_smirnov":
        return fmean(_numbers(counted)) if counted else None
    return share(counted)


def _kinds(mine: Counter[str], theirs: Counter[str]) -> tuple[tuple[str, float, float], ...]:
    kinds = [
        (name, mine[name] / max(mine.total(), 1), theirs[name] / max(theirs.total(), 1))
        for name in sorted({*mine, *theirs})
    ]
    return tuple(sorted(kinds, key=lambda kind: -abs(kind[1] - kind[2]))[:SHOWN])


def _numbers(counted: Counter[str]) -> list[float]:
    return [float(number) for number in counted.elements()]


# Figures of a running bot: its replies are counted as they are sent, and compared with counts of the person's held-out
# replies. The other side's words are not stored, so the feature that needs them is left out.

LIVE = tuple(feature for feature in FEATURES if feature.key != "own_spellings")
SIZES = (20, 50, 100, 200)  # replies in a row whose distances from the person's others are stored


@dataclass(frozen=True)
class Variation:
    """One feature of the person's replies.

    counts  by kind, of all of them
    floors  for each of SIZES that is at most half of them: the distances of so many replies in a row from the others.
            In a row, since a week's replies share partners and topics
    """

    counts: dict[str, int]
    floors: dict[str, list[float]]


def variation(own: Sequence[Exchange]) -> dict[str, Variation]:
    """By feature, for evaluation.json. `own` in the order of time."""
    reference = Reference.of(own)
    sizes = [size for size in SIZES if size <= len(own) // 2]
    found = {}
    for feature in LIVE:
        observed = [feature.observe(one, reference) for one in own]
        counts = pooled(observed)
        floors: dict[str, list[float]] = {}
        for size in sizes:
            starts = (draw * len(own) // DRAWS for draw in range(DRAWS))
            rows = (pooled((observed + observed)[start : start + size]) for start in starts)
            floors[str(size)] = [
                round(distance, 4) for row in rows if (distance := _distance(feature, row, counts - row)) is not None
            ]
        found[feature.key] = Variation(counts, floors)
    return found


def held_against(person: Mapping[str, Variation], said: Mapping[str, Counter[str]], replies: int) -> list[StyleFigure]:
    """One figure for each feature that both sides have; none if `said` counts fewer than FEWEST `replies`.

    person  what `variation` returned
    said    counts by feature and kind
    """
    figures = []
    for feature in LIVE:
        if (known := person.get(feature.key)) is None:
            continue
        size = max((size for size in map(int, known.floors) if size <= replies), default=None)
        counts, counted = Counter(known.counts), said.get(feature.key, Counter[str]())
        if size is None or (distance := _distance(feature, counted, counts)) is None:
            continue
        figures.append(_compared(feature, counts, counted, [distance], known.floors[str(size)], replies))
    return [figure for figure in figures if figure is not None]


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
            "kinds": [[name, round(own, 4), round(said, 4)] for name, own, said in figure.kinds],
            "cannot_say": figure.cannot_say,
        }
        for figure in figures
    }
