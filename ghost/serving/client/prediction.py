"""The state of one prediction, and the interface of every backend that makes them."""

import asyncio
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args

from ghost.errors import PredictionLost, ServerError, ServerUnreachable
from replicate_deployment.chat_format import well_formed

if TYPE_CHECKING:
    import httpx2

# Send requests: timeouts, proxies, and our errors for broken connections.

CONNECT_SECONDS = 10
READ_SECONDS = 60  # between two packets of a response other than a prediction


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_client(
    url: str, auth: "Callable[[httpx2.Request], httpx2.Request] | None" = None, *, keep: bool = True
) -> "httpx2.AsyncClient":
    """Make a client for the server at `url`. `keep`: keep connections open. `auth` is called with each request.

    Raises ServerError if `url` is not an http(s) URL.
    """
    import httpx2

    try:
        base = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ServerError(f"{url!r} is not a URL ({error})") from error
    if base.scheme not in ("http", "https") or not base.host:
        raise ServerError(f"{url!r} is not the URL of a server; give one like http://127.0.0.1:5050")
    return httpx2.AsyncClient(
        base_url=base,
        auth=auth,
        timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        limits=httpx2.Limits(max_keepalive_connections=None if keep else 0),
        trust_env=not is_loopback(base.host),  # a proxy from the environment could not reach this machine
        verify=base.scheme == "https",  # without TLS there is nothing to verify, and its context costs 0.2 s
    )


@contextmanager
def connection_errors(url: str, *, sent: str = "", id: str | None = None) -> Iterator[None]:
    """Translate a broken connection into our errors: ServerUnreachable if nothing can have been sent.

    `sent` is the message for a request that may have taken effect (PredictionLost); without it, the request can be
    repeated safely.
    """
    import httpx2

    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol) as error:
        hint = "is the server running?" if is_loopback(httpx2.URL(url).host) else "check the network and the name"
        raise ServerUnreachable(f"{url}: no answer ({_kind(error)}); {hint}") from error
    except httpx2.TransportError as error:
        if sent:
            raise PredictionLost(f"{url}: the connection was lost ({_kind(error)}); {sent}", id) from error
        raise ServerError(f"{url}: the connection was lost ({_kind(error)})") from error


@asynccontextmanager
async def events(
    http: "httpx2.AsyncClient", method: str, url: str, **request: Any
) -> "AsyncIterator[tuple[httpx2.Response, AsyncIterator[httpx2.ServerSentEvent]]]":
    """Yield the response and, if it is a stream, its server-sent events; any other response is read already."""
    async with http.sse(url, method=method, **request) as source:
        if not source.response.headers.get("content-type", "").startswith("text/event-stream"):
            await source.response.aread()
        yield source.response, aiter(source)


def parsed(response: "httpx2.Response") -> dict[str, Any]:
    """Return the response's JSON object, or an empty one: proxies answer too."""
    try:
        return json_object(response.text)
    except ValueError:
        return {}


def json_object(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object that a server has sent, its texts well-formed. Raises ValueError if it is none."""
    try:
        found = json.loads(text)
        if r"\u" in (text if isinstance(text, str) else text.decode(errors="replace")):
            found = json.loads(well_formed(json.dumps(found, ensure_ascii=False)))
    except RecursionError as error:
        raise ValueError("too many levels") from error
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def invalid_inputs(detail: Any, inputs: Mapping[str, Any]) -> str:
    """Describe the invalid fields of a 422. The validator's message repeats the value, so show it for numbers only."""
    problems = []
    for problem in detail if isinstance(detail, list) else []:
        if not isinstance(problem, dict):
            continue
        path = "/".join(str(part) for part in problem.get("loc") or ["input"])  # Cog writes "stops/0" for an item
        where = path.split("/")
        field = next((part for part in where if part in inputs), where[-1])
        harmless = isinstance(inputs.get(field), int | float | None)
        message = (
            reason(str(problem.get("msg")), inputs)
            if harmless
            else f"{type(inputs[field]).__name__} has the wrong type"
        )
        problems.append(f"{field}: {message}")
    return "; ".join(problems) or "the server refuses the inputs (422)"


def reason(error: str, inputs: Mapping[str, Any] | None = None) -> str:
    """Return a server's error as one line, without Cog's prefixes (its stages, our exception's name), text of the
    prompt, and control characters.
    """
    error = re.sub(
        r"^(?:worker setup failed.*?setup failed: (?=\w+:)|Prediction failed: |Generator iteration error: )+", "", error
    )
    line = re.split(r"\b(?:PromptError|SettingsError|WeightsError): ", error, maxsplit=1)[-1].strip().split("\n")[0]
    for said in str((inputs or {}).get("prompt", "")).split("\n"):
        if len(said) > 8 and said in line:
            return "an error that repeats the prompt, so it is not shown"
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "", line)[:300]


def _kind(error: "httpx2.TransportError") -> str:
    return str(error) or type(error).__name__


Status = Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"]
LONGEST_REPLY = 100_000  # characters; 1,024 tokens, the most that can be asked for, are some 4,000
STREAM_SECONDS = 1800  # a stream is read by a person, who may stop it


