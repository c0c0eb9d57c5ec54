"""Can a classifier tell who wrote a reply: the person or the ghost, the base, other people?

Character n-grams attribute short texts best (Stamatatos 2013, "On the robustness of authorship attribution based on
character n-gram features"): TF-IDF of 1- to 4-grams within words, and a logistic regression. The figure is the area
under the ROC curve: the probability that, of two replies, one of each source, the classifier ranks the right one
higher. 0.5 is guessing, 1 always right. Below 0.5 is guessing, too: of replies that both sources give, the training
fold saw fewer of the source whose replies are in the test fold, so the classifier leans to the other.

It is measured on replies that the classifier has not seen, in folds that keep conversations together, with equally many
replies of each source at each length: length is a figure of style of its own, and would be all that a classifier uses.
Each different text of a source counts once: a text on both sides of a fold would be recognised.

It does not say what gave a source away, whether a person would notice, or whether that was style or topic.
"""

import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from ghost.evaluation.data import Estimate

FEWEST = 50  # replies a source: with fewer the interval is wider than 0.2, too wide to separate even two people
LEAST = 10  # with fewer, nothing can be learnt: the interval is 0 to 1
FOLDS = 5
DRAWS = 1000  # bootstrap resamples of the groups


Groups = tuple[Sequence[Hashable], Sequence[Hashable]]


def classifier_auc(own: Sequence[str], said: Sequence[str], seed: int, groups: Groups) -> Estimate:
    """The area under the ROC curve and its bootstrap interval (percentiles); `n` replies of each source were left.

    own, said  texts of two sources
    groups     of each text of either, what must not be in two folds, such as its conversation

    The interval is that of these conversations and this training of the classifier. With fewer than LEAST replies left
    of a source, or too few conversations to learn from some and ask of others, it is 0 to 1 around 0.5; `too_few` says
    what FEWEST asks for.
    """
    texts, labels, contexts = _length_matched(own, said, seed, groups)
    n = len(texts) // 2
    enough = n >= LEAST and len(set(contexts)) >= FOLDS
    scores = _held_out_scores(texts, labels, contexts, seed) if enough else None
    if scores is None:
        return Estimate(0.5, 0.0, 1.0, n)
    return _area(scores, labels == 1, contexts, seed)


def is_informative(found: Mapping[str, Any]) -> bool:
    """Whether the interval is narrower than 0 to 1; otherwise 0.5 does not mean "it cannot tell"."""
    return bool(found["high"] - found["low"] < 1)


def too_few(estimate: Estimate) -> str:
    """A warning about a figure from too few replies; "" if there are enough."""
    if estimate.n >= FEWEST:
        return ""
    return f"only {estimate.n} replies of each are of the same lengths, and it takes {FEWEST} to say much"


def _length_matched(
    own: Sequence[str], said: Sequence[str], seed: int, groups: Groups
) -> tuple[list[str], Any, list[int]]:
    """Equally many different replies of each source in each range of lengths (1, 2-3, 4-5, 6-7, 8-11, … characters),
    whose each is, and the number of its group."""
    import numpy as np

    ours, theirs = (_once(texts, of) for texts, of in zip((own, said), groups, strict=True))
    # What both say is of the person's group: in another fold the classifier would have learnt it as the other's.
    theirs = {text: ours.get(text, group) for text, group in theirs.items()}
    by_length: dict[int, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, texts in enumerate((ours, theirs)):
        for text in texts:
            by_length[_range(len(text))][side].append(text)
    rng = random.Random(seed)
    kept: list[tuple[str, int, Hashable]] = []
    for _, (mine, others) in sorted(by_length.items()):
        count = min(len(mine), len(others))
        kept += [(text, 1, ours[text]) for text in rng.sample(mine, count)]
        kept += [(text, 0, theirs[text]) for text in rng.sample(others, count)]
    numbers = {group: number for number, group in enumerate(dict.fromkeys(group for _, _, group in kept))}
    labels = np.array([label for _, label, _ in kept])
    return [text for text, _, _ in kept], labels, [numbers[group] for _, _, group in kept]


def _once(texts: Sequence[str], groups: Sequence[Hashable]) -> dict[str, Hashable]:
    """Each text that is not empty, with the group that it is first in."""
    found: dict[str, Hashable] = {}
    for text, group in zip(texts, groups, strict=True):
        if text:
            found.setdefault(text, group)
    return found


def _range(length: int) -> int:
    """Two ranges to each doubling of the length."""
    power = length.bit_length() - 1
    return 2 * power + (length >> max(power - 1, 0) & 1 if power else 0)


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


def _area(scores: Any, own: Any, groups: Sequence[int], seed: int) -> Estimate:
    """Mann and Whitney 1947: the share of pairs in the right order, ties counting half; groups are resampled, since the
    replies of one conversation resemble each other."""
    import numpy as np

    order = (scores[own][:, None] > scores[~own]).astype(float) + 0.5 * (scores[own][:, None] == scores[~own])
    area, of, count = float(order.mean()), np.asarray(groups), len(set(groups))
    times = np.random.default_rng(seed).multinomial(count, [1 / count] * count, DRAWS)
    ours, theirs = times[:, of[own]], times[:, of[~own]]
    pairs = ours.sum(1) * theirs.sum(1)
    # Groups that hold one source alone may be all that is drawn: that says nothing, and counts as the figure itself.
    areas = np.divide(((ours @ order) * theirs).sum(1), pairs, out=np.full(DRAWS, area), where=pairs > 0)
    low, high = np.percentile(areas, [2.5, 97.5])
    return Estimate(area, float(low), float(high), len(order))
