"""Losses by where replies are from, and use of the context."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from ghost.evaluation.data import Exchange
from ghost.evaluation.evaluate import held_out_facts
from ghost.evaluation.likelihood import (
    Nats,
    breakdowns,
    context_group,
    context_use,
    gain,
    likelihood,
    ranking,
    shuffled,
)
from replicate_deployment.chat_format import Turn


def exchange(number: int, *, turns: int = 1, platform: str = "whatsapp", conversation: int | None = None) -> Exchange:
    context = tuple(Turn("B:" if turn % 2 == 0 else "A:", f"{number}.{turn}") for turn in range(turns))
    talk = number if conversation is None else conversation
    return Exchange(context, f"reply {number}", "fr", platform, conversation=talk)


SOME = [exchange(number, turns=1 + 2 * (number % 8), platform="signal" if number < 4 else "") for number in range(24)]


def test_means_are_over_tokens_and_the_end_token_is_apart() -> None:
    nats = [Nats(reply=2.0 * (1 + number % 2), tokens=1 + number % 2, characters=4, end=3.0) for number in range(24)]
    found = likelihood(SOME, nats, seed=0)
    assert found["nats_per_token"]["value"] == pytest.approx(2.0)
    assert (found["nats_per_token"]["low"], found["nats_per_token"]["high"]) == (pytest.approx(2.0), pytest.approx(2.0))
    assert found["perplexity"]["value"] == pytest.approx(math.e**2)
    assert found["nats_per_character"]["value"] == pytest.approx(36 * 2 / (24 * 4))
    assert found["end_nats"]["value"] == 3.0


def test_groups_that_are_too_small_or_unknown_are_left_out() -> None:
    nats = [Nats(1.0, 1, 1, 0.0)] * 24
    found = breakdowns(SOME, nats, seed=0)
    assert set(found) == {"language"}
    more = breakdowns(SOME * 4, nats * 4, seed=0)
    assert {name: list(groups) for name, groups in more.items()} == {
        "platform": ["signal"],
        "language": ["fr"],
        "context": ["1-2", "3-6", "7-12", "13-20"],
    }
    assert more["context"]["1-2"]["nats_per_token"]["n"] == 12


@pytest.mark.parametrize(("turns", "group"), [(1, "1-2"), (2, "1-2"), (3, "3-6"), (20, "13-20"), (21, "21+")])
def test_lengths_of_context_are_grouped(turns: int, group: str) -> None:
    assert context_group(turns) == group


def test_what_is_hard_in_a_reply_cancels_in_a_gain() -> None:
    worse = [Nats(10.0 * number + 1, 2, 1, 0.0) for number in range(24)]
    better = [Nats(10.0 * number, 2, 1, 0.0) for number in range(24)]
    found = gain(SOME, better, worse, seed=0)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_a_shuffled_context_is_of_another_conversation() -> None:
    talks = [exchange(number, conversation=number // 3) for number in range(12)]
    found = shuffled(talks, seed=0)
    assert found is not None
    for one, context in zip(talks, found, strict=True):
        (other,) = [talk for talk in talks if talk.context == context]
        assert other.conversation != one.conversation
    assert found == shuffled(talks, seed=0)
    assert shuffled([exchange(number, conversation=1) for number in range(12)], seed=0) is None


def test_a_model_that_listens_loses_by_another_context() -> None:
    def measure(context: tuple[Turn, ...], reply: str) -> Nats:
        continuations = bool(context) and context[-1].text.split(".")[0] == reply.split()[1]
        return Nats(1.0 if continuations else 3.0 if context else 4.0, 1, 1, 0.0)

    true = [measure(one.context, one.reply) for one in SOME]
    found = context_use(SOME, true, measure, seed=0)
    assert found is not None
    assert [found[name]["value"] for name in ("true", "shuffled", "none", "gain")] == [1.0, 3.0, 4.0, 2.0]


def test_the_true_reply_is_ranked_by_what_its_context_adds() -> None:
    contexts = [one.context for one in SOME]

    def rank(fits: float) -> dict[str, Any] | None:
        def score(context: Sequence[Turn], replies: Sequence[str]) -> list[float]:
            asked = context[-1].text.split(".")[0] if context else None
            usual = {reply: -float(place) for place, reply in enumerate(sorted(one.reply for one in SOME))}
            return [usual[reply] + (fits if reply.split()[1] == asked else 0.0) for reply in replies]

        return ranking(contexts, SOME, score, 0, lambda: None)

    listening, deaf, contrary = rank(0.5), rank(0.0), rank(-0.5)
    assert listening is not None
    assert (listening["reciprocal"]["value"], listening["candidates"]) == (1.0, len(SOME))
    # Whatever is as likely stands before it, so that a model that ignores the context has the last rank, not the first.
    assert deaf is not None
    assert contrary is not None
    assert deaf["reciprocal"]["value"] == contrary["reciprocal"]["value"] == pytest.approx(1 / len(SOME))
    assert listening["chance"] == pytest.approx(sum(1 / rank for rank in range(1, 25)) / 24)
    assert ranking(contexts[:5], SOME[:5], lambda context, replies: [0.0] * len(replies), 0, lambda: None) is None


@pytest.mark.parametrize(
    ("talks", "conversations", "resampled"),
    [([0, 0, 1], 2, "conversations"), ([4, 4, 4], 1, "replies"), ([-1, -1, -1], None, "replies")],
)
def test_what_was_resampled_is_what_the_intervals_resample(
    talks: list[int], conversations: int | None, resampled: str
) -> None:
    held = [Exchange((), "mdr", conversation=talk) for talk in talks]
    facts = held_out_facts(held, 3, 0)
    assert (facts["conversations"], facts["resampled"]) == (conversations, resampled)
