"""The one HTTP client of everything that asks a ghost for a reply: demo, chats, bot, evaluation, release."""

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
    """The server that `where` names: `http://…` a Cog server, `replicate:OWNER/NAME[:VERSION]` one of Replicate's.

    Raises UsageError when it names neither, or when REPLICATE_API_TOKEN is not set for Replicate.
    """
    if where.startswith(("http://", "https://")):
        return CogServer(where)
    scheme, _, model = where.partition(":")
    if scheme != "replicate":
        raise UsageError(f"{where!r} is no server; name http://HOST:PORT or replicate:OWNER/NAME[:VERSION]")
    return Replicate(model, *account())


def predict(url: str, prompt: str, **inputs: Any) -> str:
    """The whole reply of the Cog server at `url`, for programs that are not async. Raises as `CogServer.answer`."""

    async def reply() -> str:
        async with CogServer(url) as server:
            return (await server.answer({"prompt": prompt, **inputs})).output

    return asyncio.run(reply())
