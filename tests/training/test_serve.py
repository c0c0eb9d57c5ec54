"""Cog's real server, started once, on the tiny merged model."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from serving import serve
from serving.client import predict
from training import cli
from training.errors import ServerError

# Random weights know no end: greedy and with a stop that never comes, a reply runs to its last token.
ENDLESS = {"prompt": "hey", "temperature": 0, "max_new_tokens": 1024}


@pytest.fixture(scope="module")
def url(tiny_merged: Path) -> Iterator[str]:
    """The base URL of one `ghost serve`, which ends well when it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "training.cli", "serve", "--weights", str(tiny_merged), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(serve.__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # two threads on two busy cores take ten times as long
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("ready")
        curl = process.stdout.readline().split()
        assert curl[0] == "curl"
        yield curl[1].removesuffix("/predictions")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def http(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, trust_env=False, timeout=60) as client:
        wait_until_free(client)
        yield client


def wait_until_free(http: httpx2.Client) -> None:
    """The server is free only a moment after it has answered."""
    while http.get("/health-check").json()["status"] == "BUSY":
        time.sleep(0.02)


def post(http: httpx2.Client, **inputs: Any) -> httpx2.Response:
    return http.post("/predictions", json={"input": inputs})


def test_it_is_ready_and_says_what_it_takes(http: httpx2.Client) -> None:
    assert http.get("/health-check").json()["status"] == "READY"
    assert "temperature" in http.get("/openapi.json").json()["components"]["schemas"]["Input"]["properties"]


def test_a_prediction_has_pieces_and_counts(http: httpx2.Client) -> None:
    answer = post(http, prompt="hey you", max_new_tokens=6).json()
    assert answer["status"] == "succeeded"
    assert 0 < answer["metrics"]["output_tokens"] <= 6
    assert answer["metrics"]["input_tokens"] > 6


def test_the_same_seed_gives_the_same_reply_streamed_or_not(url: str, http: httpx2.Client) -> None:
    inputs = {"prompt": "on se voit ?", "max_new_tokens": 8, "seed": 4}
    whole = predict(url, **inputs)
    assert whole
    wait_until_free(http)
    with http.stream(
        "POST", "/predictions", json={"input": inputs}, headers={"Accept": "text/event-stream"}
    ) as response:
        lines = [line for line in response.iter_lines() if line]
    events = list(zip(lines[::2], lines[1::2], strict=True))
    chunks = [data for event, data in events if event == "event: output"]
    assert (events[0][0], events[-1][0]) == ("event: start", "event: completed")
    assert len(chunks) > 1
    assert "".join(json.loads(data.removeprefix("data: "))["chunk"] for data in chunks) == whole


def test_predictions_one_after_the_other_never_meet_a_busy_server(url: str) -> None:
    replies = [predict(url, "hey", max_new_tokens=3, seed=2) for _ in range(30)]
    assert len(set(replies)) == 1


def test_stop_sequences_may_hold_a_comma(url: str) -> None:
    inputs = {"prompt": "hey", "max_new_tokens": 30, "seed": 1}
    reply = predict(url, **inputs)
    stop = reply[4:6]
    assert predict(url, stop_sequences=[stop, ", and"], **inputs) == reply[: reply.index(stop)].rstrip()


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({"prompt": "hey", "temperature": -1}, "temperature"),
        ({"prompt": "hey", "max_new_tokens": 0}, "max_new_tokens"),
        ({"prompt": "hey", "stop_sequences": "a,b"}, "stop_sequences"),
        ({"temperature": 1}, "prompt"),
    ],
)
def test_an_invalid_input_is_422_and_named(http: httpx2.Client, inputs: dict[str, Any], field: str) -> None:
    response = post(http, **inputs)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "input", field]


def test_the_client_names_the_field_too(url: str) -> None:
    with pytest.raises(ServerError, match=r"temperature: -1 is less than the minimum"):
        predict(url, "hey", temperature=-1)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("B: hi\nA: hello", "^prompt ends in a finished A: turn"),
        ("  ", "^prompt is empty"),
        ("x" * 4000, "^the last message is .* tokens"),
    ],
)
def test_a_prompt_that_cannot_be_answered_says_why(url: str, prompt: str, message: str) -> None:
    with pytest.raises(ServerError, match=message):
        predict(url, prompt)


def test_busy_then_cancelled_then_free(url: str, http: httpx2.Client) -> None:
    running = http.put("/predictions/long", json={"input": ENDLESS}, headers={"Prefer": "respond-async"})
    assert running.status_code == 202
    assert post(http, prompt="hey").status_code == 409
    assert http.post("/predictions/long/cancel").status_code == 200
    wait_until_free(http)
    assert post(http, prompt="hey", max_new_tokens=2).json()["status"] == "succeeded"


def test_nobody_there_is_one_line() -> None:
    with pytest.raises(ServerError, match=r"^http://127\.0\.0\.1:9: no answer"):
        predict("http://127.0.0.1:9", "hey")


def test_weights_that_cannot_be_set_up_fail_with_the_reason(tiny_merged: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_merged, tmp_path / "merged"))
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with (
        pytest.raises(ServerError, match=rf"^the model could not be set up: {path}: its SHA-256"),
        serve.running_server(folder),
    ):
        pytest.fail("a server on altered weights became ready")


def test_a_wrong_folder_is_told_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--weights", str(tmp_path / "nowhere")]) == 1
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_truncated_weights_are_told_before_anything_starts(
    tiny_merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(tiny_merged, tmp_path / "merged"))
    os.truncate(folder / "model.safetensors", 1000)
    assert cli.main(["serve", "--weights", str(folder)]) == 1
    assert "model.safetensors: 1,000 bytes" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(tiny_merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--weights", str(tiny_merged), "--port", str(port)]) == 1
    assert f"127.0.0.1:{port}" in capsys.readouterr().err
