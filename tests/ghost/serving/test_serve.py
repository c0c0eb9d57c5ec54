"""`ghost serve`, as a person meets it."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest
import torch

from ghost import cli
from ghost.errors import ServerError, UsageError
from ghost.serving import serve
from ghost.serving.client import predict
from ghost.serving.export import export
from tests.ghost.serving.cog_server import ENDLESS, STREAM, events, wait_until


@contextmanager
def ghost_serve(model: Path | str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "ghost.cli", "serve", str(model), "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(serve.__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # two threads on two busy cores take ten times as long
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str], lines: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(lines)]


def test_its_life(tiny_merged: Path, tmp_path: Path) -> None:
    """Ready, two commands that work as they stand, and an end that lets a prediction finish."""
    log = tmp_path / "server.log"
    with ghost_serve(tiny_merged, "--host", "0.0.0.0", "--log", str(log)) as process:
        ready, whole, _, stream, warning = said(process, 5)
        assert ready.startswith("ready; press Ctrl-C to stop")
        assert warning == "anyone who can reach 0.0.0.0 can talk to it: there is no password"
        url = shlex.split(whole)[1].removesuffix("/predictions")
        with httpx2.Client(base_url=url, trust_env=False, timeout=120) as http:
            for line, start in ((whole, '{"'), (stream, "event: start")) if shutil.which("curl") else ():
                wait_until(http, "READY")
                answer = subprocess.run(shlex.split(f"{line} -s"), capture_output=True, text=True, check=True).stdout
                assert answer.startswith(start)
                assert '"succeeded"' in answer
            wait_until(http, "READY")
            body = {"input": ENDLESS | {"prompt": "zebracorn", "max_new_tokens": 200}}
            with http.stream("POST", "/predictions", json=body, headers=STREAM) as response:
                told = events(response.iter_lines())
                assert next(told).name == "start"
                process.send_signal(signal.SIGTERM)
                assert [event.data for event in told][-1]["status"] == "succeeded"
        assert process.wait(60) == 0
        assert "zebracorn" not in log.read_text()
        assert "Starting prediction" in log.read_text()


def test_four_bits_are_asked_for_where_the_model_is_loaded(tiny_merged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    environments = []

    def started(*_: object, env: dict[str, str], **__: object) -> None:
        environments.append(env)
        raise OSError(1, "not in this test")

    monkeypatch.setattr(serve.subprocess, "Popen", started)
    for flags in ([], ["--load-in-4bit"]):
        assert cli.main(["serve", str(tiny_merged), "--port", "0", *flags]) == 1
    assert [environment.get("GHOST_LOAD_IN_4BIT") for environment in environments] == [None, "1"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="4 bits are for GPUs, and there is one")
def test_on_a_cpu_four_bits_point_to_a_gguf_file(tiny_merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", str(tiny_merged), "--load-in-4bit"]) == 2
    assert "--gguf q4_0" in capsys.readouterr().err


def test_a_gguf_file_is_served_over_both_apis(tiny_merged: Path, tmp_path: Path) -> None:
    """Cog's inputs, with its refusals, and OpenAI's; a seed gives the same reply by both."""
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed; it is in the extra `home`")
    file = export(tiny_merged, tmp_path / "gguf", "q8_0")["file"]
    with ghost_serve(file, "--openai", "0") as process:
        _, whole, _, _, second = said(process, 5)
        body = {"input": {"prompt": "hey", "seed": 3, "max_new_tokens": 8}}
        with httpx2.Client(trust_env=False, timeout=120) as http:
            url = shlex.split(whole)[1]
            cog = http.post(url, json=body).json()
            assert cog["status"] == "succeeded"
            assert cog["metrics"]["output_tokens"] <= 8
            assert http.post(url, json={"input": {"prompt": "hey", "temperature": 9}}).status_code == 422
            asked = {"messages": [{"role": "user", "content": "hey"}], "seed": 3, "max_tokens": 8}
            answer = http.post(f"{second.split()[2]}/chat/completions", json=asked).json()
        assert answer["model"] == "ghost-q8_0"
        assert answer["choices"][0]["message"]["content"] == "".join(cog["output"])
        assert answer["usage"]["prompt_tokens"] == cog["metrics"]["input_tokens"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.gguf"], "no such file"),
        (["models/merged", "--lora", "x.gguf"], "--lora runs over the GGUF file of a base"),
        (["x.gguf", "--load-in-4bit"], "is rounded already"),
        (["http://127.0.0.1:9", "--openai", "0", "--lora", "x.gguf"], "--lora runs over the GGUF file of a base"),
    ],
)
def test_what_does_not_fit_a_gguf_file_is_refused(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments == ["none.gguf"]:
        pytest.importorskip("xllamacpp", reason="xllamacpp is not installed; it is in the extra `home`")
    assert cli.main(["serve", *arguments]) in (1, 2)
    err = capsys.readouterr().err
    assert reason in err
    assert err.count("\n") == 1


PREDICTOR = """
from cog import BaseRunner, ConcatenateIterator, Input, streaming
from replicate_deployment.errors import WeightsError

