"""Webhooks: whether a request that says it is Replicate's really is, and a receiver that believes no other.

They are signed as https://www.standardwebhooks.com says: HMAC-SHA256 over `id.timestamp.body` with a key of the
account, so a body that anybody sends to a public URL is told from one of Replicate's.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self

from serving.client.prediction import Prediction, read
from serving.client.replicate_api import ReplicateApi
from training.errors import ServerError

TOLERANCE = 300.0  # seconds that a timestamp may lie away from this clock; a copy sent again later is refused
LARGEST = 2**20  # bytes of a body


def verify(
    secret: str, headers: Mapping[str, str], body: bytes, *, tolerance: float = TOLERANCE, now: float | None = None
) -> None:
    """Raises ServerError unless `body`, byte for byte, was signed with `secret` (`whsec_…`) within `tolerance` seconds.

    `headers` may be spelled in any case. Of several signatures, as while a key is changed, one must be right.
    """
    given = {name.lower(): value for name, value in headers.items()}
    id, timestamp, signatures = (given.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not (id and timestamp and signatures):
        raise ServerError("not a signed webhook: webhook-id, webhook-timestamp and webhook-signature belong to one")
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        away = abs((time.time() if now is None else now) - int(timestamp))
    except (binascii.Error, ValueError) as error:
        raise ServerError("the webhook's timestamp is no number, or the secret is not whsec_ and base64") from error
    if away > tolerance:
        raise ServerError(f"a webhook signed {away:.0f} s away from now: an old one sent again, or a wrong clock")
    signed = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    right = base64.b64encode(signed.digest()).decode()
    # Each is compared, in constant time: how long a refusal takes says nothing about the right one.
    matches = [hmac.compare_digest(f"v1,{right}".encode(), one.encode()) for one in signatures.split()]
    if not any(matches):
        raise ServerError("the webhook's signature is not Replicate's, or not of this account")


async def webhook_secret(api: ReplicateApi) -> str:
    """The account's key. Raises ServerError when Replicate tells none."""
    key = (await api.get("/v1/webhooks/default/secret")).get("key")
    if not isinstance(key, str):
        raise ServerError("Replicate tells no key for webhooks; leave --webhook out")
    return key


class Receiver:
    """A server on this machine's loopback for one prediction's webhook, behind a tunnel that has a public URL."""

    def __init__(self, secret: str, port: int) -> None:
        self._secret = secret
        self._loop = asyncio.get_running_loop()
        self._ends: asyncio.Queue[Prediction] = asyncio.Queue()
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        except (OSError, OverflowError) as error:
            raise ServerError(f"cannot listen on port {port} ({error}); name another with --webhook-port") from error
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()

    async def ended(self, id: str) -> Prediction:
        """The prediction `id` at its end, once a webhook says so."""
        while True:
            prediction = await self._ends.get()
            if prediction.id == id:
                return prediction

    def _take(self, headers: Mapping[str, str], body: bytes) -> int:
        """The status to answer with."""
        try:
            verify(self._secret, headers, body)
        except ServerError:
            return 401
        with suppress(ServerError, ValueError):
            prediction = read(json.loads(body))
            if prediction.done:
                self._loop.call_soon_threadsafe(self._ends.put_nowait, prediction)
        return 200

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if not length.isdigit() or int(length) > LARGEST:
                    self.send_error(413)
                    return
                self.send_response(receiver._take(dict(self.headers), self.rfile.read(int(length))))
                self.send_header("Content-Length", "0")
                self.end_headers()

        return Handler
