"""A prediction on Replicate, which is paid for once it runs: a bot that ends leaves it, and the next fetches it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from serving.client import Prediction, Replicate
from serving.client.prediction import check
from training.errors import ServerError

CREATE_SECONDS = 5.0  # for the answer to a create, when the bot ends: without its id a prediction cannot be fetched


async def answer(
    server: Replicate,
    inputs: Mapping[str, Any],
    *,
    on_created: Callable[[str], None],
    ending: Callable[[], bool],
    seconds: float,
) -> Prediction:
    """As `Replicate.answer`, but who is cancelled while `ending()` cancels nothing. After `seconds` Replicate does."""
    deadline = time.monotonic() + seconds
    creating = asyncio.ensure_future(server.create(inputs, seconds=seconds))
    try:
        prediction = await asyncio.shield(creating)
    except asyncio.CancelledError:
        await asyncio.wait({creating}, timeout=CREATE_SECONDS)
        if not creating.done():
            creating.cancel()
        elif creating.exception() is None and ending():
            on_created(creating.result().id)
        elif creating.exception() is None:
            await _cancel(server, creating.result())
        raise
    try:
        on_created(prediction.id)
        ended = await server.wait(prediction, seconds=deadline - time.monotonic())
    except BaseException as error:
        if not (isinstance(error, asyncio.CancelledError) and ending()):
            await _cancel(server, prediction)
        raise
    return check(ended, inputs)


async def _cancel(server: Replicate, prediction: Prediction) -> None:
    with suppress(ServerError):
        await asyncio.shield(server.cancel(prediction.id))
