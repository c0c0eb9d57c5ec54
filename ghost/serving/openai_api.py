"""OpenAI's API over any backend: /v1/chat/completions, /v1/completions and /v1/models, for clients that speak it.

Each message becomes one turn (user: the other side, assistant: the person), as in the chat template that other servers
read, so a history gives the same prompt everywhere. Messages of the role `system` are ignored: the model learnt from
chats between two sides and cannot follow instructions, and in a turn it would answer them.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ghost.errors import PredictionLost, ServerBusy, ServerStarting, ServerUnreachable
from ghost.serving.chat.conversation import SEEDS, normalized
from ghost.serving.client import Backend, Prediction, PredictionFailed
from ghost.serving.guard import FAILED, RETRY_SECONDS, Guard, logged, until_disconnected
from replicate_deployment.chat_format import Labels, Turn, read_prompt, render_prompt
from replicate_deployment.errors import GhostError, PromptError, SettingsError
from replicate_deployment.settings import RANGES, Settings

QUEUE = 8  # requests that wait for the one that is answered
IGNORED = ("system", "developer")
IGNORED_HEADER = "X-Ignored-System-Messages"

# Fields that ask for more than one plain text, with the value that does not, if any but an empty one.
UNSUPPORTED = dict.fromkeys(["tools", "functions", "logprobs", "audio", "echo", "suffix"])
UNSUPPORTED |= {"n": 1, "best_of": 1, "response_format": {"type": "text"}}

T = TypeVar("T")


# What clients send. Unknown fields are ignored, as OpenAI's clients expect of other servers.


class Part(Struct):
    type: str
    text: str = ""


class Message(Struct):
    role: str
    content: str | list[Part] | None = None

    def turn(self, labels: Labels) -> Turn:
        """Raises PromptError on anything but text of the two sides."""
        label = {"user": labels.other, "assistant": labels.me}.get(self.role)
        if label is None:
            raise PromptError(f"messages: the role {self.role!r:.40} is not supported; send user and assistant")
        parts = [Part("text", self.content)] if isinstance(self.content, str) else self.content or []
        if others := [part.type for part in parts if part.type != "text"]:
            raise PromptError(f"messages: the model reads text only, and a part is {others[0]!r:.40}; leave it out")
        return Turn(label, normalized("\n".join(part.text for part in parts)))


class StreamOptions(Struct):
    include_usage: bool | None = None


class Asked(Struct):
    """The fields that both kinds of completions have."""

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None  # this and the next are not OpenAI's, but other servers have them too
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def inputs(self) -> dict[str, Any]:
        """Return the backend's inputs, without the prompt. Raises SettingsError on a value out of range."""
        inputs: dict[str, Any] = {name: value for name in RANGES if (value := getattr(self, name, None)) is not None}
        limits = [limit for limit in (self.max_completion_tokens, self.max_tokens) if limit is not None]
        if limits:
            inputs["max_new_tokens"] = min(limits[0], int(RANGES["max_new_tokens"].high))
        Settings().replace(**inputs)
        if self.seed is not None:
            inputs["seed"] = self.seed % SEEDS
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if stops := [stop for stop in stops if stop]:
            inputs["stop_sequences"] = stops
        return inputs


class AskedChat(Asked, kw_only=True):
    messages: list[Message]

    @property
    def ignored(self) -> int:
        return sum(message.role in IGNORED for message in self.messages)

    def text(self, labels: Labels) -> str:
        """Return the rendered turns. Raises PromptError if there is nothing to answer."""
        turns = [message.turn(labels) for message in self.messages if message.role not in IGNORED]
        turns = [turn for turn in turns if turn.text]
        if not turns or turns[-1].label != labels.other:
            raise PromptError("messages: the last one must be a text of the role user, which the reply answers")
        return render_prompt(turns, labels)


class AskedText(Asked, kw_only=True):
    prompt: str | list[str | int]

    ignored = 0

    def text(self, labels: Labels) -> str:
        """Return the rendered turns of a message or a history. Raises PromptError if it is neither."""
        given = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        prompts = [text for text in given if isinstance(text, str)]
        if len(prompts) < len(given):
            raise PromptError(
                "prompt: token ids are not taken; send text. For ghost chat, bot and evaluate drop completions: and "
                "give the address of this server's Cog API"
            )
        if len(prompts) != 1:
            raise PromptError(f"prompt: {len(prompts)} prompts in one request are not supported; send one")
        return render_prompt(read_prompt(prompts[0], labels), labels)


# What they get.


