"""`ghost serve`: run Cog's HTTP server on a merged folder, without Docker, and OpenAI's API beside it (--openai).

The tests, the demo and `ghost serve` all run the server that runs in the image, on an address of its own, behind the
port of door.py.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import replicate_deployment
from ghost.console import console, progress
from ghost.errors import ServerError, UsageError
from ghost.serving.chat.chat import add_lora, add_server_facts, read_labels, read_lora
from ghost.serving.chat.conversation import COMPLETIONS, is_gguf, is_server
from ghost.serving.client import SERVERS, backend, check
from ghost.serving.client.prediction import is_loopback, reason
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.settings import Settings

if TYPE_CHECKING:
    from ghost.serving.door import Door

# The OpenAPI document that the Cog CLI puts into an image, built without the CLI.
#
# Without `.cog/openapi_schema.json` in its working folder Cog's server validates no input and does not stream. The CLI
# parses predict.py; here the SDK's own inspector imports it. That inspector is private: only this function uses it, and
# a test checks its output.

SCHEMA_PATH = ".cog/openapi_schema.json"


def openapi() -> dict[str, Any]:
    """The parts of the document that the server reads, in the CLI's layout.

    The server refuses `seed: null`, the default of this document: it validates by JSON Schema, which ignores
    `nullable`. Clients leave the key out.
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
        "x-cog-streaming": True,  # as the CLI writes for @streaming on `run`; enables server-sent events
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
    facts = {"default": field.default, "description": field.description, "minimum": field.ge, "maximum": field.le}
    title = field.name.replace("_", " ").title()
    found = {name: value for name, value in facts.items() if value is not None}
    if _optional(field):
        found |= {"default": field.default, "nullable": True}
    return {"x-order": field.order, "title": title, **field.type.json_type(), **found}


