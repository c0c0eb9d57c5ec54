"""All that one contender is asked, while it is in memory: likelihoods, then replies. What they mean is figures.py's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.console import progress
from training.evaluation.contenders import NAMES, Contender, Kind
from training.evaluation.context import Context, ContextUse, context_use
from training.evaluation.exchange import Exchange
from training.evaluation.likelihood import Nats, reply_nats
from training.evaluation.replies import Answers, answer

if TYPE_CHECKING:
    from replicate_deployment.settings import Settings

# A prompt with shots in it says nothing of the context alone, and adapter and merged model compute the same.
LISTENED_TO: tuple[Kind, ...] = ("merged", "base")


@dataclass(frozen=True)
class Judged:
    """`nats` and `answers.said` are in the order of the exchanges; a served model tells no likelihoods."""

    kind: Kind
    nats: list[Nats] | None
    context: ContextUse | None
    answers: Answers


def judge(contender: Contender, exchanges: Sequence[Exchange], settings: "Settings", seed: int) -> Judged:
    listens = contender.kind in LISTENED_TO
    with progress(f"likelihoods: {NAMES[contender.kind]}", len(exchanges) * (3 if listens else 1)) as bar:

        def measure(context: Context, reply: str) -> Nats:
            bar.advance()
            return reply_nats(contender.engine, context, reply)

        nats = [measure(contender.prompt(one.context), one.reply) for one in exchanges]
        context = context_use(exchanges, nats, measure, seed) if listens else None
    return Judged(contender.kind, nats, context, answer(contender, exchanges, settings, seed))
