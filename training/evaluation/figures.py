"""evaluation.json: every figure of every contender, each with its floor where the person has one. No message is in it.

A function of what the contenders were asked; the page, the verdict and the terminal are functions of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from replicate_deployment.chat_format import Labels
from training.evaluation import authorship, leaks, style
from training.evaluation.contenders import Kind
from training.evaluation.data import Learnt
from training.evaluation.exchange import Estimate, Exchange
from training.evaluation.heldout import breakdowns, clusters, gain, likelihood
from training.evaluation.judged import Judged
from training.evaluation.stopping import stopping
from training.finetuning.samples import distinct

FORMAT = 1
GHOSTS: tuple[Kind, ...] = ("merged", "adapter", "served")  # what was trained, in whichever form


def compared(
    judged: Sequence[Judged],
    exchanges: Sequence[Exchange],
    labels: Labels,
    learnt: Learnt,
    seed: int,
    heard: Sequence[Exchange] = (),
) -> dict[str, Any]:
    """Those of each contender, of the person, and what the first contender repeats of training; whether personal data
    is said is looked for in the replies of all that learnt it, and in what was `heard` besides (leaks.ask)."""
    base = next((one for one in judged if one.kind == "base"), None)
    said = [one.exchange.reply for one in judged[0].answers.said]
    ghosts = [one.exchange for ghost in judged if ghost.kind in GHOSTS for one in ghost.answers.said]
    return {
        "contenders": {one.kind: of_contender(one, base, exchanges, labels, seed) for one in judged},
        "person": of_person(exchanges, labels, seed),
        "leaks": {
            "overlap": leaks.overlap(said, [one.reply for one in exchanges], learnt),
            "personal": leaks.personal(ghosts, heard, learnt),
        },
    }


def of_contender(
    judged: Judged, base: Judged | None, exchanges: Sequence[Exchange], labels: Labels, seed: int
) -> dict[str, Any]:
    """The figures of one; `gain` is what it is likelier by than the base, in nats a token of the same replies."""
    said = judged.answers.said
    found: dict[str, Any] = {
        "replies": len(said),
        "unanswered": judged.answers.unanswered,
        "seconds": round(judged.answers.seconds, 1),
    }
    if judged.nats is not None:
        found["likelihood"] = likelihood(exchanges, judged.nats, seed).as_json()
        found["likelihood_by"] = {
            name: {group: one.as_json() for group, one in groups.items()}
            for name, groups in breakdowns(exchanges, judged.nats, seed).items()
        }
        if base is not None and base.nats is not None and base is not judged:
            found["gain"] = vars(gain(exchanges, judged.nats, base.nats, seed))
    if judged.context is not None:
        found["context"] = judged.context.as_json()
    if not said:
        return found
    if said[0].written is not None:
        found["stopping"] = stopping(said, labels).as_json()
    texts = [one.exchange.reply for one in said]
    found["distinct"] = {str(size): distinct(texts, size) for size in (1, 2)}
    found["style"] = style.as_json(style.compare(exchanges, [one.exchange for one in said], seed))
    found["authorship"] = vars(told_apart(exchanges, [one.exchange for one in said], seed))
    return found


def told_apart(exchanges: Sequence[Exchange], said: Sequence[Exchange], seed: int) -> Estimate:
    """The classifier's figure of the exchanges that were answered, conversations kept together."""
    own = answered(exchanges, said)
    groups = clusters(own)
    return authorship.tell_apart([one.reply for one in own], [one.reply for one in said], seed, (groups, groups))


def answered(exchanges: Sequence[Exchange], said: Sequence[Exchange]) -> list[Exchange]:
    """Those that `said`, which is in their order, answers: prompts that were too long have no reply."""
    left = iter(exchanges)
    return [
        next(own for own in left if (own.context, own.conversation) == (one.context, one.conversation)) for one in said
    ]


def of_person(exchanges: Sequence[Exchange], labels: Labels, seed: int) -> dict[str, Any]:
    """What the person's own held-out replies give: against half of themselves, and against those they write with.

    `themselves` is what a perfect ghost would reach; `others` what a stranger would.
    """
    own, talks = [one.reply for one in exchanges], clusters(exchanges)
    partners = [
        (turn.text, talk)
        for one, talk in zip(exchanges, talks, strict=True)
        for turn in one.context
        if turn.label == labels.other
    ]
    others = authorship.tell_apart(own, [text for text, _ in partners], seed, (talks, [talk for _, talk in partners]))
    return {
        "distinct": {str(size): distinct(own, size) for size in (1, 2)},
        "authorship": {
            "themselves": vars(authorship.tell_apart(own[::2], own[1::2], seed, (talks[::2], talks[1::2]))),
            "others": vars(others),
        },
    }


def held_out_facts(exchanges: Sequence[Exchange], total: int, seed: int) -> Mapping[str, Any]:
    known = all(one.conversation >= 0 for one in exchanges)
    talks = len(set(clusters(exchanges)))
    return {
        "replies": len(exchanges),
        "of": total,
        "conversations": talks if known else None,
        "resampled": "conversations" if known and talks > 1 else "replies",
        "seed": seed,
    }