def _json(schema: dict[str, str]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


CONTEXT = Path(replicate_deployment.__file__).parent
PORT = 5050  # Cog's default 5000, which the image uses, is taken by AirPlay on macOS
LOOPBACK = "127.0.0.1"
KEY = "GHOST_API_KEY"  # a secret in the environment, as REPLICATE_API_TOKEN
DRAIN_SECONDS = 10  # for a running prediction after SIGTERM; then the server is killed
CLOSED = ("shutdown", "webhook")  # what Cog's server offers and only --allow opens
# Ports that browsers refuse to open ("bad ports" of the Fetch standard), so that no page gets around door.py.
PRIVATE_PORTS = (1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6697, 10080)
# The variables that Cog's server gets, by how they begin: what Python, torch and the compilers read. No token, proxy or
# address to report to.
ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_", "TZ", "XDG_CACHE_HOME", "LD_", "DYLD_"),
    *("PYTHON", "VIRTUAL_ENV"),
    *("CUDA", "NVIDIA_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "TORCH", "PYTORCH_", "TRITON_", "CC", "CXX", "BNB_"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_", "TRANSFORMERS_", "TOKENIZERS_"),
    *("USE_HUB_KERNELS", "DO_NOT_TRACK", "COG_LOG_LEVEL"),
)
# Cog's server; it ends when its standard input does, so that neither it nor its worker outlives a ghost that is killed.
COG = """
import os, runpy, signal, threading

def end():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL) if hasattr(os, "killpg") else os._exit(1)

threading.Thread(target=end, daemon=True).start()
runpy.run_module("cog.server.http", run_name="__main__", alter_sys=True)
"""
LOOK_SECONDS = 2  # between two health checks
HEALTH_SECONDS = 10  # timeout of a health check
EVERYWHERE = "0.0.0.0"  # not an address to connect to
# No proxy: the server is on this machine, where a proxy from the environment cannot reach it.
_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        default="models/merged",
        metavar="MODEL",
        help=f"a merged model, or a GGUF file; with --openai also a server: {SERVERS} (default: %(default)s)",
    )
    parser.add_argument("--weights", metavar="FOLDER", help="the same as MODEL")
    add_lora(parser)
    parser.add_argument("--port", type=int, default=PORT, help="0 picks a free one (default: %(default)s)")
    parser.add_argument(
        "--openai",
        type=int,
        metavar="PORT",
        help=f"also serve OpenAI's API there; {KEY} sets its key (docs/clients.md)",
    )
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        help="0.0.0.0 lets other machines in, with --openai to that port alone (default: %(default)s)",
    )
    add_server_facts(parser)
    parser.add_argument(
        "--load-in-4bit",
        action="store_true",
        help="a third of the memory; replies change slightly. For a GPU: on a CPU serve a GGUF file (ghost export)",
    )
    parser.add_argument(
        "--allow",
        nargs="+",
        default=[],
        choices=CLOSED,
        metavar="WHAT",
        help="open what Cog offers and we close: shutdown (POST /shutdown), webhook (posts replies to any address)",
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the server's log; it contains no messages")


def run(args: argparse.Namespace) -> int:
    args.model = args.weights or args.model
    remote, labels, key = is_server(args.model), read_labels(args.labels), os.environ.get(KEY, "").strip()
    if remote and (args.openai is None or args.log or args.load_in_4bit or args.allow):
        raise UsageError(
            f"{args.model} is a server already; add --openai PORT, and no --log, --load-in-4bit or --allow"
        )
    lora = read_lora(args.lora, args.model)
    if args.load_in_4bit:
        refuse_4bit(args.model)
    ghost = None
    if not remote:
        ghost = read_model(Path(args.model), lora)
    elif args.model.startswith(COMPLETIONS):
        ghost = ghost_json.read(args.ghost)
    if labels and ghost:
        told = ghost.folder if is_gguf(args.model) else ghost.folder / ghost_json.NAME
        raise UsageError(f"--labels works with Cog servers and Replicate only; {told} has the labels")
    with ExitStack() as stack:
        listener = server = None
        if args.openai is not None:  # now, not after minutes of loading
            listener = stack.enter_context(_listening(args.host, args.openai, "--openai"))
        if remote:
            check(args.model, args.ghost)
        else:
            host = LOOPBACK if listener else args.host  # other machines must not get around the key
            with progress("loading the model"):
                server = stack.enter_context(
                    _started(
                        Path(args.model),
                        args.port,
                        host,
                        log=args.log,
                        load_in_4bit=args.load_in_4bit,
                        allowed=args.allow,
                        lora=lora,
                    )
                )
            body = json.dumps({"input": {"prompt": "hey"}})
            curl = ["curl", f"{server.url}/predictions", "-H", "Content-Type: application/json", "-d", body]
            console.print(f"ready; press Ctrl-C to stop. Try:\n{shlex.join(curl)}")
            stream = [*curl, "-N", "-H", "Accept: text/event-stream"]
            console.print(f"or, to stream the reply:\n{shlex.join(stream)}")
        if listener:
            from ghost.serving import guard, openai_api

            api = openai_api.Api(
                backend(server.url if server else args.model, args.ghost),
                _name(str(lora or args.model)),
                ghost.labels if ghost else labels or Labels(),
                ghost.settings if ghost else Settings(),
            )
            stack.enter_context(guard.running(api.app(args.host, key), listener, api.backend, openai_api.guarded))
            url = f"{_url(args.host, listener.getsockname()[1])}/v1"
            console.print(f"OpenAI's API: {url} (model {api.name}); press Ctrl-C to stop")
        if not is_loopback(args.host) and not (listener and key):
            hint = f"set {KEY}" if listener else "there is no password"
            console.print(f"anyone who can reach {args.host} can talk to it: {hint}")
        try:
            if server:
                server.wait_until_it_ends()
            threading.Event().wait()
        except KeyboardInterrupt:  # Ctrl-C, or a signal that ghost/cli.py turns into one
            pass
    return 0


def read_model(model: Path, lora: Path | None) -> Ghost:
    """Return the facts of a merged folder, or of a GGUF file and the adapter over it.

    Raises WeightsError when it cannot be served. The server checks the hashes of a folder when it loads the files, so
    only sizes are checked here. Raises ModuleNotFoundError when what loads a folder is not installed.
    """
    if is_gguf(str(model)):
        from ghost.serving.llama_cpp import read_ghost

        return read_ghost(model, lora)
    ghost_json.verify(ghost := ghost_json.read_merged(model), hashes=False)
    for package in ("torch", "transformers"):  # which a GGUF file does without
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(name=package)
    return ghost


def refuse_4bit(model: str) -> None:
    """Raises UsageError for a GGUF file, and without a GPU."""
    if is_gguf(model):
        raise UsageError(f"{model} is rounded already; leave out --load-in-4bit")
    import torch

    if not torch.cuda.is_available():
        raise UsageError(
            "--load-in-4bit is for a GPU; on a CPU llama.cpp is at least four times as fast. Serve a GGUF file: "
            f"ghost export {shlex.quote(model)} --gguf q4_0, then ghost serve models/gguf/ghost-q4_0.gguf"
        )


def _name(model: str) -> str:
    """Return the name that clients choose: that of the folder or file, or of the model or host in an address."""
    place = model.removesuffix("/v1") if is_server(model) else str(Path(model).resolve())
    return re.split("[/#]", place)[-1].partition(":")[0].removesuffix(".gguf")


@contextmanager
def running_server(weights: Path, *, context: Path = CONTEXT, log: Path | None = None) -> Iterator[str]:
    """Yield the base URL of a READY server on a free port of this machine and stop it at the end of the block.

    `context` is the folder whose predict.py is served, `log` the file for the server's output. Raises WeightsError when
    the weights cannot be served, ServerError when the server does not become ready.
    """
    with _started(weights, 0, LOOPBACK, context, log) as server:
        yield server.url


@dataclass
class _Server:
    """Cog's server behind `door`, at `url` for everybody else. `launch` starts it again."""

    launch: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]
    door: "Door"
    url: str
    log: Path

    def wait_until_ready(self) -> None:
        while True:
            if self.process.poll() is not None:
                raise ServerError(f"Cog's server ended during start-up: {self.last_words()}")
            health = _health(_url(self.door.host, self.door.port)) or {"status": "STARTING"}
            if health["status"] == "READY":
                self.door.reset()
                return
            # The process stays up and answers 503 from now on; it does not recover.
            if health["status"] == "SETUP_FAILED":
                cause = reason(health["setup"]["logs"]).rpartition("Setup failed: ")[2]
                raise ServerError(f"the model could not be set up: {cause}")
            time.sleep(0.1)

    def wait_until_it_ends(self) -> None:
        """Start it again whenever it is stuck. Return when it has been asked to shut down.

        Raises ServerError when it ends, or when its worker dies: it then refuses every request.
        """
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if not (code := self.process.wait(LOOK_SECONDS)):
                    return
                raise ServerError(f"Cog's server ended with code {code}: {self.last_words()}")
            left = self.door.left()
            status = (_health(_url(self.door.host, self.door.port)) or {}).get("status")
            if status == "UNHEALTHY":
                raise ServerError(f"the model's process died (out of memory?). Last output: {self.last_words()}")
            if self.door.stuck(status, left):
                console.print("the model's process was stuck; loading the model again")
                self.door.ready = False
                self.stop(seconds=0)
                self.process = self.launch()
                self.wait_until_ready()

    def last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[1:]
        try:
            return str(json.loads(lines[-1])["fields"]["message"])
        except (ValueError, KeyError, TypeError):  # a traceback, from before the server logs in JSON
            return lines[-1]
        except IndexError:
            return "it printed nothing"

    def stop(self, seconds: float = DRAIN_SECONDS) -> None:
        """Let a running prediction go on for so long; then kill the server."""
        with self.process:  # waits, and closes our end of its pipe
            if seconds:
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    if self.process.wait(seconds) == 0:
                        return
            if sys.platform == "win32":
                self.process.kill()
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)  # includes a worker that outlived its server


