"""What a server tells about one prediction, and what every server of predictions can do."""

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args

from ghost.errors import PredictionLost, ServerError, ServerUnreachable

if TYPE_CHECKING:
    import httpx2

# How requests are sent: timeouts, proxies, and which of our errors a broken connection is.

CONNECT_SECONDS = 10
READ_SECONDS = 60  # between two packets of an answer that is not a prediction


def is_loopback(url: "httpx2.URL") -> bool:
    try:
        return ip_address(url.host).is_loopback
    except ValueError:
        return url.host == "localhost"


def open_client(
    url: str, auth: "Callable[[httpx2.Request], httpx2.Request] | None" = None, *, keep: bool = True
) -> "httpx2.AsyncClient":
    """A client for the server at `url`, which keeps its connections open unless told otherwise; `auth` sees each
    request before it is sent.

    Raises ServerError when that is no http(s) URL.
    """
    import httpx2

    try:
        base = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ServerError(f"{url!r} is no URL ({error})") from error
    if base.scheme not in ("http", "https") or not base.host:
        raise ServerError(f"{url!r} is no URL of a server; one looks like http://127.0.0.1:5050")
    return httpx2.AsyncClient(
        base_url=base,
        auth=auth,
        timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        limits=httpx2.Limits(max_keepalive_connections=None if keep else 0),
        trust_env=not is_loopback(base),  # a proxy set in the environment would not reach this machine
        verify=base.scheme == "https",  # without TLS there is nothing to verify, and its context costs 0.2 s
    )


@contextmanager
def told(url: str, *, sent: str = "", id: str | None = None) -> Iterator[None]:
    """Turns a broken connection into our error: ServerUnreachable when nothing can have been sent.

    `sent` says what is in doubt once something was; without it the request changes nothing and may be repeated.
    """
    import httpx2

    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol) as error:
        hint = "does the server run?" if is_loopback(httpx2.URL(url)) else "is there a network, and is the name right?"
        raise ServerUnreachable(f"{url}: no answer ({_kind(error)}); {hint}") from error
    except httpx2.TransportError as error:
        if sent:
            raise PredictionLost(f"{url}: the connection was lost ({_kind(error)}); {sent}", id) from error
        raise ServerError(f"{url}: the connection was lost ({_kind(error)})") from error


@asynccontextmanager
async def events(
    http: "httpx2.AsyncClient", method: str, url: str, **request: Any
) -> "AsyncIterator[tuple[httpx2.Response, AsyncIterator[httpx2.ServerSentEvent]]]":
    """The response and, when it is a stream, its server-sent events; any other response has been read."""
    async with http.sse(url, method=method, **request) as source:
        if not source.response.headers.get("content-type", "").startswith("text/event-stream"):
            await source.response.aread()
        yield source.response, aiter(source)


def parsed(response: "httpx2.Response") -> dict[str, Any]:
    """A JSON object, else an empty one: for the answers of servers and of the proxies before them."""
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def invalid_inputs(detail: Any, inputs: Mapping[str, Any]) -> str:
    """The fields of a 422 by name. A validator repeats the value, so its words are shown for numbers only."""
    problems = []
    for problem in detail if isinstance(detail, list) else []:
        if not isinstance(problem, dict):
            continue
        path = "/".join(str(part) for part in problem.get("loc") or ["input"])  # of an item Cog tells "stops/0"
        where = path.split("/")
        field = next((part for part in where if part in inputs), where[-1])
        harmless = isinstance(inputs.get(field), int | float | None)
        message = (
            reason(str(problem.get("msg")), inputs)
            if harmless
            else f"{type(inputs[field]).__name__} is not what it takes"
        )
        problems.append(f"{field}: {message}")
    return "; ".join(problems) or "the server refuses the inputs (422)"


def reason(error: str, inputs: Mapping[str, Any] | None = None) -> str:
    """A server's error for a person: one line, the message behind the stages that it passed, nobody's chat in it, and
    nothing that a terminal would obey.

    Cog puts what it was doing and our exception's name before the message.
    """
    error = re.sub(
        r"^(?:worker setup failed.*?setup failed: (?=\w+:)|Prediction failed: |Generator iteration error: )+", "", error
    )
    line = re.split(r"\b(?:PromptError|SettingsError|WeightsError): ", error, maxsplit=1)[-1].strip().split("\n")[0]
    for said in str((inputs or {}).get("prompt", "")).split("\n"):
        if len(said) > 8 and said in line:
            return "an error that repeats the prompt, and is therefore not shown"
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "", line)[:300]


