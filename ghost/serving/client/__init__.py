"""The HTTP client that demo, chat, bot, evaluation and release use to ask a ghost for a reply."""

import asyncio
from pathlib import Path
from typing import Any

from ghost.errors import PredictionLost, ServerBusy, ServerStarting, ServerUnreachable, UsageError
from ghost.serving.client.cog_server import CogServer
from ghost.serving.client.completions import Completions
from ghost.serving.client.prediction import Backend, Prediction, PredictionFailed
from ghost.serving.client.replicate import Replicate, account

__all__ = [
    "Backend",
    "CogServer",
    "Completions",
    "Prediction",
    "PredictionFailed",
    "PredictionLost",
    "Replicate",
    "ServerBusy",
    "ServerStarting",
    "ServerUnreachable",
    "backend",
    "check",
    "predict",
]


SERVERS = "http://HOST:PORT, replicate:OWNER/NAME[:VERSION] or completions:http://HOST:PORT/v1#MODEL"


def backend(where: str, folder: Path = Path("models/merged")) -> Backend:
    """Return the backend for `where`: a Cog server, a model on Replicate, or a server of completions, for which
    `folder` holds the model's ghost.json and tokenizer (see completions.py).

    Raises UsageError if it is none of them, or if REPLICATE_API_TOKEN is not set for Replicate; WeightsError if
    `folder` is needed and lacks them.
    """
    scheme, _, rest = where.partition(":")
    if scheme in ("http", "https"):
        return CogServer(where)
    if scheme == "replicate":
        return Replicate(rest, *account())
    if scheme == "completions":
        return Completions(rest, folder)
    raise UsageError(f"{where!r} is not a server; give {SERVERS}")


def check(where: str, folder: Path) -> None:
    """Check that the server can answer, before other work. Raises ServerError if it cannot. For Replicate, which starts
    a model on demand, check only the form of the name and the token."""

    async def ready() -> None:
        async with backend(where, folder) as server:
            await server.ready()

    asyncio.run(ready())


def predict(url: str, prompt: str, **inputs: Any) -> str:
    """Return the whole reply of the Cog server at `url`, for code that is not async. Raises as `CogServer.answer`."""

    async def reply() -> str:
        async with CogServer(url) as server:
            return (await server.answer({"prompt": prompt, **inputs})).output

    return asyncio.run(reply())
