"""The client of Cog's server: against the real one, and against one that breaks in the ways the real one cannot be told
to."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

import httpx2
import pytest

from ghost.errors import ServerError
from ghost.serving.client import (
    CogServer,
    PredictionFailed,
    PredictionLost,
    ServerBusy,
    ServerStarting,
    ServerUnreachable,
    predict,
)
from ghost.serving.client.prediction import check
from tests.ghost.serving.cog_server import ASYNC, ENDLESS, wait_until
from tests.loopback_server import LoopbackServer, QuietHandler

SECRET = "une phrase que personne ne doit lire dans un journal"
Result = TypeVar("Result")


def ask(url: str, call: Callable[[CogServer], Coroutine[Any, Any, Result]], **options: Any) -> Result:
    async def go() -> Result:
        async with CogServer(url, **options) as server:
            return await call(server)

    return asyncio.run(go())


async def everything(pieces: AsyncGenerator[str, None]) -> list[str]:
    async with aclosing(pieces):
        return [piece async for piece in pieces]


def test_the_pieces_of_a_stream_are_the_answer(url: str, http: httpx2.Client) -> None:
    inputs = {"prompt": "on se voit ?", "max_new_tokens": 8, "seed": 4}
    pieces = ask(url, lambda server: everything(server.stream(inputs)))
    answer = ask(url, lambda server: server.answer(inputs))
    assert len(pieces) > 1
    assert answer.output == "".join(pieces) == predict(url, **inputs)
    assert answer.done
    assert answer.metrics["output_tokens"] == 8
    assert answer.metrics["predict_time"] > 0


def test_leaving_a_stream_ends_the_work(url: str, http: httpx2.Client) -> None:
    async def first(server: CogServer) -> str:
        async with aclosing(server.stream(ENDLESS)) as pieces:
            async for piece in pieces:
                return piece
        raise AssertionError

    assert ask(url, first)
    wait_until(http, "READY")


def test_an_answer_that_takes_too_long_is_canceled(url: str, http: httpx2.Client) -> None:
    with pytest.raises(PredictionFailed, match="no reply within 2 s") as failure:
        ask(url, lambda server: server.answer(ENDLESS, seconds=2))
    assert failure.value.prediction
    assert failure.value.prediction.output
    wait_until(http, "READY")


def test_canceling_from_elsewhere_is_a_failure_that_says_so(url: str, http: httpx2.Client) -> None:
    async def canceled(server: CogServer) -> str:
        async for prediction in server.states(ENDLESS, 60):
            await server.cancel(prediction.id)
        with pytest.raises(PredictionFailed, match="the prediction was canceled"):
            check(prediction, ENDLESS)
        return prediction.id

    id = ask(url, canceled)
    ask(url, lambda server: server.cancel(id))  # not any more: no error
    ask(url, lambda server: server.cancel("chat/7 é"))  # an id of any characters is one segment of the path


def test_a_busy_server_is_told_after_a_while_and_waited_for(url: str, http: httpx2.Client) -> None:
    assert http.put("/predictions/long", json={"input": ENDLESS}, headers=ASYNC).status_code == 202
    inputs = {"prompt": "hey", "max_new_tokens": 2}
    with pytest.raises(ServerBusy):
        ask(url, lambda server: server.answer(inputs), busy_seconds=0.1)
    with pytest.raises(ServerBusy):
        ask(url, lambda server: server.answer(inputs, seconds=0.1))

    async def wait(server: CogServer) -> str:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(server.answer(inputs))
            await asyncio.sleep(0.1)
            await server.cancel("long")
        return waiting.result().status

    assert ask(url, wait) == "succeeded"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"prompt": "hey", "temperature": -1}, "^temperature: -1 is less than the minimum"),
        ({}, "^prompt: Field required"),
        ({"prompt": [SECRET]}, "^prompt: list has the wrong type"),
        ({"prompt": "hey", "stop_sequences": [["x", SECRET]]}, "stop_sequences: list has the wrong type"),
        ({"prompt": "hey", "stop_sequences": SECRET, "top_k": -2}, "stop_sequences: str has the wrong type"),
    ],
)
def test_invalid_inputs_are_named_and_texts_not_shown(
    url: str, http: httpx2.Client, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ServerError, match=message) as refused:
        ask(url, lambda server: server.answer(inputs))
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("detail", ["bad", ["bad"], [{}], None])
def test_a_422_of_another_shape_is_told_all_the_same(broken: tuple[str, "Broken"], detail: Any) -> None:
    url, told = broken
    told.status, told.body = 422, json.dumps({"detail": detail}).encode()
    with pytest.raises(ServerError):
        ask(url, lambda server: server.answer({"prompt": "hey"}))


def test_a_prompt_that_cannot_be_answered_says_why(url: str, http: httpx2.Client) -> None:
    with pytest.raises(PredictionFailed, match=r"^prompt is empty") as failure:
        predict(url, "  ")
    assert failure.value.prediction
    assert failure.value.prediction.status == "failed"


def test_a_cog_server_keeps_nothing(url: str, http: httpx2.Client) -> None:
    with pytest.raises(ServerError, match="stores no predictions"):
        ask(url, lambda server: server.get("mine"))


def test_nobody_there() -> None:
    with pytest.raises(ServerUnreachable, match=r"^http://127\.0\.0\.1:9: no answer"):
        predict("http://127.0.0.1:9", SECRET)


@pytest.mark.parametrize("url", ["127.0.0.1:5050", "http://", "ftp://here", "http://[::"])
def test_what_is_no_url_is_told(url: str) -> None:
    with pytest.raises(ServerError, match=r"is not (a|the) URL"):
        CogServer(url)


class Broken:
    """A server whose next answer is `status` and `body`; a stream's content may end before it should."""

    def __init__(self) -> None:
        self.status, self.body, self.stream = 200, b"", False
        self.health: dict[str, Any] = {"status": "READY"}
        self.requests: list[str] = []