def _kind(error: "httpx2.TransportError") -> str:
    return str(error) or type(error).__name__


Status = Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"]
STREAM_SECONDS = 1800  # a stream is read by a person, who may stop it


@dataclass(frozen=True)
class Prediction:
    """One prediction, as the server last told it."""

    id: str
    status: Status
    output: str = ""  # the pieces so far, joined
    error: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """As told: predict_time and time_to_first_token in seconds, input_tokens, output_tokens, ended_by_itself (0, 1)."""
    urls: Mapping[str, str] = field(default_factory=dict)
    created_at: str = ""  # this and the next two: ISO 8601, Replicate only
    started_at: str = ""
    completed_at: str = ""
    data_removed: bool = False  # Replicate deletes inputs and outputs after an hour

    @property
    def done(self) -> bool:
        return self.status not in ("starting", "processing")


class Backend(ABC):
    """A server of predictions. An async context manager; every call raises a ServerError of ghost/errors.py."""

    http: "httpx2.AsyncClient"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    @abstractmethod
    async def get(self, id: str) -> Prediction:
        """Its present state."""

    @abstractmethod
    async def cancel(self, id: str) -> None:
        """Stop it, if it still runs; no error if it does not."""

    @abstractmethod
    def states(self, inputs: Mapping[str, Any], seconds: float) -> AsyncGenerator[Prediction, None]:
        """Send the inputs, once, and yield the prediction each time more of it is known; the last one is done.

        Closing the iterator before its end cancels the prediction. When what became of the inputs is not known this
        raises PredictionLost. A server that can end a prediction by itself is told to after `seconds`.
        """

    async def stream(self, inputs: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """The reply's pieces as they come. Closing the iterator before its end cancels the prediction.

        Raises PredictionFailed when it ends in another way than "succeeded", or with another text than the pieces'.
        """
        said, prediction = "", None
        async with aclosing(self.states(inputs, STREAM_SECONDS)) as states:
            async for prediction in states:
                if prediction.output.startswith(said) and (piece := prediction.output[len(said) :]):
                    said += piece
                    yield piece
        ended = check(prediction, inputs)
        # Line ends aside, which an event stream does not keep. What was yielded cannot be taken back.
        if not ended.data_removed and said.splitlines() != ended.output.splitlines():
            raise PredictionFailed(f"prediction {ended.id}: what was streamed is not its output", ended)

    async def answer(self, inputs: Mapping[str, Any], *, seconds: float = 300) -> Prediction:
        """The prediction, once it has succeeded.

        Raises PredictionFailed when it ends in another way, or runs longer than `seconds` and is therefore canceled.
        """
        deadline = time.monotonic() + seconds
        async with aclosing(self.states(inputs, seconds)) as states:
            prediction = await anext(states)  # not cut short: what was sent and not answered could not be canceled
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    async for later in states:
                        prediction = later
            except TimeoutError as error:
                raise PredictionFailed(f"no reply within {seconds:g} s: canceled", prediction) from error
        return check(prediction, inputs)


def read(answer: Mapping[str, Any]) -> Prediction:
    """The prediction object of a server's JSON. Raises ServerError when it is none."""
    status, id = answer.get("status"), answer.get("id")
    if status not in get_args(Status) or not isinstance(id, str):
        raise ServerError(f"the server answers with something else than a prediction (status {status!r:.40})")
    return Prediction(
        id,
        cast(Status, status),
        joined(answer.get("output")),
        answer.get("error") or None,
        {name: value for name, value in (answer.get("metrics") or {}).items() if isinstance(value, int | float)},
        {name: url for name, url in (answer.get("urls") or {}).items() if isinstance(url, str)},
        answer.get("created_at") or "",
        answer.get("started_at") or "",
        answer.get("completed_at") or "",
        bool(answer.get("data_removed")),
    )


def joined(output: Any) -> str:
    """Servers tell an iterator's output as a list, and no output as null."""
    return "".join(map(str, output)) if isinstance(output, list) else str(output or "")


def check(prediction: Prediction | None, inputs: Mapping[str, Any]) -> Prediction:
    """The prediction, if it succeeded. Raises PredictionFailed with the server's reason."""
    if prediction is None or prediction.status != "succeeded":
        status = prediction.status if prediction else "lost"
        why = prediction.error if prediction else None
        raise PredictionFailed(reason(why, inputs) if why else f"the prediction was {status}", prediction)
    return prediction


class PredictionFailed(ServerError):
    def __init__(self, message: str, prediction: "Prediction | None" = None) -> None:
        super().__init__(message)
        self.prediction = prediction
