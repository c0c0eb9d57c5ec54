import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghost.errors import DataError
from tests.training.finetuning.test_segments import example, examples
from training.config import TrainingConfig
from training.finetuning.data import Example, Split
from training.finetuning.packing import Plan, Step


def plan(recipe: TrainingConfig, some: list[Example], **changes: object) -> Plan:
    quick: dict[str, object] = {"gradient_accumulation_steps": 4, "num_epochs": 3} | changes
    return Plan(Split("windows", some, len(some), 0, 0), dataclasses.replace(recipe, **quick))  # type: ignore[arg-type]


def spelled(steps: list[Step]) -> list[tuple[int, int, float, Counter[tuple[int, ...]]]]:
    """What a step teaches, however it is computed: its epoch, windows, labels, and its targets by their context."""
    return [
        (
            step.epoch,
            step.windows,
            step.labels,
            Counter(
                (*run.ids[: place + 1].tolist(), int(label))
                for run in step.segments
                for place, label, weight in zip(run.places, run.labels, run.weights, strict=True)
                for _ in range(int(weight))
            ),
        )
        for step in steps
    ]


@given(examples)
def test_each_epoch_shows_each_window_once_in_full_steps(recipe: TrainingConfig, some: list[Example]) -> None:
    found = plan(recipe, some)
    steps = list(found.steps())
    assert len(steps) == len(found) == 3 * -(-len(some) // 4)
    for epoch in range(3):
        windows = [step.windows for step in steps if step.epoch == epoch]
        assert windows == [4] * (len(some) // 4) + [len(some) % 4] * (len(some) % 4 > 0)
    assert sum(len(run.ids) for step in steps for run in step.segments) == found.tokens


@given(examples)
def test_collapsed_or_not_a_step_is_the_same(recipe: TrainingConfig, some: list[Example]) -> None:
    collapsed, apart = plan(recipe, some), plan(recipe, some, collapse_nested_windows=False)
    assert spelled(list(collapsed.steps())) == spelled(list(apart.steps()))
    assert collapsed.tokens <= apart.tokens == sum(len(one.ids) - 1 for one in some) * 3
    assert all(run.windows == 1 for step in apart.steps() for run in step.segments)


@given(examples, st.integers(0, 30))
def test_the_steps_from_any_one_on_are_those_of_the_whole(recipe: TrainingConfig, some: list[Example], at: int) -> None:
    found = plan(recipe, some)
    assert spelled(list(found.steps(at))) == spelled(list(found.steps()))[at:]


def test_epochs_are_shuffled_and_seeded(recipe: TrainingConfig) -> None:
    some = [example([place % 50, place // 50]) for place in range(40)]
    first, again, other = (spelled(list(plan(recipe, some, seed=seed).steps())) for seed in (1, 1, 2))
    assert first == again != other
    assert [step[3] for step in first[:10]] != [step[3] for step in first[10:20]]


def test_a_step_that_learns_less_divides_by_less(recipe: TrainingConfig) -> None:
    masked = Example(
        np.array([1, 5, 6, 2], dtype=np.int32), np.array([False, False, True, True]), np.zeros(4, dtype=bool)
    )
    (step,) = plan(recipe, [masked], num_epochs=1).steps()
    assert step.labels == 2


def test_nothing_to_train_on_is_refused(recipe: TrainingConfig) -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        plan(recipe, [])
