"""A model on Replicate: predictions have ids, run on without us, and are kept for an hour.

What is careful here: Replicate knows no idempotency key, and each prediction is paid for. So a create is sent once.
When its answer is lost, the list of predictions is searched for it: each of ours carries a random seed, by which it is
known.
"""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2

from serving.client.prediction import Prediction, check, read
from serving.client.replicate_api import API, ATTEMPTS, Pauses, ReplicateApi
from serving.client.replicate_models import find_model
from serving.client.transport import events, parsed, told
from training.errors import PredictionFailed, PredictionLost, ServerError, UsageError

MODEL = re.compile(r"(deployments/)?([\w.-]+/[\w.-]+)(?::([0-9a-f]{64}))?")
IN_DOUBT = "whether it runs is not known: look at replicate.com/predictions before you send it again"
CLOCKS_DIFFER = timedelta(minutes=5)  # between this machine and Replicate, when searching by time
STREAM_SECONDS = 1800  # after which Replicate ends a stream's prediction though we are gone
SILENT_SECONDS = 60  # of a stream, after which it is opened anew; a model that boots says nothing for minutes


class Replicate:
    """`model`: OWNER/NAME:VERSION (64 hex digits), OWNER/NAME for a model's latest version or, where there is no such
    model, a deployment of that name, or deployments/OWNER/NAME.

    Raises UsageError when it is none of these.
    """

    def __init__(self, model: str, token: str, api: str = API) -> None:
        if not (parts := MODEL.fullmatch(model)) or (parts[1] and parts[3]):
            raise UsageError(f"{model!r} is no model on Replicate; name OWNER/NAME or OWNER/NAME:VERSION (64 digits)")
        self.name = parts[2]
        self.api = ReplicateApi(token, api)
        self._where = f"/v1/deployments/{self.name}/predictions" if parts[1] else "/v1/predictions"
        self._version = parts[3]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.api.http.aclose()

    async def create(
        self,
        inputs: Mapping[str, Any],
        *,
        id: str | None = None,
        seconds: float | None = None,
        webhook: str | None = None,
    ) -> Prediction:
        """`id` is not used: Replicate names predictions itself. After `seconds` Replicate ends it by itself.

        `webhook` is told when it has ended. Raises PredictionLost when it was sent, its answer was lost and it is not
        in the list; ServerBusy after 429 for too long, with nothing created.
        """
        inputs = {"seed": secrets.randbits(32)} | dict(inputs)
        since = datetime.now(UTC)
        body: dict[str, Any] = {"input": inputs} | await self._target()
        if webhook:
            body |= {"webhook": webhook, "webhook_events_filter": ["completed"]}
        headers = {"Cancel-After": f"{max(5, round(seconds))}s"} if seconds else {}
        try:
            response = await self.api.post_once(self._where, body, sent=IN_DOUBT, headers=headers)
            if response.status_code < 300:
                with suppress(ServerError):  # a page of a proxy on the way, or a status that is new to us
                    return read(parsed(response))
            raise PredictionLost(f"Replicate answers a create with HTTP status {response.status_code}; {IN_DOUBT}")
        except PredictionLost:
            if found := await self.find(inputs, since):
                return found
            raise

    async def get(self, id: str) -> Prediction:
        return read(await self.api.get(f"/v1/predictions/{quote(id, safe='')}"))

    async def cancel(self, id: str) -> None:
        await self.api.post_again(f"/v1/predictions/{quote(id, safe='')}/cancel")

    async def stream(
        self,
        inputs: Mapping[str, Any],
        *,
        id: str | None = None,
        on_created: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[str, None]:
        prediction = await self.create(inputs, seconds=STREAM_SECONDS)
        try:
            if on_created:
                on_created(prediction.id)
            said = ""
            if url := prediction.urls.get("stream"):
                async with aclosing(self._pieces(httpx2.URL(url))) as pieces:
                    async for piece in pieces:
                        said += piece
                        yield piece
            # How it ended, and, where its stream was lost, what has not been said yet.
            pauses = Pauses()
            while True:
                prediction = await self._state(prediction.id)
                if prediction.output.startswith(said) and (rest := prediction.output[len(said) :]):
                    said += rest
                    yield rest
                if prediction.done:
                    break
                await pauses.next()
            check(prediction, inputs)
            # Line ends aside, which an event stream does not keep. What was yielded cannot be taken back.
            if not prediction.data_removed and said.splitlines() != prediction.output.splitlines():
                raise PredictionFailed(
                    f"prediction {prediction.id}: what was streamed is not its output; that is at "
                    f"replicate.com/p/{prediction.id}",
                    prediction,
                )
        finally:
            await self._leave(prediction)

    async def answer(
        self,
        inputs: Mapping[str, Any],
        *,
        id: str | None = None,
        on_created: Callable[[str], None] | None = None,
        seconds: float = 300,
    ) -> Prediction:
        deadline = time.monotonic() + seconds
        prediction = await self.create(inputs, seconds=seconds)
        try:
            if on_created:
                on_created(prediction.id)
            prediction = await self.wait(prediction, seconds=deadline - time.monotonic())
        finally:
            await self._leave(prediction)
        return check(prediction, inputs)

    async def wait(self, prediction: Prediction, *, seconds: float, pause: float | None = None) -> Prediction:
        """Poll to the end, whichever it is. Raises PredictionFailed after `seconds`; the prediction then runs on."""
        pauses = Pauses(pause)
        try:
            async with asyncio.timeout(seconds):
                while not prediction.done:
                    await pauses.next()
                    prediction = await self._state(prediction.id)
        except TimeoutError as error:
            raise PredictionFailed(f"prediction {prediction.id}: no end within {seconds:.0f} s", prediction) from error
        return prediction

    async def _target(self) -> dict[str, str]:
        """The version to name in a create; none for a deployment."""
        if self._where != "/v1/predictions":
            return {}
        if not self._version:
            if model := await find_model(self.api, self.name):
                self._version = model.version
                if not self._version:
                    raise ServerError(
                        f"{self.name} has no version on Replicate yet; push one: ghost release {self.name}"
                    )
            elif "name" in await self.api.get(f"/v1/deployments/{self.name}", missing=True):
                self._where = f"/v1/deployments/{self.name}/predictions"
                return {}
            else:
                raise ServerError(f"{self.name}: this account sees no such model or deployment on Replicate")
        return {"version": self._version}

    async def find(self, inputs: Mapping[str, Any], since: datetime) -> Prediction | None:
        """A prediction with these inputs that was created since then; the list may be a moment behind."""
        pauses = Pauses()
        while pauses.count < 3:
            await pauses.next()
            with suppress(ServerError):
                page = await self.api.get("/v1/predictions", created_after=(since - CLOCKS_DIFFER).isoformat())
                for row in page.get("results", []):
                    if all((row.get("input") or {}).get(name) == value for name, value in inputs.items()):
                        return read(row)
        return None

    async def _state(self, id: str) -> Prediction:
        try:
            return await self.get(id)
        except ServerError as error:
            raise PredictionLost(f"{error}; prediction {id} may run on: look at replicate.com/p/{id}", id) from error

    async def _leave(self, prediction: Prediction) -> None:
        if not prediction.done:
            with suppress(ServerError):
                await asyncio.shield(self.cancel(prediction.id))

    async def _pieces(self, url: httpx2.URL) -> AsyncGenerator[str, None]:
        """The output events, each once; a stream that is cut is opened again after the last one, by its id.

        Ends without an error when it cannot go on: the prediction itself tells the rest.
        """
        last, pauses = "", Pauses()
        seen: set[str] = set()
        timeout = httpx2.Timeout(SILENT_SECONDS, connect=self.api.http.timeout.connect)
        while pauses.count < ATTEMPTS:
            headers = self.api.authorization(url) | ({"Last-Event-ID": last} if last else {})
            with suppress(ServerError), told(str(url)):
                async with events(self.api.http, "GET", str(url), headers=headers, timeout=timeout) as (answer, source):
                    if answer.status_code != 429 and 400 <= answer.status_code < 500:
                        return
                    async for event in source:
                        if event.event in ("done", "error"):
                            return
                        if event.event != "output" or event.id in seen:
                            continue
                        last = event.id
                        seen.update({last} - {""})
                        yield event.data
                        if not last:  # cannot be opened again behind this one
                            pauses.count = ATTEMPTS
            await pauses.next()
