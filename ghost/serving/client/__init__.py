"""The HTTP client that demo, chat, bot, evaluation and release use to ask a ghost for a reply."""

import asyncio
from typing import Any

from ghost.errors import PredictionLost, ServerBusy, ServerStarting, ServerUnreachable, UsageError
from ghost.serving.client.cog_server import CogServer
from ghost.serving.client.prediction import Backend, Prediction, PredictionFailed
from ghost.serving.client.replicate import Replicate, account

__all__ = [
    "Backend",
    "CogServer",
    "Prediction",
    "PredictionFailed",
    "PredictionLost",
    "Replicate",
    "ServerBusy",
    "ServerStarting",
    "ServerUnreachable",
    "backend",
    "predict",
]


def backend(where: str) -> Backend:
    """Return the backend for `where`: `http://…` (a Cog server) or `replicate:OWNER/NAME[:VERSION]`.

    Raises UsageError if it is neither, or if REPLICATE_API_TOKEN is not set for Replicate.
    """
    if where.startswith(("http://", "https://")):
        return CogServer(where)
    scheme, _, model = where.partition(":")
    if scheme != "replicate":
        raise UsageError(f"{where!r} is not a server; give http://HOST:PORT or replicate:OWNER/NAME[:VERSION]")
    return Replicate(model, *account())


def predict(url: str, prompt: str, **inputs: Any) -> str:
    """Return the whole reply of the Cog server at `url`, for code that is not async. Raises as `CogServer.answer`."""

    async def reply() -> str:
        async with CogServer(url) as server:
            return (await server.answer({"prompt": prompt, **inputs})).output

    return asyncio.run(reply())
