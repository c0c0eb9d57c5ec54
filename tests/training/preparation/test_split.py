"""The split is by conversation, at 90% of the turns before it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.preparation import literal
from training.preparation.split import training_conversations


@given(st.lists(st.integers(1, 50), max_size=60))
def test_split_is_the_literal_one(turn_counts: list[int]) -> None:
    training = training_conversations(turn_counts)
    sides = [literal.trains(turn_counts, index) for index in range(len(turn_counts))]
    assert sides == [index < training for index in range(len(turn_counts))]


@pytest.mark.parametrize(
    ("turn_counts", "training"),
    [([], 0), ([40], 1), ([9, 1], 1), ([8, 1, 1], 2), ([1] * 10, 9), ([1] * 11, 10), ([1, 100, 1], 2)],
)
def test_split_at_its_borders(turn_counts: list[int], training: int) -> None:
    assert training_conversations(turn_counts) == training