@dataclass(frozen=True)
class Prediction:
    """The last known state of a prediction."""

    id: str
    status: Status
    output: str = ""  # the pieces so far, joined
    error: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """predict_time and time_to_first_token in seconds, input_tokens, output_tokens, ended_by_itself and
    ended_by_stop_sequence (0, 1)."""
    urls: Mapping[str, str] = field(default_factory=dict)
    created_at: str = ""  # this and the next two: ISO 8601, Replicate only
    started_at: str = ""
    completed_at: str = ""
    data_removed: bool = False  # Replicate deletes inputs and outputs after an hour

    @property
    def done(self) -> bool:
        return self.status not in ("starting", "processing")


class Backend(ABC):
    """A server that makes predictions; an async context manager. Calls raise ServerErrors (ghost/errors.py)."""

    http: "httpx2.AsyncClient"
    url: str

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def ready(self) -> None:  # noqa: B027  a server that cannot be asked is found out by the first request
        """Check that the server can answer, before other work. Raises ServerError if it cannot."""

    async def get(self, id: str) -> Prediction:
        """Return its current state. Raises ServerError if the server stores no predictions."""
        raise ServerError(f"{self.url} stores no predictions: {id} can be followed only by the connection that made it")

    @abstractmethod
    async def cancel(self, id: str) -> None:
        """Stop it if it is running; otherwise do nothing."""

    @abstractmethod
    def states(self, inputs: Mapping[str, Any], seconds: float) -> AsyncGenerator[Prediction, None]:
        """Send the inputs once, and yield the prediction at each change until it is done.

        Closing the iterator earlier cancels the prediction. `seconds` is the server's own time limit, where it has one.
        Raises PredictionLost if it is unknown whether the inputs took effect.
        """

    async def stream(self, inputs: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """Yield the reply's pieces as they arrive. Closing the iterator earlier cancels the prediction.

        Raises PredictionFailed if it does not succeed, or if its output differs from the pieces.
        """
        async with aclosing(self.pieces(inputs)) as pieces:
            async for piece, _ in pieces:
                if piece:
                    yield piece

    async def pieces(self, inputs: Mapping[str, Any]) -> AsyncGenerator[tuple[str, Prediction], None]:
        """Yield the prediction at each change, with the text that it brings, if any. Otherwise as `stream`."""
        said, prediction = "", None
        async with aclosing(self.states(inputs, STREAM_SECONDS)) as states:
            async for prediction in states:
                bounded(prediction)
                piece = prediction.output[len(said) :] if prediction.output.startswith(said) else ""
                said += piece
                yield piece, prediction
        ended = check(prediction, inputs)
        # Ignore line ends, which an event stream does not keep.
        if not ended.data_removed and said.splitlines() != ended.output.splitlines():
            raise PredictionFailed(f"prediction {ended.id}: its output differs from what was streamed", ended)

    async def answer(self, inputs: Mapping[str, Any], *, seconds: float = 300) -> Prediction:
        """Return the prediction when it has succeeded.

        Raises PredictionFailed if it fails, or is canceled after `seconds`.
        """
        deadline = time.monotonic() + seconds
        async with aclosing(self.states(inputs, seconds)) as states:
            prediction = bounded(await anext(states))  # no timeout yet: without its id it could not be canceled
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    async for later in states:
                        prediction = bounded(later)
            except TimeoutError as error:
                raise PredictionFailed(f"no reply within {seconds:g} s, so it was canceled", prediction) from error
        return check(prediction, inputs)


def read(answer: Mapping[str, Any]) -> Prediction:
    """Parse a server's prediction object. Raises ServerError if it is not one."""
    status, id, error = answer.get("status"), answer.get("id"), answer.get("error")
    if not isinstance(status, str) or status not in get_args(Status) or not isinstance(id, str):
        raise ServerError(f"the server's answer is not a prediction (status {status!r:.40})")
    metrics, urls = (found if isinstance(found := answer.get(key), dict) else {} for key in ("metrics", "urls"))
    created, started, completed = (str(answer.get(key) or "") for key in ("created_at", "started_at", "completed_at"))
    return Prediction(
        id,
        cast(Status, status),
        joined(answer.get("output")),
        str(error) if error else None,
        {name: value for name, value in metrics.items() if is_measure(value)},
        {name: url for name, url in urls.items() if isinstance(url, str)},
        created,
        started,
        completed,
        bool(answer.get("data_removed")),
    )


def is_measure(value: object) -> bool:
    """Whether a server's figure is a number that can be computed with and stored."""
    return isinstance(value, int | float) and abs(value) < 1e12  # NaN is not


def joined(output: Any) -> str:
    """Join an iterator's output, which servers send as a list; no output is null."""
    return "".join(map(str, output)) if isinstance(output, list) else str(output or "")


def bounded(prediction: Prediction) -> Prediction:
    """Return the prediction. Raises PredictionFailed if its reply is longer than any that we ask for."""
    if len(prediction.output) > LONGEST_REPLY:
        raise PredictionFailed(f"the server sent a reply of more than {LONGEST_REPLY:,} characters", None)
    return prediction


def check(prediction: Prediction | None, inputs: Mapping[str, Any]) -> Prediction:
    """Return the prediction if it succeeded. Raises PredictionFailed with the server's reason."""
    if prediction is None or prediction.status != "succeeded":
        status = prediction.status if prediction else "lost"
        why = prediction.error if prediction else None
        raise PredictionFailed(reason(why, inputs) if why else f"the prediction was {status}", prediction)
    return prediction


class PredictionFailed(ServerError):
    def __init__(self, message: str, prediction: "Prediction | None" = None) -> None:
        super().__init__(message)
        self.prediction = prediction
