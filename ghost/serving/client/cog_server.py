"""A Cog server: one prediction at a time, nothing kept after its end.

Every prediction is a PUT of an id of ours that streams server-sent events, which is the one way to tell three things
apart (read from the running server, 0.23.1): `start` means it runs, `completed` says how it ended, and an end of the
connection without `completed` is a loss. A PUT of an id that runs joins it, but one of an id that has ended runs it
again, and a GET of it is 405: so nothing here asks twice. The server cancels a prediction whose client has gone.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ghost.errors import PredictionLost, ServerBusy, ServerError, ServerStarting, ServerUnreachable
from ghost.serving.client.prediction import (
    Backend,
    Prediction,
    events,
    invalid_inputs,
    open_client,
    parsed,
    read,
    reason,
    told,
)

if TYPE_CHECKING:
    import httpx2

IN_DOUBT = "whether the prediction ran to its end is not known"
BUSY_SECONDS = 60  # to wait for somebody else's prediction
SILENT_SECONDS = 300  # between two events: a long prompt on a small CPU


class CogServer(Backend):
    """The server at `url`, which `ghost serve` starts and which runs in the image."""

    def __init__(self, url: str, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self.url = url.rstrip("/")
        self.busy_seconds = busy_seconds
        # Cog's server sends small packets and waits for each one's ACK, which a kernel delays by 40 ms on a connection
        # that has been used before: a first piece after 42 ms, on a new one after 16 (loopback, one token).
        self.http = open_client(self.url, keep=False)

    async def health(self) -> Mapping[str, Any]:
        """`status`: STARTING, READY, BUSY, SETUP_FAILED, UNHEALTHY or DEFUNCT; `setup.logs` what set-up wrote."""
        with told(self.url):
            response = await self.http.get("/health-check")
        return parsed(response)

    async def get(self, id: str) -> Prediction:
        raise ServerError(f"{self.url} keeps no predictions: {id} can only be followed by the connection that made it")

    async def cancel(self, id: str) -> None:
        url = f"{self._prediction(id)}/cancel"
        with told(url):
            response = await self.http.post(url)
        if response.status_code not in (200, 404):  # 404: it does not run, or no longer
            raise ServerError(f"{url}: HTTP status {response.status_code}")

    async def states(self, inputs: Mapping[str, Any], seconds: float) -> AsyncGenerator[Prediction, None]:
        """Waits, for a bounded time, while the server works for somebody else.

        It is free again only a moment after its answer: of 400 predictions one after the other 34 met "busy". Such a
        one has started nothing, so it is safe to repeat.
        """
        import httpx2

        id = f"ghost-{secrets.token_hex(12)}"
        timeout = httpx2.Timeout(SILENT_SECONDS, connect=self.http.timeout.connect)
        deadline, pause = time.monotonic() + min(self.busy_seconds, seconds), 0.02
        while True:
            running = True
            try:
                with told(self.url, sent=IN_DOUBT, id=id):
                    async with events(
                        self.http, "PUT", self._prediction(id), json={"input": inputs}, timeout=timeout
                    ) as (response, source):
                        if response.status_code != 200:
                            running = False
                            raise await self._refusal(response, inputs)
                        async for prediction in _followed(response, source, id):
                            running = not prediction.done
                            yield prediction
                if running:
                    raise PredictionLost(f"{self.url}: the stream ended early; {IN_DOUBT}", id)
                return
            except ServerUnreachable:
                running = False
                raise
            except ServerBusy:
                if time.monotonic() > deadline:
                    raise
            finally:
                # Closing the connection cancels too, once the server notices; over a network it may be long before it
                # does.
                if running:
                    with suppress(ServerError):
                        await asyncio.shield(self.cancel(id))
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1)

    def _prediction(self, id: str) -> str:
        return f"{self.url}/predictions/{quote(id, safe='')}"

    async def _refusal(self, response: "httpx2.Response", inputs: Mapping[str, Any]) -> ServerError:
        """Which error a response is that started nothing."""
        status, answer = response.status_code, parsed(response)
        if status == 422:
            return ServerError(invalid_inputs(answer.get("detail"), inputs))
        health = await self.health() if status in (409, 503) else {}
        condition = health.get("status", "")
        if condition == "SETUP_FAILED":
            return ServerError(f"the model could not be set up: {reason((health.get('setup') or {}).get('logs', ''))}")
        if condition in ("UNHEALTHY", "DEFUNCT"):
            return ServerError(f"{self.url} is {condition}: the model's process has died; start the server again")
        if status == 409:
            return ServerBusy(f"{self.url} is answering somebody else; try again when it has finished")
        if status == 503:
            return ServerStarting(f"{self.url} is still loading its model; try again in a minute")
        return ServerError(f"{response.url}: HTTP status {status}")


async def _followed(
    response: "httpx2.Response", source: "AsyncIterator[httpx2.ServerSentEvent]", id: str
) -> AsyncIterator[Prediction]:
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        yield read({"id": id} | parsed(response))  # a server without a schema that says it streams answers at once
        return
    prediction = Prediction(id, "starting")
    async for event in source:
        try:
            data = dict(json.loads(event.data))
        except (ValueError, TypeError) as error:
            raise ServerError(f"{response.url} streams something else than a prediction") from error
        if event.event == "completed":
            yield read({"id": id} | data)
            return
        if event.event == "start":
            prediction = replace(prediction, status="processing")
        elif event.event == "output":
            prediction = replace(prediction, output=prediction.output + str(data.get("chunk", "")))
        else:  # logs and metrics, which `completed` repeats
            continue
        yield prediction
