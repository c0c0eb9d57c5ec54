import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghost.errors import DataError
from training.config import TrainingConfig
from training.finetuning.data import Example, Split
from training.finetuning.packing import Group, Plan, Step, collapse, flatten, pack, segment

END = 2


def example(body: list[int], learnt: list[bool] | None = None) -> Example:
    ids = [1, *body, END]
    mask = [False, *(learnt or [True] * len(body)), True]
    return Example(np.array(ids, dtype=np.int32), np.array(mask), np.array(mask))


# Few ids and short, so that many begin alike.
bodies = st.lists(st.integers(3, 4), min_size=1, max_size=5)
examples = st.lists(
    bodies.flatmap(
        lambda body: st.tuples(st.just(body), st.lists(st.booleans(), min_size=len(body), max_size=len(body)))
    ),
    min_size=1,
    max_size=30,
).map(lambda pairs: [example(body, learnt) for body, learnt in pairs])


def targets_one_by_one(some: list[Example]) -> Counter[tuple[tuple[int, ...], int]]:
    """(the tokens before it, the token), how often: what a causal model is taught, wherever it stands."""
    return Counter(
        (tuple(one.ids[:place].tolist()), int(one.ids[place]))
        for one in some
        for place in range(len(one.ids))
        if one.learnt[place]
    )


def targets_of_segment(group: Group) -> Counter[tuple[tuple[int, ...], int]]:
    run = segment(group)
    found: Counter[tuple[tuple[int, ...], int]] = Counter()
    for place, label, weight in zip(run.places, run.labels, run.weights, strict=True):
        found[tuple(run.ids[: place + 1].tolist()), int(label)] += int(weight)
    return found


@given(examples)
def test_a_collapsed_group_teaches_what_its_examples_teach(some: list[Example]) -> None:
    collapsed = sum((targets_of_segment(group) for group in collapse(some)), Counter())
    assert collapsed == targets_one_by_one(some)


@given(examples)
def test_each_example_is_in_one_group_whose_longest_begins_with_it(some: list[Example]) -> None:
    groups = collapse(some)
    assert Counter(id(one) for group in groups for one in group) == Counter(map(id, some))
    for group in groups:
        assert [len(one.ids) for one in group] == sorted(len(one.ids) for one in group)
        assert all((group[-1].ids[: len(one.ids) - 1] == one.ids[:-1]).all() for one in group)


@given(examples, st.randoms())
def test_groups_do_not_depend_on_the_order(some: list[Example], random: object) -> None:
    def spelled(groups: list[Group]) -> list[list[list[int]]]:
        return [[one.ids.tolist() for one in group] for group in groups]

    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert spelled(collapse(shuffled)) == spelled(collapse(some))


def test_the_last_token_of_a_shorter_window_predicts_two_things() -> None:
    (group,) = collapse([example([3, 4]), example([3])])
    run = segment(group)
    assert run.ids.tolist() == [1, 3, 4]  # the end token goes in nowhere: nothing is predicted from it
    assert sorted(zip(run.places.tolist(), run.labels.tolist(), run.weights.tolist(), strict=True)) == [
        (0, 3, 2.0),
        (1, END, 1.0),
        (1, 4, 1.0),
        (2, END, 1.0),
    ]
    assert run.windows == 2


def test_windows_that_part_are_two_groups() -> None:
    assert sorted(map(len, collapse([example([3, 3]), example([3, 4]), example([3])]))) == [1, 2]


segments = st.lists(st.integers(1, 40), min_size=1, max_size=40).map(
    lambda lengths: [segment([example([3] * length)]) for length in lengths]
)


@given(segments, st.integers(1, 100))
def test_every_segment_is_in_one_batch_within_the_budget(some: list, budget: int) -> None:  # type: ignore[type-arg]
    batches = pack(some, budget)
    assert sorted(id(one) for batch in batches for one in batch) == sorted(map(id, some))
    totals = [sum(len(one.ids) for one in batch) for batch in batches]
    assert all(total <= budget or len(batch) == 1 for total, batch in zip(totals, batches, strict=True))
    # First fit: the first segment of a batch had no room in any earlier one.
    assert all(len(batches[later][0].ids) + total > budget for later in range(len(batches)) for total in totals[:later])


def test_a_row_restarts_its_positions_and_moves_its_places() -> None:
    nested = [segment(group) for group in collapse([example([3, 4]), example([3]), example([5])])]
    row = flatten(nested, "cpu")
    assert row["input_ids"].tolist() == [[1, 3, 4, 1, 5]]
    assert row["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert row["lengths"] == [3, 2]
    assert row["places"].tolist() == [0, 1, 2, 1, 3, 4]
    assert row["labels"].tolist() == [3, 4, 2, 2, 5, 2]
    assert row["weights"].tolist() == [2, 1, 1, 1, 1, 1]


def plan(recipe: TrainingConfig, some: list[Example], *, done: int = 0, **changes: object) -> Plan:
    quick: dict[str, object] = {"gradient_accumulation_steps": 4, "num_epochs": 3} | changes
    return Plan(Split("windows", some, len(some), 0, 0), dataclasses.replace(recipe, **quick), done)  # type: ignore[arg-type]


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


def test_a_training_that_continues_two_epochs_shuffles_as_a_longer_one_would(recipe: TrainingConfig) -> None:
    some = [example([place % 50, place // 50]) for place in range(40)]
    longer, continued = (
        list(plan(recipe, some, num_epochs=4).steps()),
        list(plan(recipe, some, num_epochs=2, done=2).steps()),
    )
    assert [step[1:] for step in spelled(longer)[20:]] == [step[1:] for step in spelled(continued)]
    assert [step.epoch for step in continued] == [0] * 10 + [1] * 10


def test_a_step_that_learns_less_divides_by_less(recipe: TrainingConfig) -> None:
    masked = Example(
        np.array([1, 5, 6, 2], dtype=np.int32), np.array([False, False, True, True]), np.zeros(4, dtype=bool)
    )
    (step,) = plan(recipe, [masked], num_epochs=1).steps()
    assert step.labels == 2


def test_nothing_to_train_on_is_refused(recipe: TrainingConfig) -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        plan(recipe, [])
