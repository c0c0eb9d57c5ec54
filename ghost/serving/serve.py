"""`ghost serve`: Cog's own HTTP server on a merged folder, without Docker.

The server under tests, demo and `ghost serve` is the one that runs in the image.
"""

import argparse
import contextlib
import ipaddress
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
from typing import Any, NoReturn

import replicate_deployment
from ghost.console import console, progress
from ghost.errors import ServerError
from ghost.serving.client.prediction import reason
from replicate_deployment import ghost_json

# The OpenAPI document that the Cog CLI puts into an image, made without the CLI.
#
# Without `.cog/openapi_schema.json` in its working folder Cog's server validates no input and streams nothing. The CLI
# reads predict.py's source; here the SDK's own inspector imports it. That inspector is private: it is used in this one
# function, and a test holds what comes out.

SCHEMA_PATH = ".cog/openapi_schema.json"


def openapi() -> dict[str, Any]:
    """The parts of the document that the server reads, laid out as the CLI lays them out.

    `seed: null` is refused although `seed` is nullable: the server validates by JSON Schema, which does not know that
    word. Clients leave the key out.
    """
    from cog._inspector import create_predictor

    predictor = create_predictor("replicate_deployment.predict", "Predictor")
    fields = predictor.inputs.values()
    inputs = {
        "title": "Input",
        "type": "object",
        "properties": {field.name: _property(field) for field in fields},
        "required": [field.name for field in fields if field.default is None and not _optional(field)],
    }
    response = {
        "title": "PredictionResponse",
        "type": "object",
        "properties": {
            "input": {"$ref": "#/components/schemas/Input"},
            "output": {"$ref": "#/components/schemas/Output"},
            "status": {"type": "string", "enum": ["starting", "processing", "succeeded", "canceled", "failed"]},
            "error": {"type": "string"},
            "metrics": {"type": "object"},
        },
    }
    request = {"type": "object", "properties": {"input": {"$ref": "#/components/schemas/Input"}}}
    predict = {
        "summary": "Predict",
        "operationId": "predict_predictions_post",
        "requestBody": {"content": _json({"$ref": "#/components/schemas/PredictionRequest"})},
        "responses": {
            "200": {"description": "Done", "content": _json({"$ref": "#/components/schemas/PredictionResponse"})},
            "422": {"description": "An input is invalid"},
        },
        "x-cog-streaming": True,  # what @streaming on `run` makes the CLI write; it opens server-sent events
    }
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": {"/predictions": {"post": predict}},
        "components": {
            "schemas": {
                "Input": inputs,
                "Output": predictor.output.json_type(),
                "PredictionRequest": request,
                "PredictionResponse": response,
            }
        },
    }


def _optional(field: Any) -> bool:
    return str(field.type.repetition.name).startswith("OPTIONAL")


def _property(field: Any) -> dict[str, Any]:
    facts = {
        "default": field.default,
        "description": field.description,
        "minimum": field.ge,
        "maximum": field.le,
        "nullable": _optional(field) or None,
    }
    title = field.name.replace("_", " ").title()
    found = {name: value for name, value in facts.items() if value is not None}
    return {"x-order": field.order, "title": title, **field.type.json_type(), **found}


def _json(schema: dict[str, str]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


CONTEXT = Path(replicate_deployment.__file__).parent
PORT = 5050  # Cog's own 5000, which the image has, is AirPlay's on a Mac
DRAIN_SECONDS = 10  # for a running prediction, after SIGTERM; then the server is killed
LOOK_SECONDS = 2  # between two looks at whether the worker lives
HEALTH_SECONDS = 10  # for the answer to a look
EVERYWHERE = "0.0.0.0"  # not an address that can be asked
# No proxy: the server is this machine's, and a proxy set in the environment would not reach it.
_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, default=Path("models/merged"), help="default: %(default)s")
    parser.add_argument("--port", type=int, default=PORT, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: %(default)s)")
    parser.add_argument("--load-in-4bit", action="store_true", help="a third of the memory, another voice by a little")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the server's log; it holds no messages")


