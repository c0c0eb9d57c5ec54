"""Losses by where replies are from, use of the context, and what the figures give reason to say."""

import math
from typing import Any

import pytest

from ghost.evaluation import verdict
from ghost.evaluation.data import Exchange
from ghost.evaluation.evaluate import held_out_facts
from ghost.evaluation.likelihood import Nats, breakdowns, context_group, context_use, gain, likelihood, shuffled
from replicate_deployment.chat_format import Turn


def exchange(number: int, *, turns: int = 1, platform: str = "whatsapp", conversation: int | None = None) -> Exchange:
    context = tuple(Turn("B:" if turn % 2 == 0 else "A:", f"{number}.{turn}") for turn in range(turns))
    talk = number if conversation is None else conversation
    return Exchange(context, f"reply {number}", "fr", platform, conversation=talk)


SOME = [exchange(number, turns=1 + 2 * (number % 8), platform="signal" if number < 4 else "") for number in range(24)]


def test_means_are_over_tokens_and_the_end_token_is_apart() -> None:
    nats = [Nats(reply=2.0 * (1 + number % 2), tokens=1 + number % 2, characters=4, end=3.0) for number in range(24)]
    found = likelihood(SOME, nats, seed=0)
    assert found.nats_per_token.value == pytest.approx(2.0)
    assert (found.nats_per_token.low, found.nats_per_token.high) == (pytest.approx(2.0), pytest.approx(2.0))
    assert found.perplexity.value == pytest.approx(math.e**2)
    assert found.nats_per_character.value == pytest.approx(36 * 2 / (24 * 4))
    assert found.end.value == 3.0


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
    assert more["context"]["1-2"].nats_per_token.n == 12


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
    assert (found.true.value, found.shuffled.value, found.none.value, found.gain.value) == (1.0, 3.0, 4.0, 2.0)


def estimate(value: float, low: float | None = None) -> dict[str, float]:
    return {"value": value, "low": value if low is None else low, "high": value, "n": 200}


def figures(**ours: Any) -> dict[str, Any]:
    """evaluation.json of a ghost that nothing is wrong with, but for what keywords say."""
    case = {
        "title": "lines all in lower case", "formula": "|p − q|", "own": 0.9, "said": 0.9, "distance": 0.02,
        "floor": 0.02, "floor_high": 0.05, "off": False, "kinds": [],
    }  # fmt: skip
    good = {
        "gain": estimate(1.0),
        "stopping": {key: estimate(0.0) for key in ("length", "for_the_other")},
        "style": {"lower_case": case | ours.pop("case", {})},
        "context": {"gain": estimate(0.2)},
    }
    off = case | {"distance": 0.6, "off": True}
    return {
        "held_out": {"replies": ours.pop("replies", 200), "of": 200},
        "contenders": {"merged": good | ours.pop("merged", {}), "base": {"style": {"lower_case": off}}},
        "leaks": {"above_limit": ours.pop("leaks", [])},
    }


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"value": 0.8, "low": 0.7, "high": 0.9, "n": 80}, "an AUC of 0.80 (0.60 for the base, 0.90 for the people"),
        ({"value": 0.8, "low": 0.7, "high": 0.9, "n": 80}, "It is easily told from you: "),
        ({"value": 0.7, "low": 0.6, "high": 0.8, "n": 80}, "It sounds like you in part: "),
        ({"value": 0.6, "low": 0.5, "high": 0.7, "n": 80}, "It is hard to tell from you: "),
        ({"value": 0.8, "low": 0.7, "high": 0.9, "n": 30}, "0.5 is guessing; only 30 replies of each are"),
        ({"value": 0.5, "low": 0.0, "high": 1.0, "n": 4}, "is not known: only 4 replies of each"),
        ({"value": 0.5, "low": 0.0, "high": 1.0, "n": 60}, "is not known: too few conversations."),
    ],
)
def test_a_classifier_that_could_learn_nothing_is_not_said_to_be_guessing(told: dict[str, float], words: str) -> None:
    contenders = {"merged": {"authorship": told}, "base": {"authorship": estimate(0.6)}}
    person = {"authorship": {"others": estimate(0.9)}}
    (found,) = verdict.sentences({"contenders": contenders, "person": person})
    for held_out, first in ((True, found), (False, verdict.SEEN)):
        model = {"held_out_from_it": held_out}
        assert verdict.sentences({"contenders": contenders, "person": person, "model": model})[0] == first
    assert words in found


def test_what_is_said_first_needs_no_unit() -> None:
    merged = {"authorship": estimate(0.7), "likelihood": {"perplexity": estimate(24.0)}}
    found = verdict.sentences({"contenders": {"merged": merged}, "person": {"authorship": {"others": estimate(0.9)}}})
    assert [any(word in sentence for word in ("nats", "perplexity")) for sentence in found] == [False, True]


def test_nothing_wrong_is_no_step() -> None:
    assert verdict.steps(figures()) == []


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"merged": {"gain": estimate(0.1, low=-0.1)}}, "no likelier than the base does"),
        ({"merged": {"stopping": {"length": estimate(0.5)}}}, "50% of its replies run into max_new_tokens"),
        ({"merged": {"stopping": {"for_the_other": estimate(0.5)}}}, "50% of its replies go on as the other side"),
        ({"merged": {"context": {"gain": estimate(0.1, low=-0.1)}}}, "It hardly listens"),
        ({"leaks": ["It recites."]}, "It recites."),
        ({"replies": 30}, "Only 30 held-out replies were judged"),
        (
            {"case": {"said": 0.7, "distance": 0.2, "off": True}},
            "Lines all in lower case is off by 20 points (70%; you 90%): training has moved it this way",
        ),
        ({"case": {"said": 0.3, "distance": 0.6, "off": True}}, "training has not moved it (base: 0.60)"),
        (
            {"case": {"own": None, "said": None, "kinds": [["😭", 0.4, 0.1]], "off": True, "distance": 0.3}},
            "Lines all in lower case differ, '😭' most (10%; you 40%)",
        ),
    ],
)
def test_each_failing_has_its_step(changes: dict[str, Any], step: str) -> None:
    (found,) = verdict.steps(figures(**changes))
    assert step in found


def test_the_weightiest_three_are_said() -> None:
    wrong = {"gain": estimate(0.0, low=-1), "stopping": {"length": estimate(0.5)}, "context": {"gain": estimate(0, -1)}}
    found = verdict.steps(figures(merged=wrong, replies=30, leaks=["It recites."]))
    assert len(found) == verdict.STEPS
    assert [word in text for word, text in zip(("likelier", "recites", "max_new_tokens"), found, strict=True)] == [
        True
    ] * 3


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
