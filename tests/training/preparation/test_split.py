"""What trains and what is held out: at 90% of the turns, and otherwise the last that gives a line."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_deployment.chat_format import RECIPES, Recipe
from tests.training.preparation import literal
from training.preparation.dataset import gives_line, split, training_conversations


@given(st.lists(st.integers(1, 50), max_size=60))
def test_the_rule_of_record_is_the_literal_one(turn_counts: list[int]) -> None:
    training = training_conversations(turn_counts)
    sides = [literal.trains(turn_counts, index) for index in range(len(turn_counts))]
    assert sides == [index < training for index in range(len(turn_counts))]


@pytest.mark.parametrize(
    ("turn_counts", "training"),
    [([], 0), ([40], 1), ([9, 1], 1), ([8, 1, 1], 2), ([1] * 10, 9), ([1] * 11, 10), ([1, 100, 1], 2)],
)
def test_the_rule_of_record_at_its_borders(turn_counts: list[int], training: int) -> None:
    assert training_conversations(turn_counts) == training


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=30), max_size=12), st.sampled_from(RECIPES))
def test_the_split_is_the_literal_one(talks: list[list[bool]], recipe: Recipe) -> None:
    training, cut, held_out = split(talks, partial(gives_line, recipe))
    assert ((training - 1, cut) if cut else (training, 0)) == literal.first_held_out(talks, recipe)
    head = [*talks[:training], *([talks[training - 1][:cut]] if cut else [])]
    tail = [*([talks[training - 1][cut:]] if cut else []), *talks[training:]]
    assert any(literal.stretches(mine, recipe) for mine in tail) == (held_out != "nothing")
    if held_out in ("last_conversation", "end_of_last_conversation"):
        assert any(literal.stretches(mine, recipe) for mine in head)
        assert 5 * sum(map(len, tail)) <= sum(map(len, talks)) or cut


def _talks(*turn_counts: int) -> list[list[bool]]:
    """By turns, the other side first."""
    return [[bool(turn % 2) for turn in range(count)] for count in turn_counts]


@pytest.mark.parametrize(
    ("talks", "expected"),
    [
        (_talks(*[10] * 10), (9, 0, "by_rule")),
        (_talks(*[10] * 6), (5, 0, "last_conversation")),
        (_talks(*[10] * 13, 20), (13, 0, "last_conversation")),
        (_talks(*[10] * 12, 18, 1), (12, 0, "last_conversation")),  # what the rule holds out is one message of theirs
        (_talks(80, 20), (1, 0, "last_conversation")),
        (_talks(80, 22), (2, 11, "end_of_last_conversation")),  # 91 of 102 turns before it
        (_talks(4, 400), (2, 359, "end_of_last_conversation")),
        (_talks(8), (1, 6, "end_of_last_conversation")),
        (_talks(1, 4), (2, 2, "end_of_last_conversation")),
        ([[False] * 17, *_talks(4)], (2, 2, "end_of_last_conversation")),  # whole, it would leave nothing to learn
        (_talks(1, 2), (2, 0, "nothing")),
        (_talks(1, 1), (2, 0, "nothing")),
        ([], (0, 0, "nothing")),
    ],
)
def test_what_is_held_out(talks: list[list[bool]], expected: tuple[int, int, str]) -> None:
    assert split(talks, partial(gives_line, "windows")) == expected
