"""Who wrote it? Two halves of one person must be hard to tell apart, two people easy, and length must not tell."""

import random
import warnings

import pytest

from ghost.demo.people import NOA
from ghost.evaluation import authorship
from ghost.evaluation.authorship import Groups, is_informative, too_few
from ghost.evaluation.data import Estimate
from tests.ghost.demo.another import ROMY
from tests.ghost.evaluation.invented import exchanges


def classifier_auc(own: list[str], said: list[str], seed: int = 0, groups: Groups | None = None) -> Estimate:
    """By default the i-th text of one source is together with the i-th of the other."""
    return authorship.classifier_auc(own, said, seed, groups or (range(len(own)), range(len(said))))


def replies(person: object, count: int = 160, seed: int = 7) -> list[str]:
    return [one.reply for one in exchanges(person, count, seed)]  # type: ignore[arg-type]


def test_two_people_are_told_apart_one_person_is_not_and_a_mixture_lies_between() -> None:
    noa, again, romy = replies(NOA), replies(NOA, seed=9), replies(ROMY)
    same, other = classifier_auc(noa, again), classifier_auc(noa, romy)
    half = classifier_auc(again, [*noa[:80], *romy[80:]])
    assert same.low <= 0.5 <= same.high
    assert abs(same.value - 0.5) < 0.1
    assert other.low > 0.97
    assert same.value < half.value < other.value
    assert too_few(same) == ""


def test_the_very_same_replies_cannot_be_told_apart() -> None:
    noa = replies(NOA)
    assert classifier_auc(noa, noa).value == pytest.approx(0.5, abs=0.05)


def test_length_alone_tells_nothing() -> None:
    rng = random.Random(3)
    short, long = (
        ["".join(rng.choices("abcdef ", k=rng.randint(*span))) for _ in range(300)] for span in ((5, 40), (20, 80))
    )
    found = classifier_auc(short, long)
    assert 50 <= found.n < 250  # what has no counterpart of its length was left out
    assert found.low < 0.55


def test_each_text_counts_once_and_joins_no_conversations() -> None:
    """A text of many conversations, and one of both sources, would otherwise chain them into one fold."""
    own = ["on se voit demain"] * 30 + [f"on se voit là {number:02}" for number in range(20)]
    said = ["see you tomorrow!"] * 40 + ["on se voit là 03"]
    texts, labels, groups = authorship._length_matched(own, said, 0, ([*range(50)], [*range(100, 141)]))
    assert sorted(text for text, label in zip(texts, labels, strict=True) if not label) == sorted({*said})
    assert len({*texts, *said}) == len({*texts})
    assert sum(labels) == 2
    shared = [group for text, group in zip(texts, groups, strict=True) if text == said[-1]]
    assert len({*shared}) == 1  # one fold: else it would be learnt as the other's
    assert len({*groups}) >= 3


def test_conversations_are_what_is_resampled() -> None:
    """Of ten conversations that go one way or the other as a whole, replies taken for independent tell too much."""
    import numpy as np

    groups = [talk for talk in range(10) for _ in range(40)]
    own = np.array([place % 2 == 0 for place in range(400)])
    scores = np.array([1.0 if (talk % 3 == 0) != bool(mine) else 0.0 for talk, mine in zip(groups, own, strict=True)])
    alone = authorship._area(scores, own, range(400), seed=0)
    together = authorship._area(scores, own, groups, seed=0)
    assert alone.value == together.value
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_ranges_of_length_grow_with_it() -> None:
    ranges = [authorship._range(length) for length in range(1, 100)]
    assert ranges == sorted(ranges)
    assert [ranges[length - 1] for length in (1, 2, 3, 4, 5, 6, 7, 8, 11, 12)] == [0, 2, 3, 4, 4, 5, 5, 6, 6, 7]


def test_too_little_says_nothing_rather_than_something() -> None:
    assert classifier_auc(["oui", "bof", "ouf"] * 50, ["non", "nan", "mdr"] * 50) == Estimate(0.5, 0.0, 1.0, 3)
    assert classifier_auc([], []) == Estimate(0.5, 0.0, 1.0, 0)
    assert classifier_auc(["", ""] * 20, ["oui"] * 40).n == 0
    assert not is_informative(vars(classifier_auc([], [])))
    assert is_informative({"low": 1.0, "high": 1.0})
    assert too_few(classifier_auc(replies(NOA, 30), replies(ROMY, 30))).startswith("only ")


def test_conversations_stay_together_and_seeds_repeat() -> None:
    noa, romy = replies(NOA, 60), replies(ROMY, 60)
    groups = [place // 3 for place in range(60)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classifier_auc(noa, romy, seed=5, groups=(groups, groups))
    assert found == classifier_auc(noa, romy, seed=5, groups=(groups, groups))
    assert found.low <= found.value <= found.high


def test_one_conversation_that_holds_all_of_a_source_leaves_nothing_to_learn_from() -> None:
    groups = [0] * 16 + [1, 2, 3, 4]
    own = [f"on se voit là {place:03}" for place in range(20)]
    said = [f"see you there {place:03}" for place in range(16)]
    assert classifier_auc(own, said, groups=(groups, groups[:16])) == Estimate(0.5, 0.0, 1.0, 16)
