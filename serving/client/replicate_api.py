"""Requests to Replicate's HTTP API: which may be repeated, when, and what an answer other than success means."""

import asyncio
import os
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import httpx2

from serving.client.transport import invalid_inputs, open_client, parsed, reason, told
from training.errors import ServerBusy, ServerError, ServerUnreachable, UsageError

TOKEN = "REPLICATE_API_TOKEN"
API = "https://api.replicate.com"
BASE_URL = "REPLICATE_BASE_URL"  # another address of the API, as Replicate's own client reads it
ATTEMPTS = 6  # of a request that may be repeated: a quarter of a minute, by these pauses
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds
THROTTLED_SECONDS = 90  # to wait, all in all, because of 429: a limit is reset within a minute


def account() -> tuple[str, str]:
    """The token and the API's address, from the environment. Raises UsageError without a token."""
    if not (token := os.environ.get(TOKEN)):
        raise UsageError(f"{TOKEN} is not set; make a token at replicate.com/account/api-tokens and export it")
    return token, (os.environ.get(BASE_URL) or API).rstrip("/").removesuffix("/v1")


class ReplicateApi:
    """An account's API. The token goes to the API's own host and to Replicate's other hosts, nowhere else."""

    def __init__(self, token: str, api: str = API) -> None:
        self.http = open_client(api)
        self._token = token

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    def authorization(self, url: httpx2.URL) -> dict[str, str]:
        ours = url.host == self.http.base_url.host or (url.scheme == "https" and url.host.endswith(".replicate.com"))
        return {"Authorization": f"Bearer {self._token}"} if ours else {}

    async def get(self, path: str, *, missing: bool = False, **params: str) -> dict[str, Any]:
        """A JSON object; with `missing` the one of a 404 too. Lost connections, 429 and 5xx are tried again."""
        return parsed(await self._repeated("GET", path, missing=missing, params=params or None))

    async def get_list(self, path: str) -> list[dict[str, Any]]:
        """A JSON array of objects, else an empty one."""
        response = await self._repeated("GET", path, missing=False)
        try:
            rows = response.json()
        except ValueError:  # a page of a proxy on the way
            return []
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    async def post_again(self, path: str) -> None:
        """A POST that does the same when done twice, such as a cancel; 404 is no error."""
        await self._repeated("POST", path, missing=True)

    async def post_once(
        self, path: str, body: Mapping[str, Any], *, sent: str, headers: Mapping[str, str]
    ) -> httpx2.Response:
        """The response to a POST that must not happen twice, whatever its status but 429 and 4xx.

        Sent again only after what has certainly done nothing: no connection, or 429. A connection that is lost later
        raises PredictionLost, whose message ends in `sent`.
        """
        inputs = body.get("input", {})
        deadline, pauses = time.monotonic() + THROTTLED_SECONDS, Pauses()
        while True:
            try:
                with told(self._url(path), sent=sent):
                    response = await self._send("POST", path, json=body, headers=headers)
            except ServerUnreachable:
                if pauses.count >= ATTEMPTS - 1:
                    raise
                await pauses.next()
                continue
            if response.status_code != 429:
                if 400 <= response.status_code < 500:
                    raise refusal(response, inputs)
                return response
            await _throttled(response, deadline, pauses)

    async def _repeated(
        self, method: str, path: str, *, missing: bool, params: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        deadline, pauses = time.monotonic() + THROTTLED_SECONDS, Pauses()
        while True:
            try:
                with told(self._url(path)):
                    response = await self._send(method, path, params=params)
            except ServerError:
                if pauses.count >= ATTEMPTS - 1:
                    raise
                await pauses.next()
                continue
            status = response.status_code
            if status == 429:
                await _throttled(response, deadline, pauses)
            elif status >= 500 and pauses.count < ATTEMPTS - 1:
                await pauses.next()
            elif status < 300 or (status == 404 and missing):
                return response
            else:
                raise refusal(response, {})

    def _url(self, path: str) -> str:
        return str(self.http.base_url.join(path))

    async def _send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **body: Any
    ) -> httpx2.Response:
        request = self.http.build_request(method, path, headers=headers, **body)
        request.headers.update(self.authorization(request.url))
        return await self.http.send(request)


class Pauses:
    """Seconds between attempts: `first`, doubling up to LONGEST_PAUSE."""

    def __init__(self, first: float | None = None) -> None:
        self._seconds = FIRST_PAUSE if first is None else first
        self.count = 0

    async def next(self) -> None:
        await asyncio.sleep(self._seconds)
        self._seconds = max(self._seconds, min(2 * self._seconds, LONGEST_PAUSE))
        self.count += 1


def refusal(response: httpx2.Response, inputs: Mapping[str, Any]) -> ServerError:
    """What an answer other than success says, for a person."""
    status, answer = response.status_code, parsed(response)
    detail = answer.get("detail")
    if status == 401:
        return ServerError(f"Replicate does not accept the token in {TOKEN}; make another on replicate.com/account")
    if status == 402:
        return ServerError("Replicate wants to be paid first; see replicate.com/account/billing")
    if status == 422 and isinstance(detail, list):
        return ServerError(invalid_inputs(detail, inputs))
    words = reason(str(detail), inputs) if detail and status != 422 else "it does not accept the request"
    return ServerError(f"{response.request.method} {response.request.url.path}: HTTP status {status}: {words}")


def retry_after(response: httpx2.Response) -> float | None:
    """Seconds that a 429 asks to wait: its Retry-After, a number or a date, else those its text names."""
    header = response.headers.get("retry-after", "")
    if header.isdigit():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        named = re.search(r"(\d+) ?s", str(parsed(response).get("detail", "")))
        return float(named[1]) if named else None


async def _throttled(response: httpx2.Response, deadline: float, pauses: Pauses) -> None:
    """Wait as a 429 asks. Raises ServerBusy when that is too long."""
    wait = retry_after(response)
    if time.monotonic() + (wait or 0) > deadline or pauses.count >= 10 * ATTEMPTS:
        raise ServerBusy("Replicate lets this account do no more for now (429); try again later", wait)
    if wait:
        await asyncio.sleep(wait)
    else:  # none told, or 0: said again and again, it would be asked without a pause
        await pauses.next()
