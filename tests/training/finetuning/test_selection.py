import json
import math

from hypothesis import given
from hypothesis import strategies as st

from training.finetuning.checkpoint import Selection

LOSSES = st.lists(st.one_of(st.sampled_from([1.0, 2.0, math.nan, math.inf]), st.floats(0, 10)))


@given(LOSSES, st.integers(1, 5))
def test_it_keeps_the_first_of_the_lowest_and_counts_what_came_after(losses: list[float], patience: int) -> None:
    selection = Selection()
    for step, loss in enumerate(losses, start=1):
        before = [earlier for earlier in losses[: step - 1] if math.isfinite(earlier)]
        better = math.isfinite(loss) and all(loss < earlier for earlier in before)
        assert selection.consider(step, loss) == better
    finite = [loss for loss in losses if math.isfinite(loss)]
    assert selection.best == min(finite, default=None)
    assert selection.best_step == (losses.index(min(finite)) + 1 if finite else None)
    assert selection.exhausted(patience) == (len(losses) - (selection.best_step or 0) >= patience)
    assert not selection.exhausted(None)


@given(LOSSES, LOSSES)
def test_a_resumed_one_goes_on_as_the_uninterrupted_one(before: list[float], after: list[float]) -> None:
    whole, half = Selection(), Selection()
    for step, loss in enumerate(before):
        whole.consider(step, loss)
        half.consider(step, loss)
    resumed = Selection.from_json(json.loads(json.dumps(half.to_json(), allow_nan=False)))
    for step, loss in enumerate(after, start=len(before)):
        assert resumed.consider(step, loss) == whole.consider(step, loss)
    assert resumed.to_json() == whole.to_json()
    assert all(resumed.exhausted(patience) == whole.exhausted(patience) for patience in range(1, 9))
