from hypothesis import given
from hypothesis import strategies as st

from tests.training.finetuning.test_segments import example
from training.finetuning.packing import collapse, flatten, pack, segment

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
