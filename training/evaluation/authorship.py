"""Can a classifier tell who wrote a reply? The person against the ghost, against the base, against other people.

Character n-grams are what tells authors apart best in short texts (Stamatatos 2013, "On the robustness of authorship
attribution based on character n-gram features"): TF-IDF of the 1- to 4-grams within words, and a logistic regression.
Its figure is the area under the ROC curve, that is the probability that of two replies, one of each source, the
classifier gives the right one the higher score: 0.5 where it cannot tell, 1 where it always can. Below 0.5 it cannot
tell either: of replies that both sources give alike, those held out are the ones that training saw less of.

It is measured on replies that the classifier has not seen, in folds that keep together what answers the same context
and what is word for word the same, and between equally many replies of each source with the same lengths: how long
somebody writes is a figure of style of its own, and would be all that a classifier looks at.

What it cannot say: what gave a source away, whether a person would notice, and, since a ghost may talk of what nobody
talks of any more, whether that was style or topic.
"""

import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from training.evaluation.exchange import Estimate

FEWEST = 50  # replies a source: with fewer the interval is wider than 0.2, and two people cannot be told apart either
LEAST = 10  # below it nothing is learnt, and the answer is that everything is possible
FOLDS = 5
DRAWS = 1000  # bootstrap resamples of the replies


def tell_apart(
    own: Sequence[str], said: Sequence[str], seed: int = 0, groups: Sequence[Hashable] | None = None
) -> Estimate:
    """The area under the ROC curve and its bootstrap interval (percentiles); `n` replies of each source were left.

    own, said  texts of two sources; where they are of equal number, the i-th of each answers the same context
    groups     of each context, what must not be in two folds, such as its conversation; without it, each alone

    The interval is that of these replies and this training of the classifier. With fewer than LEAST replies left of a
    source, or too few conversations to learn from some and ask of others, it is 0 to 1 around 0.5; `too_few` says what
    FEWEST asks for.
    """
    texts, labels, contexts = _length_matched(own, said, seed, groups)
    n = len(texts) // 2
    if n < LEAST or len(set(contexts)) < FOLDS:
        return Estimate(0.5, 0.0, 1.0, n)
    scores = _held_out_scores(texts, labels, contexts, seed)
    if scores is None:
        return Estimate(0.5, 0.0, 1.0, n)
    return _area(scores[labels == 1], scores[labels == 0], seed)


def says_something(found: Mapping[str, Any]) -> bool:
    """Whether a figure of evaluation.json is one: where everything is possible, 0.5 is not "it cannot tell"."""
    return bool(found["high"] - found["low"] < 1)


def too_few(estimate: Estimate) -> str:
    """What to think of a figure from so few replies; "" when there are enough."""
    if estimate.n >= FEWEST:
        return ""
    return f"only {estimate.n} replies of each are of the same lengths, and it takes {FEWEST} to say much"


def _length_matched(
    own: Sequence[str], said: Sequence[str], seed: int, groups: Sequence[Hashable] | None
) -> tuple[list[str], Any, list[int]]:
    """Equally many replies of each source in each range of lengths (1, 2-3, 4-5, 6-7, 8-11, … characters)."""
    import numpy as np

    places = [*range(max(len(own), len(said)))] if groups is None else list(groups)
    by_length: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, texts in enumerate((own, said)):
        for place, text in enumerate(texts):
            if text:
                by_length[_range(len(text))][side].append(place)
    rng = random.Random(seed)
    kept: list[tuple[str, int, Hashable]] = []
    for _, (ours, theirs) in sorted(by_length.items()):
        count = min(len(ours), len(theirs))
        kept += [(own[place], 1, places[place]) for place in rng.sample(ours, count)]
        kept += [(said[place], 0, places[place]) for place in rng.sample(theirs, count)]
    contexts = _joined([(text, context) for text, _, context in kept])
    return [text for text, _, _ in kept], np.array([label for _, label, _ in kept]), contexts


def _range(length: int) -> int:
    """Two ranges to each doubling of the length."""
    power = length.bit_length() - 1
    return 2 * power + (length >> max(power - 1, 0) & 1 if power else 0)


def _joined(replies: Sequence[tuple[str, Hashable]]) -> list[int]:
    """A number for each reply, the same for those of one context; replies of six letters that are the same are one
    context too. Shorter ones ("ok", "mdr") are everybody's, and would chain all of them together."""
    parents: dict[Hashable, Hashable] = {}

    def root(one: Hashable) -> Hashable:
        while (above := parents.setdefault(one, one)) != one:
            one = above
        return one

    for text, context in replies:
        if len(text) >= 6:
            parents[root(("context", context))] = root(("text", text))
    roots = [root(("context", context)) for _, context in replies]
    numbers = {one: number for number, one in enumerate(dict.fromkeys(roots))}
    return [numbers[one] for one in roots]


def _held_out_scores(texts: list[str], labels: Any, contexts: list[int], seed: int) -> Any:
    """(texts,) of the classifier that has not seen the text; None where one conversation holds all that a source said,
    so that nothing is left to learn from."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    # In lower case `j'arrive` and `J'arrive` would be one, and a line break is what bursts are made of.
    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), lowercase=False, sublinear_tf=True, min_df=2)
    classifier = make_pipeline(grams, LogisticRegression(C=10.0, max_iter=1000))
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    folds = list(splitter.split(texts, labels, contexts))
    if any(len(set(labels[learnt].tolist())) < 2 for learnt, _ in folds):
        return None
    shown = [text.replace("\n", " ⏎ ") for text in texts]  # char_wb takes any blank for any other
    return cross_val_predict(classifier, shown, labels, cv=folds, method="decision_function")


def _area(own: Any, said: Any, seed: int) -> Estimate:
    """Mann and Whitney 1947: the share of pairs in the right order, ties counting half; resampled by reply."""
    import numpy as np

    order = (own[:, None] > said).astype(float) + 0.5 * (own[:, None] == said)
    rng = np.random.default_rng(seed)
    one, other = (rng.multinomial(len(side), [1 / len(side)] * len(side), DRAWS) for side in (own, said))
    areas = ((one @ order) * other).sum(1) / order.size
    low, high = np.percentile(areas, [2.5, 97.5])
    return Estimate(float(order.mean()), float(low), float(high), len(own))
