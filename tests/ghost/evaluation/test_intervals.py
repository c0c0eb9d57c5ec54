import numpy as np
import pytest

from ghost.evaluation.data import Estimate
from ghost.evaluation.intervals import ratio, share


def test_a_ratio_is_of_the_sums_and_its_interval_holds_it() -> None:
    found = ratio([1.0, 2.0, 9.0], [1, 1, 2], [0, 1, 2], seed=0)
    assert found.value == 3.0
    assert found.low <= found.value <= found.high
    assert found == ratio([1.0, 2.0, 9.0], [1, 1, 2], [0, 1, 2], seed=0)


def test_replies_of_one_conversation_count_as_one() -> None:
    """Ten conversations of ten equal replies know no more than ten replies do."""
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=10), 10).tolist()
    ones, apart = [1.0] * 100, list(range(100))
    together = [number // 10 for number in apart]
    wide, narrow = (ratio(values, ones, groups, seed=0) for groups in (together, apart))
    assert wide.value == pytest.approx(narrow.value)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for trial in range(100):
        drawn = rng.normal(loc=2.0, size=60)
        found = ratio(drawn.tolist(), [1.0] * 60, list(range(60)), seed=trial)
        held += found.low <= 2.0 <= found.high
    assert 88 <= held <= 99


def test_one_group_is_resampled_by_observation_and_one_observation_is_a_point() -> None:
    found = ratio([1.0, 3.0], [1, 1], [7, 7], seed=0)
    assert (found.low, found.high) == (1.0, 3.0)
    assert ratio([1.0], [2], [0], seed=0) == Estimate(0.5, 0.5, 0.5, 1)


def test_a_group_without_tokens_is_no_division_by_zero() -> None:
    found = ratio([0.0, 4.0], [0, 2], [0, 1], seed=0)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


def test_a_share_has_wilsons_interval() -> None:
    found = share(0, 10)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(0.2775, abs=1e-4)  # Wilson 1927: z² / (n + z²)
    with pytest.raises(ValueError, match="nothing"):
        share(0, 0)
