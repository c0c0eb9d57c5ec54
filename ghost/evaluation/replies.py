"""What a contender answers: by the engine that will be served, with its prompt, its sampling and its cut."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replicate_deployment.errors import PromptError
from training.console import progress
from training.evaluation.contenders import NAMES, Contender
from training.evaluation.exchange import Exchange

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