class Predictor(BaseRunner):
    def setup(self):
        {setup}

    @streaming
    def run(self, prompt: str = Input()) -> ConcatenateIterator[str]:
        yield prompt
"""


def test_a_model_that_dies_ends_it_with_the_reason(
    tiny_merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself would stay, and refuse every request."""
    monkeypatch.setattr(serve, "LOOK_SECONDS", 0.05)
    (tmp_path / "predict.py").write_text(PREDICTOR.format(setup="pass"))  # without torch, which is no part of this
    with serve._started(tiny_merged, 0, "127.0.0.1", tmp_path) as server:
        worker = psutil.Process(server.process.pid).children(recursive=True)[-1]
        worker.kill()
        with pytest.raises(ServerError, match=r"^the model's process died"):
            server.wait_until_it_ends()


def test_what_setting_up_says_is_the_reason(tiny_merged: Path, tmp_path: Path) -> None:
    (tmp_path / "predict.py").write_text(PREDICTOR.format(setup="raise WeightsError('shard 3: other bytes')"))
    with (
        pytest.raises(ServerError, match=r"^the model could not be set up: shard 3: other bytes$"),
        serve.running_server(tiny_merged, context=tmp_path),
    ):
        pytest.fail("a model that cannot be set up became ready")


@pytest.mark.exhaustive
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


def test_a_predictor_that_does_not_load_fails_with_its_exception(tiny_merged: Path, tmp_path: Path) -> None:
    (tmp_path / "predict.py").write_text("import nowhere\n")
    with (
        pytest.raises(ServerError, match=r"^the model could not be set up: .*No module named 'nowhere'$"),
        serve.running_server(tiny_merged, context=tmp_path),
    ):
        pytest.fail("a predictor that does not load became ready")


@pytest.mark.parametrize("flag", [[], ["--weights"]])
def test_a_wrong_folder_is_told_before_anything_starts(
    flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", *flag, str(tmp_path / "nowhere")]) == 1
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_truncated_weights_are_told_before_anything_starts(
    tiny_merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(tiny_merged, tmp_path / "merged"))
    os.truncate(folder / "model.safetensors", 1000)
    assert cli.main(["serve", str(folder)]) == 1
    assert "model.safetensors: 1,000 bytes" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(tiny_merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", str(tiny_merged), "--port", str(port)]) == 1
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_nobody_there_is_one_line() -> None:
    with pytest.raises(ServerError, match=r"^http://127\.0\.0\.1:9.*: no answer"):
        predict("http://127.0.0.1:9", "hey")


@pytest.mark.parametrize("content", [b"dear diary\n", b"\x00\x01", b'{"level": "info"}\n'])
def test_a_file_that_is_no_log_is_left_alone(tiny_merged: Path, tmp_path: Path, content: bytes) -> None:
    log = tmp_path / "diary.txt"
    log.write_bytes(content)
    with pytest.raises(UsageError, match="not a log of ghost serve"), serve.running_server(tiny_merged, log=log):
        pass
    assert log.read_bytes() == content
