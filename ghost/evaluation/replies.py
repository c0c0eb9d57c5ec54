"""What a contender answers: by a model here or a server, and how its replies end."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ghost.console import progress
from ghost.errors import ServerError
from ghost.evaluation.contenders import NAMES, Contender, Kind
from ghost.evaluation.data import Estimate, Exchange
from ghost.evaluation.intervals import share
from ghost.evaluation.likelihood import Context, ContextUse, Nats, context_use, reply_nats
from ghost.serving.client.prediction import PredictionFailed
from replicate_deployment.chat_format import Labels, render_prompt
from replicate_deployment.errors import PromptError

if TYPE_CHECKING:
    from replicate_deployment.settings import Settings


@dataclass(frozen=True)
class Said:
    """exchange  the held-out one, with the contender's reply in the place of the person's
    written   what it wrote before the cut, its stop sequence included; None of a served model, which does not tell
    tokens    how many it drew
    """

    exchange: Exchange
    written: str | None
    tokens: int | None


@dataclass(frozen=True)
class Answers:
    """`seconds` is what all of them took; `unanswered` counts prompts that were too long."""

    said: list[Said]
    seconds: float
    unanswered: int


def answer(contender: Contender, exchanges: Sequence[Exchange], settings: "Settings", seed: int) -> Answers:
    """One reply to each, sampled with a seed of its own that all contenders share."""
    said: list[Said] = []
    unanswered = 0
    started = time.monotonic()
    with progress(f"replies: {NAMES[contender.kind]}", len(exchanges)) as bar:
        for number, exchange in enumerate(exchanges):
            bar.advance()
            try:
                reply = contender.engine.reply(contender.prompt(exchange.context), settings, seed=seed + number)
            except PromptError:
                unanswered += 1
                continue
            text = "".join(reply)
            answered = replace(exchange, reply=text, ended=str(reply.finish_reason))
            said.append(Said(answered, reply.written, reply.output_tokens))
    return Answers(said, time.monotonic() - started, unanswered)


# How replies end.


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
        tokens=round(sum(one.tokens or 0 for one in said) / total, 2),
    )


# All that one contender is asked, while it is in memory: likelihoods, then replies. What they mean is evaluate.py's.

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


# A model that answers over HTTP: what it says is judged, its likelihoods are not told.

READY = ("READY", "BUSY")


def judge_served(where: str, exchanges: Sequence[Exchange], labels: Labels, seed: int) -> Judged:
    """Its replies, by its own sampling defaults. Raises ServerError when `where` cannot be reached."""
    return Judged("served", None, None, asyncio.run(_answers(where, exchanges, labels, seed)))


def check(where: str) -> None:
    """Whether the server answers at all, before minutes of other work. Raises ServerError when it does not, and when
    its model is not ready. Of Replicate, which starts one when it is asked, only the form of the name and a token."""
    asyncio.run(_check(where))


async def _check(where: str) -> None:
    from ghost.serving.client import CogServer, backend

    async with backend(where) as server:
        if isinstance(server, CogServer):
            status = (await server.health()).get("status")
            if status not in READY:
                raise ServerError(f"{where}: its health is {status or 'unknown'}, not READY; wait, or look at its log")


async def _answers(where: str, exchanges: Sequence[Exchange], labels: Labels, seed: int) -> Answers:
    from ghost.serving.client import backend

    said: list[Said] = []
    unanswered = 0
    started = time.monotonic()
    async with backend(where) as server:
        with progress(f"replies of {where}", len(exchanges)) as bar:
            for number, exchange in enumerate(exchanges):
                prompt = render_prompt(exchange.context, labels)
                try:
                    told = await server.answer({"prompt": prompt, "seed": seed + number})
                except PredictionFailed:
                    unanswered += 1
                else:
                    tokens = told.metrics.get("output_tokens")
                    said.append(
                        Said(replace(exchange, reply=told.output), None, None if tokens is None else int(tokens))
                    )
                bar.advance()
    return Answers(said, time.monotonic() - started, unanswered)
