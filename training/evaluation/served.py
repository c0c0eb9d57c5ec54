"""A model that answers over HTTP: what it says is judged, its likelihoods are not told."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from replicate_deployment.chat_format import Labels, render_prompt
from training.console import progress
from training.errors import PredictionFailed
from training.evaluation.exchange import Exchange
from training.evaluation.judged import Judged
from training.evaluation.replies import Answers, Said


def judge_served(where: str, exchanges: Sequence[Exchange], labels: Labels, seed: int) -> Judged:
    """Its replies, by its own sampling defaults. Raises ServerError when `where` cannot be reached."""
    return Judged("served", None, None, asyncio.run(_answers(where, exchanges, labels, seed)))


async def _answers(where: str, exchanges: Sequence[Exchange], labels: Labels, seed: int) -> Answers:
    from serving.client import backend

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