class EventStream(StreamingResponse):
    """Server-sent events; cancels the prediction when the client disconnects."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], pieces: AsyncGenerator[Any, None], **options: Any) -> None:
        super().__init__(events, **options)
        self.pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(TimeoutError):
            async with aclosing(self.pieces), until_disconnected(receive):
                await self.stream_response(send)


@dataclass
class Api:
    """`settings` are the model's defaults: they say how long a reply may be when the client does not."""

    backend: Backend
    name: str
    labels: Labels
    settings: Settings
    created: int = field(default_factory=lambda: int(time.time()))
    _slot: asyncio.Lock = field(default_factory=asyncio.Lock)
    _requests: int = 0

    def app(self, host: str, key: str) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", partial(self.complete, AskedChat), methods=["POST"]),
                Route("/v1/completions", partial(self.complete, AskedText), methods=["POST"]),
                Route("/v1/models", self.models),
            ],
            middleware=[Middleware(Guard, host=host, key=key, refused=guarded)],
            exception_handlers={HTTPException: refused, GhostError: failed, Exception: failed},
        )

    async def models(self, request: Request) -> Response:
        model = {"id": self.name, "object": "model", "created": self.created, "owned_by": "ghost"}
        return encoded({"object": "list", "data": [model]})

    async def complete(self, kind: type[AskedChat] | type[AskedText], request: Request) -> Response:
        try:
            fields = msgspec.json.decode(await request.body(), type=dict[str, Any])
            for name, harmless in UNSUPPORTED.items():
                if (value := fields.get(name)) and value != harmless:
                    raise HTTPException(400, f"{name}: not supported, the answer is one plain text; leave it out")
            asked: AskedChat | AskedText = msgspec.convert(fields, kind)
        except msgspec.MsgspecError as error:
            raise HTTPException(400, f"the request is not valid: {error}") from error
        inputs, chat = asked.inputs() | {"prompt": asked.text(self.labels)}, kind is AskedChat
        object = ("chat.completion" if chat else "text_completion") + ".chunk" * bool(chat and asked.stream)
        id = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        headers = {IGNORED_HEADER: str(asked.ignored)} if asked.ignored else {}

        def completion(*choices: dict[str, Any], **usage: dict[str, int]) -> dict[str, Any]:
            head = {"id": id, "object": object, "created": int(time.time()), "model": self.name}
            return head | {"choices": choices} | usage

        def choice(said: dict[str, Any], reason: str | None) -> dict[str, Any]:
            return {"index": 0, **said, "logprobs": None, "finish_reason": reason}

        def piece(text: str, **role: str) -> bytes:
            said = {"delta": {**role, "content": text}} if chat else {"text": text}
            return event(completion(choice(said, None)))

        async def events(prediction: Prediction) -> AsyncGenerator[bytes, None]:
            yield piece(prediction.output, role="assistant")
            try:
                async for text, latest in pieces:
                    prediction = latest
                    if text:
                        yield piece(text)
            except GhostError as error:
                yield event(problem(*status(error)))
                return
            last = choice({"delta": {}} if chat else {"text": ""}, self._reason(prediction, inputs))
            yield event(completion(last))
            if asked.stream_options and asked.stream_options.include_usage:
                yield event(completion(usage=usage(prediction)))
            yield b"data: [DONE]\n\n"

        pieces = self._pieces(inputs)
        try:
            async with until_disconnected(request.receive):
                prediction = await advance(pieces, to_the_end=not asked.stream)
        except TimeoutError:
            return Response(status_code=499)  # nobody reads it
        if asked.stream:
            return EventStream(events(prediction), pieces, headers=headers | {"Cache-Control": "no-store"})
        message = {"role": "assistant", "content": prediction.output}
        said = choice({"message": message} if chat else {"text": prediction.output}, self._reason(prediction, inputs))
        return encoded(completion(said, usage=usage(prediction)), headers=headers)

    async def _pieces(self, inputs: Mapping[str, Any]) -> AsyncGenerator[tuple[str, Prediction], None]:
        """Wait for the requests before this one, then yield as `Backend.pieces`."""
        async with self._turn(), aclosing(self.backend.pieces(inputs)) as pieces:
            async for piece in pieces:
                yield piece

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None, None]:
        if self._requests > QUEUE:
            raise ServerBusy(f"one request is being answered and {QUEUE} are waiting; try again in a moment")
        self._requests += 1
        try:
            async with self._slot:
                yield
        finally:
            self._requests -= 1

    def _reason(self, prediction: Prediction, inputs: Mapping[str, Any]) -> str:
        limit = inputs.get("max_new_tokens", self.settings.max_new_tokens)
        by_itself = prediction.metrics.get("ended_by_itself")
        return "length" if not by_itself and prediction.metrics.get("output_tokens", 0) >= limit else "stop"


async def advance(pieces: AsyncGenerator[tuple[str, Prediction], None], *, to_the_end: bool) -> Prediction:
    """Return the prediction at its first text, so that what fails before has a status of its own, or at its end."""
    async for text, latest in pieces:
        prediction = latest
        if text and not to_the_end:
            break
    return prediction


def usage(prediction: Prediction) -> dict[str, int]:
    read, written = (int(prediction.metrics.get(name, 0)) for name in ("input_tokens", "output_tokens"))
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


# Errors, in OpenAI's form.


def status(error: Exception) -> tuple[int, str]:
    """Return the HTTP status and the message. Of an error that is not ours the message may hold anybody's words."""
    if not isinstance(error, GhostError):
        return 500, FAILED
    by_prompt = (
        isinstance(error, PredictionFailed) and error.prediction and "PromptError" in str(error.prediction.error)
    )
    if by_prompt or isinstance(error, PromptError | SettingsError):
        return 400, str(error)
    kinds = {ServerBusy: 429, ServerStarting: 503, ServerUnreachable: 502, PredictionLost: 502}
    return next((number for kind, number in kinds.items() if isinstance(error, kind)), 500), str(error)


def problem(status: int, message: str) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status)
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def failed(request: Request, error: Exception) -> Response:
    number, message = status(error)
    if not isinstance(error, GhostError):
        logged(error)
    if number in (429, 503):
        seconds = (error.retry_after if isinstance(error, ServerBusy) else None) or RETRY_SECONDS
        headers = {"Retry-After": f"{seconds:.0f}"}
    else:
        headers = {"X-Should-Retry": "false"}  # on Replicate each try costs money; the openai package heeds it
    return encoded(problem(number, message), number, headers)


def refused(request: Request, error: Any) -> Response:
    """Answer an HTTPException, ours or Starlette's."""
    message = error.detail
    if error.status_code in (404, 405):
        message = f"{request.method} {request.url.path} is not served here; see docs/clients.md"
    return encoded(problem(error.status_code, message), error.status_code, error.headers)


def encoded(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def event(body: Any) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def guarded(status: int, message: str) -> Response:
    """Answer a request that the guard refuses."""
    return encoded(problem(status, message), status, {"WWW-Authenticate": "Bearer"} if status == 401 else None)
