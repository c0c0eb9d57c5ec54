"""Generate a contender's replies, by a model here or a server, and count how they end."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghost.console import progress, tracked
from ghost.evaluation.contenders import Contender, Kind
from ghost.evaluation.data import Exchange
from ghost.evaluation.intervals import share
from ghost.evaluation.likelihood import RANKED, Context, Nats, context_use, ranking, reply_nats, scorer
from ghost.evaluation.prompts import labels_in
from ghost.serving import client
from ghost.serving.chat.conversation import SEEDS
from replicate_deployment.chat_format import Labels, render_prompt
from replicate_deployment.errors import PromptError

if TYPE_CHECKING:
    from replicate_deployment.settings import Settings


@dataclass(frozen=True)
class GeneratedReply:
    """exchange  the held-out one, with the contender's reply instead of the person's
    written   the text before the cut, with its stop sequence; None for a served model
    tokens    the number generated
    """

    exchange: Exchange
    written: str | None
    tokens: int | None


@dataclass(frozen=True)
class Answers:
    """`seconds` for all of them; `unanswered` counts prompts that were too long."""

    said: list[GeneratedReply]
    seconds: float
    unanswered: int


def answer(contender: Contender, exchanges: Sequence[Exchange], settings: "Settings", seed: int) -> Answers:
    """One reply to each exchange, sampled with a seed per exchange that all contenders share."""
    said: list[GeneratedReply] = []
    started = time.monotonic()
    for number, exchange in enumerate(tracked(exchanges, f"replies: {contender.name}")):
        try:
            reply = contender.engine.reply(contender.prompt(exchange.context), settings, seed=(seed + number) % SEEDS)
        except PromptError:
            continue
        text = "".join(reply)
        answered = replace(exchange, reply=text, ended=str(reply.finish_reason))
        said.append(GeneratedReply(answered, reply.written, reply.output_tokens))
    return Answers(said, time.monotonic() - started, len(exchanges) - len(said))


# How replies end.


def stopping(
    said: Sequence[GeneratedReply], labels: Labels, own_labels: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Shares of replies with Wilson's intervals, and the mean tokens drawn for a reply, for evaluation.json.

    A reply ends by itself if the model generates the end token. Otherwise a stop sequence cuts it; programs that use
    none would show the model continuing for both sides: `for_the_other` are turns of the other side that it began,
    `on_and_on` further turns of the person. `other_labels` are replies with a line that begins with a label that none
    of the person's lines begins with (`own_labels`), as in `C: Hi`. Raises ValueError if there are no replies.
    """
    total = len(said)
    ended = Counter(one.exchange.ended for one in said)
    other, again = (sum((one.written or "").endswith(f"\n{tag}") for one in said) for tag in (labels.other, labels.me))
    counts = {
        "itself": ended["end_token"],
        "sequence": ended["stop_sequence"],
        "length": ended["length"],
        "for_the_other": other,
        "on_and_on": again,
        "empty": sum(not one.exchange.reply.strip() for one in said),
        "other_labels": sum(bool(labels_in([one.exchange.reply]) - own_labels) for one in said),
    }
    shares = {name: vars(share(count, total)) for name, count in counts.items()}
    return {**shares, "tokens": round(sum(one.tokens or 0 for one in said) / total, 2)}


# Measure one contender while it is in memory: likelihoods, then replies.

# Few-shot prompts do not isolate the context, and the adapter computes the same as the merged model.
CONTEXT_MEASURED: tuple[Kind, ...] = ("merged", "base")


@dataclass(frozen=True)
class Result:
    """`nats` and `answers.said` are in the order of the exchanges; a served model gives no likelihoods."""

    kind: Kind
    nats: list[Nats] | None
    context: dict[str, Any] | None
    ranking: dict[str, Any] | None
    answers: Answers
    size: dict[str, int] | None = None


def run_contender(contender: Contender, exchanges: Sequence[Exchange], settings: "Settings", seed: int) -> Result:
    with_context = contender.kind in CONTEXT_MEASURED
    with progress(f"likelihoods: {contender.name}", len(exchanges) * (3 if with_context else 1)) as bar:

        def measure(context: Context, reply: str) -> Nats:
            bar.advance()
            return reply_nats(contender.engine, context, reply)

        nats = [measure(contender.prompt(one.context), one.reply) for one in exchanges]
        context = context_use(exchanges, nats, measure, seed) if with_context else None
    ranked = None
    if with_context:
        with progress(f"ranks of replies: {contender.name}", min(RANKED, len(exchanges))) as bar:
            shown = [contender.prompt(one.context) for one in exchanges]
            ranked = ranking(shown, exchanges, scorer(contender.engine), seed, bar.advance)
    answers = answer(contender, exchanges, settings, seed)
    return Result(contender.kind, nats, context, ranked, answers, contender.size)


# A model behind HTTP gives replies, but no likelihoods.


def run_served(where: str, folder: Path, exchanges: Sequence[Exchange], labels: Labels, seed: int) -> Result:
    """Its replies, with its own sampling defaults; `folder`: see `backend`. Raises ServerError if `where` cannot be
    reached."""
    return Result("served", None, None, None, asyncio.run(_answers(where, folder, exchanges, labels, seed)))


async def _answers(where: str, folder: Path, exchanges: Sequence[Exchange], labels: Labels, seed: int) -> Answers:
    said: list[GeneratedReply] = []
    started = time.monotonic()
    async with client.backend(where, folder) as server:
        for number, exchange in enumerate(tracked(exchanges, f"replies of {where}")):
            try:
                prompt = render_prompt(exchange.context, labels)
                told = await server.answer({"prompt": prompt, "seed": (seed + number) % SEEDS})
            except client.PredictionFailed:
                continue
            tokens = told.metrics.get("output_tokens")
            answered = replace(exchange, reply=told.output)
            said.append(GeneratedReply(answered, None, None if tokens is None else int(tokens)))
    return Answers(said, time.monotonic() - started, len(exchanges) - len(said))
