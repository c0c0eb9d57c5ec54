"""The public port of `ghost serve`: it checks each request and passes it to Cog's server; what comes back is Cog's.

Cog's server trusts whoever reaches it. It takes ids for paths, posts to any `webhook`, ends on `POST /shutdown`, keeps
a folder of each prediction and, where it cannot make that folder, stays BUSY for ever (observed with Cog 0.23.1).
"""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import h11
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ghost.serving.guard import FAILED, RETRY_SECONDS, TRANSPORT, Guard, logged, refused, until_disconnected
from replicate_deployment.settings import RANGES

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# What a reply may take before the server counts as stuck: a 7B model in float32 on two cores needs 3 s a token.
PROMPT_SECONDS, TOKEN_SECONDS = 300, 3
FREE_SECONDS = 30  # how long the server may be busy, or silent, without a prediction
FOLDERS = Path("/tmp/coglet/predictions")  # fixed in Cog's server, whatever TMPDIR is
READ = ("accept", "content-type", "prefer", "traceparent", "tracestate")  # the headers that Cog reads
OWN = (b"connection", b"date", b"transfer-encoding")  # the headers that each server writes for its own connection
LOST = b'\n\nevent: completed\ndata: {"status":"failed","error":"the model was lost and is being started again"}\n\n'
DOWN = refused(503, "the model is being loaded; try again in a moment")
DOWN.headers["Retry-After"] = str(RETRY_SECONDS)


