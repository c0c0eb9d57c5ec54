"""The public port of `ghost serve`: it checks each request and passes it to Cog's server; what comes back is Cog's.

Cog's server trusts whoever reaches it. It takes ids for paths, posts to any `webhook`, ends on `POST /shutdown`, keeps
a folder of each prediction and, where it cannot make that folder, stays BUSY for ever (observed with Cog 0.23.1).
"""

import re
import secrets
import time
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ghost.serving.client.prediction import CONNECT_SECONDS, open_client
from ghost.serving.guard import BODY_BYTES, RETRY_SECONDS, Guard, refused, until_disconnected

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# What a reply may take before the server counts as stuck: a 7B model in float32 on two cores needs 3 s a token.
PROMPT_SECONDS, TOKEN_SECONDS = 300, 3
FREE_SECONDS = 30  # how long the server may be busy, or silent, without a prediction
FOLDERS = Path("/tmp/coglet/predictions")  # fixed in Cog's server, whatever TMPDIR is
READ = ("accept", "content-type", "prefer", "traceparent", "tracestate")  # the headers that Cog reads
OWN = (b"connection", b"date", b"transfer-encoding")  # the headers that each server writes for its own connection
LOST = b'\n\nevent: completed\ndata: {"status":"failed","error":"the model was lost and is being started again"}\n\n'
DOWN = refused(503, "the model's process is being started again; try again in a moment")
DOWN.headers["Retry-After"] = str(RETRY_SECONDS)


class Door:
    """The app in front of Cog's server at `cog`, and what it knows of that server's predictions.

    `max_new_tokens` is the model's default, `allowed` what is open of serve.CLOSED. Its app runs in a thread of its
    own; `left`, `stuck` and `restarted` are for the thread that looks after the server.
    """

    def __init__(self, cog: str, max_new_tokens: int, allowed: Collection[str] = ()) -> None:
        self.cog, self.max_new_tokens, self.allowed = cog, max_new_tokens, allowed
        # A kept connection would delay a stream's pieces (cog_server.py).
        self.client = open_client(cog, keep=False)
        self.client.timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
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
            exception_handlers={HTTPException: failed},
            max_body_size=BODY_BYTES,
        )

    async def get(self, request: Request) -> ASGIApp:
        starting = JSONResponse({"status": "STARTING"}) if request.url.path == "/health-check" else DOWN
        return self._passed(request, "GET", request.url.path, down=starting)

    async def shutdown(self, request: Request) -> ASGIApp:
        if "shutdown" not in self.allowed:
            raise HTTPException(403, "shutdown is closed; to open it, start the server with --allow shutdown")
        return self._passed(request, "POST", "/shutdown")

    async def cancel(self, request: Request) -> ASGIApp:
        return self._passed(request, "POST", f"/predictions/{checked(request.path_params['id'])}/cancel")

    async def predict(self, request: Request) -> ASGIApp:
        body = await request.body()
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
        asked = self.client.build_request(method, path, content=body, headers=headers)
        return partial(self._relay, asked, id, seconds, down)

    async def _relay(
        self, asked: httpx2.Request, id: str, seconds: float, down: Response, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send `asked` to Cog and its answer to the client, piece by piece. Leaving cancels, as at Cog itself."""
        new = bool(id) and id not in self._due
        if new:
            self._due[id] = time.monotonic() + seconds
        answer: httpx2.Response | None = None
        try:
            async with until_disconnected(receive):
                answer = await self.client.send(asked, stream=True)
                try:
                    headers = [(name, value) for name, value in answer.headers.raw if name.lower() not in OWN]
                    if answer.status_code in (409, 503):
                        headers.append((b"Retry-After", str(RETRY_SECONDS).encode()))
                    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
                    async for piece in answer.aiter_raw():
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                finally:
                    await answer.aclose()
        except (TimeoutError, httpx2.TransportError) as error:  # the client, or Cog's server, is gone
            if id:
                self._left.add(id)
            if answer is None and isinstance(error, httpx2.TransportError):
                await down(scope, receive, send)
            elif answer is not None:
                await send({"type": "http.response.body", "body": LOST if streams(answer) else b""})
            return
        await send({"type": "http.response.body"})
        if answer.status_code == 202:
            self._left.add(id)
        elif answer.status_code == 200 and id:
            self._free = time.monotonic() + FREE_SECONDS
            self._ended(id)
        elif new:
            self._due.pop(id, None)

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

    def restarted(self) -> None:
        """Forget the predictions of a server that is gone."""
        for id in list(self._due):
            self._ended(id)
        self._free = time.monotonic() + FREE_SECONDS


def streams(answer: httpx2.Response) -> bool:
    return answer.headers.get("content-type", "").startswith("text/event-stream")


def checked(id: Any) -> str:
    """Raises HTTPException if it is not an id that is safe as the name of a folder."""
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise HTTPException(422, "id: use 1 to 64 letters, digits, - and _")
    return id


def failed(request: Request, error: Any) -> Response:
    """Answer an HTTPException, ours or Starlette's."""
    return refused(error.status_code, error.detail)