@contextmanager
def _started(
    weights: Path,
    port: int,
    host: str,
    context: Path = CONTEXT,
    log: Path | None = None,
    load_in_4bit: bool = False,
    allowed: Collection[str] = (),
    lora: Path | None = None,
) -> Iterator[_Server]:
    from ghost.serving import door, guard

    ghost = read_model(weights, lora)
    predictor = Path(__file__).with_name("llama_cpp.py") if is_gguf(str(weights)) else context.resolve() / "predict.py"
    programs = Path(sys.executable).parent
    if not any((programs / name).exists() for name in ("python", "python.exe")):
        raise ServerError(f"{programs} has no `python`, which Cog needs for its worker: run ghost from a virtual env")
    with ExitStack() as stack:
        listener = stack.enter_context(_listening(host, port, "--port"))
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ghost-serve-")))
        document, scratch = own / SCHEMA_PATH, own / "t"
        document.parent.mkdir()
        document.write_text(json.dumps(openapi()), encoding="utf-8")
        private = _private_address()
        environment = {name: value for name, value in os.environ.items() if name.startswith(ENVIRONMENT)} | {
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
            "PORT": str(private[1]),
            "COG_PREDICT_TYPE_STUB": f"{predictor}:Predictor",
            "GHOST_WEIGHTS": str(weights.resolve()),
            "GHOST_LORA": str(lora.resolve()) if lora else "",
            "TMPDIR": str(scratch),
        }
        if load_in_4bit:
            environment["GHOST_LOAD_IN_4BIT"] = "1"
        if not log:
            environment["COG_LOG_LEVEL"] = "warn"  # else it writes 400 bytes a prediction, for as long as it runs
        log = log or own / "server.log"
        output = stack.enter_context(_open_log(log))

        def launch() -> "subprocess.Popen[bytes]":
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            return subprocess.Popen(
                [sys.executable, "-c", COG, "--host", private[0]],
                cwd=own,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches ghost only, which then lets the server finish
            )

        front = door.Door(*private, ghost.settings.max_new_tokens, allowed)
        server = _Server(launch, launch(), front, _url(host, listener.getsockname()[1]), log)
        stack.callback(front.reset)
        stack.callback(lambda: server.stop())
        stack.enter_context(guard.running(front.app(host), listener))
        server.wait_until_ready()
        yield server


