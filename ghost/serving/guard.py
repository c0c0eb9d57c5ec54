"""What every server of ours does before it answers: refuse web pages, bound what a client sends, and end in time.

The public port of `ghost serve` (door.py), OpenAI's API beside it and the page of `ghost chat --web` share it.
"""

import asyncio
import hmac
import logging
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import h11
import uvicorn
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

BODY_BYTES = 4_000_000  # of one request; the model reads the last few kilobytes of a history
REQUEST_SECONDS = 30  # for a whole request to arrive
CONNECTIONS = 256  # beyond it, the one that has kept its request back for longest is closed
DRAIN_SECONDS = 10  # for running replies when the server is stopped
TRANSPORT = "ghost.transport"  # in a request's scope: the connection, to which door.py writes chunks as they came
RETRY_SECONDS = 5  # what a refused client is told to wait
TOO_LARGE = 413, f"the request has more than {BODY_BYTES:,} bytes; send the end of the conversation only"
FAILED = "the server has failed; its output says where"


def refused(status: int, message: str) -> Response:
    """Return an error in the form of Cog's own."""
    return JSONResponse({"detail": message}, status)


def logged(error: Exception) -> None:
    """Log an error that is none of ours: uvicorn, which would, does so of every client that leaves, too."""
    logging.getLogger(__name__).error("a request failed", exc_info=error)


@dataclass
class Guard:
    """Refuse web pages, and clients without the key if there is one.

    A page of another origin is recognised by its Origin, which browsers send with every POST, and by Sec-Fetch-Site,
    which they send with everything else (a frame, a script, an image). A page that has its own name resolve to this
    machine (DNS rebinding) has that name in Host, so without a key only names that cannot be anybody else's are served:
    addresses, localhost, this machine's.
    """

    app: ASGIApp
    host: str
    key: str = ""
    refused: Callable[[int, str], Response] = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app, size = self.app, 0
        if scope["type"] != "lifespan" and (refusal := self.refusal(Headers(scope=scope))):
            app = self.refused(*refusal)

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > BODY_BYTES:  # one without Content-Length; the app's own handler gives the answer its form
                raise HTTPException(*TOO_LARGE)
            return message

        with suppress(ClientDisconnect, asyncio.CancelledError):  # the client has left, or the server is stopped
            await app(scope, bounded, send)

    def refusal(self, headers: Headers) -> tuple[int, str] | None:
        host, site = headers.get("host", ""), headers.get("sec-fetch-site", "none")
        foreign = (origin := headers.get("origin")) is not None and origin.partition("://")[2] != host
        # A link that a person follows is no harm: the page that holds it cannot read the answer.
        if foreign or (site not in ("none", "same-origin") and headers.get("sec-fetch-dest") != "document"):
            return 403, "requests from web pages are refused; call this server from a program"
        if (length := headers.get("content-length", "0")).isdecimal() and int(length) > BODY_BYTES:
            return TOO_LARGE
        if not self.key:
            return (
                None if self._is_ours(host) else (403, "this Host is not known here; use an address such as 127.0.0.1")
            )
        if not hmac.compare_digest(headers.get("authorization", "").encode("latin-1"), f"Bearer {self.key}".encode()):
            return 401, "the API key is missing or wrong; send the server's as Authorization: Bearer KEY"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:  # brackets without an IPv6 address
            return False
        try:
            ip_address(name)
        except ValueError:
            return name in ("localhost", "host.docker.internal", self.host.lower(), socket.gethostname().lower())
        return True


class Bounded(H11Protocol):
    """Close a connection whose request does not arrive in time, or the oldest such of too many.

    uvicorn itself would wait for ever. A connection that is kept open between two requests counts as such, too.
    """

    _late: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, refused: Callable[[int, str], Response] = refused, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.refused = refused

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has endless headers, in the form of the app's other errors."""
        answer = self.refused(400, msg)
        head = h11.Response(status_code=400, headers=[*answer.raw_headers, (b"connection", b"close")])
        for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > CONNECTIONS:
            waiting = {one._late.when(): one for one in self.connections if isinstance(one, Bounded) and one._late}
            oldest = waiting[min(waiting)]
            oldest._arrived()  # of connections that come at once, each closes another one
            oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._arrived()

    def _watch(self) -> None:
        if self.scope:
            self.scope[TRANSPORT] = self.transport  # type: ignore[literal-required]
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._arrived()
        elif not self._late:
            self._late = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _arrived(self) -> None:
        if self._late:
            self._late.cancel()
            self._late = None


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for running replies, but for no request that has not arrived."""
        for one in list(self.server_state.connections):
            if isinstance(one, Bounded) and one._late:
                one.transport.abort()
        await super().shutdown(sockets)


@asynccontextmanager
async def until_disconnected(receive: Receive) -> AsyncGenerator[None, None]:
    """Cancel the block and raise TimeoutError when the client disconnects.

    The block is canceled once, as by `asyncio.timeout`. Starlette's own StreamingResponse would also cancel each
    `await` by which the backend cancels its prediction.
    """
    async with asyncio.timeout(None) as scope:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            scope.reschedule(asyncio.get_running_loop().time())

        watcher = asyncio.create_task(watch())
        try:
            yield
        finally:
            watcher.cancel()


@contextmanager
def running(
    app: ASGIApp,
    listener: socket.socket,
    client: AbstractAsyncContextManager[Any] | None = None,
    refused: Callable[[int, str], Response] = refused,
) -> Iterator[None]:
    """Serve `app` on `listener` in a thread, with `client` open; at the end of the block, let replies finish.

    `refused` gives the app's form to the answer to what is no HTTP.
    """
    config = uvicorn.Config(
        app,
        http=partial(Bounded, refused=refused),  # type: ignore[arg-type]
        lifespan="off",
        log_config=None,  # uvicorn's own asks whether standard output is a terminal, and it may be closed
        ws="none",
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = _Server(config)

    async def serve() -> None:
        async with client or nullcontext():
            await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="server")
    try:
        thread.start()
        yield
    finally:
        server.should_exit = True
        with suppress(RuntimeError):  # a stop came while the thread started; the interpreter waits for it when it exits
            thread.join()
