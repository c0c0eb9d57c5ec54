"""What tests ask Cog's own server, over plain HTTP."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from ghost.serving.serve import running_server

# Without the penalty a greedy model of random weights goes round in circles to its last token; the shared server then
# begins anew until it is stopped, since on a machine that stalls 1,024 tokens may be over before a test's next request.
ENDLESS = {"prompt": "hey", "temperature": 0, "repetition_penalty": 1, "max_new_tokens": 1024}
PREDICTOR = f"""
from replicate_deployment import predict

class Endless:
    def __init__(self, engine):
        self.engine = engine

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def reply(self, turns, settings, **how):
        replies = iter(lambda: self.engine.reply(turns, settings, **how), None)
        if settings.max_new_tokens < {ENDLESS["max_new_tokens"]}:
            return next(replies)
        return (piece for reply in replies for piece in reply)

class Predictor(predict.Predictor):
    def load(self):
        return Endless(super().load())
"""
STREAM = {"Accept": "text/event-stream"}
ASYNC = {"Prefer": "respond-async"}


class _Shared:
    """The server of this process's tests. Each starts two processes and imports torch, for eight seconds of CPU."""

    def __init__(self) -> None:
        self.stack, self.url, self.log = ExitStack(), "", Path()

    def start(
        self, weights: Path, log: Path, running: Callable[..., AbstractContextManager[str]] = running_server
    ) -> str:
        if not self.url:
            self.log = log
            self.url = self.stack.enter_context(running(weights, log=log))
        return self.url

    def stop(self) -> None:
        self.stack.close()
        self.url = ""


shared = _Shared()


@pytest.fixture(scope="session")
def url(tiny_merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a server on the tiny merged model. The conftest of each folder that wants it imports this."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "predict.py").write_text(PREDICTOR)
    yield shared.start(tiny_merged, folder / "server.log", partial(running_server, context=folder))
    shared.stop()


def end_of(id: str) -> str:
    """How this prediction of the shared server has ended, "completed" or "cancelled": its log tells, a moment after."""
    line = re.compile(rf'"message":"Prediction (?:worker )?(completed|cancelled)","prediction_id":"{re.escape(id)}"')
    for _ in range(3000):
        if found := line.search(shared.log.read_text()):
            return found[1]
        time.sleep(0.01)
    raise TimeoutError(f"{id} has not ended")


class Event(NamedTuple):
    name: str
    data: dict[str, Any]


def wait_until(http: httpx2.Client, status: str) -> None:
    """The server is free only a moment after it has answered."""
    for _ in range(3000):
        if (found := http.get("/health-check").json()["status"]) == status:
            return
        assert found in {"STARTING", "READY", "BUSY"}, found
        time.sleep(0.01)
    raise TimeoutError(f"it is {found} and not {status}")


def post(http: httpx2.Client, **inputs: Any) -> httpx2.Response:
    wait_until(http, "READY")
    return http.post("/predictions", json={"input": inputs})


def events(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events as they arrive."""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield Event(name, json.loads(line.removeprefix("data: ")))


def streamed(http: httpx2.Client, **inputs: Any) -> list[Event]:
    wait_until(http, "READY")
    with http.stream("POST", "/predictions", json={"input": inputs}, headers=STREAM) as response:
        assert response.headers["content-type"] == "text/event-stream"
        return list(events(response.iter_lines()))
