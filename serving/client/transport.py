"""How requests are sent: timeouts, proxies, and which of our errors a broken connection is."""

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from training.errors import PredictionLost, ServerError, ServerUnreachable

if TYPE_CHECKING:
    import httpx2

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
