"""Windows and seeds against the contract, read literally."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_deployment.chat_format import Turn
from tests.training.preparation import literal
from training.preparation.dataset import Window, draw_seeds, replies, window_examples, windows
from training.tokens import fit_window

sides = st.lists(st.booleans(), max_size=40)


def _literally(mine: list[bool]) -> list[Window]:
    return [Window(positions[0], positions[-1]) for positions in literal.windows(mine)]


def test_every_conversation_of_up_to_twelve_turns() -> None:
    for length in range(1, 13):
        for mine in itertools.product([False, True], repeat=length):
            assert windows(mine) == _literally(list(mine)), mine


def test_thousands_of_longer_conversations() -> None:
    random_sides = random.Random(7)
    for _ in range(3000):
        share = random_sides.choice([0.1, 0.5, 0.9])  # one-sided talk shrinks windows far
        mine = [random_sides.random() < share for _ in range(random_sides.randint(13, 60))]
        assert windows(mine) == _literally(mine), mine


@pytest.mark.parametrize(
    ("mine", "expected"),
    [
        ([], []),
        ([True], []),
        ([True, False], []),
        ([False, True], [(0, 1)]),
        ([False, True, True, True], [(0, 1)]),
        ([True, False, True, False, True, False], [(0, 4)]),
        ([False, True] * 4, [(0, 5)]),
    ],
)
def test_small_conversations(mine: list[bool], expected: list[tuple[int, int]]) -> None:
    assert windows(mine) == expected


@given(st.lists(sides, max_size=12))
def test_seeds_are_a_tenth_of_the_replies_with_what_they_answer(conversations: list[list[bool]]) -> None:
    seeds = draw_seeds(conversations)
    eligible = sum(len(replies(mine)) for mine in conversations)
    assert abs(sum(map(len, seeds)) - eligible / 10) <= 0.5
    for mine, drawn in zip(conversations, seeds, strict=True):
        assert len(set(drawn)) == len(drawn)
        assert all(target == start + 1 and mine[target] and not mine[start] for start, target in drawn)
    assert draw_seeds(conversations) == seeds


def test_a_seed_equal_to_a_window_is_not_added() -> None:
    found = window_examples([[False, True]] * 50)
    assert found.drawn == 5
    assert found.by_conversation == [[Window(0, 1)]] * 50


def test_a_seed_is_added_to_the_windows_of_its_own_conversation() -> None:
    found = window_examples([[True] + [False, True] * 5] * 20)
    assert found.drawn == 10
    assert sum(map(len, found.seeds)) == 10
    assert [len(some) for some in found.by_conversation] == [
        len(some) + len(seeds) for some, seeds in zip(found.windows, found.seeds, strict=True)
    ]


def _count_letters(turns: list[Turn]) -> int:
    return sum(len(turn.text) for turn in turns)


@given(st.lists(st.text("x", min_size=1, max_size=9), min_size=1, max_size=13), st.integers(0, 60))
def test_fit_drops_whole_turns_from_the_front_and_no_more_than_needed(texts: list[str], limit: int) -> None:
    turns = [Turn("B:", text) for text in texts]
    kept = list(fit_window(turns, _count_letters, limit))
    assert kept == turns[-len(kept) :]
    assert len(kept) == 1 or _count_letters(kept) <= limit
    assert len(kept) == len(turns) or _count_letters(turns[-len(kept) - 1 :]) > limit
