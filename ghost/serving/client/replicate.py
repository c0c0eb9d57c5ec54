"""A model on Replicate: predictions have ids, continue without us, and are stored for an hour.

Replicate has no idempotency key and every prediction costs money, so send each create once. If its answer is lost,
search the list of predictions for its inputs, which contain a random seed. Replicate's own client does not do this
(docs/decisions/replicate_client.md).
"""

import asyncio
import os
import re
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ghost.errors import PredictionLost, ServerBusy, ServerError, ServerUnreachable, UsageError
from ghost.serving.client.prediction import (
    Backend,
    Prediction,
    PredictionFailed,
    connection_errors,
    events,
    invalid_inputs,
    open_client,
    parsed,
    read,
    reason,
)

if TYPE_CHECKING:
    import httpx2

TOKEN = "REPLICATE_API_TOKEN"
API = "https://api.replicate.com"
BASE_URL = "REPLICATE_BASE_URL"  # overrides the API's address, as in Replicate's own client
MODEL = re.compile(r"(deployments/)?([\w.-]+/[\w.-]+)(?::([0-9a-f]{64}))?")
IN_DOUBT = "it may be running: look at replicate.com/predictions before you send it again"
CLOCKS_DIFFER = timedelta(minutes=5)  # between this machine and Replicate, when searching by time
SILENT_SECONDS = 20  # of a stream, then poll instead; a model that boots sends nothing for minutes
ATTEMPTS = 6  # of a request that can be repeated: 15 seconds with these pauses
PAUSES = [0.5, 1, 2, 4, 5]  # seconds between attempts; the last one repeats
THROTTLED_SECONDS = 90  # total wait because of 429; limits are reset within a minute


@dataclass(frozen=True)
class Model:
    visibility: str
    version: str | None  # the latest one


def account() -> tuple[str, str]:
    """Return the token and the API's address from the environment. Raises UsageError without a token."""
    if not (token := os.environ.get(TOKEN)):
        raise UsageError(f"{TOKEN} is not set; create a token at replicate.com/account/api-tokens and export it")
    return token, (os.environ.get(BASE_URL) or API).rstrip("/").removesuffix("/v1")