def _private_address() -> tuple[str, int]:
    """Find an address for Cog's server that no browser can reach. Raises ServerError when all are taken.

    Linux has 2^24 loopback addresses, so each server can have the first port on one of its own; macOS has one.
    """
    for port in PRIVATE_PORTS:
        for host in (f"127.{'.'.join(str(1 + secrets.randbelow(254)) for _ in range(3))}", LOOPBACK):
            with contextlib.suppress(OSError), socket.create_server((host, port)):
                return host, port
    raise ServerError("no private port is free for Cog's server; stop another ghost serve")


LOG = b"log of ghost serve\n"  # the first line, by which the next run knows the file


def _open_log(path: Path) -> IO[bytes]:
    """Begin a log anew. Raises UsageError if the file holds something else."""
    if path.exists():
        begins = None
        if path.is_file():
            with path.open("rb") as stream:
                begins = stream.read(len(LOG))
        if begins not in (LOG, b""):
            raise UsageError(f"--log {path}: not a log of ghost serve; name another file, or move it away")
    output = path.open("wb", buffering=0)
    output.write(LOG)
    return output


def _url(host: str, port: int) -> str:
    return f"http://{LOOPBACK if host == EVERYWHERE else host}:{port}"


def _listening(host: str, port: int, flag: str) -> socket.socket:
    """Raises ServerError when it cannot be listened on, naming the flag that chooses another port."""
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise ServerError(f"cannot listen on {host}:{port} ({error}); choose another with {flag}") from error


def free_port(host: str, port: int) -> int:
    """`port`, or a free one for 0. Raises ServerError when it cannot be listened on."""
    with _listening(host, port, "--port") as probe:
        return int(probe.getsockname()[1])


def _health(url: str) -> dict[str, Any] | None:
    """The health check's answer; None while nothing listens."""

    try:
        with _http.open(f"{url}/health-check", timeout=HEALTH_SECONDS) as answer:
            return dict(json.load(answer))
    except (OSError, ValueError):
        return None