class Door:
    """The app in front of Cog's server at `host` and `port`, and what it knows of that server's predictions.

    `max_new_tokens` is the model's default, `allowed` what is open of serve.CLOSED. Its app runs in a thread of its
    own; `left`, `stuck` and `reset` are for the thread that looks after the server.
    """

    def __init__(self, host: str, port: int, max_new_tokens: int, allowed: Collection[str] = ()) -> None:
        self.host, self.port, self.max_new_tokens, self.allowed = host, port, max_new_tokens, allowed
        self.ready = False  # until then nothing is passed: Cog would answer a stream with 406
        self._due: dict[str, float] = {}  # by when each running prediction must have ended
        self._left: set[str] = set()  # those of them whose end no connection will tell
        self._free = 0.0  # by when a server without predictions must be ready

    def app(self, host: str) -> Starlette:
        return Starlette(
            routes=[
                *(Route(path, self.get) for path in ("/", "/health-check", "/openapi.json")),
                Route("/predictions", self.predict, methods=["POST"]),
                Route("/predictions/{id}", self.predict, methods=["PUT"]),
                Route("/predictions/{id}/cancel", self.cancel, methods=["POST"]),
                Route("/shutdown", self.shutdown, methods=["POST"]),
            ],
            middleware=[Middleware(Guard, host=host)],
            exception_handlers={HTTPException: failed, Exception: broken},
        )

    async def get(self, request: Request) -> ASGIApp:
        down = JSONResponse({"status": "STARTING"}) if request.url.path == "/health-check" else DOWN
        return self._passed(request, "GET", request.url.path, down=down) if self.ready else down

    async def shutdown(self, request: Request) -> ASGIApp:
        if "shutdown" not in self.allowed:
            raise HTTPException(403, "shutdown is closed; to open it, start the server with --allow shutdown")
        return self._passed(request, "POST", "/shutdown")

    async def cancel(self, request: Request) -> ASGIApp:
        return self._passed(request, "POST", f"/predictions/{checked(request.path_params['id'])}/cancel")

    async def predict(self, request: Request) -> ASGIApp:
        body = await request.body()
        if not self.ready:
            return DOWN
        try:
            fields = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.ValidationError as error:  # Cog also takes a list, of the same fields by position
            raise HTTPException(422, "the request is not a JSON object") from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise HTTPException(400, "the request is not valid JSON") from error
        if fields.get("webhook") is not None and "webhook" not in self.allowed:
            raise HTTPException(403, "webhook is closed; to open it, start the server with --allow webhook")
        given = [checked(id) for id in (request.path_params.get("id"), fields.get("id")) if id is not None]
        id = given[0] if given else f"pred_{secrets.token_hex(8)}"  # as Cog's own, and known in advance
        post = request.method == "POST" and given
        method, path = ("POST", "/predictions") if post else ("PUT", f"/predictions/{id}")
        inputs = fields.get("input")
        asked = inputs.get("max_new_tokens") if isinstance(inputs, dict) else None
        tokens = asked if isinstance(asked, int) else self.max_new_tokens
        tokens = min(tokens, int(RANGES["max_new_tokens"].high))  # beyond it Cog refuses the request
        return self._passed(request, method, path, body, id, PROMPT_SECONDS + tokens * TOKEN_SECONDS)

    def _passed(
        self,
        request: Request,
        method: str,
        path: str,
        body: bytes = b"",
        id: str = "",
        seconds: float = 0,
        down: Response = DOWN,
    ) -> ASGIApp:
        headers = [(name, value) for name in READ if (value := request.headers.get(name)) is not None]
        head = h11.Request(
            method=method, target=path, headers=[*headers, ("host", self.host), ("content-length", str(len(body)))]
        )
        return partial(self._relay, head, body, id, seconds, down)

    async def _relay(
        self,
        head: h11.Request,
        body: bytes,
        id: str,
        seconds: float,
        down: Response,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Send the request to Cog and its answer to the client, piece by piece. Leaving cancels, as at Cog itself."""
        new = bool(id) and id not in self._due
        if new:
            self._due[id] = time.monotonic() + seconds
        answer: h11.Response | None = None
        raw = scope["http_version"] == "1.1"  # older clients know no chunks
        try:
            async with (
                until_disconnected(receive),
                aclosing(self._answer(head, body, scope[TRANSPORT] if raw else None)) as events,
            ):
                async for event in events:
                    if isinstance(event, h11.Data):
                        await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
                    elif isinstance(event, h11.Response):
                        answer = event
                        headers = [(name, value) for name, value in event.headers if name not in OWN]
                        if event.status_code in (409, 503):
                            headers.append((b"retry-after", str(RETRY_SECONDS).encode()))
                        await send({"type": "http.response.start", "status": event.status_code, "headers": headers})
        except (TimeoutError, OSError, h11.RemoteProtocolError) as error:  # the client, or Cog's server, is gone
            if id:
                self._left.add(id)
            if answer is None and not isinstance(error, TimeoutError):
                await down(scope, receive, send)
            elif answer is not None:
                stream = (b"content-type", b"text/event-stream") in answer.headers
                await send({"type": "http.response.body", "body": LOST if stream else b""})
            return
        await send({"type": "http.response.body"})
        status = answer.status_code if answer else 0
        if status == 202:
            self._left.add(id)
        elif status == 200 and id:
            self._free = time.monotonic() + FREE_SECONDS
            self._ended(id)
        elif new:
            self._due.pop(id, None)

    async def _answer(
        self, head: h11.Request, body: bytes, client: asyncio.Transport | None
    ) -> AsyncGenerator[h11.Response | h11.Data, None]:
        """Yield what Cog answers; write chunks to `client`, if there is one, as they came: h11 takes most of the time
        of a token to read and write one. By hand: an HTTP client of the package index takes a millisecond of CPU for a
        request.

        A connection for each request: on one that was kept, Cog's small packets wait for an ACK (cog_server.py).
        """
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            cog = h11.Connection(h11.CLIENT)
            parts = [cog.send(head), cog.send(h11.Data(data=body)) if body else None, cog.send(h11.EndOfMessage())]
            writer.write(b"".join(filter(None, parts)))
            while not isinstance(event := cog.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    cog.receive_data(await reader.read(2**20))  # all that has come
                elif isinstance(event, h11.Data):
                    yield event
                elif isinstance(event, h11.Response):
                    yield event
                    if client and (b"transfer-encoding", b"chunked") in event.headers:
                        chunks = Chunks(client)
                        chunks.data_received(cog.trailing_data[0])
                        writer.transport.set_protocol(chunks)
                        if reader.at_eof() or writer.is_closing():  # nobody will tell `chunks`
                            chunks.connection_lost(None)
                        await chunks.ended
                        return
        finally:
            writer.close()

    def _ended(self, id: str) -> None:
        self._due.pop(id, None)
        self._left.discard(id)
        for name in ("inputs", "outputs", ""):  # what Cog made, and nothing else
            with suppress(OSError):
                (FOLDERS / id / name).rmdir()

    def left(self) -> list[str]:
        """Return the predictions of which only the server's health tells that they have ended. Ask before it."""
        return list(self._left)

    def stuck(self, status: str | None, left: list[str]) -> bool:
        """Whether the server, whose health is `status` (None: no answer), should have been free long ago."""
        if status == "READY":
            self._free = time.monotonic() + FREE_SECONDS
            for id in left:
                self._ended(id)
        return status != "READY" and time.monotonic() > max([self._free, *list(self._due.values())])

    def reset(self) -> None:
        """Forget the predictions of a server that was stopped, and let requests in to the one that is ready."""
        self.ready = True
        for id in list(self._due):
            self._ended(id)
        self._free = time.monotonic() + FREE_SECONDS


class Chunks(asyncio.Protocol):
    """Write chunks to `client` as they come, without a task that would have to wake for each: half the time of one.

    `ended` is done after the last one, or raises RemoteProtocolError or ConnectionError.
    """

    def __init__(self, client: asyncio.Transport) -> None:
        self.client, self.data = client, b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        try:
            chunks, self.data, ended = whole_chunks(self.data + data)
        except h11.RemoteProtocolError as error:
            self.ended.set_exception(error)
            return
        if chunks:
            self.client.write(chunks)  # to wait for a slow client is not worth it: a reply is short
        if ended:
            self.ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(ConnectionResetError("the answer has no end"))


def whole_chunks(data: bytes) -> tuple[bytes, bytes, bool]:
    """Split what has come of a chunked body (RFC 9112, section 7.1).

    Return the whole chunks, what follows them, and whether that is the last chunk, which is empty. Raises
    RemoteProtocolError if a chunk has no size.
    """
    start = 0
    while (line := data.find(b"\r\n", start)) >= 0:
        try:
            size = int(data[start:line].partition(b";")[0], 16)
        except ValueError as error:
            raise h11.RemoteProtocolError("a chunk without a size") from error
        end = line + 2 + size + 2
        if not size or end > len(data):
            return data[:start], data[start:], not size
        start = end
    return data[:start], data[start:], False


def checked(id: Any) -> str:
    """Raises HTTPException if it is not an id that is safe as the name of a folder."""
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise HTTPException(422, "id: use 1 to 64 letters, digits, - and _")
    return id


def failed(request: Request, error: Any) -> Response:
    """Answer an HTTPException, ours or Starlette's."""
    return refused(error.status_code, error.detail)


def broken(request: Request, error: Exception) -> Response:
    logged(error)
    return refused(500, FAILED)
