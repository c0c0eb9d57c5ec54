"""The figures in words, and the three next steps that matter most.

A step is a rule over figures: whether it applies, its weight, and what to type or change. The weight, from 0 to 1, is
about the share of replies in which somebody would notice.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ghost.evaluation import authorship
from ghost.evaluation.data import Estimate

Figures = Mapping[str, Any]

STEPS = 3
ENOUGH = 100  # held-out replies from which intervals are narrow enough to compare two trainings
# By the classifier's AUC; 0.5 is guessing.
ALIKE = {0.6: "It is hard to tell from you", 0.75: "It sounds like you in part", 1.0: "It is easily told from you"}
SEEN = "These lines are not those held out from this model: it may have learnt some, and every figure flatters it then."


class Step(NamedTuple):
    weight: float
    text: str


def sentences(figures: Figures) -> list[str]:
    """The text on top of the page."""
    _, ours = main_contender(figures)
    base = figures["contenders"].get("base", {})
    said = [*_sentences(figures, ours, base)]
    model = figures.get("model")  # nothing is known of one that is only served
    if model and model.get("taught") and "gain" in ours:
        said = [_cost(ours, base), *said]
    return [SEEN, *said] if model and not model["held_out_from_it"] else said


def _sentences(figures: Figures, ours: Figures, base: Figures) -> Iterator[str]:
    if "authorship" in ours:
        yield _authorship(figures, ours["authorship"], base)
    if ours.get("style"):
        of_base = f"; of the base's, {alike(base)}" if base.get("style") else ""
        yield f"{alike(ours)} of {len(ours['style'])} figures of style are within your own variation{of_base}."
    if found := ours.get("stopping"):
        yield (
            f"{found['itself']['value']:.0%} of its replies end by themselves, {found['sequence']['value']:.0%} at a "
            f"stop sequence, {found['length']['value']:.0%} at the length limit."
        )
    if "likelihood" in ours:
        of_base = f", the base among {_perplexity(base)}" if "likelihood" in base else ""
        yield (
            f"It expects your real replies as if it chose each token among {_perplexity(ours)} equally likely ones"
            f"{of_base} (perplexity; lower is better)."
        )


def _cost(ours: Figures, ghost: Figures) -> str:
    """What got worse than in the ghost that preferences were taught to, by more than its interval."""
    worse = []
    if ours["gain"]["high"] < 0:
        worse.append(f"your replies are {-ours['gain']['value']:.3f} nats a token less likely")
    if ours["stopping"]["itself"]["high"] < ghost["stopping"]["itself"]["low"]:
        shares = (one["stopping"]["itself"]["value"] for one in (ours, ghost))
        worse.append("{:.0%} of replies end by themselves, {:.0%} before".format(*shares))
    for key, one in ours["style"].items():
        before = ghost["style"].get(key)
        if one["off"] and before and one["distance"] - before["distance"] > one["floor_high"] - one["floor"]:
            said = deviation(one)
            worse.append(said[0].lower() + said[1:])
    if not worse:
        return "Against the ghost before its preferences (the base here), nothing got worse by more than its interval."
    return (
        f"Against the ghost before its preferences (the base here), got worse: {'; '.join(worse)}. If that is not what "
        "you prefer, train with a larger beta or fewer epochs (config/preferences.yaml)."
    )


def steps(figures: Figures) -> list[str]:
    """At most STEPS, by falling weight."""
    _, ours = main_contender(figures)
    return [step.text for step in sorted(_steps(figures, ours), key=lambda step: -step.weight)[:STEPS]]


def main_contender(figures: Figures) -> tuple[str, Figures]:
    """The contender that would be served, which the verdict is about."""
    kind = next(
        kind for kind in ("merged", "adapter", "served", *figures["contenders"]) if kind in figures["contenders"]
    )
    return kind, figures["contenders"][kind]


def _perplexity(contender: Figures) -> str:
    return f"{contender['likelihood']['perplexity']['value']:.1f}"


def alike(contender: Figures) -> int:
    return sum(not one["off"] for one in contender["style"].values())


def _authorship(figures: Figures, ours: Figures, base: Figures) -> str:
    why = authorship.too_few(Estimate(**ours))
    if not authorship.is_informative(ours):
        return f"How alike it is to you is not known: {why or 'too few conversations'}."
    how = next(words for limit, words in ALIKE.items() if ours["value"] <= limit)
    others = [
        ("the base", base.get("authorship")),
        ("the people you write with", figures["person"]["authorship"]["others"]),
    ]
    beside = [f"{one['value']:.2f} for {who}" for who, one in others if one and authorship.is_informative(one)]
    return (
        f"{how}: a classifier that separates your replies from its has an AUC of {ours['value']:.2f} "
        f"({', '.join([*beside, '0.5 is guessing'])}{f'; {why}' * bool(why)})."
    )


def _steps(figures: Figures, ours: Figures) -> Iterator[Step]:
    if "gain" in ours and ours["gain"]["low"] <= 0:
        yield Step(
            1.0,
            f"It finds your replies no likelier than the base does (by {ours['gain']['value']:.3f} nats a token, "
            "and the interval holds 0): look at loss_curve.html, then raise num_epochs or learning_rate, or export "
            "more chats.",
        )
    stopping = ours.get("stopping", {})
    if (length := stopping.get("length", {}).get("value", 0.0)) > 0.03:
        yield Step(
            length,
            f"{length:.0%} of its replies run into max_new_tokens: it has not learnt to end. Prepare with "
            "--recipe conversations, which ends every turn of yours, or raise num_epochs.",
        )
    if (other := stopping.get("for_the_other", {}).get("value", 0.0)) > 0.1:
        yield Step(
            other / 4,  # the stop sequence hides it from whoever uses this engine
            f"{other:.0%} of its replies go on as the other side, and only the stop sequence hides it: with "
            "ghost prepare --recipe conversations the end of a turn is learnt.",
        )
    base = figures["contenders"].get("base", {}).get("style", {})
    for key, one in ours.get("style", {}).items():
        if one["off"]:
            yield Step(one["distance"] - one["floor"], f"{deviation(one)}: {_advice(one, base.get(key))}")
    if "context" in ours and ours["context"]["gain"]["low"] <= 0:
        yield Step(
            0.3,
            f"It hardly listens: another conversation's context costs it {ours['context']['gain']['value']:.3f} nats a "
            "token, and the interval holds 0. Export more chats; with few, habits are all that can be learnt.",
        )
    for leak in figures["leaks"]["above_limit"]:
        yield Step(0.9, leak)
    if (count := figures["held_out"]["replies"]) < ENOUGH:
        more = ", or raise --turns." if count < figures["held_out"]["of"] else "."
        yield Step(
            0.05,
            f"Only {count} held-out replies were judged: do not choose between two trainings by figures whose "
            f"intervals overlap. Export more chats{more}",
        )


def deviation(one: Figures) -> str:
    """Say how far one figure of `style.as_json` is off."""
    title = one["title"][0].upper() + one["title"][1:]
    if one["own"] is None:
        kind, own, said = max(one["kinds"], key=lambda kind: abs(kind[1] - kind[2]))
        return f"{title} differ, {kind!r} most ({said:.0%}; you {own:.0%})"
    if one["formula"].startswith("|p"):
        points = abs(one["own"] - one["said"]) * 100
        return f"{title} is off by {points:.0f} points ({one['said']:.0%}; you {one['own']:.0%})"
    return f"{title} is off ({one['said']:.1f} on average; you {one['own']:.1f})"


def _advice(one: Figures, base: Figures | None) -> str:
    """Advise more of the same if training has moved it towards the person, otherwise something else."""
    if base is None or base is one or not base["off"]:
        return "train on more of your chats, or for more epochs (num_epochs)."
    if one["distance"] < 0.9 * base["distance"]:
        return (
            f"training has moved it this way from the base ({base['distance']:.2f}); raise num_epochs or learning_rate."
        )
    return (
        f"training has not moved it (base: {base['distance']:.2f}); raise learning_rate, and teach every reply of "
        "yours with ghost prepare --recipe conversations."
    )