@pytest.fixture
def broken() -> Iterator[tuple[str, Broken]]:
    told = Broken()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self.answer(200, json.dumps(told.health).encode(), "application/json")

        def do_POST(self) -> None:
            told.requests.append(self.path)
            self.answer(200, b"{}", "application/json")

        def do_PUT(self) -> None:
            told.requests.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            if told.status == 0:
                self.close_connection = True
            elif told.stream:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(told.body)
                self.close_connection = True
            else:
                self.answer(told.status, told.body, "application/json")

        def answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = LoopbackServer(Handler)
    server.start()
    yield server.url, told
    server.stop()


START = b'event: start\ndata: {"id":"x","status":"processing"}\n\nevent: output\ndata: {"chunk":"oui","index":0}\n\n'


@pytest.mark.parametrize("body", [b"", START, START + b"event: completed\ndata: {"])
def test_a_connection_that_is_cut_is_a_loss_and_no_failure(broken: tuple[str, Broken], body: bytes) -> None:
    url, told = broken
    told.stream, told.body = True, body
    with pytest.raises(PredictionLost) as lost:
        ask(url, lambda server: server.answer({"prompt": SECRET}))
    assert SECRET not in str(lost.value)
    path = f"/predictions/{lost.value.id}"
    assert told.requests == [path, f"{path}/cancel"]  # sent once; and it should not run on


def test_a_connection_that_is_cut_before_the_answer_is_a_loss_too(broken: tuple[str, Broken]) -> None:
    url, told = broken
    told.status = 0
    with pytest.raises(PredictionLost) as lost:
        ask(url, lambda server: server.answer({"prompt": "hey"}))
    assert told.requests.count(f"/predictions/{lost.value.id}") == 1


@pytest.mark.parametrize(
    ("status", "health", "kind", "message"),
    [
        (503, {"status": "STARTING"}, ServerStarting, "still loading"),
        (
            503,
            {"status": "SETUP_FAILED", "setup": {"logs": "Traceback\nWeightsError: model.safetensors: its SHA-256 …"}},
            ServerError,
            "^the model could not be set up: model.safetensors: its SHA-256 …$",
        ),
        (409, {"status": "UNHEALTHY"}, ServerError, "UNHEALTHY: the model's process has died"),
        (500, {}, ServerError, "HTTP status 500"),
    ],
)
def test_a_server_that_is_not_ready_says_why(
    broken: tuple[str, Broken], status: int, health: dict[str, Any], kind: type[ServerError], message: str
) -> None:
    url, told = broken
    told.status, told.health = status, health
    with pytest.raises(ServerError, match=message) as refused:
        ask(url, lambda server: server.answer({"prompt": "hey"}))
    assert type(refused.value) is kind
    assert len(told.requests) == 1


def test_an_answer_that_is_no_prediction_is_told(broken: tuple[str, Broken]) -> None:
    url, told = broken
    told.body = b"<html>welcome</html>"
    with pytest.raises(ServerError, match="is not a prediction"):
        ask(url, lambda server: server.answer({"prompt": "hey"}))


def test_a_failure_that_repeats_the_prompt_is_not_shown(broken: tuple[str, Broken]) -> None:
    url, told = broken
    told.body = json.dumps({"status": "failed", "error": f"ValueError: cannot encode {SECRET}"}).encode()
    with pytest.raises(PredictionFailed, match="not shown"):
        ask(url, lambda server: server.answer({"prompt": f"hey\n{SECRET}"}))


def test_a_failure_does_not_command_the_terminal(broken: tuple[str, Broken]) -> None:
    url, told = broken
    error = "Prediction failed: \x1b]0;pwned\x07no\x9b2J\r\nmore"
    told.body = json.dumps({"status": "failed", "error": error}).encode()
    with pytest.raises(PredictionFailed, match=r"^\]0;pwnedno2J$"):
        ask(url, lambda server: server.answer({"prompt": "hey"}))
