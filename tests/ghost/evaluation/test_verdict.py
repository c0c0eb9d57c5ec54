"""What the figures give reason to say."""

from typing import Any

import pytest

from ghost.evaluation import verdict


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


def taught(ours: dict[str, Any], ghost: dict[str, Any]) -> str:
    """The first sentence of a ghost that was taught preferences."""
    found = figures(merged=ours)
    found["contenders"]["base"] = found["contenders"]["merged"] | ghost
    found["contenders"]["merged"]["stopping"]["sequence"] = estimate(0.0)
    return verdict.sentences(found | {"model": {"held_out_from_it": True, "taught": True}})[0]


def test_what_preferences_cost_the_voice_is_said_where_it_exceeds_its_interval() -> None:
    def ended(value: float) -> dict[str, Any]:
        shares = {"itself": estimate(value, value - 0.1)} | {key: estimate(0.0) for key in ("sequence", "length")}
        return {"stopping": shares | {"for_the_other": estimate(0.0)}}

    def style(distance: float, *, off: bool) -> dict[str, Any]:
        one = figures()["contenders"]["merged"]["style"]["lower_case"]
        return {"style": {"lower_case": one | {"distance": distance, "said": 0.9 - distance, "off": off}}}

    same = ended(0.9) | style(0.02, off=False) | {"gain": estimate(0.001, -0.01)}
    assert "nothing got worse" in taught(same, same)
    assert "0.020 nats a token less likely" in taught(same | {"gain": estimate(-0.02, -0.03)}, same)
    assert "50% of replies end by themselves, 90% before" in taught(same | ended(0.5), same)
    assert "nothing got worse" in taught(same | ended(0.85), same)
    assert "off by 40 points" in taught(same | style(0.4, off=True), same)
    assert "nothing got worse" in taught(same | style(0.4, off=True), same | style(0.39, off=True))
    assert "got worse" not in verdict.sentences(figures(merged=same))[0]


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
