"""How replies end."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from replicate_deployment.chat_format import Labels
from training.evaluation.exchange import Estimate
from training.evaluation.intervals import share
from training.evaluation.replies import Said


@dataclass(frozen=True)
class Stopping:
    """Shares of replies, with Wilson's intervals.

    A reply ends by itself when the model draws the end token, as the person ends a turn. Stop sequences hide it when it
    does not; where they are not used, as in most other programs, it would go on for both sides.
    """

    itself: Estimate
    sequence: Estimate
    length: Estimate
    for_the_other: Estimate
    """It had begun a turn of the other side: only the stop sequence kept that from being seen."""
    on_and_on: Estimate
    """It had begun another turn of the person's own."""
    empty: Estimate
    tokens: float
    """Mean tokens drawn for a reply."""

    def as_json(self) -> dict[str, Any]:
        return {name: vars(part) if isinstance(part, Estimate) else round(part, 2) for name, part in vars(self).items()}


def stopping(said: Sequence[Said], labels: Labels) -> Stopping:
    """Raises ValueError when nothing was said."""
    total = len(said)
    ended = Counter(one.exchange.ended for one in said)
    other, again = (sum((one.written or "").endswith(f"\n{tag}") for one in said) for tag in (labels.other, labels.me))
    return Stopping(
        itself=share(ended["end_token"], total),
        sequence=share(ended["stop_sequence"], total),
        length=share(ended["length"], total),
        for_the_other=share(other, total),
        on_and_on=share(again, total),
        empty=share(sum(not one.exchange.reply.strip() for one in said), total),
        tokens=sum(one.tokens or 0 for one in said) / total,
    )
