from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.finetuning.data import Example
from training.finetuning.packing import Group, collapse, segment

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
