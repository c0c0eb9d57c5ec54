"""What tests ask Cog's own server, over plain HTTP."""

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx2

# Without the penalty a greedy model of random weights goes round in circles to its last token: seconds, unless stopped.
ENDLESS = {"prompt": "hey", "temperature": 0, "repetition_penalty": 1, "max_new_tokens": 1024}
STREAM = {"Accept": "text/event-stream"}
ASYNC = {"Prefer": "respond-async"}


class Event(NamedTuple):
    name: str
    data: dict[str, Any]


def wait_until(http: httpx2.Client, status: str) -> None:
    """The server is free only a moment after it has answered."""
    while (found := http.get("/health-check").json()["status"]) != status:
        assert found in {"STARTING", "READY", "BUSY"}, found
        time.sleep(0.01)


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
