"""One draw, beside transformers' processors and beside its own probabilities."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import logits_process

from replicate_deployment.sampling import Sampler
from replicate_deployment.settings import Settings

SCORES = torch.tensor([2.0, -1.0, 0.5, 0.0, 3.0, -2.0])
GREEDY = Settings(temperature=0)


def sampler(settings: Settings, seen: list[int], spared: set[int], seed: int | None = 0) -> Sampler:
    return Sampler(settings, seen, spared, seed, like=SCORES)


@given(
    st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6),
    st.lists(st.integers(0, 5)),
    st.sets(st.integers(0, 5)),
)
def test_the_penalty_is_that_of_transformers_but_for_the_spared(
    values: list[float], seen: list[int], spared: set[int]
) -> None:
    scores = torch.tensor(values)
    punished = torch.tensor([[token for token in seen if token not in spared]], dtype=torch.long)
    expected = logits_process.RepetitionPenaltyLogitsProcessor(1.2)(punished, scores[None])
    assert int(sampler(GREEDY, seen, spared)(scores)) == int(expected.argmax())


def test_what_was_drawn_is_punished_from_then_on() -> None:
    sample = sampler(GREEDY.replace(repetition_penalty=2), [0], {0})
    assert [int(sample(SCORES)) for _ in range(3)] == [4, 0, 0]  # 3.0, then 1.5 beside 2.0, which is spared
    sample = sampler(GREEDY.replace(repetition_penalty=1), [0], set())
    assert [int(sample(SCORES)) for _ in range(3)] == [4, 4, 4]


def test_tokens_come_as_often_as_their_probability_says() -> None:
    settings = Settings(max_new_tokens=1000, temperature=1.0, repetition_penalty=1)
    draws = [int(sample(SCORES)) for sample in [sampler(settings, [], set())] for _ in range(1000)]
    shares = torch.bincount(torch.tensor(draws), minlength=6) / 1000
    torch.testing.assert_close(shares, SCORES.softmax(-1), atol=0.05, rtol=0)


def test_a_seed_is_a_number_for_each_token() -> None:
    settings = Settings(max_new_tokens=50, temperature=2.0)
    first, again, other, none = (
        [int(sample(SCORES)) for sample in [sampler(settings, [], set(), seed)] for _ in range(50)]
        for seed in (1, 1, 2, None)
    )
    assert first == again
    assert first != other
    assert none not in (first, other)


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1 - 2**-53])
def test_what_has_no_probability_is_never_drawn(drawn: float) -> None:
    sample = sampler(Settings(repetition_penalty=1), [], set())
    sample._drawn = iter(torch.tensor([drawn], dtype=torch.float64).split(1))
    scores = torch.full((6,), float("-inf"))
    scores[3] = 1.0
    assert int(sample(scores)) == 3