def run(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        with progress("loading the model"):
            server = stack.enter_context(
                _started(args.weights, args.port, args.host, log=args.log, load_in_4bit=args.load_in_4bit)
            )
        body = json.dumps({"input": {"prompt": "hey"}})
        curl = ["curl", f"{server.url}/predictions", "-H", "Content-Type: application/json", "-d", body]
        console.print(f"ready; Ctrl-C ends it. Try:\n{shlex.join(curl)}", soft_wrap=True)
        stream = [*curl, "-N", "-H", "Accept: text/event-stream"]
        console.print(f"or, to see it being written:\n{shlex.join(stream)}", soft_wrap=True)
        if not _only_this_machine(args.host):
            console.print(f"anyone who reaches {args.host} can talk to it: there is no password", soft_wrap=True)
        try:
            server.wait_until_it_ends()
        except KeyboardInterrupt:  # Ctrl-C, or a signal that ghost/cli.py turns into it
            return 0


@contextmanager
def running_server(
    weights: Path, port: int = 0, host: str = "127.0.0.1", *, context: Path = CONTEXT, log: Path | None = None
) -> Iterator[str]:
    """The base URL of a server that is READY, and that ends with the block; port 0 takes a free one.

    `context` is the folder whose predict.py is served, `log` where what the server says is kept. Raises WeightsError
    when the weights cannot be served, ServerError when the server does not become ready.
    """
    with _started(weights, port, host, context, log) as server:
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
                cause = reason(health["setup"]["logs"]).rpartition("Setup failed: ")[2]
                raise ServerError(f"the model could not be set up: {cause}")
            time.sleep(0.1)

    def wait_until_it_ends(self) -> NoReturn:
        """Raises ServerError when it does, or when its worker has: then the process stays, and refuses everything."""
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.process.wait(LOOK_SECONDS)
                raise ServerError(f"Cog's server ended by itself with code {code}: {self.last_words()}")
            if (_health(self.url) or {}).get("status") == "UNHEALTHY":
                raise ServerError(f"the process that holds the model died, short of memory? Last: {self.last_words()}")

    def last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        try:
            return str(json.loads(lines[-1])["fields"]["message"])
        except (ValueError, KeyError, TypeError):  # a traceback, before the server logs in JSON
            return lines[-1]
        except IndexError:
            return "it said nothing"

    def stop(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.process.wait(DRAIN_SECONDS) == 0:
                return
        if sys.platform == "win32":
            self.process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # the worker too, also when it outlived its server
        self.process.wait()


@contextmanager
def _started(
    weights: Path,
    port: int,
    host: str,
    context: Path = CONTEXT,
    log: Path | None = None,
    load_in_4bit: bool = False,
) -> Iterator[_Server]:
    # Sizes now, so that a wrong folder is told at once; the server hashes the files when it loads them.
    ghost_json.verify(ghost_json.read(weights), hashes=False)
    programs = Path(sys.executable).parent
    if not any((programs / name).exists() for name in ("python", "python.exe")):
        raise ServerError(f"{programs} has no `python`, as which Cog starts its worker: run ghost from a virtual env")
    port = free_port(host, port)
    with tempfile.TemporaryDirectory(prefix="ghost-serve-") as folder:
        document, log = Path(folder) / SCHEMA_PATH, log or Path(folder) / "server.log"
        document.parent.mkdir()
        document.write_text(json.dumps(openapi()), encoding="utf-8")
        environment = os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
            "PORT": str(port),
            "COG_PREDICT_TYPE_STUB": f"{context.resolve() / 'predict.py'}:Predictor",
            "GHOST_WEIGHTS": str(weights.resolve()),
        }
        if load_in_4bit:
            environment["GHOST_LOAD_IN_4BIT"] = "1"
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
        server = _Server(process, f"http://{'127.0.0.1' if host == EVERYWHERE else host}:{port}", log)
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.stop()


def _only_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def free_port(host: str, port: int) -> int:
    """`port`, or for 0 one that is free. Raises ServerError when it cannot be listened on."""
    try:
        with socket.create_server((host, port)) as probe:
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise ServerError(f"cannot listen on {host}:{port} ({error}); choose another with --port") from error


def _health(url: str) -> dict[str, Any] | None:
    """What the health check says; None while nobody listens."""
    try:
        with _http.open(f"{url}/health-check", timeout=HEALTH_SECONDS) as answer:
            return dict(json.load(answer))
    except (OSError, ValueError):
        return None
