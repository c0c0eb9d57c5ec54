"""A model that answers over HTTP: what it says is judged, its likelihoods are not told."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from replicate_deployment.chat_format import Labels, render_prompt
from training.console import progress
from training.errors import PredictionFailed, ServerError
from training.evaluation.exchange import Exchange
from training.evaluation.judged import Judged
from training.evaluation.replies import Answers, Said

READY = ("READY", "BUSY")


def judge_served(where: str, exchanges: Sequence[Exchange], labels: Labels, seed: int) -> Judged:
    """Its replies, by its own sampling defaults. Raises ServerError when `where` cannot be reached."""
    return Judged("served", None, None, asyncio.run(_answers(where, exchanges, labels, seed)))


def check(where: str) -> None:
    """Whether the server answers at all, before minutes of other work. Raises ServerError when it does not, and when
    its model is not ready. Of Replicate, which starts one when it is asked, only the form of the name and a token."""
    asyncio.run(_check(where))


async def _check(where: str) -> None:
    from serving.client import CogServer, backend

    async with backend(where) as server:
        if isinstance(server, CogServer):
            status = (await server.health()).get("status")
            if status not in READY:
                raise ServerError(f"{where}: its health is {status or 'unknown'}, not READY; wait, or look at its log")


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
