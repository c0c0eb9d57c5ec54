"""Does the reply depend on what was said? Its loss after the true context, after another conversation's, after none."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from replicate_deployment.chat_format import Turn
from training.evaluation.exchange import Estimate, Exchange
from training.evaluation.heldout import clusters, gain
from training.evaluation.intervals import ratio
from training.evaluation.likelihood import Nats

Context = tuple[Turn, ...]


@dataclass(frozen=True)
class ContextUse:
    """Nats a token of the same replies; `gain` is shuffled less true, of the same replies, 0 for a model that does not
    listen. What the true context gives beyond the format is the gain; what the format gives is none less shuffled."""

    true: Estimate
    shuffled: Estimate
    none: Estimate
    gain: Estimate

    def as_json(self) -> dict[str, Any]:
        return {name: vars(estimate) for name, estimate in vars(self).items()}


def shuffled(exchanges: Sequence[Exchange], seed: int) -> list[Context] | None:
    """For each exchange the context of one of another conversation; None where there is no other."""
    order = random.Random(seed).sample(range(len(exchanges)), len(exchanges))
    groups = clusters(exchanges)
    found: list[Context] = [()] * len(exchanges)
    for place, number in enumerate(order):
        later = (order[(place + step) % len(order)] for step in range(1, len(order)))
        other = next((one for one in later if _differ(exchanges, groups, number, one)), None)
        if other is None:
            return None
        found[number] = exchanges[other].context
    return found


def _differ(exchanges: Sequence[Exchange], groups: Sequence[int], one: int, other: int) -> bool:
    return groups[one] != groups[other] and exchanges[one].context[-1] != exchanges[other].context[-1]


def context_use(
    exchanges: Sequence[Exchange], true: Sequence[Nats], measure: Callable[[Context, str], Nats], seed: int
) -> ContextUse | None:
    """`measure(context, reply)` tells the nats of a reply, `true` those after its own context. None where no second
    conversation is held out."""
    others = shuffled(exchanges, seed)
    if others is None:
        return None
    groups, replies = clusters(exchanges), [one.reply for one in exchanges]
    false = [measure(context, reply) for context, reply in zip(others, replies, strict=True)]
    bare = [measure((), reply) for reply in replies]

    def mean(nats: Sequence[Nats]) -> Estimate:
        return ratio([one.reply for one in nats], [one.tokens for one in nats], groups, seed)

    return ContextUse(mean(true), mean(false), mean(bare), gain(exchanges, true, false, seed))