class Replicate(Backend):
    """`model`: OWNER/NAME:VERSION (64 hex digits), OWNER/NAME (the model's latest version, or a deployment of that name
    if there is no such model), or deployments/OWNER/NAME.

    Raises UsageError on anything else.
    """

    def __init__(self, model: str, token: str, api: str = API) -> None:
        if not (parts := MODEL.fullmatch(model)) or (parts[1] and parts[3]):
            raise UsageError(
                f"{model!r} is not the name of a model on Replicate; give OWNER/NAME or OWNER/NAME:VERSION (64 digits)"
            )
        self.name, self._version, self._token = parts[2], parts[3], token
        self._create_path = f"/v1/deployments/{self.name}/predictions" if parts[1] else "/v1/predictions"
        self.http = open_client(api, self._authorize)

    async def ready(self) -> None:
        """Do nothing: the model starts on demand."""

    async def create(self, inputs: Mapping[str, Any], *, seconds: float) -> Prediction:
        """Send the inputs once; Replicate ends the prediction after `seconds`.

        Raises PredictionLost if the answer was lost and the prediction is not in the list; ServerBusy after 429 for too
        long, with nothing created.
        """
        inputs = {"seed": secrets.randbits(32)} | dict(inputs)
        since = datetime.now(UTC)
        target, limit = await self._target(), {"Cancel-After": f"{max(5, round(seconds))}s"}
        try:
            response = await self.request(
                "POST", self._create_path, sent=IN_DOUBT, json={"input": inputs} | target, headers=limit
            )
            if response.status_code < 300:
                with suppress(ServerError):  # a proxy's page, or an unknown status
                    return read(parsed(response))
            raise PredictionLost(f"Replicate answers a create with HTTP status {response.status_code}; {IN_DOUBT}")
        except PredictionLost:
            with suppress(ServerError):
                if found := await self.find(inputs, since):
                    return found
            raise

    async def find(self, inputs: Mapping[str, Any], since: datetime) -> Prediction | None:
        """Find a prediction with these inputs created since then. The list may be a moment behind."""
        after = (since - CLOCKS_DIFFER).isoformat()
        for pause in PAUSES[:3]:
            await asyncio.sleep(pause)
            page = parsed(await self.request("GET", "/v1/predictions", params={"created_after": after}))
            for row in page.get("results", []):
                same_version = self._version in (None, row.get("version"))
                if same_version and inputs.items() <= (row.get("input") or {}).items():
                    return read(row)
        return None

    async def get(self, id: str) -> Prediction:
        return read(parsed(await self.request("GET", f"/v1/predictions/{quote(id, safe='')}")))

    async def cancel(self, id: str) -> None:
        await self.request("POST", f"/v1/predictions/{quote(id, safe='')}/cancel", missing=True)

    async def states(self, inputs: Mapping[str, Any], seconds: float) -> AsyncGenerator[Prediction, None]:
        prediction = await self.create(inputs, seconds=seconds)
        try:
            yield prediction
            async with aclosing(self.follow(prediction)) as states:
                async for prediction in states:
                    yield prediction
        finally:
            if not prediction.done:
                with suppress(ServerError):
                    await asyncio.shield(self.cancel(prediction.id))

    async def follow(self, prediction: Prediction) -> AsyncGenerator[Prediction, None]:
        """Yield the prediction at each change: from its stream and, when that ends, by polling.

        Raises PredictionLost if Replicate cannot be reached any more; the prediction continues.
        """
        id, text, pauses = prediction.id, prediction.output, _pauses()
        while not prediction.done:
            if not text and (url := prediction.urls.get("stream")):
                async with aclosing(self._pieces(url)) as pieces:
                    async for piece in pieces:
                        text += piece
                        yield replace(prediction, status="processing", output=text)
            try:
                prediction = await self.get(id)
            except ServerError as error:
                raise PredictionLost(
                    f"{error}; prediction {id} may still be running: see replicate.com/p/{id}", id
                ) from error
            if prediction.done or prediction.output.startswith(text):
                text = prediction.output
                yield prediction
            if not prediction.done:
                await asyncio.sleep(next(pauses))

    async def wait(self, prediction: Prediction, *, seconds: float) -> Prediction:
        """Follow it until it ends in any way. Raises PredictionFailed after `seconds`; it continues then."""
        try:
            async with asyncio.timeout(seconds), aclosing(self.follow(prediction)) as states:
                async for later in states:
                    prediction = later
        except TimeoutError as error:
            raise PredictionFailed(
                f"prediction {prediction.id}: not finished within {seconds:.0f} s", prediction
            ) from error
        return prediction

    async def find_model(self) -> Model | None:
        """Return None if the account sees no such model."""
        answer = parsed(await self.request("GET", f"/v1/models/{self.name}", missing=True))
        if "visibility" not in answer:
            return None
        return Model(answer["visibility"], (answer.get("latest_version") or {}).get("id"))

    async def request(
        self, method: str, path: str, *, sent: str = "", missing: bool = False, **request: Any
    ) -> "httpx2.Response":
        """Return a successful response or, with `missing`, a 404. Retry lost connections, 429 and 5xx.

        `sent` (see `connection_errors`) marks a request that must not happen twice: retry it only if there was no
        connection, or after a 429. A connection lost later raises PredictionLost, and a 5xx is returned.
        """
        deadline, pauses, attempt = time.monotonic() + THROTTLED_SECONDS, _pauses(), 1
        while True:
            pause = next(pauses)
            try:
                with connection_errors(str(self.http.base_url.join(path)), sent=sent):
                    response = await self.http.request(method, path, **request)
            except ServerError as error:
                if attempt == ATTEMPTS or (sent and not isinstance(error, ServerUnreachable)):
                    raise
            else:
                status = response.status_code
                if status == 429:
                    wait = retry_after(response)
                    if time.monotonic() + (wait or pause) > deadline:
                        raise ServerBusy("this account has reached Replicate's rate limit (429); try again later", wait)
                    await asyncio.sleep(wait or pause)  # 0: without a pause the answer would be the same
                    continue
                if status < 300 or (status == 404 and missing) or (status >= 500 and sent):
                    return response
                if status < 500 or attempt == ATTEMPTS:
                    raise refusal(response, (request.get("json") or {}).get("input", {}))
            attempt += 1
            await asyncio.sleep(pause)

    async def _target(self) -> dict[str, str]:
        """Return the version for a create; none for a deployment."""
        if self._create_path == "/v1/predictions" and not self._version:
            if model := await self.find_model():
                self._version = model.version
                if not self._version:
                    raise ServerError(
                        f"{self.name} has no version on Replicate yet; push one: ghost release {self.name}"
                    )
            elif "name" in parsed(await self.request("GET", f"/v1/deployments/{self.name}", missing=True)):
                self._create_path = f"/v1/deployments/{self.name}/predictions"
            else:
                raise ServerError(
                    f"{self.name}: no such model or deployment on Replicate, or this account cannot see it"
                )
        return {"version": self._version} if self._version else {}

    async def _pieces(self, url: str) -> AsyncGenerator[str, None]:
        """Yield the stream's pieces. End without an error if it breaks: polling gives the rest."""
        import httpx2

        timeout = httpx2.Timeout(SILENT_SECONDS, connect=self.http.timeout.connect)
        with suppress(ServerError), connection_errors(url):
            async with events(self.http, "GET", url, timeout=timeout) as (response, source):
                if response.status_code != 200:
                    return
                async for event in source:
                    if event.event in ("done", "error"):
                        return
                    if event.event == "output":
                        yield event.data

    def _authorize(self, request: "httpx2.Request") -> "httpx2.Request":
        """Send the token to the API's host and other hosts of Replicate only, not to others named in an answer."""
        url = request.url
        if url.host == self.http.base_url.host or (url.scheme == "https" and url.host.endswith(".replicate.com")):
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _pauses() -> Iterator[float]:
    return chain(PAUSES, repeat(PAUSES[-1]))


def refusal(response: "httpx2.Response", inputs: Mapping[str, Any]) -> ServerError:
    """Return the error for a response that is not a success."""
    status, detail = response.status_code, parsed(response).get("detail")
    if status == 401:
        return ServerError(f"Replicate does not accept the token in {TOKEN}; create another at replicate.com/account")
    if status == 402:
        return ServerError("Replicate requires payment first; see replicate.com/account/billing")
    if status == 422 and isinstance(detail, list):
        return ServerError(invalid_inputs(detail, inputs))
    words = reason(str(detail), inputs) if detail and status != 422 else "it does not accept the request"
    return ServerError(f"{response.request.method} {response.request.url.path}: HTTP status {status}: {words}")


def retry_after(response: "httpx2.Response") -> float | None:
    """Return the seconds that a 429 asks to wait: from Retry-After, or from its text."""
    header = response.headers.get("retry-after", "")
    named = re.fullmatch(r"(\d+)", header) or re.search(r"(\d+) ?s", str(parsed(response).get("detail", "")))
    return float(named[1]) if named else None
