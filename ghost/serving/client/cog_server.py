"""A Cog server: one prediction at a time, nothing stored afterwards.

Send each prediction as a PUT with an id of ours and read server-sent events. Only this distinguishes three cases
(observed with Cog 0.23.1): `start` means running, `completed` says how it ended, and a connection that ends without
`completed` is lost. A PUT with the id of a running prediction joins it, with that of a finished one runs it again, and
a GET is 405, so never send it twice. The server cancels a prediction whose client disconnects.
"""

import asyncio
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
    connection_errors,
    events,
    invalid_inputs,
    json_object,
    open_client,
    parsed,
    read,
    reason,
)

if TYPE_CHECKING:
    import httpx2

IN_DOUBT = "whether the prediction ran to its end is not known"
BUSY_SECONDS = 60  # to wait for somebody else's prediction
SILENT_SECONDS = 300  # between two events: a long prompt on a small CPU


class CogServer(Backend):
    """The server at `url`, as started by `ghost serve` or in the container."""

    def __init__(self, url: str, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self.url = url.rstrip("/")
        self.busy_seconds = busy_seconds
        # Cog sends small packets and waits for each one's ACK, which the kernel delays by 40 ms on a reused connection:
        # the first piece after 42 ms instead of 16 (loopback, one token).
        self.http = open_client(self.url, keep=False)

    async def health(self) -> Mapping[str, Any]:
        """`status`: STARTING, READY, BUSY, SETUP_FAILED, UNHEALTHY or DEFUNCT; `setup.logs`: the output of set-up."""
        with connection_errors(self.url):
            response = await self.http.get("/health-check")
        return parsed(response)

    async def ready(self) -> None:
        status = (await self.health()).get("status")
        if status not in ("READY", "BUSY"):
            raise ServerError(f"{self.url}: its health is {status or 'unknown'}, not READY; wait, or look at its log")

    async def cancel(self, id: str) -> None:
        url = f"{self._prediction(id)}/cancel"
        with connection_errors(url):
            response = await self.http.post(url)
        if response.status_code not in (200, 404):  # 404: not running
            raise ServerError(f"{url}: HTTP status {response.status_code}")

    async def states(self, inputs: Mapping[str, Any], seconds: float) -> AsyncGenerator[Prediction, None]:
        """Wait for a limited time while the server is busy with another client.

        It is free only a moment after its answer: of 400 predictions in sequence, 34 met "busy". A refused one has
        started nothing, so it can be repeated.
        """
        import httpx2

        id = f"ghost-{secrets.token_hex(12)}"
        timeout = httpx2.Timeout(SILENT_SECONDS, connect=self.http.timeout.connect)
        deadline, pause = time.monotonic() + min(self.busy_seconds, seconds), 0.02
        while True:
            running = True
            try:
                with connection_errors(self.url, sent=IN_DOUBT, id=id):
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
                # Closing the connection cancels as well, but a server may take long to notice.
                if running:
                    with suppress(ServerError):
                        await asyncio.shield(self.cancel(id))
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1)

    def _prediction(self, id: str) -> str:
        return f"{self.url}/predictions/{quote(id, safe='')}"

    async def _refusal(self, response: "httpx2.Response", inputs: Mapping[str, Any]) -> ServerError:
        """Return the error for a response that started nothing."""
        status, answer = response.status_code, parsed(response)
        if status == 422:
            return ServerError(invalid_inputs(answer.get("detail"), inputs))
        health = await self.health() if status in (409, 503) else {}
        condition = health.get("status", "")
        if condition == "SETUP_FAILED":
            return ServerError(f"the model could not be set up: {reason((health.get('setup') or {}).get('logs', ''))}")
        if condition in ("UNHEALTHY", "DEFUNCT"):
            return ServerError(f"{self.url} is {condition}: the model's process has died; restart the server")
        if status == 409:
            return ServerBusy(f"{self.url} is busy with another reply; try again in a moment")
        if status == 503:
            return ServerStarting(f"{self.url} is still loading its model; try again in a minute")
        return ServerError(f"{response.url}: HTTP status {status}")


async def _followed(
    response: "httpx2.Response", source: "AsyncIterator[httpx2.ServerSentEvent]", id: str
) -> AsyncIterator[Prediction]:
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        yield read({"id": id} | parsed(response))  # a server that does not stream answers at once
        return
    prediction = Prediction(id, "starting")
    async for event in source:
        try:
            data = json_object(event.data)
        except (ValueError, TypeError) as error:
            raise ServerError(f"{response.url} does not stream a prediction") from error
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
