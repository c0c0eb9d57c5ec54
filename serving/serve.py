"""`ghost serve`: Cog's own HTTP server on a merged folder, without Docker.

The server under tests, demo and `ghost serve` is the one that runs in the image.
"""

import argparse
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import replicate_deployment
from replicate_deployment import ghost_json, schema
from serving.client.transport import reason
from training.console import console, progress
from training.errors import ServerError

PREDICTOR = Path(replicate_deployment.__file__).parent / "predict.py"
DRAIN_SECONDS = 10  # for a running prediction, after SIGTERM; then the server is killed
# No proxy: the server is this machine's, and a proxy set in the environment would not reach it.
_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, default=Path("models/merged"), help="default: %(default)s")
    parser.add_argument("--port", type=int, default=5000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        with progress("loading the model"):
            server = stack.enter_context(_started(args.weights, args.port, args.host))
        body = json.dumps({"input": {"prompt": "hey"}})
        line = ["curl", f"{server.url}/predictions", "-H", "Content-Type: application/json", "-d", body]
        console.print(f"ready; Ctrl-C ends it. Try:\n{shlex.join(line)}", soft_wrap=True)
        try:
            code = server.process.wait()
        except KeyboardInterrupt:  # Ctrl-C, or a signal that training/cli.py turns into it
            return 0
        raise ServerError(f"Cog's server ended by itself with code {code}: {server.last_words()}")


@contextmanager
def running_server(weights: Path, port: int = 0, host: str = "127.0.0.1") -> Iterator[str]:
    """The base URL of a server that is READY, and that ends with the block; port 0 takes a free one.

    Raises WeightsError when the folder cannot be served, ServerError when the server does not become ready.
    """
    with _started(weights, port, host) as server:
        yield server.url


@dataclass(frozen=True)
class _Server:
    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def wait_until_ready(self) -> None:
        while True:
            if self.process.poll() is not None:
                raise ServerError(f"Cog's server ended while it started: {self.last_words()}")
            health = _health(self.url) or {"status": "STARTING"}
            if health["status"] == "READY":
                return
            # The process stays up and answers 503 after this; it will not recover.
            if health["status"] == "SETUP_FAILED":
                raise ServerError(f"the model could not be set up: {reason(health['setup']['logs'])}")
            time.sleep(0.1)

    def last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # the worker too
            self.process.wait()


@contextmanager
def _started(weights: Path, port: int, host: str) -> Iterator[_Server]:
    # Sizes now, so that a wrong folder is told at once; the server hashes the files when it loads them.
    ghost_json.verify(ghost_json.read(weights), hashes=False)
    programs = Path(sys.executable).parent
    if not (programs / "python").exists():
        raise ServerError(f"{programs} has no `python`, as which Cog starts its worker: run ghost from a virtual env")
    port = _free_port(host, port)
    with tempfile.TemporaryDirectory(prefix="ghost-serve-") as folder:
        document, log = Path(folder) / schema.PATH, Path(folder) / "server.log"
        document.parent.mkdir()
        document.write_text(json.dumps(schema.openapi()), encoding="utf-8")
        environment = os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
            "PORT": str(port),
            "COG_PREDICT_TYPE_STUB": f"{PREDICTOR}:Predictor",
            "GHOST_WEIGHTS": str(weights.resolve()),
        }
        command = [sys.executable, "-m", "cog.server.http", "--host", host]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches ghost only, which then lets the server finish
            )
        server = _Server(process, f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}", log)
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.stop()


def _free_port(host: str, port: int) -> int:
    try:
        with socket.create_server((host, port)) as probe:
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise ServerError(f"cannot listen on {host}:{port} ({error}); choose another with --port") from error


def _health(url: str) -> dict[str, Any] | None:
    """What the health check says; None while nobody listens."""
    try:
        with _http.open(f"{url}/health-check") as answer:
            return dict(json.load(answer))
    except (OSError, ValueError):
        return None
